//! How operations learn that a process has released a laboratory, and what happens with a process that cannot
//! be reached.

use std::time::Duration;

use model::{TenantEvent, TenantId};
use registry::{Registry, RegistryOptions, Router, TenantFence};
use resolver::{ResolveError, Resolver, ResolverConfig};
use testkit::eventually;
use tokio::time::Instant;

use crate::{
    harness::{Harness, PATIENCE, note},
    proxy::Proxy,
};

impl Harness {
    /// A process of its own, as far as the registry can tell: with its own connections.
    fn another(&self) -> ResolverConfig {
        ResolverConfig {
            registry: Registry::new(&self.space.registry, RegistryOptions::default()),
            ..self.config()
        }
    }

    async fn routers(&self) -> Vec<Router> {
        let client = self.registry.client().await.unwrap();
        registry::routers_list(&client).await.unwrap()
    }

    async fn registered(&self, count: usize) {
        eventually("the routers to be registered", PATIENCE, async || {
            self.routers().await.iter().filter(|router| router.alive).count() == count
        })
        .await;
    }

    /// The laboratory as an operation waits for it.
    async fn fence(&self, tenant: TenantId) -> TenantFence {
        TenantFence {
            tenant,
            generation: self.row(tenant).await.generation,
        }
    }

    async fn outstanding(&self, fence: TenantFence) -> usize {
        let client = self.registry.client().await.unwrap();
        registry::routers_outstanding(&client, fence).await.unwrap().len()
    }

    async fn all_let_go(&self, fence: TenantFence) {
        eventually("every router to let go", PATIENCE, async || {
            self.outstanding(fence).await == 0
        })
        .await;
    }

    async fn suspended(&self, tenant: TenantId) -> TenantFence {
        self.transition(tenant, TenantEvent::Suspend).await;
        self.fence(tenant).await
    }
}

async fn refused(resolver: &Resolver, tenant: TenantId) {
    let error = resolver.checkout(tenant).await.unwrap_err();
    assert!(matches!(error, ResolveError::NotServing { .. }), "{error}");
}

#[tokio::test]
async fn once_every_process_has_let_go_none_of_them_serves_or_holds_anything() {
    let harness = Harness::new().await;
    let (alpha, beta) = (harness.tenant("alpha").await, harness.tenant("beta").await);
    let (one, two) = (
        harness.resolver(harness.another()).await,
        harness.resolver(harness.another()).await,
    );
    // A third process never connects to it.
    let idle = harness.resolver(harness.another()).await;
    harness.registered(3).await;
    for resolver in [&one, &two] {
        assert_eq!(note(&mut resolver.checkout(alpha).await.unwrap()).await, "alpha");
        assert_eq!(note(&mut resolver.checkout(beta).await.unwrap()).await, "beta");
    }
    let fence = harness.suspended(alpha).await;
    harness.all_let_go(fence).await;
    // The acknowledgement comes only once it is true, so this does not wait.
    assert_eq!(harness.backends(alpha).await, 0);
    for resolver in [&one, &two, &idle] {
        refused(resolver, alpha).await;
    }
    assert_eq!(harness.backends(beta).await, 2, "nobody else is disturbed");

    // Once it is resumed it is served again, and each suspension is acknowledged anew.
    harness.transition(alpha, TenantEvent::Resume).await;
    eventually("alpha to be served again", PATIENCE, async || {
        one.checkout(alpha).await.is_ok()
    })
    .await;
    let fence = harness.suspended(alpha).await;
    harness.all_let_go(fence).await;
    assert_eq!(harness.backends(alpha).await, 0);
}

#[tokio::test]
async fn what_is_on_loan_is_not_acknowledged_and_holds_nothing_else_up() {
    let harness = Harness::new().await;
    let (alpha, beta) = (harness.tenant("alpha").await, harness.tenant("beta").await);
    let resolver = harness.resolver(harness.another()).await;
    harness.registered(1).await;
    let mut borrowed = resolver.checkout(alpha).await.unwrap();
    drop(resolver.checkout(beta).await.unwrap());
    let fence = harness.suspended(alpha).await;
    refused_soon(&resolver, alpha).await;
    // Beta's suspension comes later and finishes first, several times over.
    for _ in 0..3 {
        let beta_fence = harness.suspended(beta).await;
        harness.all_let_go(beta_fence).await;
        harness.transition(beta, TenantEvent::Resume).await;
    }
    assert_eq!(harness.outstanding(fence).await, 1);
    assert_eq!(
        note(&mut borrowed).await,
        "alpha",
        "nothing is taken from a borrower"
    );
    drop(borrowed);
    harness.all_let_go(fence).await;
    assert_eq!(harness.backends(alpha).await, 0);
}

async fn refused_soon(resolver: &Resolver, tenant: TenantId) {
    eventually("the tenant to be refused", PATIENCE, async || {
        matches!(
            resolver.checkout(tenant).await,
            Err(ResolveError::NotServing { .. })
        )
    })
    .await;
}

#[tokio::test]
async fn a_change_that_was_never_announced_is_found_by_looking() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let resolver = harness.resolver(harness.another()).await;
    harness.registered(1).await;
    drop(resolver.checkout(alpha).await.unwrap());
    let client = harness.registry.client().await.unwrap();
    client
        .batch_execute("ALTER TABLE tenants DISABLE TRIGGER tenants_notify")
        .await
        .unwrap();
    drop(client);
    let heard = resolver.stats().invalidations_total;
    let fence = harness.suspended(alpha).await;
    harness.all_let_go(fence).await;
    assert_eq!(harness.backends(alpha).await, 0);
    refused(&resolver, alpha).await;
    assert_eq!(
        resolver.stats().invalidations_total,
        heard + 1,
        "by looking, once"
    );
}

/// The other way to lose a notification: the connection that listens breaks while the change is made.
#[tokio::test]
async fn a_change_that_was_announced_while_nobody_listened_is_found_too() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let resolver = harness.resolver(harness.another()).await;
    harness.registered(1).await;
    drop(resolver.checkout(alpha).await.unwrap());
    let client = harness.registry.client().await.unwrap();
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE application_name = 'tenantry listener' AND datname = current_database()";
    assert_eq!(client.query(kill, &[]).await.unwrap().len(), 1);
    drop(client);
    let fence = harness.suspended(alpha).await;
    harness.all_let_go(fence).await;
    refused(&resolver, alpha).await;
}

// On several threads: while the space is removed at the end, a thread must go on driving the proxy's
// connections. A connection that stands still in the middle of a log-in holds up every DROP DATABASE of the
// server.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_cut_off_is_not_waited_for_and_is_put_out_by_the_server() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let proxy = Proxy::before(&harness.space.registry).await;
    let config = ResolverConfig {
        registry: Registry::new(
            &proxy.through(&harness.space.registry),
            RegistryOptions::default(),
        ),
        router_ttl: Duration::from_secs(2),
        ..harness.config()
    };
    let resolver = harness.resolver(config).await;
    harness.registered(1).await;
    assert_eq!(note(&mut resolver.checkout(alpha).await.unwrap()).await, "alpha");

    proxy.shut();
    let fence = harness.suspended(alpha).await;
    // Its registration expires, so the operation does not wait for ever.
    harness.all_let_go(fence).await;
    assert!(harness.routers().await.iter().all(|router| !router.alive));
    // The process knows nothing of all this, and goes on serving on its warm connection.
    assert_eq!(note(&mut resolver.checkout(alpha).await.unwrap()).await, "alpha");

    // What an operation does on the server in every case.
    let role = harness.row(alpha).await.role_name;
    let admin = harness.admin("postgres").await;
    admin
        .batch_execute(&format!("ALTER ROLE {role} NOLOGIN"))
        .await
        .unwrap();
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
    admin.query(terminate, &[&role.as_str()]).await.unwrap();
    eventually("it to be out", PATIENCE, async || {
        let Ok(mut client) = resolver.checkout(alpha).await else {
            return true;
        };
        client.ping().await.is_err()
    })
    .await;
    let error = resolver.checkout(alpha).await.unwrap_err();
    assert!(
        matches!(
            error,
            ResolveError::LoginRefused { .. } | ResolveError::RegistryUnavailable { .. }
        ),
        "{error}"
    );

    // Once it is connected again, it learns what it missed.
    proxy.open();
    harness.registered(1).await;
    harness.all_let_go(fence).await;
    refused_soon(&resolver, alpha).await;
}

/// The pause after an answer once grew with the time of the answer, without a bound, and renewals waited for
/// it: an answer of 0.8 s silenced a router for 8 s, longer than its registration lasted.
#[tokio::test(flavor = "multi_thread")]
async fn slow_answers_of_the_registry_neither_silence_a_router_nor_end_its_registration() {
    let delay = Duration::from_millis(800);
    let harness = Harness::new().await;
    let (alpha, beta) = (harness.tenant("alpha").await, harness.tenant("beta").await);
    let proxy = Proxy::before(&harness.space.registry).await;
    let config = ResolverConfig {
        registry: Registry::new(
            &proxy.through(&harness.space.registry),
            RegistryOptions::default(),
        ),
        router_ttl: Duration::from_secs(6),
        ..harness.config()
    };
    let resolver = harness.resolver(config).await;
    harness.registered(1).await;
    drop(resolver.checkout(alpha).await.unwrap());
    proxy.slow_down(delay);
    // The first acknowledgement may come after a pause of the time before; the second one follows a slow
    // answer.
    let fence = harness.suspended(beta).await;
    harness.all_let_go(fence).await;
    let fence = harness.suspended(alpha).await;
    let asked = Instant::now();
    let mut acknowledged = None;
    // Longer than the registration lives.
    while asked.elapsed() < Duration::from_secs(9) {
        assert!(
            harness.routers().await.iter().all(|router| router.alive),
            "the registration ran out after {:?}",
            asked.elapsed()
        );
        if acknowledged.is_none() && harness.outstanding(fence).await == 0 {
            acknowledged = Some(asked.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let acknowledged = acknowledged.expect("an acknowledgement");
    assert!(
        acknowledged < delay * 6,
        "acknowledged after {acknowledged:?}, and asking takes {delay:?}"
    );
}

#[tokio::test]
async fn a_registration_that_was_cleared_away_is_made_anew_with_all_that_it_said() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let config = ResolverConfig {
        router_ttl: Duration::from_millis(600),
        ..harness.another()
    };
    let resolver = harness.resolver(config).await;
    harness.registered(1).await;
    let fence = harness.suspended(alpha).await;
    harness.all_let_go(fence).await;
    let client = harness.registry.client().await.unwrap();
    client.batch_execute("DELETE FROM routers").await.unwrap();
    eventually("it to be back with its word", PATIENCE, async || {
        let row = client
            .query_one(
                "SELECT count(*) FROM router_acks JOIN routers ON id = router_id",
                &[],
            )
            .await
            .unwrap();
        row.get::<_, i64>(0) == 1
    })
    .await;
    drop(resolver);
}

#[tokio::test]
async fn a_process_that_ends_in_order_is_not_waited_for() {
    let harness = Harness::new().await;
    let alpha = harness.tenant("alpha").await;
    let resolver = harness.resolver(harness.another()).await;
    harness.registered(1).await;
    let borrowed = resolver.checkout(alpha).await.unwrap();
    assert!(resolver.close(Duration::from_millis(100)).await.is_err());
    assert_eq!(
        harness.routers().await.len(),
        1,
        "while it holds something it says so"
    );
    drop(borrowed);
    resolver.close(PATIENCE).await.unwrap();
    assert_eq!(harness.routers().await, []);
}
