//! Several processes, and those that die.

use std::{collections::HashSet, sync::Arc};

use model::DeliveryStatus;
use tokio::sync::Notify;

use crate::{
    harness::{Harness, PATIENCE, Working},
    receiver::{Receiver, Reply},
};

#[tokio::test]
async fn several_workers_share_the_deliveries_and_each_is_sent_once_and_in_order() {
    let harness = Harness::new().await;
    let receiver = Receiver::start().await;
    harness.add(&receiver, &[]).await;
    for n in 0..20 {
        harness.laboratory(&format!("lab-{n}")).await;
    }
    let workers: Vec<_> = (0..3).map(|_| harness.another(|_| {})).collect();
    let working: Vec<_> = workers.iter().map(Working::start).collect();
    testkit::eventually("all to be delivered", PATIENCE, async || {
        harness
            .deliveries()
            .await
            .iter()
            .all(|d| d.status == DeliveryStatus::Delivered)
    })
    .await;
    for working in working {
        working.stop().await;
    }
    let got = receiver.got();
    let ids: HashSet<_> = got.iter().map(|got| got.id().to_owned()).collect();
    assert_eq!((got.len(), ids.len()), (40, 40));
    let mut begun = HashSet::new();
    for got in &got {
        let lab = got.json()["data"]["laboratory"]["id"].to_string();
        match got.kind().as_str() {
            "laboratory.created" => assert!(begun.insert(lab)),
            _ => assert!(begun.contains(&lab), "{lab} was activated before it was created"),
        }
    }
}

#[tokio::test]
async fn what_a_dead_process_was_sending_is_sent_by_another() {
    let harness = Harness::new().await;
    let receiver = Receiver::start().await;
    receiver.first([Reply::Hang]);
    harness.add(&receiver, &[]).await;
    harness.laboratory("acme").await;
    let working = Working::start(&harness.another(|_| {}));
    let first = receiver.until(1).await.remove(0);
    working.kill().await;
    // As time would end its lease.
    let expire =
        "UPDATE webhook_deliveries SET lease_until = clock_timestamp() WHERE lease_until IS NOT NULL";
    assert_eq!(harness.client().await.execute(expire, &[]).await.unwrap(), 1);
    let working = Working::start(&harness.outbox);
    let got = receiver.until(3).await;
    assert_eq!(got[1].id(), first.id(), "the same one again");
    assert_eq!(got[2].kind(), "laboratory.activated");
    working.stop().await;
    let deliveries = harness.deliveries().await;
    assert!(deliveries.iter().all(|d| d.status == DeliveryStatus::Delivered));
    assert_eq!(deliveries[1].attempts, 2, "the try that was cut off counts");
}

/// Whoever slept through the end of the lease writes nothing over what another process wrote.
#[tokio::test]
async fn a_process_that_lost_its_lease_does_not_write_down_what_came_of_it() {
    let harness = Harness::new().await;
    let receiver = Receiver::start().await;
    let (webhook, _) = harness.add(&receiver, &[]).await;
    let now = Arc::new(Notify::new());
    receiver.first([Reply::When(now.clone(), 500)]);
    let delivery = harness.outbox.test(webhook.id, &harness.by()).await.unwrap();
    let slow = harness.outbox.clone();
    let slow = tokio::spawn(async move { slow.send_now(delivery.id).await });
    receiver.until(1).await;
    let expire = "UPDATE webhook_deliveries SET lease_until = clock_timestamp()";
    assert_eq!(harness.client().await.execute(expire, &[]).await.unwrap(), 1);
    let other = harness.another(|_| {});
    other.send_now(delivery.id).await.unwrap().unwrap();
    now.notify_one();
    assert!(slow.await.unwrap().unwrap().unwrap().error.is_some());
    let found = harness.deliveries().await.remove(0);
    assert_eq!(
        (found.status, found.status_code),
        (DeliveryStatus::Delivered, Some(200))
    );
    assert_eq!(harness.webhook(&webhook).await.failures, 0);
}
