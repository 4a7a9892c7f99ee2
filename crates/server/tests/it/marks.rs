//! The mark of a critical value: which notice counts for it, what of it is kept, and that it does not vanish
//! silently.

use serde_json::{Value, json};

use crate::support::{Call, Lab, Reply, Tenantd, World, by_code, connect};

fn at(result: &Value, rest: &str) -> String {
    format!("/api/v1/results/{}{rest}", result["id"].as_str().unwrap())
}

async fn read(d: &Tenantd, lab: &Lab, result: &Value) -> Value {
    d.get(&lab.supervisor, &at(result, "")).await.expect(200)
}

/// A potassium of an adult, entered.
async fn potassium(d: &Tenantd, lab: &Lab, value: &str) -> Value {
    let (_, order) = lab.received_order(d, &["K"]).await;
    lab.enter(d, by_code(&order, "K"), value).await
}

fn notice(result: &Value, body: &Value) -> Call {
    Call::new("POST", at(result, "/critical-notice")).json(body)
}

async fn notify(d: &Tenantd, lab: &Lab, result: &Value) -> Value {
    let call = notice(result, &json!({ "notifiedTo": "Dr. Grey", "readBack": true }));
    d.send(&call.version(&result["version"]), &lab.technician)
        .await
        .expect(200)
}

async fn sign(d: &Tenantd, lab: &Lab, path: &str, item: Value) -> Reply {
    d.post(
        &lab.supervisor,
        &format!("/api/v1/{path}"),
        json!({ "items": [item] }),
    )
    .await
}

fn item(result: &Value) -> Value {
    json!({ "id": result["id"], "version": result["version"] })
}

/// The laboratory's setting, changed.
async fn accept_without_read_back(d: &Tenantd, lab: &Lab, accept: bool) {
    let profile = d.get(&lab.admin, "/api/v1/profile").await.expect(200);
    let call = Call::new("PATCH", "/api/v1/profile").json(&json!({ "acceptNoticeWithoutReadBack": accept }));
    d.send(&call.version(&profile["version"]), &lab.admin)
        .await
        .expect(200);
}

/// Closes every range of potassium.
async fn close_ranges(d: &Tenantd, lab: &Lab) {
    let ranges = d.get(&lab.admin, "/api/v1/tests/K/ranges").await.expect(200);
    for range in ranges["items"].as_array().unwrap() {
        let path = format!("/api/v1/ranges/{}/close", range["id"].as_str().unwrap());
        let why = json!({ "withoutLimits": "of another method" });
        d.post(&lab.admin, &path, why).await.expect(200);
    }
}

#[tokio::test]
async fn a_notice_that_does_not_say_of_which_value_it_speaks_is_refused() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let first = potassium(d, &lab, "6.9").await;
    let told = json!({ "notifiedTo": "Dr. Grey", "readBack": true, "at": first["enteredAt"] });
    let replace = json!({ "value": "9.9", "unit": "mmol/L", "reason": "misread" });
    let call = Call::new("PUT", at(&first, "/value"))
        .json(&replace)
        .version(&first["version"]);
    let second = d.send(&call, &lab.technician).await.expect(200);

    d.send(&notice(&first, &told), &lab.technician)
        .await
        .refused(428, "precondition-required");
    d.send(&notice(&first, &told).version(&first["version"]), &lab.technician)
        .await
        .refused(412, "version-mismatch");
    assert_eq!(read(d, &lab, &second).await["criticalNotified"], false);
    let noted = notify(d, &lab, &second).await;
    assert_eq!(noted["criticalNotified"], true);
    world.stop().await;
}

#[tokio::test]
async fn a_notice_of_a_released_value_is_none_of_the_value_that_is_to_replace_it() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let result = potassium(d, &lab, "6.9").await;
    let result = notify(d, &lab, &result).await;
    let verified = lab.verify(d, &result).await;
    let released = lab.release(d, &verified).await;
    let propose = |value: &str| {
        Call::new("POST", at(&released, "/amendments"))
            .json(&json!({ "value": value, "reason": "wrong tube" }))
            .version(&released["version"])
    };
    let proposed = d.send(&propose("9.9"), &lab.supervisor).await.expect(200).clone();
    // Whoever phones now has read the result: 6.9.
    notify(d, &lab, &released).await;
    let verify = |amended: &Value| {
        format!(
            "/api/v1/amendments/{}/verify",
            amended["amendment"]["id"].as_str().unwrap()
        )
    };
    let early = d
        .post(&lab.second_supervisor, &verify(&proposed), json!({}))
        .await;
    early.refused(409, "conflict");
    assert_eq!(early.json["errors"][0]["code"], "critical_notice");

    let of = |amended: &Value, version: i64| {
        let body = json!({ "notifiedTo": "Dr. Grey", "readBack": true,
                           "amendmentId": amended["amendment"]["id"], "amendmentVersion": version });
        notice(&released, &body).version(&released["version"])
    };
    let stale = d.send(&of(&proposed, 7), &lab.technician).await;
    stale.refused(412, "version-mismatch");
    let half =
        json!({ "notifiedTo": "Dr. Grey", "readBack": true, "amendmentId": proposed["amendment"]["id"] });
    d.send(
        &notice(&released, &half).version(&released["version"]),
        &lab.technician,
    )
    .await
    .refused(422, "invalid");
    let version = proposed["amendment"]["version"].as_i64().unwrap();
    d.send(&of(&proposed, version), &lab.technician).await.expect(200);
    let done = d
        .post(&lab.second_supervisor, &verify(&proposed), json!({}))
        .await
        .expect(200);
    assert_eq!(
        (&done["result"]["value"], &done["result"]["criticalNotified"]),
        (&json!("9.9"), &json!(true))
    );
    world.stop().await;
}

#[tokio::test]
async fn what_counted_at_the_release_counts_whatever_the_setting_becomes() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    accept_without_read_back(d, &lab, true).await;
    let entered = potassium(d, &lab, "6.9").await;
    let unread = json!({ "notifiedTo": "Dr. Grey", "readBack": false });
    let call = notice(&entered, &unread).version(&entered["version"]);
    d.send(&call, &lab.technician).await.expect(200);
    let waiting = potassium(d, &lab, "7.0").await;
    let call = notice(&waiting, &unread).version(&waiting["version"]);
    d.send(&call, &lab.technician).await.expect(200);
    let verified = lab.verify(d, &entered).await;
    let released = lab.release(d, &verified).await;
    assert_eq!(read(d, &lab, &released).await["criticalNotified"], true);

    accept_without_read_back(d, &lab, false).await;
    let now = read(d, &lab, &released).await;
    assert_eq!(now["criticalNotified"], true, "it was released by that notice");
    let path = |what: &str, id: &Value, rest: &str| format!("/api/v1/{what}/{}{rest}", id.as_str().unwrap());
    let report = d
        .get(&lab.supervisor, &path("orders", &now["orderId"], "/report"))
        .await
        .expect(200);
    assert_eq!(by_code(&report, "K")["criticalNotified"], true, "{report}");
    let over_time = d
        .get(&lab.supervisor, &path("patients", &now["patientId"], "/results"))
        .await
        .expect(200);
    assert_eq!(over_time["items"][0]["criticalNotified"], true, "{over_time}");
    let feed = d
        .get(&lab.supervisor, "/api/v1/exports/results")
        .await
        .expect(200);
    assert_eq!(feed["items"][0]["result"]["criticalNotified"], true, "{feed}");
    assert_eq!(
        read(d, &lab, &waiting).await["criticalNotified"],
        false,
        "what waits is subject to the setting of today"
    );
    world.stop().await;
}

#[tokio::test]
async fn a_mark_that_is_lifted_while_its_value_waits_is_shown_and_holds_it_back() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let result = potassium(d, &lab, "9.9").await;
    let verified = lab.verify(d, &result).await;
    let told = potassium(d, &lab, "9.8").await;
    let told = notify(d, &lab, &told).await;
    close_ranges(d, &lab).await;

    // The verification was of a critical value: somebody has to look again.
    let lifted = read(d, &lab, &result).await;
    assert_eq!(
        (&lifted["status"], &lifted["flag"], &lifted["verifiedBy"]),
        (&json!("entered"), &Value::Null, &Value::Null),
        "{lifted}"
    );
    let mark = &lifted["criticalLifted"];
    assert_eq!((&mark["flag"], &mark["critHigh"]), (&json!("HH"), &json!("6.5")));
    assert!(mark["reason"].as_str().unwrap().contains("ranges"), "{mark}");
    assert!(
        mark["since"].is_string() && mark["confirmation"].is_null(),
        "{mark}"
    );
    let list = d.get(&lab.supervisor, "/api/v1/worklist").await.expect(200);
    let listed = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|line| line["id"] == result["id"]);
    assert_eq!(listed.unwrap()["criticalLifted"]["flag"], "HH");
    sign(d, &lab, "verifications", item(&verified))
        .await
        .refused(409, "items-refused");
    let held = sign(d, &lab, "verifications", item(&lifted)).await;
    held.refused(409, "items-refused");
    assert_eq!(held.json["errors"][0]["code"], "critical_lifted", "{}", held.text);

    let mut confirmed = item(&lifted);
    confirmed["confirmLifted"] = json!("the limits were those of another method");
    let released = sign(d, &lab, "releases", confirmed.clone()).await;
    released.refused(422, "invalid");
    let verified = sign(d, &lab, "verifications", confirmed).await.expect(200);
    lab.release(d, &verified["items"][0]).await;
    let report = format!("/api/v1/orders/{}/report", lifted["orderId"].as_str().unwrap());
    let report = d.get(&lab.supervisor, &report).await.expect(200);
    let mark = &by_code(&report, "K")["criticalLifted"];
    assert_eq!(
        (&mark["flag"], &mark["confirmation"]["reason"]),
        (&json!("HH"), &json!("the limits were those of another method")),
        "{report}"
    );
    assert!(mark["confirmation"]["by"].is_string() && mark["confirmation"]["at"].is_string());
    let trail = format!("/api/v1/audit?entityId={}", lifted["id"].as_str().unwrap());
    let trail = d.get(&lab.admin, &trail).await.expect(200).to_string();
    for action in ["result.critical_lifted", "result.critical_lift_confirmed"] {
        assert!(trail.contains(action), "{action} in {trail}");
    }

    // Somebody was told of the other one while it was critical: it is the same value.
    let told = read(d, &lab, &told).await;
    assert_eq!(
        (&told["criticalLifted"]["flag"], &told["criticalNotified"]),
        (&json!("HH"), &json!(true)),
        "{told}"
    );
    let verified = lab.verify(d, &told).await;
    lab.release(d, &verified).await;
    assert_eq!(read(d, &lab, &told).await["criticalNotified"], true);
    world.stop().await;
}

#[tokio::test]
async fn a_birth_date_that_takes_the_range_away_lifts_no_mark_silently() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let result = potassium(d, &lab, "9.9").await;
    let patient = format!("/api/v1/patients/{}", result["patientId"].as_str().unwrap());
    let born = async |date: &str| {
        let before = d.get(&lab.receptionist, &patient).await.expect(200);
        let call = Call::new("PATCH", &patient).json(&json!({ "birthDate": date }));
        d.send(&call.version(&before["version"]), &lab.receptionist)
            .await
            .expect(200);
    };
    born("2015-01-01").await;
    let child = read(d, &lab, &result).await;
    assert_eq!(child["noRangeReason"], "no-range-for-age");
    assert_eq!(child["criticalLifted"]["flag"], "HH", "{child}");
    assert!(
        child["criticalLifted"]["reason"]
            .as_str()
            .unwrap()
            .contains("birth date")
    );
    assert_eq!(
        (&child["noticeRequired"], &child["criticalNotified"]),
        (&json!(true), &json!(false))
    );
    sign(d, &lab, "verifications", item(&child))
        .await
        .refused(409, "items-refused");
    // A notice serves as well as a confirmation.
    let noted = notify(d, &lab, &child).await;
    assert_eq!(noted["criticalNotified"], true);
    // And once she is an adult again the mark is back, and its notice is wanted.
    born("1980-04-01").await;
    let adult = read(d, &lab, &result).await;
    assert_eq!(
        (
            &adult["flag"],
            &adult["criticalLifted"],
            &adult["criticalNotified"]
        ),
        (&json!("HH"), &Value::Null, &json!(false))
    );
    world.stop().await;
}

#[tokio::test]
async fn a_critical_word_holds_a_result_back() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let new = |code: &str, more: Value| {
        let mut body = json!({ "code": code, "name": "Blood culture", "section": "microbiology", "specimenType": "blood" });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body
    };
    let add = async |body: Value| d.post(&lab.admin, "/api/v1/tests", body).await;
    let words = json!(["negative", "positive", "POSITIVE"]);
    let bad = new(
        "BC",
        json!({ "valueType": "coded", "allowedValues": words, "criticalValues": ["pos"] }),
    );
    add(bad).await.refused(422, "invalid");
    let coded = new(
        "BC",
        json!({ "valueType": "coded", "allowedValues": words, "criticalValues": ["positive"] }),
    );
    let coded = add(coded).await.expect(201);
    assert_eq!(coded["criticalValues"], json!(["positive"]));
    let text = new(
        "GRAM",
        json!({ "valueType": "text", "criticalValues": ["cocci"] }),
    );
    add(text).await.expect(201);
    let smear = new(
        "SMEAR",
        json!({ "valueType": "text", "criticalValues": ["acid-fast bacilli"] }),
    );
    add(smear).await.expect(201);
    let plain = new("PLAIN", json!({ "valueType": "coded", "allowedValues": words }));
    add(plain).await.expect(201);

    let (_, order) = lab.received_order(d, &["BC", "GRAM", "PLAIN"]).await;
    let enter = async |code: &str, value: &str| {
        let result = by_code(&order, code);
        let call = Call::new("PUT", at(result, "/value"))
            .json(&json!({ "value": value }))
            .version(&result["version"]);
        d.send(&call, &lab.technician).await.expect(200)
    };
    let gram = enter("GRAM", "Gram-positive COCCI in clusters").await;
    // However instruments wrap lines and word processors write hyphens.
    for text in [
        "acid-fast  bacilli",
        "acid-fast\nbacilli",
        "Acid-Fast\r\n\tBacilli",
        "acid\u{2011}fast\u{a0}bacilli",
        "acid-f\u{ad}ast bac\u{200b}illi",
        "acid-fast \u{2028}bacilli",
        "acid-\nfast bacilli",
        "acid\u{58a} fast\u{200b}bacilli",
        "ac\u{34f}id-fast\u{1}bac\u{fe0f}\u{2800}illi",
        "ACID-FAST BACıLLI",
    ] {
        let (_, order) = lab.received_order(d, &["SMEAR"]).await;
        let result = by_code(&order, "SMEAR");
        let call = Call::new("PUT", at(result, "/value")).json(&json!({ "value": text }));
        let entered = d.send(&call.version(&result["version"]), &lab.technician).await;
        assert_eq!(entered.expect(200)["flag"], "AA", "{text:?}");
    }
    let plain = enter("PLAIN", "positive").await;
    assert_eq!((&gram["flag"], &plain["flag"]), (&json!("AA"), &Value::Null));
    let culture = enter("BC", "POSITIVE").await;
    assert_eq!(
        (&culture["flag"], &culture["noticeRequired"]),
        (&json!("AA"), &json!(true))
    );
    let verified = lab.verify(d, &culture).await;
    let held = sign(d, &lab, "releases", item(&verified)).await;
    assert_eq!(held.json["errors"][0]["code"], "critical_notice", "{}", held.text);
    let noted = notify(d, &lab, &read(d, &lab, &culture).await).await;
    lab.release(d, &noted).await;

    // Words that are added while a value waits hold for it; words that are taken away do not unmark it
    // silently.
    let change = async |code: &str, change: Value| {
        let path = format!("/api/v1/tests/{code}");
        let test = d.get(&lab.admin, &path).await.expect(200);
        let call = Call::new("PATCH", path).json(&change);
        d.send(&call.version(&test["version"]), &lab.admin).await
    };
    let none = json!({ "criticalValues": null, "withoutLimits": "the method was given up" });
    change("PLAIN", json!({ "criticalValues": ["positive"] }))
        .await
        .expect(200);
    assert_eq!(read(d, &lab, &plain).await["flag"], "AA");
    for silent in [json!(null), json!(["negative"])] {
        let refused = change("PLAIN", json!({ "criticalValues": silent })).await;
        refused.refused(409, "conflict");
        assert_eq!(
            refused.json["errors"][0]["code"], "limits_lost",
            "{}",
            refused.text
        );
    }
    change("PLAIN", none.clone()).await.expect(200);
    let lifted = read(d, &lab, &plain).await;
    assert_eq!(
        (&lifted["flag"], &lifted["criticalLifted"]["flag"]),
        (&Value::Null, &json!("AA"))
    );
    change("BC", none).await.expect(200);
    assert_eq!(
        read(d, &lab, &culture).await["flag"],
        "AA",
        "what was released stays"
    );
    world.stop().await;
}

#[tokio::test]
async fn sql_does_not_release_a_lifted_mark_either() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let result = potassium(d, &lab, "9.9").await;
    close_ranges(d, &lab).await;
    let database = format!("{}_tenant_acme-lab", world.space.namespace.as_str());
    let client = connect(&world.space.server.with_database(database)).await;
    let id = result["id"].as_str().unwrap();
    let release = format!(
        "UPDATE result SET status = 'verified', verified_by = (SELECT id FROM staff WHERE role = 'supervisor' LIMIT 1) WHERE id = '{id}';
         UPDATE result SET status = 'released', released_by = verified_by WHERE id = '{id}';"
    );
    let refused = client.batch_execute(&release).await.unwrap_err();
    assert_eq!(
        refused.code().map(|code| code.code()),
        Some("LAB17"),
        "{refused:?}"
    );
    let forged = format!(
        "UPDATE result SET lift_id = NULL, lift_confirmation = 'x', notice_id = NULL, change_reason = 'typo', comment = 'x' WHERE id = '{id}';"
    );
    let refused = client.batch_execute(&(forged + &release)).await.unwrap_err();
    assert_eq!(
        refused.code().map(|code| code.code()),
        Some("LAB17"),
        "{refused:?}"
    );
    world.stop().await;
}
