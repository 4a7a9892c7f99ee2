//! Texts that look the same are the same.

use serde_json::json;

use super::{deliver, set_aside};
use crate::support::{World, by_code};

#[tokio::test]
async fn an_identifier_is_one_however_its_blanks_and_accents_are_written() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let patient = |id: &str| json!({ "nationalId": id, "familyName": "Byron", "givenName": "Ada", "sex": "F", "birthDate": "1980-04-01" });
    for (first, same) in [
        (
            "Z1",
            &[
                "Z1 ",
                " Z1",
                "\u{a0}Z1",
                "Z1\u{2003}",
                "\u{200b}Z1",
                "Z1\u{feff}",
                "\tZ1\n",
            ][..],
        ),
        ("É 7", &["E\u{301} 7", "É\u{a0}7", "É   7"]),
    ] {
        let created = d
            .post(&lab.receptionist, "/api/v1/patients", patient(first))
            .await
            .expect(201);
        assert_eq!(created["nationalId"], first);
        for id in same {
            let again = d.post(&lab.receptionist, "/api/v1/patients", patient(id)).await;
            again.refused(409, "duplicate");
        }
    }
    // Inside an identifier nobody can see it, and nobody can tell what was meant.
    for hidden in ["Z\u{200b}1", "Z\u{ad}1", "\u{202e}1Z", "Z\u{0}1"] {
        let refused = d
            .post(&lab.receptionist, "/api/v1/patients", patient(hidden))
            .await;
        assert_eq!(refused.status, 422, "{hidden:?}: {}", refused.text);
        assert_eq!(
            refused.json["errors"][0]["pointer"], "nationalId",
            "{}",
            refused.text
        );
    }
    world.stop().await;
}

#[tokio::test]
async fn names_units_and_codes_are_stored_in_one_form_and_found_in_any() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let body = json!({ "familyName": "  Jose\u{301}\u{a0}\u{a0}Maria ", "givenName": "\u{feff}Zoe\u{308} ", "sex": "F", "birthDate": "1980-04-01" });
    let patient = d
        .post(&lab.receptionist, "/api/v1/patients", body)
        .await
        .expect(201);
    assert_eq!(
        (&patient["familyName"], &patient["givenName"]),
        (&json!("José Maria"), &json!("Zoë"))
    );
    let found = d
        .get(
            &lab.receptionist,
            "/api/v1/patients?q=%C2%A0jose%C2%A0maria%20zoe%E2%80%8B",
        )
        .await
        .expect(200);
    assert_eq!(found["items"][0]["id"], patient["id"], "{found}");

    let order = |requester: &str, number: &str| json!({ "patientId": patient["id"], "requester": requester, "placerOrderNo": number, "tests": ["K"] });
    let placed = d
        .post(&lab.receptionist, "/api/v1/orders", order("Dr. Grey", "A-1"))
        .await
        .expect(201);
    let again = d
        .post(
            &lab.receptionist,
            "/api/v1/orders",
            order("Dr.\u{a0}Grey ", " A-1\u{200b}"),
        )
        .await;
    again.refused(409, "duplicate");

    let test = json!({ "code": "PB", "name": " Lead\u{a0}in blood ", "section": "metals ", "specimenType": " blood", "valueType": "quantity", "unit": "ug/dL " });
    let test = d.post(&lab.admin, "/api/v1/tests", test).await.expect(201);
    for (field, form) in [
        ("name", "Lead in blood"),
        ("section", "metals"),
        ("specimenType", "blood"),
        ("unit", "ug/dL"),
    ] {
        assert_eq!(test[field], form, "{field}");
    }

    // A file's blanks say nothing either.
    lab.draw(d, &placed).await;
    let barcode = placed["specimens"][0]["barcode"].as_str().unwrap();
    let file = format!(
        "barcode,code,value,unit,instrument\n\u{a0}{barcode} ,K\u{a0}, 4.1\u{a0},mmol/L\u{200b}, AU 680 \n"
    );
    let batch = deliver(d, &lab, &file).await;
    assert_eq!(batch["rowsOk"], 1, "{:?}", set_aside(d, &lab, &batch).await);
    let path = format!("/api/v1/orders/{}", placed["id"].as_str().unwrap());
    let order = d.get(&lab.technician, &path).await.expect(200);
    let result = by_code(&order, "K");
    assert_eq!(
        (&result["value"], &result["instrument"]),
        (&json!("4.1"), &json!("AU 680"))
    );
    world.stop().await;
}
