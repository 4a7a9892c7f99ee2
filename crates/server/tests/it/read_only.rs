//! Servers that answer and do not do everything: one that takes no writes, one that lets a laboratory's role
//! not in.

use serde_json::json;
use testkit::eventually;

use crate::support::{LIMIT, Lab, PASSWORD, World, connect, new_lab};

/// Lets a database take no writes from now on, as a standby or a provider's disk-full mode does, or again.
async fn set_read_only(world: &World, database: &str, on: bool) {
    let server = connect(&world.space.server).await;
    let database = model::quote_ident(database);
    let change = if on {
        format!("ALTER DATABASE {database} SET default_transaction_read_only = on")
    } else {
        format!("ALTER DATABASE {database} RESET default_transaction_read_only")
    };
    server.batch_execute(&change).await.unwrap();
}

/// Ends the sessions that still have the old setting: a failover does that, too.
async fn end_sessions(world: &World, database: &str) {
    let server = connect(&world.space.server).await;
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1";
    server.query(end, &[&database]).await.unwrap();
}

fn tenant_database(world: &World, lab: &Lab) -> String {
    format!("{}_tenant_{}", world.space.namespace.as_str(), lab.slug)
}

fn new_patient() -> serde_json::Value {
    json!({ "familyName": "Curie", "givenName": "Marie", "sex": "F", "birthDate": "1967-11-07" })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_of_a_laboratory_is_read_and_says_why_it_takes_no_writes() {
    let world = World::start().await;
    let (lab, other) = (world.lab("acme-lab").await, world.lab("bravo-lab").await);
    let d = &world.server;
    let database = tenant_database(&world, &lab);
    set_read_only(&world, &database, true).await;
    end_sessions(&world, &database).await;
    eventually("the laboratory to be read again", LIMIT, async || {
        d.get(&lab.receptionist, "/api/v1/patients").await.status == 200
    })
    .await;
    let refused = d.post(&lab.receptionist, "/api/v1/patients", new_patient()).await;
    refused.refused(503, "database-read-only");
    assert!(!refused.header("retry-after").is_empty());
    d.get(&lab.receptionist, "/api/v1/patients").await.expect(200);
    other.patient(d).await;
    // Writable again, it is used as such at once: no connection that knows it as read-only is lent again.
    set_read_only(&world, &database, false).await;
    eventually("writes to pass", LIMIT, async || {
        d.post(&lab.receptionist, "/api/v1/patients", new_patient())
            .await
            .status
            == 201
    })
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_registry_refuses_what_must_be_recorded_and_serves_who_is_logged_in() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let registry = world.space.registry.database.clone();
    set_read_only(&world, &registry, true).await;
    end_sessions(&world, &registry).await;
    eventually("the probe to see it", LIMIT, async || {
        let reply = d.get("", "/readyz").await;
        reply.status == 200 && reply.json["degraded"] == json!(["registry-read-only"])
    })
    .await;
    d.try_log_in(&Lab::email("acme-lab", "admin"), PASSWORD, None)
        .await
        .refused(503, "database-read-only");
    d.post(&world.operator, "/api/v1/tenants", new_lab("bravo-lab"))
        .await
        .refused(503, "database-read-only");
    lab.patient(d).await;
    set_read_only(&world, &registry, false).await;
    end_sessions(&world, &registry).await;
    eventually("log-ins to pass", LIMIT, async || {
        d.try_log_in(&Lab::email("acme-lab", "admin"), PASSWORD, None)
            .await
            .status
            == 200
    })
    .await;
    assert_eq!(d.get("", "/readyz").await.json["status"], "ok");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_the_server_lets_not_in_does_not_blame_a_server_that_answers() {
    let world = World::start().await;
    let (lab, other) = (world.lab("acme-lab").await, world.lab("bravo-lab").await);
    let d = &world.server;
    let role = tenant_database(&world, &lab);
    let rejected = testkit::HbaLine::rejecting(&world.space.server, &role).await;
    end_sessions(&world, &role).await;
    eventually("the role to be refused", LIMIT, async || {
        d.get(&lab.receptionist, "/api/v1/patients").await.code() == "tenant-login-refused"
    })
    .await;
    let refused = d.get(&lab.receptionist, "/api/v1/patients").await;
    refused.refused(503, "tenant-login-refused");
    let health = d
        .get(&lab.admin, &format!("/api/v1/tenants/{}/health", lab.id))
        .await
        .expect(200);
    assert_eq!(health["connection"]["problem"], "tenant-login-refused");
    other.patient(d).await;
    d.get("", "/readyz").await.expect(200);
    rejected.take_away().await;
    eventually("the role to be let in again", LIMIT, async || {
        d.get(&lab.receptionist, "/api/v1/patients").await.status == 200
    })
    .await;
    world.stop().await;
}
