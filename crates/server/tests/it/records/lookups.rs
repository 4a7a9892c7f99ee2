//! What is looked for every day.

use serde_json::{Value, json};

use super::ids;
use crate::support::{Call, World, by_code};

#[tokio::test]
async fn an_order_is_found_by_its_numbers_and_its_day() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let patient = lab.patient(d).await;
    let place = |number: &str| json!({ "patientId": patient["id"], "requester": "Dr. Grey", "placerOrderNo": number, "tests": ["K"] });
    let first = d
        .post(&lab.receptionist, "/api/v1/orders", place("A-1"))
        .await
        .expect(201);
    let second = d
        .post(&lab.receptionist, "/api/v1/orders", place("A-2"))
        .await
        .expect(201);
    let list = async |query: &str| {
        d.get(&lab.receptionist, &format!("/api/v1/orders?{query}"))
            .await
            .expect(200)
    };
    let number = first["accessionNo"].as_str().unwrap();
    assert_eq!(
        ids(&list(&format!("accessionNo={number}")).await),
        [first["id"].as_str().unwrap()]
    );
    assert_eq!(
        ids(&list(&format!("accessionNo=%20{number}%C2%A0")).await),
        [first["id"].as_str().unwrap()]
    );
    assert_eq!(
        ids(&list("placerOrderNo=A-2").await),
        [second["id"].as_str().unwrap()]
    );
    assert!(ids(&list("placerOrderNo=A-2&requester=Dr.%20House").await).is_empty());
    assert!(ids(&list("accessionNo=nothing").await).is_empty());
    // The day is the laboratory's own, as the accession number's is.
    let profile = d.get(&lab.admin, "/api/v1/profile").await.expect(200);
    let zone = jiff::tz::TimeZone::get(profile["timeZone"].as_str().unwrap()).unwrap();
    let ordered: jiff::Timestamp = first["orderedAt"].as_str().unwrap().parse().unwrap();
    let day = ordered.to_zoned(zone).date();
    assert_eq!(ids(&list(&format!("orderedOn={day}")).await).len(), 2);
    assert!(ids(&list(&format!("orderedOn={}", day.yesterday().unwrap())).await).is_empty());
    for wrong in ["orderedOn=yesterday", "accessionNo=", "placerOrderNo=%00"] {
        let refused = d.get(&lab.receptionist, &format!("/api/v1/orders?{wrong}")).await;
        assert!(matches!(refused.status, 400 | 422), "{wrong}: {}", refused.text);
    }
    world.stop().await;
}

#[tokio::test]
async fn the_results_of_a_patient_are_read_over_time() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let patient = lab.patient(d).await;
    let mut released = Vec::new();
    for value in ["4.1", "4.2", "4.3"] {
        let order = lab.order(d, &patient["id"], &["K", "NA"]).await;
        lab.draw(d, &order).await;
        let entered = lab.enter(d, by_code(&order, "K"), value).await;
        let verified = lab.verify(d, &entered).await;
        released.push(lab.release(d, &verified).await["id"].as_str().unwrap().to_owned());
    }
    let at = format!("/api/v1/patients/{}/results", patient["id"].as_str().unwrap());
    released.reverse();
    let all = d.get(&lab.technician, &format!("{at}?code=K")).await.expect(200);
    assert_eq!(ids(&all), released, "those drawn last first");
    assert!(all["items"][0]["drawnAt"].is_string(), "{all}");
    let mut seen = Vec::new();
    let mut path = format!("{at}?code=K&limit=2");
    loop {
        let page = d.get(&lab.technician, &path).await.expect(200);
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("{at}?code=K&limit=2&after={next}");
    }
    assert_eq!(seen, released);
    let both = d.get(&lab.technician, &at).await.expect(200);
    assert_eq!(ids(&both).len(), 3, "what is open has no value to read yet");
    let open = d
        .get(&lab.technician, &format!("{at}?open=true"))
        .await
        .expect(200);
    assert_eq!(ids(&open).len(), 6);
    d.get(&lab.receptionist, &at).await.refused(403, "forbidden");
    let nobody = "/api/v1/patients/01890000-0000-7000-8000-000000000000/results";
    d.get(&lab.technician, nobody).await.refused(404, "not-found");
    world.stop().await;
}

#[tokio::test]
async fn an_amendment_that_waits_is_listed_and_marks_the_report() {
    let world = World::start().await;
    let lab = world.lab("acme-lab").await;
    let d = &world.server;
    let (_, order) = lab.received_order(d, &["K"]).await;
    let entered = lab.enter(d, by_code(&order, "K"), "4.1").await;
    let verified = lab.verify(d, &entered).await;
    let released = lab.release(d, &verified).await;
    let waiting = async || {
        d.get(&lab.second_supervisor, "/api/v1/amendments")
            .await
            .expect(200)
    };
    assert_eq!(waiting().await["items"], json!([]));
    let path = format!("/api/v1/results/{}/amendments", released["id"].as_str().unwrap());
    let call = Call::new("POST", path)
        .json(&json!({ "value": "4.7", "reason": "mixed up" }))
        .version(&released["version"]);
    let proposed = d.send(&call, &lab.supervisor).await.expect(200);

    let list = waiting().await;
    assert_eq!(ids(&list), [proposed["amendment"]["id"].as_str().unwrap()]);
    let item = &list["items"][0];
    assert_eq!(
        (
            &item["value"],
            &item["result"]["value"],
            &item["result"]["code"],
            &item["accessionNo"]
        ),
        (&json!("4.7"), &json!("4.1"), &json!("K"), &order["accessionNo"]),
        "{list}"
    );
    let report = format!("/api/v1/orders/{}/report", order["id"].as_str().unwrap());
    let marked =
        async || d.get(&lab.technician, &report).await.expect(200)["results"][0]["amendmentPending"].clone();
    assert_eq!(marked().await, json!(true));
    let text = d.get(&lab.technician, &report).await.text;
    assert!(
        !text.contains("4.7"),
        "a proposal is no statement of the laboratory: {text}"
    );
    let verify = format!("/api/v1/amendments/{}/verify", item["id"].as_str().unwrap());
    d.post(&lab.second_supervisor, &verify, Value::Null)
        .await
        .expect(200);
    assert_eq!(
        (waiting().await["items"].clone(), marked().await),
        (json!([]), json!(false))
    );
    d.get(&lab.receptionist, "/api/v1/amendments")
        .await
        .refused(403, "forbidden");
    world.stop().await;
}
