//! A worker that dies is a worker that stops: its future is dropped at a fault point, its lease runs out, and another goes
//! on. (That the whole process can be killed is the server's tests' business.)

use std::{path::Path, sync::Arc, time::Duration};

use model::{OperationId, OperationKind, OperationStatus, Slug, Step, TenantState};
use provisioner::{Faults, ProvisionError, Provisioner, RestoreAs};
use registry::{Registry, RegistryOptions};
use testkit::eventually;
use tokio::task::JoinHandle;

use crate::rig::{NOW, PATIENCE, Rig, by};

/// Long enough that a step's registry calls fit into a quarter of it on a busy machine, short enough to wait for.
pub(crate) const LEASE: Duration = Duration::from_millis(1500);

/// Runs the operation until it stands at the point, and lets it stand there.
pub(crate) async fn park_at(
    rig: &Rig,
    operation: OperationId,
    point: &str,
) -> JoinHandle<Result<(), ProvisionError>> {
    let file = rig.space.dir().join(point.replace('/', "-"));
    let doomed = rig.provisioner.clone().with_faults(Faults::stop_at(point, &file));
    let running = tokio::spawn(async move { doomed.run(operation, |_| {}).await.map(|_| ()) });
    reached(point, &file).await;
    running
}

/// Runs the operation until it stands at the point, then lets it die there.
pub(crate) async fn die_at(rig: &Rig, operation: OperationId, point: &str) {
    let running = park_at(rig, operation, point).await;
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
    let rig = Rig::with(|config| config.lease = LEASE).await;
    let mut asked = Vec::new();
    for (at, (step, moment)) in points(OperationKind::Provision).enumerate() {
        let (tenant, operation) = rig.ask(&format!("lab-{at}")).await;
        die_at(&rig, operation, &format!("provision/{step}/{moment}")).await;
        asked.push((step, moment, tenant.id, operation));
    }
    for (step, moment, tenant, operation) in asked {
        let ended = rig.provisioner.run(operation, |_| {}).await.unwrap();
        assert_eq!(ended.status, OperationStatus::Succeeded, "{step} {moment}");
        let tenant = rig.tenant(tenant).await.unwrap();
        assert_eq!(tenant.status, TenantState::Active, "{step} {moment}");
        assert_eq!(tenant.db_version, migrator::latest());
    }
    let leftovers = rig.leftovers().await;
    assert!(
        leftovers.iter().all(|name| name.starts_with("tenant_lab-")),
        "{leftovers:?}"
    );
}

#[tokio::test]
async fn offboarding_ends_well_wherever_its_worker_died() {
    let rig = Rig::with(|config| config.lease = LEASE).await;
    let mut asked = Vec::new();
    for (at, (step, moment)) in points(OperationKind::Offboard).enumerate() {
        let tenant = rig.provisioned(&format!("lab-{at}")).await;
        let operation = rig
            .provisioner
            .request_offboard(tenant.id, NOW, by())
            .await
            .unwrap();
        die_at(&rig, operation, &format!("offboard/{step}/{moment}")).await;
        asked.push((step, moment, tenant.id, operation));
    }
    for (step, moment, tenant, operation) in asked {
        rig.provisioner.run(operation, |_| {}).await.unwrap();
        assert!(rig.tenant(tenant).await.is_none(), "{step} {moment}");
        let client = rig.registry.client().await.unwrap();
        let archive = registry::archive_by_operation(&client, operation)
            .await
            .unwrap()
            .unwrap();
        let directory = Path::new(&archive.location).parent().unwrap();
        let files = std::fs::read_dir(directory).unwrap().count();
        assert_eq!(files, 2, "{step} {moment}: dump and manifest and nothing else");
    }
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

/// Dump, manifest and row of every archive, and nothing else.
pub(crate) async fn assert_archives_only(rig: &Rig, tenant: model::TenantId) {
    let client = rig.registry.client().await.unwrap();
    let archives = registry::archives_list(&client, Some(tenant), None, 100)
        .await
        .unwrap();
    let directory = rig.provisioner.config().archive_dir.join(tenant.to_string());
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
    let rig = Rig::with(|config| config.lease = LEASE).await;
    let mut asked = Vec::new();
    for (at, (step, moment)) in points(OperationKind::Backup).enumerate() {
        let tenant = rig.provisioned(&format!("lab-{at}")).await;
        let operation = rig.provisioner.request_backup(tenant.id, by()).await.unwrap();
        die_at(&rig, operation, &format!("backup/{step}/{moment}")).await;
        assert!(rig.serves(tenant.id).await, "{step} {moment}");
        asked.push((step, moment, tenant.id, operation));
    }
    for (step, moment, tenant, operation) in asked {
        let ended = rig.provisioner.run(operation, |_| {}).await.unwrap();
        assert_eq!(ended.status, OperationStatus::Succeeded, "{step} {moment}");
        assert!(rig.serves(tenant).await, "{step} {moment}");
        assert_archives_only(&rig, tenant).await;
    }
    let leftovers = rig.leftovers().await;
    assert!(
        leftovers.iter().all(|name| name.starts_with("tenant_lab-")),
        "{leftovers:?}"
    );
}

#[tokio::test]
async fn a_restore_ends_well_wherever_its_worker_died() {
    let rig = Rig::with(|config| config.lease = LEASE).await;
    let origin = rig.provisioned("origin").await;
    let archive = rig.backed_up(&origin).await;
    let beside = |slug: String| RestoreAs {
        slug: Some(Slug::parse(&slug).unwrap()),
        server: None,
    };
    let mut asked = Vec::new();
    for (at, (step, moment)) in points(OperationKind::Restore).enumerate() {
        let (tenant, operation) = rig
            .provisioner
            .request_restore(archive.id, beside(format!("lab-{at}")), by())
            .await
            .unwrap();
        die_at(&rig, operation, &format!("restore/{step}/{moment}")).await;
        asked.push((step, moment, tenant.id, operation));
    }
    for (step, moment, tenant, operation) in asked {
        rig.provisioner.run(operation, |_| {}).await.unwrap();
        assert_eq!(
            rig.tenant(tenant).await.unwrap().status,
            TenantState::Active,
            "{step} {moment}"
        );
        assert!(rig.serves(tenant).await, "{step} {moment}");
    }
    // Called off at every point, wherever its undoing dies.
    let mut asked = Vec::new();
    for (at, (step, moment)) in points_of(provisioner::undo_steps(OperationKind::Restore)).enumerate() {
        let (tenant, operation) = rig
            .provisioner
            .request_restore(archive.id, beside(format!("gone-{at}")), by())
            .await
            .unwrap();
        die_at(&rig, operation, "restore/check/begun").await;
        std::fs::remove_file(rig.space.dir().join("restore-check-begun")).unwrap();
        rig.provisioner.cancel(operation, by()).await.unwrap();
        die_at(&rig, operation, &format!("restore/undo/{step}/{moment}")).await;
        asked.push((step, moment, tenant.id, operation));
    }
    for (step, moment, tenant, operation) in asked {
        rig.provisioner.run(operation, |_| {}).await.unwrap_err();
        assert!(rig.tenant(tenant).await.is_none(), "{step} {moment}");
    }
    let leftovers = rig.leftovers().await;
    assert!(
        leftovers
            .iter()
            .all(|name| name.starts_with("tenant_lab-") || name == "tenant_origin"),
        "{leftovers:?}"
    );
}

#[tokio::test]
async fn a_restore_in_place_ends_well_wherever_its_worker_died() {
    let rig = Rig::with(|config| config.lease = LEASE).await;
    let mut asked = Vec::new();
    let forward = points(OperationKind::RestoreInPlace).map(|(step, moment)| (false, step, moment));
    let undo = points_of(provisioner::undo_steps(OperationKind::RestoreInPlace));
    for (at, (undoing, step, moment)) in forward
        .chain(undo.map(|(step, moment)| (true, step, moment)))
        .enumerate()
    {
        let tenant = rig.provisioned(&format!("lab-{at}")).await;
        let archive = rig.backed_up(&tenant).await;
        let late = "INSERT INTO staff (id, display_name, email, role)
                    VALUES (gen_random_uuid(), 'Late', 'late@example.org', 'technician')";
        rig.inside(&tenant).await.batch_execute(late).await.unwrap();
        let (_, operation) = rig
            .provisioner
            .request_restore_in_place(archive.id, by())
            .await
            .unwrap();
        if undoing {
            die_at(&rig, operation, "restore_in_place/swap_database/begun").await;
            std::fs::remove_file(rig.space.dir().join("restore_in_place-swap_database-begun")).unwrap();
            rig.provisioner.cancel(operation, by()).await.unwrap();
            let undo = if step == Step::Readmit { "" } else { "undo/" };
            die_at(
                &rig,
                operation,
                &format!("restore_in_place/{undo}{step}/{moment}"),
            )
            .await;
        } else {
            die_at(&rig, operation, &format!("restore_in_place/{step}/{moment}")).await;
        }
        asked.push((undoing, step, moment, tenant, operation));
    }
    for (undoing, step, moment, tenant, operation) in asked {
        let ended = rig.provisioner.run(operation, |_| {}).await;
        assert_eq!(ended.is_err(), undoing, "{step} {moment}: {ended:?}");
        let now = rig.tenant(tenant.id).await.unwrap();
        assert_eq!((now.status, now.status_before), (TenantState::Active, None));
        assert!(rig.serves(tenant.id).await, "{undoing} {step} {moment}");
        let rows = rig
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
        assert_archives_only(&rig, tenant.id).await;
    }
    let leftovers = rig.leftovers().await;
    assert!(
        leftovers.iter().all(|name| name.starts_with("tenant_lab-")),
        "{leftovers:?}"
    );
}

#[tokio::test]
async fn undoing_ends_well_wherever_its_worker_died() {
    let rig = Rig::with(|config| {
        config.lease = LEASE;
        config.seed = Arc::new(|_, _| Box::pin(async { Err("no seed today".into()) }));
    })
    .await;
    let mut asked = Vec::new();
    for (at, (step, moment)) in points_of(provisioner::undo_steps(OperationKind::Provision)).enumerate() {
        let (tenant, operation) = rig.ask(&format!("lab-{at}")).await;
        die_at(&rig, operation, &format!("provision/undo/{step}/{moment}")).await;
        asked.push((tenant.id, operation));
    }
    for (tenant, operation) in asked {
        let error = rig
            .provisioner
            .run(operation, |_| {})
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("no seed today"), "{error}");
        assert!(rig.tenant(tenant).await.is_none());
    }
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

/// The lease ran out while its holder only stood still: it must not go on when it wakes.
#[tokio::test]
async fn a_worker_that_lost_its_lease_stops_and_its_session_is_ended() {
    let rig = Rig::with(|config| config.lease = LEASE).await;
    let (tenant, operation) = rig.ask("stalled").await;
    let point = "provision/secure_database/begun";
    let file = rig.space.dir().join("stalled");
    // With connections of its own, as another process has: what stands still must not hold anybody else up.
    let mut config = rig.provisioner.config().clone();
    config.registry = Registry::new(&rig.space.registry, RegistryOptions::default());
    let told = file.clone();
    let stalled_runtime = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let stalled = Provisioner::new(config).with_faults(Faults::stop_at(point, &told));
        runtime.spawn(async move { stalled.run(operation, |_| {}).await.map(|_| ()) });
        // Drives it up to the point and then never again: its sockets stay open, its lease is not renewed.
        runtime.block_on(reached(point, &told));
        runtime
    })
    .await
    .unwrap();
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    assert_eq!(rig.tenant(tenant.id).await.unwrap().status, TenantState::Active);
    stalled_runtime.shutdown_background();
}
