//! An unavailable registry, or an unavailable server.

use std::time::Duration;

use model::{TenantEvent, TenantId};
use registry::{Registry, RegistryOptions};
use resolver::{ResolveError, ResolverConfig};
use testkit::eventually;
use tokio::time::Instant;

use crate::{
    harness::{Harness, PATIENCE, note},
    proxy::Proxy,
};

fn through(harness: &Harness, proxy: &Proxy) -> ResolverConfig {
    ResolverConfig {
        registry: Registry::new(
            &proxy.through(&harness.space.registry),
            RegistryOptions::default(),
        ),
        // Every snapshot is outdated at once, so the resolver serves cached snapshots in the outage.
        snapshot_ttl: Duration::from_millis(1),
        ..harness.config()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn known_tenants_are_served_while_the_registry_is_away_and_unknown_ones_are_refused() {
    let harness = Harness::new().await;
    let (alpha, beta) = (harness.tenant("alpha").await, harness.tenant("beta").await);
    let proxy = Proxy::before(&harness.space.registry).await;
    let resolver = harness.resolver(through(&harness, &proxy)).await;
    drop(resolver.checkout(alpha).await.unwrap());

    proxy.shut();
    let error = resolver.checkout(beta).await.unwrap_err();
    assert!(
        matches!(error, ResolveError::RegistryUnavailable { .. }),
        "{error}"
    );
    assert!(!resolver.stats().registry_available);
    for _ in 0..3 {
        assert_eq!(note(&mut resolver.checkout(alpha).await.unwrap()).await, "alpha");
    }
    assert!(resolver.stats().snapshot_remembered_total >= 3);

    // A change made meanwhile takes effect as soon as the registry is available again.
    harness.transition(alpha, TenantEvent::Suspend).await;
    proxy.open();
    eventually("the registry to be back", PATIENCE, async || {
        resolver.stats().registry_available
    })
    .await;
    eventually("the change to be seen", PATIENCE, async || {
        matches!(
            resolver.checkout(alpha).await,
            Err(ResolveError::NotServing { .. })
        )
    })
    .await;
    assert_eq!(note(&mut resolver.checkout(beta).await.unwrap()).await, "beta");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_change_that_was_heard_of_is_not_forgotten_in_an_outage() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let proxy = Proxy::before(&harness.space.registry).await;
    let resolver = harness.resolver(through(&harness, &proxy)).await;
    drop(resolver.checkout(alpha).await.unwrap());
    let heard = resolver.stats().invalidations_total;
    harness.transition(alpha, TenantEvent::Suspend).await;
    eventually("the change to be heard of", PATIENCE, async || {
        resolver.stats().invalidations_total > heard
    })
    .await;
    proxy.shut();
    // Refused either way: by the gate if the tenant was read again before the proxy was closed, otherwise
    // because no snapshot is cached.
    let error = resolver.checkout(alpha).await.unwrap_err();
    assert!(
        matches!(
            error,
            ResolveError::NotServing { .. } | ResolveError::RegistryUnavailable { .. }
        ),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_registry_that_says_nothing_holds_one_caller_up_and_not_the_rest() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let proxy = Proxy::before(&harness.space.registry).await;
    let config = ResolverConfig {
        registry_timeout: Duration::from_millis(200),
        ..through(&harness, &proxy)
    };
    let resolver = harness.resolver(config).await;
    // The limit is short enough for a busy machine to pass it once.
    eventually("alpha to be known", PATIENCE, async || {
        resolver.checkout(alpha).await.is_ok()
    })
    .await;
    proxy.mute();
    // The first caller finds out; from then on only the background task asks.
    eventually("the outage to be noticed", PATIENCE, async || {
        drop(resolver.checkout(alpha).await.unwrap());
        !resolver.stats().registry_available
    })
    .await;
    let loads = resolver.stats().snapshot_loads_total;
    for _ in 0..50 {
        drop(resolver.checkout(alpha).await.unwrap());
        resolver.snapshot(TenantId::generate()).await.unwrap_err();
    }
    assert_eq!(resolver.stats().snapshot_loads_total, loads);
    proxy.open();
    eventually("the registry to be back", PATIENCE, async || {
        resolver.stats().registry_available
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_tenants_server_that_refuses_or_says_nothing_fails_in_time_and_harms_no_other() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let proxy = Proxy::before(&harness.space.server).await;
    harness.register_server(&proxy.host(), proxy.port()).await;
    let limit = Duration::from_millis(300);
    let config = ResolverConfig {
        connect_timeout: limit,
        ..harness.config()
    };
    let resolver = harness.resolver(config).await;

    proxy.shut();
    let error = resolver.checkout(alpha).await.unwrap_err();
    assert!(matches!(error, ResolveError::ServerDown { .. }), "{error}");
    // Three failures in a row open the breaker; a probe may have failed since.
    assert!(resolver.stats().connect_errors_total >= 3);
    let error = resolver.checkout(alpha).await.unwrap_err();
    assert!(matches!(error, ResolveError::ServerDown { .. }), "{error}");
    assert!(resolver.stats().servers[0].fail_fast_total > 0);

    proxy.mute();
    proxy.open();
    proxy.mute();
    let silent = harness
        .resolver(ResolverConfig {
            connect_timeout: limit,
            // Unanswered connects keep their slots until the server closes them; the tenant's bound does not
            // delay the next ones.
            pool_size_max: 1,
            ..harness.config()
        })
        .await;
    let asked = Instant::now();
    let error = silent.checkout(alpha).await.unwrap_err();
    assert!(matches!(error, ResolveError::ServerDown { .. }), "{error}");
    assert!(error.to_string().contains("300 ms"), "{error}");
    assert!(
        asked.elapsed() < PATIENCE,
        "the limit over the connect is what ended it"
    );

    // The registry was available all along, and the resolver uses the server as soon as it is back.
    proxy.open();
    let roomy = ResolverConfig {
        connect_timeout: PATIENCE,
        ..harness.config()
    };
    let resolver = harness.resolver(roomy).await;
    assert_eq!(note(&mut resolver.checkout(alpha).await.unwrap()).await, "alpha");

    // Connections that the server ended while they were idle are not handed out.
    proxy.shut();
    proxy.open();
    eventually("a connection that works", PATIENCE, async || {
        let Ok(mut client) = resolver.checkout(alpha).await else {
            return false;
        };
        client.ping().await.is_ok()
    })
    .await;
    assert!(proxy.accepted() >= 4);
}
