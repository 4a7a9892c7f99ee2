//! When a token ends before its time: every event after which its holder must prove who they are again.

use secrecy::SecretString;
use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{
    Call, LIMIT, Lab, OPERATOR, PASSWORD, Tenantd, World, at_once, environment, finished, operator_token,
};

const NEW_PASSWORD: &str = "thirteen purple umbrellas";
const ME: &str = "/api/v1/me";

async fn ended(d: &Tenantd, token: &str, why: &str) {
    for path in [ME, "/api/v1/tests"] {
        let reply = d.get(token, path).await;
        assert_eq!(
            (reply.status, reply.code()),
            (401, "token-invalid"),
            "{why}: {path}"
        );
    }
}

async fn lives(d: &Tenantd, token: &str) {
    for path in [ME, "/api/v1/tests"] {
        d.get(token, path).await.expect(200);
    }
}

async fn person(d: &Tenantd, lab: &Lab, email: &str) -> Value {
    let staff = d.get(&lab.admin, "/api/v1/staff").await.expect(200);
    let items = staff["items"].as_array().unwrap();
    items.iter().find(|s| s["email"] == email).unwrap().clone()
}

async fn patch(d: &Tenantd, lab: &Lab, email: &str, change: Value) {
    let person = person(d, lab, email).await;
    let path = format!("/api/v1/staff/{}", person["id"].as_str().unwrap());
    let call = Call::new("PATCH", path).json(&change).version(&person["version"]);
    d.send(&call, &lab.admin).await.expect(200);
}

#[tokio::test]
async fn logging_out_ends_every_token_of_the_person_and_of_nobody_else() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let email = Lab::email("acme-lab", "technician");
    let elsewhere = d.log_in(&email, Some("acme-lab")).await;
    // Both were verified before, so both are in the cache of verified tokens.
    lives(d, &lab.technician).await;
    lives(d, &elsewhere).await;
    let before = person(d, &lab, &email).await;
    let out = d.post(&lab.technician, "/api/v1/auth/logout", json!({})).await;
    assert_eq!(out.status, 204, "{}", out.text);
    ended(d, &lab.technician, "logged out").await;
    ended(d, &elsewhere, "logged out elsewhere").await;
    lives(d, &lab.supervisor).await;
    assert_eq!(
        person(d, &lab, &email).await["version"],
        before["version"],
        "no change of the person's record"
    );
    // A second process knows it as well, and a log-in at once afterwards counts.
    let again = d.log_in(&email, Some("acme-lab")).await;
    let second = Tenantd::start(&world.space, environment(&world.space)).await;
    ended(&second, &lab.technician, "asked elsewhere").await;
    lives(&second, &again).await;
    d.post(&lab.technician, "/api/v1/auth/logout", json!({}))
        .await
        .refused(401, "token-invalid");
    lives(d, &again).await;
    assert_eq!(second.stop().await, Some(0));
    world.stop().await;
}

#[tokio::test]
async fn an_operators_token_ends_with_a_log_out_a_new_password_and_a_disablement() {
    let world = World::start().await;
    let d = &world.server;
    let tenants = "/api/v1/tenants";
    let token = operator_token(d).await;
    let out = d.post(&token, "/api/v1/auth/logout", json!({})).await;
    assert_eq!(out.status, 204, "{}", out.text);
    for path in [ME, tenants] {
        d.get(&token, path).await.refused(401, "token-invalid");
        d.get(&world.operator, path).await.refused(401, "token-invalid");
    }

    let token = operator_token(d).await;
    world
        .registry_execute("UPDATE operators SET disabled_at = now(); UPDATE operators SET disabled_at = NULL")
        .await;
    d.get(&token, tenants).await.refused(401, "token-invalid");

    let token = operator_token(d).await;
    d.get(&token, tenants).await.expect(200);
    // What `tenantctl operator set-password` does.
    let settings = settings::Settings::load(None, environment(&world.space)).unwrap();
    let platform = bootstrap::Platform::open(&settings).await.unwrap();
    let client = platform.registry.client().await.unwrap();
    let email = model::Email::parse(OPERATOR).unwrap();
    let operator = registry::operator_by_email(&client, &email)
        .await
        .unwrap()
        .unwrap();
    drop(client);
    let hash: SecretString = operator.password_hash.clone();
    let actor = registry::Actor::Terminal("ops".to_owned());
    platform
        .registry
        .in_txn(async |txn| {
            let change = registry::Change::by(&actor);
            registry::operator_set_password_in_txn(txn, operator.id, &hash, &change).await
        })
        .await
        .unwrap();
    platform.close().await.unwrap();
    d.get(&token, tenants).await.refused(401, "token-invalid");
    world.stop().await;
}

#[tokio::test]
async fn a_token_stays_ended_when_the_person_is_let_in_again_or_gets_the_old_role_back() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let email = Lab::email("acme-lab", "technician");
    lives(d, &lab.technician).await;
    for active in [false, true] {
        patch(d, &lab, &email, json!({ "active": active })).await;
        ended(d, &lab.technician, "closed and opened").await;
    }
    let token = d.log_in(&email, Some("acme-lab")).await;
    lives(d, &token).await;
    for role in ["receptionist", "technician"] {
        patch(d, &lab, &email, json!({ "role": role })).await;
        ended(d, &token, "another role and back").await;
    }
    // What says nothing of who may do what ends nothing.
    let token = d.log_in(&email, Some("acme-lab")).await;
    patch(d, &lab, &email, json!({ "displayName": "Tina T." })).await;
    lives(d, &token).await;
    world.stop().await;
}

#[tokio::test]
async fn a_reset_by_invitation_ends_the_tokens_of_before() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let path = format!("/api/v1/tenants/{}/admins", lab.id);
    let admin = d.get(&world.operator, &path).await.expect(200)[0].clone();
    let path = format!("{path}/{}/invitation", admin["id"].as_str().unwrap());
    let made = d.post(&world.operator, &path, json!({})).await.expect(201);
    lives(d, &lab.admin).await;
    let body = json!({ "token": made["token"], "password": NEW_PASSWORD });
    let session = d
        .post("", "/api/v1/auth/invitations/accept", body)
        .await
        .expect(200);
    ended(d, &lab.admin, "reset by invitation").await;
    lives(d, session["accessToken"].as_str().unwrap()).await;
    world.stop().await;
}

pub(crate) async fn backed_up(world: &World, lab: &Lab) -> String {
    let (d, operator) = (&world.server, &world.operator);
    let path = format!("/api/v1/tenants/{}/backups", lab.id);
    let asked = d.post(operator, &path, json!({})).await;
    let ended = finished(d, operator, asked.header("location")).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    newest_archive(world, lab).await
}

async fn newest_archive(world: &World, lab: &Lab) -> String {
    let path = format!("/api/v1/archives?tenantId={}", lab.id);
    let archives = world.server.get(&world.operator, &path).await.expect(200);
    archives["items"][0]["id"].as_str().unwrap().to_owned()
}

pub(crate) async fn restore(world: &World, archive: &str, body: Value) {
    let (d, operator) = (&world.server, &world.operator);
    let path = format!("/api/v1/archives/{archive}/restore");
    let asked = d.post(operator, &path, body).await;
    assert_eq!(asked.status, 202, "{}", asked.text);
    let ended = finished(d, operator, asked.header("location")).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
}

pub(crate) async fn serves(d: &Tenantd, email: &str) -> String {
    eventually("the laboratory serves", LIMIT, async || {
        d.try_log_in(email, PASSWORD, Some("acme-lab")).await.status == 200
    })
    .await;
    d.log_in(email, Some("acme-lab")).await
}

#[tokio::test]
async fn a_restore_in_place_revives_no_token() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let email = Lab::email("acme-lab", "technician");
    let archive = backed_up(&world, &lab).await;
    // Ended after the archive was made, which knows nothing of it.
    patch(d, &lab, &email, json!({ "active": false })).await;
    patch(d, &lab, &email, json!({ "active": true })).await;
    ended(d, &lab.technician, "closed and opened").await;
    lives(d, &lab.supervisor).await;
    restore(
        &world,
        &archive,
        json!({ "inPlace": true, "confirmSlug": "acme-lab" }),
    )
    .await;
    let token = serves(d, &email).await;
    ended(d, &lab.technician, "ended before the restore").await;
    ended(d, &lab.supervisor, "given out before the restore").await;
    lives(d, &token).await;
    world.stop().await;
}

#[tokio::test]
async fn a_laboratory_that_comes_back_under_its_old_id_takes_no_old_token() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let path = format!("/api/v1/tenants/{}/offboard", lab.id);
    let asked = d.post(&world.operator, &path, at_once("acme-lab")).await;
    let over = finished(d, &world.operator, asked.header("location")).await;
    assert_eq!(over["status"], "succeeded", "{over}");
    let archive = newest_archive(&world, &lab).await;
    restore(&world, &archive, json!({})).await;
    let token = serves(d, &Lab::email("acme-lab", "technician")).await;
    for old in [&lab.technician, &lab.admin] {
        ended(d, old, "given out before the removal").await;
    }
    lives(d, &token).await;
    assert_eq!(d.get(&token, ME).await.expect(200)["tenantId"], json!(lab.id));
    world.stop().await;
}

#[tokio::test]
async fn who_one_is_is_refused_where_the_laboratory_is() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let health = format!("/api/v1/tenants/{}/health", lab.id);
    let path = format!("/api/v1/tenants/{}/suspend", lab.id);
    d.post(&world.operator, &path, json!({})).await.expect(200);
    for path in [ME, "/api/v1/tests", &health] {
        d.get(&lab.technician, path)
            .await
            .refused(403, "tenant-suspended");
    }
    d.get(&world.operator, &health).await.expect(200);
    let path = format!("/api/v1/tenants/{}/offboard", lab.id);
    let asked = d.post(&world.operator, &path, at_once("acme-lab")).await;
    let over = finished(d, &world.operator, asked.header("location")).await;
    assert_eq!(over["status"], "succeeded", "{over}");
    for path in [ME, "/api/v1/tests", &health] {
        d.get(&lab.technician, path).await.refused(404, "unknown-tenant");
    }
    world.stop().await;
}
