//! The listener through breaks, silence and slow receivers.

use std::time::Duration;

use pg::ConnectTarget;
use registry::{Event, Listener, ListenerOptions};
use testkit::eventually;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    harness::Harness,
    notifications::{listening, next},
};

const BOUND: Duration = Duration::from_secs(30);
const COUNT: &str = "SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'tenantry listener'";

#[tokio::test]
async fn a_broken_connection_is_made_again_and_the_gap_is_told() {
    let harness = Harness::new().await;
    let mut listener = listening(&harness).await;
    let client = harness.client().await;
    for slug in ["one", "two"] {
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'tenantry listener'";
        assert_eq!(client.query(kill, &[]).await.unwrap().len(), 1);
        assert_eq!(next(&mut listener).await, Event::Lost);
        assert!(*listener.connected().borrow());
        let tenant = harness.tenant(slug).await;
        assert!(matches!(next(&mut listener).await, Event::TenantChanged { id, .. } if id == tenant.id));
    }
}

#[tokio::test]
async fn it_ends_when_it_is_dropped() {
    let harness = Harness::new().await;
    let listener = listening(&harness).await;
    let client = harness.client().await;
    let count = async || client.query_one(COUNT, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(count().await, 1);
    drop(listener);
    eventually("the listener's connection is gone", BOUND, async || {
        count().await == 0
    })
    .await;
}

/// A server that is reached through a wire which can be cut without either end noticing.
async fn behind_a_wire(harness: &Harness) -> (ConnectTarget, watch::Sender<bool>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let (cut, is_cut) = watch::channel(false);
    let server = harness.space.registry.clone();
    let (host, server_port) = (server.host.clone(), server.port);
    tokio::spawn(async move {
        while let Ok((inward, _)) = socket.accept().await {
            let outward = TcpStream::connect((host.as_str(), server_port)).await.unwrap();
            let (from_client, to_client) = inward.into_split();
            let (from_server, to_server) = outward.into_split();
            tokio::spawn(pass(from_client, to_server, is_cut.clone()));
            tokio::spawn(pass(from_server, to_client, is_cut.clone()));
        }
    });
    let target = ConnectTarget {
        host: "127.0.0.1".to_owned(),
        port,
        ..server
    };
    (target, cut)
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut is_cut: watch::Receiver<bool>,
) {
    let mut buffer = [0_u8; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        // Both sockets stay open and nothing passes: the way a dead host or a firewall looks.
        if is_cut.wait_for(|cut| !cut).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_only_half_dead_is_noticed_in_bounded_time() {
    let harness = Harness::new().await;
    let (target, cut) = behind_a_wire(&harness).await;
    let options = ListenerOptions {
        keepalive_interval: Duration::from_millis(50),
        keepalive_timeout: Duration::from_secs(2),
        ..ListenerOptions::default()
    };
    let mut listener = Listener::start(&target, options);
    assert_eq!(next(&mut listener).await, Event::Lost);
    let mut connected = listener.connected();
    assert!(*connected.borrow());
    cut.send_replace(true);
    // Only whether it came in time: a borrow of the value that lives on would stop the listener.
    let noticed = tokio::time::timeout(BOUND, connected.wait_for(|connected| !connected))
        .await
        .is_ok();
    assert!(noticed, "silence was taken for health");
    cut.send_replace(false);
    assert_eq!(next(&mut listener).await, Event::Lost);
}

#[tokio::test]
async fn a_server_that_comes_later_is_found() {
    let harness = Harness::new().await;
    // The port is free and nobody listens: the listener tries on.
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let target = ConnectTarget {
        host: "127.0.0.1".to_owned(),
        port: address.port(),
        ..harness.space.registry.clone()
    };
    let mut listener = Listener::start(&target, ListenerOptions::default());
    assert!(!*listener.connected().borrow());
    let Ok(socket) = TcpListener::bind(address).await else {
        // Another process took the port in between; there is nothing to show then.
        return;
    };
    let (host, port) = (harness.space.registry.host.clone(), harness.space.registry.port);
    tokio::spawn(async move {
        while let Ok((mut inward, _)) = socket.accept().await {
            let mut outward = TcpStream::connect((host.as_str(), port)).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut inward, &mut outward).await });
        }
    });
    assert_eq!(next(&mut listener).await, Event::Lost);
}
