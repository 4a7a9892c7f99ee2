//! What a caller gets: one connection to one tenant's database.
//!
//! Invariant: the next caller never sees, and never waits for, what an earlier caller left behind. The
//! connection counts as unsettled from the moment a statement is sent until the server has *answered* it, and
//! for a transaction until the server has answered its commit or rollback. A caller may give the connection
//! back unsettled (its request was cancelled, it panicked, an error skipped the rollback), or with an open
//! transaction or a changed setting in the session ([`crate::wire`]). Then a background task cancels the
//! statement and cleans the session, or closes the connection ([`crate::checked_out`]).

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use deadpool_postgres::Transaction;
use model::TenantId;
use tokio::time::Instant;
use tokio_postgres::{Row, error::Severity, types::ToSql};

use crate::{ResolveError, Snapshot, checked_out::CheckedOut};

/// A checked-out connection to one tenant's database. When it is dropped, it returns to its pool.
///
/// It does not dereference to the driver's client: a statement outside a transaction could leave a setting or
/// an open transaction to the next caller.
pub struct TenantClient {
    checked_out: Option<CheckedOut>,
    unsettled: bool,
}

/// A transaction on a tenant's database; it dereferences to deadpool-postgres' transaction with its statement
/// cache.
///
/// End it with [`commit`](Self::commit) or [`rollback`](Self::rollback). If it is dropped without either, a
/// background task rolls it back, which costs the pool a few round trips and sometimes the connection.
///
/// After a failed statement, PostgreSQL answers a commit by rolling back without an error: return the
/// statement's error and do not commit. Use `SET LOCAL` for settings: a plain `SET` outlives a committed
/// transaction. A statement that was prepared before a schema change fails once, and with it the transaction
/// ([`TenantClient::statements_outdated`]); [`TenantClient::read`] and [`TenantClient::write`] repeat such
/// work. Do not keep a cancel token of the driver after giving the connection back: it would cancel the next
/// caller's statement.
pub struct TenantTransaction<'a> {
    transaction: Transaction<'a>,
    unsettled: &'a mut bool,
}

/// Runs a single statement outside a transaction, and repeats it with a freshly prepared statement if that
/// was outdated. A macro, because a future that awaits an async closure is not `Send` for every lifetime, and
/// callers spawn these futures.
macro_rules! alone {
    ($self:ident, $sql:ident, |$client:ident, $statement:ident| $run:expr) => {{
        let mut attempt = 1;
        loop {
            let $client = $self.begin_alone();
            let outcome = match $client.prepare_cached($sql).await {
                Ok(prepared) => {
                    let $statement = &prepared;
                    $run.await
                }
                Err(error) => Err(error),
            };
            if !$self.end_alone(&outcome) || attempt == ATTEMPTS_MAX {
                return outcome;
            }
            attempt += 1;
        }
    }};
}

impl TenantClient {
    pub(crate) fn new(checked_out: CheckedOut) -> Self {
        Self {
            checked_out: Some(checked_out),
            unsettled: false,
        }
    }

    /// Whose database this is.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.snapshot().tenant
    }

    /// The tenant as it was when the connection was checked out.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.checked_out().entry().snapshot
    }

    /// Runs one statement and returns its rows. The statement is prepared once per connection. It needs no
    /// explicit transaction.
    ///
    /// # Errors
    /// The driver's error.
    pub async fn query(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        alone!(self, sql, |client, statement| client.query(statement, params))
    }

    /// As [`Self::query`], for a statement that returns exactly one row.
    ///
    /// # Errors
    /// The driver's error, also if the statement returns no row or several rows.
    pub async fn query_one(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, tokio_postgres::Error> {
        alone!(self, sql, |client, statement| client.query_one(statement, params))
    }

    /// As [`Self::query`], for a statement that returns no rows. Returns how many rows it changed.
    ///
    /// # Errors
    /// The driver's error.
    pub async fn execute(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, tokio_postgres::Error> {
        alone!(self, sql, |client, statement| client.execute(statement, params))
    }

    /// Begins a transaction that may write.
    ///
    /// # Errors
    /// [`ResolveError::ServerUnavailable`] if the connection is broken.
    pub async fn transaction(&mut self) -> Result<TenantTransaction<'_>, ResolveError> {
        self.begin(false).await
    }

    /// Begins a transaction in which the server refuses every write.
    ///
    /// # Errors
    /// [`ResolveError::ServerUnavailable`] if the connection is broken.
    pub async fn read_only_transaction(&mut self) -> Result<TenantTransaction<'_>, ResolveError> {
        self.begin(true).await
    }

    /// Makes a round trip to the server and returns how long it took.
    ///
    /// # Errors
    /// [`ResolveError::ServerUnavailable`] if the connection is broken.
    pub async fn ping(&mut self) -> Result<Duration, ResolveError> {
        let asked = Instant::now();
        let snapshot = Arc::clone(self.snapshot());
        let transaction = self.read_only_transaction().await?;
        transaction
            .rollback()
            .await
            .map_err(|error| broken(&snapshot, &error))?;
        Ok(asked.elapsed())
    }

    /// Runs `work` in a transaction in which the server refuses every write. If `work` fails because a
    /// statement had been prepared before a schema change, this repeats it from its beginning, so that
    /// callers do not notice such a change.
    ///
    /// The compiler cannot always prove that this future is `Send`. Where it must be, loop over
    /// [`Self::read_only_transaction`] while [`Self::statements_outdated`].
    ///
    /// # Errors
    /// The error of `work`; [`ResolveError::ServerUnavailable`] if the connection is broken.
    pub async fn read<T, E: From<ResolveError>>(
        &mut self,
        work: impl AsyncFn(&TenantTransaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut attempt = 1;
        loop {
            let transaction = self.read_only_transaction().await?;
            let outcome = work(&transaction).await;
            // The outcome is known either way, and a connection whose rollback fails is not used again.
            let _settled = transaction.rollback().await;
            if outcome.is_ok() || attempt == ATTEMPTS_MAX || !self.statements_outdated() {
                return outcome;
            }
            attempt += 1;
        }
    }

    /// As [`Self::read`], for work that cannot be repeated, for example because a client has read part of its
    /// output. If a statement had been prepared before a schema change, only `first` is repeated. Statements
    /// that `work` prepares in this transaction cannot be outdated.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_once<T, E: From<ResolveError>>(
        &mut self,
        first: impl AsyncFn(&TenantTransaction<'_>) -> Result<(), E>,
        work: impl AsyncFnOnce(&TenantTransaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut attempt = 1;
        loop {
            let transaction = self.read_only_transaction().await?;
            let outcome = match first(&transaction).await {
                Ok(()) => {
                    let outcome = work(&transaction).await;
                    let _settled = transaction.rollback().await;
                    return outcome;
                }
                Err(error) => error,
            };
            let _settled = transaction.rollback().await;
            if attempt == ATTEMPTS_MAX || !self.statements_outdated() {
                return Err(outcome);
            }
            attempt += 1;
        }
    }

    /// Runs `work` in a transaction and commits it, or rolls it back if `work` fails. If `work` fails because
    /// a statement had been prepared before a schema change, this repeats it from its beginning; the failed
    /// attempt left no changes.
    ///
    /// # Errors
    /// The error of `work`, or of [`TenantTransaction::commit`]; [`ResolveError::ServerUnavailable`] if the
    /// connection is broken.
    pub async fn write<T, E: From<ResolveError> + From<tokio_postgres::Error>>(
        &mut self,
        work: impl AsyncFn(&TenantTransaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut attempt = 1;
        loop {
            let transaction = self.transaction().await?;
            let error = match work(&transaction).await {
                Ok(done) => {
                    transaction.commit().await?;
                    return Ok(done);
                }
                Err(error) => error,
            };
            let _settled = transaction.rollback().await;
            if attempt == ATTEMPTS_MAX || !self.statements_outdated() {
                return Err(error);
            }
            attempt += 1;
        }
    }

    /// Whether, since the latest transaction or single statement began, a statement has failed with an error
    /// that statements raise which were prepared before a schema change ("cached plan must not change result
    /// type"). The next transaction or statement prepares its statements again, so the caller may repeat the
    /// failed work on this connection.
    #[must_use]
    pub fn statements_outdated(&self) -> bool {
        self.checked_out().connection().wire_state.is_outdated()
    }

    async fn begin(&mut self, read_only: bool) -> Result<TenantTransaction<'_>, ResolveError> {
        let Self {
            checked_out,
            unsettled,
        } = self;
        let checked_out = checked_out.as_mut().expect(LENT);
        let snapshot = Arc::clone(&checked_out.entry().snapshot);
        // Before the first byte: from here on the connection is cleaned, whatever happens to this future.
        *unsettled = true;
        let connection = checked_out.connection_mut();
        connection.forget_outdated_statements();
        let transaction = connection.build_transaction();
        // Not `read_only(false)`: it would override a server's own `default_transaction_read_only`, with
        // which providers keep a full disk from filling further.
        let transaction = if read_only {
            transaction.read_only(true)
        } else {
            transaction
        };
        match transaction.start().await {
            Ok(transaction) => Ok(TenantTransaction {
                transaction,
                unsettled,
            }),
            Err(error) => Err(broken(&snapshot, &error)),
        }
    }

    /// The connection, for a single statement outside a transaction.
    fn begin_alone(&mut self) -> &deadpool_postgres::ClientWrapper {
        self.unsettled = true;
        let connection = self.checked_out().connection();
        connection.forget_outdated_statements();
        connection
    }

    /// Notes the outcome of a single statement. `true`: it failed because it was outdated, it left no
    /// changes, and it may succeed when it is prepared again.
    fn end_alone<T>(&mut self, outcome: &Result<T, tokio_postgres::Error>) -> bool {
        self.unsettled = !is_settled(outcome);
        outcome.as_ref().err().is_some_and(undone) && self.statements_outdated()
    }

    fn checked_out(&self) -> &CheckedOut {
        self.checked_out.as_ref().expect(LENT)
    }
}

const LENT: &str = "the connection is there until the client is dropped";

/// How often work is attempted whose statements turn out to be outdated, because the schema may change once
/// more meanwhile.
const ATTEMPTS_MAX: u32 = 3;

/// Whether a single failed statement left no changes. An error inside a function has a context, and a
/// procedure may have committed before it failed.
fn undone(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| db.where_().is_none())
}

fn broken(snapshot: &Snapshot, error: &tokio_postgres::Error) -> ResolveError {
    ResolveError::ServerUnavailable {
        tenant: snapshot.tenant,
        server: snapshot.server.clone(),
        reason: pg::describe(error),
    }
}

impl TenantTransaction<'_> {
    /// Commits the changes.
    ///
    /// # Errors
    /// The driver's error. After a deferred constraint or a serialization failure, the changes are rolled
    /// back. After a broken connection, it is unknown whether they were committed.
    pub async fn commit(self) -> Result<(), tokio_postgres::Error> {
        let Self {
            transaction,
            unsettled,
        } = self;
        let ended = transaction.commit().await;
        *unsettled = !is_settled(&ended);
        ended
    }

    /// Rolls the changes back.
    ///
    /// # Errors
    /// The driver's error if the connection broke. The server then rolls back by itself.
    pub async fn rollback(self) -> Result<(), tokio_postgres::Error> {
        let Self {
            transaction,
            unsettled,
        } = self;
        let ended = transaction.rollback().await;
        *unsettled = !is_settled(&ended);
        ended
    }
}

/// Whether the server has finished the statement: with success, or with an error after which the session goes
/// on.
fn is_settled<T>(ended: &Result<T, tokio_postgres::Error>) -> bool {
    match ended {
        Ok(_) => true,
        Err(error) => error
            .as_db_error()
            .is_some_and(|db| db.parsed_severity() == Some(Severity::Error)),
    }
}

impl<'a> Deref for TenantTransaction<'a> {
    type Target = Transaction<'a>;

    fn deref(&self) -> &Transaction<'a> {
        &self.transaction
    }
}

impl DerefMut for TenantTransaction<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.transaction
    }
}

impl Drop for TenantClient {
    fn drop(&mut self) {
        if let Some(checked_out) = self.checked_out.take() {
            checked_out.end(!self.unsettled);
        }
    }
}

impl fmt::Debug for TenantClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantClient")
            .field("tenant", &self.tenant())
            .field("unsettled", &self.unsettled)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TenantTransaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantTransaction").finish_non_exhaustive()
    }
}
