//! The way in, when there is none.

use std::time::Duration;

use registry::{Registry, RegistryClient, RegistryError, RegistryOptions, servers_list};
use testkit::{Space, eventually};
use tokio::net::TcpListener;

use crate::harness::Harness;

fn unavailable<T>(result: Result<T, RegistryError>, part: &str) {
    match result {
        Err(RegistryError::Unavailable { reason }) => assert!(reason.contains(part), "{reason}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was reached"),
    }
}

#[tokio::test]
async fn each_reason_not_to_be_reached_has_its_sentence() {
    let space = Space::new().await;
    let options = RegistryOptions {
        pool_max: 1,
        connect_timeout: Duration::from_secs(20),
        checkout_timeout: Duration::from_millis(100),
    };
    let missing = Registry::new(&space.server.with_database("no_such_database"), options);
    unavailable(missing.client().await, "tenantctl up");
    let wrong = space
        .registry
        .with_user("nobody_of_this_name", "wrong".to_owned().into());
    let wrong = Registry::new(&wrong, options);
    unavailable(wrong.client().await, "nobody_of_this_name");
    assert!(!format!("{wrong:?}").contains("wrong"), "{wrong:?}");

    let registry = Registry::new(&space.registry, options);
    let _only = registry.client().await.unwrap();
    unavailable(registry.client().await, "all 1 connections");
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_given_up() {
    let space = Space::new().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut target = space.registry.clone();
    target.host = "127.0.0.1".to_owned();
    target.port = silent.local_addr().unwrap().port();
    let options = RegistryOptions {
        connect_timeout: Duration::from_millis(200),
        ..RegistryOptions::default()
    };
    unavailable(Registry::new(&target, options).client().await, "no answer");
}

#[tokio::test]
async fn a_connection_that_died_in_the_pool_is_not_handed_out() {
    let harness = Harness::new().await;
    let one_only = RegistryOptions {
        pool_max: 1,
        ..RegistryOptions::default()
    };
    let registry = Registry::new(&harness.space.registry, one_only);
    let client = registry.client().await.unwrap();
    let pid: i32 = client
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    let killer = harness.client().await;
    killer
        .query("SELECT pg_terminate_backend($1)", &[&pid])
        .await
        .unwrap();
    // While it is lent out its death shows as an error that may pass, and not as a refusal of the statement.
    unavailable(servers_list(&client).await, "listing servers");
    eventually("the end of the connection", Duration::from_secs(30), async || {
        client.is_closed()
    })
    .await;
    drop(client);
    let client = registry.client().await.unwrap();
    assert_eq!(servers_list(&client).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_connection_on_which_a_statement_was_cut_off_is_not_lent_again() {
    let space = Space::new().await;
    let one_only = RegistryOptions {
        pool_max: 1,
        ..RegistryOptions::default()
    };
    let registry = Registry::new(&space.registry, one_only);
    registry.migrate().await.unwrap();
    let pid = async |client: &RegistryClient| -> i32 {
        let row = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap();
        row.get(0)
    };
    let first = pid(&registry.client().await.unwrap()).await;
    let roomy = Duration::from_secs(60);
    let same = registry.within(roomy, async |client| Ok(pid(client).await));
    assert_eq!(same.await.unwrap(), first, "it goes back when all is well");
    let asleep = registry.within(Duration::from_millis(200), async |client| {
        client.query("SELECT pg_sleep(10)", &[]).await.unwrap();
        Ok(())
    });
    unavailable(asleep.await, "within 200 ms");
    assert_ne!(pid(&registry.client().await.unwrap()).await, first);
}

/// As an upgrade does it while processes of the version before go on: what they prepared is of no use any
/// more.
#[tokio::test]
async fn a_change_of_a_columns_type_is_seen_by_no_caller() {
    let harness = Harness::new().await;
    let one_only = RegistryOptions {
        pool_max: 1,
        ..RegistryOptions::default()
    };
    let registry = Registry::new(&harness.space.registry, one_only);
    let owner = harness.client().await;
    let by_itself = async || {
        let client = registry.client().await.unwrap();
        servers_list(&client).await.map(|servers| servers.len())
    };
    let in_txn = async || {
        let read = registry.in_txn(async |txn| servers_list(txn).await);
        read.await.map(|servers| servers.len())
    };
    let begun_by_hand = async || {
        let mut client = registry.client().await.unwrap();
        let txn = client.transaction().await.unwrap();
        servers_list(&txn).await.map(|servers| servers.len())
    };
    let change = async |to: u32| {
        let sql = format!("ALTER TABLE servers ALTER COLUMN host TYPE varchar({to})");
        owner.batch_execute(&sql).await.unwrap();
    };
    for at in [100, 200, 300] {
        for warm in [by_itself().await, in_txn().await, begun_by_hand().await] {
            assert_eq!(warm.unwrap(), 1);
        }
        change(at).await;
        assert_eq!(by_itself().await.unwrap(), 1);
        change(at + 1).await;
        assert_eq!(in_txn().await.unwrap(), 1);
        change(at + 2).await;
        // A transaction that its caller holds cannot be begun again for the caller, but it fails once and not
        // for good.
        let _outdated = begun_by_hand().await;
        assert_eq!(begun_by_hand().await.unwrap(), 1);
    }
}
