//! Tests the budget. The server itself decides: it has room for exactly as many connections as the budget
//! says.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use resolver::{ResolveError, ResolverConfig};
use testkit::eventually;
use tokio::task::JoinSet;

use crate::{
    harness::{Harness, PATIENCE, backend, note},
    proxy::Proxy,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn many_busy_tenants_share_few_connections_and_none_starves() {
    let harness = Harness::new().await;
    let mut tenants = Vec::new();
    for number in 0..6 {
        tenants.push((
            harness.tenant(&format!("lab-{number}")).await,
            format!("lab-{number}"),
        ));
    }
    let config = ResolverConfig {
        budget: 2,
        tenure: Duration::from_millis(5),
        ..harness.config()
    };
    let resolver = harness.resolver(config).await;
    let done = Arc::new(AtomicBool::new(false));
    let watched = {
        let (resolver, done) = (resolver.clone(), Arc::clone(&done));
        thread::spawn(move || {
            let mut most = 0;
            while !done.load(SeqCst) {
                most = most.max(resolver.stats().connections);
            }
            most
        })
    };
    let mut callers = JoinSet::new();
    // Closed loop: each tenant asks again as soon as it is served, until every other one has been served as
    // often.
    let tenants = Arc::new(tenants);
    for index in 0..tenants.len() * 2 {
        let (resolver, tenants) = (resolver.clone(), Arc::clone(&tenants));
        callers.spawn(async move {
            let (tenant, slug) = &tenants[index % tenants.len()];
            for _ in 0..40 {
                let mut client = resolver.checkout(*tenant).await.unwrap();
                assert_eq!(note(&mut client).await, *slug);
                assert!(resolver.stats().servers[0].slots_taken <= 2);
            }
        });
    }
    while let Some(served) = callers.join_next().await {
        served.unwrap();
    }
    done.store(true, SeqCst);
    assert_eq!(
        watched.join().unwrap(),
        2,
        "the most connections that the figures showed"
    );
    let stats = resolver.stats();
    assert!(
        stats.servers[0].yields_total + stats.servers[0].taken_idle_total > 0,
        "{stats:?}"
    );
    assert_eq!(stats.servers[0].connects_refused_total, 0);
    resolver.close(PATIENCE).await.unwrap();
    assert_eq!(resolver.stats().servers[0].slots_taken, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn with_the_budget_on_loan_a_tenant_waits_and_hears_the_figures() {
    let harness = Harness::new().await;
    let (alpha, beta) = (harness.tenant("alpha").await, harness.tenant("beta").await);
    let config = ResolverConfig {
        budget: 1,
        ..harness.config()
    };
    let resolver = harness.resolver(config).await;
    let held = resolver.checkout(alpha).await.unwrap();
    // So that the time limit covers nothing but the wait.
    resolver.snapshot(beta).await.unwrap();
    let error = resolver
        .checkout_within(beta, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ResolveError::BudgetBusy { budget: 1, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("raise `budget`"), "{error}");

    let waiting = tokio::spawn({
        let resolver = resolver.clone();
        async move { note(&mut resolver.checkout(beta).await.unwrap()).await }
    });
    eventually("beta to wait", PATIENCE, async || {
        resolver.stats().servers[0].tenants_waiting == 1
    })
    .await;
    drop(held);
    assert_eq!(waiting.await.unwrap(), "beta");
    // While no caller waits, nothing is closed, however long the tenure is over.
    let first = backend(&mut resolver.checkout(beta).await.unwrap()).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert_eq!(backend(&mut resolver.checkout(beta).await.unwrap()).await, first);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_budget_that_does_not_fit_the_server_is_refused_with_the_figures() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let config = ResolverConfig {
        budget: 100_000,
        ..harness.config()
    };
    let resolver = harness.resolver(config).await;
    let error = resolver.checkout(alpha).await.unwrap_err();
    let ResolveError::BudgetTooLarge { source, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((source.budget, source.reserve), (100_000, 16));
    assert!(error.to_string().contains("max_connections"), "{error}");
    eventually("the connection that asked to be gone", PATIENCE, async || {
        harness.backends(alpha).await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn callers_that_give_up_lose_no_slot() {
    let harness = Harness::new().await;
    let mut tenants = Vec::new();
    for slug in ["alpha", "beta", "gamma"] {
        tenants.push(harness.tenant(slug).await);
    }
    let config = ResolverConfig {
        budget: 2,
        ..harness.config()
    };
    let resolver = harness.resolver(config).await;
    let mut callers = JoinSet::new();
    for index in 0..120_u64 {
        let (resolver, tenant) = (
            resolver.clone(),
            tenants[usize::try_from(index).unwrap() % tenants.len()],
        );
        callers.spawn(async move {
            // From before the first step to after the last, whatever the machine's speed.
            let limit = Duration::from_micros(index * index * 3);
            let borrowing = async {
                let mut client = resolver.checkout(tenant).await.unwrap();
                backend(&mut client).await;
            };
            let _cut = tokio::time::timeout(limit, borrowing).await;
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    // Both slots are still there: two tenants can be served at once.
    let (a, b) = (
        resolver.checkout(tenants[0]).await.unwrap(),
        resolver.checkout(tenants[1]).await.unwrap(),
    );
    assert_eq!(resolver.stats().servers[0].slots_taken, 2);
    drop((a, b));
    resolver.close(PATIENCE).await.unwrap();
    assert_eq!(resolver.stats().servers[0].slots_taken, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_connections_of_an_earlier_process_count_until_they_are_gone() {
    let harness = Harness::new().await;
    let (alpha, beta) = (harness.tenant("alpha").await, harness.tenant("beta").await);
    let config = ResolverConfig {
        budget: 2,
        instance: Some("the-same".to_owned()),
        ..harness.config()
    };
    let earlier = harness.resolver(config.clone()).await;
    let held = earlier.checkout(alpha).await.unwrap();
    let resolver = harness.resolver(config).await;
    let waiting = tokio::spawn({
        let resolver = resolver.clone();
        async move { note(&mut resolver.checkout(beta).await.unwrap()).await }
    });
    eventually(
        "the earlier one's connection to be counted",
        PATIENCE,
        async || {
            let stats = resolver.stats();
            stats
                .servers
                .first()
                .is_some_and(|server| server.predecessors == 1)
        },
    )
    .await;
    // One slot counts for the predecessor; the connection that counts it holds the other.
    assert!(!waiting.is_finished());
    drop(held);
    earlier.close(PATIENCE).await.unwrap();
    assert_eq!(waiting.await.unwrap(), "beta");
    assert_eq!(resolver.stats().servers[0].predecessors, 0);
}

/// A runtime of callers, as one of actix-web's workers is: it runs as long as it has something to do.
fn elsewhere<T: Send + 'static, W: Future<Output = T>>(
    work: impl FnOnce() -> W + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(work())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_driven_by_its_callers_ends_with_their_runtime_and_its_slot_comes_back() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let config = ResolverConfig {
        budget: 1,
        drive_on_callers: true,
        ..harness.config()
    };
    let resolver = harness.resolver(config).await;
    let first = {
        let resolver = resolver.clone();
        elsewhere(move || async move { backend(&mut resolver.checkout(alpha).await.unwrap()).await })
    };
    let first = tokio::task::spawn_blocking(|| first.join().unwrap())
        .await
        .unwrap();
    eventually("the slot to come back", PATIENCE, async || {
        resolver.stats().servers[0].slots_taken == 0
    })
    .await;
    assert_eq!(
        harness.backends(alpha).await,
        0,
        "the slot is free only when the backend is gone"
    );
    let second = backend(&mut resolver.checkout(alpha).await.unwrap()).await;
    assert_ne!(second, first);
    assert_eq!(
        backend(&mut resolver.checkout(alpha).await.unwrap()).await,
        second
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_log_in_whose_runtime_ends_keeps_its_slot_until_the_server_closes() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let proxy = Arc::new(Proxy::before(&harness.space.server).await);
    harness.register_server(&proxy.host(), proxy.port()).await;
    let config = ResolverConfig {
        budget: 1,
        drive_on_callers: true,
        ..harness.config()
    };
    let resolver = harness.resolver(config).await;
    proxy.mute();
    let gone = {
        let (resolver, proxy) = (resolver.clone(), Arc::clone(&proxy));
        elsewhere(move || async move {
            let asked = resolver.checkout(alpha);
            let begun = eventually("the log-in to begin", PATIENCE, async || proxy.unheard() == 1);
            tokio::select! {
                _ = asked => panic!("nobody answers"),
                () = begun => {}
            }
        })
    };
    tokio::task::spawn_blocking(|| gone.join().unwrap())
        .await
        .unwrap();
    eventually("the connect to be given up", PATIENCE, async || {
        resolver.stats().servers[0].connecting == 0
    })
    .await;
    assert_eq!(
        resolver.stats().servers[0].slots_taken,
        1,
        "the server has not closed its end"
    );
    proxy.shut();
    eventually("the slot to come back", PATIENCE, async || {
        resolver.stats().servers[0].slots_taken == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_waits_is_served_though_the_runtime_of_whoever_came_later_has_ended() {
    let harness = Harness::new().await;
    let (alpha, beta) = (harness.tenant("alpha").await, harness.tenant("beta").await);
    let config = ResolverConfig {
        budget: 1,
        drive_on_callers: true,
        ..harness.config()
    };
    let resolver = harness.resolver(config).await;
    let held = resolver.checkout(alpha).await.unwrap();
    let waiting = tokio::spawn({
        let resolver = resolver.clone();
        async move { note(&mut resolver.checkout(beta).await.unwrap()).await }
    });
    eventually("beta to wait", PATIENCE, async || {
        resolver
            .pool_status(beta)
            .is_some_and(|status| status.waiting == 1)
    })
    .await;
    let gave_up = {
        let resolver = resolver.clone();
        elsewhere(move || async move {
            resolver
                .checkout_within(beta, Duration::from_millis(20))
                .await
                .map(drop)
        })
    };
    let gave_up = tokio::task::spawn_blocking(|| gave_up.join().unwrap())
        .await
        .unwrap();
    assert!(
        matches!(gave_up, Err(ResolveError::BudgetBusy { .. })),
        "{gave_up:?}"
    );
    drop(held);
    assert_eq!(waiting.await.unwrap(), "beta");
}
