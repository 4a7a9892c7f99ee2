//! What receivers get, when, and how often.

use std::{collections::HashSet, time::Duration};

use model::{DeliveryStatus, EventType, OperationId, OperationKind, TenantEvent, TenantState};
use registry::{Claimable, NewOperation, Outcome};
use serde_json::json;

use crate::{
    harness::{Harness, PATIENCE, Working, shown},
    receive::{Received, receive},
    receiver::{Got, Receiver, Reply},
};

#[tokio::test]
async fn every_change_of_a_laboratory_reaches_the_receiver_in_order_and_signed() {
    let harness = Harness::new().await;
    let receiver = Receiver::start().await;
    let (webhook, secret) = harness.add(&receiver, &[]).await;
    assert!(!format!("{webhook:?}").contains(&secret));
    let working = Working::start(&harness.outbox);
    let lab = harness.laboratory("acme").await;
    for event in [
        TenantEvent::Suspend,
        TenantEvent::Resume,
        TenantEvent::Offboard,
        TenantEvent::CancelOffboard {
            before: TenantState::Active,
        },
        TenantEvent::Offboard,
    ] {
        harness.happens(lab, event).await;
    }
    let delete = async |txn: &registry::RegistryTransaction<'_>| {
        registry::tenant_delete_in_txn(txn, lab, TenantEvent::OffboardFinished, &harness.by()).await
    };
    assert!(harness.registry.in_txn(delete).await.unwrap());

    let got = receiver.until(8).await;
    let expected = [
        "created",
        "activated",
        "suspended",
        "resumed",
        "offboard_requested",
        "readmitted",
        "offboard_requested",
        "removed",
    ];
    let kinds = expected.map(|word| format!("laboratory.{word}"));
    assert_eq!(receiver.kinds(), kinds, "the last one though the row is gone");
    let mut seen = HashSet::new();
    for got in &got {
        let judged = receive(&secret, &got.headers, got.body.as_bytes(), &mut seen);
        assert_eq!(judged, Received::New, "{got:?}");
        assert_eq!(got.headers["content-type"], "application/json");
        let json = got.json();
        assert_eq!(json["data"]["laboratory"]["id"], json!(lab));
        assert_eq!(json["data"]["laboratory"]["slug"], "acme");
        assert_eq!(json["data"]["actor"], "terminal:ada");
    }
    assert_eq!(got[2].json()["data"]["laboratory"]["state"], "suspended");
    assert_eq!(got[7].json()["data"]["laboratory"]["state"], json!(null));
    let numbers: Vec<i64> = got
        .iter()
        .map(|got| got.json()["data"]["sequence"].as_i64().unwrap())
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    working.stop().await;
    let stats = harness.outbox.stats();
    assert_eq!((stats.delivered, stats.failed), (8, 0));
    let deliveries = harness.deliveries().await;
    assert!(deliveries.iter().all(|d| d.status == DeliveryStatus::Delivered));
}

#[tokio::test]
async fn a_receiver_tells_a_forgery_a_change_and_a_repetition_apart() {
    let harness = Harness::new().await;
    let receiver = Receiver::start().await;
    let (_, secret) = harness.add(&receiver, &[EventType::LaboratoryActivated]).await;
    let working = Working::start(&harness.outbox);
    harness.laboratory("acme").await;
    let got = receiver.until(1).await.remove(0);
    assert_eq!(got.kind(), "laboratory.activated", "created was not asked for");
    let mut seen = HashSet::new();
    let mut judge =
        |secret: &str, got: &Got, body: &str| receive(secret, &got.headers, body.as_bytes(), &mut seen);
    let forged = "whsec_Zm9yZ2VkIGZvcmdlZCBmb3JnZWQgZm9yZ2Vk";
    assert_eq!(judge(forged, &got, &got.body), Received::Refused);
    let changed = got.body.replace("acme", "evil");
    assert_eq!(judge(&secret, &got, &changed), Received::Refused);
    for header in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let mut other = got.clone();
        other.headers.insert(header, "1".parse().unwrap());
        assert_eq!(judge(&secret, &other, &got.body), Received::Refused, "{header}");
    }
    assert_eq!(judge(&secret, &got, &got.body), Received::New);
    assert_eq!(judge(&secret, &got, &got.body), Received::Again);
    working.stop().await;
}

#[tokio::test]
async fn the_end_of_an_operation_is_told_and_a_rolled_back_change_is_not() {
    let harness = Harness::new().await;
    let receiver = Receiver::start().await;
    let lab = harness.laboratory("acme").await;
    harness.add(&receiver, &[]).await;
    let mut client = harness.client().await;
    let txn = client.transaction().await.unwrap();
    registry::tenant_transition_in_txn(&txn, lab, TenantEvent::Suspend, &harness.by())
        .await
        .unwrap();
    txn.rollback().await.unwrap();
    let txn = client.transaction().await.unwrap();
    let new = NewOperation {
        id: OperationId::generate(),
        kind: OperationKind::Migrate,
        tenant: lab,
        tenant_slug: "acme".parse().unwrap(),
        params: json!({}),
        created_by: harness.by().actor.clone(),
        idempotency_key: None,
    };
    registry::operation_insert_in_txn(&txn, &new).await.unwrap();
    let (operation, lease) =
        registry::operation_claim(&txn, "worker", PATIENCE, Claimable::Operation(new.id))
            .await
            .unwrap()
            .unwrap();
    let outcome = Outcome::Failed("no disk");
    registry::outbox_of_operation_end(&txn, &operation, outcome, harness.by().actor)
        .await
        .unwrap();
    registry::operation_finish(&txn, &lease, outcome).await.unwrap();
    txn.commit().await.unwrap();
    // Behind it, so that what the rolled back change would have sent would have come before.
    harness.happens(lab, TenantEvent::Suspend).await;
    let working = Working::start(&harness.outbox);
    let got = receiver.until(2).await;
    assert_eq!(receiver.kinds(), ["operation.failed", "laboratory.suspended"]);
    assert_eq!(got[0].json()["data"]["operation"]["error"], "no disk");
    assert_eq!(got[0].json()["data"]["operation"]["kind"], "migrate");
    working.stop().await;
    assert_eq!(receiver.got().len(), 2);
}

#[tokio::test]
async fn a_failure_is_tried_again_with_the_same_id_and_nothing_overtakes_it() {
    let harness = Harness::new().await;
    let receiver = Receiver::start().await;
    let redirect = "location: http://127.0.0.1:1/\r\n".to_owned();
    receiver.first([
        Reply::Full(500, String::new(), "out of\norder ".repeat(10_000)),
        Reply::Full(302, redirect, String::new()),
        Reply::Status(429),
    ]);
    let (webhook, _) = harness.add(&receiver, &[]).await;
    let lab = harness.laboratory("acme").await;
    harness.happens(lab, TenantEvent::Suspend).await;
    let working = Working::start(&harness.outbox);
    let got = receiver.until(6).await;
    working.stop().await;
    let ids: HashSet<&str> = got[..4].iter().map(Got::id).collect();
    assert_eq!(ids.len(), 1, "the first event until it got through");
    let bodies: HashSet<&str> = got[..4].iter().map(|got| got.body.as_str()).collect();
    assert_eq!(bodies.len(), 1);
    let kinds = &receiver.kinds()[3..];
    assert_eq!(
        kinds,
        [
            "laboratory.created",
            "laboratory.activated",
            "laboratory.suspended"
        ]
    );

    let first = harness.deliveries().await.pop().unwrap();
    assert_eq!((first.attempts, first.status), (4, DeliveryStatus::Delivered));
    let attempts = registry::attempts_of(&harness.client().await, first.id)
        .await
        .unwrap();
    let codes: Vec<_> = attempts.iter().map(|a| a.status_code.unwrap()).collect();
    assert_eq!(codes, [200, 429, 302, 500]);
    let error = attempts[3].error.as_deref().unwrap();
    assert!(error.contains("out of order") && error.len() < 400, "{error}");
    let error = attempts[2].error.as_deref().unwrap();
    assert!(error.contains("redirects are not followed"), "{error}");
    let webhook = harness.webhook(&webhook).await;
    assert_eq!((webhook.failures, webhook.failing_since), (0, None));
}

#[tokio::test]
async fn an_address_that_hangs_holds_nobody_else_up() {
    let harness = Harness::with(|config| {
        config.request_timeout = Duration::from_millis(300);
        config.parallel_max = 4;
        config.parallel_per_webhook_max = 2;
    })
    .await;
    let (hanging, good) = (Receiver::start().await, Receiver::start().await);
    hanging.always(Reply::Hang);
    let (first, _) = harness.add(&hanging, &[]).await;
    harness.add(&good, &[]).await;
    for n in 0..6 {
        harness.laboratory(&format!("lab-{n}")).await;
    }
    let working = Working::start(&harness.outbox);
    good.until(12).await;
    hanging.until(3).await;
    working.stop().await;
    let deliveries = harness.deliveries().await;
    let slow = deliveries
        .iter()
        .find(|d| d.webhook == first.id && d.error.is_some());
    let slow = slow.expect("one has timed out");
    assert_eq!(slow.error.as_deref(), Some("no answer in time"));
    assert!(slow.took_ms.unwrap() >= 300);
}

#[tokio::test]
async fn a_delivery_is_given_up_and_the_next_goes_on_and_it_can_be_queued_again() {
    let harness = Harness::with(|config| config.attempts_max = 2).await;
    let receiver = Receiver::start().await;
    receiver.first([Reply::Status(500), Reply::Status(500)]);
    harness.add(&receiver, &[]).await;
    harness.laboratory("acme").await;
    let working = Working::start(&harness.outbox);
    let got = receiver.until(3).await;
    assert_eq!(got[2].kind(), "laboratory.activated");
    let lost = harness.deliveries().await.pop().unwrap();
    assert_eq!(
        (lost.status, lost.status_code),
        (DeliveryStatus::Failed, Some(500))
    );
    let again = harness.outbox.redeliver(lost.id, &harness.by()).await.unwrap();
    assert_eq!((again.status, again.attempts), (DeliveryStatus::Pending, 0));
    let got = receiver.until(4).await;
    assert_eq!(got[3].id(), got[0].id());
    working.stop().await;
    assert_eq!(harness.outbox.stats().given_up, 1);
}

#[tokio::test]
async fn an_address_that_keeps_failing_is_switched_off_and_on_again() {
    let harness = Harness::with(|config| {
        config.off_after = Duration::ZERO;
        config.off_failures = 3;
    })
    .await;
    let (broken, other) = (Receiver::start().await, Receiver::start().await);
    broken.always(Reply::Status(503));
    let (webhook, _) = harness.add(&broken, &[]).await;
    let (gone, _) = harness
        .add(&Receiver::start().await, &[EventType::LaboratoryRemoved])
        .await;
    harness.add(&other, &[EventType::WebhookDisabled]).await;
    let working = Working::start(&harness.outbox);
    let lab = harness.laboratory("acme").await;
    let reported = other.until(1).await.remove(0);
    assert_eq!(reported.json()["data"]["webhook"]["id"], json!(webhook.id));
    let off = harness.webhook(&webhook).await;
    assert_eq!(off.failures, 3);
    assert!(off.disabled_why.unwrap().contains("503"));
    assert!(harness.webhook(&gone).await.disabled_at.is_none());
    harness.happens(lab, TenantEvent::Suspend).await;
    let audit = registry::audit_list(
        &harness.client().await,
        &registry::AuditFilter::default(),
        None,
        10,
    )
    .await
    .unwrap();
    assert!(audit.iter().any(|line| line.action == "webhook.switched_off"));

    broken.always(Reply::Status(200));
    assert_eq!(broken.got().len(), 3, "nothing is sent to it");
    harness.outbox.enable(webhook.id, &harness.by()).await.unwrap();
    // All that happened meanwhile, its own switching off among it.
    broken.until(7).await;
    let mut kinds = broken.kinds().split_off(3);
    kinds.retain(|kind| kind != "webhook.disabled");
    assert_eq!(
        kinds,
        [
            "laboratory.created",
            "laboratory.activated",
            "laboratory.suspended"
        ]
    );
    broken.always(Reply::Status(410));
    harness.happens(lab, TenantEvent::Resume).await;
    other.until(2).await;
    let off = harness.webhook(&webhook).await.disabled_why.unwrap();
    assert!(off.contains("410"), "{off}");
    working.stop().await;
}

#[tokio::test]
async fn two_secrets_are_valid_while_a_receiver_changes_over() {
    let harness = Harness::new().await;
    let receiver = Receiver::start().await;
    let (webhook, old) = harness.add(&receiver, &[]).await;
    let (_, new) = harness
        .outbox
        .rotate(webhook.id, PATIENCE, &harness.by())
        .await
        .unwrap();
    let new = shown(&new);
    let delivery = harness.outbox.test(webhook.id, &harness.by()).await.unwrap();
    let sent = harness.outbox.send_now(delivery.id).await.unwrap().unwrap();
    assert_eq!((sent.status_code, sent.error), (Some(200), None));
    assert!(
        harness.outbox.send_now(delivery.id).await.unwrap().is_none(),
        "once"
    );
    let valid = |secret: &str, got: &Got| {
        receive(secret, &got.headers, got.body.as_bytes(), &mut HashSet::new()) == Received::New
    };
    let got = receiver.until(1).await.remove(0);
    assert_eq!(got.kind(), "webhook.test");
    assert!(valid(&old, &got) && valid(&new, &got));

    let (_, newest) = harness
        .outbox
        .rotate(webhook.id, Duration::ZERO, &harness.by())
        .await
        .unwrap();
    let delivery = harness.outbox.test(webhook.id, &harness.by()).await.unwrap();
    harness.outbox.send_now(delivery.id).await.unwrap().unwrap();
    let got = receiver.until(2).await.remove(1);
    assert!(valid(&shown(&newest), &got) && !valid(&new, &got) && !valid(&old, &got));
    let row = harness
        .client()
        .await
        .query_one("SELECT row_to_json(w)::text FROM webhooks w", &[])
        .await
        .unwrap();
    assert!(!row.get::<_, String>(0).contains("whsec_"), "sealed at rest");
}

#[tokio::test]
async fn old_events_go_and_what_waits_too_long_is_given_up() {
    let harness = Harness::with(|config| {
        config.age_max = Duration::from_secs(3_600);
        config.keep = Duration::from_secs(7_200);
    })
    .await;
    let receiver = Receiver::start().await;
    let (webhook, _) = harness.add(&receiver, &[]).await;
    harness.outbox.disable(webhook.id, &harness.by()).await.unwrap();
    harness.laboratory("acme").await;
    let client = harness.client().await;
    let older = "UPDATE webhook_deliveries SET queued_at = queued_at - interval '61 min'
          WHERE position = (SELECT min(position) FROM outbox)";
    client.execute(older, &[]).await.unwrap();
    let working = Working::start(&harness.outbox);
    let statuses =
        async || -> Vec<DeliveryStatus> { harness.deliveries().await.iter().map(|d| d.status).collect() };
    let expected = [DeliveryStatus::Pending, DeliveryStatus::Failed];
    testkit::eventually("giving up", PATIENCE, async || statuses().await == expected).await;
    client
        .execute("UPDATE outbox SET at = at - interval '3 h'", &[])
        .await
        .unwrap();
    // The other one is pending still.
    testkit::eventually("removal", PATIENCE, async || {
        statuses().await == [DeliveryStatus::Pending]
    })
    .await;
    working.stop().await;
    assert_eq!(receiver.got().len(), 0);
}
