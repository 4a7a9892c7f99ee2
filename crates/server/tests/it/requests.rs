//! How requests may be sent: repeated, with a version, in other letters, as HEAD; and that the description
//! tells it.

use serde_json::{Value, json};

use crate::support::{Call, Lab, Tenantd, World, by_code, connect};

/// A critical potassium, entered.
async fn critical(d: &Tenantd, lab: &Lab) -> Value {
    let (_, order) = lab.received_order(d, &["K"]).await;
    lab.enter(d, by_code(&order, "K"), "6.9").await
}

fn notice(result: &Value) -> Call {
    let path = format!(
        "/api/v1/results/{}/critical-notice",
        result["id"].as_str().unwrap()
    );
    Call::new("POST", path).json(&json!({ "notifiedTo": "Dr. Grey", "readBack": true }))
}

async fn count(world: &World, sql: &str) -> i64 {
    let database = format!("{}_tenant_acme-lab", world.space.namespace.as_str());
    let client = connect(&world.space.server.with_database(database)).await;
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_critical_notice_names_the_value_that_was_seen_and_is_written_once() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let result = critical(d, &lab).await;
    let stale = json!(result["version"].as_i64().unwrap() - 1);
    d.send(&notice(&result).version(&stale), &lab.technician)
        .await
        .refused(412, "version-mismatch");
    d.send(&notice(&result).header("if-match", "7"), &lab.technician)
        .await
        .refused(400, "bad-header");

    let call = notice(&result)
        .version(&result["version"])
        .header("idempotency-key", "n1");
    let first = d.send(&call, &lab.technician).await;
    assert_eq!(first.header("etag"), format!("\"{}\"", first.json["version"]));
    let again = d.send(&call, &lab.technician).await;
    assert_eq!((first.status, &first.json), (again.status, &again.json));
    assert_eq!((first.status, first.header("etag")), (200, again.header("etag")));
    assert_eq!(count(&world, "SELECT count(*) FROM critical_notice").await, 1);
    world.stop().await;
}

#[tokio::test]
async fn an_amendment_is_proposed_once() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let (_, order) = lab.received_order(d, &["K"]).await;
    let entered = lab.enter(d, by_code(&order, "K"), "4.1").await;
    let released = lab.release(d, &lab.verify(d, &entered).await).await;
    let path = format!("/api/v1/results/{}/amendments", released["id"].as_str().unwrap());
    let call = Call::new("POST", path)
        .json(&json!({ "value": "4.2", "reason": "mixed up" }))
        .version(&released["version"])
        .header("idempotency-key", "a1");
    let first = d.send(&call, &lab.supervisor).await;
    let again = d.send(&call, &lab.supervisor).await;
    assert_eq!((first.status, &first.json), (200, &again.json), "{}", again.text);
    assert_eq!(count(&world, "SELECT count(*) FROM result_amendment").await, 1);
    world.stop().await;
}

#[tokio::test]
async fn stored_answers_of_yesterday_go_while_new_ones_come() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let patient =
        json!({ "familyName": "Curie", "givenName": "Marie", "sex": "F", "birthDate": "1967-11-07" });
    let call = |key: String| {
        Call::new("POST", "/api/v1/patients")
            .json(&patient)
            .header("idempotency-key", key)
    };
    d.send(&call("old".to_owned()), &lab.receptionist)
        .await
        .expect(201);
    let aged = "WITH aged AS (UPDATE idempotency_key SET created_at = now() - interval '25 hours' RETURNING 1) SELECT count(*) FROM aged";
    assert_eq!(count(&world, aged).await, 1);
    // One keyed request in 64 sweeps: that 2,000 in a row do not happens once in 10^13 runs.
    for n in 0..2_000 {
        d.send(&call(format!("new {n}")), &lab.receptionist)
            .await
            .expect(201);
        if n % 16 == 15 && count(&world, "SELECT count(*) FROM idempotency_key WHERE key = 'old'").await == 0
        {
            world.stop().await;
            return;
        }
    }
    panic!("nothing was swept");
}

#[tokio::test]
async fn a_write_that_loses_a_deadlock_is_begun_anew_twice_and_no_more() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let database = format!("{}_tenant_acme-lab", world.space.namespace.as_str());
    let client = connect(&world.space.server.with_database(database)).await;
    // The first transactions lose; a sequence counts what a rollback does not take back.
    let losing = |times: u32| {
        format!(
            "DROP TRIGGER IF EXISTS lose ON patient; DROP SEQUENCE IF EXISTS tries; CREATE SEQUENCE tries;
             CREATE OR REPLACE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
                 IF nextval('public.tries') <= {times} THEN RAISE 'lost' USING ERRCODE = '40P01'; END IF;
                 RETURN NEW; END $$;
             CREATE TRIGGER lose BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION lose()"
        )
    };
    let patient =
        json!({ "familyName": "Curie", "givenName": "Marie", "sex": "F", "birthDate": "1967-11-07" });
    let call = |key: &str| {
        Call::new("POST", "/api/v1/patients")
            .json(&patient)
            .header("idempotency-key", key)
    };
    client.batch_execute(&losing(2)).await.unwrap();
    d.send(&call("a"), &lab.receptionist).await.expect(201);
    client.batch_execute(&losing(3)).await.unwrap();
    d.send(&call("b"), &lab.receptionist).await.refused(503, "busy");
    d.send(&call("b"), &lab.receptionist).await.expect(201);
    assert_eq!(count(&world, "SELECT count(*) FROM patient").await, 2);
    world.stop().await;
}

#[tokio::test]
async fn a_media_type_counts_in_any_case_and_an_import_may_have_its_sixteen_megabytes() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let patient =
        json!({ "familyName": "Curie", "givenName": "Marie", "sex": "F", "birthDate": "1967-11-07" });
    for content_type in ["Application/JSON", "application/JSON; charset=UTF-8"] {
        let call = Call::new("POST", "/api/v1/patients").body(content_type, patient.to_string());
        d.send(&call, &lab.receptionist).await.expect(201);
    }
    let mut file = b"barcode,code,value,unit,instrument\n".to_vec();
    file.resize(lab::imports::IMPORT_BYTES_MAX, b' ');
    let reply = d
        .send(
            &Call::new("POST", "/api/v1/imports").body("Text/CSV", file),
            &lab.technician,
        )
        .await;
    assert!(![413, 415].contains(&reply.status), "{}", reply.text);
    world.stop().await;
}

#[tokio::test]
async fn the_worklist_is_read_to_its_end_page_by_page() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    lab.received_order(d, &["K", "GLU"]).await;
    lab.received_order(d, &["K"]).await;
    let whole = d.get(&lab.technician, "/api/v1/worklist").await.expect(200);
    assert_eq!(
        (whole["items"].as_array().unwrap().len(), &whole["next"]),
        (3, &json!(null))
    );
    let (mut path, mut items) = ("/api/v1/worklist?limit=1".to_owned(), Vec::new());
    loop {
        let page = d.get(&lab.technician, &path).await;
        items.extend(page.json["items"].as_array().unwrap().clone());
        let Some(next) = page.header("link").strip_prefix('<') else {
            break;
        };
        path = next.split_once('>').unwrap().0.to_owned();
        assert!(items.len() < 4, "{path}");
    }
    assert_eq!(json!(items), whole["items"]);
    world.stop().await;
}

#[tokio::test]
async fn null_takes_a_number_away_and_is_refused_where_there_must_be_something() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let patient = lab.patient(d).await;
    let path = format!("/api/v1/patients/{}", patient["id"].as_str().unwrap());
    let change = |body: Value| Call::new("PATCH", &path).json(&body).version(&patient["version"]);
    for field in ["familyName", "givenName", "sex", "birthDate"] {
        let mut body = json!({});
        body[field] = json!(null);
        let reply = d.send(&change(body), &lab.receptionist).await;
        reply.refused(422, "invalid");
    }
    let cleared = d
        .send(&change(json!({ "nationalId": null })), &lab.receptionist)
        .await
        .expect(200);
    assert_eq!(cleared["nationalId"], json!(null));

    let staff = d.get(&lab.admin, "/api/v1/staff").await.expect(200);
    let person = &staff["items"][0];
    let path = format!("/api/v1/staff/{}", person["id"].as_str().unwrap());
    for field in ["displayName", "email", "role", "active"] {
        let mut body = json!({});
        body[field] = json!(null);
        let call = Call::new("PATCH", &path).json(&body).version(&person["version"]);
        d.send(&call, &lab.admin).await.refused(422, "invalid");
    }
    world.stop().await;
}

#[tokio::test]
async fn head_answers_as_get_without_the_body() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    for path in ["/livez", "/api/v1/profile", "/problems/not-found"] {
        let get = d.get(&lab.admin, path).await;
        let head = d.send(&Call::new("HEAD", path), &lab.admin).await;
        assert_eq!((head.status, head.text.as_str()), (200, ""), "{path}");
        for name in ["content-type", "content-length", "etag"] {
            assert_eq!(head.header(name), get.header(name), "{path} {name}");
        }
    }
    let missing = d.send(&Call::new("HEAD", "/nope"), "").await;
    assert_eq!((missing.status, missing.text.as_str()), (404, ""));
    let other = d.send(&Call::new("HEAD", "/api/v1/auth/login"), "").await;
    assert_eq!((other.status, other.header("allow")), (405, "POST"));
    world.stop().await;
}

#[tokio::test]
async fn the_description_lists_each_operations_refusals() {
    let world = World::start().await;
    let document = world.server.get("", "/openapi.json").await.expect(200);
    let statuses = |method: &str, path: &str| -> Vec<u16> {
        let responses = document["paths"][path][method]["responses"].as_object().unwrap();
        let mut list: Vec<u16> = responses.keys().filter_map(|key| key.parse().ok()).collect();
        list.sort_unstable();
        list
    };
    let table: [(&str, &str, &[u16]); 7] = [
        ("get", "/livez", &[200]),
        (
            "post",
            "/api/v1/auth/login",
            &[200, 400, 401, 403, 408, 413, 415, 422, 429],
        ),
        ("get", "/api/v1/patients", &[200, 400, 401, 403, 422]),
        ("get", "/api/v1/patients/{id}", &[200, 401, 403, 404]),
        (
            "patch",
            "/api/v1/patients/{id}",
            &[200, 400, 401, 403, 404, 408, 409, 412, 413, 415, 422, 428],
        ),
        (
            "post",
            "/api/v1/results/{id}/critical-notice",
            &[200, 400, 401, 403, 404, 408, 409, 412, 413, 415, 422, 428],
        ),
        ("post", "/api/v1/tenants/{id}/suspend", &[200, 401, 403, 404, 409]),
    ];
    for (method, path, expected) in table {
        assert_eq!(statuses(method, path), expected, "{method} {path}");
    }
    world.stop().await;
}
