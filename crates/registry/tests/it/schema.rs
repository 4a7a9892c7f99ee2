//! The registry's own schema and database.

use model::SchemaVersion;
use registry::{Registry, RegistryError, RegistryOptions, ensure_database, latest};
use testkit::Space;

use crate::harness::Harness;

#[tokio::test(flavor = "multi_thread")]
async fn eight_that_migrate_at_once_all_succeed() {
    let space = Space::new().await;
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let registry = Registry::new(&space.registry, RegistryOptions::default());
            tokio::spawn(async move { registry.migrate().await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), latest());
    }
    let registry = Registry::new(&space.registry, RegistryOptions::default());
    registry.check_version().await.unwrap();
    assert_eq!(
        registry.migrate().await.unwrap(),
        latest(),
        "a second time is nothing to do"
    );
}

#[tokio::test]
async fn an_older_database_is_named_with_what_to_do() {
    let space = Space::new().await;
    let registry = Registry::new(&space.registry, RegistryOptions::default());
    let error = registry.check_version().await.unwrap_err();
    let none = SchemaVersion::new(0);
    assert!(
        matches!(error, RegistryError::VersionMismatch { found, .. } if found == none),
        "{error:?}"
    );
    let message = error.to_string();
    assert!(
        message.contains("older than this binary") && message.contains("tenantctl up"),
        "{message}"
    );
}

#[tokio::test]
async fn a_newer_database_is_refused_and_left_alone() {
    let harness = Harness::new().await;
    let client = harness.client().await;
    client
        .batch_execute(
            "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
             VALUES (999, 'from_the_future', '2030-01-01T00:00:00Z', '1')",
        )
        .await
        .unwrap();
    for error in [
        harness.registry.migrate().await.unwrap_err(),
        harness.registry.check_version().await.unwrap_err(),
    ] {
        let message = error.to_string();
        assert!(
            message.contains("999") && message.contains("newer than this binary"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_history_row_that_no_migration_wrote_is_an_error_and_no_panic() {
    let harness = Harness::new().await;
    let client = harness.client().await;
    let change =
        "UPDATE refinery_schema_history SET checksum = 'none', applied_on = 'yesterday' WHERE version = 1";
    client.batch_execute(change).await.unwrap();
    let error = harness.registry.migrate().await.unwrap_err();
    assert!(matches!(error, RegistryError::Migrate { .. }), "{error:?}");
    assert!(error.to_string().contains("refinery_schema_history"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registrys_database_is_made_once_by_whoever_comes_first() {
    let space = Space::new().await;
    let name = format!("{}_second", space.namespace.as_str());
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (server, name) = (space.server.clone(), name.clone());
            tokio::spawn(async move { ensure_database(&server, &name).await })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        made += usize::from(task.await.unwrap().unwrap());
    }
    assert_eq!(made, 1);
    let registry = Registry::new(&space.server.with_database(name), RegistryOptions::default());
    registry.migrate().await.unwrap();
}

/// What a creation leaves that was killed between its two statements: closed, so that nobody slipped in.
#[tokio::test]
async fn a_registrys_database_whose_creation_was_cut_off_is_opened_to_its_user_only() {
    let space = Space::new().await;
    let name = format!("{}_second", space.namespace.as_str());
    let server = pg::connect(&space.server, "test", std::time::Duration::from_secs(30))
        .await
        .unwrap();
    server
        .batch_execute(&format!(
            "CREATE DATABASE \"{name}\" TEMPLATE template0 ALLOW_CONNECTIONS false"
        ))
        .await
        .unwrap();
    assert!(!ensure_database(&space.server, &name).await.unwrap());
    let everybody = server
        .query_one(
            "SELECT datallowconn, (SELECT count(*) FROM aclexplode(datacl) WHERE grantee = 0)
               FROM pg_database WHERE datname = $1",
            &[&name],
        )
        .await
        .unwrap();
    assert_eq!((everybody.get(0), everybody.get(1)), (true, 0_i64));
    let registry = Registry::new(&space.server.with_database(name), RegistryOptions::default());
    registry.migrate().await.unwrap();
}

/// Up to version 12 the text of an operation's error said how its undoing came about and went.
#[tokio::test]
async fn errors_that_told_of_an_undoing_become_columns() {
    let harness = Harness::new().await;
    let client = harness.client().await;
    let before = "ALTER TABLE operations DROP COLUMN undo_reason, DROP COLUMN undo_error";
    client.batch_execute(before).await.unwrap();
    let known = [
        ("undoing", "seed: no", (Some("failed"), "seed: no", None)),
        (
            "undoing",
            "called off by terminal:ada (undoing it: drop_role: gone (really))",
            (
                Some("cancelled"),
                "called off by terminal:ada",
                Some("drop_role: gone (really)"),
            ),
        ),
        (
            "cancelled",
            "called off by terminal:ada",
            (Some("cancelled"), "called off by terminal:ada", None),
        ),
        (
            "failed",
            "seed: no (undoing it: drop_role: gave up after 3 tries: away)",
            (
                Some("failed"),
                "seed: no",
                Some("drop_role: gave up after 3 tries: away"),
            ),
        ),
        ("failed", "dump: no", (None, "dump: no", None)),
        ("pending", "interrupted", (None, "interrupted", None)),
    ];
    for (status, error, _) in &known {
        let statement = "INSERT INTO operations
                 (id, kind, tenant_id, tenant_slug, status, error, created_by, finished_at)
             VALUES (gen_random_uuid(), 'provision', gen_random_uuid(), 'acme', $1, $2, 'anonymous',
                 CASE WHEN $1 IN ('failed', 'cancelled') THEN now() END)";
        client.execute(statement, &[status, error]).await.unwrap();
    }
    let migration = include_str!("../../../../migrations-master/V13__undo_outcomes.sql");
    client.batch_execute(migration).await.unwrap();
    let statement = "SELECT undo_reason, error, undo_error FROM operations ORDER BY created_at";
    let rows = client.query(statement, &[]).await.unwrap();
    for (row, (status, error, expected)) in rows.iter().zip(known) {
        let found: (Option<&str>, &str, Option<&str>) = (row.get(0), row.get(1), row.get(2));
        assert_eq!(found, expected, "{status} {error}");
    }
    assert_eq!(rows.len(), known.len());
}
