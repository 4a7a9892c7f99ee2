//! A database that another application uses is not taken for the registry.

use registry::{Registry, RegistryError, RegistryOptions, ensure_database};
use testkit::Space;

const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

async fn tables(space: &Space) -> i64 {
    let client = pg::connect(&space.registry, "registry test", LIMIT)
        .await
        .unwrap();
    let sql = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_database_that_holds_something_else_is_refused_and_left_as_it_is() {
    for sql in [
        "CREATE TABLE account (id int)",
        "CREATE SCHEMA crm",
        "CREATE FUNCTION answer() RETURNS int LANGUAGE sql AS 'SELECT 42'",
        "CREATE TYPE colour AS ENUM ('red')",
        "SELECT lo_create(0)",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I IS_TEMPLATE true', current_database()); END $$",
        // It has the name of a table of ours.
        "CREATE TABLE operations (id int)",
        "CREATE TABLE refinery_schema_history (version int4 PRIMARY KEY, name text, applied_on text, checksum text);
         INSERT INTO refinery_schema_history VALUES (1, 'crm', '2026-01-01T00:00:00Z', '1')",
    ] {
        let space = Space::new().await;
        let client = pg::connect(&space.registry, "registry test", LIMIT).await.unwrap();
        client.batch_execute(sql).await.unwrap();
        let before = tables(&space).await;
        let registry = Registry::new(&space.registry, RegistryOptions::default());
        let refused = registry.migrate().await.unwrap_err();
        assert!(matches!(refused, RegistryError::NotARegistry { .. }), "{refused}");
        assert!(refused.to_string().contains("MASTER_PGDATABASE"), "{refused}");
        assert_eq!(tables(&space).await, before, "{sql}");
        let no_template =
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I IS_TEMPLATE false', current_database()); END $$";
        client.batch_execute(no_template).await.unwrap();
    }
}

#[tokio::test]
async fn the_servers_own_databases_are_no_registry() {
    let space = Space::new().await;
    for name in ["postgres", "template0", "template1"] {
        let refused = ensure_database(&space.server, name).await.unwrap_err();
        assert!(
            matches!(refused, RegistryError::NotARegistry { .. }),
            "{name}: {refused}"
        );
    }
}

#[tokio::test]
async fn what_an_extension_holds_a_new_public_schema_and_temporary_tables_are_no_other_use() {
    let space = Space::new().await;
    let client = pg::connect(&space.registry, "registry test", LIMIT)
        .await
        .unwrap();
    let harmless = "DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE EXTENSION btree_gist;
                    CREATE TEMPORARY TABLE scratch (id int)";
    client.batch_execute(harmless).await.unwrap();
    let registry = Registry::new(&space.registry, RegistryOptions::default());
    registry.migrate().await.unwrap();
}
