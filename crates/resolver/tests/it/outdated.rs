//! Prepared statements that a schema change has outdated.

use resolver::{ResolverConfig, TenantClient};
use tokio_postgres::error::SqlState;

use crate::harness::{Harness, backend, note};

/// Changes the type of the column that every statement of these tests returns.
async fn change_type(harness: &Harness, tenant: model::TenantId, to: &str) {
    let database = harness.row(tenant).await.db_name;
    harness
        .admin(database.as_str())
        .await
        .batch_execute(&format!("ALTER TABLE notes ALTER COLUMN text TYPE {to}"))
        .await
        .unwrap();
}

async fn cached_note(client: &mut TenantClient) -> Result<String, tokio_postgres::Error> {
    let transaction = client.transaction().await.unwrap();
    let read = async {
        let statement = transaction.prepare_cached("SELECT text FROM notes").await?;
        transaction.query_one(&statement, &[]).await
    };
    let outcome = read.await.map(|row| row.get(0));
    transaction.rollback().await.unwrap();
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_transaction_fails_at_most_once_on_a_connection_whose_statements_are_outdated() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let resolver = harness.resolver(harness.config()).await;
    let mut first = resolver.checkout(alpha).await.unwrap();
    let mut second = resolver.checkout(alpha).await.unwrap();
    let backends = [backend(&mut first).await, backend(&mut second).await];
    for client in [&mut first, &mut second] {
        assert_eq!(cached_note(client).await.unwrap(), "alpha");
        assert!(!client.statements_outdated());
    }
    for to in ["varchar(20)", "text"] {
        change_type(&harness, alpha, to).await;
        for client in [&mut first, &mut second] {
            let error = cached_note(client).await.unwrap_err();
            assert_eq!(error.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED));
            assert!(client.statements_outdated(), "the caller may try again");
            assert_eq!(cached_note(client).await.unwrap(), "alpha");
            assert!(!client.statements_outdated());
        }
    }
    // Given back in between; the next caller finds the connection in order.
    change_type(&harness, alpha, "varchar(20)").await;
    cached_note(&mut first).await.unwrap_err();
    drop((first, second));
    let mut healed = resolver.checkout(alpha).await.unwrap();
    let mut other = resolver.checkout(alpha).await.unwrap();
    let outcomes = [cached_note(&mut healed).await, cached_note(&mut other).await];
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    for client in [&mut healed, &mut other] {
        assert!(
            backends.contains(&backend(client).await),
            "no connection was lost"
        );
        assert_eq!(note(client).await, "alpha");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_single_statement_never_fails_because_it_was_prepared_before_a_change() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let config = ResolverConfig {
        pool_size_max: 1,
        ..harness.config()
    };
    let resolver = harness.resolver(config).await;
    let mut client = resolver.checkout(alpha).await.unwrap();
    let sql = "SELECT text FROM notes WHERE text = $1";
    for to in ["text", "varchar(20)", "text"] {
        change_type(&harness, alpha, to).await;
        let row = client.query_one(sql, &[&"alpha"]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "alpha");
        let rows = client.query("SELECT text FROM notes", &[]).await.unwrap();
        assert_eq!(rows.len(), 1);
    }
    // The type of a parameter is fixed when the statement is prepared, too.
    let insert = "INSERT INTO notes SELECT $1 WHERE false";
    client.execute(insert, &[&"beta"]).await.unwrap();
    let database = harness.row(alpha).await.db_name;
    let inside = harness.admin(database.as_str()).await;
    inside
        .batch_execute("ALTER TABLE notes ADD COLUMN number int")
        .await
        .unwrap();
    let count = "SELECT count(*) FROM notes WHERE number = $1::text::int";
    client.query_one(count, &[&"1"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_statement_that_the_server_has_forgotten_is_prepared_again() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let config = ResolverConfig {
        pool_size_max: 1,
        ..harness.config()
    };
    let resolver = harness.resolver(config).await;
    let mut client = resolver.checkout(alpha).await.unwrap();
    assert_eq!(cached_note(&mut client).await.unwrap(), "alpha");
    client.execute("DEALLOCATE ALL", &[]).await.unwrap();
    let rows = client.query("SELECT text FROM notes", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn work_that_cannot_be_run_twice_is_begun_when_what_comes_first_has_passed() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let resolver = harness.resolver(harness.config()).await;
    let mut client = resolver.checkout(alpha).await.unwrap();
    let runs = std::sync::atomic::AtomicUsize::new(0);
    for to in ["varchar(20)", "varchar(30)"] {
        assert!(cached_note(&mut client).await.is_ok());
        change_type(&harness, alpha, to).await;
        let first = async |txn: &resolver::TenantTransaction<'_>| -> Result<(), Failed> {
            let statement = txn.prepare_cached("SELECT text FROM notes").await?;
            txn.query_one(&statement, &[]).await?;
            Ok(())
        };
        let work = async |txn: &resolver::TenantTransaction<'_>| -> Result<String, Failed> {
            runs.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let statement = txn.prepare_cached("SELECT text FROM notes").await?;
            Ok(txn.query_one(&statement, &[]).await?.get(0))
        };
        assert_eq!(client.read_once(first, work).await.unwrap(), "alpha");
    }
    assert_eq!(runs.into_inner(), 2);
}

/// Any error of such work.
#[derive(Debug)]
struct Failed;

impl From<tokio_postgres::Error> for Failed {
    fn from(_: tokio_postgres::Error) -> Self {
        Self
    }
}

impl From<resolver::ResolveError> for Failed {
    fn from(_: resolver::ResolveError) -> Self {
        Self
    }
}
