//! The steps of operations: who ran which, when, how long, and what it saw. Written only under the lease.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use model::{OperationId, Step, StepStatus};
use serde_json::Value;
use tokio_postgres::{Row, types::ToSql};

use crate::{Lease, RegistryError, leases::held, row::Reader, sql};

/// One step as far as it came.
#[derive(Debug, Clone)]
pub struct StepRow {
    /// The operation.
    pub operation: OperationId,
    /// Which step.
    pub step: Step,
    /// How far it is.
    pub status: StepStatus,
    /// How often it was begun.
    pub attempts: u32,
    /// Who began it last.
    pub worker: String,
    /// When it was begun last.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What it found and did.
    pub saw: Option<Value>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Makes the transaction of a statement that refers to it end without a wait for the disk. A note that a
/// crash of the server takes back costs a step that is run again, and steps look before they act; later
/// commits that wait bring it to the disk too, so notes are never lost out of their order.
macro_rules! soon {
    () => {
        "soon AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))"
    };
}

/// Notes that a step is begun, before anything is done, so that it is known after a crash where it was; and
/// with it that the one before is `done` and what that saw. Returns how often the step was begun by now.
///
/// # Errors
/// [`RegistryError::LeaseLost`].
pub async fn step_begin(
    client: &impl GenericClient,
    lease: &Lease,
    done: Option<(Step, &Value)>,
    step: Step,
) -> Result<u32, RegistryError> {
    let statement = concat!(
        "WITH ",
        soon!(),
        ", held AS (
             UPDATE operations SET progress = NULL, updated_at = clock_timestamp()
             WHERE (SELECT count(*) FROM soon) = 1 AND ",
        held!(),
        " RETURNING id
         ), before AS (
             UPDATE operation_steps SET status = 'done', saw = $6, error = NULL, ended_at = clock_timestamp()
             FROM held WHERE operation_id = held.id AND step = $5
         )
         INSERT INTO operation_steps AS mine (operation_id, step, status, worker, began_at)
         SELECT id, $4, 'running', $2, clock_timestamp() FROM held
         ON CONFLICT (operation_id, step) DO UPDATE SET status = 'running', attempts = mine.attempts + 1,
             worker = excluded.worker, began_at = excluded.began_at, ended_at = NULL, error = NULL
         RETURNING operation_id, attempts"
    );
    let id = lease.operation.as_uuid();
    let (done, saw) = done.unzip();
    let params: [&(dyn ToSql + Sync); 6] = [
        &id,
        &lease.owner,
        &lease.token,
        &step.as_str(),
        &done.map(Step::as_str),
        &saw,
    ];
    let row = sql::row_opt(client, "beginning a step", statement, &params).await?;
    Reader::new(
        &row.ok_or_else(|| lease.lost())?,
        "operation_steps",
        "operation_id",
    )
    .count("attempts")
}

/// Notes that a step is done, with what it saw.
///
/// # Errors
/// [`RegistryError::LeaseLost`].
pub async fn step_done(
    client: &impl GenericClient,
    lease: &Lease,
    step: Step,
    saw: &Value,
) -> Result<(), RegistryError> {
    end(client, lease, step, StepStatus::Done, Some(saw), None).await
}

/// Notes that a try of a step failed.
///
/// # Errors
/// [`RegistryError::LeaseLost`].
pub async fn step_failed(
    client: &impl GenericClient,
    lease: &Lease,
    step: Step,
    error: &str,
) -> Result<(), RegistryError> {
    end(client, lease, step, StepStatus::Failed, None, Some(error)).await
}

async fn end(
    client: &impl GenericClient,
    lease: &Lease,
    step: Step,
    status: StepStatus,
    saw: Option<&Value>,
    error: Option<&str>,
) -> Result<(), RegistryError> {
    let statement = concat!(
        "WITH ",
        soon!(),
        ", held AS (
             UPDATE operations SET updated_at = clock_timestamp()
             WHERE (SELECT count(*) FROM soon) = 1 AND ",
        held!(),
        " RETURNING id
         )
         UPDATE operation_steps SET status = $5, saw = coalesce($6, saw), error = $7, ended_at = clock_timestamp()
         FROM held WHERE operation_id = held.id AND step = $4"
    );
    let id = lease.operation.as_uuid();
    let params: [&(dyn ToSql + Sync); 7] = [
        &id,
        &lease.owner,
        &lease.token,
        &step.as_str(),
        &status.as_str(),
        &saw,
        &error,
    ];
    match sql::touched(client, "ending a step", statement, &params).await? {
        0 => Err(lease.lost()),
        _ => Ok(()),
    }
}

/// The steps of an operation in the order in which they were first begun.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or a row cannot be read.
pub async fn steps_of(
    client: &impl GenericClient,
    operation: OperationId,
) -> Result<Vec<StepRow>, RegistryError> {
    let statement = "SELECT operation_id, step, status, attempts, worker, began_at, ended_at, saw, error
         FROM operation_steps WHERE operation_id = $1 ORDER BY sequence";
    let rows = sql::rows(
        client,
        "reading an operation's steps",
        statement,
        &[&operation.as_uuid()],
    )
    .await?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &Row) -> Result<StepRow, RegistryError> {
    let r = Reader::new(row, "operation_steps", "operation_id");
    Ok(StepRow {
        operation: r.id("operation_id")?,
        step: r.parse("step")?,
        status: r.parse("status")?,
        attempts: r.count("attempts")?,
        worker: r.get("worker")?,
        began_at: r.get("began_at")?,
        ended_at: r.get("ended_at")?,
        saw: r.get("saw")?,
        error: r.get("error")?,
    })
}
