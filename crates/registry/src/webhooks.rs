//! The addresses to which events are sent.

use std::{fmt, time::Duration};

use deadpool_postgres::{GenericClient, Transaction};
use jiff::Timestamp;
use model::{EventType, WebhookId};
use tokio_postgres::{Row, types::ToSql};

use crate::{Actor, Entity, RegistryError, row::Reader, sql};

/// An address to which events are sent.
#[derive(Clone)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Where to.
    pub url: String,
    /// What it is for, in a person's words.
    pub description: String,
    /// Which types it gets; none means all.
    pub event_types: Vec<EventType>,
    /// What its deliveries are signed with, sealed.
    pub secret: Vec<u8>,
    /// The secret before, sealed, while it is still valid.
    pub secret_before: Option<Vec<u8>>,
    /// Until when that is.
    pub secret_before_until: Option<Timestamp>,
    /// Since when every attempt has failed.
    pub failing_since: Option<Timestamp>,
    /// How many those are.
    pub failures: u32,
    /// Since when it is not tried any more.
    pub disabled_at: Option<Timestamp>,
    /// Why.
    pub disabled_why: Option<String>,
    /// Who registered it.
    pub created_by: Actor,
    /// When.
    pub created_at: Timestamp,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("id", &self.id)
            .field("url", &self.url)
            .field("disabled_at", &self.disabled_at)
            .finish_non_exhaustive()
    }
}

/// The secret before is read only while it is valid.
macro_rules! columns {
    () => {
        "id, url, description, event_types, secret, failing_since, failures, disabled_at, disabled_why, created_by, created_at,
         CASE WHEN secret_before_until > clock_timestamp() THEN secret_before END AS secret_before,
         CASE WHEN secret_before_until > clock_timestamp() THEN secret_before_until END AS secret_before_until"
    };
}

impl Webhook {
    fn from_row(row: &Row) -> Result<Self, RegistryError> {
        let r = Reader::new(row, "webhooks", "id");
        Ok(Self {
            id: r.id("id")?,
            url: r.get("url")?,
            description: r.get("description")?,
            event_types: r.with("event_types", |words: Vec<&str>| {
                words.into_iter().map(str::parse).collect::<Result<_, _>>()
            })?,
            secret: r.get("secret")?,
            secret_before: r.get("secret_before")?,
            secret_before_until: r.get("secret_before_until")?,
            failing_since: r.get("failing_since")?,
            failures: r.count("failures")?,
            disabled_at: r.get("disabled_at")?,
            disabled_why: r.get("disabled_why")?,
            created_by: r.parse("created_by")?,
            created_at: r.get("created_at")?,
        })
    }
}

/// An address that is to get events.
#[derive(Debug, Clone)]
pub struct NewWebhook {
    /// The id to have.
    pub id: WebhookId,
    /// Where to.
    pub url: String,
    /// What it is for.
    pub description: String,
    /// Which types; none means all.
    pub event_types: Vec<EventType>,
    /// What its deliveries are signed with, sealed.
    pub secret: Vec<u8>,
    /// Who registers it.
    pub created_by: Actor,
}

/// Registers an address: it gets what happens from now on.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn webhook_insert(client: &impl GenericClient, new: &NewWebhook) -> Result<Webhook, RegistryError> {
    let statement = concat!(
        "INSERT INTO webhooks (id, url, description, event_types, secret, created_by) VALUES ($1, $2, $3, $4, $5, $6)
         RETURNING ",
        columns!()
    );
    let types: Vec<&str> = new.event_types.iter().map(|kind| kind.as_str()).collect();
    let params: [&(dyn ToSql + Sync); 6] = [
        &new.id.as_uuid(),
        &new.url,
        &new.description,
        &types,
        &new.secret,
        &new.created_by.to_string(),
    ];
    Webhook::from_row(&sql::row_one(client, "registering a webhook", statement, &params).await?)
}

/// The address with this id.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or the row cannot be read.
pub async fn webhook_by_id(
    client: &impl GenericClient,
    id: WebhookId,
) -> Result<Option<Webhook>, RegistryError> {
    let statement = concat!("SELECT ", columns!(), " FROM webhooks WHERE id = $1");
    let row = sql::row_opt(client, "reading a webhook", statement, &[&id.as_uuid()]).await?;
    row.as_ref().map(Webhook::from_row).transpose()
}

/// The addresses in the order in which they were registered, at most [`crate::PAGE_MAX`].
///
/// # Errors
/// As [`webhook_by_id`].
pub async fn webhooks_list(client: &impl GenericClient) -> Result<Vec<Webhook>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM webhooks ORDER BY webhooks.created_at, id LIMIT $1"
    );
    let limit = crate::paging::page_limit(crate::PAGE_MAX);
    let rows = sql::rows(client, "listing webhooks", statement, &[&limit]).await?;
    rows.iter().map(Webhook::from_row).collect()
}

/// Removes an address with its deliveries; the events stay for the others. `false` when there is none.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn webhook_delete(client: &impl GenericClient, id: WebhookId) -> Result<bool, RegistryError> {
    let statement = "DELETE FROM webhooks WHERE id = $1";
    Ok(sql::touched(client, "removing a webhook", statement, &[&id.as_uuid()]).await? > 0)
}

/// Gives an address a new secret. The one in force until now signs beside it for `overlap`; one that was
/// still valid from a change before that is not any more.
///
/// # Errors
/// [`RegistryError::NotFound`].
pub async fn webhook_set_secret(
    client: &impl GenericClient,
    id: WebhookId,
    sealed: &[u8],
    overlap: Duration,
) -> Result<Webhook, RegistryError> {
    let statement = concat!(
        "UPDATE webhooks SET secret = $2, secret_before = secret,
             secret_before_until = clock_timestamp() + make_interval(secs => $3)
         WHERE id = $1 RETURNING ",
        columns!()
    );
    let params: [&(dyn ToSql + Sync); 3] = [&id.as_uuid(), &sealed, &overlap.as_secs_f64()];
    changed(client, id, "changing a webhook's secret", statement, &params).await
}

/// Switches an address on (`why_not` is none: it begins without failures, and what waits for it is due at
/// once) or off.
///
/// # Errors
/// [`RegistryError::NotFound`].
pub async fn webhook_set_enabled(
    client: &impl GenericClient,
    id: WebhookId,
    why_not: Option<&str>,
) -> Result<Webhook, RegistryError> {
    let statement = concat!(
        "WITH due AS (
             UPDATE webhook_deliveries SET not_before = clock_timestamp()
              WHERE webhook_id = $1 AND status = 'pending' AND $2::text IS NULL AND not_before > clock_timestamp()
         )
         UPDATE webhooks SET disabled_why = $2,
             disabled_at = CASE WHEN $2::text IS NULL THEN NULL ELSE coalesce(disabled_at, clock_timestamp()) END,
             failing_since = CASE WHEN $2::text IS NULL THEN NULL ELSE failing_since END,
             failures = CASE WHEN $2::text IS NULL THEN 0 ELSE failures END,
             held_until = CASE WHEN $2::text IS NULL THEN NULL ELSE held_until END
         WHERE id = $1 RETURNING ",
        columns!()
    );
    let params: [&(dyn ToSql + Sync); 2] = [&id.as_uuid(), &why_not];
    changed(client, id, "switching a webhook on or off", statement, &params).await
}

async fn changed(
    client: &impl GenericClient,
    id: WebhookId,
    doing: &'static str,
    statement: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Webhook, RegistryError> {
    match sql::row_opt(client, doing, statement, params).await? {
        Some(row) => Webhook::from_row(&row),
        None => Err(RegistryError::NotFound {
            what: Entity::Webhook,
            id: id.to_string(),
        }),
    }
}

/// Notes that an address has taken a delivery.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn webhook_reached(client: &impl GenericClient, id: WebhookId) -> Result<(), RegistryError> {
    // The row is touched only when something changes: deliveries under way at once would wait for each other.
    let statement = "UPDATE webhooks SET failing_since = NULL, failures = 0 WHERE id = $1 AND failures > 0";
    sql::touched(client, "noting a webhook's success", statement, &[&id.as_uuid()]).await?;
    Ok(())
}

/// Sends nothing to an address for so long: the receiver has asked for that, whatever is to be sent.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn webhook_hold_in_txn(
    txn: &Transaction<'_>,
    id: WebhookId,
    time: Duration,
) -> Result<(), RegistryError> {
    let statement = "UPDATE webhooks
             SET held_until = greatest(held_until, clock_timestamp() + make_interval(secs => $2)) WHERE id = $1";
    let params: [&(dyn ToSql + Sync); 2] = [&id.as_uuid(), &time.as_secs_f64()];
    sql::touched(txn, "holding a webhook back", statement, &params).await?;
    Ok(())
}

/// When an address is not tried any more.
#[derive(Debug, Clone, Copy)]
pub struct SwitchOff {
    /// When nothing got through for so long…
    pub after: Duration,
    /// …in at least so many attempts.
    pub failures: u32,
    /// At once: the receiver said that it is gone.
    pub at_once: bool,
}

/// Notes that an attempt failed, and switches the address off when that has gone on for too long. `true`: it
/// did so now.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn webhook_failed_in_txn(
    txn: &Transaction<'_>,
    id: WebhookId,
    rule: &SwitchOff,
    why: &str,
) -> Result<bool, RegistryError> {
    let noted = "UPDATE webhooks SET failures = failures + 1, failing_since = coalesce(failing_since, clock_timestamp())
          WHERE id = $1";
    sql::touched(txn, "noting a webhook's failure", noted, &[&id.as_uuid()]).await?;
    let statement = "UPDATE webhooks SET disabled_at = clock_timestamp(), disabled_why = $5
          WHERE id = $1 AND disabled_at IS NULL
            AND ($4 OR (failures >= $3 AND failing_since <= clock_timestamp() - make_interval(secs => $2)))";
    let failures = i32::try_from(rule.failures).unwrap_or(i32::MAX);
    let params: [&(dyn ToSql + Sync); 5] = [
        &id.as_uuid(),
        &rule.after.as_secs_f64(),
        &failures,
        &rule.at_once,
        &why,
    ];
    Ok(sql::touched(txn, "switching a webhook off", statement, &params).await? > 0)
}
