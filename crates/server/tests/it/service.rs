//! The process itself: its start, its figures, its description, its end.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use testkit::{Space, eventually};

use crate::support::{Call, LIMIT, Lab, PASSWORD, Tenantd, World, connect, environment};

#[tokio::test]
async fn a_registry_that_nobody_prepared_is_named_at_the_start() {
    let space = Space::new().await;
    let said = Tenantd::fails_to_start(&space, environment(&space)).await;
    assert!(said.contains("tenantctl up"), "{said}");
    let mut env = environment(&space);
    env.insert("MASTER_PGPORT".to_owned(), "1".to_owned());
    let said = Tenantd::fails_to_start(&space, env).await;
    assert!(
        said.contains("cannot be reached") || said.contains("cannot connect"),
        "{said}"
    );
    let mut env = environment(&space);
    env.insert("TENANTRY_HTTP_LISTEM".to_owned(), "x".to_owned());
    let said = Tenantd::fails_to_start(&space, env).await;
    assert!(said.contains("TENANTRY_HTTP_LISTEM"), "{said}");
}

#[tokio::test]
async fn the_description_is_true_and_a_page_shows_it() {
    let world = World::start().await;
    let d = &world.server;
    let document = d.get("", "/openapi.json").await.expect(200);
    assert_eq!(
        document["openapi"].as_str().unwrap().rsplit_once('.').unwrap().0,
        "3.1"
    );
    let (mut ids, mut references) = (BTreeSet::new(), BTreeSet::new());
    collect(&document, &mut references);
    for reference in &references {
        let found = document.pointer(reference.strip_prefix('#').unwrap());
        assert!(found.is_some(), "{reference} leads nowhere");
    }
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let route = format!("{method} {path}");
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
                "{route}"
            );
            assert!(
                !operation["summary"].as_str().unwrap_or("").is_empty(),
                "{route} has no summary"
            );
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let stated: BTreeSet<_> = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
                .collect();
            let used: BTreeSet<_> = path
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                .map(str::to_owned)
                .collect();
            assert_eq!(stated, used, "{route}");
            // It is served: with no token it asks for one, or answers.
            let address = path
                .replace("{id}", &world.space.namespace.as_str().replace('t', "x"))
                .replace("{code}", "x")
                .replace("{barcode}", "x");
            let reply = d.send(&Call::new(&method.to_uppercase(), address), "").await;
            assert!(
                !["no-such-route", "method-not-allowed"].contains(&reply.code())
                    || path.starts_with("/problems"),
                "{route}: {}",
                reply.text
            );
            let open = operation["security"] == json!([{}]);
            assert!(
                open || reply.status == 401,
                "{route} answers {} without a token",
                reply.status
            );
        }
    }
    let page = d.get("", "/docs").await;
    assert!(
        page.text.contains("swagger-ui") && !page.text.contains("https://"),
        "{}",
        page.text
    );
    d.get("", "/docs/swagger-ui-bundle.js").await;
    world.stop().await;
}

fn collect(value: &serde_json::Value, references: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, inner) in map {
                if key == "$ref" {
                    references.insert(inner.as_str().unwrap().to_owned());
                }
                collect(inner, references);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}

#[tokio::test]
async fn figures_and_health_tell_what_happened() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    for _ in 0..3 {
        d.get(&lab.receptionist, "/api/v1/patients").await.expect(200);
    }
    d.get("", "/api/v1/patients/some/nonsense/of/a/scanner")
        .await
        .refused(404, "no-such-route");
    let figures = d.get("", "/metrics").await;
    assert!(
        figures
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    let value = |series: &str| {
        let line = figures
            .text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{}", figures.text))
            .parse::<f64>()
            .unwrap()
    };
    let route =
        "tenantry_http_request_seconds_count{method=\"GET\",route=\"/api/v1/patients\",status=\"2xx\"}";
    assert!(value(route) >= 3.0);
    assert!(value("tenantry_tenant_request_seconds_count{tenant=\"acme-lab\"}") >= 3.0);
    assert!(value("tenantry_tenant_errors_total{tenant=\"acme-lab\"}") < 1.0);
    assert!(value("tenantry_tenant_connections_idle{tenant=\"acme-lab\"}") >= 1.0);
    assert!(value("tenantry_tenant_connections_in_use{tenant=\"acme-lab\"}") < 1.0);
    assert!((value("tenantry_pools_open") - 1.0).abs() < 0.5);
    assert!(value("tenantry_pools_closed_total{reason=\"least_recently_used\"}") < 1.0);
    assert!(value("tenantry_operations_live{status=\"running\"}") < 1.0);
    assert!((value("tenantry_registry_up") - 1.0).abs() < 0.5);
    assert!(figures.text.contains("route=\"unmatched\""));
    assert!(
        !figures.text.contains("scanner"),
        "an address as it was sent is no label"
    );

    for token in [&lab.technician, &world.operator] {
        let health = d
            .get(token, &format!("/api/v1/tenants/{}/health", lab.id))
            .await
            .expect(200);
        assert_eq!(
            (&health["status"], &health["registry"]["slug"]),
            (&json!("ok"), &json!("acme-lab"))
        );
        assert_eq!(
            (&health["schema"]["fit"], &health["connection"]["ok"]),
            (&json!("inside"), &json!(true))
        );
        assert!(health["connection"]["roundTripMs"].as_f64().unwrap() > 0.0);
        assert_eq!(health["pool"]["max"], 4);
    }
    world.stop().await;
}

#[tokio::test]
async fn a_trace_goes_in_and_out_and_answers_are_dressed() {
    let world = World::start().await;
    let d = &world.server;
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let call = Call::new("GET", "/api/v1/me").header("traceparent", format!("00-{id}-00f067aa0ba902b7-01"));
    let reply = d.send(&call, "").await;
    reply.refused(401, "token-missing");
    assert_eq!(reply.json["traceId"], id);
    assert!(
        reply.header("traceparent").starts_with(&format!("00-{id}-")),
        "{reply:?}"
    );
    assert_eq!(reply.header("x-content-type-options"), "nosniff");
    assert_eq!(reply.header("cache-control"), "no-store");
    assert!(reply.headers.get("access-control-allow-origin").is_none());
    d.logged(id).await;
    let fresh = d.get("", "/livez").await;
    assert_eq!(fresh.header("traceparent").len(), 55);
    world.stop().await;
}

#[tokio::test]
async fn no_secret_and_no_name_of_a_patient_reaches_the_log() {
    let world = World::start_with(|env| {
        env.insert("TENANTRY_LOG_FILTER".to_owned(), "debug".to_owned());
    })
    .await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let patient = lab.patient(d).await;
    let name = patient["familyName"].as_str().unwrap();
    d.get(&lab.receptionist, &format!("/api/v1/patients?q={name}"))
        .await
        .expect(200);
    d.try_log_in(&Lab::email("acme-lab", "admin"), "a wrong password 7", None)
        .await;
    let (admin, name) = (lab.admin.clone(), name.to_owned());
    let log = world.stop_and_log().await;
    assert!(log.contains("stopped"), "all of it is there: {log}");
    for secret in [
        PASSWORD,
        "a wrong password 7",
        admin.as_str(),
        "$argon2",
        name.as_str(),
    ] {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn a_signal_lets_the_request_under_way_finish_and_takes_no_other() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let World {
        mut server, space, ..
    } = world;
    // A lock keeps the request under way for as long as the test wants.
    let database = format!("{}_tenant_acme-lab", space.namespace.as_str());
    let blocker = connect(&space.server.with_database(database)).await;
    blocker
        .batch_execute("BEGIN; LOCK TABLE patient IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let call = Call::new("GET", "/api/v1/patients");
    let (client, url, token) = (
        server.client.clone(),
        server.url.clone(),
        lab.receptionist.clone(),
    );
    let request = tokio::spawn(async move { Tenantd::send_with(&client, &url, &call, &token).await });
    eventually("the request waits for the lock", LIMIT, async || {
        let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'patient'::regclass";
        blocker.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    server.signal("TERM").await;
    // A connection of its own each time: it is refused once the listener is closed.
    eventually("nobody else is let in", LIMIT, async || {
        reqwest::Client::new()
            .get(format!("{}/livez", server.url))
            .send()
            .await
            .is_err()
    })
    .await;
    assert!(!request.is_finished());
    blocker.batch_execute("COMMIT").await.unwrap();
    request.await.unwrap().expect(200);
    assert_eq!(server.ended().await, Some(0));
}

#[tokio::test]
async fn a_request_that_outlasts_the_grace_does_not_hold_the_end_up_and_a_second_signal_ends_at_once() {
    for (grace_ms, second, code) in [("300", false, 0), ("600000", true, 130)] {
        let world = World::start_with(|env| {
            env.insert("TENANTRY_HTTP_SHUTDOWN_GRACE_MS".to_owned(), grace_ms.to_owned());
        })
        .await;
        let lab = world.lab("acme-lab").await;
        let World {
            mut server, space, ..
        } = world;
        let database = format!("{}_tenant_acme-lab", space.namespace.as_str());
        let blocker = connect(&space.server.with_database(database)).await;
        blocker
            .batch_execute("BEGIN; LOCK TABLE patient IN ACCESS EXCLUSIVE MODE")
            .await
            .unwrap();
        let (client, url, token) = (
            server.client.clone(),
            server.url.clone(),
            lab.receptionist.clone(),
        );
        let request = tokio::spawn(async move {
            client
                .get(format!("{url}/api/v1/patients"))
                .bearer_auth(token)
                .send()
                .await
                .map(drop)
        });
        eventually("the request waits for the lock", LIMIT, async || {
            let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'patient'::regclass";
            blocker.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
        })
        .await;
        server.signal("INT").await;
        if second {
            eventually("the first signal was taken", LIMIT, async || {
                server.log().contains("stopping")
            })
            .await;
            server.signal("INT").await;
        }
        assert_eq!(server.ended().await, Some(code));
        assert!(request.await.unwrap().is_err(), "the request was cut off");
        blocker.batch_execute("COMMIT").await.unwrap();
    }
}

#[tokio::test]
async fn a_request_past_its_deadline_is_given_up_and_rolled_back() {
    let world = World::start_with(|env| {
        env.insert("TENANTRY_HTTP_REQUEST_TIMEOUT_MS".to_owned(), "3000".to_owned());
    })
    .await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let database = format!("{}_tenant_acme-lab", world.space.namespace.as_str());
    let blocker = connect(&world.space.server.with_database(database)).await;
    blocker
        .batch_execute("BEGIN; LOCK TABLE patient IN EXCLUSIVE MODE")
        .await
        .unwrap();
    let body = json!({ "familyName": "Late", "givenName": "Lea", "sex": "F", "birthDate": "1980-04-01" });
    let late = d.post(&lab.receptionist, "/api/v1/patients", body).await;
    late.refused(503, "deadline-passed");
    assert_eq!(late.header("retry-after"), "1");
    blocker.batch_execute("COMMIT").await.unwrap();
    let found = d
        .get(&lab.receptionist, "/api/v1/patients?q=Late")
        .await
        .expect(200);
    assert_eq!(found["items"], json!([]));
    // The connection that was given up did not take a place for good.
    for _ in 0..8 {
        d.get(&lab.receptionist, "/api/v1/patients").await.expect(200);
    }
    world.stop().await;
}

#[tokio::test]
async fn a_registry_that_goes_away_is_told_as_such_and_comes_back() {
    let world = World::start().await;
    let d = &world.server;
    // The registry's database closes its doors to everybody and ends who is inside.
    let server = connect(&world.space.server).await;
    let name = model::quote_ident(&world.space.registry.database);
    server
        .batch_execute(&format!("ALTER DATABASE {name} RENAME TO {name}"))
        .await
        .unwrap_err();
    let away = model::quote_ident(&format!("{}_away", world.space.namespace.as_str()));
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    eventually("the registry is away", LIMIT, async || {
        server
            .query(end, &[&world.space.registry.database])
            .await
            .unwrap();
        server
            .batch_execute(&format!("ALTER DATABASE {name} RENAME TO {away}"))
            .await
            .is_ok()
    })
    .await;
    eventually("not ready", LIMIT, async || {
        d.get("", "/readyz").await.status == 503
    })
    .await;
    d.get("", "/livez").await.expect(200);
    assert!(
        d.get("", "/metrics")
            .await
            .text
            .contains("tenantry_registry_up 0")
    );
    let refused = d.try_log_in("admin@acme-lab.example", PASSWORD, None).await;
    assert!(refused.status == 503 || refused.status == 500, "{refused:?}");
    server
        .batch_execute(&format!("ALTER DATABASE {away} RENAME TO {name}"))
        .await
        .unwrap();
    let ready = async || d.get("", "/readyz").await.status == 200;
    eventually("ready again", LIMIT + Duration::from_secs(1), ready).await;
    world.stop().await;
}

#[tokio::test]
async fn a_list_takes_every_page_size_that_its_description_allows() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let document = d.get("", "/openapi.json").await.expect(200);
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let parameters = item["get"]["parameters"].as_array().cloned().unwrap_or_default();
        let Some(limit) = parameters.iter().find(|parameter| parameter["name"] == "limit") else {
            continue;
        };
        let (min, max) = (&limit["schema"]["minimum"], &limit["schema"]["maximum"]);
        assert_eq!(min, 1, "{path}: {limit}");
        let max = max
            .as_u64()
            .unwrap_or_else(|| panic!("{path} has no largest page: {limit}"));
        // Lists below a record are tried by their own tests.
        if path.contains('{') {
            continue;
        }
        for size in [1, max] {
            let mut statuses = Vec::new();
            for token in [&lab.admin, &lab.supervisor, &world.operator] {
                statuses.push(d.get(token, &format!("{path}?limit={size}")).await.status);
            }
            assert!(statuses.contains(&200), "{path}?limit={size}: {statuses:?}");
        }
        tried += 1;
    }
    assert!(tried > 8, "only {tried} lists");
}
