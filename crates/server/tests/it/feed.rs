//! The feed of released results, as another system reads it.

use serde_json::json;

use crate::{
    sessions::{backed_up, restore, serves},
    support::{Lab, Tenantd, World},
};

const FEED: &str = "/api/v1/exports/results";

/// Releases a potassium that is neither high nor low.
async fn publish(d: &Tenantd, lab: &Lab) {
    let (_, order) = lab.received_order(d, &["K"]).await;
    let entered = lab.enter(d, &order["results"][0], "4.0").await;
    let verified = lab.verify(d, &entered).await;
    lab.release(d, &verified).await;
}

#[tokio::test]
async fn a_cursor_of_before_a_restore_is_refused_since_its_numbers_are_given_again() {
    let world = World::start().await;
    let mut lab = world.lab("acme-lab").await;
    let d = &world.server;
    publish(d, &lab).await;
    let archive = backed_up(&world, &lab).await;
    publish(d, &lab).await;
    publish(d, &lab).await;
    let page = format!("{FEED}?limit=1");
    let first = d.get(&lab.supervisor, &page).await.expect(200);
    let next = |page: &serde_json::Value| page["next"].as_str().unwrap().to_owned();
    let second = d
        .get(&lab.supervisor, &format!("{page}&after={}", next(&first)))
        .await
        .expect(200);
    let cursor = next(&second);
    assert_eq!(second["items"][0]["seq"], json!(2));

    let in_place = json!({ "inPlace": true, "confirmSlug": "acme-lab" });
    restore(&world, &archive, in_place).await;
    for (role, token) in [
        ("receptionist", &mut lab.receptionist),
        ("technician", &mut lab.technician),
        ("supervisor", &mut lab.supervisor),
    ] {
        *token = serves(d, &Lab::email("acme-lab", role)).await;
    }
    publish(d, &lab).await;
    let refused = d.get(&lab.supervisor, &format!("{FEED}?after={cursor}")).await;
    refused.refused(409, "conflict");
    assert_eq!(
        refused.json["errors"][0]["code"], "feed_restarted",
        "{}",
        refused.text
    );
    let anew = d.get(&lab.supervisor, FEED).await.expect(200);
    let numbers: Vec<_> = anew["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["seq"])
        .collect();
    assert_eq!(
        numbers,
        [1, 2],
        "the second number was given before, to another result"
    );
    world.stop().await;
}
