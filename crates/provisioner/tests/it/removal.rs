//! The drop itself, and what stands before it: a laboratory goes only by its own operation and behind its own archive.

use model::TenantState;
use registry::Tenant;

use crate::{
    archive::{LEASE, failure, files_in, offboard_up_to},
    rig::{Rig, by, connect},
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
    rig.provisioner.request_offboard(tenant.id, by()).await.unwrap();
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(rig.tenant(tenant.id).await.is_none());
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
    assert_eq!(files_in(&archives, "").len(), 2);
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
