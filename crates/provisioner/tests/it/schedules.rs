//! A scheduled backup that fails is tried again within its interval, and whoever looks is told.

use std::time::Duration;

use jiff::SignedDuration;
use provisioner::Schedule;
use registry::{BackupSchedule, Tenant};

use crate::harness::{Harness, by};

const DAY: Duration = Duration::from_secs(24 * 3_600);

async fn scheduled(harness: &Harness, slug: &str) -> Tenant {
    let tenant = harness.provisioned(slug).await;
    let daily = Schedule {
        every: DAY,
        keep_last: 3,
        keep_for: None,
    };
    harness
        .provisioner
        .set_backup_schedule(tenant.id, Some(daily), by())
        .await
        .unwrap();
    tenant
}

async fn schedule_of(harness: &Harness, tenant: &Tenant) -> BackupSchedule {
    let client = harness.registry.client().await.unwrap();
    let found = registry::backup_schedule_of(&client, tenant.id).await.unwrap();
    found.unwrap()
}

/// How long until the next one is due, by the registry's clock.
async fn due_in(harness: &Harness, tenant: &Tenant) -> SignedDuration {
    let next_at = schedule_of(harness, tenant).await.next_at;
    let client = harness.registry.client().await.unwrap();
    next_at.duration_since(registry::registry_now(&client).await.unwrap())
}

/// Runs the backup that is due and says why it failed, if it did.
async fn run_due(harness: &Harness) -> Result<(), String> {
    let asked = harness.provisioner.request_due_backups().await.unwrap();
    let Some(operation) = asked.first() else {
        let client = harness.registry.client().await.unwrap();
        let troubled = registry::backup_schedules_in_trouble(&client, 1).await.unwrap();
        return Err(troubled[0].failure.clone().unwrap());
    };
    assert_eq!(asked.len(), 1, "one is due");
    let ended = harness.provisioner.run(*operation, |_| {}).await;
    ended.map(drop).map_err(|error| error.to_string())
}

async fn make_due(harness: &Harness) {
    let client = harness.registry.client().await.unwrap();
    let sql = "UPDATE backup_schedules SET next_at = clock_timestamp()";
    client.batch_execute(sql).await.unwrap();
}

#[tokio::test]
async fn a_scheduled_backup_that_fails_is_tried_again_within_its_interval() {
    let harness = Harness::new().await;
    let tenant = scheduled(&harness, "full").await;
    // Nothing can be written where archives should go, as on a full disk.
    let archives = harness.provisioner.config().archive_dir.clone();
    std::fs::write(&archives, "in the way").unwrap();
    let mut waits = Vec::new();
    for _ in 0..3 {
        run_due(&harness).await.unwrap_err();
        waits.push(due_in(&harness, &tenant).await);
        make_due(&harness).await;
    }
    assert!(
        waits[0] > SignedDuration::ZERO && waits[0] <= SignedDuration::from_mins(10),
        "{waits:?}"
    );
    assert!(waits[1] > waits[0] && waits[2] > waits[1], "{waits:?}");
    assert!(waits[2] <= SignedDuration::from_hours(1), "{waits:?}");
    // There is room again.
    std::fs::remove_file(&archives).unwrap();
    run_due(&harness).await.unwrap();
    assert!(due_in(&harness, &tenant).await > SignedDuration::from_hours(22));
}

#[tokio::test]
async fn the_doctor_names_a_schedule_whose_backups_fail() {
    let harness = Harness::new().await;
    scheduled(&harness, "silent").await;
    let archives = harness.provisioner.config().archive_dir.clone();
    std::fs::write(&archives, "in the way").unwrap();
    let why = run_due(&harness).await.unwrap_err();
    std::fs::remove_file(&archives).unwrap();
    let report = harness.provisioner.examine(false).await.unwrap();
    let reported: Vec<_> = report
        .findings
        .iter()
        .map(|f| (f.kind.as_str(), f.subject.as_str()))
        .collect();
    assert_eq!(reported, [("backup_failing", "silent")], "{why}");
    assert!(report.findings[0].seen.contains("in the way") || report.findings[0].seen.contains("archives"));
}

/// What is looked at when a backup is asked for by hand is looked at for one that is due.
#[tokio::test]
async fn a_backup_that_is_due_and_could_not_be_made_is_not_begun() {
    let harness = Harness::new().await;
    let tenant = scheduled(&harness, "unmet").await;
    let archives = harness.provisioner.config().archive_dir.clone();
    std::fs::write(&archives, "in the way").unwrap();
    let asked = harness.provisioner.request_due_backups().await.unwrap();
    assert_eq!(asked, [], "the store takes no archive");
    let schedule = schedule_of(&harness, &tenant).await;
    assert_eq!(schedule.failures, 1);
    let why = schedule.failure.unwrap();
    let by_hand = harness
        .provisioner
        .request_backup(tenant.id, by())
        .await
        .unwrap_err();
    assert_eq!(why, by_hand.to_string());
    std::fs::remove_file(&archives).unwrap();
    make_due(&harness).await;
    run_due(&harness).await.unwrap();
}
