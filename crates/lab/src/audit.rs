//! The laboratory's own audit trail: who did what, when, from where, written in the transaction of the deed.
//!
//! Kept for ever and append-only; the database refuses to change it. It holds no values of its own: what a
//! result said stands in its revisions.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::{Actor, LabError, Page, PageRequest, Txn, paging::Cursor, rows::Reader};

/// One deed.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// Its number, ascending.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Who, as in the staff list; absent for the system itself.
    pub actor: Option<Uuid>,
    /// In which role.
    pub actor_role: Option<String>,
    /// What, such as `result.released`.
    pub action: String,
    /// To what kind of thing.
    pub entity: String,
    /// To which one.
    pub entity_id: Option<String>,
    /// The request, to find it in the logs.
    pub request_id: Option<String>,
    /// From where.
    pub client_ip: Option<String>,
    /// More about it.
    pub detail: Option<Value>,
}

/// Writes one deed.
pub(crate) async fn write(
    txn: &Txn<'_>,
    actor: &Actor,
    action: &str,
    entity: &str,
    id: impl std::fmt::Display,
    detail: Option<Value>,
) -> Result<(), LabError> {
    write_each(txn, actor, action, entity, &[id.to_string()], detail.as_ref()).await
}

/// Writes the same deed for many things, in one statement.
pub(crate) async fn write_each(
    txn: &Txn<'_>,
    actor: &Actor,
    action: &str,
    entity: &str,
    ids: &[String],
    detail: Option<&Value>,
) -> Result<(), LabError> {
    let statement = txn
        .prepare_cached(
            "INSERT INTO audit_event (actor, actor_role, action, entity, entity_id, request_id, client_ip, detail)
             SELECT $1, $2, $3, $4, id, $6, $7::text::inet, $8 FROM unnest($5::text[]) AS id",
        )
        .await?;
    let ip = actor.client_ip.map(|ip: IpAddr| ip.to_string());
    txn.execute(
        &statement,
        &[
            &actor.staff.as_uuid(),
            &actor.role.as_str(),
            &action,
            &entity,
            &ids,
            &actor.request_id,
            &ip,
            &detail,
        ],
    )
    .await?;
    Ok(())
}

/// The audit trail, newest first; only of one thing when `entity_id` is given.
///
/// # Errors
/// [`LabError::Invalid`] for a bad page.
pub async fn list(
    txn: &Txn<'_>,
    entity_id: Option<&str>,
    page: &PageRequest,
) -> Result<Page<AuditEvent>, LabError> {
    let statement = txn
        .prepare_cached(
            "SELECT id, at, actor, actor_role, action, entity, entity_id, request_id, host(client_ip) AS client_ip, detail
             FROM audit_event
             WHERE ($1::text IS NULL OR entity_id = $1) AND ($2::bigint IS NULL OR id < $2)
             ORDER BY id DESC LIMIT $3",
        )
        .await?;
    let rows = txn
        .query(&statement, &[&entity_id, &page.after_number()?, &page.fetch()?])
        .await?;
    let events = rows.iter().map(event).collect::<Result<Vec<_>, _>>()?;
    page.page(events, |event| Cursor::Number(event.id))
}

fn event(row: &tokio_postgres::Row) -> Result<AuditEvent, LabError> {
    let row = Reader::new("audit_event", row);
    Ok(AuditEvent {
        id: row.get("id")?,
        at: row.get("at")?,
        actor: row.get("actor")?,
        actor_role: row.get("actor_role")?,
        action: row.get("action")?,
        entity: row.get("entity")?,
        entity_id: row.get("entity_id")?,
        request_id: row.get("request_id")?,
        client_ip: row.get("client_ip")?,
        detail: row.get("detail")?,
    })
}
