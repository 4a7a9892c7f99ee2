//! What a caller gets: one connection to one tenant's database.
//!
//! Invariant: the next borrower never sees and never waits for what an earlier one left behind. Statements run inside
//! a [`TenantTransaction`] only. From the moment one begins until its commit or rollback has been *answered*, the connection counts
//! as unsettled. Given back unsettled (the request was cancelled, the borrower panicked, an error returned past the rollback)
//! it is settled off the caller's path: most often the queued rollback is answered at once and the connection goes on; else
//! its statement is cancelled and the connection closed. Its place in the pool stays taken until then, so the cap holds.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use deadpool_postgres::Transaction;
use model::TenantId;
use tokio::{runtime::Handle, time::Instant, time::timeout};
use tokio_postgres::{NoTls, error::Severity};

use crate::{ResolveError, Snapshot, pool::Loan};

/// How long an unsettled connection may take to answer before its statement is cancelled: a few round trips.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(5);

/// A connection to one tenant's database, on loan. It goes back to its pool when it is dropped.
///
/// It does not dereference to the driver's client: what runs outside a transaction could leave a setting or an open
/// transaction to the next borrower.
pub struct TenantClient {
    snapshot: Arc<Snapshot>,
    loan: Option<Loan>,
    unsettled: bool,
}

/// A transaction on a tenant's database; it dereferences to deadpool-postgres' transaction with its statement cache.
///
/// End it with [`commit`](Self::commit) or [`rollback`](Self::rollback). Dropped without either it is rolled back all the same,
/// off the caller's path, which costs the pool a few round trips and sometimes the connection.
///
/// After a statement has failed, PostgreSQL answers a commit by rolling back without an error: hand the statement's error on
/// and do not commit. Settings must be `SET LOCAL`: a plain `SET` outlives a committed transaction.
pub struct TenantTransaction<'a> {
    transaction: Transaction<'a>,
    unsettled: &'a mut bool,
}

impl TenantClient {
    pub(crate) fn new(snapshot: Arc<Snapshot>, loan: Loan) -> Self {
        Self {
            snapshot,
            loan: Some(loan),
            unsettled: false,
        }
    }

    /// Whose database this is.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.snapshot.tenant
    }

    /// The tenant as it was when the connection was lent.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Begins a transaction that may write.
    ///
    /// # Errors
    /// [`ResolveError::ServerUnavailable`] when the connection turns out to be broken.
    pub async fn transaction(&mut self) -> Result<TenantTransaction<'_>, ResolveError> {
        self.begin(false).await
    }

    /// Begins a transaction in which the server refuses every write.
    ///
    /// # Errors
    /// [`ResolveError::ServerUnavailable`] when the connection turns out to be broken.
    pub async fn read_only_transaction(&mut self) -> Result<TenantTransaction<'_>, ResolveError> {
        self.begin(true).await
    }

    /// Asks the server for an empty answer and says how long it took.
    ///
    /// # Errors
    /// [`ResolveError::ServerUnavailable`] when the connection turns out to be broken.
    pub async fn ping(&mut self) -> Result<Duration, ResolveError> {
        let asked = Instant::now();
        let snapshot = Arc::clone(&self.snapshot);
        let transaction = self.read_only_transaction().await?;
        transaction
            .rollback()
            .await
            .map_err(|error| broken(&snapshot, &error))?;
        Ok(asked.elapsed())
    }

    async fn begin(&mut self, read_only: bool) -> Result<TenantTransaction<'_>, ResolveError> {
        let snapshot = Arc::clone(&self.snapshot);
        let Self { loan, unsettled, .. } = self;
        let loan = loan
            .as_mut()
            .expect("the connection is there until the client is dropped");
        // Before the first byte: whatever happens to this future from here on, the connection is looked after.
        *unsettled = true;
        let begun = loan
            .connection
            .build_transaction()
            .read_only(read_only)
            .start()
            .await;
        match begun {
            Ok(transaction) => Ok(TenantTransaction {
                transaction,
                unsettled,
            }),
            Err(error) => Err(broken(&snapshot, &error)),
        }
    }
}

fn broken(snapshot: &Snapshot, error: &tokio_postgres::Error) -> ResolveError {
    ResolveError::ServerUnavailable {
        tenant: snapshot.tenant,
        server: snapshot.server.clone(),
        reason: pg::describe(error),
    }
}

impl TenantTransaction<'_> {
    /// Makes the changes last.
    ///
    /// # Errors
    /// The driver's error: a deferred constraint or a serialization failure, then nothing was kept; or the connection
    /// broke, then it is not known whether the changes were kept.
    pub async fn commit(self) -> Result<(), tokio_postgres::Error> {
        let Self {
            transaction,
            unsettled,
        } = self;
        let ended = transaction.commit().await;
        *unsettled = !is_settled(&ended);
        ended
    }

    /// Undoes the changes.
    ///
    /// # Errors
    /// The driver's error when the connection broke; the server then rolls back by itself.
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

/// Whether the server has ended the transaction: it said so, or it said what was wrong and still listens.
fn is_settled(ended: &Result<(), tokio_postgres::Error>) -> bool {
    match ended {
        Ok(()) => true,
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
        let Some(loan) = self.loan.take() else { return };
        if !self.unsettled {
            return;
        }
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(settle(Unsettled(Some(loan))))),
            Err(_no_runtime) => loan.discard(),
        }
    }
}

/// A loan that must not go back as it is.
struct Unsettled(Option<Loan>);

impl Drop for Unsettled {
    fn drop(&mut self) {
        if let Some(loan) = self.0.take() {
            loan.discard();
        }
    }
}

async fn settle(mut unsettled: Unsettled) {
    let Some(loan) = &unsettled.0 else { return };
    // The driver queued a rollback when the transaction was dropped. An empty query is answered after it.
    let answered = timeout(SETTLE_TIMEOUT, loan.connection.batch_execute("")).await;
    if matches!(answered, Ok(Ok(()))) {
        drop(unsettled.0.take());
        return;
    }
    // A cancel request can arrive late and hit a later statement, so a connection that was sent one is never lent again.
    let cancel = loan.connection.cancel_token();
    let ended = async {
        cancel.cancel_query(NoTls).await?;
        loan.connection.batch_execute("").await
    };
    let limit = loan.pool().connect_timeout();
    if timeout(limit, ended).await.is_err() {
        tracing::warn!(
            tenant.slug = %loan.pool().slug(),
            server = %loan.pool().server(),
            waited_ms = limit.as_millis(),
            "a cancelled statement did not end; its connection is closed"
        );
    }
}

impl fmt::Debug for TenantClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantClient")
            .field("tenant", &self.snapshot.tenant)
            .field("unsettled", &self.unsettled)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TenantTransaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantTransaction").finish_non_exhaustive()
    }
}
