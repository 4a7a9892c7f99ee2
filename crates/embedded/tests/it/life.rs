//! A cluster's ordinary life: start, use, stop, start again, visit.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use embedded::{Cluster, ThrowawayOptions};
use pg::ConnectTarget;
use secrecy::SecretString;

use crate::helper::{LIMIT, Owner, client, count, execute, processes, start, temp_dir, until_no_process};

#[tokio::test]
async fn data_password_and_port_are_the_same_after_a_restart() {
    let dir = temp_dir();
    let cluster = start(dir.path()).await.unwrap();
    assert!(cluster.is_owner());
    execute(&cluster, "CREATE TABLE kept AS SELECT generate_series(1, 1000)").await;
    let port = cluster.target().port;
    cluster.stop().await.unwrap();
    assert!(processes(dir.path()).is_empty());

    let cluster = start(dir.path()).await.unwrap();
    assert_eq!(count(&cluster, "kept").await, 1000);
    // Free again just now, so it is kept unless another process was given it by chance.
    if std::net::TcpListener::bind(("127.0.0.1", port)).is_err() {
        assert_eq!(cluster.target().port, port);
    }
    drop(cluster);
    assert!(processes(dir.path()).is_empty(), "dropping stops as well");
}

#[tokio::test]
async fn the_server_has_the_encoding_and_parameters_it_should() {
    let dir = temp_dir();
    let cluster = start(dir.path()).await.unwrap();
    let client = client(cluster.target()).await;
    for (name, value) in [
        ("server_encoding", "UTF8"),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("password_encryption", "scram-sha-256"),
        ("fsync", "on"),
        ("shared_buffers", "16MB"),
    ] {
        let row = client
            .query_one("SELECT current_setting($1)", &[&name])
            .await
            .unwrap();
        assert_eq!(row.get::<_, String>(0), value, "{name}");
    }
    let methods = client
        .query("SELECT DISTINCT auth_method FROM pg_hba_file_rules", &[])
        .await
        .unwrap();
    let methods: Vec<String> = methods.iter().map(|row| row.get(0)).collect();
    assert_eq!(methods, ["scram-sha-256"]);
}

#[tokio::test]
async fn nobody_gets_in_without_the_password_which_only_its_owner_can_read() {
    let dir = temp_dir();
    let cluster = start(dir.path()).await.unwrap();
    for wrong in ["", "postgres"] {
        let target = ConnectTarget {
            password: SecretString::from(wrong),
            ..cluster.target().clone()
        };
        assert!(
            pg::connect(&target, "embedded test", LIMIT).await.is_err(),
            "{wrong:?}"
        );
    }
    let password = dir.path().join("password").metadata().unwrap();
    assert_eq!(password.permissions().mode() & 0o777, 0o600);
    let data = dir.path().join("data").metadata().unwrap();
    assert_eq!(data.permissions().mode() & 0o777, 0o700);
    assert_ne!(data.uid(), 0, "the server must not be root");
    assert!(!format!("{cluster:?}").contains(&std::fs::read_to_string(dir.path().join("password")).unwrap()));
}

#[tokio::test]
async fn a_second_process_is_a_guest_and_leaves_the_server_alone() {
    let dir = temp_dir();
    let mut owner = Owner::start(dir.path());
    let guest = start(dir.path()).await.unwrap();
    assert!(!guest.is_owner());
    assert_eq!(guest.target().port, owner.port);
    execute(&guest, "CREATE TABLE made_by_guest ()").await;
    guest.stop().await.unwrap();
    let again = start(dir.path()).await.unwrap();
    assert_eq!(count(&again, "made_by_guest").await, 0);
    drop(owner.child.stdin.take());
    assert!(owner.child.wait().unwrap().success());
    until_no_process(dir.path()).await;
}

#[tokio::test]
async fn of_many_that_start_at_once_one_owns_and_all_work() {
    let dir = temp_dir();
    let starts: Vec<_> = (0..6)
        .map(|_| {
            let path = dir.path().to_owned();
            tokio::spawn(async move { start(&path).await.unwrap() })
        })
        .collect();
    let mut clusters = Vec::new();
    for start in starts {
        clusters.push(start.await.unwrap());
    }
    assert_eq!(clusters.iter().filter(|cluster| cluster.is_owner()).count(), 1);
    for cluster in &clusters {
        client(cluster.target()).await;
    }
}

#[tokio::test]
async fn a_throwaway_cluster_leaves_nothing() {
    let cluster = Cluster::start_throwaway(ThrowawayOptions::default())
        .await
        .unwrap();
    let dir = cluster.dir().to_owned();
    execute(&cluster, "CREATE TABLE gone ()").await;
    cluster.stop().await.unwrap();
    assert!(!dir.exists());
    assert!(processes(&dir).is_empty());
}
