//! Which addresses are taken, and which are connected to.

use std::time::Duration;

use model::{DeliveryStatus, EventType, WebhookId};
use outbox::{NewAddress, OVERLAP_MAX, OutboxError};

use crate::{harness::Harness, receiver::Receiver};

fn address(url: &str) -> NewAddress {
    NewAddress {
        url: url.to_owned(),
        description: String::new(),
        event_types: Vec::new(),
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_the_name_of_the_field() {
    let harness = Harness::with(|config| config.private_addresses = false).await;
    let field = async |new: NewAddress| match harness.outbox.add(new, &harness.by()).await {
        Err(OutboxError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        field(address("http://169.254.169.254/latest/meta-data")).await,
        "url"
    );
    let long = NewAddress {
        description: "x".repeat(201),
        ..address("https://example.org/")
    };
    assert_eq!(field(long).await, "description");
    let test = NewAddress {
        event_types: vec![EventType::WebhookTest],
        ..address("https://example.org/")
    };
    assert_eq!(field(test).await, "eventTypes");
    let nobody = WebhookId::generate();
    let error = harness.outbox.test(nobody, &harness.by()).await.unwrap_err();
    assert!(error.to_string().contains(&nobody.to_string()), "{error}");
    assert!(harness.outbox.remove(nobody, &harness.by()).await.is_err());
    let error = harness
        .outbox
        .rotate(nobody, OVERLAP_MAX + Duration::from_secs(1), &harness.by())
        .await;
    assert!(matches!(
        error,
        Err(OutboxError::Invalid { field: "overlap", .. })
    ));
}

/// A name is judged when it is looked up, and one that was registered while private addresses were allowed is
/// judged too.
#[tokio::test]
async fn private_addresses_are_not_connected_to() {
    let harness = Harness::new().await;
    let receiver = Receiver::start().await;
    let (by_address, _) = harness.add(&receiver, &[]).await;
    let url = receiver.url.replace("127.0.0.1", "localhost");
    let (by_name, _) = harness.outbox.add(address(&url), &harness.by()).await.unwrap();
    let strict = harness.another(|config| config.private_addresses = false);
    for webhook in [by_address, by_name] {
        let delivery = harness.outbox.test(webhook.id, &harness.by()).await.unwrap();
        let sent = strict.send_now(delivery.id).await.unwrap().unwrap();
        let error = sent.error.unwrap();
        assert!(error.contains("no address of the internet"), "{error}");
        assert!(!error.contains("t0ken"), "{error}");
        assert_eq!(receiver.got().len(), 0);
    }
    let found = harness.deliveries().await;
    assert!(
        found
            .iter()
            .all(|d| d.status == DeliveryStatus::Pending && d.attempts == 1)
    );
}

#[tokio::test]
async fn an_address_that_is_removed_gets_nothing_and_leaves_no_token_in_the_audit() {
    let harness = Harness::new().await;
    let receiver = Receiver::start().await;
    let (webhook, _) = harness.add(&receiver, &[]).await;
    harness.laboratory("acme").await;
    assert_eq!(harness.deliveries().await.len(), 2);
    harness.outbox.remove(webhook.id, &harness.by()).await.unwrap();
    assert_eq!(harness.deliveries().await.len(), 0);
    let audit = registry::audit_list(
        &harness.client().await,
        &registry::AuditFilter::default(),
        None,
        50,
    )
    .await
    .unwrap();
    let of_webhooks: Vec<_> = audit
        .iter()
        .filter(|line| line.action.starts_with("webhook."))
        .collect();
    assert_eq!(of_webhooks.len(), 2);
    assert!(
        of_webhooks
            .iter()
            .all(|line| !line.detail.to_string().contains("t0ken"))
    );
}
