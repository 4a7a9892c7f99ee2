//! Files that come again, and rows that wait for something.

use serde_json::{Value, json};

use super::{conflict, deliver, set_aside};
use crate::support::{Call, World, by_code};

#[tokio::test]
async fn rows_set_aside_land_when_their_cause_is_gone() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let patient = lab.patient(d).await;
    let order = lab.order(d, &patient["id"], &["K", "NA"]).await;
    let barcode = order["specimens"][0]["barcode"].as_str().unwrap();
    let file = format!(
        "barcode,code,value,unit\n{barcode},K,4.1,mmol/L\n{barcode},NA,140,mmol/L\nnothing,K,4,mmol/L\n{barcode},K\n"
    );
    let batch = deliver(d, &lab, &file).await;
    assert_eq!((&batch["rowsOk"], &batch["rowsRejected"]), (&json!(0), &json!(4)));
    let retry = format!("/api/v1/imports/{}/retry", batch["id"].as_str().unwrap());

    // Nothing has changed: nothing happens, and the answer says so.
    let again = d.post(&lab.technician, &retry, json!({})).await.expect(200);
    assert_eq!(
        (&again["rowsOk"], &again["rowsRejected"], &again["id"]),
        (&json!(0), &json!(4), &batch["id"])
    );
    lab.draw(d, &order).await;
    let again = d.post(&lab.technician, &retry, json!({})).await.expect(200);
    assert_eq!(
        (
            &again["rowsOk"],
            &again["rowsUnchanged"],
            &again["rowsRejected"],
            &again["rowsTotal"]
        ),
        (&json!(2), &json!(0), &json!(2), &json!(4)),
        "{again}"
    );
    assert_eq!(
        set_aside(d, &lab, &batch).await,
        [(4, "unknown_specimen".to_owned()), (5, "bad_row".to_owned())]
    );
    let again = d.post(&lab.technician, &retry, json!({})).await.expect(200);
    assert_eq!(
        (&again["rowsOk"], &again["rowsRejected"]),
        (&json!(0), &json!(2)),
        "{again}"
    );
    let path = format!("/api/v1/orders/{}", order["id"].as_str().unwrap());
    let order = d.get(&lab.technician, &path).await.expect(200);
    assert_eq!(by_code(&order, "NA")["value"], "140");

    // The same file, delivered again, is the same batch, and says what is true now.
    let again = deliver(d, &lab, &file).await;
    assert_eq!(
        (
            &again["id"],
            &again["repeated"],
            &again["rowsOk"],
            &again["rowsUnchanged"],
            &again["rowsRejected"]
        ),
        (&batch["id"], &json!(true), &json!(0), &json!(2), &json!(2)),
        "{again}"
    );
    // A rehearsal has nothing to be retried.
    let call = Call::new("POST", "/api/v1/imports?dryRun=true").body("text/csv", file);
    let rehearsal = d.send(&call, &lab.technician).await.expect(202);
    let retry = format!("/api/v1/imports/{}/retry", rehearsal["id"].as_str().unwrap());
    conflict(&d.post(&lab.technician, &retry, json!({})).await, "dry_run");
    world.stop().await;
}

#[tokio::test]
async fn a_file_delivered_again_is_processed_again() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let patient = lab.patient(d).await;
    let order = lab.order(d, &patient["id"], &["K"]).await;
    let barcode = order["specimens"][0]["barcode"].as_str().unwrap();
    let file = format!("barcode,code,value,unit\n{barcode},K,4.1,mmol/L\n");
    assert_eq!(deliver(d, &lab, &file).await["rowsOk"], 0);
    lab.draw(d, &order).await;
    assert_eq!(deliver(d, &lab, &file).await["rowsOk"], 1, "its cause is gone");

    // Sent back to the bench: the same file says nothing new, and the answer does not look as if it did.
    let path = format!("/api/v1/orders/{}", order["id"].as_str().unwrap());
    let order = d.get(&lab.technician, &path).await.expect(200);
    let result = by_code(&order, "K");
    let repeat = format!("/api/v1/results/{}/repeat", result["id"].as_str().unwrap());
    let call = Call::new("POST", repeat)
        .json(&json!({ "reason": "clotted" }))
        .version(&result["version"]);
    assert_eq!(
        d.send(&call, &lab.technician).await.expect(200)["status"],
        "pending"
    );
    let again = deliver(d, &lab, &file).await;
    assert_eq!(
        (&again["rowsOk"], &again["rowsRejected"]),
        (&json!(0), &json!(1)),
        "{again}"
    );
    assert_eq!(set_aside(d, &lab, &again).await, [(2, "sent_back".to_owned())]);
    // A new measurement lands.
    let file = format!("barcode,code,value,unit,resultedAt\n{barcode},K,4.1,mmol/L,2026-01-31T08:00:00Z\n");
    assert_eq!(deliver(d, &lab, &file).await["rowsOk"], 1);
    world.stop().await;
}

#[tokio::test]
async fn of_contradicting_rows_none_lands_and_what_was_not_measured_is_no_error() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let (_, order) = lab.received_order(d, &["K", "NA", "CL", "CA", "MG"]).await;
    let barcode = order["specimens"][0]["barcode"].as_str().unwrap();
    let file = format!(
        "barcode,code,value,unit,instrument\r\n\
         {barcode},K,4.1,mmol/L,A\r\n\
         {barcode},NA,140,mmol/L,\"two\r\nlines\"\r\n\
         {barcode},K,6.1,mmol/L,A\r\n\
         {barcode},CL,NA,mmol/L,A\r\n\
         {barcode},CA,,mg/dL,A\r\n\
         {barcode},MG,2.0,mg/dL,A\r\n\
         {barcode},MG,2.0,mg/dL,A\r\n\
         nothing,MG,2.0,mg/dL,A\r\n"
    );
    let batch = deliver(d, &lab, &file).await;
    assert_eq!(
        (
            &batch["rowsTotal"],
            &batch["rowsOk"],
            &batch["rowsNotDone"],
            &batch["rowsRejected"]
        ),
        (&json!(8), &json!(1), &json!(2), &json!(5)),
        "{batch}: {:?}",
        set_aside(d, &lab, &batch).await
    );
    // Lines as an editor counts them: a quoted line break counts.
    let found = set_aside(d, &lab, &batch).await;
    let rows: Vec<(i64, &str)> = found.iter().map(|(line, code)| (*line, code.as_str())).collect();
    assert_eq!(
        rows,
        [
            (2, "contradiction"),
            (3, "bad_value"),
            (5, "contradiction"),
            (9, "duplicate_in_file"),
            (10, "unknown_specimen")
        ]
    );
    let path = format!("/api/v1/orders/{}", order["id"].as_str().unwrap());
    let order = d.get(&lab.technician, &path).await.expect(200);
    for (code, value) in [
        ("K", Value::Null),
        ("CL", Value::Null),
        ("CA", Value::Null),
        ("MG", json!("2.0")),
    ] {
        assert_eq!(by_code(&order, code)["value"], value, "{code}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_line_break_inside_quotes_is_part_of_the_value() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let test = json!({ "code": "MICRO", "name": "Culture", "section": "microbiology", "specimenType": "urine", "valueType": "text" });
    d.post(&lab.admin, "/api/v1/tests", test).await.expect(201);
    let (_, order) = lab.received_order(d, &["MICRO"]).await;
    let barcode = order["specimens"][0]["barcode"].as_str().unwrap();
    let file = format!("barcode,code,value\r\n{barcode},MICRO,\"E. coli\r\nsensitive to \"\"all\"\"\"\r\n");
    assert_eq!(deliver(d, &lab, &file).await["rowsOk"], 1);
    let path = format!("/api/v1/orders/{}", order["id"].as_str().unwrap());
    let order = d.get(&lab.technician, &path).await.expect(200);
    assert_eq!(
        by_code(&order, "MICRO")["value"],
        "E. coli\r\nsensitive to \"all\""
    );
    world.stop().await;
}
