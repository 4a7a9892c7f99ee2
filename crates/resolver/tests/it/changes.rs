//! What happens when a tenant's row changes, in every order.

use std::{sync::Arc, time::Duration};

use model::{TenantEvent, TenantId, TenantState};
use resolver::{ResolveError, Resolver};
use testkit::eventually;

use crate::harness::{Harness, PATIENCE, backend, note};

async fn is_in(resolver: &Resolver, tenant: TenantId, state: TenantState) -> bool {
    resolver.snapshot(tenant).await.unwrap().state == state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn suspending_takes_hold_and_closes_the_pool_without_anybody_asking() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    // Snapshots would live for an hour: only the notification can end them here.
    let resolver = harness.resolver(harness.config()).await;
    drop(resolver.checkout(alpha).await.unwrap());
    assert_eq!(resolver.pool_status(alpha).unwrap().idle, 1);

    harness.transition(alpha, TenantEvent::Suspend).await;
    eventually("the pool to close", PATIENCE, async || {
        resolver.pool_status(alpha).is_none()
    })
    .await;
    eventually("the backend to go", PATIENCE, async || {
        harness.backends(alpha).await == 0
    })
    .await;
    let error = resolver.checkout(alpha).await.unwrap_err();
    assert!(
        matches!(
            error,
            ResolveError::NotServing {
                state: TenantState::Suspended,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(resolver.stats().evictions.refused, 1);

    harness.transition(alpha, TenantEvent::Resume).await;
    eventually("service again", PATIENCE, async || {
        resolver.checkout(alpha).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_new_laboratory_is_found_at_once_although_it_was_just_reported_absent() {
    let harness = Harness::new().await;
    let mut config = harness.config();
    config.absent_ttl = PATIENCE * 60;
    let resolver = harness.resolver(config).await;
    let unknown = TenantId::generate();
    for _ in 0..3 {
        resolver.snapshot(unknown).await.unwrap_err();
    }
    assert_eq!(resolver.stats().snapshot_loads_total, 1, "absence is remembered");

    let alpha = harness.tenant("alpha").await;
    eventually("alpha in service", PATIENCE, async || {
        is_in(&resolver, alpha, TenantState::Active).await
    })
    .await;
    harness.transition(alpha, TenantEvent::Offboard).await;
    harness.transition(alpha, TenantEvent::OffboardFinished).await;
    eventually("alpha gone", PATIENCE, async || {
        matches!(
            resolver.snapshot(alpha).await,
            Err(ResolveError::UnknownTenant { .. })
        )
    })
    .await;
}

/// The race that other systems lose: a look-up reads the old row, the change is announced, and then the
/// look-up writes the old row into the cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_read_in_flight_never_brings_the_old_row_back() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let resolver = harness.resolver(harness.config()).await;
    let heard_before = resolver.stats().invalidations_total;

    // The look-up reads the tenant, then its server. The test delays it between the two.
    let mut gatekeeper = harness.admin(&harness.space.registry.database).await;
    let held = gatekeeper.transaction().await.unwrap();
    held.batch_execute("LOCK TABLE servers IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let lookup = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.snapshot(alpha).await }
    });
    let checkout = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.checkout(alpha).await }
    });
    let observer = harness.admin("postgres").await;
    eventually("the look-up to wait for the lock", PATIENCE, async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = $1 AND wait_event_type = 'Lock' AND query LIKE '%FROM servers%'";
        let row = observer
            .query_one(waiting, &[&harness.space.registry.database])
            .await
            .unwrap();
        row.get::<_, i64>(0) == 1
    })
    .await;
    assert_eq!(resolver.stats().snapshot_loads_total, 1);

    harness.transition(alpha, TenantEvent::Suspend).await;
    eventually("the change to be heard of", PATIENCE, async || {
        resolver.stats().invalidations_total > heard_before
    })
    .await;
    held.rollback().await.unwrap();

    // The look-up began before the change and may return what it read; later callers must not see that.
    let old = lookup.await.unwrap().unwrap();
    assert_eq!(
        old.state,
        TenantState::Active,
        "the look-up had read the row before the change"
    );
    assert!(is_in(&resolver, alpha, TenantState::Suspended).await);
    assert_eq!(resolver.stats().snapshot_loads_total, 2);
    // The checkout read the old row too, and opens no pool from it.
    let error = checkout.await.unwrap().unwrap_err();
    assert!(matches!(error, ResolveError::NotServing { .. }), "{error}");
    assert_eq!(resolver.stats().connects_total, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_hundred_callers_on_a_cold_tenant_cost_one_read() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let resolver = harness.resolver(harness.config()).await;
    // Delayed, so that all hundred callers are there before the first gets its answer.
    let mut gatekeeper = harness.admin(&harness.space.registry.database).await;
    let held = gatekeeper.transaction().await.unwrap();
    held.batch_execute("LOCK TABLE servers IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let resolver = resolver.clone();
            tokio::spawn(async move { resolver.snapshot(alpha).await })
        })
        .collect();
    eventually("all to have missed", PATIENCE, async || {
        resolver.stats().snapshot_misses_total == 100
    })
    .await;
    held.rollback().await.unwrap();
    let mut first = None;
    for caller in callers {
        let snapshot = caller.await.unwrap().unwrap();
        let first = first.get_or_insert_with(|| Arc::clone(&snapshot));
        assert!(Arc::ptr_eq(first, &snapshot));
    }
    assert_eq!(resolver.stats().snapshot_loads_total, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_pool_is_rebuilt_for_a_new_password_and_kept_for_a_new_version() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let resolver = harness.resolver(harness.config()).await;
    let old_backend = backend(&mut resolver.checkout(alpha).await.unwrap()).await;

    harness.set_version(alpha, 3).await;
    eventually("the new version to be seen", PATIENCE, async || {
        resolver.snapshot(alpha).await.unwrap().db_version.number() == 3
    })
    .await;
    assert_eq!(
        backend(&mut resolver.checkout(alpha).await.unwrap()).await,
        old_backend
    );

    // Checked out while the password changes: the connection goes on working, and ends when it is given back.
    let generation = resolver.snapshot(alpha).await.unwrap().generation;
    let mut loaned = resolver.checkout(alpha).await.unwrap();
    harness
        .set_role(alpha, &identity::generate_password(), "ALTER")
        .await;
    eventually("the new password to be seen", PATIENCE, async || {
        resolver.snapshot(alpha).await.unwrap().generation > generation
    })
    .await;
    let mut fresh = resolver.checkout(alpha).await.unwrap();
    assert_ne!(backend(&mut fresh).await, old_backend);
    assert_eq!(backend(&mut loaned).await, old_backend);
    assert_eq!(resolver.stats().evictions.changed, 1);
    drop(loaned);
    eventually("the old backend to go", PATIENCE, async || {
        harness.backends(alpha).await == 1
    })
    .await;
    assert_eq!(note(&mut fresh).await, "alpha");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn draining_waits_for_what_is_on_loan_and_leaves_no_connection() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let resolver = harness.resolver(harness.config()).await;
    let loaned = resolver.checkout(alpha).await.unwrap();
    drop(resolver.checkout(alpha).await.unwrap());
    harness.transition(alpha, TenantEvent::Offboard).await;

    let error = resolver
        .drain(alpha, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ResolveError::StillInUse { connections: 1.., .. }),
        "{error}"
    );
    let drained = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.drain(alpha, PATIENCE).await }
    });
    drop(loaned);
    drained.await.unwrap().unwrap();
    assert_eq!(resolver.stats().connections, 0);
    resolver.checkout(alpha).await.unwrap_err();
    // Without FORCE: no connection of this process is in the way. The server needs a moment to end the
    // backend of a closed connection.
    let database = harness.row(alpha).await.db_name;
    let admin = harness.admin("postgres").await;
    admin
        .batch_execute(&format!("DROP DATABASE {database}"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn closing_the_resolver_leaves_no_connection_of_any_laboratory() {
    let harness = Harness::new().await;
    let (alpha, beta) = (harness.tenant("alpha").await, harness.tenant("beta").await);
    let resolver = harness.resolver(harness.config()).await;
    drop(resolver.checkout(alpha).await.unwrap());
    let loaned = resolver.checkout(beta).await.unwrap();
    assert_eq!(resolver.close(Duration::from_millis(50)).await, Err(1));
    drop(loaned);
    resolver.close(PATIENCE).await.unwrap();
    assert_eq!(resolver.stats().connections, 0);
}
