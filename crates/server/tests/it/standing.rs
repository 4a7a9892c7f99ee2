//! What becomes of passwords, addresses, roles and people, and who reads of it afterwards.

use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{Call, LIMIT, Lab, OPERATOR, PASSWORD, Reply, Tenantd, World, add_person, connect};

const NEW_PASSWORD: &str = "another good one";

/// The person in the laboratory's staff list.
async fn person(d: &Tenantd, lab: &Lab, email: &str) -> Value {
    let staff = d.get(&lab.admin, "/api/v1/staff").await.expect(200);
    let items = staff["items"].as_array().unwrap();
    items.iter().find(|s| s["email"] == email).unwrap().clone()
}

async fn patch(d: &Tenantd, token: &str, person: &Value, change: &Value) -> Reply {
    let path = format!("/api/v1/staff/{}", person["id"].as_str().unwrap());
    let call = Call::new("PATCH", path).json(change);
    d.send(&call.version(&person["version"]), token).await
}

async fn change_password(d: &Tenantd, token: &str) -> Reply {
    let body = json!({ "currentPassword": PASSWORD, "newPassword": NEW_PASSWORD });
    d.post(token, "/api/v1/me/password", body).await
}

/// Whether each way in lets the person in: by the address alone, and with the laboratory named.
async fn ways_in(d: &Tenantd, email: &str, password: &str) -> [u16; 2] {
    [
        d.try_log_in(email, password, None).await.status,
        d.try_log_in(email, password, Some("acme-lab")).await.status,
    ]
}

#[tokio::test]
async fn the_first_admins_new_password_lets_in_and_the_old_one_no_more() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let email = Lab::email("acme-lab", "admin");
    let ada = person(d, &lab, &email).await;
    change_password(d, &lab.admin).await.expect(200);
    assert_eq!(ways_in(d, &email, PASSWORD).await, [401, 401]);
    assert_eq!(ways_in(d, &email, NEW_PASSWORD).await, [200, 200]);
    let written = audit(&world, "admin.password_set").await;
    let [line] = written.as_slice() else {
        panic!("{written:?}")
    };
    assert_eq!(line.actor, staff_actor(&ada));
    assert_eq!(line.tenant.as_deref(), Some(lab.id.as_str()));
    // Somebody whom only the laboratory knows leaves no trace in the registry.
    change_password(d, &lab.technician).await.expect(200);
    assert_eq!(audit(&world, "admin.password_set").await.len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn the_first_admins_new_address_is_the_only_one() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let (old, new) = (Lab::email("acme-lab", "admin"), "ada@acme-lab.example");
    let ada = person(d, &lab, &old).await;
    // Refused by the laboratory: the registry keeps the old one, too.
    let taken = json!({ "email": Lab::email("acme-lab", "technician") });
    patch(d, &lab.admin, &ada, &taken).await.refused(409, "duplicate");
    assert_eq!(ways_in(d, &old, PASSWORD).await, [200, 200]);

    patch(d, &lab.admin, &ada, &json!({ "email": new }))
        .await
        .expect(200);
    assert_eq!(ways_in(d, &old, PASSWORD).await, [401, 401]);
    assert_eq!(ways_in(d, new, PASSWORD).await, [200, 200]);
    assert_eq!(audit(&world, "admin.changed").await.len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn a_change_that_only_the_registry_has_taken_is_completed_by_the_same_request() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let (old, new) = (Lab::email("acme-lab", "admin"), "ada@acme-lab.example");
    let ada = person(d, &lab, &old).await;
    // As a process leaves it that dies between the two commits: the registry's comes first.
    world
        .registry_execute(&format!(
            "UPDATE tenant_admins SET email = '{new}' WHERE email = '{old}'"
        ))
        .await;
    patch(d, &lab.admin, &ada, &json!({ "email": new }))
        .await
        .expect(200);
    assert_eq!(person(d, &lab, new).await["id"], ada["id"]);
    assert_eq!(ways_in(d, new, PASSWORD).await, [200, 200]);
    world.stop().await;
}

#[tokio::test]
async fn a_deactivated_first_admin_is_disabled_in_the_registry_and_can_come_back() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let email = Lab::email("acme-lab", "admin");
    let body = json!({ "email": "bea@acme-lab.example", "displayName": "Bea", "role": "lab_admin" });
    let (_, bea) = add_person(d, &lab.admin, &body).await;
    let ada = person(d, &lab, &email).await;
    let left = patch(d, &bea, &ada, &json!({ "active": false }))
        .await
        .expect(200);
    assert!(disabled(&world, &email).await);
    assert_eq!(ways_in(d, &email, PASSWORD).await, [401, 401]);
    patch(d, &bea, &left, &json!({ "active": true }))
        .await
        .expect(200);
    assert!(!disabled(&world, &email).await);
    assert_eq!(ways_in(d, &email, PASSWORD).await, [200, 200]);
    world.stop().await;
}

async fn disabled(world: &World, email: &str) -> bool {
    let client = connect(&world.space.registry).await;
    let sql = "SELECT disabled_at IS NOT NULL FROM tenant_admins WHERE email::text = $1";
    client.query_one(sql, &[&email]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_demotion_ends_the_rights_of_the_old_role_at_once() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let email = Lab::email("acme-lab", "supervisor");
    let sue = person(d, &lab, &email).await;
    d.get(&lab.supervisor, "/api/v1/worklist").await.expect(200);
    patch(d, &lab.admin, &sue, &json!({ "role": "receptionist" }))
        .await
        .expect(200);
    for path in ["/api/v1/worklist", "/api/v1/me"] {
        d.get(&lab.supervisor, path).await.refused(401, "token-invalid");
    }
    let again = d.log_in(&email, Some("acme-lab")).await;
    d.get(&again, "/api/v1/worklist").await.refused(403, "forbidden");
    world.stop().await;
}

#[tokio::test]
async fn who_left_reads_neither_who_they_are_nor_how_the_laboratory_is() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let health = format!("/api/v1/tenants/{}/health", lab.id);
    let tina = person(d, &lab, &Lab::email("acme-lab", "technician")).await;
    for path in ["/api/v1/me", &health] {
        d.get(&lab.technician, path).await.expect(200);
    }
    patch(d, &lab.admin, &tina, &json!({ "active": false }))
        .await
        .expect(200);
    for path in ["/api/v1/me", &health] {
        d.get(&lab.technician, path).await.refused(401, "token-invalid");
    }
    // Operators likewise, on every call of theirs.
    for path in ["/api/v1/me", "/api/v1/tenants", &health] {
        d.get(&world.operator, path).await.expect(200);
    }
    world
        .registry_execute("UPDATE operators SET disabled_at = now()")
        .await;
    for path in ["/api/v1/me", "/api/v1/tenants", &health] {
        d.get(&world.operator, path).await.refused(401, "token-invalid");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_suspended_laboratory_tells_nobody_without_a_password_who_works_there() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let (d, ops) = (&world.server, &world.operator);
    d.post(ops, &format!("/api/v1/tenants/{}/suspend", lab.id), json!({}))
        .await
        .expect(200);
    eventually("the laboratory is closed", LIMIT, async || {
        d.get(&lab.receptionist, "/api/v1/patients").await.status == 403
    })
    .await;
    let mut bodies = Vec::new();
    for who in ["admin", "technician", "nobody"] {
        let reply = d
            .try_log_in(&Lab::email("acme-lab", who), "wrong password 1", Some("acme-lab"))
            .await;
        reply.refused(401, "login-failed");
        let mut body = reply.json;
        body["traceId"] = json!(null);
        bodies.push(body);
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
    // The reason is for ops to read, and for whoever has proved to belong there.
    d.logged("not in service").await;
    d.try_log_in(&Lab::email("acme-lab", "admin"), PASSWORD, Some("acme-lab"))
        .await
        .refused(403, "tenant-suspended");
    world.stop().await;
}

/// A line of the registry's audit.
#[derive(Debug)]
struct Line {
    actor: String,
    tenant: Option<String>,
    detail: String,
    client_ip: Option<String>,
}

async fn audit(world: &World, action: &str) -> Vec<Line> {
    let client = connect(&world.space.registry).await;
    let sql = "SELECT actor, tenant_id::text, detail::text, host(client_ip) FROM audit_log WHERE action = $1 ORDER BY id";
    let rows = client.query(sql, &[&action]).await.unwrap();
    let line = |row: &tokio_postgres::Row| Line {
        actor: row.get(0),
        tenant: row.get(1),
        detail: row.get(2),
        client_ip: row.get(3),
    };
    rows.iter().map(line).collect()
}

fn staff_actor(person: &Value) -> String {
    format!("staff:{}", person["id"].as_str().unwrap())
}

#[tokio::test]
async fn every_log_in_stands_in_the_audit_with_its_place_and_without_its_password() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let tina = person(d, &lab, &Lab::email("acme-lab", "technician")).await;
    let succeeded = audit(&world, "login.succeeded").await;
    let hers = succeeded
        .iter()
        .find(|line| line.actor == staff_actor(&tina))
        .unwrap();
    assert_eq!(hers.tenant.as_deref(), Some(lab.id.as_str()));
    assert_eq!(hers.client_ip.as_deref(), Some("127.0.0.1"));
    let operators = succeeded
        .iter()
        .filter(|line| line.actor.starts_with("operator:"));
    assert_eq!(operators.filter(|line| line.tenant.is_none()).count(), 1);

    let wrong = "wrong password 1";
    let (admin, technician) = (
        Lab::email("acme-lab", "admin"),
        Lab::email("acme-lab", "technician"),
    );
    // Refusals are counted, in the order of their first ones: where somebody wanted in, as whom and from
    // where.
    let nobody = "nobody@acme-lab.example";
    let mut expected = Vec::new();
    for (email, tenant, meant) in [
        (admin.as_str(), None, Some(lab.id.as_str())),
        (technician.as_str(), Some("acme-lab"), Some(lab.id.as_str())),
        (nobody, Some("acme-lab"), Some(lab.id.as_str())),
        (nobody, None, None),
    ] {
        let reply = d.try_log_in(email, wrong, tenant).await;
        let id = reply.json["traceId"].as_str().unwrap();
        expected.push(json!(["lab", meant, email, "127.0.0.1/32", id]));
    }
    let body = json!({ "email": OPERATOR, "password": wrong });
    let reply = d.post("", "/api/v1/operators/login", body).await;
    let id = &reply.json["traceId"];
    expected.push(json!(["operator", null, OPERATOR, "127.0.0.1/32", id]));
    let client = connect(&world.space.registry).await;
    let sql = "SELECT jsonb_agg(jsonb_build_array(audience, tenant_id, email, text(client), last_request_id) ORDER BY first_at)
               FROM login_refusals WHERE refusals = 1";
    let refused: Value = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(refused, json!(expected));
    for line in &succeeded {
        assert_eq!(line.client_ip.as_deref(), Some("127.0.0.1"));
        assert!(!line.detail.contains(PASSWORD), "{line:?}");
    }
    drop(client);
    world.stop().await;
}
