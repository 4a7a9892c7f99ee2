//! One laboratory's token opens nothing of another's: every route of the OpenAPI document, with the very call
//! that succeeds for its owner.
//!
//! Each route has an entry in [`plan::plan`]; one without fails the test. For a call that names something of
//! laboratory A, B (the same role) tries first: it must get 404, A's database must be unchanged to the last
//! row, and then A's own call must succeed, so that a call which is refused for a trivial reason proves
//! nothing. Calls that name nothing of a laboratory are classified as such, each with what must hold instead.

mod plan;
mod scene;

use std::collections::BTreeSet;

use serde_json::json;

use self::{
    plan::plan,
    scene::{Scene, at},
};
use crate::support::{Call, Lab, PASSWORD, Reply, finished, operator_token};

/// What a route is, seen from another laboratory.
enum Plan {
    /// It names something of A's, by its path or its body.
    Names(Vec<Probe>),
    /// It names nothing and makes something in the caller's own laboratory: done by B, nothing of A's
    /// changes.
    Makes(Vec<Probe>),
    /// It names nothing and lists: B's list shows none of A's ids.
    Lists(Vec<Probe>),
    /// It carries things of A's that a laboratory receives from outside as text, not as references; those
    /// that match nothing are set aside.
    SetsAside(Probe),
    /// Operators only: a laboratory's token, of its own admin too, is refused with 403; then the very same
    /// call succeeds for the operator.
    Operators(Call, u16, After),
    /// It belongs to the service itself, takes no token and shows nothing of any laboratory.
    Service(&'static str),
    /// It gives tokens: A's people are nobody in B.
    LogIn,
    /// It ends the tokens of whoever asks, and no others.
    LogsOut,
    /// It changes the password of whoever asks, and nothing of anybody else.
    OwnPassword,
    /// It gives a token to whom an invitation names: to A's person a token of A, and nothing of B's comes or
    /// changes with it.
    Accepts,
}

/// What is left to be done when an operator's call has succeeded.
enum After {
    Nothing,
    /// A was suspended: it is resumed.
    Resume,
    /// A was resumed: until its routers know.
    Serve,
    /// An operation was taken on: until it has ended well.
    Finish,
}

/// A call by somebody in a role, and the status that its owner gets.
struct Probe {
    role: fn(&Lab) -> &str,
    call: Call,
    ok: u16,
}

#[tokio::test]
async fn a_foreign_token_gets_nothing_on_any_route() {
    let mut scene = Scene::new().await;
    let document = scene.world.server.get("", "/openapi.json").await.expect(200);
    let mut unplanned = BTreeSet::new();
    let mut routes: Vec<(String, String)> = (document["paths"].as_object().unwrap().iter())
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    // After offboarding there is no A any more.
    routes.sort_by_key(|(_, path)| path.ends_with("/offboard"));
    for (method, path) in &routes {
        let route = format!("{method} {path}");
        if path.ends_with("/offboard") {
            of_every_kind(&scene.world.identifiers(&scene.a).await);
        }
        match plan(&scene, method, path).await {
            Some(plan) => try_route(&scene, &route, plan).await,
            None => drop(unplanned.insert(route)),
        }
        if path.ends_with("/invitations/accept") {
            // The password that was set there ended the tokens of before.
            let email = Lab::email(&scene.a.slug, "admin");
            scene.a.admin = scene.world.server.log_in(&email, Some(&scene.a.slug)).await;
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
        Plan::Operators(call, ok, after) => {
            let d = &scene.world.server;
            for lab in [&scene.a, &scene.b] {
                d.send(&call, &lab.admin).await.refused(403, "wrong-audience");
            }
            assert_eq!(scene.world.digest(&scene.a).await, before);
            let reply = d.send(&call, &scene.world.operator).await;
            assert_eq!(reply.status, ok, "{route} by an operator: {}", reply.text);
            settle(scene, &reply, after).await;
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
            scene.world.server.log_in(&technician, Some(&scene.a.slug)).await;
            let body = json!({ "email": Lab::email(&scene.a.slug, "admin"), "password": PASSWORD });
            scene
                .world
                .server
                .post("", "/api/v1/operators/login", body)
                .await
                .refused(401, "login-failed");
            operator_token(&scene.world.server).await;
        }
        Plan::Accepts => accepts(scene, route).await,
        Plan::LogsOut => logs_out(scene, route).await,
        Plan::OwnPassword => own_password(scene, route).await,
    }
}

/// A person of A's own, so that the others can go on with their tokens.
async fn logs_out(scene: &Scene, route: &str) {
    let d = &scene.world.server;
    let person = scene.person().await;
    let token = d
        .log_in(person["email"].as_str().unwrap(), Some(&scene.a.slug))
        .await;
    let reply = d.post(&token, "/api/v1/auth/logout", json!({})).await;
    assert_eq!(reply.status, 204, "{route}: {}", reply.text);
    d.get(&token, "/api/v1/me").await.refused(401, "token-invalid");
    for lab in [&scene.a, &scene.b] {
        d.get(&lab.technician, "/api/v1/me").await.expect(200);
    }
}

/// A person of A's own, so that the others can go on with their passwords.
async fn own_password(scene: &Scene, route: &str) {
    const OWN: &str = "thirteen purple umbrellas";
    let d = &scene.world.server;
    let person = scene.person().await;
    let email = person["email"].as_str().unwrap();
    let token = d.log_in(email, Some(&scene.a.slug)).await;
    let before = scene.world.digest(&scene.b).await;
    let body = json!({ "currentPassword": PASSWORD, "newPassword": OWN });
    let reply = d.post(&token, "/api/v1/me/password", body).await;
    assert_eq!(reply.status, 200, "{route}: {}", reply.text);
    assert_eq!(reply.json["tenantId"], json!(scene.a.id), "{route}");
    assert_eq!(scene.world.digest(&scene.b).await, before, "{route} changed B");
    d.try_log_in(email, OWN, Some(&scene.b.slug))
        .await
        .refused(401, "login-failed");
    d.try_log_in(email, OWN, Some(&scene.a.slug)).await.expect(200);
    for lab in [&scene.a, &scene.b] {
        d.get(&lab.technician, "/api/v1/me").await.expect(200);
    }
}

/// An invitation of A's, sent with a token of B's: it opens A alone, and B stays what it was.
async fn accepts(scene: &Scene, route: &str) {
    const OWN: &str = "a password for A only";
    let (d, operator) = (&scene.world.server, &scene.world.operator);
    let admin = scene.admin().await;
    let (id, email) = (admin["id"].as_str().unwrap(), admin["email"].as_str().unwrap());
    let invite = format!("/api/v1/tenants/{}/admins/{id}/invitation", scene.a.id);
    let invitation = d.post(operator, &invite, json!({})).await.expect(201);
    let (patient, foreign) = (scene.patient().await, scene.b.patient(d).await);
    let before = scene.world.digest(&scene.b).await;
    let body = json!({ "token": invitation["token"], "password": OWN });
    let call = Call::new("POST", "/api/v1/auth/invitations/accept").json(&body);
    // Whose token comes with it makes no difference: the invitation says who it is.
    let reply = d.send(&call, &scene.b.admin).await;
    assert_eq!(reply.status, 200, "{route}: {}", reply.text);
    assert_eq!(reply.json["tenantId"], json!(scene.a.id), "{route}");
    for secret in scene.world.identifiers(&scene.b).await {
        assert!(!reply.text.contains(&secret), "{route} shows {secret} of B");
    }
    let token = reply.json["accessToken"].as_str().unwrap();
    d.get(token, &at("patients", &patient, "")).await.expect(200);
    d.get(token, &at("patients", &foreign, ""))
        .await
        .refused(404, "not-found");
    assert_eq!(scene.world.digest(&scene.b).await, before, "{route} changed B");
    d.try_log_in(email, OWN, Some(&scene.b.slug))
        .await
        .refused(401, "login-failed");
    d.try_log_in(&Lab::email(&scene.b.slug, "admin"), OWN, None)
        .await
        .refused(401, "login-failed");
    d.log_in(&Lab::email(&scene.b.slug, "admin"), Some(&scene.b.slug))
        .await;
    // The others of A's plans log in with the password that everybody has.
    let again = d.post(operator, &invite, json!({})).await.expect(201);
    let body = json!({ "token": again["token"], "password": PASSWORD });
    d.post("", "/api/v1/auth/invitations/accept", body)
        .await
        .expect(200);
}

async fn settle(scene: &Scene, reply: &Reply, after: After) {
    let (d, operator) = (&scene.world.server, &scene.world.operator);
    match after {
        After::Nothing => {}
        After::Resume => {
            let path = format!("/api/v1/tenants/{}/resume", scene.a.id);
            d.post(operator, &path, json!({})).await.expect(200);
            scene.serves().await;
        }
        After::Serve => scene.serves().await,
        After::Finish => {
            let operation = finished(d, operator, reply.header("location")).await;
            assert_eq!(operation["status"], "succeeded", "{operation}");
        }
    }
}

/// There was something of each kind to be found, or finding nothing would prove nothing.
fn of_every_kind(secrets: &[String]) {
    type Is = fn(&str) -> bool;
    let kinds: [(&str, Is); 7] = [
        ("an id", |text| text.parse::<uuid::Uuid>().is_ok()),
        ("a patient's number", |text| text.starts_with("P500")),
        ("a family name", |text| text.starts_with('P') && text.len() == 33),
        ("a given name", |text| text.starts_with('G') && text.len() == 33),
        ("a national number", |text| {
            text.starts_with('N') && text.len() == 33
        }),
        ("an address", |text| text.contains('@')),
        ("an order's number", |text| text.contains("-50")),
    ];
    for (kind, is) in kinds {
        assert!(secrets.iter().any(|text| is(text)), "no {kind} in {secrets:?}");
    }
}

/// The answer holds no id, number, barcode, name or address of anything in A. What the caller itself sent may
/// come back.
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
