//! Calling off in the very moment in which an archive is recorded: whatever comes first, a row has its files,
//! and files that nobody wants do not stay.

use std::time::Duration;

use model::{OperationId, Step, StepStatus};
use provisioner::ProvisionError;
use registry::Tenant;
use testkit::eventually;
use tokio_postgres::Client;

use crate::{
    archive::{LEASE, files_in},
    crash::die_at,
    harness::{Harness, NOW, PATIENCE, by, connect},
};

/// Until a cancellation, nothing but waiting comes behind the archive.
const GRACE: Duration = Duration::from_secs(3_600);

async fn under_way(harness: &Harness, operation: OperationId, step: Step) {
    eventually("the step has begun", PATIENCE, async || {
        let client = harness.registry.client().await.unwrap();
        let steps = registry::steps_of(&client, operation).await.unwrap();
        let running = |row: &registry::StepRow| row.step == step && row.status == StepStatus::Running;
        steps.iter().any(running)
    })
    .await;
}

/// How many sessions of the registry wait for a lock with such a statement.
async fn waiting(client: &Client, statement: &str) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE $1";
    client.query_one(sql, &[&statement]).await.unwrap().get(0)
}

/// The archives that the registry knows, each with its files, and no other files.
async fn recorded(harness: &Harness, tenant: &Tenant) -> usize {
    let client = harness.registry.client().await.unwrap();
    let archives = registry::archives_list(&client, Some(tenant.id), None, 10)
        .await
        .unwrap();
    for archive in &archives {
        let location = archive::Location::parse(&archive.location).unwrap();
        location.require(archive.bytes, &archive.sha256).await.unwrap();
        archive::Manifest::require(&location, &archive.manifest)
            .await
            .unwrap();
    }
    let files = files_in(&harness.provisioner.config().archive_dir, "");
    assert_eq!(files.len(), 2 * archives.len(), "{files:?}");
    archives.len()
}

#[tokio::test]
async fn a_cancellation_waits_for_an_archive_that_is_being_recorded() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("recorded").await;
    let asked = harness.provisioner.request_offboard(tenant.id, GRACE, by()).await;
    let operation = asked.unwrap();
    let (worker, other) = (harness.provisioner.clone(), harness.provisioner.clone());
    let running = tokio::spawn(async move { worker.run(operation, |_| {}).await.map(|_| ()) });
    under_way(&harness, operation, Step::Verify).await;
    let (blocker, looker) = (
        connect(&harness.space.registry).await,
        connect(&harness.space.registry).await,
    );
    let block = "BEGIN; LOCK TABLE archives IN SHARE MODE";
    blocker.batch_execute(block).await.unwrap();
    eventually("the archive is being recorded", PATIENCE, async || {
        waiting(&looker, "INSERT INTO archives%").await > 0
    })
    .await;
    let calling = tokio::spawn(async move { other.cancel(operation, by()).await.map(|_| ()) });
    eventually("the cancellation waits, or was heard", PATIENCE, async || {
        running.is_finished()
            || waiting(&looker, "SELECT % FROM operations WHERE id = $1 FOR UPDATE").await > 0
    })
    .await;
    blocker.batch_execute("ROLLBACK").await.unwrap();
    calling.await.unwrap().unwrap();
    let _ = running.await.unwrap();
    // It may have been given back to wait out its grace period before it heard.
    let _ = harness.provisioner.run(operation, |_| {}).await;
    assert!(harness.serves(tenant.id).await);
    eventually("nobody records any more", PATIENCE, async || {
        waiting(&looker, "INSERT INTO archives%").await == 0
    })
    .await;
    assert_eq!(recorded(&harness, &tenant).await, 1);
}

#[tokio::test]
async fn what_is_cancelled_first_was_never_said_to_be_verified() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("unsaid").await;
    let operation = harness.provisioner.request_backup(tenant.id, by()).await.unwrap();
    let worker = harness.provisioner.clone();
    let running = tokio::spawn(async move { worker.run(operation, |_| {}).await.map(|_| ()) });
    under_way(&harness, operation, Step::Verify).await;
    let mut client = harness.registry.client().await.unwrap();
    let txn = client.transaction().await.unwrap();
    registry::operation_request_cancel_in_txn(&txn, operation, &by().actor)
        .await
        .unwrap();
    let looker = connect(&harness.space.registry).await;
    eventually("the archive is to be recorded", PATIENCE, async || {
        waiting(&looker, "%past_return%").await > 0
    })
    .await;
    let manifests = files_in(&harness.provisioner.config().archive_dir, ".manifest.json");
    let manifest = std::fs::read_to_string(&manifests[0]).unwrap();
    assert!(
        manifest.contains("\"verifiedAt\": null"),
        "not said while it can be cancelled"
    );
    txn.commit().await.unwrap();
    let ended = running.await.unwrap().unwrap_err();
    assert!(matches!(ended, ProvisionError::Cancelled { .. }), "{ended}");
    assert_eq!(recorded(&harness, &tenant).await, 0);
}

/// A superuser writes into a closed laboratory whose archive is verified: another dump is made, under the
/// same name.
#[tokio::test]
async fn a_record_goes_before_another_dump_takes_the_place_of_its_files() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let tenant = harness.provisioned("again").await;
    let asked = harness.provisioner.request_offboard(tenant.id, NOW, by()).await;
    let operation = asked.unwrap();
    die_at(&harness, operation, "offboard/drop_database/begun").await;
    assert_eq!(recorded(&harness, &tenant).await, 1);
    let late = "INSERT INTO staff (id, display_name, email, role)
        VALUES (gen_random_uuid(), 'Late', 'late@example.org', 'technician')";
    harness.inside(&tenant).await.batch_execute(late).await.unwrap();
    die_at(&harness, operation, "offboard/dump/acted").await;
    harness.provisioner.cancel(operation, by()).await.unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap_err();
    assert!(harness.serves(tenant.id).await);
    assert_eq!(recorded(&harness, &tenant).await, 0);
}

/// Cut off between the row and the note that the step is done: the archive is not verified and recorded once
/// more.
#[tokio::test]
async fn what_is_recorded_is_not_recorded_again() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let tenant = harness.provisioned("twice").await;
    let operation = harness.provisioner.request_backup(tenant.id, by()).await.unwrap();
    die_at(&harness, operation, "backup/verify/acted").await;
    let client = harness.registry.client().await.unwrap();
    let archive = async || {
        let found = registry::archive_by_operation(&client, operation).await;
        found.unwrap().unwrap()
    };
    let before = archive().await.manifest;
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert_eq!(archive().await.manifest, before);
    assert_eq!(recorded(&harness, &tenant).await, 1);
}
