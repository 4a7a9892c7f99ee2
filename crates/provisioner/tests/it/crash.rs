//! A worker that dies is a worker that stops: its future is dropped at a fault point, its lease runs out, and
//! another goes on. (That the whole process can be killed is the server's tests' business.)

use std::{path::Path, sync::Arc, time::Duration};

use model::{OperationId, OperationKind, OperationStatus, Slug, Step, TenantState};
use provisioner::{Faults, ProvisionError, Provisioner, RestoreAs};
use registry::{Registry, RegistryOptions};
use testkit::eventually;
use tokio::task::JoinHandle;

use crate::harness::{Harness, NOW, PATIENCE, by};

/// Long enough that a step's registry calls fit into a quarter of it on a busy machine, short enough to wait
/// for.
pub(crate) const LEASE: Duration = Duration::from_millis(1500);

/// Runs the operation until it stands at the point, and lets it stand there.
pub(crate) async fn park_at(
    harness: &Harness,
    operation: OperationId,
    point: &str,
) -> JoinHandle<Result<(), ProvisionError>> {
    let file = harness.space.dir().join(point.replace('/', "-"));
    let doomed = harness
        .provisioner
        .clone()
        .with_faults(Faults::stop_at(point, &file));
    let running = tokio::spawn(async move { doomed.run(operation, |_| {}).await.map(|_| ()) });
    reached(point, &file).await;
    running
}

/// Runs the operation until it stands at the point, then lets it die there.
pub(crate) async fn die_at(harness: &Harness, operation: OperationId, point: &str) {
    let running = park_at(harness, operation, point).await;
    running.abort();
    assert!(
        running.await.unwrap_err().is_cancelled(),
        "it died before its end"
    );
}

async fn reached(point: &str, file: &Path) {
    eventually(point, PATIENCE, async || file.exists()).await;
}

fn points(kind: OperationKind) -> impl Iterator<Item = (Step, &'static str)> {
    points_of(provisioner::steps(kind))
}

/// Before and after each step acts, and the moments within.
pub(crate) fn points_of(steps: &'static [Step]) -> impl Iterator<Item = (Step, &'static str)> {
    steps.iter().flat_map(|&step| {
        let within: &[&str] = match step {
            Step::Verify | Step::RestoreDatabase => &["begun", "scratch_made", "acted"],
            Step::DropDatabase | Step::SwapDatabase => &["begun", "closed", "acted"],
            _ => &["begun", "acted"],
        };
        within.iter().map(move |&moment| (step, moment))
    })
}

#[tokio::test]
async fn provisioning_ends_well_wherever_its_worker_died() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let mut asked = Vec::new();
    for (at, (step, moment)) in points(OperationKind::Provision).enumerate() {
        let (tenant, operation) = harness.ask(&format!("lab-{at}")).await;
        die_at(&harness, operation, &format!("provision/{step}/{moment}")).await;
        asked.push((step, moment, tenant.id, operation));
    }
    for (step, moment, tenant, operation) in asked {
        let ended = harness.provisioner.run(operation, |_| {}).await.unwrap();
        assert_eq!(ended.status, OperationStatus::Succeeded, "{step} {moment}");
        let tenant = harness.tenant(tenant).await.unwrap();
        assert_eq!(tenant.status, TenantState::Active, "{step} {moment}");
        assert_eq!(tenant.db_version, migrator::latest());
    }
    let leftovers = harness.leftovers().await;
    assert!(
        leftovers.iter().all(|name| name.starts_with("tenant_lab-")),
        "{leftovers:?}"
    );
}

#[tokio::test]
async fn offboarding_ends_well_wherever_its_worker_died() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let mut asked = Vec::new();
    for (at, (step, moment)) in points(OperationKind::Offboard).enumerate() {
        let tenant = harness.provisioned(&format!("lab-{at}")).await;
        let operation = harness
            .provisioner
            .request_offboard(tenant.id, NOW, by())
            .await
            .unwrap();
        die_at(&harness, operation, &format!("offboard/{step}/{moment}")).await;
        asked.push((step, moment, tenant.id, operation));
    }
    for (step, moment, tenant, operation) in asked {
        harness.provisioner.run(operation, |_| {}).await.unwrap();
        assert!(harness.tenant(tenant).await.is_none(), "{step} {moment}");
        let client = harness.registry.client().await.unwrap();
        let archive = registry::archive_by_operation(&client, operation)
            .await
            .unwrap()
            .unwrap();
        let directory = Path::new(&archive.location).parent().unwrap();
        let files = std::fs::read_dir(directory).unwrap().count();
        assert_eq!(files, 2, "{step} {moment}: dump and manifest and nothing else");
    }
    assert_eq!(harness.leftovers().await, Vec::<String>::new());
}

/// Dump, manifest and row of every archive, and nothing else.
pub(crate) async fn assert_archives_only(harness: &Harness, tenant: model::TenantId) {
    let client = harness.registry.client().await.unwrap();
    let archives = registry::archives_list(&client, Some(tenant), None, 100)
        .await
        .unwrap();
    let directory = harness.provisioner.config().archive_dir.join(tenant.to_string());
    let mut files: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let mut known: Vec<String> = archives
        .iter()
        .flat_map(|a| [format!("{}.dump", a.id), format!("{}.manifest.json", a.id)])
        .collect();
    files.sort();
    known.sort();
    assert_eq!(files, known);
}

#[tokio::test]
async fn a_backup_ends_well_wherever_its_worker_died() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let mut asked = Vec::new();
    for (at, (step, moment)) in points(OperationKind::Backup).enumerate() {
        let tenant = harness.provisioned(&format!("lab-{at}")).await;
        let operation = harness.provisioner.request_backup(tenant.id, by()).await.unwrap();
        die_at(&harness, operation, &format!("backup/{step}/{moment}")).await;
        assert!(harness.serves(tenant.id).await, "{step} {moment}");
        asked.push((step, moment, tenant.id, operation));
    }
    for (step, moment, tenant, operation) in asked {
        let ended = harness.provisioner.run(operation, |_| {}).await.unwrap();
        assert_eq!(ended.status, OperationStatus::Succeeded, "{step} {moment}");
        assert!(harness.serves(tenant).await, "{step} {moment}");
        assert_archives_only(&harness, tenant).await;
    }
    let leftovers = harness.leftovers().await;
    assert!(
        leftovers.iter().all(|name| name.starts_with("tenant_lab-")),
        "{leftovers:?}"
    );
}

#[tokio::test]
async fn a_restore_ends_well_wherever_its_worker_died() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let origin = harness.provisioned("origin").await;
    let archive = harness.backed_up(&origin).await;
    let beside = |slug: String| RestoreAs {
        slug: Some(Slug::parse(&slug).unwrap()),
        server: None,
    };
    let mut asked = Vec::new();
    for (at, (step, moment)) in points(OperationKind::Restore).enumerate() {
        let (tenant, operation) = harness
            .provisioner
            .request_restore(archive.id, beside(format!("lab-{at}")), by())
            .await
            .unwrap();
        die_at(&harness, operation, &format!("restore/{step}/{moment}")).await;
        asked.push((step, moment, tenant.id, operation));
    }
    for (step, moment, tenant, operation) in asked {
        harness.provisioner.run(operation, |_| {}).await.unwrap();
        assert_eq!(
            harness.tenant(tenant).await.unwrap().status,
            TenantState::Active,
            "{step} {moment}"
        );
        assert!(harness.serves(tenant).await, "{step} {moment}");
    }
    // Called off at every point, wherever its undoing dies.
    let mut asked = Vec::new();
    for (at, (step, moment)) in points_of(provisioner::undo_steps(OperationKind::Restore)).enumerate() {
        let (tenant, operation) = harness
            .provisioner
            .request_restore(archive.id, beside(format!("gone-{at}")), by())
            .await
            .unwrap();
        die_at(&harness, operation, "restore/check/begun").await;
        std::fs::remove_file(harness.space.dir().join("restore-check-begun")).unwrap();
        harness.provisioner.cancel(operation, by()).await.unwrap();
        die_at(&harness, operation, &format!("restore/undo/{step}/{moment}")).await;
        asked.push((step, moment, tenant.id, operation));
    }
    for (step, moment, tenant, operation) in asked {
        harness.provisioner.run(operation, |_| {}).await.unwrap_err();
        assert!(harness.tenant(tenant).await.is_none(), "{step} {moment}");
    }
    let leftovers = harness.leftovers().await;
    assert!(
        leftovers
            .iter()
            .all(|name| name.starts_with("tenant_lab-") || name == "tenant_origin"),
        "{leftovers:?}"
    );
}

#[tokio::test]
async fn a_restore_in_place_ends_well_wherever_its_worker_died() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let mut asked = Vec::new();
    let forward = points(OperationKind::RestoreInPlace).map(|(step, moment)| (false, step, moment));
    let undo = points_of(provisioner::undo_steps(OperationKind::RestoreInPlace));
    for (at, (undoing, step, moment)) in forward
        .chain(undo.map(|(step, moment)| (true, step, moment)))
        .enumerate()
    {
        let tenant = harness.provisioned(&format!("lab-{at}")).await;
        let archive = harness.backed_up(&tenant).await;
        let late = "INSERT INTO staff (id, display_name, email, role)
                    VALUES (gen_random_uuid(), 'Late', 'late@example.org', 'technician')";
        harness.inside(&tenant).await.batch_execute(late).await.unwrap();
        let (_, operation) = harness
            .provisioner
            .request_restore_in_place(archive.id, by())
            .await
            .unwrap();
        if undoing {
            die_at(&harness, operation, "restore_in_place/swap_database/begun").await;
            std::fs::remove_file(harness.space.dir().join("restore_in_place-swap_database-begun")).unwrap();
            harness.provisioner.cancel(operation, by()).await.unwrap();
            let undo = if step == Step::Readmit { "" } else { "undo/" };
            die_at(
                &harness,
                operation,
                &format!("restore_in_place/{undo}{step}/{moment}"),
            )
            .await;
        } else {
            die_at(&harness, operation, &format!("restore_in_place/{step}/{moment}")).await;
        }
        asked.push((undoing, step, moment, tenant, operation));
    }
    for (undoing, step, moment, tenant, operation) in asked {
        let ended = harness.provisioner.run(operation, |_| {}).await;
        assert_eq!(ended.is_err(), undoing, "{step} {moment}: {ended:?}");
        let now = harness.tenant(tenant.id).await.unwrap();
        assert_eq!((now.status, now.status_before), (TenantState::Active, None));
        assert!(harness.serves(tenant.id).await, "{undoing} {step} {moment}");
        let rows = harness
            .inside(&tenant)
            .await
            .query("SELECT FROM staff", &[])
            .await
            .unwrap();
        assert_eq!(
            rows.len(),
            if undoing { 2 } else { 1 },
            "{undoing} {step} {moment}"
        );
        assert_archives_only(&harness, tenant.id).await;
    }
    let leftovers = harness.leftovers().await;
    assert!(
        leftovers.iter().all(|name| name.starts_with("tenant_lab-")),
        "{leftovers:?}"
    );
}

#[tokio::test]
async fn undoing_ends_well_wherever_its_worker_died() {
    let harness = Harness::with(|config| {
        config.lease = LEASE;
        config.seed = Arc::new(|_, _| Box::pin(async { Err("no seed today".into()) }));
    })
    .await;
    let mut asked = Vec::new();
    for (at, (step, moment)) in points_of(provisioner::undo_steps(OperationKind::Provision)).enumerate() {
        let (tenant, operation) = harness.ask(&format!("lab-{at}")).await;
        die_at(&harness, operation, &format!("provision/undo/{step}/{moment}")).await;
        asked.push((tenant.id, operation));
    }
    for (tenant, operation) in asked {
        let error = harness
            .provisioner
            .run(operation, |_| {})
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("no seed today"), "{error}");
        assert!(harness.tenant(tenant).await.is_none());
    }
    assert_eq!(harness.leftovers().await, Vec::<String>::new());
}

/// The lease ran out while its holder only stood still: it must not go on when it wakes.
#[tokio::test]
async fn a_worker_that_lost_its_lease_stops_and_its_session_is_ended() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let (tenant, operation) = harness.ask("stalled").await;
    let point = "provision/secure_database/begun";
    let file = harness.space.dir().join("stalled");
    // With connections of its own, as another process has: what stands still must not hold anybody else up.
    let mut config = harness.provisioner.config().clone();
    config.registry = Registry::new(&harness.space.registry, RegistryOptions::default());
    let reported = file.clone();
    let stalled_runtime = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let stalled = Provisioner::new(config).with_faults(Faults::stop_at(point, &reported));
        runtime.spawn(async move { stalled.run(operation, |_| {}).await.map(|_| ()) });
        // Drives it up to the point and then never again: its sockets stay open, its lease is not renewed.
        runtime.block_on(reached(point, &reported));
        runtime
    })
    .await
    .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Active
    );
    stalled_runtime.shutdown_background();
}
