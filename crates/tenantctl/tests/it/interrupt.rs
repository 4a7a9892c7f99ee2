use std::{
    process::{Command, Stdio},
    time::Duration,
};

use testkit::{Space, eventually};

use crate::ctl::{Ctl, Said};

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_provision_says_how_to_go_on_and_goes_on() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    let reached = space.dir().join("reached");
    let stopping = Ctl::on(&space)
        .with("TENANTRY_FAULT_POINT", "provision/ensure_schema/begun")
        .with("TENANTRY_FAULT_FILE", reached.to_str().unwrap())
        .with("TENANTRY_ADMIN_PASSWORD", "correct horse battery");
    let args = [
        "provision",
        "acme-lab",
        "--name",
        "Acme",
        "--admin-email",
        "ada@example.org",
    ];
    let mut child = stopping.command(&args);
    let child = child
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually(
        "the fault point is reached",
        Duration::from_secs(60),
        async || reached.exists(),
    )
    .await;
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let said = Said::of(&child.wait_with_output().unwrap()).expect(130);
    assert!(said.stderr.contains("tenantctl operations watch"), "{said:?}");

    // Half done: seen as such, and nothing else may begin on it.
    assert_eq!(ctl.json(0, &["list"])["tenants"][0]["status"], "provisioning");
    ctl.run(&["suspend", "acme-lab"]).expect(5);
    ctl.run(&["migrate", "acme-lab"]).expect(3);

    // The same command again goes on with it, not with a second one.
    let resumed = ctl.json(0, &args);
    assert_eq!(
        (&resumed["resumed"], &resumed["tenant"]["status"]),
        (&true.into(), &"active".into())
    );
    let id = resumed["operation"]["id"].as_str().unwrap();
    let steps = ctl.json(0, &["operations", "show", id]);
    let attempts: Vec<u64> = steps["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["attempts"].as_u64().unwrap())
        .collect();
    assert_eq!(
        attempts,
        [1, 1, 1, 2, 1, 1, 1],
        "only the step that was under way was begun twice: {steps}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_to_a_worker_can_be_run_here_later() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    let args = [
        "provision",
        "acme-lab",
        "--name",
        "Acme",
        "--admin-email",
        "ada@example.org",
        "--no-wait",
    ];
    let asked = ctl.json(0, &args);
    assert_eq!(
        (&asked["tenant"]["status"], &asked["operation"]["status"]),
        (&"provisioning".into(), &"pending".into())
    );
    let id = asked["operation"]["id"].as_str().unwrap();
    let watched = ctl.json(0, &["operations", "watch", id]);
    assert_eq!(watched["operation"]["status"], "succeeded");
    let refused = ctl.run(&["operations", "retry", id]).expect(5);
    assert!(refused.stderr.contains("failed"), "{refused:?}");
    let left = ctl.json(
        0,
        &[
            "offboard",
            "acme-lab",
            "--now",
            "--confirm",
            "acme-lab",
            "--no-wait",
        ],
    );
    assert_eq!(
        (&left["operation"]["status"], &left["archive"]),
        (&"pending".into(), &serde_json::Value::Null)
    );
    let again = ctl.json(0, &["offboard", "acme-lab", "--now", "--confirm", "acme-lab"]);
    assert_eq!(again["operation"]["id"], left["operation"]["id"]);
    assert!(again["archive"].is_object());
}
