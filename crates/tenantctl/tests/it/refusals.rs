use testkit::Space;

use crate::ctl::Ctl;

const STAND_IN: &str = "0190a5b0-0000-7000-8000-000000000001";

#[tokio::test(flavor = "multi_thread")]
async fn before_up_every_command_says_to_run_it() {
    let space = Space::new().await;
    let said = Ctl::on(&space).run(&["list"]).expect(1);
    assert!(said.stderr.contains("tenantctl up"), "{said:?}");
    let empty = tempfile::tempdir().unwrap();
    let said = Ctl::bare(empty.path()).run(&["list"]).expect(1);
    assert!(said.stderr.contains("tenantctl up"), "{said:?}");
    assert!(
        !empty.path().join("state").exists(),
        "asking does not make an installation"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_out_of_reach_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    // Port 1 is reserved and nothing listens there.
    let ctl = Ctl::bare(dir.path())
        .with("MASTER_PGHOST", "127.0.0.1")
        .with("MASTER_PGPORT", "1");
    for args in [&["list"][..], &["up", "--no-serve"], &["show", "acme-lab"]] {
        let said = ctl.run(args).expect(6);
        assert!(said.stderr.contains("127.0.0.1:1"), "{said:?}");
    }
    assert_eq!(ctl.json(6, &["list"])["error"]["kind"], "unreachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_exit_code_4_with_a_way_on() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("acme-lab");
    let said = ctl.run(&["show", "acme-lb"]).expect(4);
    assert!(said.stderr.contains("did you mean acme-lab?"), "{said:?}");
    for args in [
        &["suspend", STAND_IN][..],
        &["migrate", "acme-lab", "zebra"],
        &["offboard", "zebra", "--yes"],
        &["archives", "show", STAND_IN],
        &["operations", "watch", STAND_IN],
        &["operations", "retry", STAND_IN],
        &["operations", "list", "--tenant", "zebra"],
    ] {
        let said = ctl.run(args).expect(4);
        assert!(said.stderr.contains("tenantctl"), "{args:?}: {said:?}");
    }
    let listed = ctl.json(0, &["operations", "list"]);
    assert_eq!(
        listed["operations"].as_array().unwrap().len(),
        1,
        "a refused command leaves no operation"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_slug_is_a_conflict_and_a_malformed_one_wrong_usage() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("acme-lab");
    let again = ctl.json(
        5,
        &[
            "provision",
            "acme-lab",
            "--name",
            "Other",
            "--admin-email",
            "bob@example.org",
        ],
    );
    assert!(
        again["error"]["message"].as_str().unwrap().contains("is active"),
        "{again}"
    );
    for slug in ["Acme", "a", "acme--lab", "x\"; drop database postgres"] {
        let said = ctl
            .run(&["provision", slug, "--name", "N", "--admin-email", "a@example.org"])
            .expect(2);
        assert!(said.stderr.contains("not a valid slug"), "{said:?}");
    }
    for (email, zone, part) in [
        ("nobody", "UTC", "e-mail"),
        ("a@example.org", "Mars/Olympus", "time zone"),
    ] {
        let args = [
            "provision",
            "north",
            "--name",
            "N",
            "--admin-email",
            email,
            "--time-zone",
            zone,
        ];
        let said = ctl.run(&args).expect(2);
        assert!(said.stderr.contains(part), "{said:?}");
    }
    let odd = [
        "provision",
        "north",
        "--name",
        "O'Neil \"x\"; DROP TABLE tenants",
        "--admin-email",
        "a@example.org",
    ];
    ctl.run(&odd).expect(0);
    assert_eq!(
        ctl.json(0, &["list"])["tenants"][1]["name"],
        "O'Neil \"x\"; DROP TABLE tenants"
    );
}

#[test]
fn a_reason_is_one_line_of_bounded_length_in_every_command() {
    let home = tempfile::tempdir().unwrap();
    let ctl = Ctl::bare(home.path());
    let (long, lines) = ("x".repeat(501), "one\ntwo".to_owned());
    for args in [
        &["suspend", "acme-lab"][..],
        &["resume", "acme-lab"],
        &["offboard", "acme-lab", "--yes"],
        &["export", "acme-lab"],
        &["backup", "acme-lab"],
        &["restore", STAND_IN],
        &["operations", "cancel", STAND_IN],
        &["webhooks", "disable", STAND_IN],
    ] {
        for (reason, part) in [(&long, "the limit is 500"), (&lines, "U+000A")] {
            let args = [args, &["--reason", reason]].concat();
            let said = ctl.run(&args).expect(2);
            assert!(said.stderr.contains(part), "{args:?}: {said:?}");
        }
    }
}
