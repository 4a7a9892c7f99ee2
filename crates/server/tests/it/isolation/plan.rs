//! What each route is, and the call that succeeds for its owner.

use serde_json::{Value, json};

use super::{
    After, Plan, Probe,
    scene::{Scene, at, import_of, post, reason, sign, weekly},
};
use crate::support::{Call, Lab, at_once};

fn admin(lab: &Lab) -> &str {
    &lab.admin
}
fn receptionist(lab: &Lab) -> &str {
    &lab.receptionist
}
fn technician(lab: &Lab) -> &str {
    &lab.technician
}
fn supervisor(lab: &Lab) -> &str {
    &lab.supervisor
}

fn second_supervisor(lab: &Lab) -> &str {
    &lab.second_supervisor
}

fn probe(role: fn(&Lab) -> &str, call: Call, ok: u16) -> Probe {
    Probe { role, call, ok }
}

fn names(role: fn(&Lab) -> &str, call: Call) -> Plan {
    Plan::Names(vec![probe(role, call, 200)])
}

fn lists(role: fn(&Lab) -> &str, path: &str) -> Plan {
    Plan::Lists(vec![probe(role, Call::new("GET", path), 200)])
}

/// The plan of a route; `None` when nobody has thought of it yet.
pub(super) async fn plan(scene: &Scene, method: &str, path: &str) -> Option<Plan> {
    if let Some(plan) = service(method, path) {
        return Some(plan);
    }
    if let Some(plan) = operators(scene, method, path).await {
        return Some(plan);
    }
    if let Some(plan) = webhooks(scene, method, path).await {
        return Some(plan);
    }
    if let Some(plan) = people(scene, method, path).await {
        return Some(plan);
    }
    if let Some(plan) = bench(scene, method, path).await {
        return Some(plan);
    }
    results(scene, method, path).await
}

fn service(method: &str, path: &str) -> Option<Plan> {
    Some(match (method, path) {
        ("GET", "/livez") => Plan::Service("/livez"),
        ("GET", "/readyz") => Plan::Service("/readyz"),
        ("GET", "/metrics") => Plan::Service("/metrics"),
        ("GET", "/problems") => Plan::Service("/problems"),
        ("GET", "/problems/{code}") => Plan::Service("/problems/not-found"),
        ("GET", "/invitation") => Plan::Service("/invitation"),
        ("POST", "/api/v1/auth/login" | "/api/v1/operators/login") => Plan::LogIn,
        ("POST", "/api/v1/auth/invitations/accept") => Plan::Accepts,
        ("POST", "/api/v1/auth/logout") => Plan::LogsOut,
        ("POST", "/api/v1/me/password") => Plan::OwnPassword,
        ("GET", "/api/v1/me") => lists(technician, "/api/v1/me"),
        _ => return None,
    })
}

async fn operators(scene: &Scene, method: &str, path: &str) -> Option<Plan> {
    let tenant = |rest: &str| format!("/api/v1/tenants/{}{rest}", scene.a.id);
    let get = |path: &str| Plan::Operators(Call::new("GET", path), 200, After::Nothing);
    let post = |path: String, ok: u16, after: After| {
        Plan::Operators(Call::new("POST", path).json(&json!({})), ok, after)
    };
    Some(match (method, path) {
        ("GET", "/api/v1/tenants/{id}/health") => names(technician, Call::new("GET", tenant("/health"))),
        // The bodies of archives are looked into by a test of their own: compressed, they show nothing to
        // this one.
        ("GET", "/api/v1/tenants/{id}/export") => get(&tenant("/export")),
        ("GET", "/api/v1/doctor") => get("/api/v1/doctor?deep=true"),
        ("POST", "/api/v1/doctor/fixes") => post(path.to_owned(), 200, After::Nothing),
        (
            "GET",
            "/api/v1/tenants" | "/api/v1/operations" | "/api/v1/archives" | "/api/v1/backup-schedules",
        ) => get(path),
        ("GET", "/api/v1/tenants/{id}") => get(&tenant("")),
        ("GET", "/api/v1/tenants/{id}/admins") => get(&tenant("/admins")),
        ("POST", "/api/v1/tenants/{id}/admins/{adminId}/invitation") => {
            let admin = scene.admin().await;
            let path = tenant(&format!("/admins/{}/invitation", admin["id"].as_str().unwrap()));
            post(path, 201, After::Nothing)
        }
        ("DELETE", "/api/v1/tenants/{id}/admins/{adminId}/invitation") => {
            let admin = scene.admin().await;
            let path = tenant(&format!("/admins/{}/invitation", admin["id"].as_str().unwrap()));
            Plan::Operators(Call::new("DELETE", path), 204, After::Nothing)
        }
        ("GET", "/api/v1/archives/{id}") => get(&at("archives", &scene.archive().await, "")),
        ("POST", "/api/v1/archives/{id}/verify") => {
            let archive = scene.archive().await;
            post(at("archives", &archive, "/verify"), 202, After::Finish)
        }
        ("POST", "/api/v1/archives/{id}/restore") => {
            let path = at("archives", &scene.archive().await, "/restore");
            let call = Call::new("POST", path).json(&json!({ "as": "acme-again" }));
            Plan::Operators(call, 202, After::Finish)
        }
        ("POST", "/api/v1/archives/prune") => post(path.to_owned(), 200, After::Nothing),
        ("POST", "/api/v1/archives/import") => {
            let archive = scene.archive().await;
            let call = Call::new("POST", path).json(&json!({ "location": archive["location"] }));
            // It is recorded already.
            Plan::Operators(call, 409, After::Nothing)
        }
        ("POST", "/api/v1/tenants/{id}/backups") => {
            // Behind the backup that A's schedule may have begun.
            scene.archive().await;
            post(tenant("/backups"), 202, After::Finish)
        }
        ("GET", "/api/v1/tenants/{id}/backup-schedule") => {
            scene.schedule().await;
            get(&tenant("/backup-schedule"))
        }
        ("PUT", "/api/v1/tenants/{id}/backup-schedule") => {
            let call = Call::new("PUT", tenant("/backup-schedule")).json(&weekly());
            Plan::Operators(call, 200, After::Nothing)
        }
        ("DELETE", "/api/v1/tenants/{id}/backup-schedule") => {
            let call = Call::new("DELETE", tenant("/backup-schedule"));
            Plan::Operators(call, 204, After::Nothing)
        }
        ("GET", "/api/v1/operations/{id}") => get(&at("operations", &scene.operation().await, "")),
        ("POST", "/api/v1/tenants") => {
            let body = crate::support::new_lab("evil-lab");
            Plan::Operators(Call::new("POST", path).json(&body), 202, After::Finish)
        }
        // There is no such database, so the operator is told so.
        ("POST", "/api/v1/tenants/adopt") => {
            let body = json!({ "database": "no_such_database", "slug": "evil-lab" });
            Plan::Operators(Call::new("POST", path).json(&body), 422, After::Nothing)
        }
        ("POST", "/api/v1/tenants/{id}/suspend") => post(tenant("/suspend"), 200, After::Resume),
        ("POST", "/api/v1/tenants/{id}/resume") => {
            scene.suspend().await;
            post(tenant("/resume"), 200, After::Serve)
        }
        ("POST", "/api/v1/tenants/{id}/migrate") => {
            scene.idle().await;
            post(tenant("/migrate"), 202, After::Finish)
        }
        ("POST", "/api/v1/operations/{id}/cancel") => {
            let removal = scene.removal().await;
            post(at("operations", &removal, "/cancel"), 202, After::Serve)
        }
        // Nothing of A's waits, so the operator is told so.
        ("POST", "/api/v1/operations/{id}/end-grace") => {
            let path = at("operations", &scene.operation().await, "/end-grace");
            let call = Call::new("POST", path).json(&json!({ "confirmSlug": scene.a.slug }));
            Plan::Operators(call, 409, After::Nothing)
        }
        // Nothing of A's has failed, so its owner is told so.
        ("POST", "/api/v1/operations/{id}/retry") => {
            let done = scene.operation().await;
            post(at("operations", &done, "/retry"), 409, After::Nothing)
        }
        // A's database is there, so the operator is told so.
        ("POST", "/api/v1/tenants/{id}/forget") => {
            let call = Call::new("POST", tenant("/forget")).json(&json!({ "confirmSlug": scene.a.slug }));
            Plan::Operators(call, 409, After::Nothing)
        }
        ("POST", "/api/v1/tenants/{id}/offboard") => {
            scene.idle().await;
            let call = Call::new("POST", tenant("/offboard")).json(&at_once(&scene.a.slug));
            Plan::Operators(call, 202, After::Finish)
        }
        _ => return None,
    })
}

async fn webhooks(scene: &Scene, method: &str, path: &str) -> Option<Plan> {
    let operators = |call: Call, ok: u16| Some(Plan::Operators(call.json(&json!({})), ok, After::Nothing));
    let webhook = async |rest: &str| at("webhooks", &scene.webhook().await, rest);
    match (method, path) {
        ("GET", "/api/v1/webhooks") => operators(Call::new("GET", path), 200),
        ("POST", "/api/v1/webhooks") => {
            let call = Call::new("POST", path).json(&Scene::new_webhook());
            Some(Plan::Operators(call, 201, After::Nothing))
        }
        ("GET", "/api/v1/webhooks/{id}") => operators(Call::new("GET", webhook("").await), 200),
        ("DELETE", "/api/v1/webhooks/{id}") => operators(Call::new("DELETE", webhook("").await), 204),
        ("GET", "/api/v1/webhooks/{id}/deliveries") => {
            operators(Call::new("GET", webhook("/deliveries").await), 200)
        }
        ("POST", "/api/v1/webhooks/{id}/rotate") => {
            operators(Call::new("POST", webhook("/rotate").await), 200)
        }
        ("POST", "/api/v1/webhooks/{id}/enable") => {
            operators(Call::new("POST", webhook("/enable").await), 200)
        }
        ("POST", "/api/v1/webhooks/{id}/disable") => {
            operators(Call::new("POST", webhook("/disable").await), 200)
        }
        ("POST", "/api/v1/webhooks/{id}/test") => operators(Call::new("POST", webhook("/test").await), 202),
        ("GET", "/api/v1/webhook-deliveries/{id}") => {
            let delivery = scene.delivery().await;
            operators(Call::new("GET", at("webhook-deliveries", &delivery, "")), 200)
        }
        ("POST", "/api/v1/webhook-deliveries/{id}/redeliver") => {
            let delivery = scene.delivery().await;
            operators(
                Call::new("POST", at("webhook-deliveries", &delivery, "/redeliver")),
                202,
            )
        }
        _ => None,
    }
}

async fn people(scene: &Scene, method: &str, path: &str) -> Option<Plan> {
    Some(match (method, path) {
        ("POST", "/api/v1/patients") => {
            let body =
                json!({ "familyName": "Own", "givenName": "Ada", "sex": "F", "birthDate": "1980-04-01" });
            Plan::Makes(vec![probe(receptionist, post(path.into(), &body), 201)])
        }
        ("GET", "/api/v1/patients") => {
            let patient = scene.patient().await;
            let query = format!("/api/v1/patients?q={}", patient["mrn"].as_str().unwrap());
            let call = |path: &str| probe(receptionist, Call::new("GET", path), 200);
            Plan::Lists(vec![call("/api/v1/patients"), call(&query)])
        }
        ("GET", "/api/v1/patients/{id}") => names(
            receptionist,
            Call::new("GET", at("patients", &scene.patient().await, "")),
        ),
        ("PATCH", "/api/v1/patients/{id}") => {
            let patient = scene.patient().await;
            let call = Call::new("PATCH", at("patients", &patient, "")).json(&json!({ "givenName": "Eve" }));
            names(receptionist, call.version(&patient["version"]))
        }
        ("POST", "/api/v1/patients/{id}/merge") => {
            let (from, into) = (scene.patient().await, scene.patient().await);
            let body = json!({ "into": into["id"], "reason": "registered twice" });
            names(supervisor, post(at("patients", &from, "/merge"), &body))
        }
        ("POST", "/api/v1/patients/{id}/unmerge") => {
            let (from, into) = (scene.patient().await, scene.patient().await);
            let body = json!({ "into": into["id"], "reason": "registered twice" });
            let merge = post(at("patients", &from, "/merge"), &body);
            let merged = scene.world.server.send(&merge, &scene.a.supervisor).await;
            merged.expect(200);
            names(supervisor, post(at("patients", &from, "/unmerge"), &reason()))
        }
        ("GET", "/api/v1/patients/{id}/results") => {
            let (_, result) = scene.result("released").await;
            let patient = json!({ "id": result["patientId"] });
            names(supervisor, Call::new("GET", at("patients", &patient, "/results")))
        }
        ("GET", "/api/v1/staff") => lists(admin, path),
        ("POST", "/api/v1/staff") => {
            let body = json!({ "email": "new@lab.example", "displayName": "New", "role": "technician" });
            Plan::Makes(vec![probe(admin, post(path.into(), &body), 201)])
        }
        ("GET", "/api/v1/staff/{id}") => {
            names(admin, Call::new("GET", at("staff", &scene.person().await, "")))
        }
        ("PATCH", "/api/v1/staff/{id}") => {
            let person = scene.person().await;
            let call = Call::new("PATCH", at("staff", &person, "")).json(&json!({ "active": false }));
            names(admin, call.version(&person["version"]))
        }
        ("POST", "/api/v1/staff/{id}/invitation") => {
            let path = at("staff", &scene.person().await, "/invitation");
            Plan::Names(vec![probe(admin, post(path, &json!({})), 201)])
        }
        ("DELETE", "/api/v1/staff/{id}/invitation") => {
            let path = at("staff", &scene.person().await, "/invitation");
            Plan::Names(vec![probe(admin, Call::new("DELETE", path), 204)])
        }
        ("GET", "/api/v1/profile") => lists(admin, path),
        ("PATCH", "/api/v1/profile") => {
            let call = Call::new("PATCH", path)
                .json(&json!({ "name": "Renamed" }))
                .version(&json!(1));
            Plan::Makes(vec![probe(admin, call, 200)])
        }
        ("GET", "/api/v1/audit") => {
            let patient = scene.patient().await;
            let query = format!("/api/v1/audit?entityId={}", patient["id"].as_str().unwrap());
            let call = |path: &str| probe(admin, Call::new("GET", path), 200);
            Plan::Lists(vec![call(path), call(&query)])
        }
        _ => return None,
    })
}

async fn bench(scene: &Scene, method: &str, path: &str) -> Option<Plan> {
    let barcode = |order: &Value, rest: &str| {
        format!(
            "/api/v1/specimens/{}{rest}",
            order["specimens"][0]["barcode"].as_str().unwrap()
        )
    };
    Some(match (method, path) {
        ("GET", "/api/v1/tests") => {
            scene.own_test().await;
            lists(technician, path)
        }
        ("POST", "/api/v1/tests") => {
            let body = json!({ "code": "PB2", "name": "Lead", "section": "toxicology", "specimenType": "EDTA blood",
                               "valueType": "quantity", "unit": "ug/dL", "decimals": 2 });
            Plan::Makes(vec![probe(admin, post(path.into(), &body), 201)])
        }
        ("GET", "/api/v1/tests/{code}") => names(
            technician,
            Call::new("GET", format!("/api/v1/tests/{}", scene.own_test().await)),
        ),
        ("PATCH", "/api/v1/tests/{code}") => {
            let call = Call::new("PATCH", format!("/api/v1/tests/{}", scene.own_test().await));
            names(admin, call.json(&json!({ "name": "Renamed" })).version(&json!(1)))
        }
        ("GET", "/api/v1/tests/{code}/ranges") => names(
            technician,
            Call::new("GET", format!("/api/v1/tests/{}/ranges", scene.own_test().await)),
        ),
        ("POST", "/api/v1/tests/{code}/ranges") => {
            let path = format!("/api/v1/tests/{}/ranges", scene.own_test().await);
            Plan::Names(vec![probe(
                admin,
                post(path, &json!({ "ageFrom": "P18Y", "high": "3.5" })),
                201,
            )])
        }
        ("POST", "/api/v1/ranges/{id}/close") => {
            let path = format!("/api/v1/tests/{}/ranges", scene.own_test().await);
            let range = scene
                .world
                .server
                .post(&scene.a.admin, &path, json!({ "high": "3.5" }))
                .await
                .expect(201);
            names(admin, Call::new("POST", at("ranges", &range, "/close")))
        }
        ("POST", "/api/v1/orders") => {
            let patient = scene.patient().await;
            let body =
                json!({ "patientId": patient["id"], "priority": "stat", "requester": "x", "tests": ["K"] });
            Plan::Names(vec![probe(receptionist, post(path.into(), &body), 201)])
        }
        ("GET", "/api/v1/orders") => {
            let order = scene.order().await;
            let query = format!(
                "/api/v1/orders?patientId={}",
                order["patientId"].as_str().unwrap()
            );
            let call = |path: &str| probe(receptionist, Call::new("GET", path), 200);
            Plan::Lists(vec![call(path), call(&query)])
        }
        ("GET", "/api/v1/orders/{id}") => names(
            receptionist,
            Call::new("GET", at("orders", &scene.order().await, "")),
        ),
        ("POST", "/api/v1/orders/{id}/tests") => names(
            receptionist,
            post(
                at("orders", &scene.order().await, "/tests"),
                &json!({ "tests": ["GLU"] }),
            ),
        ),
        ("POST", "/api/v1/orders/{id}/cancel") => names(
            receptionist,
            post(at("orders", &scene.order().await, "/cancel"), &reason()),
        ),
        ("GET", "/api/v1/orders/{id}/report") => {
            let (order, _) = scene.result("released").await;
            names(supervisor, Call::new("GET", at("orders", &order, "/report")))
        }
        ("GET", "/api/v1/specimens/{barcode}") => {
            names(technician, Call::new("GET", barcode(&scene.order().await, "")))
        }
        ("POST", "/api/v1/specimens/{barcode}/collect") => names(
            receptionist,
            post(barcode(&scene.order().await, "/collect"), &json!({})),
        ),
        ("POST", "/api/v1/specimens/{barcode}/receive") => names(
            technician,
            post(barcode(&scene.order().await, "/receive"), &json!({})),
        ),
        ("PATCH", "/api/v1/specimens/{barcode}") => {
            let (order, _) = scene.result("pending").await;
            let specimen = &order["specimens"][0];
            let drawn: jiff::Timestamp = specimen["collectedAt"].as_str().unwrap().parse().unwrap();
            let earlier = drawn - jiff::SignedDuration::from_mins(1);
            let body = json!({ "collectedAt": earlier, "reason": "mistyped" });
            let call = Call::new("PATCH", barcode(&order, ""));
            names(technician, call.json(&body).version(&specimen["version"]))
        }
        ("POST", "/api/v1/specimens/{barcode}/reject") => {
            let (order, _) = scene.result("pending").await;
            let body = json!({ "reason": "haemolysed", "recollect": true });
            names(technician, post(barcode(&order, "/reject"), &body))
        }
        ("POST", "/api/v1/specimens/{barcode}/dispose") => {
            let (order, _) = scene.result("released").await;
            names(technician, Call::new("POST", barcode(&order, "/dispose")))
        }
        ("GET", "/api/v1/worklist") => {
            scene.result("pending").await;
            lists(technician, path)
        }
        _ => return None,
    })
}

async fn results(scene: &Scene, method: &str, path: &str) -> Option<Plan> {
    Some(match (method, path) {
        ("GET", "/api/v1/results/{id}") => {
            let (_, result) = scene.result("released").await;
            names(technician, Call::new("GET", at("results", &result, "")))
        }
        ("PUT", "/api/v1/results/{id}/value") => {
            let (_, result) = scene.result("pending").await;
            names(technician, Lab::value_call(&result, "4.1"))
        }
        ("POST", "/api/v1/results/{id}/repeat") => {
            let (_, result) = scene.result("entered").await;
            let call = post(at("results", &result, "/repeat"), &reason());
            names(technician, call.version(&result["version"]))
        }
        ("POST", "/api/v1/results/{id}/cancel") => {
            let (_, result) = scene.result("pending").await;
            let call = post(at("results", &result, "/cancel"), &reason());
            names(technician, call.version(&result["version"]))
        }
        ("POST", "/api/v1/results/{id}/void") => {
            let (_, result) = scene.result("released").await;
            let call = post(at("results", &result, "/void"), &reason());
            names(supervisor, call.version(&result["version"]))
        }
        ("POST", "/api/v1/results/{id}/critical-notice") => {
            let (_, result) = scene.result("critical").await;
            let body = json!({ "notifiedTo": "Dr. Grey", "readBack": true });
            let call = post(at("results", &result, "/critical-notice"), &body);
            names(technician, call.version(&result["version"]))
        }
        ("GET", "/api/v1/results/{id}/history") => {
            let (_, result) = scene.result("released").await;
            names(technician, Call::new("GET", at("results", &result, "/history")))
        }
        ("POST", "/api/v1/verifications") => {
            let (_, result) = scene.result("entered").await;
            names(supervisor, sign(path, &result))
        }
        ("POST", "/api/v1/releases") => {
            let (_, result) = scene.result("verified").await;
            names(supervisor, sign(path, &result))
        }
        ("POST", "/api/v1/results/{id}/amendments") => {
            let (_, result) = scene.result("released").await;
            let body = json!({ "value": "4.2", "reason": "mixed up" });
            names(
                supervisor,
                post(at("results", &result, "/amendments"), &body).version(&result["version"]),
            )
        }
        ("GET", "/api/v1/amendments") => {
            scene.amendment().await;
            lists(supervisor, path)
        }
        ("POST", "/api/v1/amendments/{id}/withdraw") => names(
            supervisor,
            Call::new("POST", at("amendments", &scene.amendment().await, "/withdraw")),
        ),
        ("POST", "/api/v1/amendments/{id}/verify") => {
            let call = Call::new("POST", at("amendments", &scene.amendment().await, "/verify"));
            names(second_supervisor, call)
        }
        ("GET", "/api/v1/exports/results") => {
            scene.result("released").await;
            lists(supervisor, path)
        }
        ("GET", "/api/v1/exports/archive") => lists(admin, path),
        ("POST", "/api/v1/imports") => {
            let (order, _) = scene.result("pending").await;
            Plan::SetsAside(probe(technician, import_of(&order), 202))
        }
        ("GET", "/api/v1/imports/{id}") => names(
            technician,
            Call::new("GET", at("imports", &scene.import().await, "")),
        ),
        ("POST", "/api/v1/imports/{id}/retry") => names(
            technician,
            Call::new("POST", at("imports", &scene.import().await, "/retry")),
        ),
        ("GET", "/api/v1/imports/{id}/errors") => names(
            technician,
            Call::new("GET", at("imports", &scene.import().await, "/errors")),
        ),
        _ => return None,
    })
}
