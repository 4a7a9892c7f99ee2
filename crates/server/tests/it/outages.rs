//! Bad weather: laboratories that are not in service, servers that are away.

use serde_json::json;
use testkit::eventually;

use crate::support::{Door, LIMIT, Lab, PASSWORD, Tenantd, World, at_once, environment};

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
        .try_log_in(&Lab::email("acme-lab", "admin"), PASSWORD, None)
        .await;
    login.refused(403, "tenant-suspended");
    let wrong = d
        .try_log_in(&Lab::email("acme-lab", "admin"), "wrong password 1", None)
        .await;
    wrong.refused(401, "login-failed");
    let health = d
        .get(ops, &format!("/api/v1/tenants/{}/health", lab.id))
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
        d.try_log_in(&Lab::email("acme-lab", "admin"), PASSWORD, None)
            .await
            .refused(503, code);
        let health = d
            .get(&world.operator, &format!("/api/v1/tenants/{}/health", lab.id))
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
async fn a_refused_log_in_does_not_blame_a_server_that_answers() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let role = format!("{}_tenant_acme-lab", world.space.namespace.as_str());
    // As the role itself could: its pooled connections go on, and end here.
    world
        .registry_execute(&format!(
            "ALTER ROLE \"{role}\" PASSWORD 'of its own';
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
        ))
        .await;
    refused_soon(d, &lab.receptionist, 503, "tenant-login-refused").await;
    let told = d.get(&lab.receptionist, "/api/v1/patients").await;
    assert!(!told.header("retry-after").is_empty(), "{told:?}");
    let page = d.get("", "/problems/tenant-login-refused").await.expect(200);
    assert!(page.to_string().contains("tenantctl doctor --deep"), "{page}");
    world.stop().await;
}

#[tokio::test]
async fn an_offboarded_laboratory_leaves_an_archive_and_its_tokens_open_nothing() {
    let world = World::start().await;
    let (lab, other) = (world.lab("acme-lab").await, world.lab("bravo-lab").await);
    let (d, ops) = (&world.server, &world.operator);
    lab.patient(d).await;
    let asked = d
        .post(
            ops,
            &format!("/api/v1/tenants/{}/offboard", lab.id),
            at_once("acme-lab"),
        )
        .await;
    let location = asked.header("location").to_owned();
    asked.expect(202);
    let operation = crate::support::finished(d, ops, &location).await;
    assert_eq!(operation["status"], "succeeded", "{operation}");
    refused_soon(d, &lab.receptionist, 404, "unknown-tenant").await;
    d.try_log_in(&Lab::email("acme-lab", "admin"), PASSWORD, None)
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

#[tokio::test]
async fn a_laboratory_that_is_being_removed_says_so_and_takes_nothing_more() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let World {
        server,
        operator,
        space,
    } = world;
    assert_eq!(server.stop().await, Some(0));
    // This one's worker stops before the dump, for as long as the test looks.
    let mut env = environment(&space);
    env.insert(
        "TENANTRY_FAULT_POINT".to_owned(),
        "offboard/dump/begun".to_owned(),
    );
    let file = space.dir().join("reached");
    env.insert("TENANTRY_FAULT_FILE".to_owned(), file.display().to_string());
    let d = Tenantd::start(&space, env).await;
    let asked = d
        .post(
            &operator,
            &format!("/api/v1/tenants/{}/offboard", lab.id),
            at_once("acme-lab"),
        )
        .await;
    let location = asked.header("location").to_owned();
    asked.expect(202);
    eventually("the dump is about to begin", LIMIT, async || file.exists()).await;
    d.get(&lab.receptionist, "/api/v1/patients")
        .await
        .refused(403, "tenant-deleting");
    let patient =
        json!({ "familyName": "Curie", "givenName": "Marie", "sex": "F", "birthDate": "1967-11-07" });
    d.post(&lab.receptionist, "/api/v1/patients", patient)
        .await
        .refused(403, "tenant-deleting");
    d.try_log_in(&Lab::email("acme-lab", "admin"), PASSWORD, None)
        .await
        .refused(403, "tenant-deleting");
    d.kill().await;
    let d = Tenantd::start(&space, environment(&space)).await;
    let operation = crate::support::finished(&d, &operator, &location).await;
    assert_eq!(operation["status"], "succeeded", "{operation}");
    assert_eq!(d.stop().await, Some(0));
}

#[tokio::test]
async fn an_unreachable_registry_shuts_its_own_calls_and_leaves_known_laboratories_in_service() {
    let space = testkit::Space::new().await;
    let door = Door::before(&space.registry).await;
    // The laboratories' server is reached directly: only the registry is behind the door.
    let mut env = environment(&space);
    for (own, registry) in [
        ("TENANT_PGHOST", "MASTER_PGHOST"),
        ("TENANT_PGPORT", "MASTER_PGPORT"),
        ("TENANT_PGUSER", "MASTER_PGUSER"),
        ("TENANT_PGPASSWORD", "MASTER_PGPASSWORD"),
    ] {
        env.insert(own.to_owned(), env[registry].clone());
    }
    env.insert("MASTER_PGHOST".to_owned(), "127.0.0.1".to_owned());
    env.insert("MASTER_PGPORT".to_owned(), door.port().to_string());
    env.insert(
        "TENANTRY_REGISTRY_CONNECT_TIMEOUT_MS".to_owned(),
        "1000".to_owned(),
    );
    let world = World::start_in(space, env).await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    d.get(&lab.receptionist, "/api/v1/patients").await.expect(200);
    door.shut();
    let wants_registry = [
        d.try_log_in(&Lab::email("acme-lab", "admin"), PASSWORD, None)
            .await,
        d.get(&world.operator, "/api/v1/tenants").await,
    ];
    for reply in wants_registry {
        reply.refused(503, "registry-unavailable");
        assert_eq!(reply.header("retry-after"), "2");
    }
    // It serves this laboratory, so requests are to go on coming.
    assert_eq!(d.get("", "/readyz").await.expect(200)["status"], "degraded");
    lab.patient(d).await;
    door.open();
    eventually("ready again", LIMIT, async || {
        d.get("", "/readyz").await.status == 200
    })
    .await;
    d.log_in(&Lab::email("acme-lab", "admin"), None).await;
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
