//! A repeated request is not done twice: the first answer is stored in the transaction of the deed itself,
//! and given again.
//!
//! A client that repeats a request while the first is under way gets 409 at once and does not wait. A key
//! belongs to one person and one route. Answers are kept for a day at least.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::{Actor, LabError, Txn, rows::Reader, text::Problems};

const KEY_MAX: usize = 255;
const METHOD_PATH_MAX: usize = 500;
const SWEEP_ROWS_MAX: i64 = 1_000;

/// An answer to keep, or one that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// HTTP status.
    pub status: u16,
    /// Headers that belong to it, such as `location` and `etag`.
    pub headers: BTreeMap<String, String>,
    /// The body's bytes.
    pub body: Vec<u8>,
}

/// What to do with a request that carries a key.
#[derive(Debug)]
pub enum Begin {
    /// Do it, and hand the ticket with the answer to [`finish`] in the same transaction.
    First(Ticket),
    /// It was done: give this answer again.
    Replay(StoredAnswer),
}

/// The right to store the answer of one request.
#[derive(Debug)]
pub struct Ticket {
    method_path: String,
    key: String,
    body_sha256: Vec<u8>,
}

/// Looks whether the request was done before. Call it first in the transaction that does it.
///
/// # Errors
/// [`LabError::KeyInFlight`] at once while the first is being worked on; [`LabError::KeyReused`] when the
/// body differs; [`LabError::Invalid`] for an unusable key.
pub async fn begin(
    txn: &Txn<'_>,
    actor: &Actor,
    method_path: &str,
    key: &str,
    body: &[u8],
) -> Result<Begin, LabError> {
    let mut problems = Problems::default();
    let key = problems.identifier("Idempotency-Key", key, KEY_MAX);
    let method_path = problems.line("path", method_path, METHOD_PATH_MAX);
    problems.done()?;
    let lock_name = format!("idempotency\n{}\n{method_path}\n{key}", actor.staff);
    let statement = txn
        .prepare_cached("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))")
        .await?;
    if !txn.query_one(&statement, &[&lock_name]).await?.get::<_, bool>(0) {
        return Err(LabError::KeyInFlight);
    }
    let body_sha256 = Sha256::digest(body).to_vec();
    // A statement of its own, after the lock: it sees what the first one committed.
    let statement = txn
        .prepare_cached(
            "SELECT key, body_sha256, status, headers, response FROM idempotency_key WHERE actor = $1 AND method_path = $2 AND key = $3",
        )
        .await?;
    let Some(row) = txn
        .query_opt(&statement, &[&actor.staff.as_uuid(), &method_path, &key])
        .await?
    else {
        return Ok(Begin::First(Ticket {
            method_path: method_path.to_string(),
            key: key.to_string(),
            body_sha256,
        }));
    };
    let row = Reader::new("idempotency_key", &row);
    if row.get::<Vec<u8>>("body_sha256")? != body_sha256 {
        return Err(LabError::KeyReused);
    }
    let corrupt = |column| LabError::CorruptRow {
        table: "idempotency_key",
        column,
        id: key.to_string(),
    };
    let headers: serde_json::Value = row.get("headers")?;
    Ok(Begin::Replay(StoredAnswer {
        status: u16::try_from(row.get::<i16>("status")?).map_err(|_| corrupt("status"))?,
        headers: serde_json::from_value(headers).map_err(|_| corrupt("headers"))?,
        body: row.get("response")?,
    }))
}

/// Stores the answer; it is kept if and only if the deed is.
///
/// # Errors
/// [`LabError::Invalid`] when the status is no HTTP status.
pub async fn finish(
    txn: &Txn<'_>,
    actor: &Actor,
    ticket: Ticket,
    answer: &StoredAnswer,
) -> Result<(), LabError> {
    let status =
        i16::try_from(answer.status).map_err(|_| LabError::invalid("status", "not an HTTP status"))?;
    let headers = serde_json::json!(answer.headers);
    let statement = txn
        .prepare_cached(
            "INSERT INTO idempotency_key (actor, method_path, key, body_sha256, status, headers, response)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .await?;
    txn.execute(
        &statement,
        &[
            &actor.staff.as_uuid(),
            &ticket.method_path,
            &ticket.key,
            &ticket.body_sha256,
            &status,
            &headers,
            &answer.body,
        ],
    )
    .await?;
    Ok(())
}

/// Removes answers older than a day, at most a thousand a call; says how many went.
///
/// # Errors
/// Only the database's own.
pub async fn sweep(txn: &Txn<'_>) -> Result<u64, LabError> {
    let statement = txn
        .prepare_cached(
            "DELETE FROM idempotency_key WHERE (actor, method_path, key) IN (
               SELECT actor, method_path, key FROM idempotency_key WHERE created_at < now() - interval '1 day'
               ORDER BY created_at LIMIT $1)",
        )
        .await?;
    Ok(txn.execute(&statement, &[&SWEEP_ROWS_MAX]).await?)
}
