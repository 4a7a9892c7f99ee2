//! Two hosts of which only one can read an archive: what the other cannot do is left to it, and ends only
//! after a bound.

use std::{path::PathBuf, time::Duration};

use model::{OperationStatus, TenantState};
use provisioner::{Provisioner, RestoreAs};
use registry::Operation;
use testkit::eventually;
use tokio::sync::oneshot;

use crate::harness::{Harness, NOW, PATIENCE, by};

/// The directory of the archives is not there: this is how the second host sees it.
struct Unmounted {
    from: PathBuf,
    to: PathBuf,
}

impl Unmounted {
    fn of(harness: &Harness) -> Self {
        let from = harness.provisioner.config().archive_dir.clone();
        let to = from.with_file_name("the first host's");
        std::fs::rename(&from, &to).unwrap();
        Self { from, to }
    }

    fn mount(&self) {
        let _ = std::fs::remove_dir_all(&self.from);
        std::fs::rename(&self.to, &self.from).unwrap();
    }
}

/// A worker that runs until the end of the test.
fn works(provisioner: &Provisioner) -> oneshot::Sender<()> {
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = provisioner.clone();
    tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        worker.worker(stopped).await;
    });
    stop
}

async fn operation(harness: &Harness, id: model::OperationId) -> Operation {
    let client = harness.registry.client().await.unwrap();
    registry::operation_by_id(&client, id).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_restore_is_left_to_the_host_that_has_the_archive() {
    let harness = Harness::new().await;
    let first = harness.provisioner.clone().on_host("first");
    let second = harness.provisioner.clone().on_host("second");
    let tenant = harness.provisioned("moved").await;
    let asked = first.request_offboard(tenant.id, NOW, by()).await.unwrap();
    first.run(asked, |_| {}).await.unwrap();
    let client = harness.registry.client().await.unwrap();
    let archive = registry::archive_by_operation(&client, asked)
        .await
        .unwrap()
        .unwrap();
    drop(client);
    assert_eq!(archive.host.as_deref(), Some("first"));

    let away = Unmounted::of(&harness);
    let (_, restore) = first
        .request_restore(archive.id, RestoreAs::default(), by())
        .await
        .unwrap();
    let _working = works(&second);
    eventually("the second host to leave it", PATIENCE, async || {
        operation(&harness, restore).await.not_here == ["second"]
    })
    .await;
    // It does not come back to what it cannot do, and no try is used up.
    tokio::time::sleep(harness.provisioner.config().bounds.poll_every * 3).await;
    let left = operation(&harness, restore).await;
    assert_eq!(
        (left.status, left.failures, left.attempts),
        (OperationStatus::Pending, 0, 0),
        "{left:?}"
    );
    let why = left.error.unwrap();
    assert!(
        why.contains("lies on host first") && why.contains(&archive.location),
        "{why}"
    );
    away.mount();
    first.run(restore, |_| {}).await.unwrap();
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Active
    );
    assert!(harness.serves(tenant.id).await);
}

#[tokio::test]
async fn what_no_host_can_read_ends_after_a_bound_and_names_the_host_that_has_it() {
    let harness = Harness::with(|config| config.bounds.elsewhere_limit = Duration::from_secs(1)).await;
    let first = harness.provisioner.clone().on_host("first");
    let second = harness.provisioner.clone().on_host("second");
    let tenant = harness.provisioned("lonely").await;
    let backup = first.request_backup(tenant.id, by()).await.unwrap();
    first.run(backup, |_| {}).await.unwrap();
    let client = harness.registry.client().await.unwrap();
    let archive = registry::archive_by_operation(&client, backup)
        .await
        .unwrap()
        .unwrap();
    drop(client);
    let away = Unmounted::of(&harness);
    // The doctor of the second host does not take them for lost.
    let report = second.examine(false).await.unwrap();
    let reported: Vec<_> = report
        .findings
        .iter()
        .map(|f| (f.kind.as_str(), f.subject.as_str()))
        .collect();
    assert_eq!(
        reported,
        [("archive_elsewhere", "first")],
        "{:#?}",
        report.findings
    );
    let (_, verify) = second.request_verify_archive(archive.id, by()).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, second.run(verify, |_| {}))
        .await
        .unwrap();
    let said = ended.unwrap_err().to_string();
    for part in ["lies on host first", "second", "left to others for 1 s"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Pruning on the second host takes nothing for removed that it does not see.
    let one = provisioner::Schedule {
        every: Duration::from_secs(3_600),
        keep_last: 1,
        keep_for: None,
    };
    harness
        .provisioner
        .set_backup_schedule(tenant.id, Some(one), by())
        .await
        .unwrap();
    away.mount();
    let backup = first.request_backup(tenant.id, by()).await.unwrap();
    let newest = registry::operation_by_id(&harness.registry.client().await.unwrap(), backup).await;
    assert!(newest.unwrap().is_some());
    let away = Unmounted::of(&harness);
    assert!(second.prune_archives(None, by()).await.unwrap().is_empty());
    away.mount();
    first.run(backup, |_| {}).await.unwrap();
    let client = harness.registry.client().await.unwrap();
    let left = registry::archives_list(&client, Some(tenant.id), None, 10)
        .await
        .unwrap();
    assert_eq!(left.len(), 1, "the first host removed what is past its time");
    // The one that is gone where it was written is lost, and said so at once.
    drop(client);
    let _gone = Unmounted::of(&harness);
    let (_, verify) = first.request_verify_archive(left[0].id, by()).await.unwrap();
    let said = first.run(verify, |_| {}).await.unwrap_err().to_string();
    assert!(said.contains("cannot be trusted"), "{said}");
}
