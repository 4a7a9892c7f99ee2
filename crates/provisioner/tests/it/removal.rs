//! The drop itself, and what stands before it: a laboratory goes only by its own operation and behind its own archive.

use model::{Clock, OperationId, OperationStatus, StepStatus, SystemClock, TenantState};
use provisioner::{Faults, ProvisionError};
use registry::{Operation, RegistryError, Tenant};
use testkit::eventually;

use crate::{
    archive::{LEASE, failure, files_in, offboard_up_to},
    rig::{NOW, PATIENCE, Rig, by, connect},
};

async fn run_sql(rig: &Rig, sql: String) {
    connect(&rig.space.server)
        .await
        .batch_execute(&sql)
        .await
        .unwrap();
}

fn archives(rig: &Rig, tenant: &Tenant) -> std::path::PathBuf {
    rig.provisioner.config().archive_dir.join(tenant.id.to_string())
}

/// Closed to be dropped, then not dropped, because its archive was taken away meanwhile.
#[tokio::test]
async fn a_database_that_was_closed_to_be_dropped_can_still_be_archived_anew() {
    let rig = Rig::with(|config| config.lease = LEASE).await;
    let tenant = rig.provisioned("closed").await;
    let operation = offboard_up_to(&rig, &tenant, "offboard/drop_database/closed").await;
    let archives = archives(&rig, &tenant);
    std::fs::remove_file(&files_in(&archives, ".dump")[0]).unwrap();
    let error = failure(&rig, operation).await;
    assert!(error.contains("cannot be trusted"), "{error}");
    rig.provisioner
        .request_offboard(tenant.id, NOW, by())
        .await
        .unwrap();
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(rig.tenant(tenant.id).await.is_none());
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
    assert_eq!(files_in(&archives, "").len(), 2);
}

#[tokio::test]
async fn a_database_that_was_made_a_template_by_hand_is_dropped_all_the_same() {
    let rig = Rig::new().await;
    let tenant = rig.provisioned("template").await;
    let sql = format!("ALTER DATABASE {} IS_TEMPLATE true", tenant.db_name);
    run_sql(&rig, sql).await;
    rig.removed(&tenant).await;
    assert!(rig.tenant(tenant.id).await.is_none());
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

/// As behind a server's address that was changed: nothing of the laboratory is there, and nothing of it was dropped.
#[tokio::test]
async fn a_database_that_is_not_there_and_was_not_dropped_by_us_is_not_taken_for_dropped() {
    let rig = Rig::with(|config| config.lease = LEASE).await;
    let tenant = rig.provisioned("elsewhere").await;
    let operation = offboard_up_to(&rig, &tenant, "offboard/drop_database/begun").await;
    let (name, hidden) = (
        &tenant.db_name,
        format!("{}_hidden", rig.space.namespace.as_str()),
    );
    run_sql(&rig, format!("ALTER DATABASE {name} RENAME TO \"{hidden}\"")).await;
    let error = failure(&rig, operation).await;
    assert!(
        error.contains(name.as_str())
            && error.contains("set it back")
            && error.contains("run the operation again"),
        "{error}"
    );
    assert_eq!(rig.tenant(tenant.id).await.unwrap().status, TenantState::Deleting);

    run_sql(&rig, format!("ALTER DATABASE \"{hidden}\" RENAME TO {name}")).await;
    rig.provisioner.reopen(operation, by()).await.unwrap();
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

/// The database is gone, as it was meant to be: that its archive was carried off since is no reason to wait for ever.
#[tokio::test]
async fn a_drop_that_was_cut_off_when_it_was_done_ends_well_without_its_files() {
    let rig = Rig::with(|config| config.lease = LEASE).await;
    let tenant = rig.provisioned("carried").await;
    let operation = offboard_up_to(&rig, &tenant, "offboard/drop_database/acted").await;
    std::fs::remove_dir_all(archives(&rig, &tenant)).unwrap();
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(rig.tenant(tenant.id).await.is_none());
}

#[tokio::test]
async fn a_manifest_with_another_content_is_not_trusted() {
    let rig = Rig::with(|config| config.lease = LEASE).await;
    let tenant = rig.provisioned("manifest").await;
    let operation = offboard_up_to(&rig, &tenant, "offboard/drop_database/begun").await;
    let manifest = files_in(&archives(&rig, &tenant), ".manifest.json").remove(0);
    let changed = std::fs::read_to_string(&manifest)
        .unwrap()
        .replace("\"slug\": \"manifest\"", "\"slug\": \"another\"");
    std::fs::write(&manifest, changed).unwrap();
    let error = failure(&rig, operation).await;
    assert!(
        error.contains("cannot be trusted") && error.contains("its content has changed"),
        "{error}"
    );
    assert_eq!(rig.tenant(tenant.id).await.unwrap().status, TenantState::Deleting);
    rig.provisioner.reopen(operation, by()).await.unwrap();
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(rig.tenant(tenant.id).await.is_none());
}

/// Whether the laboratory's own role can log in and read.
async fn serves(rig: &Rig, tenant: &Tenant) -> bool {
    let target = rig.own(&rig.tenant(tenant.id).await.unwrap());
    match pg::connect(&target, "provisioner test", PATIENCE).await {
        Ok(client) => client.query_one("SELECT count(*) FROM staff", &[]).await.is_ok(),
        Err(_) => false,
    }
}

async fn status(rig: &Rig, operation: OperationId) -> OperationStatus {
    let client = rig.registry.client().await.unwrap();
    let found = registry::operation_by_id(&client, operation).await.unwrap();
    found.unwrap().status
}

async fn cancelled(rig: &Rig, operation: OperationId) {
    match rig.provisioner.run(operation, |_| {}).await.unwrap_err() {
        ProvisionError::CalledOff { why, .. } => assert_eq!(why, "called off by terminal:tester"),
        other => panic!("{other}"),
    }
    assert_eq!(status(rig, operation).await, OperationStatus::Cancelled);
}

fn not_cancellable(outcome: Result<Operation, ProvisionError>) -> String {
    match outcome.unwrap_err() {
        ProvisionError::Registry(error @ RegistryError::NotCancellable { .. }) => error.to_string(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_removal_called_off_in_its_grace_period_brings_the_laboratory_back() {
    let rig = Rig::new().await;
    let day = std::time::Duration::from_secs(86_400);
    for before in [TenantState::Active, TenantState::Suspended] {
        let tenant = rig.provisioned(&format!("was-{before}")).await;
        if before == TenantState::Suspended {
            rig.provisioner.suspend(tenant.id, by()).await.unwrap();
        }
        let operation = rig
            .provisioner
            .request_offboard(tenant.id, day, by())
            .await
            .unwrap();
        let waiting = rig.provisioner.run(operation, |_| {}).await.unwrap();
        let left = waiting.waiting_until.unwrap().duration_since(SystemClock.now());
        assert!(left > jiff::SignedDuration::from_hours(23), "{left}");
        assert_eq!((waiting.status, waiting.attempts), (OperationStatus::Pending, 0));
        assert!(!serves(&rig, &tenant).await);
        assert_eq!(rig.tenant(tenant.id).await.unwrap().status, TenantState::Deleting);
        let client = rig.registry.client().await.unwrap();
        assert!(
            registry::archive_by_operation(&client, operation)
                .await
                .unwrap()
                .is_some()
        );

        rig.provisioner.cancel(operation, by()).await.unwrap();
        cancelled(&rig, operation).await;
        let steps = registry::steps_of(&client, operation).await.unwrap();
        let under_way = steps.iter().find(|row| row.status == StepStatus::Running);
        assert!(under_way.is_none(), "{under_way:?}");
        let back = rig.tenant(tenant.id).await.unwrap();
        assert_eq!((back.status, back.status_before), (before, None));
        assert_eq!(serves(&rig, &tenant).await, before == TenantState::Active);
        if before == TenantState::Suspended {
            rig.provisioner.resume(tenant.id, by()).await.unwrap();
            assert!(serves(&rig, &tenant).await);
        }
        // It can be removed anew, and a second call off says why not.
        let again = not_cancellable(rig.provisioner.cancel(operation, by()).await);
        assert!(again.contains("called off before"), "{again}");
        let operation = rig
            .provisioner
            .request_offboard(tenant.id, NOW, by())
            .await
            .unwrap();
        rig.provisioner.run(operation, |_| {}).await.unwrap();
        assert!(rig.tenant(tenant.id).await.is_none());
        let over = not_cancellable(rig.provisioner.cancel(operation, by()).await);
        assert!(over.contains("it is done"), "{over}");
    }
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_grace_period_that_is_over_or_ended_leads_to_the_drop() {
    let rig = Rig::new().await;
    let second = std::time::Duration::from_secs(1);
    let tenant = rig.provisioned("short").await;
    let operation = rig
        .provisioner
        .request_offboard(tenant.id, second, by())
        .await
        .unwrap();
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    eventually("the removal", PATIENCE, async || {
        rig.provisioner.run(operation, |_| {}).await.unwrap();
        status(&rig, operation).await == OperationStatus::Succeeded
    })
    .await;

    let tenant = rig.provisioned("hurried").await;
    let day = second * 86_400;
    let operation = rig
        .provisioner
        .request_offboard(tenant.id, day, by())
        .await
        .unwrap();
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    rig.provisioner.end_grace(operation, by()).await.unwrap();
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(rig.tenant(tenant.id).await.is_none());
    let error = rig.provisioner.end_grace(operation, by()).await.unwrap_err();
    assert!(error.to_string().contains("does not wait"), "{error}");
}

/// Called off while a step is under way, by a worker that died, and behind a failure.
#[tokio::test]
async fn a_removal_can_be_called_off_until_its_drop_begins_and_not_after() {
    let rig = Rig::with(|config| config.lease = LEASE).await;
    for step in ["fence", "dump", "verify"] {
        for moment in ["begun", "acted"] {
            let tenant = rig.provisioned(&format!("{step}-{moment}")).await;
            let operation = offboard_up_to(&rig, &tenant, &format!("offboard/{step}/{moment}")).await;
            rig.provisioner.cancel(operation, by()).await.unwrap();
            cancelled(&rig, operation).await;
            assert!(serves(&rig, &tenant).await, "{step} {moment}");
        }
    }
    // Closed to be dropped, and the archive is gone: it failed, nothing is dropped, and it can still be called off.
    let tenant = rig.provisioned("failed").await;
    let operation = offboard_up_to(&rig, &tenant, "offboard/drop_database/begun").await;
    std::fs::remove_file(&files_in(&archives(&rig, &tenant), ".dump")[0]).unwrap();
    failure(&rig, operation).await;
    rig.provisioner.cancel(operation, by()).await.unwrap();
    cancelled(&rig, operation).await;
    assert!(serves(&rig, &tenant).await);

    let tenant = rig.provisioned("late").await;
    let operation = offboard_up_to(&rig, &tenant, "offboard/drop_database/closed").await;
    let late = not_cancellable(rig.provisioner.cancel(operation, by()).await);
    assert!(late.contains("past the point"), "{late}");
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(rig.tenant(tenant.id).await.is_none());
    let leftovers = rig.leftovers().await;
    assert!(
        leftovers.iter().all(|name| name.starts_with("tenant_")),
        "{leftovers:?}"
    );
}

/// In the midst of a step that a living worker runs.
#[tokio::test]
async fn a_step_under_way_is_ended_when_its_operation_is_called_off() {
    let rig = Rig::new().await;
    let tenant = rig.provisioned("midst").await;
    let operation = rig
        .provisioner
        .request_offboard(tenant.id, NOW, by())
        .await
        .unwrap();
    let file = rig.space.dir().join("midst");
    let stuck = rig
        .provisioner
        .clone()
        .with_faults(Faults::stop_at("offboard/dump/begun", &file));
    let running = tokio::spawn(async move { stuck.run(operation, |_| {}).await.map(|_| ()) });
    eventually("the dump is about to begin", PATIENCE, async || file.exists()).await;
    // What a process leaves that is killed while it looks whether it can write, or while it dumps.
    let directory = rig.provisioner.config().archive_dir.join(tenant.id.to_string());
    for left in ["writable", "writable.part", "dump.part"] {
        std::fs::write(directory.join(format!("{operation}.{left}")), "left").unwrap();
    }
    rig.provisioner.cancel(operation, by()).await.unwrap();
    let ended = running.await.unwrap().unwrap_err();
    assert!(matches!(ended, ProvisionError::CalledOff { .. }), "{ended}");
    assert!(serves(&rig, &tenant).await);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}

#[tokio::test]
async fn a_laboratory_being_made_is_taken_away_when_it_is_called_off() {
    let rig = Rig::with(|config| config.lease = LEASE).await;
    let (tenant, waiting) = rig.ask("waiting").await;
    rig.provisioner.cancel(waiting, by()).await.unwrap();
    cancelled(&rig, waiting).await;
    assert!(rig.tenant(tenant.id).await.is_none());

    let (tenant, operation) = rig.ask("half").await;
    let file = rig.space.dir().join("half");
    let doomed = rig
        .provisioner
        .clone()
        .with_faults(Faults::stop_at("provision/seed/acted", &file));
    let running = tokio::spawn(async move { doomed.run(operation, |_| {}).await.map(|_| ()) });
    eventually("the seed", PATIENCE, async || file.exists()).await;
    running.abort();
    rig.provisioner.cancel(operation, by()).await.unwrap();
    cancelled(&rig, operation).await;
    assert!(rig.tenant(tenant.id).await.is_none());
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

/// As an adopted laboratory has them: they must not write while it is archived, and are back when it is called off.
#[tokio::test]
async fn roles_that_were_let_in_by_name_are_kept_out_until_the_removal_is_called_off() {
    let rig = Rig::new().await;
    let tenant = rig.provisioned("named").await;
    let (role, database) = (format!("{}_own", rig.space.namespace.as_str()), &tenant.db_name);
    run_sql(
        &rig,
        format!(
            "CREATE ROLE \"{role}\" LOGIN PASSWORD 'own'; GRANT CONNECT ON DATABASE {database} TO \"{role}\""
        ),
    )
    .await;
    let own = rig
        .space
        .server
        .with_user(role.clone(), secrecy::SecretString::from("own"))
        .with_database(database.as_str());
    let gets_in = async || pg::connect(&own, "provisioner test", PATIENCE).await.is_ok();
    assert!(gets_in().await);
    let day = std::time::Duration::from_secs(86_400);
    let operation = rig
        .provisioner
        .request_offboard(tenant.id, day, by())
        .await
        .unwrap();
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(!gets_in().await);
    rig.provisioner.cancel(operation, by()).await.unwrap();
    cancelled(&rig, operation).await;
    assert!(gets_in().await);
    run_sql(
        &rig,
        format!("REVOKE ALL ON DATABASE {database} FROM \"{role}\"; DROP ROLE \"{role}\""),
    )
    .await;
}

#[tokio::test]
async fn a_removal_that_failed_goes_on_with_the_grace_period_that_is_asked_for_now() {
    let rig = Rig::with(|config| config.lease = LEASE).await;
    let tenant = rig.provisioned("patience").await;
    let operation = offboard_up_to(&rig, &tenant, "offboard/drop_database/begun").await;
    std::fs::remove_file(&files_in(&archives(&rig, &tenant), ".dump")[0]).unwrap();
    failure(&rig, operation).await;
    let day = std::time::Duration::from_secs(86_400);
    let again = rig
        .provisioner
        .request_offboard(tenant.id, day, by())
        .await
        .unwrap();
    assert_eq!(again, operation);
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    let now = registry::operation_by_id(&rig.registry.client().await.unwrap(), operation)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(now.status, OperationStatus::Pending);
    assert!(now.waiting_until.is_some() && rig.tenant(tenant.id).await.is_some());
}
