//! `with-postgres` as scripts use it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use testkit::eventually;

use crate::{
    halt::{Halting, MOMENTS},
    helper::{LIMIT, processes, temp_dir, until_no_process},
};

fn with_postgres(parent: &Path, script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_with-postgres"));
    command
        .arg("--dir")
        .arg(parent)
        .args(["--", "sh", "-c", script])
        .stdin(Stdio::null());
    command
}

fn run(parent: &Path, script: &str) -> Output {
    with_postgres(parent, script).output().unwrap()
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

const PSQL: &str = r#"PGPASSWORD="$TENANTRY_TEST_PGPASSWORD" "$BIN/psql" -qAt -v ON_ERROR_STOP=1 \
    -h "$TENANTRY_TEST_PGHOST" -p "$TENANTRY_TEST_PGPORT" -U "$TENANTRY_TEST_PGUSER" -d postgres"#;

fn psql(statement: &str) -> String {
    let bin = embedded::PgBin::find(None).unwrap();
    format!("BIN='{}'; {PSQL} -c '{statement}'", bin.dir().display())
}

#[test]
fn the_command_reaches_the_server_and_its_exit_code_is_passed_on() {
    let dir = temp_dir();
    let output = run(dir.path(), &format!("{}; exit 7", psql("SELECT 40 + 2")));
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "42\n");
    assert!(is_empty(dir.path()));
    assert!(run(dir.path(), "true").status.success());
}

#[test]
fn databases_roles_files_and_processes_that_are_left_behind_are_named() {
    let dir = temp_dir();
    let script = format!(
        "{}; {}; touch \"$TMPDIR/forgotten\"; sleep 600 >/dev/null 2>&1 &",
        psql("CREATE DATABASE stray_base"),
        psql("CREATE ROLE stray_role"),
    );
    let output = run(dir.path(), &script);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for name in ["database stray_base", "role stray_role", "forgotten", "sleep 600"] {
        assert!(said.contains(name), "{name} is not in: {said}");
    }
    assert!(is_empty(dir.path()));
    // The stray process is this test's to end.
    let pid = said
        .lines()
        .find_map(|line| line.split_once("process ")?.1.split_once(':')?.0.parse().ok());
    kill_process(Pid::from_raw(pid.unwrap()).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_signal_ends_the_command_and_everything_is_cleaned_up() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = temp_dir();
        let mut command = with_postgres(dir.path(), "echo ready; exec sleep 600");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(128 + signal.as_raw()));
        assert!(is_empty(dir.path()));
        assert!(processes(dir.path()).is_empty());
    }
}

#[tokio::test]
async fn a_killed_run_leaves_no_server_and_no_directory() {
    let dir = temp_dir();
    let mut command = with_postgres(dir.path(), "echo $$; exec sleep 600");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the directory to go", LIMIT, async || is_empty(dir.path())).await;
    until_no_process(dir.path()).await;
    let command = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
    kill_process(command, Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_run_killed_at_each_moment_of_its_start_leaves_nothing() {
    for moment in MOMENTS {
        let dir = temp_dir();
        let halting = Halting::at(moment);
        let mut command = with_postgres(dir.path(), "exit 0");
        let mut child = command.env("TENANTRY_PG_BIN", halting.bin()).spawn().unwrap();
        halting.until_reached().await;
        assert!(!is_empty(dir.path()), "{moment:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        // What it left goes on, as it does in life, and writes where all is being removed.
        halting.go_on();
        eventually(&format!("{moment:?}: the directory to go"), LIMIT, async || {
            is_empty(dir.path())
        })
        .await;
        until_no_process(dir.path()).await;
    }
}

#[test]
fn a_command_that_does_not_exist_is_an_error_that_names_it() {
    let dir = temp_dir();
    let output = Command::new(env!("CARGO_BIN_EXE_with-postgres"))
        .arg("--dir")
        .arg(dir.path())
        .args(["--", "no-such-program"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-program"));
    assert!(is_empty(dir.path()));
}
