//! A process whose clock is off: what it makes is kept in the registry's order, and it waits no longer than
//! others.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use model::{Clock as _, ManualClock, OperationStatus, SystemClock};
use provisioner::Schedule;
use registry::RegistryClock;
use uuid::Uuid;

use crate::harness::{Harness, by};

const HOUR: Duration = Duration::from_secs(3_600);
/// For a wait that must not happen: an operation that waits is returned at once.
const AT_ONCE: Duration = Duration::from_secs(30);

/// As if the archive was made by a machine whose clock shows the year 2096.
async fn made_ahead(harness: &Harness, archive: &registry::Archive) -> Uuid {
    let id = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 4_000_000_000, 0));
    let client = harness.registry.client().await.unwrap();
    let sql = "UPDATE archives SET id = $2 WHERE id = $1";
    client.execute(sql, &[&archive.id.as_uuid(), &id]).await.unwrap();
    id
}

#[tokio::test]
async fn the_backups_that_are_kept_are_the_last_by_the_registrys_clock() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("ahead").await;
    let mut old = Vec::new();
    for _ in 0..2 {
        let archive = harness.backed_up(&tenant).await;
        old.push(made_ahead(&harness, &archive).await);
    }
    // Two by a machine whose clock is right; the last one is kept as the one that was verified last in any
    // case.
    harness.backed_up(&tenant).await;
    harness.backed_up(&tenant).await;
    let keep_two = Schedule {
        every: HOUR,
        keep_last: 2,
        keep_for: None,
    };
    harness
        .provisioner
        .set_backup_schedule(tenant.id, Some(keep_two), by())
        .await
        .unwrap();
    let prunable = harness.provisioner.prunable_archives(None).await.unwrap();
    let prunable: Vec<_> = prunable.iter().map(|archive| archive.id.as_uuid()).collect();
    assert_eq!(prunable, old, "the two that were made first");
}

#[tokio::test]
async fn a_process_whose_clock_is_ahead_returns_from_a_removal_that_waits() {
    let ahead = SystemClock.now() + SignedDuration::from_hours(40 * 24);
    let harness =
        Harness::with(|config| config.clock = RegistryClock::new(Arc::new(ManualClock::new(ahead)))).await;
    let tenant = harness.provisioned("waits").await;
    let grace = Duration::from_secs(2 * 3_600);
    let operation = harness
        .provisioner
        .request_offboard(tenant.id, grace, by())
        .await
        .unwrap();
    let watched = tokio::time::timeout(AT_ONCE, harness.provisioner.run(operation, |_| {})).await;
    let operation = watched
        .expect("the wait is seen by the registry's clock")
        .unwrap();
    assert_eq!(operation.status, OperationStatus::Pending);
}

#[tokio::test]
async fn the_doctor_says_how_far_the_clock_of_its_host_is_off() {
    let ahead = SystemClock.now() + SignedDuration::from_hours(40 * 24);
    let harness =
        Harness::with(|config| config.clock = RegistryClock::new(Arc::new(ManualClock::new(ahead)))).await;
    let report = harness.provisioner.examine(false).await.unwrap();
    let reported: Vec<_> = report
        .findings
        .iter()
        .map(|f| (f.kind.as_str(), f.subject.as_str()))
        .collect();
    assert_eq!(
        reported,
        [("clock_offset", harness.provisioner.host())],
        "{:#?}",
        report.findings
    );
    // What is decided by the clock is decided by the registry's.
    let now = harness.provisioner.config().clock.now();
    assert!(
        ahead.duration_since(now) > SignedDuration::from_hours(39 * 24),
        "{now}"
    );
}
