//! One laboratory's token opens nothing of another's: every route of the OpenAPI document, with the very call that
//! succeeds for its owner.
//!
//! Each route has an entry in [`plan`]; one without fails the test. For a call that names something of laboratory A, B
//! (the same role) tries first: it must get 404, A's database must be unchanged to the last row, and then A's own call
//! must succeed, so that a call which is refused for a trivial reason proves nothing. Calls that name nothing of a
//! laboratory are classified as such, each with what must hold instead.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Call, Lab, PASSWORD, Reply, World, by_code};

/// What a route is, seen from another laboratory.
enum Plan {
    /// It names something of A's, by its path or its body.
    Names(Vec<Probe>),
    /// It names nothing and makes something in the caller's own laboratory: done by B, nothing of A's changes.
    Makes(Vec<Probe>),
    /// It names nothing and lists: B's list shows none of A's ids.
    Lists(Vec<Probe>),
    /// It carries things of A's that a laboratory receives from outside as text, not as references; those that match
    /// nothing are set aside.
    SetsAside(Probe),
    /// Operators only: a laboratory's token is refused with 403.
    Operators(Call),
    /// It belongs to the service itself, takes no token and shows nothing of any laboratory.
    Service(&'static str),
    /// It gives tokens: A's people are nobody in B.
    LogIn,
}

/// A call by somebody in a role, and the status that its owner gets.
struct Probe {
    role: fn(&Lab) -> &str,
    call: Call,
    ok: u16,
}

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

/// Two laboratories, and everything that is made in A as it is needed.
struct Scene {
    world: World,
    a: Lab,
    b: Lab,
}

impl Scene {
    async fn new() -> Self {
        let world = World::start().await;
        let (a, b) = (world.lab("acme-lab").await, world.lab("bravo-lab").await);
        Self { world, a, b }
    }

    async fn send(&self, lab: &Lab, probe: &Probe) -> Reply {
        self.world.server.send(&probe.call, (probe.role)(lab)).await
    }

    async fn patient(&self) -> Value {
        self.a.patient(&self.world.server).await
    }

    async fn order(&self) -> Value {
        let patient = self.patient().await;
        self.a.order(&self.world.server, &patient["id"], &["K"]).await
    }

    /// An order whose potassium stands at a status.
    async fn result(&self, status: &str) -> (Value, Value) {
        let d = &self.world.server;
        let (_, order) = self.a.received_order(d, &["K"]).await;
        let mut result = by_code(&order, "K").clone();
        if status == "pending" {
            return (order, result);
        }
        result = self
            .a
            .enter(d, &result, if status == "critical" { "6.9" } else { "4.1" })
            .await;
        if ["entered", "critical"].contains(&status) {
            return (order, result);
        }
        result = self.fresh(&self.a.verify(d, &result).await).await;
        if status == "verified" {
            return (order, result);
        }
        assert_eq!(status, "released");
        result = self.fresh(&self.a.release(d, &result).await).await;
        (order, result)
    }

    async fn fresh(&self, result: &Value) -> Value {
        self.world
            .server
            .get(&self.a.technician, &at("results", result, ""))
            .await
            .expect(200)
    }

    /// A test that only A has.
    async fn own_test(&self) -> String {
        let code = format!("A{}", &uuid::Uuid::now_v7().simple().to_string()[20..]).to_uppercase();
        let body = json!({ "code": code, "name": "Lead in blood", "section": "toxicology", "specimenType": "EDTA blood",
                           "valueType": "quantity", "unit": "ug/dL", "decimals": 2 });
        self.world
            .server
            .post(&self.a.admin, "/api/v1/tests", body)
            .await
            .expect(201);
        code
    }

    async fn amendment(&self) -> Value {
        let (_, result) = self.result("released").await;
        let call = post(
            at("results", &result, "/amendments"),
            &json!({ "value": "4.2", "reason": "mixed up" }),
        );
        let amended = self
            .world
            .server
            .send(&call.version(&result["version"]), &self.a.supervisor)
            .await
            .expect(200);
        amended["amendment"].clone()
    }

    async fn import(&self) -> Value {
        let (order, _) = self.result("pending").await;
        let call = import_of(&order);
        self.world
            .server
            .send(&call, &self.a.technician)
            .await
            .expect(202)
    }

    async fn person(&self) -> Value {
        let email = format!("{}@acme-lab.example", uuid::Uuid::now_v7().simple());
        let body =
            json!({ "email": email, "displayName": "Nina", "role": "technician", "password": PASSWORD });
        self.world
            .server
            .post(&self.a.admin, "/api/v1/staff", body)
            .await
            .expect(201)
    }
}

fn at(resource: &str, record: &Value, rest: &str) -> String {
    format!(
        "/api/v1/{resource}/{}{rest}",
        record["id"]
            .as_str()
            .unwrap_or_else(|| panic!("no id in {record}"))
    )
}

fn import_of(order: &Value) -> Call {
    let barcode = order["specimens"][0]["barcode"].as_str().unwrap();
    let csv = format!("barcode,code,value,unit,instrument\n{barcode},K,4.2,mmol/L,X1\n");
    Call::new("POST", "/api/v1/imports").body("text/csv", csv)
}

fn sign(path: &str, result: &Value) -> Call {
    let items = json!({ "items": [{ "id": result["id"], "version": result["version"] }] });
    Call::new("POST", path).json(&items)
}

fn post(path: String, body: &Value) -> Call {
    Call::new("POST", path).json(body)
}

fn reason() -> Value {
    json!({ "reason": "a good reason" })
}

/// The plan of a route; `None` when nobody has thought of it yet.
async fn plan(scene: &Scene, method: &str, path: &str) -> Option<Plan> {
    if let Some(plan) = service(scene, method, path) {
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

fn service(scene: &Scene, method: &str, path: &str) -> Option<Plan> {
    let tenant = |rest: &str| format!("/api/v1/tenants/{}{rest}", scene.a.id);
    let nobody = uuid::Uuid::now_v7();
    Some(match (method, path) {
        ("GET", "/livez") => Plan::Service("/livez"),
        ("GET", "/readyz") => Plan::Service("/readyz"),
        ("GET", "/metrics") => Plan::Service("/metrics"),
        ("GET", "/problems") => Plan::Service("/problems"),
        ("GET", "/problems/{code}") => Plan::Service("/problems/not-found"),
        ("POST", "/api/v1/auth/login" | "/api/v1/operators/login") => Plan::LogIn,
        ("GET", "/api/v1/me") => lists(technician, "/api/v1/me"),
        ("GET", "/api/v1/tenants/{id}/health") => names(technician, Call::new("GET", tenant("/health"))),
        ("GET", "/api/v1/tenants") => Plan::Operators(Call::new("GET", path)),
        ("POST", "/api/v1/tenants") => {
            Plan::Operators(post(path.into(), &crate::support::new_lab("evil-lab")))
        }
        ("GET", "/api/v1/tenants/{id}") => Plan::Operators(Call::new("GET", tenant(""))),
        ("POST", "/api/v1/tenants/{id}/suspend") => Plan::Operators(Call::new("POST", tenant("/suspend"))),
        ("POST", "/api/v1/tenants/{id}/resume") => Plan::Operators(Call::new("POST", tenant("/resume"))),
        ("POST", "/api/v1/tenants/{id}/migrate") => Plan::Operators(Call::new("POST", tenant("/migrate"))),
        ("POST", "/api/v1/tenants/{id}/offboard") => Plan::Operators(Call::new("POST", tenant("/offboard"))),
        ("GET", "/api/v1/operations" | "/api/v1/archives") => Plan::Operators(Call::new("GET", path)),
        ("GET", "/api/v1/operations/{id}") => {
            Plan::Operators(Call::new("GET", format!("/api/v1/operations/{nobody}")))
        }
        _ => return None,
    })
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
        ("GET", "/api/v1/staff") => lists(admin, path),
        ("POST", "/api/v1/staff") => {
            let body = json!({ "email": "new@lab.example", "displayName": "New", "role": "technician", "password": PASSWORD });
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
        ("PUT", "/api/v1/staff/{id}/password") => {
            let call = Call::new("PUT", at("staff", &scene.person().await, "/password"));
            Plan::Names(vec![probe(
                admin,
                call.json(&json!({ "password": "another good one" })),
                204,
            )])
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
            names(
                technician,
                post(at("results", &result, "/critical-notice"), &body),
            )
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
        ("POST", "/api/v1/imports") => {
            let (order, _) = scene.result("pending").await;
            Plan::SetsAside(probe(technician, import_of(&order), 202))
        }
        ("GET", "/api/v1/imports/{id}") => names(
            technician,
            Call::new("GET", at("imports", &scene.import().await, "")),
        ),
        ("GET", "/api/v1/imports/{id}/errors") => names(
            technician,
            Call::new("GET", at("imports", &scene.import().await, "/errors")),
        ),
        _ => return None,
    })
}

#[tokio::test]
async fn a_foreign_token_gets_nothing_on_any_route() {
    let scene = Scene::new().await;
    let document = scene.world.server.get("", "/openapi.json").await.expect(200);
    let mut unplanned = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item
            .as_object()
            .unwrap()
            .keys()
            .map(|method| method.to_uppercase())
        {
            let route = format!("{method} {path}");
            match plan(&scene, &method, path).await {
                Some(plan) => try_route(&scene, &route, plan).await,
                None => drop(unplanned.insert(route)),
            }
        }
    }
    assert!(
        unplanned.is_empty(),
        "routes that nobody has tried with a foreign token: {unplanned:#?}"
    );
    scene.world.stop().await;
}

async fn try_route(scene: &Scene, route: &str, plan: Plan) {
    println!("{route}");
    let before = scene.world.digest(&scene.a).await;
    match plan {
        Plan::Names(probes) => {
            for probe in probes {
                let reply = scene.send(&scene.b, &probe).await;
                assert_eq!(reply.status, 404, "{route} with a foreign token: {}", reply.text);
                nothing_of_a(scene, route, &reply).await;
                assert_eq!(
                    scene.world.digest(&scene.a).await,
                    before,
                    "{route} changed the other laboratory"
                );
                let own = scene.send(&scene.a, &probe).await;
                assert_eq!(own.status, probe.ok, "{route} by its owner: {}", own.text);
            }
        }
        Plan::Makes(probes) => {
            for probe in probes {
                let reply = scene.send(&scene.b, &probe).await;
                assert_eq!(reply.status, probe.ok, "{route}: {}", reply.text);
                nothing_of_a(scene, route, &reply).await;
                assert_eq!(
                    scene.world.digest(&scene.a).await,
                    before,
                    "{route} changed the other laboratory"
                );
                assert_eq!(
                    scene.send(&scene.a, &probe).await.status,
                    probe.ok,
                    "{route} by its owner"
                );
            }
        }
        Plan::Lists(probes) => {
            for probe in probes {
                let reply = scene.send(&scene.b, &probe).await;
                assert_eq!(reply.status, probe.ok, "{route}: {}", reply.text);
                nothing_of_a(scene, route, &reply).await;
                let own = scene.send(&scene.a, &probe).await;
                assert_eq!(own.status, probe.ok, "{route}: {}", own.text);
                assert_ne!(own.text, reply.text, "{route} shows both laboratories the same");
            }
        }
        Plan::SetsAside(probe) => {
            let reply = scene.send(&scene.b, &probe).await;
            assert_eq!(reply.status, probe.ok, "{route}: {}", reply.text);
            assert_eq!(
                (&reply.json["rowsOk"], &reply.json["rowsRejected"]),
                (&json!(0), &json!(1)),
                "{}",
                reply.text
            );
            assert_eq!(
                scene.world.digest(&scene.a).await,
                before,
                "{route} changed the other laboratory"
            );
            assert_eq!(
                scene.send(&scene.a, &probe).await.json["rowsOk"],
                1,
                "{route} by its owner"
            );
        }
        Plan::Operators(call) => {
            for lab in [&scene.a, &scene.b] {
                scene
                    .world
                    .server
                    .send(&call, &lab.admin)
                    .await
                    .refused(403, "wrong-audience");
            }
            assert_eq!(scene.world.digest(&scene.a).await, before);
        }
        Plan::Service(path) => {
            let reply = scene.world.server.get("", path).await;
            assert_eq!(reply.status, 200, "{route}: {}", reply.text);
            // The figures name laboratories by their slug, for ops; ids and data stay inside.
            nothing_of_a(scene, route, &reply).await;
        }
        Plan::LogIn => {
            let technician = Lab::email(&scene.a.slug, "technician");
            let reply = scene
                .world
                .server
                .try_log_in(&technician, PASSWORD, Some(&scene.b.slug))
                .await;
            reply.refused(401, "login-failed");
            let body = json!({ "email": Lab::email(&scene.a.slug, "admin"), "password": PASSWORD });
            scene
                .world
                .server
                .post("", "/api/v1/operators/login", body)
                .await
                .refused(401, "login-failed");
        }
    }
}

/// The answer holds no id, number, barcode or name of anything in A. What the caller itself sent may come back.
async fn nothing_of_a(scene: &Scene, route: &str, reply: &Reply) {
    for secret in scene.world.identifiers(&scene.a).await {
        let echoed = reply.status == 404
            && reply.json["detail"]
                .as_str()
                .is_some_and(|text| text.contains(&secret));
        assert!(
            echoed || !reply.text.contains(&secret),
            "{route} shows {secret} of the other laboratory: {}",
            reply.text
        );
    }
}
