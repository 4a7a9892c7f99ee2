//! A laboratory's data as one archive, as its admin and the operators get it.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
    time::Duration,
};

use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{LIMIT, Lab, World, connect};

/// The files of the archive at `path`.
async fn files(world: &World, token: &str, path: &str) -> BTreeMap<String, String> {
    let url = format!("{}{path}", world.server.url);
    let response = reqwest::Client::new()
        .get(url)
        .bearer_auth(token)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/zip");
    let name = response.headers()["content-disposition"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(
        name.starts_with("attachment; filename=") && name.ends_with(".zip\""),
        "{name}"
    );
    unpacked(&response.bytes().await.unwrap())
}

fn unpacked(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut files = BTreeMap::new();
    for at in 0..zip.len() {
        let mut file = zip.by_index(at).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        files.insert(file.name().unwrap().to_string(), text);
    }
    files
}

fn manifest(files: &BTreeMap<String, String>) -> Value {
    serde_json::from_str(&files["manifest.json"]).unwrap()
}

#[tokio::test]
async fn an_admin_gets_all_of_their_own_laboratory_and_nothing_of_another() {
    let world = World::start().await;
    let (acme, bravo) = (world.lab("acme-lab").await, world.lab("bravo-lab").await);
    world.count_from_elsewhere(&acme).await;
    for lab in [&acme, &bravo] {
        lab.received_order(&world.server, &["K"]).await;
    }
    let of_acme = files(&world, &acme.admin, "/api/v1/exports/archive").await;
    let of_bravo = files(&world, &bravo.admin, "/api/v1/exports/archive").await;

    // Every identifier of the laboratory is in its own archive: nothing is forgotten, and nothing goes
    // elsewhere.
    let (own, other) = (
        of_acme.values().cloned().collect::<String>(),
        of_bravo.values().cloned().collect::<String>(),
    );
    let identifiers = world.identifiers(&acme).await;
    assert!(identifiers.len() > 10);
    for id in identifiers {
        assert!(own.contains(&id), "{id} is not in the laboratory's own archive");
        assert!(!other.contains(&id), "{id} is in the other laboratory's archive");
    }
    let told = manifest(&of_acme);
    assert_eq!(told["laboratory"]["slug"], "acme-lab");
    assert_eq!(told["laboratory"]["name"], "acme-lab & Söhne");
    assert!(!own.contains("$argon2id$"), "a password's hash is in the archive");
    let left_out: Vec<_> = told["leftOut"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["table"].clone())
        .collect();
    let whole_or_in_part = [
        "idempotency_key",
        "refinery_schema_history",
        "staff",
        "staff",
        "staff_invitation",
    ];
    assert_eq!(left_out, whole_or_in_part);

    // Only the admin, and it stands in the laboratory's trail.
    for person in [&acme.receptionist, &acme.technician, &acme.supervisor] {
        let refused = world.server.get(person, "/api/v1/exports/archive").await;
        refused.refused(403, "forbidden");
    }
    let trail = world.server.get(&acme.admin, "/api/v1/audit").await.expect(200);
    let exported = trail["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["action"] == "export.archive");
    assert_eq!(exported.count(), 1, "{trail}");
    world.stop().await;
}

#[tokio::test]
async fn operators_get_the_same_also_of_a_suspended_laboratory() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    lab.received_order(&world.server, &["K"]).await;
    let path = format!("/api/v1/tenants/{}/export", lab.id);
    let by_admin = files(&world, &lab.admin, "/api/v1/exports/archive").await;
    let suspend = format!("/api/v1/tenants/{}/suspend", lab.id);
    world
        .server
        .post(&world.operator, &suspend, json!({}))
        .await
        .expect(200);
    let by_operator = files(&world, &world.operator, &path).await;
    let data = |files: &BTreeMap<String, String>| {
        let data = files
            .iter()
            .filter(|(name, _)| name.starts_with("data/") && *name != "data/audit_event.csv");
        data.map(|(name, text)| (name.clone(), text.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(data(&by_admin), data(&by_operator));
    assert!(by_operator.contains_key("data/patient.csv"));
    let unknown = format!("/api/v1/tenants/{}/export", uuid::Uuid::now_v7());
    world
        .server
        .get(&world.operator, &unknown)
        .await
        .refused(404, "unknown-tenant");
    world.stop().await;
}

/// Fills a table with more than the socket and the pieces that wait can hold.
async fn fill(world: &World, lab: &Lab) {
    let database = format!("{}_tenant_{}", world.space.namespace.as_str(), lab.slug);
    let client = connect(&world.space.server.with_database(database)).await;
    let sql = "INSERT INTO audit_event (action, entity, entity_id, detail)
               SELECT 'test.filler', 'test', i::text,
                      jsonb_build_object('a', md5(random()::text), 'b', md5(random()::text), 'c', md5(random()::text))
                 FROM generate_series(1, 150000) i";
    client.batch_execute(sql).await.unwrap();
}

async fn asked(world: &World, token: &str, path: &str) -> reqwest::Response {
    let url = format!("{}{path}", world.server.url);
    let request = reqwest::Client::new().get(url).bearer_auth(token);
    request.send().await.unwrap()
}

/// An export whose client has read nothing yet, as soon as the laboratory's place is free.
async fn begun(world: &World, token: &str, path: &str) -> reqwest::Response {
    let found = std::cell::RefCell::new(None);
    eventually("the laboratory's place", LIMIT, async || {
        let response = asked(world, token, path).await;
        let free = response.status() != 409;
        *found.borrow_mut() = Some(response);
        free
    })
    .await;
    let response = found.into_inner().unwrap();
    assert_eq!(response.status(), 200);
    response
}

#[tokio::test]
async fn slow_readers_of_one_laboratory_take_one_place_and_no_other_laboratorys() {
    let world = World::start().await;
    let (slow, other) = (world.lab("acme-lab").await, world.lab("bravo-lab").await);
    fill(&world, &slow).await;
    let path = |lab: &Lab| format!("/api/v1/tenants/{}/export", lab.id);
    // It is read no further than its head: the rest waits in the service.
    let first = asked(&world, &slow.admin, "/api/v1/exports/archive").await;
    assert_eq!(first.status(), 200);
    for (token, path) in [
        (&slow.admin, "/api/v1/exports/archive"),
        (&world.operator, path(&slow).as_str()),
    ] {
        let again = world.server.get(token, path).await;
        again.refused(409, "export-in-progress");
        assert_eq!(again.header("retry-after"), "60");
        assert!(
            again.text.contains("one export of a laboratory"),
            "{}",
            again.text
        );
    }
    files(&world, &world.operator, &path(&other)).await;
    drop(first);
    drop(begun(&world, &world.operator, &path(&slow)).await);
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_statement_and_the_laboratory_works_on() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    fill(&world, &lab).await;
    let admin = connect(&world.space.server).await;
    let database = format!("{}_tenant_{}", world.space.namespace.as_str(), lab.slug);
    let copying = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = $1 AND state = 'active' AND starts_with(query, 'COPY')";
        admin.query_one(sql, &[&database]).await.unwrap().get::<_, i64>(0)
    };
    for (token, path) in [
        (&lab.admin, "/api/v1/exports/archive".to_owned()),
        (&world.operator, format!("/api/v1/tenants/{}/export", lab.id)),
    ] {
        let mut response = begun(&world, token, &path).await;
        let first = tokio::time::timeout(LIMIT, response.chunk())
            .await
            .unwrap()
            .unwrap();
        assert!(first.is_some());
        // It reads no further than a few pieces ahead of the client.
        eventually("the export to wait for its client", LIMIT, async || {
            copying().await == 1
        })
        .await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(copying().await, 1, "the export has not waited for its client");
        drop(response);
        eventually("the statement's end", LIMIT, async || copying().await == 0).await;
        world
            .server
            .get(&lab.technician, "/api/v1/worklist")
            .await
            .expect(200);
    }
    // Its place is free again: while it is taken this is refused.
    let whole = begun(&world, &lab.admin, "/api/v1/exports/archive").await;
    let whole = unpacked(&whole.bytes().await.unwrap());
    assert!(manifest(&whole)["rows"].as_u64().unwrap() > 150_000);
    world.stop().await;
}
