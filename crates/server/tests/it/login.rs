//! Who gets in, where, and what the others are told.

use serde_json::json;

use crate::support::{Lab, PASSWORD, Tenantd, World, environment};

const REFUSED: (u16, &str) = (401, "login-failed");

#[tokio::test]
async fn an_admin_needs_no_laboratory_and_staff_need_theirs() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let session = d
        .try_log_in(&Lab::email("acme-lab", "admin"), PASSWORD, None)
        .await
        .expect(200);
    assert_eq!(
        (&session["tenantId"], &session["role"]),
        (&json!(lab.id), &json!("lab_admin"))
    );
    assert_eq!(session["tokenType"], "Bearer");
    assert!(session["expiresAt"].as_str().unwrap().ends_with('Z'));
    let me = d
        .get(session["accessToken"].as_str().unwrap(), "/api/v1/me")
        .await
        .expect(200);
    assert_eq!(
        (&me["tenantId"], &me["role"]),
        (&session["tenantId"], &session["role"])
    );

    let technician = Lab::email("acme-lab", "technician");
    for tenant in ["acme-lab", lab.id.as_str()] {
        assert_eq!(
            d.try_log_in(&technician, PASSWORD, Some(tenant))
                .await
                .expect(200)["role"],
            "technician"
        );
    }
    // The same 401 for everything that does not fit, and its reason for ops only.
    let everything_wrong = [
        (technician.as_str(), PASSWORD, None),
        (technician.as_str(), "wrong password 1", Some("acme-lab")),
        (technician.as_str(), PASSWORD, Some("no-such-lab")),
        (technician.as_str(), PASSWORD, Some("No Slug; DROP TABLE tenants")),
        ("nobody@acme-lab.example", PASSWORD, Some("acme-lab")),
        ("admin@acme-lab.example", "wrong password 1", None),
        ("' OR 1=1 --@x", PASSWORD, None),
    ];
    let mut bodies = Vec::new();
    for (email, password, tenant) in everything_wrong {
        let reply = d.try_log_in(email, password, tenant).await;
        if email.starts_with('\'') {
            reply.refused(422, "invalid");
            continue;
        }
        reply.refused(REFUSED.0, REFUSED.1);
        assert!(
            reply.header("www-authenticate").starts_with("Bearer"),
            "{reply:?}"
        );
        let mut body = reply.json;
        body["traceId"] = json!(null);
        bodies.push(body);
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
    d.logged("no default laboratory is configured").await;
    world.stop().await;
}

#[tokio::test]
async fn staff_of_the_default_laboratory_log_in_without_naming_it_by_each_of_its_four_hints() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let database = format!("{}_tenant_acme-lab", world.space.namespace.as_str());
    let technician = Lab::email("acme-lab", "technician");
    let hints = [
        ("DEFAULT_TENANT_ID", lab.id.as_str()),
        ("SINGLE_TENANT_SLUG", "acme-lab"),
        ("DEFAULT_TENANT_DB", database.as_str()),
        ("PGDATABASE", database.as_str()),
    ];
    for (name, value) in hints {
        let mut env = environment(&world.space);
        env.insert(name.to_owned(), value.to_owned());
        let other = Tenantd::start(&world.space, env).await;
        let session = other.try_log_in(&technician, PASSWORD, None).await.expect(200);
        assert_eq!(
            (&session["tenantId"], &session["role"]),
            (&json!(lab.id), &json!("technician")),
            "{name}"
        );
        let token = session["accessToken"].as_str().unwrap();
        other.get(token, "/api/v1/worklist").await.expect(200);
        other
            .try_log_in(&technician, "wrong password 1", None)
            .await
            .refused(REFUSED.0, REFUSED.1);
        assert_eq!(other.stop().await, Some(0));
    }
    world.stop().await;
}

#[tokio::test]
async fn a_hint_that_matches_no_laboratory_is_told_to_ops_and_looks_like_a_wrong_password_outside() {
    let world = World::start_with(|env| {
        env.insert("SINGLE_TENANT_SLUG".to_owned(), "not-there".to_owned());
    })
    .await;
    let reply = world
        .server
        .try_log_in("tina@acme-lab.example", PASSWORD, None)
        .await;
    reply.refused(REFUSED.0, REFUSED.1);
    assert!(!reply.text.contains("not-there"));
    world.server.logged("matches no laboratory").await;
    let log = world.server.log();
    let line = log.lines().find(|line| line.contains("matches no laboratory"));
    assert!(line.unwrap().contains("not-there"), "{log}");
    world.stop().await;
}

#[tokio::test]
async fn staff_who_left_are_refused_at_the_door_and_inside() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let staff = d.get(&lab.admin, "/api/v1/staff").await.expect(200);
    let technician = staff["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["role"] == "technician")
        .unwrap();
    let path = format!("/api/v1/staff/{}", technician["id"].as_str().unwrap());
    let call = crate::support::Call::new("PATCH", path)
        .json(&json!({ "active": false }))
        .version(&technician["version"]);
    d.send(&call, &lab.admin).await.expect(200);
    let email = Lab::email("acme-lab", "technician");
    d.try_log_in(&email, PASSWORD, Some("acme-lab"))
        .await
        .refused(REFUSED.0, REFUSED.1);
    d.get(&lab.technician, "/api/v1/worklist")
        .await
        .refused(401, "token-invalid");
    world.stop().await;
}
