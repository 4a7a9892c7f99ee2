//! Routers: who is waited for, and what each has let go of.

use std::time::Duration;

use model::{RouterId, TenantEvent, TenantId};
use registry::{
    Budgets, NewRouter, RegistryClient, Tenant, TenantFence, fences_unacknowledged, router_acknowledge,
    router_budgets, router_register, router_renew, router_unregister, routers_list, routers_outstanding,
    tenant_by_id,
};

use crate::harness::Harness;

const TTL: Duration = Duration::from_secs(600);

fn new(id: RouterId, name: &str) -> NewRouter<'_> {
    NewRouter {
        id,
        name,
        instance: None,
        budget: 64,
        reserve: 16,
    }
}

async fn router(client: &RegistryClient, name: &str) -> RouterId {
    let id = RouterId::generate();
    router_register(client, &new(id, name), TTL).await.unwrap();
    id
}

async fn outstanding(client: &RegistryClient, fence: TenantFence) -> Vec<String> {
    let routers = routers_outstanding(client, fence).await.unwrap();
    routers.into_iter().map(|router| router.name).collect()
}

async fn acknowledge(client: &RegistryClient, router: RouterId, fence: TenantFence) {
    assert!(router_acknowledge(client, router, &[fence]).await.unwrap());
}

fn fence(tenant: &Tenant) -> TenantFence {
    TenantFence {
        tenant: tenant.id,
        generation: tenant.generation,
    }
}

impl Harness {
    async fn after(&self, id: TenantId, event: TenantEvent) -> Tenant {
        let move_on = async |txn: &deadpool_postgres::Transaction<'_>| {
            registry::tenant_transition_in_txn(txn, id, event, &self.change()).await
        };
        self.registry.in_txn(move_on).await.unwrap()
    }

    async fn closed(&self, slug: &str) -> Tenant {
        let id = self.tenant(slug).await.id;
        self.after(id, TenantEvent::Provisioned).await;
        self.after(id, TenantEvent::Suspend).await
    }

    /// Lets time pass for a registration, without waiting for it.
    async fn age(&self, router: RouterId, seconds: f64) {
        let statement =
            "UPDATE routers SET expires_at = clock_timestamp() - make_interval(secs => $2) WHERE id = $1";
        let client = self.client().await;
        assert_eq!(
            client
                .execute(statement, &[&router.as_uuid(), &seconds])
                .await
                .unwrap(),
            1
        );
    }
}

#[tokio::test]
async fn every_router_that_is_alive_is_waited_for_until_it_has_let_go() {
    let harness = Harness::new().await;
    let client = harness.client().await;
    let (one, two) = (router(&client, "host:1").await, router(&client, "host:2").await);
    let closed = fence(&harness.closed("acme").await);
    assert_eq!(outstanding(&client, closed).await, ["host:1", "host:2"]);
    acknowledge(&client, one, closed).await;
    assert_eq!(outstanding(&client, closed).await, ["host:2"]);
    // Another laboratory is another matter.
    let other = fence(&harness.closed("other").await);
    assert_eq!(outstanding(&client, other).await, ["host:1", "host:2"]);
    router_unregister(&client, two).await.unwrap();
    assert_eq!(outstanding(&client, closed).await, Vec::<String>::new());
    assert_eq!(routers_list(&client).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_acknowledgement_counts_for_its_generation_and_earlier_ones_and_never_goes_back() {
    let harness = Harness::new().await;
    let client = harness.client().await;
    let one = router(&client, "host:1").await;
    let early = harness.closed("acme").await;
    acknowledge(&client, one, fence(&early)).await;
    harness.after(early.id, TenantEvent::Resume).await;
    let late = harness.after(early.id, TenantEvent::Suspend).await;
    assert!(late.generation > early.generation);
    assert_eq!(outstanding(&client, fence(&late)).await, ["host:1"]);
    acknowledge(&client, one, fence(&late)).await;
    // As from a task that was held up.
    acknowledge(&client, one, fence(&early)).await;
    assert_eq!(outstanding(&client, fence(&late)).await, Vec::<String>::new());
    assert_eq!(outstanding(&client, fence(&early)).await, Vec::<String>::new());
    // Several at once, and one of them twice.
    let both = [fence(&early), fence(&late), fence(&harness.closed("other").await)];
    assert!(router_acknowledge(&client, one, &both).await.unwrap());
    assert!(router_acknowledge(&client, one, &[]).await.unwrap());
    assert_eq!(fences_unacknowledged(&client, one).await.unwrap(), []);
}

#[tokio::test]
async fn a_router_finds_out_from_the_rows_what_it_has_not_let_go_of() {
    let harness = Harness::new().await;
    let client = harness.client().await;
    let one = router(&client, "host:1").await;
    harness.tenant("being-made").await;
    let serving = harness.tenant("serving").await.id;
    harness.after(serving, TenantEvent::Provisioned).await;
    assert_eq!(fences_unacknowledged(&client, one).await.unwrap(), []);

    let suspended = fence(&harness.after(serving, TenantEvent::Suspend).await);
    let leaving = harness.closed("leaving").await.id;
    let leaving = fence(&harness.after(leaving, TenantEvent::Offboard).await);
    assert_eq!(
        fences_unacknowledged(&client, one).await.unwrap(),
        [suspended, leaving]
    );
    acknowledge(&client, one, suspended).await;
    assert_eq!(fences_unacknowledged(&client, one).await.unwrap(), [leaving]);

    // A change of the row that leaves it closed is a new generation: nobody knows whether it was opened in
    // between.
    let statement = "UPDATE tenants SET name = 'Another' WHERE id = $1";
    client.execute(statement, &[&serving.as_uuid()]).await.unwrap();
    let raised = fence(&tenant_by_id(&client, serving).await.unwrap().unwrap());
    assert_eq!(
        fences_unacknowledged(&client, one).await.unwrap(),
        [leaving, raised]
    );
    // What was waited for before is still known.
    assert_eq!(outstanding(&client, suspended).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_router_whose_registration_ran_out_is_not_waited_for_until_it_renews_it() {
    let harness = Harness::new().await;
    let client = harness.client().await;
    let one = router(&client, "host:1").await;
    let (known, unknown) = (
        fence(&harness.closed("known").await),
        fence(&harness.closed("unknown").await),
    );
    acknowledge(&client, one, known).await;
    harness.age(one, 1.0).await;
    assert_eq!(outstanding(&client, unknown).await, Vec::<String>::new());
    assert!(!routers_list(&client).await.unwrap()[0].alive, "it is still seen");

    assert!(router_renew(&client, one, TTL).await.unwrap());
    assert!(routers_list(&client).await.unwrap()[0].alive);
    assert_eq!(
        outstanding(&client, known).await,
        Vec::<String>::new(),
        "that stays true"
    );
    assert_eq!(outstanding(&client, unknown).await, ["host:1"]);

    // Registering again is no second router.
    router_register(&client, &new(one, "host:1"), TTL).await.unwrap();
    assert_eq!(routers_list(&client).await.unwrap().len(), 1);
}

#[tokio::test]
async fn routers_that_died_are_cleared_away_by_those_that_live() {
    let harness = Harness::new().await;
    let client = harness.client().await;
    let closed = fence(&harness.closed("acme").await);
    let alive = router(&client, "alive").await;
    for by_renewal in [true, false] {
        let dead = router(&client, "dead").await;
        acknowledge(&client, dead, closed).await;
        harness.age(dead, 3600.0).await;
        if by_renewal {
            assert!(router_renew(&client, alive, TTL).await.unwrap());
        } else {
            router_register(&client, &new(alive, "alive"), TTL).await.unwrap();
        }
        let left = routers_list(&client).await.unwrap();
        assert_eq!(left.iter().map(|r| r.id).collect::<Vec<_>>(), [alive]);
        // It was only slow: it is told to register anew.
        assert!(!router_renew(&client, dead, TTL).await.unwrap());
        assert!(!router_acknowledge(&client, dead, &[closed]).await.unwrap());
    }
    let count = client
        .query_one("SELECT count(*) FROM router_acks", &[])
        .await
        .unwrap();
    assert_eq!(count.get::<_, i64>(0), 0, "they go with their router");
}

#[tokio::test]
async fn acknowledgements_that_nobody_asks_for_are_cleared_away() {
    let harness = Harness::new().await;
    let client = harness.client().await;
    let one = router(&client, "host:1").await;
    let (opened, gone, stays) = (
        harness.closed("opened").await,
        harness.closed("gone").await,
        harness.closed("stays").await,
    );
    let all = [fence(&opened), fence(&gone), fence(&stays)];
    assert!(router_acknowledge(&client, one, &all).await.unwrap());
    harness.after(opened.id, TenantEvent::Resume).await;
    let delete = "DELETE FROM tenants WHERE id = $1";
    client.execute(delete, &[&gone.id.as_uuid()]).await.unwrap();
    assert!(router_renew(&client, one, TTL).await.unwrap());
    let left = client
        .query("SELECT tenant_id FROM router_acks", &[])
        .await
        .unwrap();
    let left: Vec<TenantId> = left
        .iter()
        .map(|row| row.get::<_, uuid::Uuid>(0).into())
        .collect();
    assert_eq!(left, [stays.id]);
}

#[tokio::test]
async fn the_budgets_of_routers_that_are_alive_are_added_up_and_an_instance_counts_once() {
    let harness = Harness::new().await;
    let client = harness.client().await;
    assert_eq!(router_budgets(&client, None).await.unwrap(), Budgets::default());
    let register = async |name: &str, instance, budget, reserve, ttl| {
        let router = NewRouter {
            instance,
            budget,
            reserve,
            ..new(RouterId::generate(), name)
        };
        router_register(&client, &router, ttl).await.unwrap();
    };
    register("one", None, 64, 16, TTL).await;
    register("two", Some("host-8080"), 50, 20, TTL).await;
    // Started again after `kill -9`: its predecessor's registration has not run out yet.
    register("two again", Some("host-8080"), 30, 0, TTL).await;
    register("dead", None, 1_000, 900, Duration::ZERO).await;
    let older = "INSERT INTO routers (id, name, registered_at, renewed_at, expires_at)
                 VALUES (gen_random_uuid(), 'older', now(), now(), now() + interval '1 hour')";
    client.batch_execute(older).await.unwrap();
    let expected = Budgets {
        routers: 3,
        connections: 94,
        reserve: 16,
        unknown: 1,
    };
    assert_eq!(router_budgets(&client, None).await.unwrap(), expected);
    let others = router_budgets(&client, Some("host-8080")).await.unwrap();
    assert_eq!((others.routers, others.connections), (2, 64));
}
