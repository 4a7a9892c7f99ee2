//! No address of a person reaches the log of PostgreSQL through what is refused in normal use.

use std::os::unix::fs::PermissionsExt;

use embedded::{Cluster, ClusterOptions};
use model::{Email, OperatorId, StaffId};
use registry::{
    AdminPatch, NewAdmin, NewOperator, RegistryError, admin_change_in_txn, admin_insert_in_txn,
    operator_insert,
};
use testkit::Space;

use crate::harness::Harness;

const ADDRESS: &str = "somebody-4711@example.org";

#[tokio::test]
async fn an_address_that_is_taken_is_no_failed_statement() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let options = ClusterOptions {
        dir: dir.path().to_owned(),
        bin: testkit::pg_bin(),
        parameters: vec![("shared_buffers".into(), "16MB".into())],
    };
    let cluster = Cluster::start_or_attach(options).await.unwrap();
    let space = Space::on(cluster.target().clone()).await;
    // A server that somebody else runs may log all that it can.
    let server = pg::connect(&space.server, "registry test", std::time::Duration::from_secs(60))
        .await
        .unwrap();
    let verbose = format!(
        "ALTER DATABASE {} SET log_error_verbosity = verbose",
        space.registry.database
    );
    server.batch_execute(&verbose).await.unwrap();
    let harness = Harness::on(space).await;
    let tenant = harness.tenant("one").await;
    let admin = |email: &str| NewAdmin {
        id: StaffId::generate(),
        tenant: tenant.id,
        email: Email::parse(email).unwrap(),
        display_name: "Ada".to_owned(),
        password_hash: None,
    };
    let taken = |outcome: Result<(), RegistryError>| {
        assert!(
            matches!(outcome, Err(RegistryError::EmailTaken { .. })),
            "{outcome:?}"
        );
    };

    let mut client = harness.client().await;
    let txn = client.transaction().await.unwrap();
    admin_insert_in_txn(&txn, &admin(ADDRESS)).await.unwrap();
    let other = admin_insert_in_txn(&txn, &admin("other@example.org"))
        .await
        .unwrap();
    txn.commit().await.unwrap();
    let txn = client.transaction().await.unwrap();
    taken(admin_insert_in_txn(&txn, &admin(ADDRESS)).await.map(drop));
    txn.rollback().await.unwrap();
    let txn = client.transaction().await.unwrap();
    let patch = AdminPatch {
        email: Some(Email::parse(ADDRESS).unwrap()),
        ..AdminPatch::default()
    };
    let changed = admin_change_in_txn(&txn, tenant.id, other.id, &patch, &harness.change()).await;
    taken(changed.map(drop));
    txn.rollback().await.unwrap();
    let operator = || NewOperator {
        id: OperatorId::generate(),
        email: Email::parse(ADDRESS).unwrap(),
        display_name: "Ada".to_owned(),
        password_hash: "$argon2id$hash".into(),
    };
    operator_insert(&client, &operator()).await.unwrap();
    taken(operator_insert(&client, &operator()).await.map(drop));

    let log = std::fs::read_to_string(cluster.log()).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(ADDRESS)).collect();
    assert!(lines.is_empty(), "{lines:?}");
}
