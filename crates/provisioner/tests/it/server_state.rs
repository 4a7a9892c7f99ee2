//! What the doctor says of the servers themselves: whether they take writes, and whether they hold what
//! routers may take.

use std::time::Duration;

use embedded::{Cluster, ThrowawayOptions};
use model::RouterId;
use provisioner::{Finding, FindingKind};
use registry::NewRouter;

use crate::harness::{Harness, connect, register_server};

const TTL: Duration = Duration::from_secs(600);

async fn found(harness: &Harness, kind: FindingKind) -> Vec<Finding> {
    let report = harness.provisioner.examine(false).await.unwrap();
    report
        .findings
        .into_iter()
        .filter(|finding| finding.kind == kind)
        .collect()
}

#[tokio::test]
async fn budgets_that_a_server_cannot_hold_together_are_named_with_what_to_set() {
    let harness = Harness::new().await;
    let client = harness.registry.client().await.unwrap();
    let max = "SELECT current_setting('max_connections')::int";
    let server = connect(&harness.space.server).await;
    let max: i32 = server.query_one(max, &[]).await.unwrap().get(0);
    let half = usize::try_from(max).unwrap() / 2;
    let register = async |name: &str, budget| {
        let router = NewRouter {
            id: RouterId::generate(),
            name,
            instance: None,
            budget,
            reserve: 10,
        };
        registry::router_register(&client, &router, TTL).await.unwrap();
    };
    register("host:1", half - 20).await;
    assert!(found(&harness, FindingKind::ServerOverbooked).await.is_empty());
    register("host:2", half + 10).await;
    let findings = found(&harness, FindingKind::ServerOverbooked).await;
    let [finding] = &findings[..] else {
        panic!("{findings:#?}")
    };
    assert_eq!(finding.server.as_ref().unwrap().as_str(), "main");
    for part in ["2 routers", "router.budget to at most", "max_connections"] {
        assert!(finding.seen.contains(part), "{part}: {}", finding.seen);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_and_a_registry_that_take_no_writes_are_named() {
    let harness = Harness::new().await;
    let second = Cluster::start_throwaway(ThrowawayOptions::default())
        .await
        .unwrap();
    let sealer = &harness.provisioner.config().sealer;
    register_server(&harness.registry, sealer, second.target(), "second").await;
    assert!(found(&harness, FindingKind::ServerReadOnly).await.is_empty());
    assert!(found(&harness, FindingKind::RegistryReadOnly).await.is_empty());

    let admin = connect(second.target()).await;
    admin
        .batch_execute("ALTER SYSTEM SET default_transaction_read_only = on")
        .await
        .unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let server = connect(&harness.space.server).await;
    let database = model::quote_ident(&harness.space.registry.database);
    let close = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    server.batch_execute(&close).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1";
    server
        .query(end, &[&harness.space.registry.database])
        .await
        .unwrap();

    testkit::eventually("the server to have read its configuration", TTL, async || {
        found(&harness, FindingKind::ServerReadOnly).await.len() == 1
    })
    .await;
    let findings = found(&harness, FindingKind::ServerReadOnly).await;
    assert_eq!(findings[0].server.as_ref().unwrap().as_str(), "second");
    assert_eq!(found(&harness, FindingKind::RegistryReadOnly).await.len(), 1);
    second.stop().await.unwrap();
}
