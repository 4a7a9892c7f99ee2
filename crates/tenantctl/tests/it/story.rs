use serde_json::json;
use testkit::Space;

use crate::ctl::Ctl;

#[tokio::test(flavor = "multi_thread")]
async fn a_laboratory_from_its_making_to_its_archive() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    assert_eq!(ctl.json(0, &["list"]), json!({"tenants": []}));

    // Made, with a generated password that is told once.
    let made = ctl.provision("acme-lab");
    assert_eq!(made["tenant"]["status"], "active");
    assert_eq!(made["operation"]["status"], "succeeded");
    assert_eq!(made["resumed"], false);
    assert!(made["generatedPassword"].as_str().unwrap().len() >= 12);
    let note = made["notes"][0].as_str().unwrap();
    assert!(note.contains("from 18 years"), "{note}");
    let id = made["tenant"]["id"].as_str().unwrap();

    // Named by slug or id alike.
    let shown = ctl.json(0, &["show", "acme-lab"]);
    assert_eq!(shown, ctl.json(0, &["show", id]));
    assert_eq!(shown["tenant"]["dbVersion"], shown["tenant"]["codeVersion"]);
    assert_eq!(shown["admins"][0]["email"], "ada@example.org");
    assert_eq!(shown["operations"][0]["createdBy"], "terminal:ada");
    let listed = ctl.run(&["list"]).expect(0).stdout;
    assert!(listed.lines().next().unwrap().starts_with("SLUG"), "{listed}");
    assert!(
        listed.contains("acme-lab") && listed.contains("active"),
        "{listed}"
    );

    // Closed and opened; a second time does not fit its state.
    assert_eq!(
        ctl.json(0, &["suspend", "acme-lab", "--reason", "unpaid"])["tenant"]["status"],
        "suspended"
    );
    let refused = ctl.json(5, &["suspend", "acme-lab"]);
    assert_eq!(refused["error"]["kind"], "conflict");
    assert_eq!(
        ctl.json(0, &["list", "--status", "suspended"])["tenants"][0]["slug"],
        "acme-lab"
    );
    assert_eq!(
        ctl.json(0, &["list", "--status", "active"]),
        json!({"tenants": []})
    );
    assert_eq!(ctl.json(0, &["resume", "acme-lab"])["tenant"]["status"], "active");

    // Migrated: by name always, with --all only what is behind. What is current already is counted as that.
    let migrated = ctl.json(0, &["migrate", "acme-lab", id]);
    assert_eq!(
        (&migrated["migrated"], &migrated["current"], &migrated["failed"]),
        (&json!(0), &json!(1), &json!(0))
    );
    let all = ctl.json(0, &["migrate", "--all"]);
    assert_eq!((&all["migrated"], &all["current"]), (&json!(0), &json!(1)));

    // Removed: only when confirmed.
    let unconfirmed = ctl.run(&["offboard", "acme-lab"]).expect(2);
    assert!(unconfirmed.stderr.contains("--yes"), "{unconfirmed:?}");
    for (wrong, says) in [
        (
            ["offboard", "acme-lab", "--now", "--confirm", "bravo-lab"],
            "nothing was changed",
        ),
        (
            ["offboard", "acme-lab", "--yes", "--grace", "a while"],
            "write it as 30d",
        ),
        (
            ["offboard", "acme-lab", "--grace", "5000d", "--yes"],
            "at most 3650 days",
        ),
    ] {
        let refused = ctl.run(&wrong).expect(2);
        assert!(refused.stderr.contains(says), "{refused:?}");
    }
    // Closed and archived, and cancelled again.
    let waiting = ctl.json(0, &["offboard", "acme-lab", "--grace", "2d", "--yes"]);
    assert_eq!(waiting["operation"]["status"], "pending", "{waiting}");
    assert!(waiting["operation"]["waitingUntil"].is_string(), "{waiting}");
    assert_eq!(ctl.json(0, &["show", "acme-lab"])["tenant"]["status"], "deleting");
    let removal = waiting["operation"]["id"].as_str().unwrap();
    let back = ctl.json(0, &["operations", "cancel", removal]);
    assert_eq!(back["operation"]["status"], "cancelled", "{back}");
    assert_eq!(ctl.json(0, &["show", "acme-lab"])["tenant"]["status"], "active");
    let late = ctl.run(&["operations", "cancel", removal]).expect(5);
    assert!(late.stderr.contains("cancelled before"), "{late:?}");
    // The next one waits until it is told not to.
    let waiting = ctl.json(0, &["offboard", "acme-lab", "--yes"]);
    assert_eq!(waiting["operation"]["status"], "pending", "{waiting}");
    let removed = ctl.json(0, &["offboard", "acme-lab", "--now", "--confirm", "acme-lab"]);
    assert_eq!(removed["operation"]["status"], "succeeded");
    let archive = removed["archive"]["id"].as_str().unwrap();
    assert!(
        std::path::Path::new(removed["archive"]["location"].as_str().unwrap()).exists(),
        "{removed}"
    );

    // Gone, but not its archive and its operations.
    let gone = ctl.run(&["show", "acme-lab"]).expect(4);
    assert!(gone.stderr.contains("archives list"), "{gone:?}");
    assert_eq!(
        ctl.json(0, &["archives", "list", "--tenant", "acme-lab"])["archives"][0]["id"],
        archive
    );
    let manifest = &ctl.json(0, &["archives", "show", archive])["archive"]["manifest"];
    assert!(manifest.is_object(), "{manifest}");
    let operations = ctl.json(0, &["operations", "list", "--tenant", id]);
    let kinds: Vec<&str> = operations["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["offboard", "offboard", "migrate", "provision"]);
    let offboarding = removed["operation"]["id"].as_str().unwrap();
    let steps = ctl.json(0, &["operations", "show", offboarding]);
    assert_eq!(steps["steps"].as_array().unwrap().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_comes_from_standard_input_or_a_variable_and_a_weak_one_is_refused() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    let operator = ["operator", "create", "--json", "--email"];
    let create = |email: &'static str, rest: &[&'static str]| [&operator[..], &[email], rest].concat();

    let said = ctl
        .typed(
            &create("one@example.org", &["--password-stdin"]),
            "correct horse battery\n",
        )
        .expect(0);
    assert_eq!(said.json()["generatedPassword"], json!(null));
    let weak = ctl
        .typed(&create("two@example.org", &["--password-stdin"]), "short\n")
        .expect(2);
    assert!(weak.stderr.contains("12"), "{weak:?}");
    assert!(!weak.stderr.contains("short\n"), "{weak:?}");
    let by_variable = Ctl::on(&space).with("TENANTRY_OPERATOR_PASSWORD", "correct horse battery");
    assert_eq!(
        by_variable.run(&create("two@example.org", &[])).expect(0).json()["generatedPassword"],
        json!(null)
    );

    // However loud the log, neither passwords nor their hashes are in it.
    let provision = [
        "provision",
        "acme-lab",
        "--name",
        "Acme",
        "--admin-email",
        "ada@example.org",
    ];
    let loud = Ctl::on(&space)
        .with("TENANTRY_ADMIN_PASSWORD", "correct horse battery")
        .with("TENANTRY_LOG_FILTER", "trace")
        .run(&provision)
        .expect(0);
    assert!(loud.stderr.contains(" INFO "), "{loud:?}");
    assert!(
        !loud.stderr.contains("argon2id") && !loud.stderr.contains("horse"),
        "{loud:?}"
    );

    let taken = ctl.run(&create("ONE@example.org", &[])).expect(5);
    assert!(taken.stderr.contains("registered already"), "{taken:?}");
    let operators = ctl.json(0, &["operator", "list"]);
    assert_eq!(operators["operators"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_gets_a_new_password_is_disabled_and_comes_back_by_name() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space).with("TENANTRY_OPERATOR_PASSWORD", "correct horse battery");
    ctl.json(0, &["operator", "create", "--email", "ops@example.org"]);
    let state = || ctl.json(0, &["operator", "list"])["operators"][0].clone();
    let created = state();
    assert_eq!(created["disabledAt"], json!(null));

    let said = ctl
        .typed(
            &[
                "operator",
                "set-password",
                "OPS@example.org",
                "--password-stdin",
                "--json",
            ],
            "another good one\n",
        )
        .expect(0);
    assert_eq!(said.json()["operator"], created);
    assert_eq!(said.json()["generatedPassword"], json!(null));
    let weak = ctl
        .typed(
            &["operator", "set-password", "ops@example.org", "--password-stdin"],
            "short\n",
        )
        .expect(2);
    assert!(weak.stderr.contains("12"), "{weak:?}");

    ctl.run(&["operator", "disable", "ops@example.org"]).expect(0);
    assert!(state()["disabledAt"].is_string());
    ctl.run(&["operator", "enable", "ops@example.org"]).expect(0);
    assert_eq!(state(), created);
    for what in ["set-password", "disable", "enable"] {
        let nobody = ctl.json(4, &["operator", what, "nobody@example.org"]);
        assert_eq!(nobody["error"]["kind"], "not_found");
    }
    let registry = registry::Registry::new(&space.registry, registry::RegistryOptions::default());
    let client = registry.client().await.unwrap();
    let lines = registry::audit_list(&client, &registry::AuditFilter::default(), None, 100)
        .await
        .unwrap();
    let actions: Vec<String> = (lines.iter().rev())
        .filter(|line| line.detail["email"] == "ops@example.org")
        .map(|line| format!("{} {}", line.actor, line.action))
        .collect();
    assert_eq!(
        actions,
        [
            "terminal:ada operator.created",
            "terminal:ada operator.password_set",
            "terminal:ada operator.disabled",
            "terminal:ada operator.enabled"
        ]
    );
}
