use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use model::{ServerName, Slug, TenantId};

use registry::Budgets;

use crate::{Capacity, clock::micros};

/// One tenant's pool at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolStatus {
    /// Connections open.
    pub size: usize,
    /// Connections checked out.
    pub in_use: usize,
    /// Connections open and not checked out.
    pub idle: usize,
    /// Callers that wait for a connection, also for one that is being made.
    pub waiting: usize,
    /// The most connections it may have.
    pub max: usize,
}

/// One tenant's pool in [`ResolverStats`].
#[derive(Debug, Clone)]
pub struct TenantPoolStats {
    /// Whose pool it is.
    pub tenant: TenantId,
    /// The tenant's slug, for labels.
    pub slug: Slug,
    /// Its figures of this moment.
    pub status: PoolStatus,
    /// Checkouts that had to wait, since the pool was opened. The following figures count from then, too.
    pub waits_total: u64,
    /// How long they waited together.
    pub wait_total: Duration,
    /// Connections made.
    pub connects_total: u64,
    /// Idle connections that were closed for another tenant.
    pub evictions_total: u64,
    /// Connects that failed, and waits that ended without a connection.
    pub errors_total: u64,
}

/// One server's figures.
#[derive(Debug, Clone)]
pub struct ServerStats {
    /// Its name in the registry.
    pub server: ServerName,
    /// The most connections.
    pub budget: usize,
    /// The capacity that the server reported; `None` before the first connection to it.
    pub capacity: Option<Capacity>,
    /// Whether the budgets of all registered routers together exceed that capacity.
    pub overbooked: bool,
    /// Connections that exist, including connects under way and closing connections.
    pub slots_taken: usize,
    /// Connects under way.
    pub connecting: usize,
    /// Connections that are closing.
    pub closing: usize,
    /// Connections that an earlier process of this instance still has on the server.
    pub predecessors: usize,
    /// Tenants that wait for a slot.
    pub tenants_waiting: usize,
    /// Whether the server counts as down.
    pub breaker_open: bool,
    /// Connections made.
    pub connects_total: u64,
    /// Connects that failed.
    pub connect_errors_total: u64,
    /// Failed connects for which the server had no room (SQLSTATE 53300).
    pub connects_refused_total: u64,
    /// Connections closed because their tenure was over and another tenant waited.
    pub yields_total: u64,
    /// Idle connections closed because another tenant waited.
    pub taken_idle_total: u64,
    /// Callers that were refused at once because the server was down.
    pub fail_fast_total: u64,
}

/// Upper bounds of the buckets of [`ResolverStats::wait_histogram`], in seconds.
pub const WAIT_BUCKETS_S: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

/// How many pools were closed since the start, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evictions {
    /// Another tenant needed room, and this pool was the least recently used one that no caller was using;
    /// pools without a connection go first.
    pub least_recently_used: u64,
    /// The tenant's server, database, role or password changed.
    pub changed: u64,
    /// The tenant's state or version was no longer served.
    pub refused: u64,
    /// The pool was drained.
    pub drained: u64,
}

impl Evictions {
    /// All reasons together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.least_recently_used + self.changed + self.refused + self.drained
    }
}

/// The resolver's figures: counts since the start, and the state of this moment.
#[derive(Debug, Clone)]
pub struct ResolverStats {
    /// Pools open.
    pub pools_open: usize,
    /// The most pools that may be open.
    pub pools_max: usize,
    /// Pools closed, by reason.
    pub evictions: Evictions,
    /// Callers that wait for room for another pool.
    pub waiting_for_room: usize,
    /// Connections of this process, including those of closed pools: never more than the budgets of its
    /// servers.
    pub connections: usize,
    /// Connections made.
    pub connects_total: u64,
    /// Connects that failed.
    pub connect_errors_total: u64,
    /// Connections closed because they were given back with a statement or a transaction under way.
    pub discarded_total: u64,
    /// Waits for a connection or for room that ended without one.
    pub checkout_timeouts_total: u64,
    /// Look-ups answered from the cache.
    pub snapshot_hits_total: u64,
    /// Look-ups that were not in the cache; each of those that wait for one read counts.
    pub snapshot_misses_total: u64,
    /// Reads of the registry.
    pub snapshot_loads_total: u64,
    /// Look-ups answered from the cache while the registry was unavailable.
    pub snapshot_remembered_total: u64,
    /// Invalidations of one tenant because its row changed.
    pub invalidations_total: u64,
    /// Invalidations of all tenants because notifications may have been missed.
    pub invalidations_all_total: u64,
    /// Whether the registry answered when it was last asked.
    pub registry_available: bool,
    /// Whether the process is listening for changes in the registry.
    pub listening: bool,
    /// Whether this process is registered in the registry, and renews its registration in time.
    pub registered: bool,
    /// How long ago the registry last confirmed the registration; `None` before the first time.
    pub registration_age: Option<Duration>,
    /// The budgets of all registered routers including this one, as of the latest renewal.
    pub budgets: Budgets,
    /// How many waits for a connection fell into each bucket of [`WAIT_BUCKETS_S`]; the last entry counts
    /// longer waits.
    pub wait_histogram: [u64; WAIT_BUCKETS_S.len() + 1],
    /// The sum of all waits.
    pub wait_total: Duration,
    /// Each server to which a connection was requested, by name.
    pub servers: Vec<ServerStats>,
    /// Each open pool, the most recently used first.
    pub tenants: Vec<TenantPoolStats>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) least_recently_used: AtomicU64,
    pub(crate) changed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) drained: AtomicU64,
    pub(crate) discarded: AtomicU64,
    pub(crate) checkout_timeouts: AtomicU64,
    pub(crate) snapshot_hits: AtomicU64,
    pub(crate) snapshot_misses: AtomicU64,
    pub(crate) snapshot_loads: AtomicU64,
    pub(crate) snapshot_remembered: AtomicU64,
    pub(crate) invalidations: AtomicU64,
    pub(crate) invalidations_all: AtomicU64,
    waits: [AtomicU64; WAIT_BUCKETS_S.len() + 1],
    waited_us: AtomicU64,
}

impl Counters {
    pub(crate) fn note_wait(&self, waited: Duration) {
        let seconds = waited.as_secs_f64();
        let bucket = WAIT_BUCKETS_S.partition_point(|bound| *bound < seconds);
        self.waits[bucket].fetch_add(1, Relaxed);
        self.waited_us.fetch_add(micros(waited), Relaxed);
    }

    pub(crate) fn wait_histogram(&self) -> [u64; WAIT_BUCKETS_S.len() + 1] {
        std::array::from_fn(|bucket| self.waits[bucket].load(Relaxed))
    }

    pub(crate) fn wait_total(&self) -> Duration {
        Duration::from_micros(self.waited_us.load(Relaxed))
    }

    pub(crate) fn evictions(&self) -> Evictions {
        Evictions {
            least_recently_used: self.least_recently_used.load(Relaxed),
            changed: self.changed.load(Relaxed),
            refused: self.refused.load(Relaxed),
            drained: self.drained.load(Relaxed),
        }
    }
}
