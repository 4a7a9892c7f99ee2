//! One tenant's pool: deadpool's unmanaged pool, which the arbiter fills.
//!
//! Why not deadpool's managed pool: it connects in the caller's future, so a caller that gives up ends the
//! connect, and a caller that waits for a slot does not see the connection that is given back meanwhile. Here
//! callers only wait for a connection of their tenant, first come, first served, and the arbiter decides when
//! the tenant gets another connection.
//!
//! Two counters say who uses the pool. `users` counts callers that use or wait for a connection: a pool
//! without any can be closed safely. `waiting` counts those that wait: the arbiter reads it.
//!
//! [`explain`] builds the errors of callers that get no connection.

mod explain;
mod handle;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use arbiter::{PoolHandle as _, Timestamp};
use deadpool::unmanaged::{self, Object};
use identity::{SealContext, Sealer};
use pg::ConnectTarget;
use registry::Budgets;
use tokio::{
    runtime::Handle,
    sync::{Notify, OwnedSemaphorePermit},
    time::{Instant, timeout_at},
};

use crate::{
    PoolStatus, ResolveError, Snapshot, TenantPoolStats,
    clock::{AtomicTimestamp, Clock, micros},
    connection::{ConnectFailure, ConnectLimits, Connection},
    connection_counter::{ConnectionCounter, CountedConnection},
    server::Server,
    stats::Counters,
};

/// Set in `users` when the pool is closed, so that no caller can enter it any more.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// What all pools share.
pub(crate) struct Common {
    pub(crate) limits: ConnectLimits,
    pub(crate) pool_size_max: usize,
    pub(crate) waiting_max: usize,
    pub(crate) clock: Clock,
    pub(crate) sealer: Sealer,
    pub(crate) connection_counter: Arc<ConnectionCounter>,
    pub(crate) counters: Arc<Counters>,
    /// The budgets of all registered routers, as of the latest renewal of this process's registration.
    pub(crate) budgets: Mutex<Budgets>,
    /// Where connections are made and driven, unless they are driven on their callers' runtimes.
    pub(crate) runtime: Handle,
    pub(crate) drive_on_callers: bool,
    /// Room for pools; see [`crate::pools`].
    pub(crate) room_wanted: AtomicUsize,
    pub(crate) unused: Notify,
}

pub(crate) struct TenantPool {
    snapshot: Arc<Snapshot>,
    server: Arc<Server>,
    common: Arc<Common>,
    connections: unmanaged::Pool<Box<Connection>>,
    users: AtomicUsize,
    waiting: AtomicUsize,
    waiting_since: AtomicTimestamp,
    last_used: AtomicTimestamp,
    last_answered: AtomicTimestamp,
    tenure_ends: AtomicTimestamp,
    uses: AtomicU64,
    counters: PoolCounters,
    /// The number of final connect failures, and the latest of them.
    failures: Mutex<(u64, Option<ConnectFailure>)>,
    changed: Notify,
    /// The runtime of the caller that waited last, if connections are driven on callers' runtimes.
    caller_runtime: Mutex<Option<Handle>>,
    /// The permit of one of at most `pools_max` pools.
    room: Mutex<Option<OwnedSemaphorePermit>>,
}

#[derive(Debug, Default)]
struct PoolCounters {
    waits: AtomicU64,
    waited_us: AtomicU64,
    connects: AtomicU64,
    evictions: AtomicU64,
    errors: AtomicU64,
}

/// Why a caller got no connection from the pool.
#[derive(Debug)]
pub(crate) enum CheckoutFailure {
    /// The pool was closed meanwhile; the caller must ask for the tenant again.
    Closed,
    /// The error for the caller.
    Error(ResolveError),
}

impl TenantPool {
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        server: Arc<Server>,
        common: Arc<Common>,
        room: OwnedSemaphorePermit,
    ) -> Self {
        tracing::debug!(tenant.slug = %snapshot.slug, database = %snapshot.database(), "opening a pool");
        // Twice the bound that the arbiter enforces: connections that broke while they were checked out
        // occupy room until they are given back.
        let connections = unmanaged::Pool::new(common.pool_size_max * 2);
        Self {
            snapshot,
            server,
            connections,
            users: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            waiting_since: AtomicTimestamp::new(Timestamp::ZERO),
            last_used: AtomicTimestamp::new(common.clock.now()),
            last_answered: AtomicTimestamp::new(Timestamp::ZERO),
            tenure_ends: AtomicTimestamp::new(Timestamp::ZERO),
            uses: AtomicU64::new(0),
            counters: PoolCounters::default(),
            failures: Mutex::default(),
            changed: Notify::new(),
            caller_runtime: Mutex::default(),
            room: Mutex::new(Some(room)),
            common,
        }
    }

    /// Enters the pool. False: the pool is closed.
    pub(crate) fn enter(&self) -> bool {
        let open = self.users.fetch_add(1, SeqCst) & CLOSED == 0;
        if !open {
            self.users.fetch_sub(1, SeqCst);
        }
        open
    }

    /// Leaves the pool.
    pub(crate) fn exit(&self) {
        // Sequentially consistent on both sides: a caller that waits for room either finds no user here or is
        // seen waiting.
        if self.users.fetch_sub(1, SeqCst) == 1 && self.common.room_wanted.load(SeqCst) > 0 {
            self.common.unused.notify_one();
        }
    }

    /// Takes an idle connection, without waiting.
    pub(crate) fn try_take(self: &Arc<Self>, now: Timestamp) -> Option<Object<Box<Connection>>> {
        loop {
            let connection = self.connections.try_get().ok()?;
            if connection.is_fit(now) {
                self.used(now);
                return Some(connection);
            }
            drop(Object::take(connection));
        }
    }

    /// Waits for a connection until `deadline`.
    pub(crate) async fn wait(
        self: &Arc<Self>,
        started: Instant,
        deadline: Instant,
    ) -> Result<Object<Box<Connection>>, CheckoutFailure> {
        let seen = self.lock_failures().0;
        if self.common.drive_on_callers {
            *self.lock_caller_runtime() = Some(Handle::current());
        }
        let _in_queue = self.enqueue()?;
        let asked = self.common.clock.now();
        let outcome = timeout_at(deadline, self.wait_in_queue(seen)).await;
        let waited = self.common.clock.now().since(asked);
        self.counters.waits.fetch_add(1, Relaxed);
        self.counters.waited_us.fetch_add(micros(waited), Relaxed);
        self.common.counters.note_wait(waited);
        outcome.unwrap_or_else(|_elapsed| Err(CheckoutFailure::Error(self.timed_out(started))))
    }

    async fn wait_in_queue(self: &Arc<Self>, seen: u64) -> Result<Object<Box<Connection>>, CheckoutFailure> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Subscribes before checking anything, so that it misses no notification in between.
            changed.as_mut().enable();
            if self.is_closed() {
                return Err(CheckoutFailure::Closed);
            }
            if let (number, Some(failure)) = &*self.lock_failures()
                && *number > seen
            {
                return Err(CheckoutFailure::Error(self.explain(failure.clone())));
            }
            if let Err(refusal) = self.server.arbiter.request_slot(self)
                && !self.expects_return()
            {
                return Err(CheckoutFailure::Error(self.server_down(refusal)));
            }
            tokio::select! {
                biased;
                taken = self.connections.timeout_get(None) => {
                    let connection = taken.map_err(|_closed| CheckoutFailure::Closed)?;
                    // Its age was checked when it was given back. A new one is good, whatever its age limit
                    // is.
                    if !connection.is_closed() {
                        self.used(self.common.clock.now());
                        return Ok(connection);
                    }
                    drop(Object::take(connection));
                }
                () = changed => {}
            }
        }
    }

    /// Whether a connection of the tenant may be given back although the server accepts no new ones.
    fn expects_return(&self) -> bool {
        self.connections.status().size > 0 && !self.server.arbiter.is_silent()
    }

    /// Adds a connection that the arbiter granted.
    pub(crate) fn add(self: &Arc<Self>, connection: Box<Connection>) {
        self.counters.connects.fetch_add(1, Relaxed);
        self.tenure_ends.advance(connection.tenure_ends);
        self.put(connection);
        if self.waiting_since().is_some() {
            let _refused_callers_hear_it_themselves = self.server.arbiter.request_slot(self);
        }
    }

    /// Takes back a connection whose session is clean.
    pub(crate) fn give_back(&self, mut connection: Object<Box<Connection>>) {
        let now = self.common.clock.now();
        let arbiter = &self.server.arbiter;
        if connection.has_answered() {
            self.last_answered.set(now);
            if arbiter.is_silent() {
                arbiter.answered();
            }
        }
        if self.is_closed()
            || !connection.is_fit(now)
            || arbiter.should_yield(&connection.guard, self.snapshot.tenant, connection.tenure_ends)
        {
            drop(Object::take(connection));
            return;
        }
        connection.trim_statements(self.common.limits.statements_max);
        connection.idle_since = now;
        self.last_used.set(now);
        drop(connection);
        // If the pool was closed meanwhile, no other code removes this connection.
        if self.is_closed() {
            self.drop_idle();
        }
    }

    fn put(&self, connection: Box<Connection>) {
        // More than twice the bound cannot exist; if it did, the connection would end here.
        let _one_too_many = self.connections.try_add(connection);
        if self.is_closed() {
            self.drop_idle();
        }
    }

    /// Ends the connections that are idle, or alive, for too long.
    pub(crate) fn sweep(&self, now: Timestamp) {
        let mut fresh = Vec::new();
        while let Ok(connection) = self.connections.try_get() {
            if connection.is_stale(now) {
                drop(Object::take(connection));
            } else {
                fresh.push(connection);
            }
        }
        // The most recently used one was taken out first, and must be on top again.
        while let Some(connection) = fresh.pop() {
            drop(connection);
        }
    }

    /// Closes the pool if no caller uses it.
    pub(crate) fn close_if_unused(self: &Arc<Self>) -> bool {
        let unused = self.users.compare_exchange(0, CLOSED, SeqCst, SeqCst).is_ok();
        if unused {
            self.closed();
        }
        unused
    }

    /// Closes the pool: ends idle connections now, and checked-out connections when they are given back.
    pub(crate) fn close(self: &Arc<Self>) {
        if self.users.fetch_or(CLOSED, SeqCst) & CLOSED == 0 {
            self.closed();
        }
    }

    fn closed(self: &Arc<Self>) {
        drop(self.room.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.server.arbiter.remove_pool(self);
        self.drop_idle();
        self.changed.notify_waiters();
    }

    /// Not deadpool's own `close`: a `try_get` at the same moment would panic (0.13.1).
    fn drop_idle(&self) {
        while let Ok(connection) = self.connections.try_remove() {
            drop(connection);
        }
    }

    /// Reports a final connect failure to all callers that wait.
    pub(crate) fn report_failure(&self, failure: ConnectFailure) {
        self.errors_add();
        let mut failures = self.lock_failures();
        failures.0 += 1;
        failures.1 = Some(failure);
        drop(failures);
        self.changed.notify_waiters();
    }

    pub(crate) fn errors_add(&self) {
        self.counters.errors.fetch_add(1, Relaxed);
    }

    pub(crate) fn discarded(&self) {
        self.common.counters.discarded.fetch_add(1, Relaxed);
    }

    pub(crate) fn has_connections(&self) -> bool {
        self.connections.status().size > 0
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.users.load(SeqCst) & CLOSED != 0
    }

    pub(crate) fn count_connection(&self) -> CountedConnection {
        self.common
            .connection_counter
            .count_connection(self.snapshot.tenant)
    }

    pub(crate) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    pub(crate) fn budgets(&self) -> Budgets {
        *self.common.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn limits(&self) -> &ConnectLimits {
        &self.common.limits
    }

    pub(crate) fn clock(&self) -> Clock {
        self.common.clock
    }

    /// A runtime that runs as long as the resolver.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.common.runtime
    }

    /// The runtime on which to drive the next connection, unless it is the resolver's.
    pub(crate) fn caller_runtime(&self) -> Option<Handle> {
        self.lock_caller_runtime().clone()
    }

    /// A runtime of callers has ended. The next connection is driven on the resolver's runtime, unless a
    /// caller on another runtime has waited since.
    pub(crate) fn caller_runtime_ended(&self, runtime: &Handle) {
        let mut caller_runtime = self.lock_caller_runtime();
        if caller_runtime
            .as_ref()
            .is_some_and(|known| known.id() == runtime.id())
        {
            *caller_runtime = None;
        }
    }

    fn lock_caller_runtime(&self) -> std::sync::MutexGuard<'_, Option<Handle>> {
        self.caller_runtime.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The target of a connect. The password is decrypted here and stored nowhere.
    pub(crate) fn target(&self) -> Result<ConnectTarget, ResolveError> {
        let (tenant, parameters) = (self.snapshot.tenant, &self.snapshot.parameters);
        let Some(sealed) = &parameters.sealed_password else {
            return Err(ResolveError::Incomplete {
                tenant,
                missing: "its role has no password in the registry".to_owned(),
            });
        };
        let password = self.common.sealer.open(&SealContext::TenantRole(tenant), sealed);
        Ok(ConnectTarget {
            host: parameters.server.host.clone(),
            port: parameters.server.port,
            user: parameters.role.as_str().to_owned(),
            password: password.map_err(|source| ResolveError::Unseal { tenant, source })?,
            database: parameters.database.as_str().to_owned(),
        })
    }

    pub(crate) fn status(&self) -> PoolStatus {
        let status = self.connections.status();
        let idle = status.available.min(status.size);
        PoolStatus {
            size: status.size,
            in_use: status.size - idle,
            idle,
            waiting: self.waiting.load(Relaxed),
            max: self.common.pool_size_max,
        }
    }

    pub(crate) fn stats(&self) -> TenantPoolStats {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        TenantPoolStats {
            tenant: self.snapshot.tenant,
            slug: self.snapshot.slug.clone(),
            status: self.status(),
            waits_total: read(&self.counters.waits),
            wait_total: Duration::from_micros(read(&self.counters.waited_us)),
            connects_total: read(&self.counters.connects),
            evictions_total: read(&self.counters.evictions),
            errors_total: read(&self.counters.errors),
        }
    }

    /// The error for callers while the server counts as silent: no connection to it is checked out then.
    pub(crate) fn refusal(self: &Arc<Self>) -> Option<ResolveError> {
        let arbiter = &self.server.arbiter;
        if !arbiter.is_silent() {
            return None;
        }
        arbiter
            .request_slot(self)
            .err()
            .map(|refusal| self.server_down(refusal))
    }

    fn used(&self, now: Timestamp) {
        self.last_used.set(now);
        // Not a fetch_add: this is the warm path, and a use that is lost now and then does not change the
        // frequency.
        self.uses.store(self.uses.load(Relaxed) + 1, Relaxed);
    }

    fn enqueue(&self) -> Result<QueueTicket<'_>, CheckoutFailure> {
        let waiting = self.waiting.fetch_add(1, SeqCst);
        if waiting == 0 {
            self.waiting_since.set(self.common.clock.now());
        }
        let queued = QueueTicket(self);
        if waiting >= self.common.waiting_max {
            return Err(CheckoutFailure::Error(ResolveError::QueueFull {
                tenant: self.snapshot.tenant,
                waiting,
                max: self.common.waiting_max,
            }));
        }
        Ok(queued)
    }

    fn lock_failures(&self) -> std::sync::MutexGuard<'_, (u64, Option<ConnectFailure>)> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller's position in the queue for this tenant's connections.
struct QueueTicket<'a>(&'a TenantPool);

impl Drop for QueueTicket<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}
