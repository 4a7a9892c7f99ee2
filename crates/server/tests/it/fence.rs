//! A laboratory that is closed is closed everywhere: in every process, whether it hears of it or not.

use std::collections::HashMap;

use serde_json::json;
use testkit::{Space, eventually};

use crate::support::{Door, LIMIT, Lab, Tenantd, World, at_once, environment, finished};

/// Ten minutes: a test that had to wait for it would fail.
const NEVER: &str = "600000";

fn patient(env: &mut HashMap<String, String>) {
    env.insert("TENANTRY_WORKER_ROUTERS_GRACE_MS".to_owned(), NEVER.to_owned());
}

async fn serves(d: &Tenantd, lab: &Lab) {
    d.get(&lab.receptionist, "/api/v1/patients").await.expect(200);
}

/// Waits until this process is one of those that operations wait for.
async fn registered(world: &World, d: &Tenantd) {
    let registry = crate::support::connect(&world.space.registry).await;
    let sql = "SELECT FROM routers WHERE name LIKE '%:' || $1 AND expires_at > clock_timestamp()";
    eventually("the process to be registered", LIMIT, async || {
        registry.execute(sql, &[&d.pid().to_string()]).await.unwrap() == 1
    })
    .await;
}

#[tokio::test]
async fn when_a_suspension_is_answered_no_process_serves_the_laboratory_any_more() {
    let world = World::start_with(patient).await;
    let lab = world.lab("acme-lab").await;
    let mut env = environment(&world.space);
    patient(&mut env);
    let second = Tenantd::start(&world.space, env).await;
    for d in [&world.server, &second] {
        registered(&world, d).await;
        serves(d, &lab).await;
    }
    let path = |verb: &str| format!("/api/v1/tenants/{}/{verb}", lab.id);
    for _ in 0..3 {
        let suspended = world
            .server
            .post(&world.operator, &path("suspend"), json!({}))
            .await;
        suspended.expect(200);
        for d in [&world.server, &second] {
            // Looked at without waiting.
            d.get(&lab.receptionist, "/api/v1/patients")
                .await
                .refused(403, "tenant-suspended");
        }
        let resumed = world
            .server
            .post(&world.operator, &path("resume"), json!({}))
            .await;
        resumed.expect(200);
        for d in [&world.server, &second] {
            eventually("the laboratory to be served again", LIMIT, async || {
                d.get(&lab.receptionist, "/api/v1/patients").await.status == 200
            })
            .await;
        }
    }

    // A removal waits for both, and no longer than they take.
    let asked = world
        .server
        .post(&world.operator, &path("offboard"), at_once("acme-lab"))
        .await;
    let location = asked.header("location").to_owned();
    asked.expect(202);
    let operation = finished(&world.server, &world.operator, &location).await;
    assert_eq!(operation["status"], "succeeded", "{operation}");
    assert_eq!(second.stop().await, Some(0));
    assert_eq!(world.stop().await, Some(0));
}

#[tokio::test]
async fn a_process_that_is_cut_off_from_the_registry_is_out_all_the_same() {
    let space = Space::new().await;
    let door = Door::before(&space.registry).await;
    // The laboratories' server is reached directly: only the registry is behind the door, and for one process
    // only.
    let mut direct = environment(&space);
    for (own, registry) in [
        ("TENANT_PGHOST", "MASTER_PGHOST"),
        ("TENANT_PGPORT", "MASTER_PGPORT"),
        ("TENANT_PGUSER", "MASTER_PGUSER"),
        ("TENANT_PGPASSWORD", "MASTER_PGPASSWORD"),
    ] {
        direct.insert(own.to_owned(), direct[registry].clone());
    }
    let mut behind = direct.clone();
    behind.insert("MASTER_PGHOST".to_owned(), "127.0.0.1".to_owned());
    behind.insert("MASTER_PGPORT".to_owned(), door.port().to_string());
    behind.insert(
        "TENANTRY_REGISTRY_CONNECT_TIMEOUT_MS".to_owned(),
        "1000".to_owned(),
    );
    let world = World::start_in(space, direct).await;
    let lab = world.lab("acme-lab").await;
    let cut_off = Tenantd::start(&world.space, behind).await;
    for d in [&world.server, &cut_off] {
        registered(&world, d).await;
        serves(d, &lab).await;
    }

    door.shut();
    serves(&cut_off, &lab).await;
    let suspend = format!("/api/v1/tenants/{}/suspend", lab.id);
    world
        .server
        .post(&world.operator, &suspend, json!({}))
        .await
        .expect(200);
    // It waited for half a second, in vain, and then the server put it out: by the time of the answer.
    let reply = cut_off.get(&lab.receptionist, "/api/v1/patients").await;
    assert!(reply.status >= 400, "{reply:?}");
    assert!(
        world
            .server
            .log()
            .contains("routers have not let go of a suspended laboratory"),
        "{}",
        world.server.log()
    );

    door.open();
    eventually("it to learn why", LIMIT, async || {
        cut_off.get(&lab.receptionist, "/api/v1/patients").await.code() == "tenant-suspended"
    })
    .await;
    assert_eq!(cut_off.stop().await, Some(0));
    assert_eq!(world.stop().await, Some(0));
}
