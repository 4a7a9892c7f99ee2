//! One tenant's pool, and who is in it.
//!
//! deadpool cannot say exactly whether anybody holds or waits for a connection. A [`Visit`] does: it begins under the
//! lock of the set of pools and ends when the connection is back, so a pool without visits can be closed in peace.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use deadpool::{
    Runtime,
    managed::{self, Object, PoolError, QueueMode, Timeouts},
};
use model::{ServerName, Slug, TenantId};
use pg::ConnectTarget;
use tokio::{sync::Notify, time::Instant};
use tokio_postgres::error::SqlState;

use crate::{
    PoolStatus, ResolveError, Snapshot,
    connect::{ConnectFailure, Connector},
    stats::Counters,
};

pub(crate) type Pooled = Object<Connector>;

pub(crate) struct TenantPool {
    tenant: TenantId,
    slug: Slug,
    server: ServerName,
    connections: managed::Pool<Connector>,
    size_max: usize,
    connect_timeout: Duration,
    /// Callers that hold or wait for a connection. Raised under the lock of the set only.
    visitors: AtomicUsize,
    /// Connections on loan.
    lent: AtomicUsize,
    room: Arc<Room>,
    counters: Arc<Counters>,
}

/// Where callers wait for room for another pool.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub(crate) waiting: AtomicUsize,
    pub(crate) freed: Notify,
}

/// A caller's presence in a pool.
pub(crate) struct Visit(Arc<TenantPool>);

/// A connection on loan.
pub(crate) struct Loan {
    // In this order: the connection goes back before the visit ends.
    pub(crate) connection: Pooled,
    lent: Lent,
}

struct Lent(Visit);

/// Why a visit ended without a connection.
#[derive(Debug)]
pub(crate) enum NoLoan {
    /// The pool was closed meanwhile; ask for the tenant again.
    Closed,
    /// For the caller.
    Error(ResolveError),
}

impl TenantPool {
    pub(crate) fn new(
        snapshot: &Snapshot,
        target: &ConnectTarget,
        connector: Connector,
        size_max: usize,
        connect_timeout: Duration,
        room: Arc<Room>,
        counters: Arc<Counters>,
    ) -> Self {
        tracing::debug!(tenant.slug = %snapshot.slug, %target, "opening a pool");
        let connections = managed::Pool::builder(connector)
            .max_size(size_max)
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .build()
            .expect("deadpool refuses only timeouts without a runtime");
        Self {
            tenant: snapshot.tenant,
            slug: snapshot.slug.clone(),
            server: snapshot.server.clone(),
            connections,
            size_max,
            connect_timeout,
            visitors: AtomicUsize::new(0),
            lent: AtomicUsize::new(0),
            room,
            counters,
        }
    }

    /// Begins a visit. To be called under the lock of the set of pools.
    pub(crate) fn visit(self: &Arc<Self>, waiting_max: usize) -> Result<Visit, ResolveError> {
        let visitors = self.visitors.fetch_add(1, SeqCst);
        let visit = Visit(Arc::clone(self));
        let waiting = visitors.saturating_sub(self.size_max);
        if waiting >= waiting_max {
            return Err(ResolveError::QueueFull {
                tenant: self.tenant,
                waiting,
                max: waiting_max,
            });
        }
        Ok(visit)
    }

    /// Whether nobody holds or waits for a connection. To be called under the lock of the set of pools.
    pub(crate) fn is_unused(&self) -> bool {
        self.visitors.load(SeqCst) == 0
    }

    /// Ends the idle connections now and those on loan when they come back; no connect begins after this.
    pub(crate) fn close(&self) {
        self.connections.manager().retire();
        self.connections.close();
    }

    /// Ends the connections that have been idle for `limit`.
    pub(crate) fn close_idle(&self, limit: Duration) {
        drop(self.connections.retain(|_, metrics| metrics.last_used() < limit));
    }

    pub(crate) fn slug(&self) -> &Slug {
        &self.slug
    }

    pub(crate) fn server(&self) -> &ServerName {
        &self.server
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(crate) fn status(&self) -> PoolStatus {
        let size = self.connections.status().size;
        let in_use = self.lent.load(Relaxed);
        PoolStatus {
            size,
            in_use,
            idle: size.saturating_sub(in_use),
            waiting: self.visitors.load(Relaxed).saturating_sub(in_use),
            max: self.size_max,
        }
    }

    fn no_loan(&self, error: PoolError<ConnectFailure>, waited: Duration) -> NoLoan {
        let (tenant, server) = (self.tenant, self.server.clone());
        let unavailable = |server, reason| {
            NoLoan::Error(ResolveError::ServerUnavailable {
                tenant,
                server,
                reason,
            })
        };
        match error {
            PoolError::Closed | PoolError::Backend(ConnectFailure::Retired) => NoLoan::Closed,
            PoolError::Timeout(_) => {
                self.counters.checkout_timeouts.fetch_add(1, Relaxed);
                NoLoan::Error(ResolveError::PoolTimeout {
                    tenant,
                    max: self.size_max,
                    waited,
                })
            }
            PoolError::Backend(ConnectFailure::TimedOut) => {
                let limit_ms = self.connect_timeout.as_millis();
                unavailable(server, format!("no answer within {limit_ms} ms"))
            }
            PoolError::Backend(ConnectFailure::Refused(error)) => {
                let reason = pg::describe(&error);
                if error.code().is_some_and(refuses_log_in) {
                    NoLoan::Error(ResolveError::LoginRefused {
                        tenant,
                        server,
                        reason,
                    })
                } else {
                    unavailable(server, reason)
                }
            }
            // Neither is used here; both are named so that a new kind of failure does not pass unseen.
            PoolError::NoRuntimeSpecified => unavailable(server, "the pool has no runtime".to_owned()),
            PoolError::PostCreateHook(_) => unavailable(server, "a hook refused the connection".to_owned()),
        }
    }
}

/// The server is there and this log-in, database or privilege is not.
fn refuses_log_in(code: &SqlState) -> bool {
    [
        &SqlState::INVALID_PASSWORD,
        &SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        &SqlState::INVALID_CATALOG_NAME,
        &SqlState::INSUFFICIENT_PRIVILEGE,
        &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
    ]
    .contains(&code)
}

impl Visit {
    /// Waits until `deadline` at most for a connection; a connect comes on top, with its own limit.
    pub(crate) async fn borrow(self, started: Instant, deadline: Instant) -> Result<Loan, NoLoan> {
        let timeouts = Timeouts {
            wait: Some(deadline.saturating_duration_since(Instant::now())),
            create: None,
            recycle: None,
        };
        match self.0.connections.timeout_get(&timeouts).await {
            Ok(connection) => {
                self.0.lent.fetch_add(1, Relaxed);
                Ok(Loan {
                    connection,
                    lent: Lent(self),
                })
            }
            Err(error) => Err(self.0.no_loan(error, started.elapsed())),
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let pool = &self.0;
        // Sequentially consistent on both sides: whoever waits for room either sees no visitor or is seen waiting.
        if pool.visitors.fetch_sub(1, SeqCst) == 1 && pool.room.waiting.load(SeqCst) > 0 {
            pool.room.freed.notify_waiters();
        }
    }
}

impl Loan {
    pub(crate) fn pool(&self) -> &TenantPool {
        &self.lent.0.0
    }

    /// Takes the connection out of its pool for good.
    pub(crate) fn discard(self) {
        self.pool().counters.discarded.fetch_add(1, Relaxed);
        let Self { connection, lent } = self;
        drop(Object::take(connection));
        drop(lent);
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.0.lent.fetch_sub(1, Relaxed);
    }
}
