//! PostgreSQL itself is killed while operations stand where a step's work is done and not yet noted, one for
//! each step of each kind. The server that comes back has what was committed, and every operation ends as if
//! nothing had happened.

use std::time::Duration;

use embedded::{Cluster, ThrowawayOptions};
use model::{ArchiveId, OperationId, OperationKind, OperationStatus, Slug, Step, TenantId, TenantState};
use provisioner::{ProvisionError, RestoreAs};
use rustix::process::{Pid, Signal, kill_process};
use testkit::{Space, eventually};
use tokio::task::JoinHandle;

use crate::{
    adopt::waiting,
    crash::{assert_archives_only, park_at},
    harness::{Harness, NOW, PATIENCE, by},
};

struct Parked {
    kind: OperationKind,
    step: Step,
    tenant: TenantId,
    operation: OperationId,
    task: JoinHandle<Result<(), ProvisionError>>,
}

#[tokio::test]
async fn what_makes_laboratories_ends_well_when_postgresql_is_killed_behind_any_step() {
    end_well(&[
        OperationKind::Provision,
        OperationKind::Adopt,
        OperationKind::Restore,
    ])
    .await;
}

#[tokio::test]
async fn what_archives_and_removes_ends_well_when_postgresql_is_killed_behind_any_step() {
    end_well(&[
        OperationKind::Migrate,
        OperationKind::Backup,
        OperationKind::VerifyArchive,
        OperationKind::ImportArchive,
        OperationKind::Offboard,
    ])
    .await;
}

#[tokio::test]
async fn what_replaces_a_database_ends_well_when_postgresql_is_killed_behind_any_step() {
    end_well(&[OperationKind::RestoreInPlace]).await;
}

async fn end_well(kinds: &[OperationKind]) {
    let mut cluster = server().await;
    {
        let space = Space::on(cluster.target().clone()).await;
        // Longer than parking all of them takes, on any machine.
        let harness = Harness::within(space, |config| config.lease = Duration::from_secs(600)).await;
        let mut parked = Vec::new();
        let origin = harness.provisioned("origin").await;
        let archive = harness.backed_up(&origin).await.id;
        for &kind in kinds {
            for &step in provisioner::steps(kind) {
                parked.push(park(&harness, kind, step, archive).await);
            }
        }
        kill(&mut cluster).await;
        for one in &parked {
            assert!(!one.task.is_finished(), "{} {}", one.kind, one.step);
            one.task.abort();
        }
        cluster.restart().await.unwrap();
        // Whoever held the leases is gone; nobody wants to wait until that shows.
        let registry = harness.registry.client().await.unwrap();
        let end = "UPDATE operations SET lease_until = now() WHERE lease_until IS NOT NULL";
        registry.batch_execute(end).await.unwrap();
        drop(registry);
        for one in &parked {
            ends_well(&harness, one).await;
        }
        let leftovers = harness.leftovers().await;
        let belongs = |name: &String| name.starts_with("tenant_") || name.starts_with("old_");
        assert!(leftovers.iter().all(belongs), "{leftovers:?}");
    }
    cluster.stop().await.unwrap();
}

/// A server of the test's own, with room for the sessions of all that stand still, and as safe from a crash
/// as one in service.
pub(crate) async fn server() -> Cluster {
    let parameters = [("max_connections", "300"), ("synchronous_commit", "on")];
    let options = ThrowawayOptions {
        bin: testkit::pg_bin(),
        parameters: parameters
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..ThrowawayOptions::default()
    };
    Cluster::start_throwaway(options).await.unwrap()
}

async fn kill(cluster: &mut Cluster) {
    let file = std::fs::read_to_string(cluster.dir().join("data/postmaster.pid")).unwrap();
    let pid = file.lines().next().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    eventually("the killed server is gone", PATIENCE, async || {
        cluster.has_ended()
    })
    .await;
}

/// A laboratory with an operation of this kind, which has done the step. `archive` is any that can be
/// restored.
async fn park(harness: &Harness, kind: OperationKind, step: Step, archive: ArchiveId) -> Parked {
    let slug = format!("{kind}-{step}").replace('_', "-");
    let provisioner = &harness.provisioner;
    let (tenant, operation) = match kind {
        OperationKind::Provision => {
            let (tenant, operation) = harness.ask(&slug).await;
            (tenant.id, operation)
        }
        OperationKind::Adopt => {
            let old = waiting(harness, &slug).await;
            let wanted = old.adoption(&slug);
            let (tenant, operation) = provisioner.request_adopt(wanted, by()).await.unwrap();
            (tenant.id, operation)
        }
        OperationKind::Restore => {
            let beside = RestoreAs {
                slug: Some(Slug::parse(&slug).unwrap()),
                server: None,
            };
            let asked = provisioner.request_restore(archive, beside, by()).await;
            let (tenant, operation) = asked.unwrap();
            (tenant.id, operation)
        }
        OperationKind::VerifyArchive => provisioner.request_verify_archive(archive, by()).await.unwrap(),
        OperationKind::ImportArchive => {
            let tenant = harness.provisioned(&slug).await;
            let known = harness.backed_up(&tenant).await;
            let client = harness.registry.client().await.unwrap();
            let forget = "DELETE FROM archives WHERE id = $1";
            client.execute(forget, &[&known.id.as_uuid()]).await.unwrap();
            let asked = provisioner.request_import(&known.location, true, by()).await;
            let asked = asked.unwrap();
            (asked.tenant, asked.operation)
        }
        OperationKind::RestoreInPlace => {
            let tenant = harness.provisioned(&slug).await;
            let archive = harness.backed_up(&tenant).await.id;
            provisioner.request_restore_in_place(archive, by()).await.unwrap()
        }
        OperationKind::Migrate | OperationKind::Backup | OperationKind::Offboard => {
            let tenant = harness.provisioned(&slug).await.id;
            let asked = match kind {
                OperationKind::Migrate => provisioner.request_migrate(tenant, by()).await,
                OperationKind::Backup => provisioner.request_backup(tenant, by()).await,
                _ => provisioner.request_offboard(tenant, NOW, by()).await,
            };
            (tenant, asked.unwrap())
        }
    };
    // The grace period is a wait: the moment behind it is the next step's begin.
    let point = match step {
        Step::Grace => format!("{kind}/{step}/begun"),
        _ => format!("{kind}/{step}/acted"),
    };
    let task = park_at(harness, operation, &point).await;
    Parked {
        kind,
        step,
        tenant,
        operation,
        task,
    }
}

async fn ends_well(harness: &Harness, one: &Parked) {
    let (kind, step) = (one.kind, one.step);
    let ended = tokio::time::timeout(PATIENCE, harness.provisioner.run(one.operation, |_| {})).await;
    let ended = ended.unwrap_or_else(|_| panic!("{kind} {step} is stuck"));
    let ended = ended.unwrap_or_else(|error| panic!("{kind} {step}: {error}"));
    assert_eq!(ended.status, OperationStatus::Succeeded, "{kind} {step}");
    match kind {
        OperationKind::Offboard => assert!(harness.tenant(one.tenant).await.is_none(), "{step}"),
        _ => {
            let tenant = harness.tenant(one.tenant).await.unwrap();
            assert_eq!(tenant.status, TenantState::Active, "{kind} {step}");
            assert!(harness.serves(one.tenant).await, "{kind} {step}");
        }
    }
    if matches!(
        kind,
        OperationKind::Backup | OperationKind::Offboard | OperationKind::RestoreInPlace
    ) {
        assert_archives_only(harness, one.tenant).await;
    }
}
