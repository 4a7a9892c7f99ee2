//! `kill -9` of each process in turn, and of all together: the next start finds a clean place and every
//! committed row.

use std::{fs, path::Path};

use rustix::process::Pid;
use testkit::eventually;

use crate::{
    halt::{Halting, MOMENTS, Moment},
    helper::{
        LIMIT, Owner, client, count, execute, kill_9, postmaster, processes, start, supervisors, temp_dir,
        until_no_process,
    },
};

/// Not by its number alone: one that has ended but that nobody has waited for yet still has it.
fn is_alive(dir: &Path, server: Pid) -> bool {
    processes(dir).iter().any(|(pid, _)| *pid == server)
}

#[tokio::test]
async fn the_server_ends_when_its_owner_is_killed_and_starts_again() {
    let dir = temp_dir();
    let mut owner = Owner::start(dir.path());
    let guest = start(dir.path()).await.unwrap();
    execute(&guest, "CREATE TABLE kept AS SELECT generate_series(1, 10)").await;
    owner.kill();
    until_no_process(dir.path()).await;
    let cluster = start(dir.path()).await.unwrap();
    assert!(cluster.is_owner());
    assert_eq!(count(&cluster, "kept").await, 10);
    let log = fs::read_to_string(dir.path().join("server.log")).unwrap();
    assert!(log.contains("received fast shutdown request"), "{log}");
    assert!(!log.contains("was not properly shut down"), "{log}");
}

#[tokio::test]
async fn a_start_right_after_the_owner_was_killed_waits_for_the_old_server() {
    let dir = temp_dir();
    for round in 0..4 {
        let mut owner = Owner::start(dir.path());
        let old = postmaster(dir.path());
        owner.kill();
        let cluster = start(dir.path()).await.unwrap();
        assert!(cluster.is_owner(), "round {round}");
        assert_ne!(postmaster(dir.path()), old);
        client(cluster.target()).await;
        cluster.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_postmaster_is_survived_by_the_next_start() {
    let dir = temp_dir();
    let cluster = start(dir.path()).await.unwrap();
    execute(&cluster, "CREATE TABLE kept AS SELECT generate_series(1, 10)").await;
    let busy = client(cluster.target()).await;
    let busy = tokio::spawn(async move { busy.batch_execute("SELECT pg_sleep(600)").await });
    kill_9(postmaster(dir.path()));
    cluster.stop().await.unwrap();
    assert!(busy.await.unwrap().is_err());
    assert!(processes(dir.path()).is_empty());
    let cluster = start(dir.path()).await.unwrap();
    assert_eq!(count(&cluster, "kept").await, 10);
}

#[tokio::test]
async fn a_living_owner_starts_its_killed_server_again_on_the_same_port() {
    let dir = temp_dir();
    let mut cluster = start(dir.path()).await.unwrap();
    let guest = start(dir.path()).await.unwrap();
    execute(&cluster, "CREATE TABLE kept AS SELECT generate_series(1, 10)").await;
    for round in 0..3 {
        assert!(!cluster.has_ended(), "round {round}");
        let killed = postmaster(dir.path());
        kill_9(killed);
        eventually("the owner to see it", LIMIT, async || cluster.has_ended()).await;
        cluster.restart().await.unwrap();
        assert_ne!(postmaster(dir.path()), killed);
        // By the address from before; and who comes now finds it as well.
        assert_eq!(count(&guest, "kept").await, 10);
        assert!(!start(dir.path()).await.unwrap().is_owner());
    }
    cluster.stop().await.unwrap();
    assert!(processes(dir.path()).is_empty());
}

#[tokio::test]
async fn a_server_that_only_lost_its_supervisor_has_not_ended() {
    let dir = temp_dir();
    let mut cluster = start(dir.path()).await.unwrap();
    for pid in supervisors(dir.path()) {
        kill_9(pid);
    }
    let server = postmaster(dir.path());
    eventually("the supervisors to be gone", LIMIT, async || {
        cluster.has_ended() || supervisors(dir.path()).is_empty()
    })
    .await;
    assert!(!cluster.has_ended());
    kill_9(server);
    eventually("the owner to see it", LIMIT, async || cluster.has_ended()).await;
    cluster.restart().await.unwrap();
    client(cluster.target()).await;
}

#[tokio::test]
async fn a_port_that_somebody_took_meanwhile_is_waited_for_and_not_changed() {
    let dir = temp_dir();
    let mut cluster = start(dir.path()).await.unwrap();
    let port = cluster.target().port;
    kill_9(postmaster(dir.path()));
    eventually("the owner to see it", LIMIT, async || cluster.has_ended()).await;
    let mut taken = None;
    eventually("the port to be free", LIMIT, async || {
        taken = std::net::TcpListener::bind(("127.0.0.1", port)).ok();
        taken.is_some()
    })
    .await;
    let error = cluster.restart().await.unwrap_err();
    assert!(error.to_string().contains("could not bind"), "{error}");
    assert!(cluster.is_owner() && cluster.has_ended());
    drop(taken);
    cluster.restart().await.unwrap();
    client(cluster.target()).await;
}

#[tokio::test]
async fn a_guest_of_an_owner_without_server_is_told_so_and_does_not_wait_for_long() {
    let dir = temp_dir();
    let owner = Owner::start(dir.path());
    kill_9(postmaster(dir.path()));
    let error = start(dir.path()).await.unwrap_err();
    assert!(
        matches!(error, embedded::EmbeddedError::OwnerServerless { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("server.log"), "{error}");
    drop(owner);
    assert!(start(dir.path()).await.unwrap().is_owner());
}

#[tokio::test]
async fn a_server_without_supervisor_is_still_stopped_by_its_owner() {
    let dir = temp_dir();
    let cluster = start(dir.path()).await.unwrap();
    for pid in supervisors(dir.path()) {
        kill_9(pid);
    }
    let server = postmaster(dir.path());
    execute(&cluster, "CREATE TABLE kept AS SELECT generate_series(1, 10)").await;
    cluster.stop().await.unwrap();
    assert!(!is_alive(dir.path(), server));
    let cluster = start(dir.path()).await.unwrap();
    assert_eq!(count(&cluster, "kept").await, 10);
}

#[tokio::test]
async fn a_server_orphaned_by_all_is_ended_by_the_next_owner() {
    let dir = temp_dir();
    let mut owner = Owner::start(dir.path());
    let server = postmaster(dir.path());
    for pid in supervisors(dir.path()) {
        kill_9(pid);
    }
    owner.kill();
    assert!(is_alive(dir.path(), server), "nobody was left to end it");
    let cluster = start(dir.path()).await.unwrap();
    assert!(cluster.is_owner());
    assert!(!is_alive(dir.path(), server));
    client(cluster.target()).await;
}

#[tokio::test]
async fn owner_supervisor_and_server_killed_at_once_leave_a_place_to_start_in() {
    let dir = temp_dir();
    let mut owner = Owner::start(dir.path());
    let guest = start(dir.path()).await.unwrap();
    execute(&guest, "CREATE TABLE kept AS SELECT generate_series(1, 10)").await;
    let server = postmaster(dir.path());
    for pid in supervisors(dir.path()) {
        kill_9(pid);
    }
    kill_9(server);
    owner.kill();
    let cluster = start(dir.path()).await.unwrap();
    assert_eq!(count(&cluster, "kept").await, 10);
}

#[tokio::test]
async fn an_owner_killed_at_each_moment_of_its_first_start_is_recovered_from() {
    for moment in MOMENTS {
        let dir = temp_dir();
        let halting = Halting::at(moment);
        let mut child = Owner::spawn_with(dir.path(), &halting.bin());
        halting.until_reached().await;
        // Where it landed, by what is there.
        let has = |name: &str| dir.path().join(name).exists();
        let landed = (
            has("data.unfinished"),
            has("data.unfinished/global/pg_control"),
            has("data"),
            has("data/postmaster.pid"),
        );
        let expected = match moment {
            Moment::BeforeInitdb => (true, false, false, false),
            Moment::AfterInitdb => (true, true, false, false),
            Moment::BeforeServer => (false, false, true, false),
        };
        assert_eq!(landed, expected, "{moment:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        // What it left goes on, as it does in life, while the next owner starts.
        halting.go_on();
        let cluster = start(dir.path())
            .await
            .unwrap_or_else(|error| panic!("{moment:?}: {error}"));
        assert!(cluster.is_owner(), "{moment:?}");
        client(cluster.target()).await;
        assert!(!has("data.unfinished"), "{moment:?}");
    }
}

#[tokio::test]
async fn what_an_interrupted_initdb_left_is_made_anew() {
    let dir = temp_dir();
    let unfinished = dir.path().join("data.unfinished/base/1");
    fs::create_dir_all(&unfinished).unwrap();
    fs::write(unfinished.join("2619"), "half a table").unwrap();
    fs::write(dir.path().join("password.initdb"), "an earlier password").unwrap();
    let cluster = start(dir.path()).await.unwrap();
    client(cluster.target()).await;
    assert!(!dir.path().join("data.unfinished").exists());
    assert!(!dir.path().join("password.initdb").exists());
}

#[tokio::test]
async fn a_stale_pid_file_that_names_another_process_harms_nobody() {
    let dir = temp_dir();
    start(dir.path()).await.unwrap().stop().await.unwrap();
    let mut bystander = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let stale = format!(
        "{}\n{}/data\n1\n1\n\n127.0.0.1\n\n\n",
        bystander.id(),
        dir.path().display()
    );
    fs::write(dir.path().join("data/postmaster.pid"), stale).unwrap();
    let cluster = start(dir.path()).await.unwrap();
    client(cluster.target()).await;
    cluster.stop().await.unwrap();
    assert!(bystander.try_wait().unwrap().is_none(), "it was signalled");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[tokio::test]
async fn signals_to_the_supervisor_do_not_end_the_server() {
    let dir = temp_dir();
    let cluster = start(dir.path()).await.unwrap();
    for pid in supervisors(dir.path()) {
        for signal in [
            rustix::process::Signal::INT,
            rustix::process::Signal::TERM,
            rustix::process::Signal::HUP,
        ] {
            rustix::process::kill_process(pid, signal).unwrap();
        }
    }
    // A signal that ends a process does so before the process could answer anything more.
    eventually("the server to answer", LIMIT, async || {
        client(cluster.target())
            .await
            .simple_query("SELECT 1")
            .await
            .is_ok()
    })
    .await;
    assert_eq!(supervisors(dir.path()).len(), 2);
}
