//! What happened to a laboratory, for its own page. It goes when the laboratory goes; the audit stays.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use model::{OperationId, TenantId};
use serde_json::Value;
use tokio_postgres::Row;

use crate::{Actor, RegistryError, paging::page_limit, row::Reader, sql};

/// Something that happened.
#[derive(Debug, Clone)]
pub struct TenantEventRow {
    /// Counts up.
    pub id: i64,
    /// The laboratory.
    pub tenant: TenantId,
    /// When.
    pub at: Timestamp,
    /// What: `created`, `activated`, `suspended`, …
    pub kind: String,
    /// Who caused it.
    pub actor: Actor,
    /// As part of which operation.
    pub operation: Option<OperationId>,
    /// The rest.
    pub detail: Value,
}

/// Something that happened just now.
#[derive(Debug, Clone)]
pub struct NewTenantEvent<'a> {
    /// The laboratory.
    pub tenant: TenantId,
    /// What.
    pub kind: &'a str,
    /// Who caused it.
    pub actor: &'a Actor,
    /// As part of which operation.
    pub operation: Option<OperationId>,
    /// The rest.
    pub detail: Value,
}

/// Writes an event.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn event_insert(
    client: &impl GenericClient,
    event: &NewTenantEvent<'_>,
) -> Result<(), RegistryError> {
    sql::touched(
        client,
        "writing a laboratory's event",
        "INSERT INTO tenant_events (tenant_id, kind, actor, operation_id, detail) VALUES ($1, $2, $3, $4, $5)",
        &[
            &event.tenant.as_uuid(),
            &event.kind,
            &event.actor.to_string(),
            &event.operation.map(OperationId::as_uuid),
            &event.detail,
        ],
    )
    .await?;
    Ok(())
}

/// One page of a laboratory's events, newest first, older than the event `before`.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or a row cannot be read.
pub async fn events_of(
    client: &impl GenericClient,
    tenant: TenantId,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<TenantEventRow>, RegistryError> {
    let statement = "SELECT id, tenant_id, at, kind, actor, operation_id, detail FROM tenant_events
         WHERE tenant_id = $1 AND ($2::int8 IS NULL OR id < $2) ORDER BY id DESC LIMIT $3";
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [&tenant.as_uuid(), &before, &page_limit(limit)];
    let rows = sql::rows(client, "listing a laboratory's events", statement, &params).await?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &Row) -> Result<TenantEventRow, RegistryError> {
    let r = Reader::new(row, "tenant_events", "id");
    Ok(TenantEventRow {
        id: r.get("id")?,
        tenant: r.id("tenant_id")?,
        at: r.get("at")?,
        kind: r.get("kind")?,
        actor: r.parse("actor")?,
        operation: r.id_opt("operation_id")?,
        detail: r.get("detail")?,
    })
}
