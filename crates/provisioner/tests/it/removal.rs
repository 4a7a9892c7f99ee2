//! The drop itself, and what stands before it: a laboratory goes only by its own operation and behind its own archive.

use crate::{
    archive::{LEASE, failure, files_in, offboard_up_to},
    rig::{Rig, by},
};

/// Closed to be dropped, then not dropped, because its archive was taken away meanwhile.
#[tokio::test]
async fn a_database_that_was_closed_to_be_dropped_can_still_be_archived_anew() {
    let rig = Rig::with(|config| config.lease = LEASE).await;
    let tenant = rig.provisioned("closed").await;
    let operation = offboard_up_to(&rig, &tenant, "offboard/drop_database/closed").await;
    let archives = rig.provisioner.config().archive_dir.join(tenant.id.to_string());
    std::fs::remove_file(&files_in(&archives, ".dump")[0]).unwrap();
    let error = failure(&rig, operation).await;
    assert!(error.contains("cannot be trusted"), "{error}");
    rig.provisioner.request_offboard(tenant.id, by()).await.unwrap();
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(rig.tenant(tenant.id).await.is_none());
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
    assert_eq!(files_in(&archives, "").len(), 2);
}
