//! Offboarding and its dump: nothing is dropped that was not verified to be safe.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use age::secrecy::ExposeSecret as _;
use archive::{ArchiveError, Keys, Snapshot};
use model::{OperationId, Step, StepStatus, TenantState};
use provisioner::{Faults, ProvisionError};
use registry::Tenant;
use testkit::eventually;

use crate::harness::{Harness, NOW, PATIENCE, by, connect};

/// Long enough for a busy machine, short enough to wait for.
pub(crate) const LEASE: Duration = Duration::from_millis(1500);

pub(crate) async fn failure(harness: &Harness, operation: OperationId) -> String {
    match harness.provisioner.run(operation, |_| {}).await.unwrap_err() {
        ProvisionError::Failed { error, .. } => error,
        other => panic!("{other}"),
    }
}

/// Nothing is lost: the laboratory is closed, its database whole, and the operation goes on once the cause is
/// gone.
async fn assert_kept(harness: &Harness, tenant: &Tenant) {
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Deleting
    );
    let rows = harness
        .inside(tenant)
        .await
        .query("SELECT FROM staff", &[])
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    let leftovers = harness.leftovers().await;
    assert!(
        !leftovers.iter().any(|name| name.starts_with("scratch")),
        "{leftovers:?}"
    );
}

/// Runs the offboarding up to a point and stops there, as a process that dies; the lease is short.
pub(crate) async fn offboard_up_to(harness: &Harness, tenant: &Tenant, point: &str) -> OperationId {
    let operation = harness
        .provisioner
        .request_offboard(tenant.id, NOW, by())
        .await
        .unwrap();
    let file = harness.space.dir().join(format!("{operation}-reached"));
    let doomed = harness
        .provisioner
        .clone()
        .with_faults(Faults::stop_at(point, &file));
    let running = tokio::spawn(async move { doomed.run(operation, |_| {}).await.map(|_| ()) });
    eventually(point, PATIENCE, async || file.exists()).await;
    running.abort();
    operation
}

pub(crate) fn files_in(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_in(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

pub(crate) fn change_one_byte(file: &Path) {
    let mut content = std::fs::read(file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 0x01;
    std::fs::write(file, content).unwrap();
}

#[tokio::test]
async fn a_dump_with_one_byte_changed_is_refused_and_a_new_one_is_made_when_asked() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let archives = harness.provisioner.config().archive_dir.clone();
    let mut stopped = Vec::new();
    for (slug, point) in [
        ("bitrot-one", "offboard/verify/begun"),
        ("bitrot-two", "offboard/drop_database/begun"),
    ] {
        let tenant = harness.provisioned(slug).await;
        let operation = offboard_up_to(&harness, &tenant, point).await;
        change_one_byte(&files_in(&archives.join(tenant.id.to_string()), ".dump")[0]);
        stopped.push((tenant, operation));
    }
    for (tenant, operation) in stopped {
        let error = failure(&harness, operation).await;
        assert!(
            error.contains("cannot be trusted") && error.contains("nothing was dropped"),
            "{error}"
        );
        assert_kept(&harness, &tenant).await;

        let again = harness
            .provisioner
            .request_offboard(tenant.id, NOW, by())
            .await
            .unwrap();
        assert_eq!(again, operation, "asking again opens the failed one");
        harness.provisioner.run(operation, |_| {}).await.unwrap();
        assert!(harness.tenant(tenant.id).await.is_none());
        assert_eq!(files_in(&archives.join(tenant.id.to_string()), "").len(), 2);
        let client = harness.registry.client().await.unwrap();
        let steps = registry::steps_of(&client, operation).await.unwrap();
        let dump = steps.iter().find(|s| s.step == Step::Dump).unwrap();
        assert_eq!((dump.status, dump.attempts), (StepStatus::Done, 2));
    }
}

/// Behind the fence only an administrator can do this; the dump is sound, and yet not the laboratory any
/// more.
#[tokio::test]
async fn a_laboratory_that_was_changed_since_its_dump_is_dumped_anew_before_it_is_dropped() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let mut stopped = Vec::new();
    for (at, change) in [
        "INSERT INTO staff (id, display_name, email, role)
         VALUES (gen_random_uuid(), 'Late', 'late@example.org', 'technician')",
        "UPDATE staff SET display_name = 'Somebody else'",
        "ALTER TABLE staff ADD COLUMN late int",
        "SELECT nextval('patient_mrn_seq')",
    ]
    .into_iter()
    .enumerate()
    {
        let point = ["offboard/verify/begun", "offboard/drop_database/begun"][at % 2];
        let tenant = harness.provisioned(&format!("drift-{at}")).await;
        let operation = offboard_up_to(&harness, &tenant, point).await;
        harness.inside(&tenant).await.batch_execute(change).await.unwrap();
        stopped.push((change, tenant, operation));
    }
    for (change, tenant, operation) in stopped {
        let errors = std::sync::Mutex::new(String::new());
        let reported = |progress| {
            if let provisioner::Progress::StepFailed { error, .. } = progress {
                errors.lock().unwrap().push_str(&error);
            }
        };
        harness.provisioner.run(operation, reported).await.unwrap();
        let errors = errors.into_inner().unwrap();
        assert!(
            errors.contains("was changed since it was archived"),
            "{change}: {errors}"
        );
        assert!(
            !errors.contains("late@example.org") && !errors.contains("Somebody"),
            "no values: {errors}"
        );
        assert!(harness.tenant(tenant.id).await.is_none());
        let client = harness.registry.client().await.unwrap();
        let steps = registry::steps_of(&client, operation).await.unwrap();
        let dump = steps.iter().find(|s| s.step == Step::Dump).unwrap();
        assert_eq!((dump.status, dump.attempts), (StepStatus::Done, 2), "{change}");
    }
}

/// The real programs, with something done beside: by what name, and the script behind `exec`.
pub(crate) fn programs_that(dir: &Path, dump: &str, restore: &str) -> PathBuf {
    let bin = embedded::PgBin::find(testkit::pg_bin().as_deref()).unwrap();
    for (name, beside) in [("pg_dump", dump), ("pg_restore", restore)] {
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in *--version*) exec {0} --version;; esac\n{beside}\n",
            bin.program(name).display(),
        );
        let script = script
            .replace("REAL", &bin.program(name).display().to_string())
            .replace("PSQL", &bin.program("psql").display().to_string());
        let path = dir.join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir.to_owned()
}

#[tokio::test]
async fn a_valid_dump_with_a_row_missing_or_a_value_changed_is_refused_and_its_table_named() {
    let same = "exec REAL \"$@\"";
    let lacks = "exec REAL --exclude-table-data=public.lab_profile \"$@\"";
    let changes = "REAL \"$@\" && exec PSQL -X -q -c 'SET session_replication_role = replica' \
                   -c \"UPDATE public.staff SET display_name = 'Somebody else'\"";
    for (dump, restore, table) in [
        (lacks, same, "public.lab_profile"),
        (same, changes, "public.staff"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let programs = programs_that(dir.path(), dump, restore);
        let harness = Harness::with(|config| config.pg_bin = Some(programs)).await;
        let tenant = harness.provisioned("forged").await;
        let backup = harness.provisioner.request_backup(tenant.id, by()).await.unwrap();
        let error = failure(&harness, backup).await;
        assert!(
            error.contains("differs from the laboratory") && error.contains(table),
            "{error}"
        );
        assert!(
            !error.contains("Somebody") && !error.contains("Ada"),
            "no values: {error}"
        );
        let client = harness.registry.client().await.unwrap();
        assert!(
            registry::archive_by_operation(&client, backup)
                .await
                .unwrap()
                .is_none()
        );
        assert_eq!(
            harness.tenant(tenant.id).await.unwrap().status,
            TenantState::Active
        );

        let removal = harness
            .provisioner
            .request_offboard(tenant.id, NOW, by())
            .await
            .unwrap();
        let error = failure(&harness, removal).await;
        assert!(
            error.contains("nothing was dropped") && error.contains(table),
            "{error}"
        );
        assert_kept(&harness, &tenant).await;
    }
}

#[tokio::test]
async fn without_its_archives_files_nothing_is_dropped() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let mut stopped = Vec::new();
    for (slug, ending) in [("no-dump", ".dump"), ("no-manifest", ".manifest.json")] {
        let tenant = harness.provisioned(slug).await;
        let operation = offboard_up_to(&harness, &tenant, "offboard/drop_database/begun").await;
        let directory = harness
            .provisioner
            .config()
            .archive_dir
            .join(tenant.id.to_string());
        std::fs::remove_file(&files_in(&directory, ending)[0]).unwrap();
        stopped.push((tenant, operation));
    }
    for (tenant, operation) in stopped {
        let error = failure(&harness, operation).await;
        assert!(error.contains("cannot be trusted"), "{error}");
        assert_kept(&harness, &tenant).await;
    }
}

/// On a real full disk where this process may mount one, and else with the real `pg_dump` writing to
/// `/dev/full`.
#[tokio::test]
async fn a_full_disk_is_named_and_nothing_is_lost() {
    let (keys_dir, identity) = (tempfile::tempdir().unwrap(), age::x25519::Identity::generate());
    let file = keys_dir.path().join("identity");
    std::fs::write(&file, identity.to_string().expose_secret()).unwrap();
    let encrypted = Keys {
        recipient: Some(identity.to_public().to_string()),
        identity_file: Some(file),
    };
    for keys in [Keys::default(), encrypted] {
        let dir = tempfile::tempdir().unwrap();
        let small = SmallDisk::mount(dir.path());
        if small.is_none() && keys.recipient.is_some() {
            eprintln!("not tried with an encrypted archive: this process may not mount a small disk");
            continue;
        }
        let harness = Harness::with(|config| {
            config.archive.keys = keys;
            match &small {
                Some(small) => config.archive_dir.clone_from(&small.0),
                None => config.pg_bin = Some(full_disk_programs(dir.path())),
            }
        })
        .await;
        let tenant = harness.provisioned("full").await;
        let operation = harness
            .provisioner
            .request_offboard(tenant.id, NOW, by())
            .await
            .unwrap();
        let error = failure(&harness, operation).await;
        assert!(
            error.contains("no space is left") && error.contains("nothing was lost"),
            "mounted {}: {error}",
            small.is_some()
        );
        assert_kept(&harness, &tenant).await;
        if let Some(small) = &small {
            assert_eq!(
                files_in(&small.0, ""),
                Vec::<PathBuf>::new(),
                "the disk is not kept full"
            );
        }
    }
}

/// A disk too small for any dump, unmounted when the test ends.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(at: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=48k", "tmpfs"]).arg(at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()) || std::thread::panicking(),
            "the small disk is still mounted at {}",
            self.0.display()
        );
    }
}

/// Real `pg_dump`, writing to `/dev/full`: the system's own "no space left" without a right to mount
/// anything.
fn full_disk_programs(dir: &Path) -> PathBuf {
    let bin = embedded::PgBin::find(testkit::pg_bin().as_deref()).unwrap();
    for name in ["pg_dump", "pg_restore"] {
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in *--version*) exec {0} --version;; esac\nexec {0} --format=custom \
             --no-password --file=/dev/full\n",
            bin.program(name).display()
        );
        let path = dir.join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir.to_owned()
}

#[tokio::test]
async fn a_dump_program_that_goes_missing_or_is_replaced_is_refused_by_name_before_anything_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (same, program) = ("exec REAL \"$@\"", dir.path().join("pg_dump"));
    let programs = programs_that(dir.path(), same, same);
    let harness = Harness::with(|config| config.pg_bin = Some(programs)).await;
    let tenant = harness.provisioned("tools").await;
    // It fitted when the removal was asked for.
    let operation = harness
        .provisioner
        .request_offboard(tenant.id, NOW, by())
        .await
        .unwrap();
    std::fs::remove_file(&program).unwrap();
    let error = failure(&harness, operation).await;
    let named = program.display().to_string();
    assert!(
        error.contains(&named) && error.contains("TENANTRY_PG_BIN"),
        "{error}"
    );

    std::fs::write(&program, "#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.1'\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    harness.provisioner.reopen(operation, by()).await.unwrap();
    let error = failure(&harness, operation).await;
    assert!(
        error.contains(&named) && error.contains("PostgreSQL 9, older than the server"),
        "{error}"
    );
    assert_kept(&harness, &tenant).await;
    assert_not_fenced(&harness, &tenant).await;
}

/// Nothing was done to the laboratory yet: its own role still gets in.
async fn assert_not_fenced(harness: &Harness, tenant: &Tenant) {
    connect(&harness.own(tenant)).await;
}

#[tokio::test]
async fn an_archive_directory_that_cannot_be_written_is_named_before_anything_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let in_the_way = dir.path().join("archives");
    std::fs::write(&in_the_way, "a file").unwrap();
    let harness = Harness::with(|config| config.archive_dir.clone_from(&in_the_way)).await;
    let tenant = harness.provisioned("nowhere").await;
    // It could be written when the removal was asked for.
    std::fs::remove_file(&in_the_way).unwrap();
    let operation = harness
        .provisioner
        .request_offboard(tenant.id, NOW, by())
        .await
        .unwrap();
    std::fs::remove_dir_all(&in_the_way).unwrap();
    std::fs::write(&in_the_way, "a file").unwrap();
    let error = failure(&harness, operation).await;
    assert!(
        error.contains("fence")
            && error.contains("TENANTRY_ARCHIVE_DIR")
            && error.contains("run the operation again"),
        "{error}"
    );
    assert_not_fenced(&harness, &tenant).await;

    std::fs::remove_file(&in_the_way).unwrap();
    harness.provisioner.reopen(operation, by()).await.unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(harness.tenant(tenant.id).await.is_none());
    assert_eq!(files_in(&in_the_way, "").len(), 2, "dump and manifest");
}

#[tokio::test]
async fn a_fence_ends_the_sessions_that_are_left() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("open").await;
    let lingering = connect(&harness.own(&tenant)).await;
    let statement = tokio::spawn(async move { lingering.batch_execute("SELECT pg_sleep(600)").await });
    let operation = harness
        .provisioner
        .request_offboard(tenant.id, NOW, by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(statement.await.unwrap().is_err());
    let client = harness.registry.client().await.unwrap();
    let steps = registry::steps_of(&client, operation).await.unwrap();
    let fence = steps.iter().find(|s| s.step == Step::Fence).unwrap();
    assert_eq!(fence.saw.as_ref().unwrap()["sessions_ended"], 1);
}

#[tokio::test]
async fn nobody_else_can_read_an_archive() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("private").await;
    let operation = harness
        .provisioner
        .request_offboard(tenant.id, NOW, by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    let archives = &harness.provisioner.config().archive_dir;
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    for file in files_in(archives, "") {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
        assert_eq!(mode(file.parent().unwrap()), 0o700);
    }
}

#[tokio::test]
async fn a_comparison_names_the_table_or_definition_of_the_first_difference() {
    let harness = Harness::new().await;
    let one = harness.provisioned("one").await;
    let two = harness.provisioned("two").await;
    // Each has its rights through a group of its own: that difference is taken away here.
    let (target, group) = (
        harness.space.server.with_database(two.db_name.as_str()),
        harness.space.namespace.tenant_group(one.id),
    );
    migrator::rights_settle(&target, &harness.space.namespace, &group, &one.role_name)
        .await
        .unwrap();
    let limit = Duration::from_secs(30);
    let contents = async |tenant: &Tenant, limit| {
        let target = harness.space.server.with_database(tenant.db_name.as_str());
        let snapshot = Snapshot::open(&target, PATIENCE).await.unwrap();
        snapshot.contents(limit).await
    };
    let first = contents(&one, limit).await.unwrap();
    assert_eq!(first.difference(&contents(&one, limit).await.unwrap()), None);
    assert!(
        first
            .tables
            .iter()
            .any(|t| t.name == "public.test_def" && t.rows > 10)
    );
    assert!(!first.sequences.is_empty());

    // Somebody who holds a table for ever does not hold up a comparison for ever.
    let mut holding = harness.inside(&one).await;
    let held = holding.transaction().await.unwrap();
    held.batch_execute("LOCK TABLE staff").await.unwrap();
    let waited = contents(&one, Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(waited, ArchiveError::TookTooLong { .. }), "{waited}");
    held.rollback().await.unwrap();

    let differs = first.difference(&contents(&two, limit).await.unwrap()).unwrap();
    assert!(differs.contains("public.lab_profile"), "{differs}");
    // The same number, and not the same text.
    let inside = harness.inside(&one).await;
    inside
        .batch_execute("CREATE TABLE n (x numeric); INSERT INTO n VALUES (1.0)")
        .await
        .unwrap();
    let before = contents(&one, limit).await.unwrap();
    inside.batch_execute("UPDATE n SET x = 1.00").await.unwrap();
    let differs = before.difference(&contents(&one, limit).await.unwrap()).unwrap();
    assert!(differs.contains("public.n: its rows"), "{differs}");

    harness
        .inside(&two)
        .await
        .batch_execute("DROP INDEX staff_email")
        .await
        .unwrap();
    let differs = first.difference(&contents(&two, limit).await.unwrap()).unwrap();
    assert!(
        differs.contains("the copy has no") && differs.contains("staff_email"),
        "{differs}"
    );
}
