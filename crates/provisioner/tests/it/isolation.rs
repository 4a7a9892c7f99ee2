use std::time::Duration;

use provisioner::ProvisionError;
use tokio_postgres::error::SqlState;

use crate::{
    crash::die_at,
    harness::{Harness, NOW, by, connect, lab},
};

#[tokio::test]
async fn a_laboratorys_role_gets_into_its_own_database_and_into_no_other() {
    let harness = Harness::new().await;
    let first = harness.provisioned("first").await;
    let second = harness.provisioned("second").await;
    let own = harness.own(&first);
    connect(&own).await;
    let (databases, _) = harness.space.contents().await;
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
    let mixed = harness
        .own(&second)
        .with_user(first.role_name.as_str(), harness.own(&second).password);
    assert!(
        pg::connect(&mixed, "intruder", Duration::from_secs(30))
            .await
            .is_err()
    );
}

/// Before its rights are set, a new database is everybody's, and a session that got in then would read
/// another laboratory's rows when they are restored.
#[tokio::test]
async fn the_scratch_database_lets_no_laboratory_in_at_the_moment_it_is_made() {
    let harness = Harness::with(|config| config.lease = Duration::from_millis(1500)).await;
    let curious = harness.provisioned("curious").await;
    let leaving = harness.provisioned("leaving").await;
    let operation = harness
        .provisioner
        .request_offboard(leaving.id, NOW, by())
        .await
        .unwrap();
    die_at(&harness, operation, "offboard/verify/scratch_made").await;
    let scratch = harness.space.namespace.scratch_database(operation);
    let refused = pg::connect(
        &harness.own(&curious).with_database(scratch.as_str()),
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
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(
        !harness
            .leftovers()
            .await
            .iter()
            .any(|name| name.starts_with("scratch"))
    );
}

#[tokio::test]
async fn a_laboratorys_role_owns_nothing_and_works_within_its_grants() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("narrow").await;
    let own = connect(&harness.own(&tenant)).await;
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
    let harness = Harness::new().await;
    let database = harness.space.registry.database.clone();
    let (late, operation) = harness.ask("late").await;
    connect(&harness.space.server)
        .await
        .batch_execute(&format!("GRANT CONNECT ON DATABASE \"{database}\" TO PUBLIC"))
        .await
        .unwrap();
    let asked = harness.provisioner.request_provision(lab("careful"), by()).await;
    let error = asked.unwrap_err();
    assert!(matches!(error, ProvisionError::Unmet { .. }), "{error}");
    let reported = error.to_string();
    assert!(
        reported.contains(&database) && reported.contains("tenantctl up"),
        "{reported}"
    );
    // Opened after the request, it is found by the last look.
    let error = harness.provisioner.run(operation, |_| {}).await.unwrap_err();
    let reported = error.to_string();
    assert!(
        reported.contains(&database) && reported.contains("tenantctl up"),
        "{reported}"
    );
    assert!(harness.tenant(late.id).await.is_none());
    assert_eq!(harness.leftovers().await, Vec::<String>::new());
}
