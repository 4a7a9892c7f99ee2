//! A receiver that says when it wants to be asked again is asked again then, and not before, whatever is to
//! be sent.

use std::time::Duration;

use model::Clock as _;
use testkit::eventually;

use crate::{
    harness::{Harness, PATIENCE, Working},
    receiver::{Receiver, Reply},
};

const HOUR: Duration = Duration::from_secs(3_600);

async fn failed_once(harness: &Harness) -> registry::Delivery {
    let found = std::cell::RefCell::new(None);
    eventually("an attempt that failed", PATIENCE, async || {
        let all = harness.deliveries().await;
        *found.borrow_mut() = all.into_iter().find(|delivery| delivery.error.is_some());
        found.borrow().is_some()
    })
    .await;
    found.into_inner().unwrap()
}

/// By how much the next attempt lies ahead.
fn ahead(delivery: &registry::Delivery) -> f64 {
    let now = model::SystemClock.now();
    delivery.not_before.duration_since(now).as_secs_f64()
}

#[tokio::test]
async fn a_date_is_understood_as_well_as_seconds_and_read_by_the_receivers_own_clock() {
    // The receiver's clock is years off: what counts is the time between its two dates.
    let by_its_clock =
        "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 09:49:37 GMT\r\n";
    let obsolete = "date: Sunday, 06-Nov-94 08:49:37 GMT\r\nretry-after: Sun Nov  6 09:49:37 1994\r\n";
    for head in ["retry-after: 3600\r\n", by_its_clock, obsolete] {
        let harness = Harness::with(|config| config.backoff_max = HOUR * 2).await;
        let receiver = Receiver::start().await;
        harness.add(&receiver, &[]).await;
        receiver.always(Reply::Full(503, head.to_owned(), String::new()));
        let working = Working::start(&harness.outbox);
        harness.laboratory("acme").await;
        let wait = ahead(&failed_once(&harness).await);
        assert!((3_000.0..=3_601.0).contains(&wait), "{head:?}: {wait} s");
        working.stop().await;
    }
    // Without a date of its own, by ours; what has passed already is no wait, and nonsense is none.
    for head in [
        "retry-after: Sun, 06 Nov 1994 09:49:37 GMT\r\n",
        "retry-after: soon\r\n",
        "retry-after: -1\r\n",
    ] {
        let harness = Harness::with(|config| config.backoff_max = HOUR * 2).await;
        let receiver = Receiver::start().await;
        harness.add(&receiver, &[]).await;
        receiver.first([Reply::Full(503, head.to_owned(), String::new())]);
        let working = Working::start(&harness.outbox);
        harness.laboratory("acme").await;
        receiver.until(3).await;
        working.stop().await;
    }
}

#[tokio::test]
async fn the_whole_address_is_held_back_and_no_other() {
    let harness = Harness::with(|config| config.backoff_max = HOUR * 2).await;
    let (overloaded, other) = (Receiver::start().await, Receiver::start().await);
    let (webhook, _) = harness.add(&overloaded, &[]).await;
    harness.add(&other, &[]).await;
    let head = "retry-after: 3600\r\n".to_owned();
    overloaded.always(Reply::Full(429, head, String::new()));
    let working = Working::start(&harness.outbox);
    harness.laboratory("acme").await;
    failed_once(&harness).await;
    other.until(2).await;
    // Another laboratory's events go their own way, but to the same address.
    harness.laboratory("bravo").await;
    other.until(4).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(overloaded.got().len(), 1, "it asked not to be asked for an hour");
    // Whoever switches it on again says that it is well.
    overloaded.always(Reply::Status(200));
    harness.outbox.enable(webhook.id, &harness.by()).await.unwrap();
    overloaded.until(5).await;
    working.stop().await;
}
