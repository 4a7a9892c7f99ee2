//! What cannot work is refused with a sentence that says what to do.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::Stdio,
};

use embedded::{Cluster, ClusterOptions, EmbeddedError, PgBin};

use crate::helper::{Owner, options, start, temp_dir, until_no_process};

const NOBODY: u32 = 65534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Programs that claim a version and can do nothing else.
fn pretend_programs(dir: &Path, version: &str) {
    pretend(dir, &["initdb", "postgres", "pg_ctl"], version);
}

fn pretend(dir: &Path, names: &[&str], version: &str) {
    fs::create_dir_all(dir).unwrap();
    for name in names {
        let path = dir.join(name);
        fs::write(
            &path,
            format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n"),
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn the_newest_installed_server_is_found() {
    let bin = PgBin::find(None).unwrap();
    assert!(bin.major() >= 15);
    assert!(bin.program("initdb").exists());
    assert_eq!(PgBin::find(Some(bin.dir())).unwrap(), bin);
}

#[test]
fn programs_that_dump_are_found_for_exactly_one_major_version() {
    let installed = PgBin::find(None).unwrap();
    let found = PgBin::find_major(None, installed.major()).unwrap();
    assert_eq!(found.major(), installed.major());
    assert!(found.program("pg_restore").exists());

    let dir = temp_dir();
    let clients = dir.path().join("clients");
    pretend(&clients, &["pg_dump", "pg_restore"], "41.2");
    assert_eq!(PgBin::find_major(Some(&clients), 41).unwrap().dir(), clients);
    let error = PgBin::find_major(Some(&clients), 40).unwrap_err();
    assert!(error.to_string().contains("only those of 41 are here"), "{error}");
    let error = PgBin::find_major(None, 40).unwrap_err();
    assert!(error.to_string().contains("postgresql-client-40"), "{error}");
    let error = PgBin::find_major(Some(dir.path()), 40).unwrap_err();
    assert!(error.to_string().contains("pg_dump is missing"), "{error}");
}

#[test]
fn a_directory_without_the_programs_is_named_with_what_is_missing() {
    let dir = temp_dir();
    let error = PgBin::find(Some(dir.path())).unwrap_err();
    assert!(matches!(
        error,
        EmbeddedError::Incomplete {
            missing: "postgres",
            ..
        }
    ));
    assert!(error.to_string().contains("scripts/setup"), "{error}");
}

#[test]
fn a_version_that_is_too_old_is_refused() {
    let dir = temp_dir();
    pretend_programs(dir.path(), "13.4");
    let error = PgBin::find(Some(dir.path())).unwrap_err();
    assert!(
        matches!(error, EmbeddedError::TooOld { found: 13, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn data_of_another_major_version_are_left_alone() {
    let dir = temp_dir();
    start(dir.path()).await.unwrap().stop().await.unwrap();
    let programs = temp_dir();
    pretend_programs(programs.path(), "99.1");
    let other = ClusterOptions {
        bin: Some(programs.path().to_owned()),
        ..options(dir.path())
    };
    let error = Cluster::start_or_attach(other).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::OtherMajor { .. }), "{error}");
    assert!(start(dir.path()).await.unwrap().is_owner());
}

#[tokio::test]
async fn data_without_their_password_are_not_replaced() {
    let dir = temp_dir();
    start(dir.path()).await.unwrap().stop().await.unwrap();
    fs::remove_file(dir.path().join("password")).unwrap();
    let error = start(dir.path()).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::PasswordLost { .. }), "{error}");
    assert!(dir.path().join("data/PG_VERSION").exists());
}

#[tokio::test]
async fn a_parameter_that_is_not_the_callers_is_refused_and_a_wrong_one_shown() {
    let dir = temp_dir();
    let with = |name: &str, value: &str| ClusterOptions {
        parameters: vec![(name.to_owned(), value.to_owned())],
        ..options(dir.path())
    };
    let error = Cluster::start_or_attach(with("listen_addresses", "*"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, EmbeddedError::ReservedParameter { .. }),
        "{error}"
    );
    let error = Cluster::start_or_attach(with("max_connections", "many"))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("max_connections"),
        "the log's end is shown: {error}"
    );
    until_no_process(dir.path()).await;
    assert!(
        start(dir.path()).await.unwrap().is_owner(),
        "a failed start blocks nothing"
    );
}

#[tokio::test]
async fn a_directory_closed_to_the_servers_account_is_named() {
    if !is_root() {
        return;
    }
    let dir = temp_dir();
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let error = start(&closed.join("a/b")).await.unwrap_err();
    let EmbeddedError::Unreachable { dir: named, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(named, &closed.canonicalize().unwrap());
    assert!(error.to_string().contains("chmod o+x"), "{error}");
}

#[tokio::test]
async fn an_ordinary_user_runs_a_cluster_that_root_can_take_over() {
    if !is_root() {
        return;
    }
    let dir = temp_dir();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    // The build directory may be closed to that user, so the program goes along.
    let program = dir.path().join("owner");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let child = Owner::command(&program, &home)
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .spawn()
        .unwrap();
    let mut owner = Owner::ready(child);
    drop(owner.child.stdin.take());
    assert!(owner.child.wait().unwrap().success());
    until_no_process(&home).await;
    let cluster = start(&home).await.unwrap();
    assert!(cluster.is_owner());
}

#[tokio::test]
async fn another_user_who_may_not_read_the_files_is_told_so() {
    if !is_root() {
        return;
    }
    let dir = temp_dir();
    let cluster_dir = dir.path().join("cluster");
    let cluster = start(&cluster_dir).await.unwrap();
    let program = dir.path().join("owner");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = Owner::command(&program, &cluster_dir)
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("owner.lock"), "{said}");
    drop(cluster);
}
