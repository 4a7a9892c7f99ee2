//! Events for webhooks, written in the transaction of what happened. The database numbers the events and
//! queues a delivery for each address that wants them (`V7__outbox_and_webhooks.sql`), so one statement is
//! all it costs here.

use deadpool_postgres::{GenericClient, Transaction};
use jiff::Timestamp;
use model::{EventId, EventType, TenantId, TenantState, WebhookId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Actor, Change, Operation, Outcome, RegistryError, Tenant, sql};

/// An event to be delivered.
#[derive(Debug, Clone)]
pub struct NewOutboxEvent {
    /// What kind of thing it is.
    pub kind: EventType,
    /// The laboratory among whose events it is kept in order; the platform's own are in order among each
    /// other.
    pub tenant: Option<TenantId>,
    /// Who gets it.
    pub recipients: Recipients,
    /// What receivers read. Never a secret.
    pub data: Value,
}

/// Who gets an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipients {
    /// Every address that wants its type.
    All,
    /// This address.
    Only(WebhookId),
}

/// An event as it is sent.
#[derive(Debug, Clone)]
pub struct OutboxEvent {
    /// Its id, by which receivers know a repetition.
    pub id: EventId,
    /// What kind of thing it is, in the word it was written with.
    pub kind: String,
    /// When it happened.
    pub at: Timestamp,
    /// Its number. Of two events of one laboratory the later has the greater one.
    pub position: i64,
    /// What receivers read.
    pub data: Value,
}

/// Writes an event, delivered once the transaction is committed and not at all if it is not. Until its end
/// the transaction holds a lock on the laboratory's events.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn outbox_insert(
    client: &impl GenericClient,
    new: &NewOutboxEvent,
) -> Result<EventId, RegistryError> {
    let id = EventId::generate();
    let only_for = match new.recipients {
        Recipients::All => None,
        Recipients::Only(webhook) => Some(webhook.as_uuid()),
    };
    let lane = new.tenant.map_or(Uuid::nil(), TenantId::as_uuid);
    let statement = "INSERT INTO outbox (id, kind, lane, only_for, data) VALUES ($1, $2, $3, $4, $5)";
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&id.as_uuid(), &new.kind.as_str(), &lane, &only_for, &new.data];
    sql::touched(client, "writing an event for others", statement, &params).await?;
    Ok(id)
}

/// A laboratory's change of state; `state` is the new one, none when its row is gone.
pub(crate) async fn of_tenant(
    txn: &Transaction<'_>,
    kind: EventType,
    tenant: &Tenant,
    state: Option<TenantState>,
    change: &Change<'_>,
) -> Result<(), RegistryError> {
    let data = json!({
        "laboratory": { "id": tenant.id, "slug": tenant.slug, "name": tenant.name, "state": state },
        "operationId": change.operation,
        "actor": change.actor.to_string(),
        "reason": change.reason,
    });
    insert(txn, kind, tenant.id, data).await
}

/// The end of an operation.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn outbox_of_operation_end(
    txn: &Transaction<'_>,
    operation: &Operation,
    outcome: Outcome<'_>,
    actor: &Actor,
) -> Result<(), RegistryError> {
    let kind = match outcome {
        Outcome::Succeeded => EventType::OperationSucceeded,
        Outcome::Failed(_) | Outcome::FailedToUndo { .. } => EventType::OperationFailed,
        Outcome::Cancelled(_) => EventType::OperationCancelled,
    };
    let (status, error) = (outcome.status(), outcome.error_text());
    let data = json!({
        "operation": { "id": operation.id, "kind": operation.kind, "status": status, "error": error },
        "laboratory": { "id": operation.tenant, "slug": operation.tenant_slug },
        "actor": actor.to_string(),
    });
    insert(txn, kind, operation.tenant, data).await
}

async fn insert(
    txn: &Transaction<'_>,
    kind: EventType,
    tenant: TenantId,
    data: Value,
) -> Result<(), RegistryError> {
    let new = NewOutboxEvent {
        kind,
        tenant: Some(tenant),
        recipients: Recipients::All,
        data,
    };
    outbox_insert(txn, &new).await.map(|_id| ())
}
