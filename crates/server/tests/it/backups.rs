//! Backups, their schedules, archives and removals, in the details of the API: bad input, other states,
//! repetition, pages.

use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{Call, LIMIT, Reply, World, connect, finished, provision};

const STAND_IN: &str = "0190a5b0-0000-7000-8000-000000000001";

async fn keyed(world: &World, path: &str, body: &Value, key: &str) -> Reply {
    let call = Call::new("POST", path).json(body).header("idempotency-key", key);
    world.server.send(&call, &world.operator).await
}

async fn post(world: &World, path: &str, body: Value) -> Reply {
    world.server.post(&world.operator, path, body).await
}

async fn get(world: &World, path: &str) -> Value {
    world.server.get(&world.operator, path).await.expect(200)
}

async fn put(world: &World, path: &str, body: &Value) -> Reply {
    let call = Call::new("PUT", path).json(body);
    world.server.send(&call, &world.operator).await
}

/// Backs a laboratory up and gives the archive's id.
async fn backed_up(world: &World, tenant: &str) -> String {
    let asked = post(world, &format!("/api/v1/tenants/{tenant}/backups"), json!({})).await;
    let location = asked.header("location").to_owned();
    asked.expect(202);
    let ended = finished(&world.server, &world.operator, &location).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let archives = get(world, &format!("/api/v1/archives?tenantId={tenant}")).await;
    archives["items"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_schedule_has_bounds_and_is_gone_with_its_end() {
    let world = World::start().await;
    let id = provision(&world.server, &world.operator, "acme-lab").await;
    let path = format!("/api/v1/tenants/{id}/backup-schedule");
    let none = world.server.get(&world.operator, &path).await;
    none.refused(404, "not-found");
    for (body, pointer) in [
        (json!({ "everySeconds": 3_599, "keepLast": 1 }), "everySeconds"),
        (
            json!({ "everySeconds": 31_622_401, "keepLast": 1 }),
            "everySeconds",
        ),
        (json!({ "everySeconds": u64::MAX, "keepLast": 1 }), "everySeconds"),
        (json!({ "everySeconds": 3_600, "keepLast": 0 }), "keepLast"),
        (json!({ "everySeconds": 3_600, "keepLast": 10_001 }), "keepLast"),
        (
            json!({ "everySeconds": 3_600, "keepLast": 1, "keepForSeconds": 3_599 }),
            "keepForSeconds",
        ),
        (
            json!({ "everySeconds": 3_600, "keepLast": 1, "keepForSeconds": u64::MAX }),
            "keepForSeconds",
        ),
    ] {
        let refused = put(&world, &path, &body).await;
        refused.refused(422, "invalid");
        assert_eq!(refused.json["errors"][0]["pointer"], pointer, "{body}");
    }
    for (body, code) in [
        (json!({ "everySeconds": -1, "keepLast": 1 }), "invalid"),
        (json!({ "everySeconds": "1d", "keepLast": 1 }), "invalid"),
        (json!({ "everySeconds": 3_600 }), "invalid"),
        (json!({ "every": 3_600, "keepLast": 1 }), "unknown-field"),
    ] {
        put(&world, &path, &body).await.refused(422, code);
    }
    // Asked for just now it would be due at once, so the first backup is not waited for here.
    let body = json!({ "everySeconds": 86_400, "keepLast": 7, "keepForSeconds": 172_800 });
    let set = put(&world, &path, &body).await.expect(200);
    assert_eq!(
        (
            &set["tenantId"],
            &set["tenantSlug"],
            &set["everySeconds"],
            &set["keepLast"],
            &set["keepForSeconds"]
        ),
        (
            &json!(id),
            &json!("acme-lab"),
            &json!(86_400),
            &json!(7),
            &json!(172_800)
        )
    );
    let unknown = format!("/api/v1/tenants/{STAND_IN}/backup-schedule");
    put(&world, &unknown, &body).await.refused(404, "unknown-tenant");
    world
        .server
        .get(&world.operator, &unknown)
        .await
        .refused(404, "not-found");
    for status in [204, 204] {
        let ended = world
            .server
            .send(&Call::new("DELETE", &path), &world.operator)
            .await;
        assert_eq!(
            ended.status, status,
            "an end that was told before is an end: {}",
            ended.text
        );
    }
    world
        .server
        .get(&world.operator, &path)
        .await
        .refused(404, "not-found");
    world.stop().await;
}

#[tokio::test]
async fn schedules_and_archives_come_in_pages() {
    let world = World::start().await;
    let mut ids = Vec::new();
    for slug in ["alpha-lab", "bravo-lab", "charlie-lab"] {
        let id = provision(&world.server, &world.operator, slug).await;
        backed_up(&world, &id).await;
        let path = format!("/api/v1/tenants/{id}/backup-schedule");
        let body = json!({ "everySeconds": 86_400, "keepLast": 7 });
        put(&world, &path, &body).await.expect(200);
        ids.push(id);
    }
    let slugs = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap();
        let slug = |item: &Value| item["tenantSlug"].as_str().unwrap().to_owned();
        items.iter().map(slug).collect()
    };
    let path = "/api/v1/backup-schedules?limit=2";
    let first = world.server.get(&world.operator, path).await;
    assert_eq!(
        first.header("link"),
        "</api/v1/backup-schedules?limit=2&after=bravo-lab>; rel=\"next\""
    );
    assert_eq!(slugs(&first.json), ["alpha-lab", "bravo-lab"]);
    let second = world
        .server
        .get(&world.operator, &format!("{path}&after=bravo-lab"))
        .await;
    assert_eq!(slugs(&second.json), ["charlie-lab"]);
    assert_eq!((second.header("link"), &second.json["next"]), ("", &Value::Null));

    // Archives newest first; a schedule's own first backups may be among them.
    let mut seen = Vec::new();
    let mut path = "/api/v1/archives?limit=1".to_owned();
    loop {
        let page = get(&world, &path).await;
        assert_eq!(page["items"].as_array().unwrap().len(), 1);
        seen.push(page["items"][0].clone());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/archives?limit=1&after={next}");
    }
    let key = |archive: &Value| archive["id"].as_str().unwrap().to_owned();
    assert!(
        seen.len() >= 3 && seen.windows(2).all(|pair| key(&pair[0]) > key(&pair[1])),
        "{seen:?}"
    );
    let of_one = get(&world, &format!("/api/v1/archives?tenantId={}", ids[0])).await;
    assert!(slugs(&of_one).iter().all(|slug| slug == "alpha-lab"));
    let of_none = get(&world, &format!("/api/v1/archives?tenantId={STAND_IN}")).await;
    assert_eq!(of_none["items"], json!([]));

    for path in ["/api/v1/backup-schedules", "/api/v1/archives"] {
        for (query, status, code) in [
            ("limit=0", 422, "invalid"),
            ("limit=201", 422, "invalid"),
            ("limit=many", 400, "bad-query"),
            ("after=%00", 422, "invalid"),
            ("after=No%20Cursor", 422, "invalid"),
            ("page=2", 400, "bad-query"),
        ] {
            let refused = world
                .server
                .get(&world.operator, &format!("{path}?{query}"))
                .await;
            refused.refused(status, code);
        }
    }
    world.stop().await;
}

#[tokio::test]
async fn a_backup_that_is_asked_for_again_is_the_same_and_other_states_have_none() {
    let world = World::start().await;
    let d = &world.server;
    let id = provision(d, &world.operator, "acme-lab").await;
    let path = format!("/api/v1/tenants/{id}/backups");
    let first = keyed(&world, &path, &json!({}), "b-1").await;
    let location = first.header("location").to_owned();
    let first = first.expect(202);
    let again = keyed(&world, &path, &json!({}), "b-1").await;
    assert_eq!(
        (again.header("location"), again.json["operationId"].clone()),
        (location.as_str(), first["operationId"].clone())
    );
    finished(d, &world.operator, &location).await;
    assert_eq!(keyed(&world, &path, &json!({}), "b-1").await.expect(202), first);
    // The key is this request's and no other's.
    let archives = get(&world, &format!("/api/v1/archives?tenantId={id}")).await;
    assert_eq!(archives["items"].as_array().unwrap().len(), 1);
    let archive = archives["items"][0]["id"].as_str().unwrap();
    let verify = format!("/api/v1/archives/{archive}/verify");
    keyed(&world, &verify, &json!({}), "b-1")
        .await
        .refused(422, "idempotency-key-reused");
    keyed(&world, &verify, &json!({}), &"k".repeat(200))
        .await
        .refused(400, "bad-header");

    for (path, code) in [
        (format!("/api/v1/tenants/{STAND_IN}/backups"), "unknown-tenant"),
        ("/api/v1/tenants/acme-lab/backups".to_owned(), "not-found"),
        (format!("/api/v1/archives/{STAND_IN}/verify"), "not-found"),
        (format!("/api/v1/archives/{STAND_IN}/restore"), "not-found"),
    ] {
        post(&world, &path, json!({})).await.refused(404, code);
    }
    // A suspended laboratory is backed up, one that is being removed is not.
    let suspend = format!("/api/v1/tenants/{id}/suspend");
    post(&world, &suspend, json!({})).await.expect(200);
    backed_up(&world, &id).await;
    let offboard = format!("/api/v1/tenants/{id}/offboard");
    let removal = post(&world, &offboard, json!({ "graceSeconds": 7200 })).await;
    let location = removal.header("location").to_owned();
    removal.expect(202);
    post(&world, &path, json!({}))
        .await
        .refused(409, "illegal-transition");
    eventually("the grace period", LIMIT, async || {
        get(&world, &location).await["waitingUntil"].is_string()
    })
    .await;
    let in_place = json!({ "inPlace": true, "confirmSlug": "acme-lab" });
    let restore = format!("/api/v1/archives/{archive}/restore");
    post(&world, &restore, in_place)
        .await
        .refused(409, "illegal-transition");
    world.stop().await;
}

#[tokio::test]
async fn a_restore_says_what_it_needs_and_is_the_same_when_it_is_asked_for_again() {
    let world = World::start().await;
    let d = &world.server;
    let id = provision(d, &world.operator, "acme-lab").await;
    let archive = backed_up(&world, &id).await;
    let path = format!("/api/v1/archives/{archive}/restore");
    for (body, status, code) in [
        (json!({}), 409, "illegal-transition"),
        (json!({ "as": "acme-lab" }), 409, "slug-taken"),
        (json!({ "as": "No Slug" }), 422, "invalid-slug"),
        (json!({ "as": "x-lab", "server": "elsewhere" }), 422, "invalid"),
        (json!({ "as": "x-lab", "inPlace": true }), 422, "invalid"),
        (json!({ "inPlace": true, "server": "main" }), 422, "invalid"),
        (json!({ "inPlace": true }), 422, "invalid"),
        (json!({ "inPlace": true, "confirmSlug": "acme" }), 422, "invalid"),
        (json!({ "inplace": true }), 422, "unknown-field"),
    ] {
        let refused = post(&world, &path, body.clone()).await;
        assert_eq!(
            (refused.status, refused.code()),
            (status, code),
            "{body}: {}",
            refused.text
        );
    }
    let body = json!({ "as": "acme-copy" });
    let first = keyed(&world, &path, &body, "r-1").await;
    let location = first.header("location").to_owned();
    let first = first.expect(202);
    assert_eq!(keyed(&world, &path, &body, "r-1").await.expect(202), first);
    keyed(&world, &path, &json!({ "as": "acme-other" }), "r-1")
        .await
        .refused(422, "idempotency-key-reused");
    assert_eq!(
        finished(d, &world.operator, &location).await["status"],
        "succeeded"
    );

    let nothing = post(&world, "/api/v1/archives/prune", json!({ "dryRun": true })).await;
    assert_eq!(
        nothing.expect(200),
        json!({ "dryRun": true, "items": [] }),
        "no schedule, nothing past its time"
    );
    post(
        &world,
        "/api/v1/archives/prune",
        json!({ "tenantId": "acme-lab" }),
    )
    .await
    .refused(422, "invalid");
    post(&world, "/api/v1/archives/prune", json!({ "keep": 1 }))
        .await
        .refused(422, "unknown-field");
    world.stop().await;
}

#[tokio::test]
async fn a_grace_period_is_ended_by_whoever_types_the_slug_once_more() {
    let world = World::start().await;
    let d = &world.server;
    let id = provision(d, &world.operator, "acme-lab").await;
    let made = get(&world, &format!("/api/v1/operations?tenantId={id}")).await;
    let end = |operation: &str| format!("/api/v1/operations/{operation}/end-grace");
    let confirmed = json!({ "confirmSlug": "acme-lab", "reason": "they asked for it" });
    // Nothing waits yet, and what is done never will.
    let done = made["items"][0]["id"].as_str().unwrap();
    let why = async |operation: &str, why: &str| {
        let said = post(&world, &end(operation), confirmed.clone()).await;
        said.refused(409, "conflict");
        assert!(said.text.contains(why), "{}", said.text);
    };
    why(done, "it is done").await;
    for asked in ["cancel", "retry"] {
        let said = post(&world, &format!("/api/v1/operations/{done}/{asked}"), json!({})).await;
        said.refused(409, "conflict");
    }
    post(&world, &end(STAND_IN), confirmed.clone())
        .await
        .refused(404, "not-found");

    let offboard = format!("/api/v1/tenants/{id}/offboard");
    let asked = post(&world, &offboard, json!({ "graceSeconds": 86_400 })).await;
    let location = asked.header("location").to_owned();
    let asked = asked.expect(202);
    let removal = asked["operationId"].as_str().unwrap();
    eventually("the grace period", LIMIT, async || {
        get(&world, &location).await["waitingUntil"].is_string()
    })
    .await;
    for (body, code) in [
        (json!({ "confirmSlug": "acme" }), "invalid"),
        (json!({}), "invalid"),
        (json!({ "confirmSlug": "acme-lab", "now": true }), "unknown-field"),
        (
            json!({ "confirmSlug": "acme-lab", "reason": "a\u{0}b" }),
            "invalid",
        ),
        (json!({ "confirmSlug": "acme-lab", "reason": "a\nb" }), "invalid"),
        (
            json!({ "confirmSlug": "acme-lab", "reason": "é".repeat(501) }),
            "invalid",
        ),
    ] {
        post(&world, &end(removal), body).await.refused(422, code);
    }
    let empty = d.send(&Call::new("POST", end(removal)), &world.operator).await;
    assert_eq!(empty.status, 400, "{}", empty.text);
    assert_eq!(get(&world, &location).await["status"], "pending", "it waits on");

    let woken = post(&world, &end(removal), confirmed.clone()).await.expect(202);
    assert_eq!(woken["id"], removal);
    assert_eq!(
        finished(d, &world.operator, &location).await["status"],
        "succeeded"
    );
    let gone = d.get(&world.operator, &format!("/api/v1/tenants/{id}")).await;
    gone.refused(404, "unknown-tenant");
    why(removal, "it is done").await;
    world.stop().await;
}

#[tokio::test]
async fn a_grace_period_that_was_cancelled_is_not_ended() {
    let world = World::start().await;
    let d = &world.server;
    let id = provision(d, &world.operator, "acme-lab").await;
    let offboard = format!("/api/v1/tenants/{id}/offboard");
    let body = json!({ "graceSeconds": 86_400, "reason": "é".repeat(500) });
    let asked = post(&world, &offboard, body).await;
    let location = asked.header("location").to_owned();
    asked.expect(202);
    eventually("the grace period", LIMIT, async || {
        get(&world, &location).await["waitingUntil"].is_string()
    })
    .await;
    // Nobody has taken the cancellation up yet.
    let held = connect(&world.space.registry).await;
    let sql = "UPDATE operations SET cancel_requested_at = now(), cancel_requested_by = 'terminal:ada'
                WHERE kind = 'offboard'";
    held.execute(sql, &[]).await.unwrap();
    let said = post(
        &world,
        &format!("{location}/end-grace"),
        json!({ "confirmSlug": "acme-lab" }),
    )
    .await;
    said.refused(409, "conflict");
    assert!(said.text.contains("it was cancelled"), "{}", said.text);
    let sql = "SELECT count(*) FROM audit_log WHERE action = 'operation.grace_ended'";
    let ended: i64 = held.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(ended, 0);
    world.stop().await;
}

#[tokio::test]
async fn a_text_that_the_registry_cannot_store_is_the_clients_to_mend() {
    let world = World::start().await;
    let d = &world.server;
    let mut lab = crate::support::new_lab("acme-lab");
    lab["name"] = json!("Acme\u{0}");
    d.post(&world.operator, "/api/v1/tenants", lab)
        .await
        .refused(422, "invalid");
    let id = provision(d, &world.operator, "acme-lab").await;
    for (path, body) in [
        ("offboard", json!({ "reason": "a\u{0}b" })),
        ("offboard", json!({ "reason": "x".repeat(501) })),
    ] {
        let path = format!("/api/v1/tenants/{id}/{path}");
        post(&world, &path, body).await.refused(422, "invalid");
    }
    let restore = format!("/api/v1/archives/{STAND_IN}/restore");
    let body = json!({ "as": "acme-two", "reason": "\u{7}" });
    post(&world, &restore, body).await.refused(422, "invalid");
    world.stop().await;
}
