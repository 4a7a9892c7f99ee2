//! The bound on pools and the bound on a tenant's connections.

use std::time::Duration;

use resolver::{ResolveError, ResolverConfig};
use testkit::eventually;

use crate::harness::{Harness, PATIENCE, backend};

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_least_recently_used_idle_pool_makes_room() {
    let harness = Harness::new().await;
    let config = ResolverConfig {
        pools_max: 2,
        ..harness.config()
    };
    let resolver = harness.resolver(config).await;
    let alpha = harness.tenant("alpha").await;
    let (beta, gamma) = (harness.tenant("beta").await, harness.tenant("gamma").await);
    drop(resolver.checkout(alpha).await.unwrap());
    drop(resolver.checkout(beta).await.unwrap());
    drop(resolver.checkout(alpha).await.unwrap());
    drop(resolver.checkout(gamma).await.unwrap());

    let stats = resolver.stats();
    let open: Vec<_> = stats.tenants.iter().map(|t| t.slug.as_str()).collect();
    assert_eq!(open, ["gamma", "alpha"], "beta was used least recently");
    assert_eq!(
        (stats.evictions.least_recently_used, stats.evictions.total()),
        (1, 1)
    );
    eventually("beta's backend to go", PATIENCE, async || {
        harness.backends(beta).await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pool_without_a_connection_makes_room_before_one_that_has_one() {
    let harness = Harness::new().await;
    let config = ResolverConfig {
        pools_max: 2,
        budget: 1,
        ..harness.config()
    };
    let resolver = harness.resolver(config).await;
    let alpha = harness.tenant("alpha").await;
    let (beta, gamma) = (harness.tenant("beta").await, harness.tenant("gamma").await);
    let first = resolver.checkout(alpha).await.unwrap();
    // Beta comes later, and gets none: the only connection is alpha's.
    for tenant in [beta, gamma] {
        resolver.snapshot(tenant).await.unwrap();
    }
    resolver.checkout_within(beta, SHORT).await.unwrap_err();
    drop(first);
    drop(resolver.checkout(gamma).await.unwrap());
    let open: Vec<_> = [alpha, beta, gamma]
        .map(|tenant| resolver.pool_status(tenant).is_some())
        .into();
    assert_eq!(open, [true, false, true], "beta's costs nothing to open again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pool_in_use_is_passed_over_and_with_all_in_use_a_new_tenant_waits() {
    let harness = Harness::new().await;
    let config = ResolverConfig {
        pools_max: 2,
        ..harness.config()
    };
    let (alpha, beta) = (harness.tenant("alpha").await, harness.tenant("beta").await);
    let gamma = harness.tenant("gamma").await;
    let resolver = harness.resolver(config).await;

    // Alpha is the least recently used one, but checked out: beta's pool closes.
    let mut a = resolver.checkout(alpha).await.unwrap();
    drop(resolver.checkout(beta).await.unwrap());
    let held = resolver.checkout(gamma).await.unwrap();
    assert!(resolver.pool_status(alpha).is_some() && resolver.pool_status(beta).is_none());

    // Both are in use: beta waits, and gets its turn when a connection is given back.
    let waiting = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.checkout(beta).await.map(|c| c.tenant()) }
    });
    eventually("beta to wait for room", PATIENCE, async || {
        resolver.stats().waiting_for_room == 1
    })
    .await;
    assert_eq!(resolver.stats().pools_open, 2);
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap(), beta);
    assert_eq!(resolver.stats().waiting_for_room, 0);
    assert!(resolver.pool_status(gamma).is_none());
    // The pool that was in use all the while was never touched.
    backend(&mut a).await;

    // If no connection is given back, the wait ends with an error that names the figures.
    let _b = resolver.checkout(beta).await.unwrap();
    let error = resolver.checkout_within(gamma, SHORT).await.unwrap_err();
    assert!(
        matches!(error, ResolveError::PoolsBusy { pools_max: 2, waited, .. } if waited >= SHORT),
        "{error}"
    );
    assert_eq!(resolver.stats().pools_open, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_tenants_cap_holds_and_the_wait_for_it_is_bounded_in_time_and_length() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let config = harness.config();
    let resolver = harness.resolver(config.clone()).await;
    let (_one, _two) = (
        resolver.checkout(alpha).await.unwrap(),
        resolver.checkout(alpha).await.unwrap(),
    );
    let error = resolver.checkout_within(alpha, SHORT).await.unwrap_err();
    assert!(
        matches!(error, ResolveError::PoolTimeout { max: 2, waited, .. } if waited >= SHORT),
        "{error}"
    );
    let status = resolver.pool_status(alpha).unwrap();
    assert_eq!(
        (status.in_use, status.idle, status.waiting, status.max),
        (2, 0, 0, 2)
    );

    let resolver = harness
        .resolver(ResolverConfig {
            waiting_max: 1,
            ..config
        })
        .await;
    let (one, _two) = (
        resolver.checkout(alpha).await.unwrap(),
        resolver.checkout(alpha).await.unwrap(),
    );
    let waiting = tokio::spawn({
        let resolver = resolver.clone();
        async move { resolver.checkout(alpha).await.map(drop) }
    });
    eventually("one to wait", PATIENCE, async || {
        resolver.pool_status(alpha).unwrap().waiting == 1
    })
    .await;
    let error = resolver.checkout(alpha).await.unwrap_err();
    assert!(
        matches!(
            error,
            ResolveError::QueueFull {
                waiting: 1,
                max: 1,
                ..
            }
        ),
        "{error}"
    );
    drop(one);
    waiting.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn many_tenants_through_few_pools_never_pass_either_bound() {
    let harness = Harness::new().await;
    let config = ResolverConfig {
        pools_max: 2,
        pool_size_max: 2,
        ..harness.config()
    };
    let resolver = harness.resolver(config).await;
    let mut tenants = Vec::new();
    for slug in ["alpha", "beta", "gamma", "delta", "epsilon"] {
        tenants.push((harness.tenant(slug).await, slug));
    }
    let mut callers = tokio::task::JoinSet::new();
    for i in 0..30 {
        let (resolver, (tenant, slug)) = (resolver.clone(), tenants[i % tenants.len()]);
        callers.spawn(async move {
            let mut client = resolver.checkout(tenant).await.unwrap();
            assert!(resolver.stats().pools_open <= 2);
            assert_eq!(crate::harness::note(&mut client).await, slug);
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let stats = resolver.stats();
    assert!(stats.pools_open <= 2, "{stats:?}");
    assert_eq!(stats.waiting_for_room, 0);
    eventually("the closed pools' connections to end", PATIENCE, async || {
        resolver.stats().connections <= 4
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn idle_connections_end_by_themselves_and_old_ones_are_replaced() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let idle = ResolverConfig {
        idle_timeout: SHORT,
        ..harness.config()
    };
    let resolver = harness.resolver(idle).await;
    drop(resolver.checkout(alpha).await.unwrap());
    eventually("the idle connection to end", PATIENCE, async || {
        resolver.stats().connections == 0
    })
    .await;
    assert_eq!(resolver.pool_status(alpha).unwrap().size, 0);

    let aged = ResolverConfig {
        lifetime_max: Duration::ZERO,
        ..harness.config()
    };
    let resolver = harness.resolver(aged).await;
    let first = backend(&mut resolver.checkout(alpha).await.unwrap()).await;
    assert_ne!(backend(&mut resolver.checkout(alpha).await.unwrap()).await, first);
}
