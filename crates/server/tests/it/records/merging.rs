//! Two records of one person become one, and two again if that was wrong.

use serde_json::{Value, json};

use super::{conflict, ids, patch};
use crate::support::{Lab, Tenantd, World, by_code};

async fn patient(d: &Tenantd, lab: &Lab, family: &str, national_id: Option<&str>) -> Value {
    let body = json!({ "nationalId": national_id, "familyName": family, "givenName": "Ada", "sex": "F", "birthDate": "1980-04-01" });
    d.post(&lab.receptionist, "/api/v1/patients", body)
        .await
        .expect(201)
}

fn at(patient: &Value, rest: &str) -> String {
    format!("/api/v1/patients/{}{rest}", patient["id"].as_str().unwrap())
}

async fn merge(d: &Tenantd, lab: &Lab, from: &Value, into: &Value) -> Value {
    let body = json!({ "into": into["id"], "reason": "registered twice" });
    d.post(&lab.supervisor, &at(from, "/merge"), body)
        .await
        .expect(200)
}

#[tokio::test]
async fn what_was_known_of_a_merged_patient_finds_the_survivor() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let old = patient(d, &lab, "Byron", Some("N-1")).await;
    let new = patient(d, &lab, "Lovelace", None).await;
    let first = lab.order(d, &old["id"], &["K"]).await;
    let survivor = merge(d, &lab, &old, &new).await;
    assert_eq!(survivor["id"], new["id"]);
    assert_eq!(survivor["mergedRecords"][0]["mrn"], old["mrn"], "{survivor}");
    let second = lab.order(d, &new["id"], &["NA"]).await;

    for patient in [&new, &old] {
        let path = format!("/api/v1/orders?patientId={}", patient["id"].as_str().unwrap());
        let orders = d.get(&lab.receptionist, &path).await.expect(200);
        assert_eq!(
            ids(&orders),
            [second["id"].as_str().unwrap(), first["id"].as_str().unwrap()]
        );
    }
    for q in ["byron", "ada%20byron", "N-1", old["mrn"].as_str().unwrap()] {
        let found = d
            .get(&lab.receptionist, &format!("/api/v1/patients?q={q}"))
            .await
            .expect(200);
        assert_eq!(ids(&found), [new["id"].as_str().unwrap()], "{q}");
        assert_eq!(found["items"][0]["foundBy"], old["id"], "{q}: {found}");
    }
    let found = d
        .get(&lab.receptionist, "/api/v1/patients?q=lovelace")
        .await
        .expect(200);
    assert_eq!(
        (ids(&found).len(), &found["items"][0]["foundBy"]),
        (1, &Value::Null)
    );

    // The number is this person's: nobody else gets it, and the survivor may have it.
    let other = json!({ "nationalId": "N-1", "familyName": "Babbage", "givenName": "C", "sex": "M", "birthDate": "1980-04-01" });
    d.post(&lab.receptionist, "/api/v1/patients", other)
        .await
        .refused(409, "duplicate");
    let taken = patch(
        d,
        &lab.receptionist,
        &at(&new, ""),
        &survivor["version"],
        &json!({ "nationalId": "N-1" }),
    )
    .await;
    assert_eq!(taken.expect(200)["nationalId"], "N-1");
    world.stop().await;
}

#[tokio::test]
async fn a_merge_is_undone_while_nothing_was_released_since() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let (a, b, c) = (
        patient(d, &lab, "Byron", Some("N-1")).await,
        patient(d, &lab, "Lovelace", None).await,
        patient(d, &lab, "King", None).await,
    );
    let reason = json!({ "reason": "two people after all" });
    conflict(
        &d.post(&lab.supervisor, &at(&a, "/unmerge"), reason.clone()).await,
        "not_merged",
    );
    merge(d, &lab, &a, &b).await;
    merge(d, &lab, &b, &c).await;
    d.post(&lab.receptionist, &at(&b, "/unmerge"), reason.clone())
        .await
        .refused(403, "forbidden");
    let parted = d
        .post(&lab.supervisor, &at(&b, "/unmerge"), reason.clone())
        .await
        .expect(200);
    assert_eq!((&parted["id"], &parted["mergedInto"]), (&b["id"], &Value::Null));
    let of = async |patient: &Value| d.get(&lab.receptionist, &at(patient, "")).await.expect(200);
    assert_eq!(
        of(&a).await["mergedInto"],
        b["id"],
        "what was merged into it before stays so"
    );
    assert_eq!(of(&c).await["mergedRecords"], json!([]));

    let order = lab.order(d, &b["id"], &["K"]).await;
    lab.draw(d, &order).await;
    let entered = lab.enter(d, by_code(&order, "K"), "4.1").await;
    let verified = lab.verify(d, &entered).await;
    lab.release(d, &verified).await;
    conflict(
        &d.post(&lab.supervisor, &at(&a, "/unmerge"), reason).await,
        "released_since",
    );
    world.stop().await;
}
