//! What a borrower leaves behind.

use std::time::Duration;

use resolver::ResolverConfig;
use testkit::eventually;
use tokio::time::{Instant, timeout};

use crate::world::{PATIENCE, World, backend, note};

/// How long the abandoned statement would run. Whoever waited for it would not be done in a third of the time.
const SLEEP: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_abandoned_statement_is_cancelled_and_its_connection_is_never_lent_again() {
    let world = World::new().await;
    let alpha = world.tenant("alpha").await;
    // One connection: the next borrower needs the place of the abandoned one.
    let config = ResolverConfig {
        pool_size_max: 1,
        statement_timeout: SLEEP * 10,
        ..world.config()
    };
    let resolver = world.resolver(config).await;
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
    let admin = world.admin("postgres").await;
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
    assert_ne!(backend(&mut next).await, abandoned);
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
    eventually("the abandoned backend to go", PATIENCE, async || {
        world.backends(alpha).await == 1
    })
    .await;
    assert_eq!(resolver.stats().discarded_total, 1);
}

#[tokio::test]
async fn a_transaction_dropped_without_an_end_is_rolled_back_before_the_next_borrower() {
    let world = World::new().await;
    let alpha = world.tenant("alpha").await;
    let resolver = world
        .resolver(ResolverConfig {
            pool_size_max: 1,
            ..world.config()
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

#[tokio::test]
async fn a_borrower_that_panics_leaves_nothing() {
    let world = World::new().await;
    let alpha = world.tenant("alpha").await;
    let resolver = world
        .resolver(ResolverConfig {
            pool_size_max: 1,
            ..world.config()
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

#[tokio::test]
async fn ordinary_ends_keep_the_connection() {
    let world = World::new().await;
    let alpha = world.tenant("alpha").await;
    let resolver = world
        .resolver(ResolverConfig {
            pool_size_max: 1,
            ..world.config()
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
    // Taken and not used.
    drop(resolver.checkout(alpha).await.unwrap());
    assert_eq!(backend(&mut resolver.checkout(alpha).await.unwrap()).await, first);
    assert_eq!(resolver.stats().discarded_total, 0);
}

#[tokio::test]
async fn abandoning_at_any_moment_leaves_no_trace() {
    let world = World::new().await;
    let alpha = world.tenant("alpha").await;
    let resolver = world.resolver(world.config()).await;
    // From before the first byte to after the last, whatever the machine's speed: the moments spread over three tries each.
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
