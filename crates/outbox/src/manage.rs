//! Looking after addresses: each change with its audit row in one transaction.

use std::time::Duration;

use identity::SealContext;
use model::{DeliveryId, EventType, WebhookId};
use registry::{
    Change, Delivery, DeliveryFilter, NewAudit, NewOutboxEvent, NewWebhook, Recipients, RegistryError,
    RegistryTransaction, Webhook,
};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::{Outbox, OutboxError, address, secret};

/// The longest time in which two secrets are valid: 30 days.
pub const OVERLAP_MAX: Duration = Duration::from_secs(30 * 86_400);
/// The most addresses that are registered at once: each event is queued once for every one that wants it.
const WEBHOOKS_MAX: usize = 100;
const DESCRIPTION_CHARS_MAX: usize = 200;

/// An address that is to get events.
#[derive(Debug, Clone)]
pub struct NewAddress {
    /// Where to: `https://…`, or `http://…`.
    pub url: String,
    /// What it is for, in at most 200 characters.
    pub description: String,
    /// Which types; none means all.
    pub event_types: Vec<EventType>,
}

impl Outbox {
    /// Registers an address, which gets what happens from now on. The secret is given here and never again.
    ///
    /// # Errors
    /// [`OutboxError::Invalid`] names the field.
    pub async fn add(
        &self,
        new: NewAddress,
        by: &Change<'_>,
    ) -> Result<(Webhook, SecretString), OutboxError> {
        let NewAddress {
            url,
            description,
            mut event_types,
        } = new;
        let url = address::parse(&url, self.inner.config.private_addresses)?;
        if description.chars().count() > DESCRIPTION_CHARS_MAX || description.chars().any(char::is_control) {
            return invalid(
                "description",
                "a description has at most 200 characters and no control characters",
            );
        }
        if event_types.contains(&EventType::WebhookTest) {
            return invalid(
                "eventTypes",
                "webhook.test comes to every address when it is tried, unasked",
            );
        }
        event_types.sort_unstable_by_key(|kind| kind.as_str());
        event_types.dedup();
        let id = WebhookId::generate();
        let secret = secret::generate();
        let new = NewWebhook {
            id,
            url: url.into(),
            description,
            event_types,
            secret: self.seal(id, &secret),
            created_by: by.actor.clone(),
        };
        if registry::webhooks_list(&self.inner.config.registry.client().await?)
            .await?
            .len()
            >= WEBHOOKS_MAX
        {
            return invalid(
                "url",
                "100 webhooks are registered, which is the most; remove one first",
            );
        }
        let webhook = self
            .in_txn(async |txn| {
                let webhook = registry::webhook_insert(txn, &new).await?;
                let detail = json!({ "url": origin(&webhook.url), "eventTypes": webhook.event_types });
                audit(txn, "webhook.added", id, detail, by).await?;
                Ok(webhook)
            })
            .await?;
        Ok((webhook, secret))
    }

    /// Gives an address a new secret. Until `overlap` has passed its deliveries are signed with the one
    /// before too, so that the receiver can change over without missing one.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`OutboxError::Invalid`] for more than [`OVERLAP_MAX`].
    pub async fn rotate(
        &self,
        id: WebhookId,
        overlap: Duration,
        by: &Change<'_>,
    ) -> Result<(Webhook, SecretString), OutboxError> {
        if overlap > OVERLAP_MAX {
            return invalid("overlap", "two secrets are valid for at most 30 days");
        }
        let secret = secret::generate();
        let sealed = self.seal(id, &secret);
        let webhook = self
            .in_txn(async |txn| {
                let webhook = registry::webhook_set_secret(txn, id, &sealed, overlap).await?;
                let detail = json!({ "overlapSeconds": overlap.as_secs() });
                audit(txn, "webhook.rotated", id, detail, by).await?;
                Ok(webhook)
            })
            .await?;
        Ok((webhook, secret))
    }

    /// Switches an address on: what waits for it is due at once.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub async fn enable(&self, id: WebhookId, by: &Change<'_>) -> Result<Webhook, OutboxError> {
        self.in_txn(async |txn| {
            let webhook = registry::webhook_set_enabled(txn, id, None).await?;
            audit(txn, "webhook.enabled", id, json!({}), by).await?;
            Ok(webhook)
        })
        .await
    }

    /// Switches an address off: its events are queued and not sent.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub async fn disable(&self, id: WebhookId, by: &Change<'_>) -> Result<Webhook, OutboxError> {
        let why = match by.reason {
            Some(reason) => format!("switched off by {}: {reason}", by.actor),
            None => format!("switched off by {}", by.actor),
        };
        self.in_txn(async |txn| {
            let webhook = registry::webhook_set_enabled(txn, id, Some(&why)).await?;
            audit(txn, "webhook.disabled", id, json!({}), by).await?;
            Ok(webhook)
        })
        .await
    }

    /// Removes an address with what waits for it.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub async fn remove(&self, id: WebhookId, by: &Change<'_>) -> Result<(), OutboxError> {
        self.in_txn(async |txn| {
            if !registry::webhook_delete(txn, id).await? {
                return Err(not_found(id));
            }
            audit(txn, "webhook.removed", id, json!({}), by).await
        })
        .await
    }

    /// Queues a `webhook.test` for this address alone.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub async fn test(&self, id: WebhookId, by: &Change<'_>) -> Result<Delivery, OutboxError> {
        self.in_txn(async |txn| {
            let event = NewOutboxEvent {
                kind: EventType::WebhookTest,
                tenant: None,
                recipients: Recipients::Only(id),
                data: json!({ "webhook": { "id": id }, "actor": by.actor.to_string() }),
            };
            let event = registry::outbox_insert(txn, &event).await?;
            audit(txn, "webhook.tested", id, json!({ "event": event }), by).await?;
            let filter = DeliveryFilter {
                event: Some(event),
                ..DeliveryFilter::default()
            };
            let queued = registry::deliveries_list(txn, &filter, None, 1).await?.pop();
            queued.ok_or_else(|| not_found(id))
        })
        .await
    }

    /// Queues a delivery that has ended once more, under the same `webhook-id`.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`].
    pub async fn redeliver(&self, id: DeliveryId, by: &Change<'_>) -> Result<Delivery, OutboxError> {
        self.in_txn(async |txn| {
            let delivery = registry::delivery_queue_again(txn, id).await?;
            let detail = json!({ "delivery": id, "event": delivery.event });
            audit(txn, "webhook.redelivered", delivery.webhook, detail, by).await?;
            Ok(delivery)
        })
        .await
    }

    async fn in_txn<T>(
        &self,
        work: impl AsyncFn(&RegistryTransaction<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, OutboxError> {
        Ok(self.inner.config.registry.in_txn(work).await?)
    }

    fn seal(&self, id: WebhookId, secret: &SecretString) -> Vec<u8> {
        self.inner.config.sealer.seal(&SealContext::Webhook(id), secret)
    }
}

fn invalid<T>(field: &'static str, why: &str) -> Result<T, OutboxError> {
    let why = why.to_owned();
    Err(OutboxError::Invalid { field, why })
}

fn not_found(id: WebhookId) -> RegistryError {
    RegistryError::NotFound {
        what: registry::Entity::Webhook,
        id: id.to_string(),
    }
}

/// Scheme, host and port. Path and query may hold a token of the receiver's, and the audit keeps what it has
/// for ever.
fn origin(url: &str) -> String {
    reqwest::Url::parse(url).map_or_else(|_| String::new(), |url| url.origin().ascii_serialization())
}

async fn audit(
    txn: &RegistryTransaction<'_>,
    action: &str,
    webhook: WebhookId,
    mut detail: Value,
    by: &Change<'_>,
) -> Result<(), RegistryError> {
    detail["webhook"] = json!(webhook);
    if let Some(reason) = by.reason {
        detail["reason"] = json!(reason);
    }
    let entry = NewAudit {
        actor: by.actor,
        action,
        tenant: None,
        detail,
        request_id: by.request_id,
        client_ip: by.client_ip,
    };
    registry::audit_insert(txn, &entry).await
}
