//! Addresses for events, from the terminal.

use testkit::Space;

use crate::ctl::Ctl;

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_registered_tried_and_removed() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    let said = ctl.run(&["webhooks", "add", "http://127.0.0.1/hook"]).expect(2);
    assert!(said.stderr.contains("private_addresses"), "{said:?}");
    let said = ctl.run(&[
        "webhooks",
        "add",
        "https://hooks.invalid/",
        "--event",
        "laboratory.exploded",
    ]);
    assert!(said.expect(2).stderr.contains("laboratory.suspended"));
    let made = ctl.json(
        0,
        &[
            "webhooks",
            "add",
            "https://hooks.invalid/x",
            "--event",
            "laboratory.removed",
        ],
    );
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"));
    let id = made["webhook"]["id"].as_str().unwrap();
    let said = ctl.run(&["webhooks", "test", id]).expect(1);
    assert!(said.stderr.contains("no connection"), "{said:?}");
    let listed = ctl.json(0, &["webhooks", "deliveries", "--webhook", id]);
    assert_eq!(listed["deliveries"][0]["attempts"], 1, "{listed}");
    assert_eq!(listed["deliveries"][0]["eventType"], "webhook.test");
    let rotated = ctl.json(0, &["webhooks", "rotate", id, "--overlap", "12h"]);
    assert_ne!(rotated["secret"], made["secret"]);
    ctl.run(&["webhooks", "rotate", id, "--overlap", "31d"]).expect(2);
    ctl.run(&["webhooks", "disable", id, "--reason", "moving"])
        .expect(0);
    let shown = ctl.run(&["webhooks", "show", id]).expect(0);
    assert!(
        shown.stdout.contains("moving") && !shown.stdout.contains("whsec_"),
        "{shown:?}"
    );
    ctl.run(&["webhooks", "enable", id]).expect(0);
    ctl.run(&["webhooks", "remove", id]).expect(0);
    ctl.run(&["webhooks", "show", id]).expect(4);
}
