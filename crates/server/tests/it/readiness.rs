//! What a load balancer is told.

use std::collections::HashMap;

use serde_json::json;
use testkit::{Space, eventually};

use crate::support::{Door, LIMIT, Lab, World, environment};

/// A world whose registry is reached through a door, and whose laboratories are not.
async fn behind_a_door(change: impl FnOnce(&mut HashMap<String, String>)) -> (World, Door) {
    let space = Space::new().await;
    let door = Door::before(&space.registry).await;
    let mut env = environment(&space);
    for (own, registry) in [
        ("TENANT_PGHOST", "MASTER_PGHOST"),
        ("TENANT_PGPORT", "MASTER_PGPORT"),
        ("TENANT_PGUSER", "MASTER_PGUSER"),
        ("TENANT_PGPASSWORD", "MASTER_PGPASSWORD"),
    ] {
        env.insert(own.to_owned(), env[registry].clone());
    }
    env.insert("MASTER_PGHOST".to_owned(), "127.0.0.1".to_owned());
    env.insert("MASTER_PGPORT".to_owned(), door.port().to_string());
    env.insert(
        "TENANTRY_REGISTRY_CONNECT_TIMEOUT_MS".to_owned(),
        "1000".to_owned(),
    );
    change(&mut env);
    (World::start_in(space, env).await, door)
}

async fn ready(world: &World, status: u16, word: &str) {
    eventually(&format!("/readyz to be {status} {word}"), LIMIT, async || {
        let reply = world.server.get("", "/readyz").await;
        (reply.status, reply.json["status"].as_str()) == (status, Some(word))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_registry_a_process_is_ready_for_as_long_as_it_serves_laboratories() {
    let (world, door) = behind_a_door(|env| {
        env.insert("TENANTRY_ROUTER_OUTAGE_MAX_S".to_owned(), "30".to_owned());
        env.insert("TENANTRY_ROUTER_SNAPSHOT_TTL_MS".to_owned(), "1000".to_owned());
    })
    .await;
    ready(&world, 200, "ok").await;
    let lab = world.lab("acme-lab").await;
    let serves = async || {
        world
            .server
            .get(&lab.receptionist, "/api/v1/patients")
            .await
            .status
            == 200
    };
    assert!(serves().await);
    door.shut();
    ready(&world, 200, "degraded").await;
    let reply = world.server.get("", "/readyz").await;
    assert_eq!(reply.json["degraded"], json!(["registry-unavailable"]));
    assert!(serves().await, "that is what ready means");
    // After `outage_max_s` nothing is served any more, and it says so.
    ready(&world, 503, "registry-unavailable").await;
    door.open();
    ready(&world, 200, "ok").await;
    assert!(serves().await);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_knows_no_laboratory_is_not_ready_without_its_registry() {
    let (world, door) = behind_a_door(|_| {}).await;
    door.shut();
    ready(&world, 503, "registry-unavailable").await;
    door.open();
    ready(&world, 200, "ok").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_to_end_says_so_first_and_serves_meanwhile() {
    let mut world = World::start_with(|env| {
        env.insert(
            "TENANTRY_HTTP_SHUTDOWN_ANNOUNCE_MS".to_owned(),
            "10000".to_owned(),
        );
    })
    .await;
    let lab = world.lab("acme-lab").await;
    world.server.signal("TERM").await;
    ready(&world, 503, "closing").await;
    // The load balancer has not looked yet: new connections are taken, reads and writes are served.
    let d = &world.server;
    let fresh = reqwest::Client::new();
    let patients = crate::support::Call::new("GET", "/api/v1/patients");
    let reply = crate::support::Tenantd::send_with(&fresh, &d.url, &patients, &lab.receptionist).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(
        reply.header("connection"),
        "close",
        "so that keep-alive does not outlive it"
    );
    lab.patient(d).await;
    d.log_in(&Lab::email("acme-lab", "admin"), None).await;
    assert_eq!(world.server.ended().await, Some(0));
    drop(world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_at_the_terminal_does_not_wait_for_a_load_balancer() {
    let mut world = World::start_with(|env| {
        env.insert(
            "TENANTRY_HTTP_SHUTDOWN_ANNOUNCE_MS".to_owned(),
            "600000".to_owned(),
        );
    })
    .await;
    world.server.signal("INT").await;
    assert_eq!(world.server.ended().await, Some(0));
    drop(world);
}
