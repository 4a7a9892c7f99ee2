//! Which addresses are taken, and which are connected to.

use std::time::Duration;

use model::{DeliveryStatus, EventType, WebhookId};
use outbox::{NewAddress, OVERLAP_MAX, OutboxError};

use crate::{receiver::Receiver, rig::Rig};

fn address(url: &str) -> NewAddress {
    NewAddress {
        url: url.to_owned(),
        description: String::new(),
        event_types: Vec::new(),
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_the_name_of_the_field() {
    let rig = Rig::with(|config| config.private_addresses = false).await;
    let field = async |new: NewAddress| match rig.outbox.add(new, &rig.by()).await {
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
    let error = rig.outbox.test(nobody, &rig.by()).await.unwrap_err();
    assert!(error.to_string().contains(&nobody.to_string()), "{error}");
    assert!(rig.outbox.remove(nobody, &rig.by()).await.is_err());
    let error = rig
        .outbox
        .rotate(nobody, OVERLAP_MAX + Duration::from_secs(1), &rig.by())
        .await;
    assert!(matches!(
        error,
        Err(OutboxError::Invalid { field: "overlap", .. })
    ));
}

/// A name is judged when it is looked up, and one that was registered while private addresses were allowed is judged too.
#[tokio::test]
async fn private_addresses_are_not_connected_to() {
    let rig = Rig::new().await;
    let receiver = Receiver::start().await;
    let (by_address, _) = rig.add(&receiver, &[]).await;
    let url = receiver.url.replace("127.0.0.1", "localhost");
    let (by_name, _) = rig.outbox.add(address(&url), &rig.by()).await.unwrap();
    let strict = rig.another(|config| config.private_addresses = false);
    for webhook in [by_address, by_name] {
        let delivery = rig.outbox.test(webhook.id, &rig.by()).await.unwrap();
        let sent = strict.send_now(delivery.id).await.unwrap().unwrap();
        let error = sent.error.unwrap();
        assert!(error.contains("no address of the internet"), "{error}");
        assert!(!error.contains("t0ken"), "{error}");
        assert_eq!(receiver.got().len(), 0);
    }
    let found = rig.deliveries().await;
    assert!(
        found
            .iter()
            .all(|d| d.status == DeliveryStatus::Pending && d.attempts == 1)
    );
}

#[tokio::test]
async fn an_address_that_is_removed_gets_nothing_and_leaves_no_token_in_the_audit() {
    let rig = Rig::new().await;
    let receiver = Receiver::start().await;
    let (webhook, _) = rig.add(&receiver, &[]).await;
    rig.laboratory("acme").await;
    assert_eq!(rig.deliveries().await.len(), 2);
    rig.outbox.remove(webhook.id, &rig.by()).await.unwrap();
    assert_eq!(rig.deliveries().await.len(), 0);
    let audit = registry::audit_list(&rig.client().await, &registry::AuditFilter::default(), None, 50)
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
