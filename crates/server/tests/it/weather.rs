//! Bad weather: laboratories that are not in service, servers that are away.

use serde_json::json;
use testkit::eventually;

use crate::support::{LIMIT, Lab, Tenantd, World};

#[tokio::test]
async fn a_suspended_laboratory_says_so_and_comes_back_whole() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let (d, ops) = (&world.server, &world.operator);
    let patient = lab.patient(d).await;
    d.post(ops, &format!("/api/v1/tenants/{}/suspend", lab.id), json!({}))
        .await
        .expect(200);
    refused_soon(d, &lab.receptionist, 403, "tenant-suspended").await;
    let login = d
        .try_log_in(&Lab::email("acme-lab", "admin"), crate::support::PASSWORD, None)
        .await;
    login.refused(403, "tenant-suspended");
    let wrong = d
        .try_log_in(&Lab::email("acme-lab", "admin"), "wrong password 1", None)
        .await;
    wrong.refused(401, "login-failed");
    let health = d
        .get(&lab.admin, &format!("/api/v1/tenants/{}/health", lab.id))
        .await
        .expect(200);
    assert_eq!(
        (&health["status"], &health["registry"]["status"]),
        (&json!("degraded"), &json!("suspended"))
    );
    d.post(ops, &format!("/api/v1/tenants/{}/resume", lab.id), json!({}))
        .await
        .expect(200);
    let path = format!("/api/v1/patients/{}", patient["id"].as_str().unwrap());
    eventually("the laboratory serves again", LIMIT, async || {
        d.get(&lab.receptionist, &path).await.status == 200
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn a_laboratory_whose_schema_is_behind_or_ahead_is_not_touched() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    for (version, code) in [(9_999, "version-ahead"), (0, "version-behind")] {
        world
            .registry_execute(&format!(
                "UPDATE tenants SET db_version = {version} WHERE slug = 'acme-lab'"
            ))
            .await;
        refused_soon(d, &lab.receptionist, 503, code).await;
        d.try_log_in(&Lab::email("acme-lab", "admin"), crate::support::PASSWORD, None)
            .await
            .refused(503, code);
        let health = d
            .get(&lab.admin, &format!("/api/v1/tenants/{}/health", lab.id))
            .await
            .expect(200);
        assert_eq!(health["schema"]["fit"], code.strip_prefix("version-").unwrap());
    }
    let behind = d.get(&lab.receptionist, "/api/v1/patients").await;
    assert!(!behind.header("retry-after").is_empty(), "{behind:?}");
    world.stop().await;
}

#[tokio::test]
async fn an_unreachable_server_of_one_laboratory_leaves_the_others_in_service() {
    let world = World::start_with(|env| {
        env.insert("TENANTRY_ROUTER_CONNECT_TIMEOUT_MS".to_owned(), "1000".to_owned());
    })
    .await;
    let (lab, other) = (world.lab("acme-lab").await, world.lab("bravo-lab").await);
    let d = &world.server;
    // Port 1 answers nobody. The row's change makes every router look again.
    world
        .registry_execute(
            "INSERT INTO servers (name, host, port, admin_user, admin_secret)
                 SELECT 'gone', host, 1, admin_user, admin_secret FROM servers LIMIT 1;
             UPDATE tenants SET server = 'gone' WHERE slug = 'acme-lab'",
        )
        .await;
    refused_soon(d, &lab.receptionist, 503, "tenant-server-unavailable").await;
    let health = d
        .get(&lab.admin, &format!("/api/v1/tenants/{}/health", lab.id))
        .await
        .expect(200);
    assert_eq!(
        health["connection"],
        json!({
        "ok": false, "checkoutMs": null, "roundTripMs": null, "problem": "tenant-server-unavailable" })
    );
    d.get(&other.receptionist, "/api/v1/patients").await.expect(200);
    d.get("", "/readyz").await.expect(200);
    world.stop().await;
}

#[tokio::test]
async fn an_offboarded_laboratory_leaves_an_archive_and_its_tokens_open_nothing() {
    let world = World::start().await;
    let (lab, other) = (world.lab("acme-lab").await, world.lab("bravo-lab").await);
    let (d, ops) = (&world.server, &world.operator);
    lab.patient(d).await;
    let asked = d
        .post(ops, &format!("/api/v1/tenants/{}/offboard", lab.id), json!({}))
        .await;
    let location = asked.header("location").to_owned();
    asked.expect(202);
    let during = d.get(&lab.receptionist, "/api/v1/patients").await;
    assert!(
        ["tenant-deleting", "unknown-tenant"].contains(&during.code()),
        "{during:?}"
    );
    let operation = crate::support::finished(d, ops, &location).await;
    assert_eq!(operation["status"], "succeeded", "{operation}");
    refused_soon(d, &lab.receptionist, 404, "unknown-tenant").await;
    d.try_log_in(&Lab::email("acme-lab", "admin"), crate::support::PASSWORD, None)
        .await
        .refused(401, "login-failed");
    let archives = d.get(ops, "/api/v1/archives").await.expect(200);
    assert_eq!(archives["items"][0]["tenantSlug"], "acme-lab");
    let file = archives["items"][0]["location"].as_str().unwrap().to_owned();
    assert!(std::path::Path::new(&file).exists(), "{file}");
    d.get(ops, &format!("/api/v1/tenants/{}", lab.id))
        .await
        .refused(404, "unknown-tenant");
    d.get(&other.receptionist, "/api/v1/patients").await.expect(200);
    world.stop().await;
}

/// The registry tells the router within moments; until it has, the old state is served.
async fn refused_soon(d: &Tenantd, token: &str, status: u16, code: &str) {
    eventually(code, LIMIT, async || {
        d.get(token, "/api/v1/patients").await.code() == code
    })
    .await;
    d.get(token, "/api/v1/patients").await.refused(status, code);
}
