use std::time::Duration;

use provisioner::ProvisionError;
use tokio_postgres::error::SqlState;

use crate::{
    crash::die_at,
    rig::{NOW, Rig, by, connect, lab},
};

#[tokio::test]
async fn a_laboratorys_role_gets_into_its_own_database_and_into_no_other() {
    let rig = Rig::new().await;
    let first = rig.provisioned("first").await;
    let second = rig.provisioned("second").await;
    let own = rig.own(&first);
    connect(&own).await;
    let (databases, _) = rig.space.contents().await;
    let others = databases
        .iter()
        .map(|d| d.as_str())
        .chain(["postgres", "template1", "template0"])
        .filter(|name| *name != first.db_name.as_str());
    let mut tried = 0;
    for other in others {
        let refused = pg::connect(&own.with_database(other), "intruder", Duration::from_secs(30))
            .await
            .err();
        let code = refused.as_ref().and_then(pg::ConnectError::code);
        let refusals = [
            &SqlState::INSUFFICIENT_PRIVILEGE,
            &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        ];
        assert!(
            code.is_some_and(|code| refusals.contains(&code)),
            "{other}: {refused:?}"
        );
        tried += 1;
    }
    assert!(
        tried >= 6,
        "the other laboratory, registry, template and the server's own: {tried}"
    );

    // The other's password does not open it either.
    let mixed = rig
        .own(&second)
        .with_user(first.role_name.as_str(), rig.own(&second).password);
    assert!(
        pg::connect(&mixed, "intruder", Duration::from_secs(30))
            .await
            .is_err()
    );
}

/// Before its rights are set, a new database is everybody's, and a session that got in then would read another
/// laboratory's rows when they are restored.
#[tokio::test]
async fn the_scratch_database_lets_no_laboratory_in_at_the_moment_it_is_made() {
    let rig = Rig::with(|config| config.lease = Duration::from_millis(1500)).await;
    let curious = rig.provisioned("curious").await;
    let leaving = rig.provisioned("leaving").await;
    let operation = rig
        .provisioner
        .request_offboard(leaving.id, NOW, by())
        .await
        .unwrap();
    die_at(&rig, operation, "offboard/verify/scratch_made").await;
    let scratch = rig.space.namespace.scratch_database(operation);
    let refused = pg::connect(
        &rig.own(&curious).with_database(scratch.as_str()),
        "intruder",
        Duration::from_secs(30),
    )
    .await
    .err();
    assert_eq!(
        refused.as_ref().and_then(pg::ConnectError::code),
        Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE),
        "{refused:?}"
    );
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(
        !rig.leftovers()
            .await
            .iter()
            .any(|name| name.starts_with("scratch"))
    );
}

#[tokio::test]
async fn a_laboratorys_role_owns_nothing_and_works_within_its_grants() {
    let rig = Rig::new().await;
    let tenant = rig.provisioned("narrow").await;
    let own = connect(&rig.own(&tenant)).await;
    own.batch_execute("UPDATE lab_profile SET name = 'Narrow'")
        .await
        .unwrap();
    for refused in [
        "CREATE TABLE mine ()",
        "CREATE TEMP TABLE mine ()",
        "DELETE FROM patient",
        "TRUNCATE patient",
        "DROP TABLE patient",
        "UPDATE refinery_schema_history SET version = 1",
        "ALTER ROLE CURRENT_USER SUPERUSER",
        "CREATE ROLE friend",
        "CREATE DATABASE mine",
        "COPY lab_profile TO PROGRAM 'cat'",
    ] {
        let error = own.batch_execute(refused).await.unwrap_err();
        assert_eq!(
            error.code(),
            Some(&SqlState::INSUFFICIENT_PRIVILEGE),
            "{refused}: {error}"
        );
    }
}

#[tokio::test]
async fn a_registry_that_is_open_to_everybody_is_refused_at_once_and_by_the_check() {
    let rig = Rig::new().await;
    let database = rig.space.registry.database.clone();
    let (late, operation) = rig.ask("late").await;
    connect(&rig.space.server)
        .await
        .batch_execute(&format!("GRANT CONNECT ON DATABASE \"{database}\" TO PUBLIC"))
        .await
        .unwrap();
    let asked = rig.provisioner.request_provision(lab("careful"), by()).await;
    let error = asked.unwrap_err();
    assert!(matches!(error, ProvisionError::Unmet { .. }), "{error}");
    let told = error.to_string();
    assert!(
        told.contains(&database) && told.contains("tenantctl up"),
        "{told}"
    );
    // Opened after the request, it is found by the last look.
    let error = rig.provisioner.run(operation, |_| {}).await.unwrap_err();
    let told = error.to_string();
    assert!(
        told.contains(&database) && told.contains("tenantctl up"),
        "{told}"
    );
    assert!(rig.tenant(late.id).await.is_none());
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}
