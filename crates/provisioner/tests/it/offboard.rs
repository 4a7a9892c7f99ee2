//! The drop itself, and what stands before it: a laboratory goes only by its own operation and behind its own
//! archive.

use model::{Clock, OperationId, OperationStatus, StepStatus, SystemClock, TenantState};
use provisioner::{Faults, ProvisionError};
use registry::{Operation, RegistryError, Tenant};
use testkit::eventually;

use crate::{
    archive::{LEASE, failure, files_in, offboard_up_to},
    harness::{Harness, NOW, PATIENCE, by, connect},
};

async fn run_sql(harness: &Harness, sql: String) {
    connect(&harness.space.server)
        .await
        .batch_execute(&sql)
        .await
        .unwrap();
}

fn archives(harness: &Harness, tenant: &Tenant) -> std::path::PathBuf {
    harness
        .provisioner
        .config()
        .archive_dir
        .join(tenant.id.to_string())
}

/// Closed to be dropped, then not dropped, because its archive was taken away meanwhile.
#[tokio::test]
async fn a_database_that_was_closed_to_be_dropped_can_still_be_archived_anew() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let tenant = harness.provisioned("closed").await;
    let operation = offboard_up_to(&harness, &tenant, "offboard/drop_database/closed").await;
    let archives = archives(&harness, &tenant);
    std::fs::remove_file(&files_in(&archives, ".dump")[0]).unwrap();
    let error = failure(&harness, operation).await;
    assert!(error.contains("cannot be trusted"), "{error}");
    harness
        .provisioner
        .request_offboard(tenant.id, NOW, by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(harness.tenant(tenant.id).await.is_none());
    assert_eq!(harness.leftovers().await, Vec::<String>::new());
    assert_eq!(files_in(&archives, "").len(), 2);
}

#[tokio::test]
async fn a_database_that_was_made_a_template_by_hand_is_dropped_all_the_same() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("template").await;
    let sql = format!("ALTER DATABASE {} IS_TEMPLATE true", tenant.db_name);
    run_sql(&harness, sql).await;
    harness.removed(&tenant).await;
    assert!(harness.tenant(tenant.id).await.is_none());
    assert_eq!(harness.leftovers().await, Vec::<String>::new());
}

/// As behind a server's address that was changed: nothing of the laboratory is there, and nothing of it was
/// dropped.
#[tokio::test]
async fn a_database_that_is_not_there_and_was_not_dropped_by_us_is_not_taken_for_dropped() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let tenant = harness.provisioned("elsewhere").await;
    let operation = offboard_up_to(&harness, &tenant, "offboard/drop_database/begun").await;
    let (name, hidden) = (
        &tenant.db_name,
        format!("{}_hidden", harness.space.namespace.as_str()),
    );
    run_sql(&harness, format!("ALTER DATABASE {name} RENAME TO \"{hidden}\"")).await;
    let error = failure(&harness, operation).await;
    assert!(
        error.contains(name.as_str())
            && error.contains("set it back")
            && error.contains("run the operation again"),
        "{error}"
    );
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Deleting
    );

    run_sql(&harness, format!("ALTER DATABASE \"{hidden}\" RENAME TO {name}")).await;
    harness.provisioner.reopen(operation, by()).await.unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert_eq!(harness.leftovers().await, Vec::<String>::new());
}

/// The database is gone, as it was meant to be: that its archive was carried off since is no reason to wait
/// for ever.
#[tokio::test]
async fn a_drop_that_was_cut_off_when_it_was_done_ends_well_without_its_files() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let tenant = harness.provisioned("carried").await;
    let operation = offboard_up_to(&harness, &tenant, "offboard/drop_database/acted").await;
    std::fs::remove_dir_all(archives(&harness, &tenant)).unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(harness.tenant(tenant.id).await.is_none());
}

#[tokio::test]
async fn a_manifest_with_another_content_is_not_trusted() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let tenant = harness.provisioned("manifest").await;
    let operation = offboard_up_to(&harness, &tenant, "offboard/drop_database/begun").await;
    let manifest = files_in(&archives(&harness, &tenant), ".manifest.json").remove(0);
    let changed = std::fs::read_to_string(&manifest)
        .unwrap()
        .replace("\"slug\": \"manifest\"", "\"slug\": \"another\"");
    std::fs::write(&manifest, changed).unwrap();
    let error = failure(&harness, operation).await;
    assert!(
        error.contains("cannot be trusted") && error.contains("its content has changed"),
        "{error}"
    );
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Deleting
    );
    harness.provisioner.reopen(operation, by()).await.unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(harness.tenant(tenant.id).await.is_none());
}

/// Whether the laboratory's own role can log in and read.
async fn serves(harness: &Harness, tenant: &Tenant) -> bool {
    let target = harness.own(&harness.tenant(tenant.id).await.unwrap());
    match pg::connect(&target, "provisioner test", PATIENCE).await {
        Ok(client) => client.query_one("SELECT count(*) FROM staff", &[]).await.is_ok(),
        Err(_) => false,
    }
}

async fn status(harness: &Harness, operation: OperationId) -> OperationStatus {
    let client = harness.registry.client().await.unwrap();
    let found = registry::operation_by_id(&client, operation).await.unwrap();
    found.unwrap().status
}

async fn cancelled(harness: &Harness, operation: OperationId) {
    match harness.provisioner.run(operation, |_| {}).await.unwrap_err() {
        ProvisionError::Cancelled { why, .. } => assert_eq!(why, "cancelled by terminal:tester"),
        other => panic!("{other}"),
    }
    assert_eq!(status(harness, operation).await, OperationStatus::Cancelled);
}

fn not_cancellable(outcome: Result<Operation, ProvisionError>) -> String {
    match outcome.unwrap_err() {
        ProvisionError::Registry(error @ RegistryError::NotCancellable { .. }) => error.to_string(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_removal_cancelled_in_its_grace_period_brings_the_laboratory_back() {
    let harness = Harness::new().await;
    let day = std::time::Duration::from_secs(86_400);
    for before in [TenantState::Active, TenantState::Suspended] {
        let tenant = harness.provisioned(&format!("was-{before}")).await;
        if before == TenantState::Suspended {
            harness.provisioner.suspend(tenant.id, by()).await.unwrap();
        }
        let operation = harness
            .provisioner
            .request_offboard(tenant.id, day, by())
            .await
            .unwrap();
        let waiting = harness.provisioner.run(operation, |_| {}).await.unwrap();
        let left = waiting.waiting_until.unwrap().duration_since(SystemClock.now());
        assert!(left > jiff::SignedDuration::from_hours(23), "{left}");
        assert_eq!((waiting.status, waiting.attempts), (OperationStatus::Pending, 0));
        assert!(!serves(&harness, &tenant).await);
        assert_eq!(
            harness.tenant(tenant.id).await.unwrap().status,
            TenantState::Deleting
        );
        let client = harness.registry.client().await.unwrap();
        assert!(
            registry::archive_by_operation(&client, operation)
                .await
                .unwrap()
                .is_some()
        );

        harness.provisioner.cancel(operation, by()).await.unwrap();
        cancelled(&harness, operation).await;
        let steps = registry::steps_of(&client, operation).await.unwrap();
        let under_way = steps.iter().find(|row| row.status == StepStatus::Running);
        assert!(under_way.is_none(), "{under_way:?}");
        let back = harness.tenant(tenant.id).await.unwrap();
        assert_eq!((back.status, back.status_before), (before, None));
        assert_eq!(serves(&harness, &tenant).await, before == TenantState::Active);
        if before == TenantState::Suspended {
            harness.provisioner.resume(tenant.id, by()).await.unwrap();
            assert!(serves(&harness, &tenant).await);
        }
        // It can be removed anew, and a second cancellation says why not.
        let again = not_cancellable(harness.provisioner.cancel(operation, by()).await);
        assert!(again.contains("cancelled before"), "{again}");
        let operation = harness
            .provisioner
            .request_offboard(tenant.id, NOW, by())
            .await
            .unwrap();
        harness.provisioner.run(operation, |_| {}).await.unwrap();
        assert!(harness.tenant(tenant.id).await.is_none());
        let over = not_cancellable(harness.provisioner.cancel(operation, by()).await);
        assert!(over.contains("it is done"), "{over}");
    }
    assert_eq!(harness.leftovers().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_grace_period_that_is_over_or_ended_leads_to_the_drop() {
    let harness = Harness::new().await;
    let second = std::time::Duration::from_secs(1);
    let tenant = harness.provisioned("short").await;
    let operation = harness
        .provisioner
        .request_offboard(tenant.id, second, by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    eventually("the removal", PATIENCE, async || {
        harness.provisioner.run(operation, |_| {}).await.unwrap();
        status(&harness, operation).await == OperationStatus::Succeeded
    })
    .await;

    let tenant = harness.provisioned("hurried").await;
    let day = second * 86_400;
    let operation = harness
        .provisioner
        .request_offboard(tenant.id, day, by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    harness.provisioner.end_grace(operation, by()).await.unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(harness.tenant(tenant.id).await.is_none());
    let error = harness.provisioner.end_grace(operation, by()).await.unwrap_err();
    assert!(error.to_string().contains("does not wait"), "{error}");
}

/// Called off while a step is under way, by a worker that died, and behind a failure.
#[tokio::test]
async fn a_removal_can_be_cancelled_until_its_drop_begins_and_not_after() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    for step in ["fence", "dump", "verify"] {
        for moment in ["begun", "acted"] {
            let tenant = harness.provisioned(&format!("{step}-{moment}")).await;
            let operation = offboard_up_to(&harness, &tenant, &format!("offboard/{step}/{moment}")).await;
            harness.provisioner.cancel(operation, by()).await.unwrap();
            cancelled(&harness, operation).await;
            assert!(serves(&harness, &tenant).await, "{step} {moment}");
        }
    }
    // Closed to be dropped, and the archive is gone: it failed, nothing is dropped, and it can still be
    // cancelled.
    let tenant = harness.provisioned("failed").await;
    let operation = offboard_up_to(&harness, &tenant, "offboard/drop_database/begun").await;
    std::fs::remove_file(&files_in(&archives(&harness, &tenant), ".dump")[0]).unwrap();
    failure(&harness, operation).await;
    harness.provisioner.cancel(operation, by()).await.unwrap();
    cancelled(&harness, operation).await;
    assert!(serves(&harness, &tenant).await);

    let tenant = harness.provisioned("late").await;
    let operation = offboard_up_to(&harness, &tenant, "offboard/drop_database/closed").await;
    let late = not_cancellable(harness.provisioner.cancel(operation, by()).await);
    assert!(late.contains("past the point"), "{late}");
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(harness.tenant(tenant.id).await.is_none());
    let leftovers = harness.leftovers().await;
    assert!(
        leftovers.iter().all(|name| name.starts_with("tenant_")),
        "{leftovers:?}"
    );
}

/// In the midst of a step that a living worker runs.
#[tokio::test]
async fn a_step_under_way_is_ended_when_its_operation_is_cancelled() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("midst").await;
    let operation = harness
        .provisioner
        .request_offboard(tenant.id, NOW, by())
        .await
        .unwrap();
    let file = harness.space.dir().join("midst");
    let stuck = harness
        .provisioner
        .clone()
        .with_faults(Faults::stop_at("offboard/dump/begun", &file));
    let running = tokio::spawn(async move { stuck.run(operation, |_| {}).await.map(|_| ()) });
    eventually("the dump is about to begin", PATIENCE, async || file.exists()).await;
    // What a process leaves that is killed while it looks whether it can write, or while it dumps.
    let directory = harness
        .provisioner
        .config()
        .archive_dir
        .join(tenant.id.to_string());
    for left in ["writable", "writable.part", "dump.part"] {
        std::fs::write(directory.join(format!("{operation}.{left}")), "left").unwrap();
    }
    harness.provisioner.cancel(operation, by()).await.unwrap();
    let ended = running.await.unwrap().unwrap_err();
    assert!(matches!(ended, ProvisionError::Cancelled { .. }), "{ended}");
    assert!(serves(&harness, &tenant).await);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}

#[tokio::test]
async fn a_laboratory_being_made_is_taken_away_when_it_is_cancelled() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let (tenant, waiting) = harness.ask("waiting").await;
    harness.provisioner.cancel(waiting, by()).await.unwrap();
    cancelled(&harness, waiting).await;
    assert!(harness.tenant(tenant.id).await.is_none());

    let (tenant, operation) = harness.ask("half").await;
    let file = harness.space.dir().join("half");
    let doomed = harness
        .provisioner
        .clone()
        .with_faults(Faults::stop_at("provision/seed/acted", &file));
    let running = tokio::spawn(async move { doomed.run(operation, |_| {}).await.map(|_| ()) });
    eventually("the seed", PATIENCE, async || file.exists()).await;
    running.abort();
    harness.provisioner.cancel(operation, by()).await.unwrap();
    cancelled(&harness, operation).await;
    assert!(harness.tenant(tenant.id).await.is_none());
    assert_eq!(harness.leftovers().await, Vec::<String>::new());
}

/// As an adopted laboratory has them: they must not write while it is archived, and are back when it is
/// cancelled.
#[tokio::test]
async fn roles_that_were_let_in_by_name_are_kept_out_until_the_removal_is_cancelled() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("named").await;
    let (role, database) = (
        format!("{}_own", harness.space.namespace.as_str()),
        &tenant.db_name,
    );
    run_sql(
        &harness,
        format!(
            "CREATE ROLE \"{role}\" LOGIN PASSWORD 'own'; GRANT CONNECT ON DATABASE {database} TO \"{role}\""
        ),
    )
    .await;
    let own = harness
        .space
        .server
        .with_user(role.clone(), secrecy::SecretString::from("own"))
        .with_database(database.as_str());
    let gets_in = async || pg::connect(&own, "provisioner test", PATIENCE).await.is_ok();
    assert!(gets_in().await);
    let day = std::time::Duration::from_secs(86_400);
    let operation = harness
        .provisioner
        .request_offboard(tenant.id, day, by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(!gets_in().await);
    harness.provisioner.cancel(operation, by()).await.unwrap();
    cancelled(&harness, operation).await;
    assert!(gets_in().await);
    run_sql(
        &harness,
        format!("REVOKE ALL ON DATABASE {database} FROM \"{role}\"; DROP ROLE \"{role}\""),
    )
    .await;
}

#[tokio::test]
async fn a_removal_that_failed_goes_on_with_the_grace_period_that_is_asked_for_now() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let tenant = harness.provisioned("patience").await;
    let operation = offboard_up_to(&harness, &tenant, "offboard/drop_database/begun").await;
    std::fs::remove_file(&files_in(&archives(&harness, &tenant), ".dump")[0]).unwrap();
    failure(&harness, operation).await;
    let day = std::time::Duration::from_secs(86_400);
    let again = harness
        .provisioner
        .request_offboard(tenant.id, day, by())
        .await
        .unwrap();
    assert_eq!(again, operation);
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    let now = registry::operation_by_id(&harness.registry.client().await.unwrap(), operation)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(now.status, OperationStatus::Pending);
    assert!(now.waiting_until.is_some() && harness.tenant(tenant.id).await.is_some());
}
