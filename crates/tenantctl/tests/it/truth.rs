//! What is said is what is so: no success before the end, no password after the fact, no secret in a log.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    time::Duration,
};

use testkit::{Space, eventually};

use crate::ctl::Ctl;

const LIMIT: Duration = Duration::from_secs(60);
const PROVISION: [&str; 6] = [
    "provision",
    "acme-lab",
    "--name",
    "Acme",
    "--admin-email",
    "ada@example.org",
];

/// `kill -9`, and gone.
fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_laboratory_that_is_archived_but_still_there_is_not_called_removed() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("acme-lab");
    let reached = space.dir().join("reached");
    let stopping = Ctl::on(&space)
        .with("TENANTRY_FAULT_POINT", "offboard/drop_database/begun")
        .with("TENANTRY_FAULT_FILE", reached.to_str().unwrap());
    let mut command = stopping.command(&["offboard", "acme-lab", "--now", "--confirm", "acme-lab"]);
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the archive to be recorded", LIMIT, async || reached.exists()).await;
    kill(child);

    let asked = [
        "offboard",
        "acme-lab",
        "--now",
        "--confirm",
        "acme-lab",
        "--no-wait",
    ];
    assert!(ctl.json(0, &asked)["archive"].is_object());
    let said = ctl.run(&asked).expect(0);
    assert_eq!(said.stdout.trim(), "acme-lab is being offboarded");
    assert!(said.stderr.contains("operations watch"), "{said:?}");
    assert_eq!(ctl.json(0, &["list"])["tenants"][0]["status"], "deleting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_password_is_told_before_anything_is_kept() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    // Whoever writes a laboratory's row waits.
    let blocker = pg::connect(&space.registry, "tenantctl test", LIMIT)
        .await
        .unwrap();
    blocker
        .batch_execute("BEGIN; LOCK TABLE tenants IN EXCLUSIVE MODE")
        .await
        .unwrap();
    let mut command = ctl.command(&PROVISION);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stderr.take().unwrap());
    let told = said
        .lines()
        .map_while(Result::ok)
        .find(|line| line.starts_with("generated password, shown only now: "));
    kill(child);
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert!(told.is_some(), "it waited for the row first");
    assert_eq!(ctl.json(0, &["list"])["tenants"].as_array().unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_filter_brings_the_drivers_statements_into_the_log() {
    let space = Space::new().await;
    Ctl::prepared(&space);
    for filter in ["trace", "tokio_postgres=trace,warn"] {
        let loud = Ctl::on(&space)
            .with("TENANTRY_LOG_FILTER", filter)
            .run(&["list"])
            .expect(0);
        for words in ["preparing query", "executing statement", "with parameters"] {
            assert!(!loud.stderr.contains(words), "{filter}: {loud:?}");
        }
    }
}

#[test]
fn an_embedded_server_is_stopped_without_a_word_about_connections() {
    // The server runs as an unprivileged account when root starts it, and must be able to enter.
    let home = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o711))
        .tempdir()
        .unwrap();
    let ctl = Ctl::bare(home.path());
    for args in [
        &["up", "--no-serve"][..],
        &["up", "--no-serve"],
        &PROVISION,
        &["list"],
    ] {
        let said = ctl.run(args).expect(0);
        for unwanted in ["WARN", "ERROR", "onnection", "\u{1b}"] {
            assert!(!said.stderr.contains(unwanted), "{args:?}: {said:?}");
        }
    }
}
