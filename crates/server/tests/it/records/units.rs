//! A unit is UCUM, or it is explained.

use serde_json::{Value, json};

use super::{conflict, patch};
use crate::support::World;

fn test(code: &str, unit: &str) -> Value {
    json!({ "code": code, "name": "A test", "section": "chemistry", "specimenType": "serum", "valueType": "quantity", "unit": unit })
}

#[tokio::test]
async fn what_is_no_unit_of_ucum_is_refused_and_the_right_spelling_named() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    for (wrong, right) in [
        ("K/uL", "10*3/uL"),
        ("\u{b5}mol/L", "umol/L"),
        ("\u{3bc}mol/L", "umol/L"),
        ("furlong", ""),
        ("G/L", "10*9/L"),
        ("T/L", "10*12/L"),
        ("x10^3/uL", "10*3/uL"),
        ("IU/L", "[IU]/L"),
        ("mIU/mL", "m[IU]/mL"),
        ("mcg/dL", "ug/dL"),
        ("mEq/L", "meq/L"),
        ("mm/hr", "mm/h"),
        ("sec", "s"),
        ("gm/dL", "g/dL"),
        ("mg / dL", "mg/dL"),
        ("\u{b0}C", "Cel"),
        ("mmol/L)", ""),
        ("/", ""),
    ] {
        let refused = d.post(&lab.admin, "/api/v1/tests", test("WRONG", wrong)).await;
        assert_eq!(refused.status, 422, "{wrong:?}: {}", refused.text);
        let error = &refused.json["errors"][0];
        assert_eq!(error["pointer"], "unit", "{}", refused.text);
        assert!(
            right.is_empty() || error["detail"].as_str().unwrap().contains(&format!("{right:?}")),
            "{wrong}: {}",
            refused.text
        );
    }
    for (n, unit) in [
        "mmol/l",
        "10*3/uL",
        "10^3/uL",
        "%",
        "{INR}",
        "m[IU]/L",
        "mL/min/{1.73_m2}",
        "[pH]",
        "ug/g{creat}",
        "1",
    ]
    .into_iter()
    .enumerate()
    {
        let made = d
            .post(&lab.admin, "/api/v1/tests", test(&format!("OK{n}"), unit))
            .await
            .expect(201);
        assert_eq!(made["unit"], unit);
    }
    world.stop().await;
}

#[tokio::test]
async fn unit_and_kind_of_a_test_change_until_it_has_a_result() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let made = d
        .post(&lab.admin, "/api/v1/tests", test("PB", "ug/dL"))
        .await
        .expect(201);
    let at = "/api/v1/tests/PB";
    let wrong = patch(d, &lab.admin, at, &made["version"], &json!({ "unit": "furlong" })).await;
    assert_eq!(
        (wrong.status, &wrong.json["errors"][0]["pointer"]),
        (422, &json!("unit")),
        "{}",
        wrong.text
    );
    let made = patch(d, &lab.admin, at, &made["version"], &json!({ "unit": "umol/L" }))
        .await
        .expect(200);
    assert_eq!(made["unit"], "umol/L");
    let kind = json!({ "valueType": "coded", "unit": null, "allowedValues": ["pos", "neg"] });
    let made = patch(d, &lab.admin, at, &made["version"], &kind)
        .await
        .expect(200);
    assert_eq!(
        (&made["valueType"], &made["unit"], &made["allowedValues"]),
        (&json!("coded"), &Value::Null, &json!(["pos", "neg"]))
    );
    let kind = json!({ "valueType": "quantity", "unit": "umol/L", "allowedValues": null });
    let made = patch(d, &lab.admin, at, &made["version"], &kind)
        .await
        .expect(200);

    // A range is written in the test's unit.
    let range = d
        .post(&lab.admin, "/api/v1/tests/PB/ranges", json!({ "high": "0.17" }))
        .await
        .expect(201);
    let refused = patch(d, &lab.admin, at, &made["version"], &json!({ "unit": "ug/dL" })).await;
    conflict(&refused, "ranges");
    let close = format!("/api/v1/ranges/{}/close", range["id"].as_str().unwrap());
    d.post(&lab.admin, &close, json!({})).await.expect(200);
    let made = patch(d, &lab.admin, at, &made["version"], &json!({ "unit": "ug/dL" }))
        .await
        .expect(200);

    lab.received_order(d, &["PB"]).await;
    let refused = patch(d, &lab.admin, at, &made["version"], &json!({ "unit": "umol/L" })).await;
    conflict(&refused, "has_results");
    world.stop().await;
}
