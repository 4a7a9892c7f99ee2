//! Mistakes around an installation: another namespace in one shell, a password that was changed on the server
//! alone, a database that was dropped by hand.

use testkit::Space;

use crate::{ctl::Ctl, shared_server::Existing};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn another_namespace_than_the_laboratories_is_refused_before_anything_is_changed() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("acme-lab");
    let other = format!("o{}", &space.namespace.as_str()[1..]);
    let elsewhere = Ctl::on(&space).with("TENANTRY_NAMES_NAMESPACE", &other);
    for args in [
        &["up", "--no-serve"][..],
        &["doctor"],
        &["doctor", "--deep", "--fix"],
        &["list"],
        &["migrate", "acme-lab"],
        &["migrate", "--all"],
        &[
            "provision",
            "b-lab",
            "--name",
            "B",
            "--admin-email",
            "b@example.org",
        ],
    ] {
        let said = elsewhere.run(args).expect(5);
        let named =
            said.stderr.contains("TENANTRY_NAMES_NAMESPACE") && said.stderr.contains("_tenant_acme-lab");
        assert!(named, "{args:?}: {said:?}");
    }
    let server = pg::connect(&space.server, "test", LIMIT).await.unwrap();
    let sql = "SELECT (SELECT count(*) FROM pg_database WHERE starts_with(datname::text, $1))
                    + (SELECT count(*) FROM pg_roles WHERE starts_with(rolname::text, $1))";
    let made: i64 = server
        .query_one(sql, &[&format!("{other}_")])
        .await
        .unwrap()
        .get(0);
    assert_eq!(made, 0);
    ctl.run(&["doctor", "--deep"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_changed_on_the_server_alone_leads_to_the_command_that_stores_it() {
    let existing = Existing::start().await;
    let ctl = existing.ctl();
    ctl.run(&["up", "--no-serve"]).expect(0);
    existing
        .run("ALTER ROLE CURRENT_USER PASSWORD 'another-one'")
        .await;
    let ctl = ctl.with("MASTER_PGPASSWORD", "another-one");
    let said = ctl.run(&["doctor"]).expect(3);
    assert!(said.stdout.contains("tenantctl up --no-serve"), "{said:?}");
    ctl.run(&["up", "--no-serve"]).expect(0);
    ctl.run(&["doctor"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_laboratory_of_which_nothing_is_left_can_be_forgotten_with_a_word_of_its_own() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    ctl.provision("acme-lab");
    let forget = ["forget", "acme-lab", "--confirm", "acme-lab"];
    let word = [&forget[..], &["--without-archive"]].concat();
    // Not as long as its database is there.
    ctl.run(&word).expect(5);
    let server = pg::connect(&space.server, "test", LIMIT).await.unwrap();
    let name = format!("{}_tenant_acme-lab", space.namespace.as_str());
    server
        .batch_execute(&format!("DROP DATABASE \"{name}\" WITH (FORCE)"))
        .await
        .unwrap();
    let said = ctl.run(&forget).expect(5);
    assert!(said.stderr.contains("--without-archive"), "{said:?}");
    ctl.run(&word).expect(0);
    ctl.run(&["doctor", "--deep", "--fix"]).expect(0);
    ctl.run(&["doctor", "--deep"]).expect(0);
}
