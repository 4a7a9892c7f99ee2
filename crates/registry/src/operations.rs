//! Operations as rows: asking for one, finding them, opening a failed one again. Running one takes a lease.

use deadpool_postgres::{GenericClient, Transaction};
use jiff::Timestamp;
use model::{OperationId, OperationKind, OperationStatus, Slug, TenantId, UndoReason};
use serde_json::Value;
use tokio_postgres::Row;

use crate::{Actor, Entity, Position, RegistryError, paging::page_limit, row::Reader, sql};

/// A durable change to one laboratory.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What it does.
    pub kind: OperationKind,
    /// To which laboratory.
    pub tenant: TenantId,
    /// The slug which that laboratory had when it was asked.
    pub tenant_slug: Slug,
    /// How far it is.
    pub status: OperationStatus,
    /// What it was asked to do, beside the kind.
    pub params: Value,
    /// How far the present step is, as it says itself.
    pub progress: Option<Value>,
    /// Why the last try failed; of one that is undone, why that is.
    pub error: Option<String>,
    /// Why it is or was undone. The version before wrote none.
    pub undo_reason: Option<UndoReason>,
    /// Why the last try to undo it failed.
    pub undo_error: Option<String>,
    /// Who asked.
    pub created_by: Actor,
    /// The request's own key, if it had one.
    pub idempotency_key: Option<String>,
    /// How often it was claimed since it was asked for, opened again or turned to undoing; not counting
    /// claims that were given back unfinished.
    pub attempts: u32,
    /// How many of those tries failed. The others were cut off by the end of their process.
    pub failures: u32,
    /// On which server the laboratory's database was about to be dropped, if it came so far.
    pub drop_begun_on: Option<String>,
    /// Who asked for it to be cancelled.
    pub cancel_requested_by: Option<Actor>,
    /// When.
    pub cancel_requested_at: Option<Timestamp>,
    /// What it does from here on cannot be taken back.
    pub irreversible: bool,
    /// Until when its present step does nothing but wait.
    pub waiting_until: Option<Timestamp>,
    /// Whether it does nothing but wait for a time to come, by the registry's clock at the moment of reading.
    waits: bool,
    /// Hosts that cannot read what it needs. They leave it to others,
    pub not_here: Vec<String>,
    /// until this.
    pub not_here_until: Option<Timestamp>,
    left_long_enough: bool,
    /// When it may be claimed.
    pub not_before: Timestamp,
    /// Who runs it.
    pub lease_owner: Option<String>,
    /// Until when, unless renewed.
    pub lease_until: Option<Timestamp>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was claimed first.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When it moved last; renewing a lease is no move.
    pub updated_at: Timestamp,
}

macro_rules! columns {
    () => {
        "id, kind, tenant_id, tenant_slug, status, params, progress, error, undo_reason, undo_error, \
         created_by, idempotency_key, attempts, failures, drop_begun_on, cancel_requested_by, \
         cancel_requested_at, past_return, waiting_until, coalesce(status = 'pending' AND waiting_until > \
         clock_timestamp(), false) AS waits, not_here, not_here_until, coalesce(not_here_until <= \
         clock_timestamp(), false) AS left_long_enough, not_before, lease_owner, lease_until, lease_token, \
         created_at, started_at, finished_at, updated_at"
    };
}

pub(crate) use columns;

impl Operation {
    pub(crate) fn from_row(row: &Row) -> Result<Self, RegistryError> {
        let r = Reader::new(row, "operations", "id");
        Ok(Self {
            id: r.id("id")?,
            kind: r.parse("kind")?,
            tenant: r.id("tenant_id")?,
            tenant_slug: r.parse("tenant_slug")?,
            status: r.parse("status")?,
            params: r.get("params")?,
            progress: r.get("progress")?,
            error: r.get("error")?,
            undo_reason: r.parse_opt("undo_reason")?,
            undo_error: r.get("undo_error")?,
            created_by: r.parse("created_by")?,
            idempotency_key: r.get("idempotency_key")?,
            attempts: r.count("attempts")?,
            failures: r.count("failures")?,
            drop_begun_on: r.get("drop_begun_on")?,
            cancel_requested_by: r.parse_opt("cancel_requested_by")?,
            cancel_requested_at: r.get("cancel_requested_at")?,
            irreversible: r.get("past_return")?,
            waiting_until: r.get("waiting_until")?,
            waits: r.get("waits")?,
            not_here: r.get("not_here")?,
            not_here_until: r.get("not_here_until")?,
            left_long_enough: r.get("left_long_enough")?,
            not_before: r.get("not_before")?,
            lease_owner: r.get("lease_owner")?,
            lease_until: r.get("lease_until")?,
            created_at: r.get("created_at")?,
            started_at: r.get("started_at")?,
            finished_at: r.get("finished_at")?,
            updated_at: r.get("updated_at")?,
        })
    }
}

/// The error of an operation, with why it could not be undone where that failed.
pub(crate) fn with_undo_error(error: &str, undo_error: Option<&str>) -> String {
    match undo_error {
        Some(undo_error) => format!("{error} (undoing it: {undo_error})"),
        None => error.to_owned(),
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct NewOperation {
    /// The id to have.
    pub id: OperationId,
    /// What to do.
    pub kind: OperationKind,
    /// To which laboratory.
    pub tenant: TenantId,
    /// That laboratory's slug.
    pub tenant_slug: Slug,
    /// What else the steps need to know; never a secret.
    pub params: Value,
    /// Who asks.
    pub created_by: Actor,
    /// The request's own key: the same request sent twice is one operation.
    pub idempotency_key: Option<String>,
}

/// Writes an operation, in the transaction of the change that makes it necessary.
///
/// # Errors
/// [`RegistryError::OperationInProgress`] when another one on the laboratory has not ended,
/// [`RegistryError::IdempotencyKeyUsed`] when the request was made before; the transaction is lost then.
pub async fn operation_insert_in_txn(
    txn: &Transaction<'_>,
    new: &NewOperation,
) -> Result<Operation, RegistryError> {
    let statement = concat!(
        "INSERT INTO operations (id, kind, tenant_id, tenant_slug, params, created_by, idempotency_key)
         VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING ",
        columns!()
    );
    let inserted = sql::row_one(
        txn,
        "the new operation",
        statement,
        &[
            &new.id.as_uuid(),
            &new.kind.as_str(),
            &new.tenant.as_uuid(),
            &new.tenant_slug.as_str(),
            &new.params,
            &new.created_by.to_string(),
            &new.idempotency_key,
        ],
    )
    .await;
    let row = inserted.map_err(|error| match (error.violated(), &new.idempotency_key) {
        (Some("operations_one_live_per_tenant"), _) => {
            RegistryError::OperationInProgress { tenant: new.tenant }
        }
        (Some("operations_idempotency_key"), Some(key)) => {
            RegistryError::IdempotencyKeyUsed { key: key.clone() }
        }
        _ => error,
    })?;
    Operation::from_row(&row)
}

/// Lets an operation that has failed be claimed once more; its steps that are done stay done.
///
/// # Errors
/// [`RegistryError::NotReopenable`] unless it has failed, [`RegistryError::OperationInProgress`] when the
/// laboratory has another one under way, [`RegistryError::NotFound`].
pub async fn operation_reopen(
    client: &impl GenericClient,
    id: OperationId,
) -> Result<Operation, RegistryError> {
    let Some(operation) = operation_by_id(client, id).await? else {
        let (what, id) = (Entity::Operation, id.to_string());
        return Err(RegistryError::NotFound { what, id });
    };
    let statement = concat!(
        "UPDATE operations SET status = 'pending', attempts = 0, failures = 0, not_before = clock_timestamp(), finished_at = NULL,
             not_here = '{}', not_here_until = NULL, undo_reason = NULL, updated_at = clock_timestamp()
         WHERE id = $1 AND status = 'failed' RETURNING ",
        columns!()
    );
    let reopened = sql::row_opt(client, "opening an operation again", statement, &[&id.as_uuid()]).await;
    match reopened.map_err(|error| match error.violated() {
        Some("operations_one_live_per_tenant") => RegistryError::OperationInProgress {
            tenant: operation.tenant,
        },
        _ => error,
    })? {
        Some(row) => Operation::from_row(&row),
        None => Err(RegistryError::NotReopenable { operation: id }),
    }
}

/// Changes what a pending operation was asked with, and lets it wait anew: a grace period that is over counts
/// no more.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn operation_set_params(
    client: &impl GenericClient,
    id: OperationId,
    params: &Value,
) -> Result<(), RegistryError> {
    let statement = "WITH changed AS (
             UPDATE operations SET params = $2, waiting_until = NULL, updated_at = clock_timestamp()
             WHERE id = $1 AND status = 'pending' RETURNING id
         )
         UPDATE operation_steps SET status = 'failed', error = 'asked for anew' FROM changed
         WHERE operation_id = changed.id AND step = 'grace' AND status = 'done'";
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&id.as_uuid(), params];
    sql::touched(
        client,
        "changing what an operation was asked with",
        statement,
        &params,
    )
    .await?;
    Ok(())
}

/// Asks for an operation to be cancelled. The worker that runs it turns it to undoing; one that waits is
/// woken for that. A removal that failed is taken up again to be undone. Asked again it is what was asked
/// first.
///
/// # Errors
/// [`RegistryError::NotCancellable`] says why not, [`RegistryError::NotFound`].
pub async fn operation_request_cancel_in_txn(
    txn: &Transaction<'_>,
    id: OperationId,
    by: &Actor,
) -> Result<Operation, RegistryError> {
    let statement = concat!("SELECT ", columns!(), " FROM operations WHERE id = $1 FOR UPDATE");
    let found = sql::row_opt(txn, "locking an operation", statement, &[&id.as_uuid()]).await?;
    let Some(operation) = found.as_ref().map(Operation::from_row).transpose()? else {
        let (what, id) = (Entity::Operation, id.to_string());
        return Err(RegistryError::NotFound { what, id });
    };
    if operation.cancel_requested_at.is_some() && !operation.status.is_final() {
        return Ok(operation);
    }
    if let Some(why) = operation.not_cancellable() {
        return Err(RegistryError::NotCancellable { operation: id, why });
    }
    let statement = concat!(
        "UPDATE operations SET status = CASE status WHEN 'failed' THEN 'pending' ELSE status END, finished_at = NULL,
             attempts = CASE status WHEN 'failed' THEN 0 ELSE attempts END,
             failures = CASE status WHEN 'failed' THEN 0 ELSE failures END,
             cancel_requested_by = $2, cancel_requested_at = clock_timestamp(), not_before = clock_timestamp(),
             updated_at = clock_timestamp()
         WHERE id = $1 RETURNING ",
        columns!()
    );
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&id.as_uuid(), &by.to_string()];
    let changed = sql::row_one(txn, "cancelling an operation", statement, &params).await;
    Operation::from_row(&changed.map_err(|error| match error.violated() {
        Some("operations_one_live_per_tenant") => RegistryError::OperationInProgress {
            tenant: operation.tenant,
        },
        _ => error,
    })?)
}

/// Ends the wait of an operation that does nothing but wait: it goes on at once. One that was cancelled no
/// longer waits for that.
///
/// # Errors
/// [`RegistryError::NotWaiting`] says what it does instead, [`RegistryError::NotFound`].
pub async fn operation_end_wait(
    client: &impl GenericClient,
    id: OperationId,
) -> Result<Operation, RegistryError> {
    let statement = concat!(
        "UPDATE operations SET not_before = clock_timestamp(), waiting_until = clock_timestamp(), updated_at = clock_timestamp()
         WHERE id = $1 AND status = 'pending' AND waiting_until > clock_timestamp() AND cancel_requested_at IS NULL RETURNING ",
        columns!()
    );
    if let Some(row) = sql::row_opt(client, "ending an operation's wait", statement, &[&id.as_uuid()]).await?
    {
        return Operation::from_row(&row);
    }
    let Some(found) = operation_by_id(client, id).await? else {
        let (what, id) = (Entity::Operation, id.to_string());
        return Err(RegistryError::NotFound { what, id });
    };
    let does = found.does_instead_of_waiting();
    Err(RegistryError::NotWaiting { operation: id, does })
}

/// Makes an operation due at once that nobody runs, and tells the workers: one whose lease is over, or whose
/// time came long ago. `false` when it has ended, or somebody runs it.
///
/// # Errors
/// As [`operation_by_id`].
pub async fn operation_wake(client: &impl GenericClient, id: OperationId) -> Result<bool, RegistryError> {
    let statement = "UPDATE operations SET status = CASE status WHEN 'running' THEN 'pending' ELSE status END,
             lease_owner = NULL, lease_until = NULL, not_before = clock_timestamp(), updated_at = clock_timestamp()
         WHERE id = $1 AND finished_at IS NULL AND not_before <= clock_timestamp()
           AND (lease_until IS NULL OR lease_until <= clock_timestamp())";
    let woken = sql::touched(client, "waking an operation", statement, &[&id.as_uuid()]).await?;
    Ok(woken == 1)
}

impl Operation {
    /// Why it cannot be cancelled, if it cannot.
    fn not_cancellable(&self) -> Option<&'static str> {
        match self.status {
            OperationStatus::Succeeded => Some("it is done"),
            OperationStatus::Cancelled => Some("it was cancelled before"),
            OperationStatus::Undoing => Some("it failed and is being undone already"),
            OperationStatus::Failed if self.kind.failure_is_undone() => Some("it failed and was undone"),
            OperationStatus::Failed if !self.kind.can_be_undone() => {
                Some("it failed, and there is nothing to undo")
            }
            _ if self.irreversible => Some("it is past the point from which it could be taken back"),
            OperationStatus::Failed | OperationStatus::Pending | OperationStatus::Running => None,
        }
    }

    fn does_instead_of_waiting(&self) -> &'static str {
        match self.status {
            OperationStatus::Succeeded => "it is done",
            OperationStatus::Cancelled => "it was cancelled",
            OperationStatus::Failed => "it has failed; see why, and retry it",
            _ if self.cancel_requested_at.is_some() => "it was cancelled and is being undone",
            OperationStatus::Undoing => "it failed and is being undone",
            OperationStatus::Pending if self.waiting_until.is_some() => "its time has come and it goes on",
            OperationStatus::Pending | OperationStatus::Running => {
                "it is at work, and may come to wait later"
            }
        }
    }

    /// Why it failed, or who cancelled it, and why that could not be undone, for people to read.
    #[must_use]
    pub fn error_text(&self) -> Option<String> {
        let error = self.error.as_deref()?;
        Some(with_undo_error(error, self.undo_error.as_deref()))
    }

    /// Why it is undone.
    #[must_use]
    pub fn why_undone(&self) -> UndoReason {
        match self.undo_reason {
            Some(reason) => reason,
            // A process of the version before turned it to undoing.
            None if self.cancel_requested_at.is_some() => UndoReason::Cancelled,
            None => UndoReason::Failed,
        }
    }

    /// Whether it waited for a time to pass, with nothing else to do until then, when it was read. The
    /// registry's clock says so; a process whose own clock is off cannot.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waits
    }

    /// Whether it was left to other hosts, and the time for that was over when it was read.
    #[must_use]
    pub fn left_long_enough(&self) -> bool {
        self.left_long_enough
    }

    /// Where it stands in lists.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::new(self.created_at, self.id.as_uuid())
    }
}

/// The operation with this id.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or the row cannot be read.
pub async fn operation_by_id(
    client: &impl GenericClient,
    id: OperationId,
) -> Result<Option<Operation>, RegistryError> {
    let statement = concat!("SELECT ", columns!(), " FROM operations WHERE id = $1");
    let row = sql::row_opt(client, "reading an operation", statement, &[&id.as_uuid()]).await?;
    row.as_ref().map(Operation::from_row).transpose()
}

/// The operation that a request with this key asked for.
///
/// # Errors
/// As [`operation_by_id`].
pub async fn operation_by_idempotency_key(
    client: &impl GenericClient,
    key: &str,
) -> Result<Option<Operation>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM operations WHERE idempotency_key = $1"
    );
    let row = sql::row_opt(client, "reading an operation", statement, &[&key]).await?;
    row.as_ref().map(Operation::from_row).transpose()
}

/// Which operations to list; the default is all of them.
#[derive(Debug, Clone, Default)]
pub struct OperationFilter {
    /// Only those on this laboratory, whose row may be gone.
    pub tenant: Option<TenantId>,
    /// Only those of this kind.
    pub kind: Option<OperationKind>,
    /// Only those in this status.
    pub status: Option<OperationStatus>,
    /// Only those that have not ended.
    pub live: bool,
}

/// The tenant that an operation last knew by this slug: of one that was never made, or is gone, the
/// operations stay.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn operation_tenant_by_slug(
    client: &impl GenericClient,
    slug: &Slug,
) -> Result<Option<TenantId>, RegistryError> {
    let statement =
        "SELECT tenant_id FROM operations WHERE tenant_slug = $1 ORDER BY created_at DESC, id DESC LIMIT 1";
    let row = sql::row_opt(
        client,
        "looking for operations by slug",
        statement,
        &[&slug.as_str()],
    )
    .await?;
    Ok(row.map(|row| TenantId::from(row.get::<_, uuid::Uuid>(0))))
}

/// One page of operations, newest first by the registry's clock, starting after `after`.
///
/// # Errors
/// As [`operation_by_id`].
pub async fn operations_list(
    client: &impl GenericClient,
    filter: &OperationFilter,
    after: Option<Position>,
    limit: u32,
) -> Result<Vec<Operation>, RegistryError> {
    let (at, id) = Position::parts(after);
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM operations
         WHERE ($1::uuid IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR kind = $2)
           AND ($3::text IS NULL OR status = $3) AND (NOT $4 OR finished_at IS NULL)
           AND ($5::timestamptz IS NULL OR (created_at, id) < ($5, $6::uuid))
         ORDER BY created_at DESC, id DESC LIMIT $7"
    );
    let rows = sql::rows(
        client,
        "listing operations",
        statement,
        &[
            &filter.tenant.map(TenantId::as_uuid),
            &filter.kind.map(OperationKind::as_str),
            &filter.status.map(OperationStatus::as_str),
            &filter.live,
            &at,
            &id,
            &page_limit(limit),
        ],
    )
    .await;
    rows?.iter().map(Operation::from_row).collect()
}
