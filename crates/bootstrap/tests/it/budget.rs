//! The budget against what the servers can hold.

use std::net::TcpListener;

use bootstrap::{Platform, PlatformError};
use embedded::{Cluster, ThrowawayOptions};
use identity::SealContext;
use model::ServerName;
use registry::NewServer;
use secrecy::ExposeSecret as _;
use settings::Settings;
use testkit::Space;

const MAX_CONNECTIONS: usize = 40;
/// The server's own default.
const RESERVED: usize = 3;

async fn prepared(space: &Space) -> Platform {
    let env = space.environment().into_iter();
    let env = env.map(|(name, value)| (name.to_owned(), value));
    let platform = Platform::open(&Settings::load(None, env).unwrap()).await.unwrap();
    platform.prepare(|_| {}).await.unwrap();
    platform
}

async fn register(platform: &Platform, name: &str, target: &pg::ConnectTarget) {
    let name = ServerName::parse(name).unwrap();
    let sealed = platform
        .sealer
        .seal(&SealContext::Server(name.clone()), &target.password);
    let new = NewServer {
        name,
        host: target.host.clone(),
        port: target.port,
        admin_user: target.user.clone(),
        admin_secret: sealed,
    };
    let client = platform.registry.client().await.unwrap();
    registry::server_upsert(&client, &new).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_a_server_cannot_hold_is_refused_with_its_figures_and_one_that_it_can_is_not() {
    let space = Space::new().await;
    let platform = prepared(&space).await;
    let small = Cluster::start_throwaway(ThrowawayOptions {
        parameters: vec![("max_connections".to_owned(), MAX_CONNECTIONS.to_string())],
        ..ThrowawayOptions::default()
    })
    .await
    .unwrap();
    let fits = MAX_CONNECTIONS - RESERVED - 16;
    // The tests' own server holds that and more; the small one is asked as soon as the registry knows it.
    platform.check_budget(fits + 1, 16).await.unwrap();
    register(&platform, "small", small.target()).await;
    let servers = platform.check_budget(fits, 16).await.unwrap();
    assert_eq!(servers.len(), 2);
    let error = platform.check_budget(fits + 1, 16).await.unwrap_err();
    assert!(matches!(error, PlatformError::BudgetTooLarge { .. }), "{error}");
    assert!(!error.is_unreachable());
    let message = error.to_string();
    for part in [
        "server small",
        &format!("router.budget = {}", fits + 1),
        "router.reserve = 16",
        "max_connections is 40",
        "keeps 3 ",
        &format!("leaves {fits} "),
        "TENANTRY_ROUTER_BUDGET",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let password = small.target().password.expose_secret().to_owned();
    assert!(!message.contains(&password), "{message}");
    small.stop().await.unwrap();
    platform.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_keeps_nobody_from_starting() {
    let space = Space::new().await;
    let platform = prepared(&space).await;
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = pg::ConnectTarget {
        port: nobody.port(),
        ..space.server.clone()
    };
    register(&platform, "away", &silent).await;
    platform.check_budget(1, 1).await.unwrap();
    // The others are compared all the same.
    let error = platform.check_budget(100_000, 1).await.unwrap_err();
    assert!(error.to_string().contains("server main"), "{error}");
    platform.close().await.unwrap();
}

/// Each of two routers fits the server and both together do not.
#[tokio::test(flavor = "multi_thread")]
async fn the_budgets_of_all_running_routers_are_compared_with_a_server_too() {
    let space = Space::new().await;
    let platform = prepared(&space).await;
    let capacity = resolver::Capacity {
        max_connections: 100,
        reserved: 3,
    };
    let servers = [(ServerName::parse("main").unwrap(), capacity)];
    let instance = Some("host-8080");
    let found = platform.overbooked(&servers, 64, 16, instance).await.unwrap();
    assert_eq!(found, [], "alone it fits");
    let client = platform.registry.client().await.unwrap();
    let other = registry::NewRouter {
        id: model::RouterId::generate(),
        name: "host:1",
        instance,
        budget: 64,
        reserve: 16,
    };
    let ttl = std::time::Duration::from_secs(600);
    registry::router_register(&client, &other, ttl).await.unwrap();
    let found = platform.overbooked(&servers, 64, 16, instance).await.unwrap();
    assert_eq!(found, [], "its own predecessor is not another router");
    let found = platform
        .overbooked(&servers, 64, 16, Some("host-8081"))
        .await
        .unwrap();
    assert_eq!(
        found
            .iter()
            .map(|one| (one.routers, one.connections))
            .collect::<Vec<_>>(),
        [(2, 128)]
    );
    drop(client);
    platform.close().await.unwrap();
}
