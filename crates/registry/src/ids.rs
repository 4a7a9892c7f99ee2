//! Ids by their first digits, for people who copy them from a list.

use deadpool_postgres::GenericClient;
use model::IdPrefix;
use uuid::Uuid;

use crate::{RegistryError, sql};

/// How many ids are given at most: enough to see that a prefix is ambiguous, and to name some.
const IDS_MAX: i64 = 11;

/// What an id may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdKind {
    /// An operation.
    Operation,
    /// An archive.
    Archive,
    /// An address to which events are sent.
    Webhook,
    /// One event on its way to one address.
    Delivery,
}

/// The ids of this kind that begin like this, in their order, 11 at most.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn ids_by_prefix(
    client: &impl GenericClient,
    kind: IdKind,
    prefix: &IdPrefix,
) -> Result<Vec<Uuid>, RegistryError> {
    let table = match kind {
        IdKind::Operation => "operations",
        IdKind::Archive => "archives",
        IdKind::Webhook => "webhooks",
        IdKind::Delivery => "webhook_deliveries",
    };
    let (low, high) = prefix.bounds();
    let statement = format!("SELECT id FROM {table} WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3");
    let rows = sql::rows(client, "looking for ids", &statement, &[&low, &high, &IDS_MAX]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
