use std::time::Duration;

use futures_util::future::join_all;
use migrator::{MigrateError, history_version, migrate_database};
use pg::ConnectTarget;
use testkit::Space;
use tokio_postgres::Client;

pub(crate) async fn admin(target: &ConnectTarget) -> Client {
    pg::connect(target, "migrator test", Duration::from_secs(30))
        .await
        .unwrap()
}

pub(crate) async fn count(client: &Client, sql: &str, name: &str) -> i64 {
    client.query_one(sql, &[&name]).await.unwrap().get(0)
}

/// An empty database of the space, as an administrator reaches it.
async fn empty_database(space: &Space) -> ConnectTarget {
    let slug = model::Slug::parse("bare").unwrap();
    let name = space.namespace.tenant_database(&slug);
    admin(&space.server)
        .await
        .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
        .await
        .unwrap();
    space.server.with_database(name.as_str())
}

#[tokio::test]
async fn an_empty_database_reaches_the_latest_version_however_many_run_at_once() {
    let space = Space::new().await;
    let target = empty_database(&space).await;
    let client = admin(&target).await;
    assert_eq!(history_version(&client).await.unwrap().number(), 0);
    let group = space.namespace.shared_group();
    for outcome in join_all((0..6).map(|_| migrate_database(&target, &group))).await {
        assert_eq!(outcome.unwrap(), migrator::latest());
    }
    assert_eq!(history_version(&client).await.unwrap(), migrator::latest());
    let rows = client
        .query_one("SELECT count(*) FROM refinery_schema_history", &[])
        .await
        .unwrap();
    assert_eq!(rows.get::<_, i64>(0), i64::from(migrator::latest().number()));
}

#[tokio::test]
async fn a_history_ahead_of_the_code_is_refused_and_left_alone() {
    let space = Space::new().await;
    let target = empty_database(&space).await;
    migrate_database(&target, &space.namespace.shared_group())
        .await
        .unwrap();
    let client = admin(&target).await;
    let newer = i32::try_from(migrator::latest().number() + 3).unwrap();
    client
        .execute(
            "INSERT INTO refinery_schema_history VALUES ($1, 'of_the_future', '2031-01-01T00:00:00Z', '1')",
            &[&newer],
        )
        .await
        .unwrap();
    let error = migrate_database(&target, &space.namespace.shared_group())
        .await
        .unwrap_err();
    let MigrateError::Ahead { have, code, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(
        (have.number(), *code),
        (migrator::latest().number() + 3, migrator::latest())
    );
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_malformed_history_row_is_an_error_that_names_it() {
    let space = Space::new().await;
    let target = empty_database(&space).await;
    migrate_database(&target, &space.namespace.shared_group())
        .await
        .unwrap();
    let client = admin(&target).await;
    for (column, value, said) in [
        ("checksum", "'many'", "checksum \"many\""),
        ("checksum", "NULL", "checksum"),
        ("applied_on", "'yesterday'", "applied_on \"yesterday\""),
        ("name", "NULL", "name"),
        ("version", "-version", "negative"),
    ] {
        let sql = format!("UPDATE refinery_schema_history SET {column} = {value} WHERE version = 1");
        client
            .batch_execute(&format!(
                "BEGIN; CREATE TEMP TABLE kept AS TABLE refinery_schema_history; {sql}; COMMIT"
            ))
            .await
            .unwrap();
        let error = migrate_database(&target, &space.namespace.shared_group())
            .await
            .unwrap_err();
        assert!(matches!(error, MigrateError::CorruptHistory { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(said) && (text.contains("row V1 ") || text.contains("row V-1 ")),
            "{text}"
        );
        client
            .batch_execute("DELETE FROM refinery_schema_history; INSERT INTO refinery_schema_history TABLE kept; DROP TABLE kept")
            .await
            .unwrap();
    }
    migrate_database(&target, &space.namespace.shared_group())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_migration_changed_after_it_was_applied_is_refused_with_its_name() {
    let space = Space::new().await;
    let target = empty_database(&space).await;
    migrate_database(&target, &space.namespace.shared_group())
        .await
        .unwrap();
    let client = admin(&target).await;
    client
        .batch_execute("UPDATE refinery_schema_history SET checksum = '1' WHERE version = 1")
        .await
        .unwrap();
    let error = migrate_database(&target, &space.namespace.shared_group())
        .await
        .unwrap_err();
    assert!(matches!(error, MigrateError::Migration { .. }), "{error}");
    assert!(error.to_string().contains("V1__"), "{error}");
}
