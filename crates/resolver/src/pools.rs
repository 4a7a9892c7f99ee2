//! The set of open pools.
//!
//! Invariants: at most `pools_max` pools are open; a pool that a caller uses or waits for is never closed to
//! make room; no pool is opened from a snapshot of an outdated epoch.
//!
//! The warm path reads a map that readers do not lock (papaya). Changes of the set take one short lock, which
//! also guards the least-recently-used order ([`crate::lru_order`]).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use arbiter::{PoolHandle as _, Timestamp};
use model::{ServerName, TenantId};
use registry::Budgets;
use tokio::{
    runtime::Handle,
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::{
    PoolStatus, ResolveError, ResolverConfig, ServerStats, Snapshot, TenantPoolStats,
    cache::View,
    cache_epoch::{CacheEpoch, CacheEpochs},
    clock::Clock,
    connection::ConnectLimits,
    connection_counter::ConnectionCounter,
    lru_order::LruOrder,
    pool::{Common, TenantPool},
    server::Server,
    stats::Counters,
};

pub(crate) struct Pools {
    open: papaya::HashMap<TenantId, Arc<Entry>>,
    /// The set changes only under this lock.
    order: Mutex<LruOrder>,
    room: Arc<Semaphore>,
    pools_max: usize,
    snapshot_ttl: Duration,
    servers: Mutex<HashMap<ServerName, Arc<Server>>>,
    config: ResolverConfig,
    epochs: Arc<CacheEpochs>,
    common: Arc<Common>,
    pub(crate) connection_counter: Arc<ConnectionCounter>,
    counters: Arc<Counters>,
}

/// An open pool, and the snapshot under which callers use it.
pub(crate) struct Entry {
    pub(crate) pool: Arc<TenantPool>,
    pub(crate) snapshot: Arc<Snapshot>,
    /// The epoch under which the snapshot passed the gate; `None` if the snapshot was used during an outage.
    passed: Option<CacheEpoch>,
    fresh_until: Timestamp,
}

/// A caller's use of a pool: the pool is not closed to make room while this exists.
pub(crate) struct PoolGuard(Arc<Entry>);

/// The outcome of an attempt to enter a tenant's pool.
enum Entered {
    In(PoolGuard),
    /// The snapshot is older than a change, and must be read again.
    Outdated,
    /// All pools are in use.
    Full,
}

impl Pools {
    pub(crate) fn new(config: &ResolverConfig, epochs: Arc<CacheEpochs>, counters: Arc<Counters>) -> Self {
        let pools_max = config.pools_max.clamp(1, Semaphore::MAX_PERMITS);
        let connection_counter = Arc::<ConnectionCounter>::default();
        let common = Common {
            limits: ConnectLimits::new(config),
            pool_size_max: config.pool_size_max.clamp(1, config.budget.max(1)),
            waiting_max: config.waiting_max,
            clock: Clock::start(),
            sealer: config.sealer.clone(),
            connection_counter: Arc::clone(&connection_counter),
            counters: Arc::clone(&counters),
            budgets: Mutex::default(),
            runtime: Handle::current(),
            drive_on_callers: config.drive_on_callers,
            room_wanted: AtomicUsize::new(0),
            unused: Notify::new(),
        };
        Self {
            open: papaya::HashMap::new(),
            order: Mutex::default(),
            room: Arc::new(Semaphore::new(pools_max)),
            pools_max,
            snapshot_ttl: config.snapshot_ttl,
            servers: Mutex::default(),
            config: config.clone(),
            epochs,
            common: Arc::new(common),
            connection_counter,
            counters,
        }
    }

    pub(crate) fn clock(&self) -> Clock {
        self.common.clock
    }

    /// The warm path: enters the tenant's pool if it is open, no change was announced, and its snapshot is
    /// not too old since it passed the gate. This saves the cache look-up and the gate, and still checks the
    /// epoch.
    pub(crate) fn enter_warm(&self, tenant: TenantId, now: Timestamp) -> Option<PoolGuard> {
        let entry = Arc::clone(self.open.pin().get(&tenant)?);
        let current = entry.passed == Some(self.epochs.current(tenant)) && now < entry.fresh_until;
        if current { PoolGuard::begin(entry) } else { None }
    }

    /// Enters the tenant's pool and opens it if need be. Waits for room until `deadline`. `None`: the
    /// snapshot is outdated.
    pub(crate) async fn enter(
        &self,
        view: &View,
        started: Instant,
        deadline: Instant,
    ) -> Result<Option<PoolGuard>, ResolveError> {
        let tenant = view.snapshot.tenant;
        match self.try_enter(view, None) {
            Entered::In(guard) => return Ok(Some(guard)),
            Entered::Outdated => return Ok(None),
            Entered::Full => {}
        }
        let _in_queue = self.enqueue_for_room(tenant)?;
        let Ok(room) = timeout_at(deadline, self.wait_for_room()).await else {
            self.counters.checkout_timeouts.fetch_add(1, Relaxed);
            return Err(ResolveError::PoolsBusy {
                tenant,
                pools_max: self.pools_max,
                waited: started.elapsed(),
            });
        };
        match self.try_enter(view, Some(room)) {
            Entered::In(guard) => Ok(Some(guard)),
            Entered::Outdated | Entered::Full => Ok(None),
        }
    }

    /// Waits for room for one more pool, first come, first served. The callers that wait here also close
    /// pools that fall out of use.
    async fn wait_for_room(&self) -> OwnedSemaphorePermit {
        let room = Arc::clone(&self.room).acquire_owned();
        tokio::pin!(room);
        loop {
            let unused = self.common.unused.notified();
            self.evict(&mut self.lock());
            tokio::select! {
                biased;
                made = &mut room => {
                    if let Ok(permit) = made {
                        // Several pools that fall out of use while no caller listens send one notification;
                        // pass it on.
                        if self.common.room_wanted.load(SeqCst) > 1 {
                            self.common.unused.notify_one();
                        }
                        return permit;
                    }
                }
                () = unused => {}
            }
        }
    }

    fn try_enter(&self, view: &View, room: Option<OwnedSemaphorePermit>) -> Entered {
        let tenant = view.snapshot.tenant;
        let mut order = self.lock();
        if self.epochs.current(tenant) != view.epoch {
            return Entered::Outdated;
        }
        let open = self.open.pin();
        if let Some(entry) = open.get(&tenant) {
            if entry.snapshot.parameters == view.snapshot.parameters
                && let Some(guard) = PoolGuard::begin(self.list(&mut order, view, Arc::clone(&entry.pool)))
            {
                return Entered::In(guard);
            }
            self.close(&mut order, tenant, &self.counters.changed);
        }
        let room = room.or_else(|| Arc::clone(&self.room).try_acquire_owned().ok());
        let room = room.or_else(|| {
            self.evict(&mut order);
            Arc::clone(&self.room).try_acquire_owned().ok()
        });
        let Some(room) = room else {
            return Entered::Full;
        };
        let server = self.server(&view.snapshot);
        let pool = TenantPool::new(Arc::clone(&view.snapshot), server, Arc::clone(&self.common), room);
        match PoolGuard::begin(self.list(&mut order, view, Arc::new(pool))) {
            Some(guard) => Entered::In(guard),
            None => Entered::Outdated,
        }
    }

    /// Adds the pool to the set with this view.
    fn list(&self, order: &mut LruOrder, view: &View, pool: Arc<TenantPool>) -> Arc<Entry> {
        let tenant = view.snapshot.tenant;
        let now = self.common.clock.now();
        let age = view.snapshot.read_at.elapsed();
        let entry = Arc::new(Entry {
            pool,
            snapshot: Arc::clone(&view.snapshot),
            passed: view.passed(),
            fresh_until: now + self.snapshot_ttl.saturating_sub(age),
        });
        self.open.pin().insert(tenant, Arc::clone(&entry));
        order.record_use(tenant, entry.pool.last_used());
        entry
    }

    /// Closes the least recently used pool that no caller uses; pools without a connection go first. Opening
    /// those again costs nothing, and which connections are worth keeping is the arbiter's decision, which
    /// goes by frequency.
    fn evict(&self, order: &mut LruOrder) {
        if !self.evict_one(order, |pool| !pool.has_connections()) {
            self.evict_one(order, |_| true);
        }
    }

    /// Returns whether it closed a pool.
    fn evict_one(&self, order: &mut LruOrder, may: impl Fn(&TenantPool) -> bool) -> bool {
        let open = self.open.pin();
        let mut passed_over = None;
        // Each entry is recorded anew once at most, unless the pool is used at this very moment.
        for _ in 0..order.len() * 2 {
            let Some((recorded, tenant)) = order.oldest_after(passed_over) else {
                return false;
            };
            let Some(entry) = open.get(&tenant) else {
                order.remove(tenant);
                continue;
            };
            let used = entry.pool.last_used();
            if used > recorded {
                order.record_use(tenant, used);
            } else if !may(&entry.pool) {
                passed_over = Some((recorded, tenant));
            } else if entry.pool.close_if_unused() {
                open.remove(&tenant);
                order.remove(tenant);
                self.counters.least_recently_used.fetch_add(1, Relaxed);
                return true;
            } else {
                // A caller uses it, so this moment counts as its last use.
                order.record_use(tenant, self.common.clock.now());
            }
        }
        false
    }

    /// Closes the pool of a tenant that `view` says is not served, unless the view's epoch is outdated.
    pub(crate) fn refuse(&self, view: &View) {
        let tenant = view.snapshot.tenant;
        let mut order = self.lock();
        if self.epochs.current(tenant) == view.epoch {
            self.close(&mut order, tenant, &self.counters.refused);
        }
    }

    /// Closes the pool of a tenant that does not exist any more.
    pub(crate) fn refuse_unknown(&self, tenant: TenantId) {
        self.close(&mut self.lock(), tenant, &self.counters.refused);
    }

    pub(crate) fn close_drained(&self, tenant: TenantId) {
        self.close(&mut self.lock(), tenant, &self.counters.drained);
    }

    pub(crate) fn close_all(&self) {
        let mut order = self.lock();
        while let Some((_, tenant)) = order.oldest_after(None) {
            self.close(&mut order, tenant, &self.counters.drained);
        }
    }

    /// Ends connections that are idle or alive for too long. Checks the pools that have connections, which
    /// are no more than the budgets.
    pub(crate) fn sweep(&self) {
        let now = self.common.clock.now();
        let servers: Vec<_> = self.lock_servers().values().map(Arc::clone).collect();
        for pool in servers.iter().flat_map(|server| server.arbiter.pools()) {
            pool.sweep(now);
        }
    }

    pub(crate) fn has(&self, tenant: TenantId) -> bool {
        self.open.pin().contains_key(&tenant)
    }

    pub(crate) fn tenants_open(&self) -> Vec<TenantId> {
        self.open.pin().keys().copied().collect()
    }

    pub(crate) fn status(&self, tenant: TenantId) -> Option<PoolStatus> {
        self.open.pin().get(&tenant).map(|entry| entry.pool.status())
    }

    /// The figures of each open pool, the most recently used first.
    pub(crate) fn statuses(&self) -> Vec<TenantPoolStats> {
        let open = self.open.pin();
        let mut pools: Vec<_> = open.values().map(|entry| &entry.pool).collect();
        // With a cached key, because the last use may change during the sort.
        pools.sort_by_cached_key(|pool| std::cmp::Reverse(pool.last_used()));
        pools.into_iter().map(|pool| pool.stats()).collect()
    }

    pub(crate) fn servers(&self) -> Vec<ServerStats> {
        let mut stats: Vec<_> = self
            .lock_servers()
            .values()
            .map(|server| server.stats())
            .collect();
        stats.sort_by(|a, b| a.server.cmp(&b.server));
        stats
    }

    /// Stores what all registered routers may take together.
    pub(crate) fn note_budgets(&self, budgets: Budgets) {
        *self.lock_budgets() = budgets;
        let servers: Vec<_> = self.lock_servers().values().map(Arc::clone).collect();
        for server in servers {
            server.compare(budgets);
        }
    }

    pub(crate) fn budgets(&self) -> Budgets {
        *self.lock_budgets()
    }

    fn lock_budgets(&self) -> MutexGuard<'_, Budgets> {
        self.common.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pools_max(&self) -> usize {
        self.pools_max
    }

    pub(crate) fn waiting_for_room(&self) -> usize {
        self.common.room_wanted.load(Relaxed)
    }

    fn enqueue_for_room(&self, tenant: TenantId) -> Result<RoomTicket<'_>, ResolveError> {
        let waiting = self.common.room_wanted.fetch_add(1, SeqCst);
        let queued = RoomTicket(&self.common);
        if waiting >= self.common.waiting_max {
            return Err(ResolveError::QueueFull {
                tenant,
                waiting,
                max: self.common.waiting_max,
            });
        }
        Ok(queued)
    }

    fn server(&self, snapshot: &Snapshot) -> Arc<Server> {
        let name = &snapshot.server;
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let server = servers.entry(name.clone()).or_insert_with(|| {
            Server::new(
                name.clone(),
                &self.config,
                self.common.clock,
                &self.common.runtime,
            )
        });
        let address = &snapshot.parameters.server;
        server.is_at(&address.host, address.port);
        Arc::clone(server)
    }

    fn close(&self, order: &mut LruOrder, tenant: TenantId, reason: &AtomicU64) {
        order.remove(tenant);
        if let Some(entry) = self.open.pin().remove(&tenant) {
            entry.pool.close();
            reason.fetch_add(1, Relaxed);
        }
    }

    fn lock_servers(&self) -> MutexGuard<'_, HashMap<ServerName, Arc<Server>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, LruOrder> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PoolGuard {
    fn begin(entry: Arc<Entry>) -> Option<Self> {
        entry.pool.enter().then(|| Self(entry))
    }

    pub(crate) fn entry(&self) -> &Entry {
        &self.0
    }
}

impl Drop for PoolGuard {
    fn drop(&mut self) {
        self.0.pool.exit();
    }
}

/// A caller's position in the queue for room.
struct RoomTicket<'a>(&'a Common);

impl Drop for RoomTicket<'_> {
    fn drop(&mut self) {
        self.0.room_wanted.fetch_sub(1, SeqCst);
    }
}
