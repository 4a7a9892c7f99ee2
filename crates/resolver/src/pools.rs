//! The set of open pools, least recently used last.
//!
//! Invariants: at most `pools_max` pools are open; a pool that anybody holds or waits for is never closed to make room;
//! no pool is opened from a snapshot that the fence has passed. The lock is short and never held across an await.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{
        AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};
use std::time::Duration;

use identity::Sealer;
use lru::LruCache;
use model::TenantId;
use pg::ConnectTarget;
use tokio::time::{Instant, timeout_at};

use crate::{
    PoolStatus, ResolveError, ResolverConfig, Snapshot, TenantPoolStats,
    cache::View,
    census::Census,
    connect::{ConnectLimits, Connector},
    fence::{Fence, Stamp},
    pool::{Room, TenantPool, Visit},
    stats::Counters,
};

pub(crate) struct Pools {
    open: Mutex<LruCache<TenantId, Open>>,
    room: Arc<Room>,
    pools_max: usize,
    pool_size_max: usize,
    waiting_max: usize,
    snapshot_ttl: Duration,
    limits: ConnectLimits,
    sealer: Sealer,
    fence: Arc<Fence>,
    pub(crate) census: Arc<Census>,
    counters: Arc<Counters>,
}

struct Open {
    pool: Arc<TenantPool>,
    /// The latest snapshot with the facts that the pool was built from.
    snapshot: Arc<Snapshot>,
    /// The state of the fence under which that snapshot passed the gate; none if it was only remembered.
    passed: Option<Stamp>,
}

/// What came of asking for a tenant's pool.
pub(crate) enum Entry {
    /// Here it is.
    In(Visit),
    /// The snapshot is from before a change; read it again.
    Outdated,
    /// All pools are in use.
    Full,
}

impl Pools {
    pub(crate) fn new(config: &ResolverConfig, fence: Arc<Fence>, counters: Arc<Counters>) -> Self {
        Self {
            open: Mutex::new(LruCache::unbounded()),
            room: Arc::default(),
            pools_max: config.pools_max.max(1),
            pool_size_max: config.pool_size_max.max(1),
            waiting_max: config.waiting_max,
            snapshot_ttl: config.snapshot_ttl,
            limits: ConnectLimits::from(config),
            sealer: config.sealer.clone(),
            fence,
            census: Arc::default(),
            counters,
        }
    }

    /// The warm path: the tenant has a pool, and nothing was announced and its snapshot has not grown old since it passed
    /// the gate. Saves the look into the cache and the gate, not the fence.
    pub(crate) fn revisit(
        &self,
        tenant: TenantId,
        now: Instant,
    ) -> Result<Option<(Arc<Snapshot>, Visit)>, ResolveError> {
        let mut open = self.lock();
        let Some(entry) = open.get(&tenant) else {
            return Ok(None);
        };
        let age = now.saturating_duration_since(entry.snapshot.read_at);
        if entry.passed != Some(self.fence.stamp(tenant)) || age >= self.snapshot_ttl {
            return Ok(None);
        }
        let visit = entry.pool.visit(self.waiting_max)?;
        Ok(Some((Arc::clone(&entry.snapshot), visit)))
    }

    /// The tenant's pool, opened if need be; waits for room until `deadline`. `None`: the snapshot is outdated.
    pub(crate) async fn enter(
        &self,
        view: &View,
        started: Instant,
        deadline: Instant,
    ) -> Result<Option<Visit>, ResolveError> {
        match self.try_enter(view)? {
            Entry::In(visit) => return Ok(Some(visit)),
            Entry::Outdated => return Ok(None),
            Entry::Full => {}
        }
        let tenant = view.snapshot.tenant;
        let _waiting = self.wait_in_line(tenant)?;
        loop {
            let freed = self.room.freed.notified();
            tokio::pin!(freed);
            // Registered before the set is looked at, so that room made in between is not missed.
            freed.as_mut().enable();
            match self.try_enter(view)? {
                Entry::In(visit) => return Ok(Some(visit)),
                Entry::Outdated => return Ok(None),
                Entry::Full => {}
            }
            if timeout_at(deadline, freed).await.is_err() {
                self.counters.checkout_timeouts.fetch_add(1, Relaxed);
                return Err(ResolveError::PoolsBusy {
                    tenant,
                    pools_max: self.pools_max,
                    waited: started.elapsed(),
                });
            }
        }
    }

    fn try_enter(&self, view: &View) -> Result<Entry, ResolveError> {
        let tenant = view.snapshot.tenant;
        let mut open = self.lock();
        if self.fence.stamp(tenant) != view.stamp {
            return Ok(Entry::Outdated);
        }
        if let Some(entry) = open.get_mut(&tenant) {
            if entry.keeps(view) {
                return entry.pool.visit(self.waiting_max).map(Entry::In);
            }
            self.close(&mut open, tenant, &self.counters.changed);
        }
        if open.len() >= self.pools_max {
            let unused = open.iter().rev().find(|(_, entry)| entry.pool.is_unused());
            let Some(victim) = unused.map(|(&tenant, _)| tenant) else {
                return Ok(Entry::Full);
            };
            self.close(&mut open, victim, &self.counters.least_recently_used);
        }
        let pool = Arc::new(self.build(&view.snapshot)?);
        let visit = pool.visit(self.waiting_max);
        let snapshot = Arc::clone(&view.snapshot);
        let passed = view.passed();
        let entry = Open {
            pool,
            snapshot,
            passed,
        };
        open.put(tenant, entry);
        visit.map(Entry::In)
    }

    /// Closes the pool of a tenant that `view` says is not served, unless the fence has passed the view.
    pub(crate) fn refuse(&self, view: &View) {
        let tenant = view.snapshot.tenant;
        let mut open = self.lock();
        if self.fence.stamp(tenant) == view.stamp {
            self.close(&mut open, tenant, &self.counters.refused);
        }
    }

    /// Closes the pool of a tenant that is gone.
    pub(crate) fn refuse_unknown(&self, tenant: TenantId) {
        self.close(&mut self.lock(), tenant, &self.counters.refused);
    }

    pub(crate) fn close_drained(&self, tenant: TenantId) {
        self.close(&mut self.lock(), tenant, &self.counters.drained);
    }

    pub(crate) fn close_all(&self) {
        let mut open = self.lock();
        while let Some((_, entry)) = open.pop_lru() {
            entry.pool.close();
            self.counters.drained.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn close_idle(&self, limit: Duration) {
        // Out of the lock: `retain` takes each pool's own.
        let pools: Vec<_> = self.lock().iter().map(|(_, e)| Arc::clone(&e.pool)).collect();
        for pool in pools {
            pool.close_idle(limit);
        }
    }

    pub(crate) fn has(&self, tenant: TenantId) -> bool {
        self.lock().contains(&tenant)
    }

    pub(crate) fn tenants_open(&self) -> Vec<TenantId> {
        self.lock().iter().map(|(&tenant, _)| tenant).collect()
    }

    pub(crate) fn status(&self, tenant: TenantId) -> Option<PoolStatus> {
        self.lock().peek(&tenant).map(|entry| entry.pool.status())
    }

    pub(crate) fn statuses(&self) -> Vec<TenantPoolStats> {
        let stats = |(&tenant, entry): (&TenantId, &Open)| TenantPoolStats {
            tenant,
            slug: entry.pool.slug().clone(),
            status: entry.pool.status(),
        };
        self.lock().iter().map(stats).collect()
    }

    pub(crate) fn pools_max(&self) -> usize {
        self.pools_max
    }

    pub(crate) fn waiting_for_room(&self) -> usize {
        self.room.waiting.load(Relaxed)
    }

    fn wait_in_line(&self, tenant: TenantId) -> Result<InLine<'_>, ResolveError> {
        let waiting = self.room.waiting.fetch_add(1, SeqCst);
        let in_line = InLine(&self.room);
        if waiting >= self.waiting_max {
            return Err(ResolveError::QueueFull {
                tenant,
                waiting,
                max: self.waiting_max,
            });
        }
        Ok(in_line)
    }

    fn build(&self, snapshot: &Snapshot) -> Result<TenantPool, ResolveError> {
        let target = self.target(snapshot)?;
        let connector = Connector::new(
            snapshot.tenant,
            &target,
            self.limits,
            Arc::clone(&self.census),
            Arc::clone(&self.counters),
        );
        Ok(TenantPool::new(
            snapshot,
            &target,
            connector,
            self.pool_size_max,
            self.limits.connect_timeout,
            Arc::clone(&self.room),
            Arc::clone(&self.counters),
        ))
    }

    fn target(&self, snapshot: &Snapshot) -> Result<ConnectTarget, ResolveError> {
        let (tenant, facts) = (snapshot.tenant, &snapshot.facts);
        let Some(sealed) = &facts.sealed_password else {
            return Err(ResolveError::Incomplete {
                tenant,
                missing: "its role has no password in the registry".to_owned(),
            });
        };
        // The same words as the provisioner seals it with, which tell it apart from other secrets of the tenant.
        let password = self.sealer.open(&format!("tenant:{tenant}:role"), sealed);
        Ok(ConnectTarget {
            host: facts.host.clone(),
            port: facts.port,
            user: facts.role.as_str().to_owned(),
            password: password.map_err(|source| ResolveError::Unseal { tenant, source })?,
            database: facts.database.as_str().to_owned(),
        })
    }

    fn close(&self, open: &mut LruCache<TenantId, Open>, tenant: TenantId, reason: &AtomicU64) {
        if let Some(entry) = open.pop(&tenant) {
            entry.pool.close();
            reason.fetch_add(1, Relaxed);
            // A closed pool is room, too.
            if self.room.waiting.load(SeqCst) > 0 {
                self.room.freed.notify_waiters();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<TenantId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Whether the pool goes on under a newer view, which it then takes over.
    fn keeps(&mut self, view: &View) -> bool {
        let same = self.snapshot.facts == view.snapshot.facts;
        if same {
            self.snapshot = Arc::clone(&view.snapshot);
            self.passed = view.passed();
        }
        same
    }
}

/// A place in the line for room.
struct InLine<'a>(&'a Room);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}
