//! People set and change their own passwords, and nobody sets another's.

use serde_json::{Value, json};

use crate::support::{Call, Lab, OPERATOR, PASSWORD, Reply, Tenantd, World, accept, connect, operator_token};

const NEW_PASSWORD: &str = "thirteen purple umbrellas";
const OWN: &str = "/api/v1/me/password";

async fn change(d: &Tenantd, token: &str, current: &str, new: &str) -> Reply {
    let body = json!({ "currentPassword": current, "newPassword": new });
    d.post(token, OWN, body).await
}

async fn person(d: &Tenantd, lab: &Lab, email: &str) -> Value {
    let staff = d.get(&lab.admin, "/api/v1/staff").await.expect(200);
    let items = staff["items"].as_array().unwrap();
    items.iter().find(|s| s["email"] == email).unwrap().clone()
}

#[tokio::test]
async fn everybody_changes_their_own_password_with_the_current_one() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    for (name, token) in [("technician", &lab.technician), ("admin", &lab.admin)] {
        let email = Lab::email("acme-lab", name);
        let second = d.log_in(&email, Some("acme-lab")).await;
        change(d, token, "not the one I have", NEW_PASSWORD)
            .await
            .refused(403, "wrong-password");
        for weak in ["short", PASSWORD, "acme-lab-acme-lab", &email] {
            change(d, token, PASSWORD, weak)
                .await
                .refused(422, "weak-password");
        }
        d.get(token, "/api/v1/me").await.expect(200);
        let session = change(d, token, PASSWORD, NEW_PASSWORD).await.expect(200);
        for old in [token, &second] {
            d.get(old, "/api/v1/me").await.refused(401, "token-invalid");
        }
        let new = session["accessToken"].as_str().unwrap();
        d.get(new, "/api/v1/tests").await.expect(200);
        d.try_log_in(&email, PASSWORD, Some("acme-lab"))
            .await
            .refused(401, "login-failed");
        d.try_log_in(&email, NEW_PASSWORD, Some("acme-lab"))
            .await
            .expect(200);
    }
    // The first admin also gets in without naming the laboratory: the registry has the new one, too.
    let email = Lab::email("acme-lab", "admin");
    d.try_log_in(&email, NEW_PASSWORD, None).await.expect(200);
    d.try_log_in(&email, PASSWORD, None)
        .await
        .refused(401, "login-failed");
    world.stop().await;
}

#[tokio::test]
async fn operators_too_and_guessing_the_current_one_is_slowed_down() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let session = change(d, &world.operator, PASSWORD, NEW_PASSWORD)
        .await
        .expect(200);
    d.get(&world.operator, "/api/v1/tenants")
        .await
        .refused(401, "token-invalid");
    let new = session["accessToken"].as_str().unwrap();
    d.get(new, "/api/v1/tenants").await.expect(200);
    let body = json!({ "email": OPERATOR, "password": NEW_PASSWORD });
    d.post("", "/api/v1/operators/login", body).await.expect(200);
    // Whoever has found an open session does not find the password out.
    let mut statuses = Vec::new();
    for _ in 0..30 {
        let reply = change(d, &lab.technician, "wrong password 1", NEW_PASSWORD).await;
        statuses.push(reply.status);
    }
    assert_eq!(statuses[0], 403);
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    world.stop().await;
}

#[tokio::test]
async fn nobody_sets_another_persons_password() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let tina = person(d, &lab, &Lab::email("acme-lab", "technician")).await;
    let path = format!("/api/v1/staff/{}", tina["id"].as_str().unwrap());
    let told = |reply: &Reply| {
        assert_eq!(reply.status, 422, "{}", reply.text);
        let detail = reply.json["detail"].as_str().unwrap();
        assert!(
            detail.contains("invitation") && detail.contains("password"),
            "{detail}"
        );
    };
    let call = Call::new("PATCH", &path).json(&json!({ "password": NEW_PASSWORD }));
    told(&d.send(&call.version(&tina["version"]), &lab.admin).await);
    let body = json!({ "email": "nina@acme-lab.example", "displayName": "Nina", "role": "technician", "password": PASSWORD });
    told(&d.post(&lab.admin, "/api/v1/staff", body).await);
    let call = Call::new("PUT", format!("{path}/password")).json(&json!({ "password": NEW_PASSWORD }));
    let gone = d.send(&call, &lab.admin).await;
    assert!([404, 405].contains(&gone.status), "{}", gone.text);
    d.log_in(&Lab::email("acme-lab", "technician"), Some("acme-lab"))
        .await;
    d.get(&lab.technician, "/api/v1/me").await.expect(200);
    // A session that somebody has taken over opens no other way in.
    let own = person(d, &lab, &Lab::email("acme-lab", "admin")).await;
    let path = format!("/api/v1/staff/{}/invitation", own["id"].as_str().unwrap());
    d.post(&lab.admin, &path, json!({}))
        .await
        .refused(409, "conflict");
    d.post(&lab.supervisor, &path, json!({}))
        .await
        .refused(403, "forbidden");
    world.stop().await;
}

async fn add(d: &Tenantd, lab: &Lab, key: &str) -> Reply {
    let body = json!({ "email": "nina@acme-lab.example", "displayName": " Ni\u{308}na\u{a0} N.", "role": "technician" });
    let call = Call::new("POST", "/api/v1/staff")
        .json(&body)
        .header("idempotency-key", key);
    d.send(&call, &lab.admin).await
}

#[tokio::test]
async fn whoever_is_added_sets_the_password_by_a_link_that_works_once() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let reply = add(d, &lab, "k1").await;
    assert_eq!(reply.header("cache-control"), "no-store");
    let added = reply.expect(201);
    assert_eq!(
        (&added["hasPassword"], &added["displayName"]),
        (&json!(false), &json!("Nïna N."))
    );
    let first = added["invitation"]["token"].as_str().unwrap().to_owned();
    assert_eq!(added["invitation"]["path"], format!("/invitation#{first}"));
    // The answer may have been lost: the same request gives another link to the same person.
    let again = add(d, &lab, "k1").await.expect(201);
    assert_eq!(again["id"], added["id"]);
    let second = again["invitation"]["token"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    accept(d, &first, NEW_PASSWORD)
        .await
        .refused(401, "invitation-invalid");
    accept(d, &second, "nina@acme-lab.example")
        .await
        .refused(422, "weak-password");
    let session = accept(d, &second, NEW_PASSWORD).await.expect(200);
    assert_eq!(session["role"], "technician");
    d.get(session["accessToken"].as_str().unwrap(), "/api/v1/worklist")
        .await
        .expect(200);
    for used in [&first, &second] {
        accept(d, used, "another good one")
            .await
            .refused(401, "invitation-invalid");
    }
    assert_eq!(add(d, &lab, "k1").await.expect(201)["invitation"], Value::Null);
    // Neither database knows a token.
    let database = format!("{}_tenant_acme-lab", world.space.namespace.as_str());
    let client = connect(&world.space.server.with_database(database)).await;
    let sql = "SELECT count(*) FROM idempotency_key WHERE convert_from(response, 'UTF8') ~ 'token'";
    assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
    world.stop().await;
}

#[tokio::test]
async fn a_link_to_reset_a_password_ends_with_whatever_else_is_done() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let email = Lab::email("acme-lab", "technician");
    let id = person(d, &lab, &email).await["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/staff/{id}");
    let invite = async || {
        let made = d.post(&lab.admin, &format!("{path}/invitation"), json!({})).await;
        made.expect(201)["token"].as_str().unwrap().to_owned()
    };
    let dead = async |token: &str, why: &str| {
        let reply = accept(d, token, "another good one").await;
        assert_eq!((reply.status, reply.code()), (401, "invitation-invalid"), "{why}");
    };
    // The old password is good until then, and the old session.
    let token = invite().await;
    d.log_in(&email, Some("acme-lab")).await;
    d.get(&lab.technician, "/api/v1/me").await.expect(200);
    let revoked = d
        .send(&Call::new("DELETE", format!("{path}/invitation")), &lab.admin)
        .await;
    assert_eq!(revoked.status, 204);
    dead(&token, "revoked").await;
    let token = invite().await;
    change(d, &lab.technician, PASSWORD, NEW_PASSWORD)
        .await
        .expect(200);
    dead(&token, "changed by the person").await;
    for what in [
        json!({ "email": "tina@acme-lab.example" }),
        json!({ "active": false }),
    ] {
        let token = invite().await;
        let known = d.get(&lab.admin, &path).await.expect(200);
        assert!(known["invitedUntil"].is_string());
        let call = Call::new("PATCH", &path).json(&what).version(&known["version"]);
        d.send(&call, &lab.admin).await.expect(200);
        assert_eq!(
            d.get(&lab.admin, &path).await.expect(200)["invitedUntil"],
            Value::Null
        );
        dead(&token, "another address or closed").await;
    }
    d.post(&lab.admin, &format!("{path}/invitation"), json!({}))
        .await
        .refused(409, "conflict");
    // What names a laboratory and is no token of it, or no laboratory at all, is a guess.
    for guess in [
        format!("{}.x", lab.id.replace('-', "")),
        format!("{}.x", uuid::Uuid::now_v7().simple()),
        ".".to_owned(),
    ] {
        dead(&guess, "a guess").await;
    }
    operator_token(d).await;
    world.stop().await;
}
