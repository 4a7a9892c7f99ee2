//! What a person at the terminal is told, and what a script sees of it.

use testkit::Space;

use crate::ctl::Ctl;

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_says_why_it_is_empty() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    let said = ctl.run(&["list", "--server", "nosuch"]).expect(4);
    assert!(
        said.stderr.contains("no server nosuch; registered: main"),
        "{said:?}"
    );
    let said = ctl.run(&["list"]).expect(0);
    assert!(said.stderr.contains("no laboratory yet"), "{said:?}");
    ctl.provision("acme-lab");
    let said = ctl.run(&["list", "--status", "suspended"]).expect(0);
    assert!(said.stderr.contains("no laboratory matches"), "{said:?}");
    assert_eq!(
        ctl.json(0, &["list", "--server", "main"])["tenants"][0]["slug"],
        "acme-lab"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_current_laboratory_is_not_counted_as_migrated() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("acme-lab");
    let said = ctl.run(&["migrate", "acme-lab"]).expect(0);
    assert!(said.stdout.contains("current already"), "{said:?}");
    assert!(
        said.stderr.contains("0 migrated, 1 current already, 0 failed"),
        "{said:?}"
    );
    let said = ctl.json(0, &["migrate", "acme-lab"]);
    assert_eq!(
        (&said["migrated"], &said["current"]),
        (&0.into(), &1.into()),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_password_is_shown_only_of_a_request_that_was_accepted() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    let zone = ["--name", "N", "--admin-email", "a@example.org", "--time-zone"];
    let said = ctl
        .run(&[&["provision", "north"], &zone[..], &["Mars/Olympus"]].concat())
        .expect(2);
    assert!(!said.stderr.contains("generated password"), "{said:?}");
    let said = ctl
        .run(&[&["provision", "north", "--json"], &zone[..], &["UTC"]].concat())
        .expect(0);
    let generated = said.json()["generatedPassword"].as_str().unwrap().to_owned();
    assert!(generated.len() >= 12, "{said:?}");
    assert!(!said.stderr.contains(&generated), "{said:?}");
    let said = ctl
        .run(&[&["provision", "south"], &zone[..], &["UTC"]].concat())
        .expect(0);
    assert!(
        said.stderr.contains("generated password, shown only now: "),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_far_name_is_not_suggested_and_a_sentence_ends_once() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("echo-lab");
    let said = ctl.run(&["show", "nosuch-lab"]).expect(4);
    assert!(!said.stderr.contains("did you mean"), "{said:?}");
    let said = ctl.run(&["show", "eco-lab"]).expect(4);
    assert!(
        said.stderr
            .contains("did you mean echo-lab? `tenantctl list` shows all"),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_is_named_by_its_id_its_first_digits_or_its_laboratory() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    let made = ctl.provision("acme-lab");
    let id = made["operation"]["id"].as_str().unwrap();
    for wanted in [id, &id[..18], "acme-lab"] {
        let shown = ctl.json(0, &["operations", "show", wanted]);
        assert_eq!(shown["operation"]["id"], id, "{wanted}");
        ctl.run(&["operations", "watch", wanted]).expect(0);
    }
    // All ids of one day begin alike.
    ctl.provision("bravo-lab");
    let said = ctl.run(&["operations", "show", &id[..4]]).expect(2);
    assert!(
        said.stderr.contains("more than one operation") && said.stderr.contains(id),
        "{said:?}"
    );
    let said = ctl.run(&["operations", "show", "ffff"]).expect(4);
    assert!(said.stderr.contains("no laboratory ffff"), "{said:?}");
    let said = ctl.run(&["operations", "show", "0000-1"]).expect(4);
    assert!(said.stderr.contains("begins with 00001"), "{said:?}");
    for wrong in ["z", "0zzz", "Acme"] {
        let said = ctl.run(&["operations", "show", wrong]).expect(2);
        assert!(said.stderr.contains("hexadecimal digits"), "{said:?}");
        assert!(!said.stderr.contains("invalid character"), "{said:?}");
    }
    let said = ctl.run(&["archives", "show", "zebra"]).expect(2);
    assert!(
        said.stderr
            .contains("use an id or its first 4 or more hexadecimal digits"),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_in_its_grace_period_says_until_when_it_waits() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("acme-lab");
    ctl.run(&["offboard", "acme-lab", "--grace", "30d", "--yes"])
        .expect(0);
    let listed = ctl
        .run(&["operations", "list", "--tenant", "acme-lab", "--live"])
        .expect(0);
    assert!(listed.stdout.contains("waiting until "), "{listed:?}");
    assert!(!listed.stdout.contains("pending"), "{listed:?}");
    let shown = ctl.run(&["operations", "show", "acme-lab"]).expect(0);
    assert!(shown.stdout.contains("waiting until "), "{shown:?}");
    ctl.run(&["operations", "cancel", "acme-lab"]).expect(0);
    assert_eq!(ctl.json(0, &["show", "acme-lab"])["tenant"]["status"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_laboratory_that_was_never_finished_is_found_by_its_slug() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("acme-lab");
    ctl.run(&["backup", "acme-lab"]).expect(0);
    let archives = ctl.json(0, &["archives", "list"]);
    let archive = &archives["archives"][0];
    // What is restored is not what the archive was.
    let dump = archive["location"]
        .as_str()
        .unwrap()
        .trim_start_matches("file://");
    let mut bytes = std::fs::read(dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(dump, bytes).unwrap();
    let id = archive["id"].as_str().unwrap();
    ctl.run(&["restore", &id[..18], "--as", "other-lab"]).expect(1);
    let listed = ctl.json(0, &["operations", "list", "--tenant", "other-lab"]);
    assert_eq!(listed["operations"][0]["kind"], "restore", "{listed}");
    assert_eq!(
        ctl.json(0, &["operations", "show", "other-lab"])["operation"]["tenantSlug"],
        "other-lab"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    // Port 1 is reserved and nothing listens there.
    let ctl = Ctl::bare(dir.path())
        .with("MASTER_PGHOST", "127.0.0.1")
        .with("MASTER_PGPORT", "1");
    for args in [&["list"][..], &["up", "--no-serve"]] {
        let said = ctl.run(args).expect(6);
        assert_eq!(said.stderr.matches("refused").count(), 1, "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_taken_from_files_and_never_from_two_places() {
    let space = Space::new().await;
    let file = |name: &str, text: &str| {
        let path = space.dir().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let ctl = Ctl::prepared(&space).with(
        "TENANTRY_ADMIN_PASSWORD_FILE",
        &file("admin", "a long pass phrase\n"),
    );
    let args = [
        "provision",
        "acme-lab",
        "--name",
        "A",
        "--admin-email",
        "a@example.org",
    ];
    let said = ctl.run(&args).expect(0);
    assert!(!said.stderr.contains("generated"), "{said:?}");
    let both = ctl.with("TENANTRY_ADMIN_PASSWORD", "another pass phrase");
    let said = both
        .run(&[
            "provision",
            "bravo-lab",
            "--name",
            "B",
            "--admin-email",
            "a@example.org",
        ])
        .expect(2);
    assert!(said.stderr.contains("are both set; unset one"), "{said:?}");
    let missing = Ctl::on(&space).with("TENANTRY_OPERATOR_PASSWORD_FILE", "/nonexistent/secret");
    let said = missing
        .run(&["operator", "create", "--email", "o@example.org"])
        .expect(2);
    assert!(
        said.stderr.contains("/nonexistent/secret")
            && said.stderr.contains("TENANTRY_OPERATOR_PASSWORD_FILE"),
        "{said:?}"
    );
}
