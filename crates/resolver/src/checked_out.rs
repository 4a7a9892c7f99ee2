//! A checked-out connection, and what happens when it is given back: it returns to its pool with a clean
//! session, or it ends.

use std::time::Duration;

use deadpool::unmanaged::Object;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use crate::{
    connection::Connection,
    pool::TenantPool,
    pools::{Entry, PoolGuard},
};

/// How long an unsettled connection may take to answer before its statement is cancelled: a few round trips.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(5);

/// What `DISCARD ALL` does, except that it keeps prepared statements, which belong to the resolver's cache.
/// `ROLLBACK` goes first, because in a failed transaction the server accepts nothing else.
const CLEAN: &str = "ROLLBACK; CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
                     SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// A checked-out connection. When it is dropped, it returns to its pool as it is.
pub(crate) struct CheckedOut {
    // In this order: the connection returns before the caller leaves the pool.
    connection: Option<Object<Box<Connection>>>,
    guard: PoolGuard,
}

impl CheckedOut {
    pub(crate) fn new(guard: PoolGuard, connection: Object<Box<Connection>>) -> Self {
        Self {
            connection: Some(connection),
            guard,
        }
    }

    pub(crate) fn entry(&self) -> &Entry {
        self.guard.entry()
    }

    pub(crate) fn connection(&self) -> &Connection {
        self.connection
            .as_ref()
            .expect("it is there until it is given back")
    }

    pub(crate) fn connection_mut(&mut self) -> &mut Connection {
        self.connection
            .as_mut()
            .expect("it is there until it is given back")
    }

    /// Gives the connection back. `settled`: the server has answered every statement.
    pub(crate) fn end(self, settled: bool) {
        if settled && self.connection().wire_state.is_clean() {
            return;
        }
        let runtime = self.pool().runtime().clone();
        // If the runtime is shutting down, the task never begins, and the connection ends with it.
        drop(runtime.spawn(restore(Unclean(Some(self)))));
    }

    fn pool(&self) -> &std::sync::Arc<TenantPool> {
        &self.entry().pool
    }

    fn discard(mut self) {
        self.pool().discarded();
        drop(self.connection.take().map(Object::take));
    }
}

impl Drop for CheckedOut {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool().give_back(connection);
        }
    }
}

/// A checked-out connection that must not return to its pool as it is.
struct Unclean(Option<CheckedOut>);

impl Drop for Unclean {
    fn drop(&mut self) {
        if let Some(checked_out) = self.0.take() {
            checked_out.discard();
        }
    }
}

/// Cleans the session, or ends the connection. Meanwhile the connection counts against the tenant's bound.
async fn restore(mut unclean: Unclean) {
    let Some(checked_out) = &unclean.0 else { return };
    if !settle(checked_out).await || checked_out.connection().wire_state.is_unrecoverable() {
        return;
    }
    let connection = checked_out.connection();
    if !connection.wire_state.is_clean() {
        let cleaned = timeout(
            checked_out.pool().limits().connect_timeout,
            connection.batch_execute(CLEAN),
        )
        .await;
        if !matches!(cleaned, Ok(Ok(()))) {
            return;
        }
        connection.wire_state.cleaned();
    }
    drop(unclean.0.take());
}

/// Waits until the server has answered everything, and cancels a statement that takes longer than a moment.
async fn settle(checked_out: &CheckedOut) -> bool {
    let connection = checked_out.connection();
    // The driver queued a rollback when the transaction was dropped. The server answers this empty query
    // after it.
    let quiet = connection.batch_execute("");
    tokio::pin!(quiet);
    if let Ok(answer) = timeout(SETTLE_TIMEOUT, &mut quiet).await {
        return answer.is_ok();
    }
    let limit = checked_out.pool().limits().connect_timeout;
    let ended = async {
        cancel(checked_out.pool(), connection).await;
        quiet.await
    };
    match timeout(limit, ended).await {
        Ok(answer) => answer.is_ok(),
        Err(_elapsed) => {
            tracing::warn!(
                tenant.slug = %checked_out.pool().snapshot().slug,
                server = %checked_out.pool().server().name,
                waited_ms = limit.as_millis(),
                "a cancelled statement did not end; the router closes its connection"
            );
            let server = checked_out.pool().server();
            server.note_failure("a statement did not end after its cancellation");
            server.arbiter.unanswered();
            false
        }
    }
}

/// Cancels the statement under way. The server closes the connection of a cancel request only after it has
/// sent the signal, so this reads that connection to its end: a late signal would hit the statement of the
/// next caller.
async fn cancel(pool: &TenantPool, client: &Client) {
    let Ok(target) = pool.target() else { return };
    let Ok(socket) = pg::dial(&target).await else {
        return;
    };
    let (lent, returned) = pg::BorrowedSocket::new(socket);
    let _cancelled = client.cancel_token().cancel_query_raw(lent, NoTls).await;
    if let Ok(mut socket) = returned.await {
        pg::read_to_end(&mut socket).await;
    }
}
