//! Several processes, and those that die.

use std::{collections::HashSet, sync::Arc};

use model::DeliveryStatus;
use tokio::sync::Notify;

use crate::{
    receiver::{Receiver, Reply},
    rig::{PATIENCE, Rig, Working},
};

#[tokio::test]
async fn several_workers_share_the_deliveries_and_each_is_sent_once_and_in_order() {
    let rig = Rig::new().await;
    let receiver = Receiver::start().await;
    rig.add(&receiver, &[]).await;
    for n in 0..20 {
        rig.laboratory(&format!("lab-{n}")).await;
    }
    let workers: Vec<_> = (0..3).map(|_| rig.another(|_| {})).collect();
    let working: Vec<_> = workers.iter().map(Working::start).collect();
    testkit::eventually("all to be delivered", PATIENCE, async || {
        rig.deliveries()
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
    let rig = Rig::new().await;
    let receiver = Receiver::start().await;
    receiver.first([Reply::Hang]);
    rig.add(&receiver, &[]).await;
    rig.laboratory("acme").await;
    let working = Working::start(&rig.another(|_| {}));
    let first = receiver.until(1).await.remove(0);
    working.kill().await;
    // As time would end its lease.
    let expire =
        "UPDATE webhook_deliveries SET lease_until = clock_timestamp() WHERE lease_until IS NOT NULL";
    assert_eq!(rig.client().await.execute(expire, &[]).await.unwrap(), 1);
    let working = Working::start(&rig.outbox);
    let got = receiver.until(3).await;
    assert_eq!(got[1].id(), first.id(), "the same one again");
    assert_eq!(got[2].kind(), "laboratory.activated");
    working.stop().await;
    let deliveries = rig.deliveries().await;
    assert!(deliveries.iter().all(|d| d.status == DeliveryStatus::Delivered));
    assert_eq!(deliveries[1].attempts, 2, "the try that was cut off counts");
}

/// Whoever slept through the end of the lease writes nothing over what another process wrote.
#[tokio::test]
async fn a_process_that_lost_its_lease_does_not_write_down_what_came_of_it() {
    let rig = Rig::new().await;
    let receiver = Receiver::start().await;
    let (webhook, _) = rig.add(&receiver, &[]).await;
    let now = Arc::new(Notify::new());
    receiver.first([Reply::When(now.clone(), 500)]);
    let delivery = rig.outbox.test(webhook.id, &rig.by()).await.unwrap();
    let slow = rig.outbox.clone();
    let slow = tokio::spawn(async move { slow.send_now(delivery.id).await });
    receiver.until(1).await;
    let expire = "UPDATE webhook_deliveries SET lease_until = clock_timestamp()";
    assert_eq!(rig.client().await.execute(expire, &[]).await.unwrap(), 1);
    let other = rig.another(|_| {});
    other.send_now(delivery.id).await.unwrap().unwrap();
    now.notify_one();
    assert!(slow.await.unwrap().unwrap().unwrap().error.is_some());
    let found = rig.deliveries().await.remove(0);
    assert_eq!(
        (found.status, found.status_code),
        (DeliveryStatus::Delivered, Some(200))
    );
    assert_eq!(rig.webhook(&webhook).await.failures, 0);
}
