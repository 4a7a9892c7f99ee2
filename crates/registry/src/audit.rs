//! Who did what to the platform, kept for ever. There is no statement here that changes or removes a row, and
//! the database refuses one from elsewhere.

use std::net::IpAddr;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use model::TenantId;
use serde_json::Value;
use tokio_postgres::Row;

use crate::{Actor, RegistryError, paging::page_limit, row::Reader, sql};

/// One line of the audit.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    /// Counts up.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What: `tenant.created`, `login.refused`, …
    pub action: String,
    /// Whom it concerned.
    pub tenant: Option<TenantId>,
    /// The rest.
    pub detail: Value,
    /// The request that asked for it.
    pub request_id: Option<String>,
    /// From where.
    pub client_ip: Option<IpAddr>,
}

/// What is to be kept for ever. Never put a secret into `detail`: it cannot be taken out again.
#[derive(Debug, Clone)]
pub struct NewAudit<'a> {
    /// Who.
    pub actor: &'a Actor,
    /// What, as `subject.verb`.
    pub action: &'a str,
    /// Whom it concerned.
    pub tenant: Option<TenantId>,
    /// The rest.
    pub detail: Value,
    /// The request that asked for it.
    pub request_id: Option<&'a str>,
    /// From where.
    pub client_ip: Option<IpAddr>,
}

/// Writes a line.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn audit_insert(client: &impl GenericClient, entry: &NewAudit<'_>) -> Result<(), RegistryError> {
    sql::touched(
        client,
        "writing the audit",
        "INSERT INTO audit_log (actor, action, tenant_id, detail, request_id, client_ip)
         VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            &entry.actor.to_string(),
            &entry.action,
            &entry.tenant.map(TenantId::as_uuid),
            &entry.detail,
            &entry.request_id,
            &entry.client_ip,
        ],
    )
    .await?;
    Ok(())
}

/// Which lines to list; the default is all of them.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only those that concern this laboratory.
    pub tenant: Option<TenantId>,
    /// Only this action.
    pub action: Option<String>,
}

/// One page of the audit, newest first, older than the line `before`.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or a row cannot be read.
pub async fn audit_list(
    client: &impl GenericClient,
    filter: &AuditFilter,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<AuditEntry>, RegistryError> {
    let rows = sql::rows(
        client,
        "reading the audit",
        "SELECT id, at, actor, action, tenant_id, detail, request_id, client_ip FROM audit_log
         WHERE ($1::uuid IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR action = $2)
           AND ($3::int8 IS NULL OR id < $3)
         ORDER BY id DESC LIMIT $4",
        &[
            &filter.tenant.map(TenantId::as_uuid),
            &filter.action,
            &before,
            &page_limit(limit),
        ],
    )
    .await;
    rows?.iter().map(from_row).collect()
}

fn from_row(row: &Row) -> Result<AuditEntry, RegistryError> {
    let r = Reader::new(row, "audit_log", "id");
    Ok(AuditEntry {
        id: r.get("id")?,
        at: r.get("at")?,
        actor: r.parse("actor")?,
        action: r.get("action")?,
        tenant: r.id_opt("tenant_id")?,
        detail: r.get("detail")?,
        request_id: r.get("request_id")?,
        client_ip: r.get("client_ip")?,
    })
}
