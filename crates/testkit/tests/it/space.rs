//! What a space leaves behind: nothing.

use std::time::Duration;

use testkit::{Space, eventually, postgres};

async fn names_left(namespace: &str) -> i64 {
    let client = pg::connect(&postgres().await, "testkit test", Duration::from_secs(30))
        .await
        .unwrap();
    let prefix = format!("{namespace}_");
    let row = client
        .query_one(
            "SELECT (SELECT count(*) FROM pg_database WHERE starts_with(datname, $1))
                  + (SELECT count(*) FROM pg_roles WHERE starts_with(rolname, $1))",
            &[&prefix],
        )
        .await
        .unwrap();
    row.get(0)
}

/// Two tests that grant on the database `postgres` at once change one row, and PostgreSQL lets one of them
/// fail.
async fn run(client: &tokio_postgres::Client, sql: &str) {
    const ATTEMPTS: u32 = 100;
    for attempt in 1.. {
        let Err(error) = client.batch_execute(sql).await else {
            return;
        };
        let reason = pg::describe(&error);
        assert!(
            reason.contains("tuple concurrently updated") && attempt < ATTEMPTS,
            "{sql}: {reason}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A sealed template, a role that holds grants in it, and a connection that is still open.
async fn furnish(space: &Space) -> tokio_postgres::Client {
    let ns = space.namespace.as_str().to_owned();
    let client = pg::connect(&space.server, "testkit test", Duration::from_secs(30))
        .await
        .unwrap();
    for sql in [
        format!("CREATE DATABASE {ns}_template TEMPLATE template0"),
        format!("CREATE ROLE {ns}_dml"),
        format!("CREATE ROLE {ns}_login IN ROLE {ns}_dml"),
        format!("GRANT CONNECT ON DATABASE postgres TO {ns}_dml"),
        format!("GRANT CONNECT ON DATABASE {ns}_template TO {ns}_login"),
        format!("ALTER DATABASE {ns}_template WITH IS_TEMPLATE true ALLOW_CONNECTIONS false"),
    ] {
        run(&client, &sql).await;
    }
    pg::connect(&space.registry, "testkit test", Duration::from_secs(30))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_space_takes_sealed_templates_roles_and_open_connections_with_it() {
    let space = Space::new().await;
    let ns = space.namespace.as_str().to_owned();
    let dir = space.dir().to_owned();
    let open = furnish(&space).await;
    let (databases, roles) = space.contents().await;
    assert_eq!((databases.len(), roles.len()), (2, 2));
    assert!(dir.is_dir());
    drop(space);
    assert_eq!(names_left(&ns).await, 0);
    assert!(!dir.exists());
    eventually(
        "the open connection to end",
        Duration::from_secs(30),
        async || open.is_closed(),
    )
    .await;
}

#[tokio::test]
async fn a_space_is_removed_when_its_test_panics() {
    let space = Space::new().await;
    let ns = space.namespace.as_str().to_owned();
    let test = tokio::spawn(async move {
        let _furnished = furnish(&space).await;
        panic!("as a failing test does");
    });
    assert!(test.await.unwrap_err().is_panic());
    assert_eq!(names_left(&ns).await, 0);
}

#[tokio::test]
#[should_panic(expected = "in vain for pigs to fly")]
async fn waiting_in_vain_says_for_what() {
    eventually("pigs to fly", Duration::from_millis(50), async || false).await;
}
