//! Lists are in the order of the database's own time: the ids come from the programs' clocks, which differ.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use super::ids;
use crate::support::{World, connect};

/// What a program wrote whose clock is far ahead, before what follows.
const AHEAD: &str = "
    INSERT INTO patient (id, mrn, family_name, given_name, family_key, given_key, sex, birth_date)
    VALUES ('ffffffff-0000-7000-8000-000000000001', 'AHEAD', 'Ahead', 'A', 'ahead', 'a', 'F', '1980-01-01');
    INSERT INTO lab_order (id, accession_no, patient_id, created_by)
    SELECT 'ffffffff-0000-7000-8000-000000000002', 'AHEAD', 'ffffffff-0000-7000-8000-000000000001', id FROM staff LIMIT 1;
    INSERT INTO staff (id, display_name, email, role)
    VALUES ('ffffffff-0000-7000-8000-000000000003', 'Ahead', 'ahead@example.org', 'technician');";

#[tokio::test]
async fn patients_orders_and_staff_are_listed_newest_first_whatever_clock_made_their_ids() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let database = format!("{}_tenant_acme-lab", world.space.namespace.as_str());
    let client = connect(&world.space.server.with_database(database)).await;
    let before = lab.patient(d).await;
    client.batch_execute(AHEAD).await.unwrap();
    let patient = lab.patient(d).await;
    let order = lab.order(d, &patient["id"], &["K"]).await;
    let body = json!({ "displayName": "Later", "email": "later@example.org", "role": "technician" });
    let person = d.post(&lab.admin, "/api/v1/staff", body).await.expect(201);
    let person = person.get("staff").unwrap_or(&person).clone();
    let ahead = |n: u8| format!("ffffffff-0000-7000-8000-00000000000{n}");

    for (token, path, newest, older) in [
        (&lab.receptionist, "/api/v1/patients?", &patient["id"], ahead(1)),
        (&lab.receptionist, "/api/v1/orders?", &order["id"], ahead(2)),
        (&lab.admin, "/api/v1/staff?", &person["id"], ahead(3)),
    ] {
        let all = d.get(token, &format!("{path}limit=200")).await.expect(200);
        let all = ids(&all);
        assert_eq!(
            (all[0], all[1]),
            (newest.as_str().unwrap(), older.as_str()),
            "{path}"
        );
        // Page by page, nothing is left out and nothing comes twice.
        let mut paged: Vec<String> = Vec::new();
        let mut next = String::new();
        loop {
            let page = d.get(token, &format!("{path}limit=1{next}")).await.expect(200);
            paged.extend(ids(&page).iter().map(|id| (*id).to_owned()));
            assert!(paged.len() <= all.len(), "{path}: {paged:?}");
            match page["next"].as_str() {
                Some(cursor) => next = format!("&after={cursor}"),
                None => break,
            }
        }
        assert_eq!(paged, all, "{path}");
        // A cursor of an earlier version is the id of a row.
        let old = |id: &str| URL_SAFE_NO_PAD.encode(format!("i{}", id.replace('-', "")));
        let page = d
            .get(token, &format!("{path}limit=1&after={}", old(all[0])))
            .await
            .expect(200);
        assert_eq!(ids(&page), [all[1]], "{path}");
        let unknown = old("00000000-0000-7000-8000-0000000000aa");
        d.get(token, &format!("{path}after={unknown}"))
            .await
            .refused(422, "invalid");
    }
    let search = |q: &str| format!("/api/v1/patients?limit=1{q}");
    let found = d
        .get(&lab.receptionist, &search("&birthDate=1980-04-01"))
        .await
        .expect(200);
    assert_eq!(ids(&found), [patient["id"].as_str().unwrap()]);
    let next = format!("&birthDate=1980-04-01&after={}", found["next"].as_str().unwrap());
    let found = d.get(&lab.receptionist, &search(&next)).await.expect(200);
    assert_eq!(ids(&found), [before["id"].as_str().unwrap()], "{found}");
    world.stop().await;
}
