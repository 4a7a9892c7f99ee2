//! Links by which administrators set their passwords.

use serde_json::json;
use testkit::Space;

use crate::ctl::Ctl;

const PROVISION: [&str; 7] = [
    "provision",
    "acme-lab",
    "--name",
    "Acme",
    "--admin-email",
    "ada@example.org",
    "--invite",
];

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_is_invited_and_no_password_is_made_for_them() {
    let space = Space::new().await;
    // The variable is for those who ask for a password; whoever invites has said otherwise.
    let ctl = Ctl::prepared(&space)
        .with("TENANTRY_ADMIN_PASSWORD", "correct horse battery")
        .with("TENANTRY_HTTP_PUBLIC_URL", "https://lab.example/");
    let made = ctl.json(0, &PROVISION);
    assert_eq!(made["tenant"]["status"], "active");
    assert_eq!(made["generatedPassword"], json!(null));
    let first = &made["invitation"];
    let token = first["token"].as_str().unwrap();
    assert_eq!((token.len(), &first["email"]), (43, &json!("ada@example.org")));
    assert_eq!(first["path"], format!("/invitation#{token}"));
    assert_eq!(first["link"], format!("https://lab.example/invitation#{token}"));
    let shown = ctl.json(0, &["show", "acme-lab"]);
    assert_eq!(shown["admins"][0]["hasPassword"], false);
    assert!(
        ctl.run(&["show", "acme-lab"])
            .expect(0)
            .stdout
            .contains("no password yet")
    );

    // Another one, by name or because there is only one.
    let second = ctl.json(0, &["invite", "acme-lab"]);
    let third = ctl.json(0, &["invite", "acme-lab", "--email", "ADA@example.org"]);
    assert_eq!(second["adminId"], third["adminId"]);
    assert_ne!(second["token"], third["token"]);
    let said = ctl.run(&["invite", "acme-lab"]).expect(0);
    assert!(
        said.stdout.contains("https://lab.example/invitation#") && said.stdout.contains("ada@example.org"),
        "{said:?}"
    );
    let plain = Ctl::on(&space).run(&["invite", "acme-lab"]).expect(0);
    assert!(
        plain.stdout.contains("/invitation#") && plain.stdout.contains("http.public_url"),
        "{plain:?}"
    );
    let unknown = ctl
        .run(&["invite", "acme-lab", "--email", "eve@example.org"])
        .expect(4);
    assert!(unknown.stderr.contains("it knows ada@example.org"), "{unknown:?}");
    ctl.run(&["invite", "acme-lb"]).expect(4);
    // Taken back, once: the second time there is nothing left.
    for (revoked, email) in [(true, "ADA@example.org"), (false, "ada@example.org")] {
        let said = ctl.json(0, &["invite", "acme-lab", "--email", email, "--revoke"]);
        assert_eq!(
            (&said["revoked"], &said["email"]),
            (&json!(revoked), &json!("ada@example.org"))
        );
    }
    ctl.run(&["invite", "acme-lab"]).expect(0);
    let said = ctl.run(&["invite", "acme-lab", "--revoke"]).expect(0);
    assert!(said.stdout.contains("is taken back"), "{said:?}");
    let both = [&PROVISION[..], &["--admin-password-stdin"]].concat();
    ctl.run(&both).expect(2);
    // Made already: nothing is said of anybody's password.
    let taken = ctl.run(&PROVISION).expect(5);
    assert!(!taken.stdout.contains('#'), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn taken_up_again_it_invites_again_until_the_admin_has_a_password() {
    let space = Space::new().await;
    let ctl = Ctl::prepared(&space);
    let first = ctl.json(0, &[&PROVISION[..], &["--no-wait"]].concat());
    assert_eq!(first["tenant"]["status"], "provisioning");
    let again = ctl.json(0, &PROVISION);
    assert_eq!(
        (&again["resumed"], &again["tenant"]["status"]),
        (&json!(true), &json!("active"))
    );
    assert_eq!(first["invitation"]["adminId"], again["invitation"]["adminId"]);
    assert_ne!(first["invitation"]["token"], again["invitation"]["token"]);

    // One who was given a password keeps it, and the person at the terminal is told how to go on.
    let bravo: Vec<&str> = PROVISION
        .iter()
        .map(|word| if *word == "acme-lab" { "bravo-lab" } else { word })
        .collect();
    let with_password = Ctl::on(&space).with("TENANTRY_ADMIN_PASSWORD", "correct horse battery");
    let given: Vec<&str> = bravo[..6].iter().copied().chain(["--no-wait"]).collect();
    with_password.run(&given).expect(0);
    let said = ctl.run(&bravo).expect(0);
    assert!(said.stderr.contains("tenantctl invite bravo-lab"), "{said:?}");
    assert!(!said.stdout.contains("/invitation"), "{said:?}");
}
