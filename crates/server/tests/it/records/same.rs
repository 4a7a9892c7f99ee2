//! What says the same is the same: a file with other line ends, a value that is there already, a change that
//! changes nothing.

use serde_json::{Value, json};

use super::{deliver, patch, set_aside};
use crate::support::{Call, Lab, Tenantd, World, by_code};

async fn order_again(d: &Tenantd, lab: &Lab, order: &Value) -> Value {
    let path = format!("/api/v1/orders/{}", order["id"].as_str().unwrap());
    d.get(&lab.technician, &path).await.expect(200)
}

async fn send_back(d: &Tenantd, lab: &Lab, order: &Value, code: &str) {
    let order = order_again(d, lab, order).await;
    let result = by_code(&order, code);
    let path = format!("/api/v1/results/{}/repeat", result["id"].as_str().unwrap());
    let call = Call::new("POST", path).json(&json!({ "reason": "clotted" }));
    d.send(&call.version(&result["version"]), &lab.technician)
        .await
        .expect(200);
}

#[tokio::test]
async fn a_value_that_was_sent_back_does_not_return_from_a_file_that_says_the_same() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let (_, order) = lab.received_order(d, &["K", "NA", "MG"]).await;
    let barcode = order["specimens"][0]["barcode"].as_str().unwrap();
    let file = format!("barcode,code,value,unit\n{barcode},K,4.1,mmol/L\n");
    let first = deliver(d, &lab, &file).await;
    assert_eq!(first["rowsOk"], 1);
    send_back(d, &lab, &order, "K").await;
    let as_json =
        json!({ "barcode": barcode, "code": "K", "value": "4.1", "unit": "mmol/L" }).to_string() + "\n";
    for (kind, same) in [
        ("text/csv", file.replace('\n', "\r\n")),
        ("text/csv", format!("\u{feff}{file}\n\n")),
        (
            "text/csv",
            format!("code,unit,value,barcode\nK,mmol/L,\"4.1\",{barcode}"),
        ),
        ("application/x-ndjson", as_json),
    ] {
        let call = Call::new("POST", "/api/v1/imports").body(kind, same.clone());
        let again = d.send(&call, &lab.technician).await.expect(202);
        assert_eq!(
            (&again["id"], &again["repeated"], &again["rowsOk"]),
            (&first["id"], &json!(true), &json!(0)),
            "{same:?}: {again}"
        );
        assert_eq!(set_aside(d, &lab, &again).await[0].1, "sent_back");
    }
    // One measurement is one, in whatever company it comes: it has a time of its own.
    let row = |code: &str, value: &str, unit: &str| {
        format!("{barcode},{code},{value},{unit},2026-01-31T08:00:00Z\n")
    };
    let head = "barcode,code,value,unit,resultedAt\n";
    let (na, mg) = (row("NA", "140", "mmol/L"), row("MG", "2.0", "mg/dL"));
    assert_eq!(deliver(d, &lab, &format!("{head}{na}")).await["rowsOk"], 1);
    send_back(d, &lab, &order, "NA").await;
    let both = deliver(d, &lab, &format!("{head}{mg}{na}")).await;
    assert_eq!(both["rowsOk"], 1);
    assert_eq!(set_aside(d, &lab, &both).await, [(3, "sent_back".to_owned())]);
    let later = format!("{head}{}", na.replace("08:00", "09:00"));
    assert_eq!(
        deliver(d, &lab, &later).await["rowsOk"],
        1,
        "a measurement of its own"
    );
    world.stop().await;
}

#[tokio::test]
async fn a_value_that_contradicts_another_file_is_a_conflict_and_an_equal_one_is_not() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let (_, order) = lab.received_order(d, &["K", "NA"]).await;
    let barcode = order["specimens"][0]["barcode"].as_str().unwrap();
    let file = |k: &str, na: &str| {
        format!("barcode,code,value,unit\n{barcode},K,{k},mmol/L\n{barcode},NA,{na},mmol/L\n")
    };
    assert_eq!(deliver(d, &lab, &file("4.1", "140")).await["rowsOk"], 2);
    let other = deliver(d, &lab, &file("6.9", "140.0")).await;
    assert_eq!(
        set_aside(d, &lab, &other).await,
        [(2, "conflict".to_owned()), (3, "already_entered".to_owned())]
    );
    assert_eq!(other["rowsConflicting"], 1, "{other}");
    let now = order_again(d, &lab, &order).await;
    let verified = lab.verify(d, by_code(&now, "NA")).await;
    lab.release(d, &verified).await;
    let late = deliver(d, &lab, &file("6.8", "140")).await;
    assert_eq!(
        set_aside(d, &lab, &late).await,
        [(2, "conflict".to_owned()), (3, "already_final".to_owned())]
    );
    world.stop().await;
}

/// The analyser measured again by itself, and the second value is another one.
#[tokio::test]
async fn a_value_that_a_file_contradicts_is_not_released_before_somebody_looked() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let (_, order) = lab.received_order(d, &["CA", "K", "NA"]).await;
    let barcode = order["specimens"][0]["barcode"].as_str().unwrap();
    let head = "barcode,code,value,comparator,unit\n";
    let first = format!("{head}{barcode},CA,9.0,,mg/dL\n{barcode},K,4.1,,mmol/L\n{barcode},NA,140,,mmol/L\n");
    assert_eq!(deliver(d, &lab, &first).await["rowsOk"], 3);
    let verified = async |code: &str| {
        let now = order_again(d, &lab, &order).await;
        lab.verify(d, by_code(&now, code)).await
    };
    let (first_ca, first_k, na) = (verified("CA").await, verified("K").await, verified("NA").await);
    lab.release(d, &na).await;
    let second =
        format!("{head}{barcode},CA,16.0,,mg/dL\n{barcode},K,4.9,,mmol/L\n{barcode},NA,141,,mmol/L\n");
    let again = deliver(d, &lab, &second).await;
    assert_eq!(again["rowsConflicting"], 3, "{again}");

    let release = async |item: Value| {
        let body = json!({ "items": [item] });
        d.post(&lab.supervisor, "/api/v1/releases", body).await
    };
    let item = |signed: &Value| json!({ "id": signed["id"], "version": signed["version"] });
    for signed in [&first_ca, &first_k] {
        let held = release(item(signed)).await;
        held.refused(409, "items-refused");
        assert_eq!(held.json["errors"][0]["code"], "contradicted", "{}", held.text);
    }
    // Evaluated by other data, it is the same value, and contradicted as before.
    let path = format!("/api/v1/patients/{}", order["patientId"].as_str().unwrap());
    let person = d.get(&lab.receptionist, &path).await.expect(200);
    let child = json!({ "birthDate": "2015-01-01" });
    patch(d, &lab.receptionist, &path, &person["version"], &child)
        .await
        .expect(200);
    let shown = order_again(d, &lab, &order).await;
    let (ca, k) = (by_code(&shown, "CA").clone(), by_code(&shown, "K").clone());
    let held = release(item(&ca)).await;
    assert_eq!(held.json["errors"][0]["code"], "contradicted", "{}", held.text);
    assert_ne!(k["rev"], json!(1));
    for (code, line, value) in [("CA", 2, "16.0"), ("K", 3, "4.9"), ("NA", 4, "141")] {
        assert_eq!(
            by_code(&shown, code)["contradictedBy"],
            json!([{ "importId": again["id"], "line": line, "value": value, "comparator": null }]),
            "{code}"
        );
    }
    // The verifier has nothing to confirm; who releases does, with a reason.
    let mut confirmed = item(&ca);
    confirmed["confirmConflict"] = json!("the second tube was haemolysed");
    let body = json!({ "items": [confirmed] });
    d.post(&lab.supervisor, "/api/v1/verifications", body)
        .await
        .refused(422, "invalid");
    release(confirmed).await.expect(200);
    let shown = order_again(d, &lab, &order).await;
    assert_eq!(
        by_code(&shown, "CA")["conflictConfirmation"],
        "the second tube was haemolysed"
    );
    // Or the value is measured again: what contradicted the former one says nothing of this one.
    send_back(d, &lab, &order, "K").await;
    let shown = order_again(d, &lab, &order).await;
    lab.enter(d, by_code(&shown, "K"), "4.9").await;
    let k = verified("K").await;
    release(item(&k)).await.expect(200);
    // A comparator without a value is no "nothing was measured".
    let (_, order) = lab.received_order(d, &["K"]).await;
    let barcode = order["specimens"][0]["barcode"].as_str().unwrap();
    let odd = deliver(d, &lab, &format!("{head}{barcode},K,--,>,mmol/L\n")).await;
    assert_eq!(
        (&odd["rowsNotDone"], set_aside(d, &lab, &odd).await),
        (&json!(0), vec![(2, "bad_value".to_owned())])
    );
    world.stop().await;
}

#[tokio::test]
async fn a_change_that_changes_nothing_writes_nothing() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let patient = lab.patient(d).await;
    let of = |kind: &str, id: &Value| format!("/api/v1/{kind}/{}", id.as_str().unwrap());
    let staff = d.get(&lab.admin, "/api/v1/staff").await.expect(200)["items"][0].clone();
    let test = d.get(&lab.admin, "/api/v1/tests/K").await.expect(200);
    let profile = d.get(&lab.admin, "/api/v1/profile").await.expect(200);
    let events = async || {
        let page = d.get(&lab.admin, "/api/v1/audit?limit=200").await.expect(200);
        page["items"].as_array().unwrap().len()
    };
    let before = events().await;
    let same_patient = json!({ "familyName": format!(" {} ", patient["familyName"].as_str().unwrap()),
                               "sex": patient["sex"], "nationalId": patient["nationalId"] });
    for (token, path, record, body) in [
        (
            &lab.receptionist,
            of("patients", &patient["id"]),
            &patient,
            json!({}),
        ),
        (
            &lab.receptionist,
            of("patients", &patient["id"]),
            &patient,
            same_patient,
        ),
        (&lab.admin, of("staff", &staff["id"]), &staff, json!({})),
        (
            &lab.admin,
            of("staff", &staff["id"]),
            &staff,
            json!({ "role": staff["role"], "active": true }),
        ),
        (&lab.admin, of("tests", &json!("K")), &test, json!({})),
        (
            &lab.admin,
            of("tests", &json!("K")),
            &test,
            json!({ "name": test["name"], "unit": "mmol/L" }),
        ),
        (&lab.admin, "/api/v1/profile".to_owned(), &profile, json!({})),
        (
            &lab.admin,
            "/api/v1/profile".to_owned(),
            &profile,
            json!({ "name": profile["name"] }),
        ),
    ] {
        let reply = patch(d, token, &path, &record["version"], &body).await;
        let etag = reply.header("etag").to_owned();
        let after = reply.expect(200);
        assert_eq!(&after, record, "PATCH {path} {body}");
        assert_eq!(etag, format!("\"{}\"", record["version"]));
    }
    assert_eq!(events().await, before, "nothing was done, and nothing is written");
    world.stop().await;
}

#[tokio::test]
async fn a_value_has_one_form_however_it_comes_in() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let test = json!({ "code": "MICRO", "name": "Culture", "section": "microbiology", "specimenType": "serum", "valueType": "text" });
    d.post(&lab.admin, "/api/v1/tests", test).await.expect(201);
    let typed = " \u{a0}Cafe\u{301} au lait spots\u{200b} \n";
    for value in [typed, "Caf\u{e9} au lait spots"] {
        let (_, order) = lab.received_order(d, &["MICRO", "K"]).await;
        let (micro, k) = (by_code(&order, "MICRO"), by_code(&order, "K"));
        let call = Call::new(
            "PUT",
            format!("/api/v1/results/{}/value", micro["id"].as_str().unwrap()),
        )
        .json(&json!({ "value": value }))
        .version(&micro["version"]);
        let entered = d.send(&call, &lab.technician).await.expect(200);
        assert_eq!(entered["value"], "Caf\u{e9} au lait spots");
        assert_eq!(lab.enter(d, k, " 4.1\t").await["value"], "4.1");
        let (_, order) = lab.received_order(d, &["MICRO"]).await;
        let barcode = order["specimens"][0]["barcode"].as_str().unwrap();
        let file = format!("barcode,code,value\n{barcode},MICRO,\"{value}\"\n");
        assert_eq!(deliver(d, &lab, &file).await["rowsOk"], 1);
        let order = order_again(d, &lab, &order).await;
        assert_eq!(by_code(&order, "MICRO")["value"], "Caf\u{e9} au lait spots");
    }
    world.stop().await;
}
