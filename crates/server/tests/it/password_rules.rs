//! Which passwords, addresses and names are taken, and that how a letter was composed makes no difference.

use serde_json::json;

use crate::support::{Call, Lab, World, new_lab, provision};

const COMPOSED: &str = "zo\u{eb}'s tall giraffe";
const DECOMPOSED: &str = "zoe\u{308}'s tall giraffe";

#[tokio::test]
async fn a_password_that_is_guessed_first_is_refused_wherever_one_is_chosen() {
    let world = World::start().await;
    let (d, ops) = (&world.server, &world.operator);
    for weak in [
        "password1234",
        "qwertyuiop12",
        "P@ssw0rd2024",
        "admin@acme-lab.example",
        "Acme-Lab & Söhne",
        "acme-lab & so\u{308}hne",
        "acme-lab-2024",
        "acmelabacmelab",
    ] {
        let mut body = new_lab("acme-lab");
        body["admin"]["password"] = json!(weak);
        let reply = d.post(ops, "/api/v1/tenants", body).await;
        assert_eq!((reply.status, reply.code()), (422, "weak-password"), "{weak}");
        let detail = reply.json["detail"].as_str().unwrap();
        assert!(detail.contains("unrelated words"), "{detail}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_password_and_an_address_are_the_same_however_they_are_composed() {
    let world = World::start().await;
    let (d, ops) = (&world.server, &world.operator);
    for (slug, set) in [("acme-lab", DECOMPOSED), ("bravo-lab", COMPOSED)] {
        let mut body = new_lab(slug);
        body["admin"]["email"] = json!(format!("zoe\u{308}@{slug}.example"));
        body["admin"]["password"] = json!(set);
        let asked = d.post(ops, "/api/v1/tenants", body).await;
        let location = asked.header("location").to_owned();
        asked.expect(202);
        crate::support::finished(d, ops, &location).await;
        for typed in [COMPOSED, DECOMPOSED] {
            for name in ["zo\u{eb}", "zoe\u{308}", "Zo\u{cb}"] {
                d.try_log_in(&format!("{name}@{slug}.example"), typed, None)
                    .await
                    .expect(200);
            }
        }
        d.try_log_in(&format!("zo\u{eb}@{slug}.example"), "zoe's tall giraffe", None)
            .await
            .refused(401, "login-failed");
    }
    world.stop().await;
}

#[tokio::test]
async fn no_address_or_name_is_taken_that_looks_like_another() {
    let world = World::start().await;
    let d = &world.server;
    provision(d, &world.operator, "acme-lab").await;
    let admin = d.log_in(&Lab::email("acme-lab", "admin"), None).await;
    let add = async |email: &str, name: &str| {
        let body = json!({ "email": email, "displayName": name, "role": "technician" });
        d.send(&Call::new("POST", "/api/v1/staff").json(&body), &admin)
            .await
    };
    for (email, name) in [
        ("t\u{456}na@acme-lab.example", "Tina"),
        ("tina@acme-l\u{430}b.example", "Tina"),
        ("tina\u{202E}@acme-lab.example", "Tina"),
        ("ti\u{200B}na@acme-lab.example", "Tina"),
        ("tina@acme-lab.example", "Ti\u{200B}na"),
        ("tina@acme-lab.example", "\u{202E}aniT"),
        ("tina@acme-lab.example", "\u{200B}"),
    ] {
        let reply = add(email, name).await;
        assert_eq!(
            (reply.status, reply.code()),
            (422, "invalid"),
            "{email:?} {name:?}: {}",
            reply.text
        );
    }
    let added = add("\u{a0}tina@acme-lab.example ", " Tina\u{3000}O'Neil ")
        .await
        .expect(201);
    assert_eq!(
        (&added["email"], &added["displayName"]),
        (&json!("tina@acme-lab.example"), &json!("Tina O'Neil"))
    );
    add("TINA@acme-lab.example\u{200B}", "Tina")
        .await
        .refused(409, "duplicate");
    let mut body = new_lab("bravo-lab");
    body["name"] = json!("Bravo\u{202E}Lab");
    d.post(&world.operator, "/api/v1/tenants", body)
        .await
        .refused(422, "invalid");
    world.stop().await;
}
