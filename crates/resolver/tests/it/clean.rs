//! What a caller leaves behind never reaches the next one.

use std::time::Duration;

use resolver::{ResolverConfig, TenantClient};
use testkit::eventually;
use tokio::time::{Instant, timeout};

use crate::harness::{Harness, PATIENCE, backend, note};

/// How long the abandoned statement would run. A caller that waited for it could not finish in a third of
/// that time.
const SLEEP: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_abandoned_statement_is_cancelled_and_its_connection_is_put_right() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    // One connection: the next caller needs the room of the abandoned one.
    let config = ResolverConfig {
        pool_size_max: 1,
        statement_timeout: SLEEP * 10,
        ..harness.config()
    };
    let resolver = harness.resolver(config).await;
    let mut client = resolver.checkout(alpha).await.unwrap();
    let abandoned = backend(&mut client).await;
    let borrower = tokio::spawn(async move {
        let transaction = client.transaction().await.unwrap();
        transaction
            .batch_execute("INSERT INTO notes VALUES ('never')")
            .await
            .unwrap();
        let sleep = format!("SELECT pg_sleep({})", SLEEP.as_secs());
        transaction.batch_execute(&sleep).await.unwrap();
    });
    let admin = harness.admin("postgres").await;
    eventually("the statement to run", PATIENCE, async || {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND query LIKE '%pg_sleep%'";
        admin
            .query_one(running, &[&abandoned])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 1
    })
    .await;
    borrower.abort();

    let asked = Instant::now();
    let mut next = resolver.checkout(alpha).await.unwrap();
    assert_eq!(backend(&mut next).await, abandoned, "it is cleaned and goes on");
    assert_eq!(
        note(&mut next).await,
        "alpha",
        "and nothing was kept of the insert"
    );
    assert!(
        asked.elapsed() < SLEEP / 3,
        "the next borrower waited {:?}",
        asked.elapsed()
    );
    assert_eq!(harness.backends(alpha).await, 1);
    assert_eq!(resolver.stats().discarded_total, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_transaction_dropped_without_an_end_is_rolled_back_before_the_next_borrower() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let resolver = harness
        .resolver(ResolverConfig {
            pool_size_max: 1,
            ..harness.config()
        })
        .await;
    for _ in 0..20 {
        let mut client = resolver.checkout(alpha).await.unwrap();
        let transaction = client.transaction().await.unwrap();
        transaction
            .batch_execute("INSERT INTO notes VALUES ('never'); SET statement_timeout = 1")
            .await
            .unwrap();
        drop(transaction);
        drop(client);
        let mut next = resolver.checkout(alpha).await.unwrap();
        let transaction = next.transaction().await.unwrap();
        let seen = "SELECT count(*), current_setting('statement_timeout') FROM notes";
        let row = transaction.query_one(seen, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, &str>(1)), (1, "30s"));
        transaction.commit().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_borrower_that_panics_leaves_nothing() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let resolver = harness
        .resolver(ResolverConfig {
            pool_size_max: 1,
            ..harness.config()
        })
        .await;
    let mut client = resolver.checkout(alpha).await.unwrap();
    let panicked = tokio::spawn(async move {
        let transaction = client.transaction().await.unwrap();
        transaction
            .batch_execute("INSERT INTO notes VALUES ('never')")
            .await
            .unwrap();
        panic!("on purpose");
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert_eq!(note(&mut resolver.checkout(alpha).await.unwrap()).await, "alpha");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn ordinary_ends_keep_the_connection() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let resolver = harness
        .resolver(ResolverConfig {
            pool_size_max: 1,
            ..harness.config()
        })
        .await;
    let first = backend(&mut resolver.checkout(alpha).await.unwrap()).await;
    for _ in 0..3 {
        // A refused statement and its rollback, as in a request that ends with 4xx.
        let mut client = resolver.checkout(alpha).await.unwrap();
        let transaction = client.transaction().await.unwrap();
        transaction.batch_execute("SELECT 1 / 0").await.unwrap_err();
        transaction.rollback().await.unwrap();
        assert_eq!(backend(&mut client).await, first);
    }
    // Checked out and not used.
    drop(resolver.checkout(alpha).await.unwrap());
    assert_eq!(backend(&mut resolver.checkout(alpha).await.unwrap()).await, first);
    assert_eq!(resolver.stats().discarded_total, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn abandoning_at_any_moment_leaves_no_trace() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let resolver = harness.resolver(harness.config()).await;
    // From before the first byte to after the last, whatever the machine's speed: the moments spread over
    // three tries each.
    for step in 0..60_u32 {
        let borrower = async {
            let mut client = resolver.checkout(alpha).await.unwrap();
            let transaction = client.transaction().await.unwrap();
            transaction
                .batch_execute("SET LOCAL work_mem = '1MB'; SELECT pg_sleep(0.003)")
                .await
                .unwrap();
            transaction.rollback().await.unwrap();
        };
        let _cut = timeout(Duration::from_micros(u64::from(step / 3) * 400), borrower).await;
        let mut next = resolver.checkout(alpha).await.unwrap();
        let transaction = next.transaction().await.unwrap();
        let row = transaction
            .query_one("SELECT current_setting('work_mem'), text FROM notes", &[])
            .await
            .unwrap();
        assert_ne!(row.get::<_, &str>(0), "1MB");
        assert_eq!(row.get::<_, &str>(1), "alpha");
        transaction.commit().await.unwrap();
    }
    assert!(resolver.pool_status(alpha).unwrap().size <= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whatever_was_done_to_the_session_is_undone_before_the_next_borrower() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let resolver = harness
        .resolver(ResolverConfig {
            pool_size_max: 1,
            ..harness.config()
        })
        .await;
    let first = backend(&mut resolver.checkout(alpha).await.unwrap()).await;
    // Each leaves something behind after an answered commit, where the driver sees nothing wrong.
    let soiling = [
        "SET work_mem = '1MB'",
        "SELECT set_config('work_mem', '1MB', false)",
        "select Set_Config('work_mem', '1MB', FALSE)",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SELECT pg_advisory_lock(42)",
        "LISTEN something",
        "COMMIT; BEGIN; SET work_mem = '1MB'; COMMIT; BEGIN",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "PREPARE p AS SELECT 1",
        "DO $$ BEGIN PERFORM set_config('work_mem', '1MB', false); END $$",
    ];
    for sql in soiling {
        let mut client = resolver.checkout(alpha).await.unwrap();
        let transaction = client.transaction().await.unwrap();
        transaction.batch_execute(sql).await.unwrap();
        transaction.commit().await.unwrap();
        drop(client);
        assert_eq!(
            session(&mut resolver.checkout(alpha).await.unwrap()).await,
            CLEAN,
            "{sql}"
        );
    }
    let unrecoverable = "what PREPARE leaves is not cleaned away, its connection ends";
    let next = backend(&mut resolver.checkout(alpha).await.unwrap()).await;
    assert!(
        next != first && resolver.stats().discarded_total == 1,
        "{unrecoverable}"
    );
    // Past the transaction, through the driver's own client.
    for sql in [
        "BEGIN",
        "BEGIN; INSERT INTO notes VALUES ('never')",
        "SET work_mem = '1MB'",
        "BEGIN; SELECT 1 / 0",
    ] {
        let mut client = resolver.checkout(alpha).await.unwrap();
        let transaction = client.transaction().await.unwrap();
        transaction.batch_execute("COMMIT").await.unwrap();
        let _refused = transaction.client().batch_execute(sql).await;
        drop(transaction);
        drop(client);
        assert_eq!(
            session(&mut resolver.checkout(alpha).await.unwrap()).await,
            CLEAN,
            "{sql}"
        );
    }
    let mut last = resolver.checkout(alpha).await.unwrap();
    assert_eq!(note(&mut last).await, "alpha");
    assert_eq!(backend(&mut last).await, next, "all others are cleaned and go on");
}

/// The settings, read-only default, locks, channels, cursors and statements of a new session.
const CLEAN: (i64, &str, &str) = (0, "4MB", "off");

async fn session(client: &mut TenantClient) -> (i64, &'static str, &'static str) {
    let row = client
        .query_one(
            "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
                  + (SELECT count(*) FROM pg_listening_channels())
                  + (SELECT count(*) FROM pg_cursors WHERE name <> '')
                  + (SELECT count(*) FROM pg_prepared_statements WHERE from_sql),
                    current_setting('work_mem'), current_setting('transaction_read_only')",
            &[],
        )
        .await
        .unwrap();
    let known = |text: String| {
        ["4MB", "off", "1MB", "on"]
            .into_iter()
            .find(|known| *known == text)
            .unwrap()
    };
    (row.get(0), known(row.get(1)), known(row.get(2)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn statements_without_a_transaction_are_given_up_and_fail_as_cleanly() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let resolver = harness
        .resolver(ResolverConfig {
            pool_size_max: 1,
            statements_max: 3,
            ..harness.config()
        })
        .await;
    let mut client = resolver.checkout(alpha).await.unwrap();
    assert_eq!(
        client
            .execute("INSERT INTO notes VALUES ($1)", &[&"two"])
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        client.query("SELECT text FROM notes", &[]).await.unwrap().len(),
        2
    );
    client
        .query_one("SELECT 1 / (count(*) - 2) FROM notes", &[])
        .await
        .unwrap_err();
    let first = backend(&mut client).await;
    drop(client);
    for number in 0..20 {
        let mut client = resolver.checkout(alpha).await.unwrap();
        let sql = format!("SELECT {number} AS number");
        assert_eq!(
            client.query_one(&sql, &[]).await.unwrap().get::<_, i32>(0),
            number
        );
    }
    let mut client = resolver.checkout(alpha).await.unwrap();
    let count = "SELECT count(*) FROM pg_prepared_statements";
    let prepared: i64 = client.query_one(count, &[]).await.unwrap().get(0);
    assert!(
        prepared <= 5,
        "{prepared} statements are prepared, and 3 may stay"
    );
    assert_eq!(backend(&mut client).await, first);
    let cut = timeout(
        Duration::from_millis(20),
        client.query("SELECT pg_sleep(30)", &[]),
    )
    .await;
    assert!(cut.is_err());
    drop(client);
    assert_eq!(backend(&mut resolver.checkout(alpha).await.unwrap()).await, first);
}
