use migrator::{MigrateError, secure_server};
use secrecy::SecretString;
use testkit::Space;

use crate::databases::admin;

#[tokio::test]
async fn the_shared_databases_are_closed_to_public_and_a_second_time_is_harmless() {
    let space = Space::new().await;
    for _ in 0..2 {
        secure_server(&space.server, &space.namespace, &space.registry.database)
            .await
            .unwrap();
    }
    let client = admin(&space.server).await;
    let open = client
        .query(
            "SELECT datname::text FROM pg_database d, aclexplode(coalesce(datacl, acldefault('d', datdba))) a
              WHERE datname = ANY ($1) AND a.grantee = 0",
            &[&["postgres", "template1", space.registry.database.as_str()].as_slice()],
        )
        .await
        .unwrap();
    assert!(open.is_empty(), "{open:?}");
}

#[tokio::test]
async fn a_registry_on_another_server_is_passed_over() {
    let space = Space::new().await;
    secure_server(&space.server, &space.namespace, "no_such_database_here")
        .await
        .unwrap();
}

/// A non-owner's REVOKE ends without an error; only reading it back shows that nothing changed.
#[tokio::test]
async fn a_revoke_that_did_not_take_is_an_error_that_names_the_owner() {
    let space = Space::new().await;
    let client = admin(&space.server).await;
    let weak = format!("{}_weak", space.namespace.as_str());
    let database = format!("{}_shared", space.namespace.as_str());
    client
        .batch_execute(&format!(
            "CREATE ROLE \"{weak}\" LOGIN PASSWORD 'weak-but-only-here'"
        ))
        .await
        .unwrap();
    client
        .batch_execute(&format!("CREATE DATABASE \"{database}\""))
        .await
        .unwrap();
    client
        .batch_execute(&format!("GRANT CONNECT ON DATABASE postgres TO \"{weak}\""))
        .await
        .unwrap();
    let as_weak = space
        .server
        .with_user(weak.as_str(), SecretString::from("weak-but-only-here"));
    let outcome = secure_server(&as_weak, &space.namespace, &database).await;
    client
        .batch_execute(&format!("REVOKE CONNECT ON DATABASE postgres FROM \"{weak}\""))
        .await
        .unwrap();
    let error = outcome.unwrap_err();
    assert!(matches!(error, MigrateError::StillPublic { .. }), "{error}");
    assert!(
        error.to_string().contains("owner") && error.to_string().contains("REVOKE ALL"),
        "{error}"
    );
}
