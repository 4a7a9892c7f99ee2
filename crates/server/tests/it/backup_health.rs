//! A schedule whose backups fail is told to whoever looks: the API and Prometheus. So is a host whose clock
//! is off, and one that lacks what all hosts must have in common.

use serde_json::{Value, json};
use testkit::{Space, eventually};

use crate::{
    metrics::scrape,
    support::{Call, LIMIT, Tenantd, World, connect, environment, prepare, provision},
};

async fn schedule(world: &World, tenant: &str) -> Value {
    let path = format!("/api/v1/tenants/{tenant}/backup-schedule");
    world.server.get(&world.operator, &path).await.expect(200)
}

#[tokio::test]
async fn a_schedule_whose_backups_fail_is_told_by_the_api_and_to_prometheus() {
    let space = Space::new().await;
    let archives = space.dir().join("archives");
    std::fs::write(&archives, "in the way").unwrap();
    let mut env = environment(&space);
    env.insert("TENANTRY_ARCHIVE_DIR".to_owned(), archives.display().to_string());
    let world = World::start_in(space, env).await;
    let id = provision(&world.server, &world.operator, "acme-lab").await;
    let path = format!("/api/v1/tenants/{id}/backup-schedule");
    let daily = json!({ "everySeconds": 86_400, "keepLast": 7 });
    let set = world
        .server
        .send(&Call::new("PUT", &path).json(&daily), &world.operator)
        .await;
    let set = set.expect(200);
    assert_eq!(
        (
            &set["lastSuccessAt"],
            &set["lastFailure"],
            &set["failures"],
            &set["overdue"]
        ),
        (&json!(null), &json!(null), &json!(0), &json!(false))
    );
    // The worker may have asked for the first one already.
    let backups = format!("/api/v1/tenants/{id}/backups");
    world.server.post(&world.operator, &backups, json!({})).await;
    eventually("the failure to be told", LIMIT, async || {
        schedule(&world, &id).await["failures"].as_u64().unwrap() > 0
    })
    .await;
    let failing = schedule(&world, &id).await;
    assert!(
        failing["lastFailure"]
            .as_str()
            .unwrap()
            .contains("TENANTRY_ARCHIVE_DIR"),
        "{failing}"
    );
    assert!(
        failing["lastFailureAt"].is_string() && failing["lastSuccessAt"].is_null(),
        "{failing}"
    );
    let series = scrape(&world.server).await;
    let of = |name: &str| {
        *series
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {:?}", series.keys()))
    };
    assert!((of("tenantry_backup_schedules") - 1.0).abs() < 0.5);
    assert!((of("tenantry_backups_failing") - 1.0).abs() < 0.5);
    assert!(of("tenantry_backups_overdue") < 0.5);
    assert!((of("tenantry_backup_interval_seconds{tenant=\"acme-lab\"}") - 86_400.0).abs() < 0.5);
    assert!(of("tenantry_clock_offset_seconds").abs() < 5.0);
    // Two days without one.
    world
        .registry_execute("UPDATE backup_schedules SET created_at = created_at - interval '2 days'")
        .await;
    assert_eq!(schedule(&world, &id).await["overdue"], true);
    let series = scrape(&world.server).await;
    let age = series["tenantry_backup_age_seconds{tenant=\"acme-lab\"}"];
    assert!(age >= 2.0 * 86_400.0, "{age}");
    let doctor = world
        .server
        .get(&world.operator, "/api/v1/doctor")
        .await
        .expect(200);
    let kinds: Vec<_> = doctor["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| &f["kind"])
        .collect();
    assert!(kinds.contains(&&json!("backup_overdue")), "{doctor}");
    world.stop().await;
}

/// A process on another host, as that would have written it down.
async fn another_host(space: &Space, signing_key: &str, store: &str) {
    let sql = format!(
        "INSERT INTO processes (name, host, signing_key, archive_store, clock_offset_ms, seen_at)
         VALUES ('elsewhere:1:0', 'elsewhere', '{signing_key}', '{store}', 90000, clock_timestamp())"
    );
    connect(&space.registry).await.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn a_host_with_another_signing_key_does_not_start() {
    let space = Space::new().await;
    let env = environment(&space);
    prepare(&env).await;
    another_host(&space, "0badcafe", "s3://one").await;
    let said = Tenantd::fails_to_start(&space, env).await;
    for part in [
        "host elsewhere",
        "0badcafe",
        "keys",
        "refuse what the other issued",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn a_host_with_another_archive_store_and_a_clock_that_is_off_are_told_by_the_doctor() {
    let world = World::start().await;
    let own = connect(&world.space.registry).await;
    let row = own
        .query_one("SELECT signing_key FROM processes", &[])
        .await
        .unwrap();
    another_host(&world.space, row.get(0), "s3://another").await;
    let doctor = world
        .server
        .get(&world.operator, "/api/v1/doctor")
        .await
        .expect(200);
    let findings = doctor["findings"].as_array().unwrap();
    let told: Vec<_> = findings
        .iter()
        .map(|f| (f["kind"].as_str().unwrap(), f["subject"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("archive_stores_differ", "archives"),
            ("clock_offset", "elsewhere")
        ],
        "{doctor}"
    );
    // A process that ends is gone from the list.
    world.server.stop().await;
    let rows = own.query("SELECT name FROM processes", &[]).await.unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, ["elsewhere:1:0"]);
}
