//! A day in a laboratory.

use serde_json::{Value, json};

use crate::support::{Call, World, by_code};

#[tokio::test]
async fn a_patient_gets_a_report_and_two_people_stand_behind_it() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;

    let patient = d
        .post(&lab.receptionist, "/api/v1/patients", json!({
            "familyName": "O'Neil\"; DROP TABLE patient; --", "givenName": "Zoë", "sex": "F", "birthDate": "1980-04-01",
        }))
        .await;
    assert!(
        patient.header("location").starts_with("/api/v1/patients/"),
        "{patient:?}"
    );
    assert!(patient.header("etag").starts_with('"'), "{patient:?}");
    let patient = patient.expect(201);
    assert_eq!(patient["familyName"], "O'Neil\"; DROP TABLE patient; --");

    let order = lab.order(d, &patient["id"], &["K", "GLU"]).await;
    lab.draw(d, &order).await;
    let mut items = Vec::new();
    for (code, value) in [("K", "4.1"), ("GLU", "92")] {
        let entered = lab.enter(d, by_code(&order, code), value).await;
        assert_eq!(
            (&entered["value"], &entered["flag"], &entered["status"]),
            (&json!(value), &json!("N"), &json!("entered"))
        );
        items.push(json!({ "id": entered["id"], "version": entered["version"] }));
    }

    // The person who entered a value may not verify it; a technician may not verify at all.
    let body = json!({ "items": items });
    d.post(&lab.technician, "/api/v1/verifications", body.clone())
        .await
        .refused(403, "forbidden");
    let verified = d
        .post(&lab.supervisor, "/api/v1/verifications", body.clone())
        .await
        .expect(200);
    // The same versions again: somebody else was faster, and the answer says so for each.
    let again = d.post(&lab.supervisor, "/api/v1/verifications", body).await;
    assert_eq!(again.status, 409, "{}", again.text);
    assert_eq!(
        again.json["errors"].as_array().unwrap().len(),
        2,
        "{}",
        again.text
    );

    let released = d
        .post(
            &lab.supervisor,
            "/api/v1/releases",
            json!({ "items": versions(&verified) }),
        )
        .await
        .expect(200);
    assert!(
        released["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|item| item["status"] == "released")
    );

    let order_id = order["id"].as_str().unwrap();
    let report = d
        .get(&lab.supervisor, &format!("/api/v1/orders/{order_id}/report"))
        .await
        .expect(200);
    let potassium = by_code(&report, "K");
    assert_eq!(
        (&potassium["value"], &potassium["unit"], &potassium["status"]),
        (&json!("4.1"), &json!("mmol/L"), &json!("released"))
    );
    let order = d
        .get(&lab.supervisor, &format!("/api/v1/orders/{order_id}"))
        .await
        .expect(200);
    assert_eq!(order["status"], "completed");
    assert_eq!(world.stop().await, Some(0));
}

#[tokio::test]
async fn a_critical_potassium_is_not_released_before_somebody_was_told() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let (_, order) = lab.received_order(d, &["K"]).await;
    let entered = lab.enter(d, by_code(&order, "K"), "6.9").await;
    assert_eq!(entered["flag"], "HH");
    let item = |result: &Value| json!({ "items": [{ "id": result["id"], "version": result["version"] }] });
    let verified = d
        .post(&lab.supervisor, "/api/v1/verifications", item(&entered))
        .await
        .expect(200);
    let refused = d
        .post(&lab.supervisor, "/api/v1/releases", item(&verified["items"][0]))
        .await;
    refused.refused(409, "items-refused");
    assert!(
        refused.json["errors"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("critical"),
        "{}",
        refused.text
    );

    let path = format!(
        "/api/v1/results/{}/critical-notice",
        entered["id"].as_str().unwrap()
    );
    let call = Call::new("POST", &path).json(&json!({ "notifiedTo": "Dr. Grey, ward 3", "readBack": true }));
    let told = d
        .send(&call.version(&verified["items"][0]["version"]), &lab.technician)
        .await
        .expect(200);
    let released = d
        .post(&lab.supervisor, "/api/v1/releases", item(&told))
        .await
        .expect(200);
    assert_eq!(released["items"][0]["status"], "released");
    world.stop().await;
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_and_a_changed_one_is_refused() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let patient =
        json!({ "familyName": "Curie", "givenName": "Marie", "sex": "F", "birthDate": "1967-11-07" });
    let call = |body: &Value, key: &str| {
        Call::new("POST", "/api/v1/patients")
            .json(body)
            .header("idempotency-key", key)
    };
    let first = d.send(&call(&patient, "key-1"), &lab.receptionist).await;
    let second = d.send(&call(&patient, "key-1"), &lab.receptionist).await;
    assert_eq!(
        (second.status, second.header("location")),
        (201, first.header("location"))
    );
    assert_eq!(first.expect(201), second.expect(201));
    let mut other = patient.clone();
    other["givenName"] = json!("Irène");
    d.send(&call(&other, "key-1"), &lab.receptionist)
        .await
        .refused(422, "idempotency-key-reused");
    let found = d
        .get(&lab.receptionist, "/api/v1/patients?q=Curie")
        .await
        .expect(200);
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn a_change_needs_the_version_that_was_read() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let patient = lab.patient(d).await;
    let path = format!("/api/v1/patients/{}", patient["id"].as_str().unwrap());
    let change = Call::new("PATCH", &path).json(&json!({ "givenName": "Maria" }));
    d.send(&change, &lab.receptionist)
        .await
        .refused(428, "precondition-required");
    let changed = d
        .send(&change.clone().version(&patient["version"]), &lab.receptionist)
        .await;
    assert_eq!(changed.header("etag"), format!("\"{}\"", changed.json["version"]));
    changed.expect(200);
    d.send(&change.version(&patient["version"]), &lab.receptionist)
        .await
        .refused(412, "version-mismatch");
    world.stop().await;
}

#[tokio::test]
async fn an_unchanged_worklist_is_answered_304_and_a_changed_one_anew() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let (_, order) = lab.received_order(d, &["K"]).await;
    let first = d.get(&lab.technician, "/api/v1/worklist").await;
    let tag = first.header("etag").to_owned();
    let list = first.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    let poll = Call::new("GET", "/api/v1/worklist").header("if-none-match", tag);
    assert_eq!(d.send(&poll, &lab.technician).await.status, 304);
    lab.enter(d, by_code(&order, "K"), "4.2").await;
    assert_eq!(d.send(&poll, &lab.technician).await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn pages_follow_each_other_without_a_gap_or_a_double() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(lab.patient(d).await["id"].clone());
    }
    let (mut seen, mut path) = (Vec::new(), "/api/v1/patients?limit=2".to_owned());
    loop {
        let page = d.get(&lab.receptionist, &path).await;
        let link = page.header("link").to_owned();
        let items = page.expect(200)["items"].as_array().unwrap().clone();
        assert!(items.len() <= 2);
        seen.extend(items.iter().map(|item| item["id"].clone()));
        let Some(next) = link
            .strip_prefix('<')
            .and_then(|rest| rest.split_once(">; rel=\"next\""))
        else {
            break;
        };
        path = next.0.to_owned();
    }
    let key = |id: &Value| id.as_str().unwrap().to_owned();
    seen.sort_by_key(key);
    made.sort_by_key(key);
    assert_eq!(seen, made);
    world.stop().await;
}

fn versions(answer: &Value) -> Vec<Value> {
    let items = answer["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| json!({ "id": item["id"], "version": item["version"] }))
        .collect()
}
