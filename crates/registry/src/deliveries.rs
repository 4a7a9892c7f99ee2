//! Deliveries: events on their way to addresses. Any number of processes share them; a lease says who sends
//! one, as it does for operations, and its end is set and compared by the database's clock alone.

use std::time::Duration;

use deadpool_postgres::{GenericClient, Transaction};
use jiff::Timestamp;
use model::{DeliveryId, DeliveryStatus, EventId, WebhookId};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    Entity, OutboxEvent, RegistryError, Webhook, paging::page_limit, row::Reader, sql, webhook_by_id,
};

/// One event on its way to one address.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// To where.
    pub webhook: WebhookId,
    /// Which event.
    pub event: EventId,
    /// The event's type, in the word it was written with.
    pub kind: String,
    /// The event's number.
    pub position: i64,
    /// How far it is.
    pub status: DeliveryStatus,
    /// How often it was begun since it was queued.
    pub attempts: u32,
    /// When it was queued, at first or again.
    pub queued_at: Timestamp,
    /// When it may be tried.
    pub not_before: Timestamp,
    /// When it was delivered or given up.
    pub ended_at: Option<Timestamp>,
    /// What the receiver answered last.
    pub status_code: Option<u16>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// How long the last attempt took, in milliseconds.
    pub took_ms: Option<u64>,
}

macro_rules! query {
    ($rest:literal) => {
        concat!(
            "SELECT d.id, d.webhook_id, o.id AS event_id, o.kind, d.position, d.status, d.attempts, d.queued_at, d.not_before,
                 d.ended_at, a.status_code, a.error, a.took_ms
             FROM webhook_deliveries d JOIN outbox o USING (position)
             LEFT JOIN LATERAL (SELECT status_code, error, took_ms FROM webhook_attempts
                 WHERE delivery_id = d.id ORDER BY id DESC LIMIT 1) a ON true ",
            $rest
        )
    };
}

impl Delivery {
    fn from_row(row: &Row) -> Result<Self, RegistryError> {
        let r = Reader::new(row, "webhook_deliveries", "id");
        Ok(Self {
            id: r.id("id")?,
            webhook: r.id("webhook_id")?,
            event: r.id("event_id")?,
            kind: r.get("kind")?,
            position: r.get("position")?,
            status: r.parse("status")?,
            attempts: r.count("attempts")?,
            queued_at: r.get("queued_at")?,
            not_before: r.get("not_before")?,
            ended_at: r.get("ended_at")?,
            status_code: code(&r)?,
            error: r.get("error")?,
            took_ms: r.with("took_ms", |ms: Option<i64>| ms.map(u64::try_from).transpose())?,
        })
    }
}

fn code(r: &Reader<'_>) -> Result<Option<u16>, RegistryError> {
    r.with("status_code", |code: Option<i32>| {
        code.map(u16::try_from).transpose()
    })
}

/// The right of one claim to send one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryLease {
    /// The delivery.
    pub delivery: DeliveryId,
    owner: String,
    token: i64,
}

/// A delivery that is this caller's to send.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The right to.
    pub lease: DeliveryLease,
    /// The address.
    pub webhook: Webhook,
    /// What is to be sent.
    pub event: OutboxEvent,
    /// Which attempt this is since it was queued, from 1.
    pub attempt: u32,
    /// How long ago it was queued.
    pub age: Duration,
}

/// Takes a delivery that is due: the longest waiting one, but none to an address in `busy`, none to one that
/// is switched off or has asked to be left alone for a while, and none while an earlier event of the same
/// laboratory is on its way to the same address. With `only`, this delivery and no other, also out of turn.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or a row cannot be read.
pub async fn delivery_claim(
    client: &impl GenericClient,
    owner: &str,
    lease: Duration,
    busy: &[WebhookId],
    only: Option<DeliveryId>,
) -> Result<Option<Claimed>, RegistryError> {
    let statement = "WITH due AS (
             SELECT d.id FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id
              WHERE d.status = 'pending' AND (d.lease_until IS NULL OR d.lease_until <= clock_timestamp())
                AND CASE WHEN $4::uuid IS NULL THEN
                        d.not_before <= clock_timestamp() AND w.disabled_at IS NULL
                        AND (w.held_until IS NULL OR w.held_until <= clock_timestamp()) AND d.webhook_id <> ALL ($3)
                        AND NOT EXISTS (SELECT FROM webhook_deliveries e
                            WHERE e.webhook_id = d.webhook_id AND e.lane = d.lane AND e.status = 'pending'
                              AND e.position < d.position)
                    ELSE d.id = $4 END
              ORDER BY d.not_before, d.position LIMIT 1 FOR UPDATE OF d SKIP LOCKED
         )
         UPDATE webhook_deliveries d SET attempts = d.attempts + 1, lease_owner = $1, lease_token = d.lease_token + 1,
             lease_until = clock_timestamp() + make_interval(secs => $2)
         FROM due, outbox o WHERE d.id = due.id AND o.position = d.position
         RETURNING d.id, d.webhook_id, d.attempts, d.lease_token, d.position, o.id AS event_id, o.kind, o.at, o.data,
             extract(epoch FROM clock_timestamp() - d.queued_at)::float8 AS age";
    let busy: Vec<Uuid> = busy.iter().map(|id| id.as_uuid()).collect();
    let params: [&(dyn ToSql + Sync); 4] = [
        &owner,
        &lease.as_secs_f64(),
        &busy,
        &only.map(DeliveryId::as_uuid),
    ];
    let Some(row) = sql::row_opt(client, "claiming a delivery", statement, &params).await? else {
        return Ok(None);
    };
    let r = Reader::new(&row, "webhook_deliveries", "id");
    // Removed since then, and the delivery with it.
    let Some(webhook) = webhook_by_id(client, r.id("webhook_id")?).await? else {
        return Ok(None);
    };
    Ok(Some(Claimed {
        lease: DeliveryLease {
            delivery: r.id("id")?,
            owner: owner.to_owned(),
            token: r.get("lease_token")?,
        },
        webhook,
        event: OutboxEvent {
            id: r.id("event_id")?,
            kind: r.get("kind")?,
            at: r.get("at")?,
            position: r.get("position")?,
            data: r.get("data")?,
        },
        attempt: r.count("attempts")?,
        age: Duration::try_from_secs_f64(r.get("age")?).unwrap_or_default(),
    }))
}

/// What came of an attempt.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// When it began.
    pub began_at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Who made it.
    pub worker: String,
    /// What the receiver answered, if it did.
    pub status_code: Option<u16>,
    /// Why it counts as failed.
    pub error: Option<String>,
}

/// How it goes on with a delivery after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The receiver has it.
    Delivered,
    /// It is to be tried again after so long.
    Again(Duration),
    /// It is given up.
    GivenUp,
}

/// Writes down what came of an attempt and gives the lease up. `false`: the lease is lost, and nothing is
/// written; another process sends it, so the receiver may get it twice.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn delivery_end_in_txn(
    txn: &Transaction<'_>,
    lease: &DeliveryLease,
    attempt: &Attempt,
    ended: Ended,
) -> Result<bool, RegistryError> {
    let (status, delay) = match ended {
        Ended::Delivered => (DeliveryStatus::Delivered, Duration::ZERO),
        Ended::Again(delay) => (DeliveryStatus::Pending, delay),
        Ended::GivenUp => (DeliveryStatus::Failed, Duration::ZERO),
    };
    let statement = "WITH mine AS (
             UPDATE webhook_deliveries SET status = $4, lease_owner = NULL, lease_until = NULL,
                 not_before = clock_timestamp() + make_interval(secs => $5),
                 ended_at = CASE WHEN $4 = 'pending' THEN NULL ELSE clock_timestamp() END
              WHERE id = $1 AND lease_owner = $2 AND lease_token = $3 RETURNING id
         )
         INSERT INTO webhook_attempts (delivery_id, began_at, took_ms, worker, status_code, error)
         SELECT id, $6, $7, $8, $9, $10 FROM mine";
    let params: [&(dyn ToSql + Sync); 10] = [
        &lease.delivery.as_uuid(),
        &lease.owner,
        &lease.token,
        &status.as_str(),
        &delay.as_secs_f64(),
        &attempt.began_at,
        &i64::try_from(attempt.took_ms).unwrap_or(i64::MAX),
        &attempt.worker,
        &attempt.status_code.map(i32::from),
        &attempt.error,
    ];
    Ok(sql::touched(txn, "ending a delivery's attempt", statement, &params).await? > 0)
}

/// Queues a delivery that has ended once more, as if it were new.
///
/// # Errors
/// [`RegistryError::NotFound`]; one that has not ended yet is left as it is.
pub async fn delivery_queue_again(
    client: &impl GenericClient,
    id: DeliveryId,
) -> Result<Delivery, RegistryError> {
    let statement = "UPDATE webhook_deliveries SET status = 'pending', attempts = 0, ended_at = NULL,
             queued_at = clock_timestamp(), not_before = clock_timestamp()
          WHERE id = $1 AND status <> 'pending'";
    sql::touched(client, "queueing a delivery again", statement, &[&id.as_uuid()]).await?;
    let found = delivery_by_id(client, id).await?;
    found.ok_or_else(|| RegistryError::NotFound {
        what: Entity::Delivery,
        id: id.to_string(),
    })
}

/// The delivery with this id.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or the row cannot be read.
pub async fn delivery_by_id(
    client: &impl GenericClient,
    id: DeliveryId,
) -> Result<Option<Delivery>, RegistryError> {
    let statement = query!("WHERE d.id = $1");
    let row = sql::row_opt(client, "reading a delivery", statement, &[&id.as_uuid()]).await?;
    row.as_ref().map(Delivery::from_row).transpose()
}

/// Which deliveries to list; the default is all of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeliveryFilter {
    /// Only those to this address.
    pub webhook: Option<WebhookId>,
    /// Only those of this event.
    pub event: Option<EventId>,
    /// Only those in this status.
    pub status: Option<DeliveryStatus>,
}

/// One page of deliveries, those of the newest events first, those after the event number and address
/// `before`.
///
/// # Errors
/// As [`delivery_by_id`].
pub async fn deliveries_list(
    client: &impl GenericClient,
    filter: &DeliveryFilter,
    before: Option<(i64, WebhookId)>,
    limit: u32,
) -> Result<Vec<Delivery>, RegistryError> {
    let statement = query!(
        "WHERE ($1::uuid IS NULL OR d.webhook_id = $1) AND ($2::uuid IS NULL OR o.id = $2)
           AND ($3::text IS NULL OR d.status = $3) AND ($4::int8 IS NULL OR (d.position, d.webhook_id) < ($4, $5))
         ORDER BY d.position DESC, d.webhook_id DESC LIMIT $6"
    );
    let params: [&(dyn ToSql + Sync); 6] = [
        &filter.webhook.map(WebhookId::as_uuid),
        &filter.event.map(EventId::as_uuid),
        &filter.status.map(DeliveryStatus::as_str),
        &before.map(|(position, _)| position),
        &before.map(|(_, webhook)| webhook.as_uuid()),
        &page_limit(limit),
    ];
    let rows = sql::rows(client, "listing deliveries", statement, &params).await?;
    rows.iter().map(Delivery::from_row).collect()
}

/// The attempts of a delivery, newest first.
///
/// # Errors
/// As [`delivery_by_id`].
pub async fn attempts_of(
    client: &impl GenericClient,
    delivery: DeliveryId,
) -> Result<Vec<Attempt>, RegistryError> {
    let statement = "SELECT id, began_at, took_ms, worker, status_code, error FROM webhook_attempts
          WHERE delivery_id = $1 ORDER BY id DESC LIMIT $2";
    let params: [&(dyn ToSql + Sync); 2] = [&delivery.as_uuid(), &page_limit(crate::PAGE_MAX)];
    let rows = sql::rows(client, "reading a delivery's attempts", statement, &params).await?;
    rows.iter()
        .map(|row| {
            let r = Reader::new(row, "webhook_attempts", "id");
            Ok(Attempt {
                began_at: r.get("began_at")?,
                took_ms: r.with("took_ms", |ms: i64| u64::try_from(ms))?,
                worker: r.get("worker")?,
                status_code: code(&r)?,
                error: r.get("error")?,
            })
        })
        .collect()
}

/// How many deliveries wait, and how old the oldest of them is, in seconds. Those to addresses that are
/// switched off are not counted.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn deliveries_queued(client: &impl GenericClient) -> Result<(u64, f64), RegistryError> {
    let statement = "SELECT count(*) AS waiting,
             coalesce(extract(epoch FROM clock_timestamp() - min(d.queued_at)), 0)::float8 AS oldest
          FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id
         WHERE d.status = 'pending' AND w.disabled_at IS NULL";
    let row = sql::row_one(client, "counting deliveries", statement, &[]).await?;
    let r = Reader::new(&row, "webhook_deliveries", "waiting");
    Ok((r.with("waiting", |n: i64| u64::try_from(n))?, r.get("oldest")?))
}

/// What a purge took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Deliveries that were given up because they waited too long.
    pub given_up: u64,
    /// Events whose time is over, with their deliveries.
    pub events: u64,
}

/// Gives up what has waited for longer than `age_max` (also for addresses that are switched off), and removes
/// events older than `keep` of which no delivery is pending; at most `batch` of each.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn deliveries_purge(
    client: &impl GenericClient,
    age_max: Duration,
    keep: Duration,
    batch: u32,
) -> Result<Purged, RegistryError> {
    let give_up = "UPDATE webhook_deliveries SET status = 'failed', ended_at = clock_timestamp()
          WHERE id IN (SELECT id FROM webhook_deliveries
              WHERE status = 'pending' AND (lease_until IS NULL OR lease_until <= clock_timestamp())
                AND queued_at < clock_timestamp() - make_interval(secs => $1)
              LIMIT $2 FOR UPDATE SKIP LOCKED)";
    let batch = i64::from(batch);
    let params: [&(dyn ToSql + Sync); 2] = [&age_max.as_secs_f64(), &batch];
    let given_up = sql::touched(client, "giving old deliveries up", give_up, &params).await?;
    let remove = "DELETE FROM outbox WHERE position IN (SELECT position FROM outbox o
              WHERE at < clock_timestamp() - make_interval(secs => $1)
                AND NOT EXISTS (SELECT FROM webhook_deliveries d WHERE d.position = o.position AND d.status = 'pending')
              ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)";
    let params: [&(dyn ToSql + Sync); 2] = [&keep.as_secs_f64(), &batch];
    let events = sql::touched(client, "removing old events", remove, &params).await?;
    Ok(Purged { given_up, events })
}
