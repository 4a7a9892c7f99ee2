//! Leases: who may run an operation.
//!
//! A lease is held by one claim of one worker. Its end is set and compared by the database's clock alone, so
//! the clocks of hosts do not matter; `clock_timestamp()` and not `now()`, because a transaction's `now()`
//! stands still while a lease runs out. Each claim takes a new token, and every later write names it: a
//! worker that slept through the end of its lease gets [`RegistryError::LeaseLost`] instead of overwriting
//! the work of another, even of its own process.

use std::time::Duration;

use deadpool_postgres::{GenericClient, Transaction};
use model::{OperationId, OperationKind, OperationStatus, UndoReason};
use serde_json::Value;
use tokio_postgres::types::ToSql;

use crate::{
    Operation, RegistryError,
    operations::{columns, with_undo_error},
    row::Reader,
    sql,
};

/// Holds while the lease of parameters $1 (operation), $2 (owner) and $3 (token) is held.
macro_rules! held {
    () => {
        "id = $1 AND lease_owner = $2 AND lease_token = $3 AND lease_until > clock_timestamp()"
    };
}
pub(crate) use held;

/// The right of one claim to run one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The operation.
    pub operation: OperationId,
    /// Who claimed it.
    pub owner: String,
    /// Which claim it was.
    pub token: i64,
}

impl Lease {
    pub(crate) fn lost(&self) -> RegistryError {
        RegistryError::LeaseLost {
            operation: self.operation,
        }
    }

    /// Runs a statement whose first three parameters are the lease and which touches no row unless it is
    /// held.
    async fn write(
        &self,
        client: &impl GenericClient,
        doing: &'static str,
        statement: &str,
        rest: &[&(dyn ToSql + Sync)],
    ) -> Result<(), RegistryError> {
        let id = self.operation.as_uuid();
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&id, &self.owner, &self.token];
        params.extend_from_slice(rest);
        match sql::touched(client, doing, statement, &params).await? {
            0 => Err(self.lost()),
            _ => Ok(()),
        }
    }
}

/// What a worker is willing to run.
#[derive(Debug, Clone, Copy)]
pub enum Claimable<'a> {
    /// Whatever of these kinds has waited longest.
    Kinds(&'a [OperationKind]),
    /// This operation and no other.
    Operation(OperationId),
}

/// Takes the lease of an operation that may run: waiting and due, or begun by a worker whose lease has ended.
/// Several workers never get the same one and never wait for each other. `owner` names this worker uniquely
/// in the fleet; it begins with the worker's host and a colon. One that this host could not go on with is
/// left to others until its time is over.
///
/// A pending operation is then `running`; one that was `undoing` stays so.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or the row cannot be read.
pub async fn operation_claim(
    client: &impl GenericClient,
    owner: &str,
    lease: Duration,
    claimable: Claimable<'_>,
) -> Result<Option<(Operation, Lease)>, RegistryError> {
    let statement = concat!(
        "UPDATE operations SET
             status = CASE status WHEN 'pending' THEN 'running' ELSE status END,
             attempts = attempts + 1,
             lease_owner = $1,
             lease_until = clock_timestamp() + make_interval(secs => $2),
             lease_token = lease_token + 1,
             started_at = coalesce(started_at, clock_timestamp()),
             updated_at = clock_timestamp()
         WHERE id = (
             SELECT id FROM operations
             WHERE finished_at IS NULL
               AND not_before <= clock_timestamp()
               AND (lease_until IS NULL OR lease_until <= clock_timestamp())
               AND (not_here = '{}' OR not_here_until <= clock_timestamp() OR split_part($1, ':', 1) <> ALL (not_here))
               AND ($3::uuid IS NULL OR id = $3) AND ($4::text[] IS NULL OR kind = ANY ($4))
             ORDER BY not_before, id
             LIMIT 1
             FOR UPDATE SKIP LOCKED
         )
         RETURNING ",
        columns!()
    );
    let (id, kinds) = match claimable {
        Claimable::Operation(id) => (Some(id.as_uuid()), None),
        Claimable::Kinds(kinds) => (
            None,
            Some(kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>()),
        ),
    };
    let params: [&(dyn ToSql + Sync); 4] = [&owner, &lease.as_secs_f64(), &id, &kinds];
    let Some(row) = sql::row_opt(client, "claiming an operation", statement, &params).await? else {
        return Ok(None);
    };
    let operation = Operation::from_row(&row)?;
    let lease = Lease {
        operation: operation.id,
        owner: owner.to_owned(),
        token: Reader::new(&row, "operations", "id").get("lease_token")?,
    };
    Ok(Some((operation, lease)))
}

/// Lengthens a lease that has not ended: from now on for `lease`.
///
/// # Errors
/// [`RegistryError::LeaseLost`] when it has ended; the worker must stop at once.
pub async fn operation_renew(
    client: &impl GenericClient,
    lease: &Lease,
    length: Duration,
) -> Result<(), RegistryError> {
    let statement = concat!(
        "UPDATE operations SET lease_until = clock_timestamp() + make_interval(secs => $4) WHERE ",
        held!()
    );
    lease
        .write(client, "renewing a lease", statement, &[&length.as_secs_f64()])
        .await
}

/// Says how far the present step is.
///
/// # Errors
/// [`RegistryError::LeaseLost`].
pub async fn operation_progress(
    client: &impl GenericClient,
    lease: &Lease,
    progress: &Value,
) -> Result<(), RegistryError> {
    let statement = concat!(
        "UPDATE operations SET progress = $4, updated_at = clock_timestamp() WHERE ",
        held!()
    );
    lease
        .write(client, "noting progress", statement, &[progress])
        .await
}

/// Notes that the laboratory's database is about to be dropped on this server. Only after such a note is a
/// database that is not there this operation's own doing. `server` names the server itself and not the way to
/// it.
///
/// # Errors
/// [`RegistryError::LeaseLost`].
pub async fn operation_note_drop(
    client: &impl GenericClient,
    lease: &Lease,
    server: &str,
) -> Result<(), RegistryError> {
    let statement = concat!(
        "UPDATE operations SET drop_begun_on = $4, updated_at = clock_timestamp() WHERE ",
        held!()
    );
    lease
        .write(client, "noting the drop of a database", statement, &[&server])
        .await
}

/// Gives the lease up in the midst of a try, as when the process is shut down: the operation may be claimed
/// again at once, and the try does not count. `why` is for people to read; one that is being undone keeps the
/// reason of its undoing.
///
/// # Errors
/// [`RegistryError::LeaseLost`].
pub async fn operation_give_back(
    client: &impl GenericClient,
    lease: &Lease,
    why: &str,
) -> Result<(), RegistryError> {
    let statement = concat!(
        "UPDATE operations SET status = CASE status WHEN 'undoing' THEN 'undoing' ELSE 'pending' END,
             error = CASE status WHEN 'undoing' THEN error ELSE $4 END,
             undo_error = CASE status WHEN 'undoing' THEN undo_error END, attempts = greatest(attempts - 1, 0),
             not_before = clock_timestamp(), lease_owner = NULL, lease_until = NULL, updated_at = clock_timestamp()
         WHERE ",
        held!()
    );
    lease
        .write(client, "giving an operation back unfinished", statement, &[&why])
        .await
}

/// Gives the lease up after a try that failed: the operation may be claimed again after `delay`. One that was
/// being undone goes on being undone; its error stays, and `error` says why undoing it failed.
///
/// # Errors
/// [`RegistryError::LeaseLost`].
pub async fn operation_release_for_retry(
    client: &impl GenericClient,
    lease: &Lease,
    delay: Duration,
    error: &str,
) -> Result<(), RegistryError> {
    let statement = concat!(
        "UPDATE operations SET status = CASE status WHEN 'undoing' THEN 'undoing' ELSE 'pending' END,
             error = CASE status WHEN 'undoing' THEN error ELSE $5 END,
             undo_error = CASE status WHEN 'undoing' THEN $5 END, failures = failures + 1,
             not_before = CASE WHEN cancel_requested_at IS NOT NULL AND NOT past_return AND status <> 'undoing'
                 THEN clock_timestamp() ELSE clock_timestamp() + make_interval(secs => $4) END,
             lease_owner = NULL, lease_until = NULL, updated_at = clock_timestamp()
         WHERE ",
        held!()
    );
    let rest: [&(dyn ToSql + Sync); 2] = [&delay.as_secs_f64(), &error];
    lease
        .write(client, "giving an operation back", statement, &rest)
        .await
}

/// Gives the lease up because `host` cannot read what the operation needs: a worker of another host may claim
/// it at once, and the try does not count. When `limit` has passed since the first host said so, every worker
/// may claim it again.
///
/// # Errors
/// [`RegistryError::LeaseLost`].
pub async fn operation_leave_to_others(
    client: &impl GenericClient,
    lease: &Lease,
    host: &str,
    limit: Duration,
    why: &str,
) -> Result<(), RegistryError> {
    let statement = concat!(
        "UPDATE operations SET status = CASE status WHEN 'undoing' THEN 'undoing' ELSE 'pending' END,
             error = CASE status WHEN 'undoing' THEN error ELSE $6 END,
             undo_error = CASE status WHEN 'undoing' THEN undo_error END, attempts = greatest(attempts - 1, 0),
             not_here = CASE WHEN $4 = ANY (not_here) THEN not_here ELSE not_here || $4::text END,
             not_here_until = coalesce(not_here_until, clock_timestamp() + make_interval(secs => $5)),
             not_before = clock_timestamp(), lease_owner = NULL, lease_until = NULL, updated_at = clock_timestamp()
         WHERE ",
        held!()
    );
    let rest: [&(dyn ToSql + Sync); 3] = [&host, &limit.as_secs_f64(), &why];
    lease
        .write(client, "leaving an operation to others", statement, &rest)
        .await
}

/// Gives the lease up for a wait that belongs to the operation: it may be claimed again when `wait` has
/// passed since the first time this was called, and the try does not count.
///
/// # Errors
/// [`RegistryError::LeaseLost`].
pub async fn operation_wait(
    client: &impl GenericClient,
    lease: &Lease,
    wait: Duration,
) -> Result<(), RegistryError> {
    let statement = concat!(
        "UPDATE operations SET status = 'pending', error = NULL, undo_error = NULL, attempts = greatest(attempts - 1, 0),
             waiting_until = coalesce(waiting_until, clock_timestamp() + make_interval(secs => $4)),
             not_before = CASE WHEN cancel_requested_at IS NOT NULL THEN clock_timestamp()
                 ELSE coalesce(waiting_until, clock_timestamp() + make_interval(secs => $4)) END,
             lease_owner = NULL, lease_until = NULL, updated_at = clock_timestamp()
         WHERE ",
        held!()
    );
    lease
        .write(
            client,
            "letting an operation wait",
            statement,
            &[&wait.as_secs_f64()],
        )
        .await
}

/// Whether the operation is to be cancelled.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn operation_cancel_is_requested(
    client: &impl GenericClient,
    lease: &Lease,
) -> Result<bool, RegistryError> {
    let statement =
        "SELECT id FROM operations WHERE id = $1 AND cancel_requested_at IS NOT NULL AND NOT past_return";
    let params: [&(dyn ToSql + Sync); 1] = [&lease.operation.as_uuid()];
    let row = sql::row_opt(
        client,
        "looking whether an operation is cancelled",
        statement,
        &params,
    )
    .await?;
    Ok(row.is_some())
}

/// Notes that what the operation does from here on cannot be taken back. `false`: it was cancelled before
/// that.
///
/// # Errors
/// [`RegistryError::LeaseLost`].
pub async fn operation_make_irreversible(
    client: &impl GenericClient,
    lease: &Lease,
) -> Result<bool, RegistryError> {
    // One row decides: the second writer sees what the first one wrote.
    let statement = concat!(
        "UPDATE operations SET past_return = past_return OR cancel_requested_at IS NULL WHERE ",
        held!(),
        " RETURNING id, past_return"
    );
    let params: [&(dyn ToSql + Sync); 3] = [&lease.operation.as_uuid(), &lease.owner, &lease.token];
    let row = sql::row_opt(client, "making an operation irreversible", statement, &params).await?;
    Reader::new(&row.ok_or_else(|| lease.lost())?, "operations", "id").get("past_return")
}

/// Holds the operation's row until the transaction ends: nobody cancels it or takes it over before that.
/// `false`: somebody has cancelled it already.
///
/// # Errors
/// [`RegistryError::LeaseLost`].
pub async fn operation_hold_in_txn(txn: &Transaction<'_>, lease: &Lease) -> Result<bool, RegistryError> {
    let statement = concat!(
        "SELECT id, past_return OR cancel_requested_at IS NULL AS wanted FROM operations WHERE ",
        held!(),
        " FOR UPDATE"
    );
    let params: [&(dyn ToSql + Sync); 3] = [&lease.operation.as_uuid(), &lease.owner, &lease.token];
    let row = sql::row_opt(txn, "holding an operation", statement, &params).await?;
    Reader::new(&row.ok_or_else(|| lease.lost())?, "operations", "id").get("wanted")
}

/// Takes [`operation_make_irreversible`] back: what could not have been taken back was refused before it
/// changed anything.
///
/// # Errors
/// [`RegistryError::LeaseLost`].
pub async fn operation_make_reversible(
    client: &impl GenericClient,
    lease: &Lease,
) -> Result<(), RegistryError> {
    let statement = concat!("UPDATE operations SET past_return = false WHERE ", held!());
    lease
        .write(client, "making an operation reversible again", statement, &[])
        .await
}

/// Turns a running operation to taking away what it made; `error` says why it failed, or who cancelled it.
/// The lease stays, the tries are counted anew, and a step that was under way is under way no more.
///
/// # Errors
/// [`RegistryError::LeaseLost`].
pub async fn operation_set_undoing(
    client: &impl GenericClient,
    lease: &Lease,
    reason: UndoReason,
    error: &str,
) -> Result<(), RegistryError> {
    let statement = concat!(
        "WITH cut_off AS (
             UPDATE operation_steps SET status = 'failed', error = $4, ended_at = clock_timestamp()
             WHERE operation_id = $1 AND status = 'running' AND EXISTS (SELECT FROM operations WHERE ",
        held!(),
        ")
         )
         UPDATE operations SET status = 'undoing', error = $4, undo_reason = $5, undo_error = NULL, attempts = 1, failures = 0,
             progress = NULL, updated_at = clock_timestamp()
         WHERE ",
        held!()
    );
    let rest: [&(dyn ToSql + Sync); 2] = [&error, &reason.as_str()];
    lease
        .write(client, "turning an operation to undoing", statement, &rest)
        .await
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// All steps are done.
    Succeeded,
    /// It ended without success, for this reason.
    Failed(&'a str),
    /// It ended without success, and could not be undone.
    FailedToUndo {
        /// Why it failed, or who cancelled it.
        error: &'a str,
        /// Why that could not be undone.
        undo_error: &'a str,
    },
    /// It was cancelled and is undone.
    Cancelled(&'a str),
}

impl Outcome<'_> {
    /// The status in which it leaves the operation.
    #[must_use]
    pub fn status(self) -> OperationStatus {
        match self {
            Self::Succeeded => OperationStatus::Succeeded,
            Self::Failed(_) | Self::FailedToUndo { .. } => OperationStatus::Failed,
            Self::Cancelled(_) => OperationStatus::Cancelled,
        }
    }

    /// As [`Operation::error_text`] says it afterwards.
    #[must_use]
    pub fn error_text(self) -> Option<String> {
        let (error, undo_error) = self.errors();
        error.map(|error| with_undo_error(error, undo_error))
    }

    fn errors(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::Succeeded => (None, None),
            Self::Failed(error) | Self::Cancelled(error) => (Some(error), None),
            Self::FailedToUndo { error, undo_error } => (Some(error), Some(undo_error)),
        }
    }
}

/// Ends an operation and its lease.
///
/// # Errors
/// [`RegistryError::LeaseLost`].
pub async fn operation_finish(
    client: &impl GenericClient,
    lease: &Lease,
    outcome: Outcome<'_>,
) -> Result<(), RegistryError> {
    let (error, undo_error) = outcome.errors();
    let statement = concat!(
        "UPDATE operations SET status = $4, error = $5, undo_error = $6, progress = NULL, lease_owner = NULL, lease_until = NULL,
             finished_at = clock_timestamp(), updated_at = clock_timestamp()
         WHERE ",
        held!()
    );
    lease
        .write(
            client,
            "ending an operation",
            statement,
            &[&outcome.status().as_str(), &error, &undo_error],
        )
        .await
}
