//! The steps of a checkout: the tenant's snapshot, the gate, its pool, a connection.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use model::{TenantId, VersionWindow};
use tokio::time::{Instant, timeout_at};

use crate::{
    ResolveError, ResolverConfig, ResolverStats, TenantClient,
    cache::{SnapshotCache, View},
    cache_epoch::CacheEpochs,
    checked_out::CheckedOut,
    pool::CheckoutFailure,
    pools::{PoolGuard, Pools},
    stats::Counters,
};

/// How often one checkout starts over because the tenant changed meanwhile. Each change must fall between two
/// lines of code, so more than two in a row are no coincidence.
const ATTEMPTS_MAX: usize = 5;

/// A refused log-in does not make the resolver read a snapshot again that is younger than this. Otherwise a
/// broken tenant under load would cost the registry a read for each request.
const REFUSED_REREAD_AFTER: Duration = Duration::from_secs(1);

/// What a resolver and its background tasks share.
pub(crate) struct Core {
    pub(crate) cache: SnapshotCache,
    pub(crate) pools: Pools,
    pub(crate) counters: Arc<Counters>,
    pub(crate) window: VersionWindow,
    pub(crate) checkout_timeout: Duration,
}

impl Core {
    pub(crate) fn new(config: &ResolverConfig) -> Self {
        let epochs = Arc::new(CacheEpochs::new());
        let counters = Arc::new(Counters::default());
        Self {
            cache: SnapshotCache::new(config, Arc::clone(&epochs), Arc::clone(&counters)),
            pools: Pools::new(config, epochs, Arc::clone(&counters)),
            counters,
            window: config.window,
            checkout_timeout: config.checkout_timeout,
        }
    }

    /// The warm path: an idle connection of an open pool whose snapshot is current, if there is one.
    pub(crate) fn warm(&self, tenant: TenantId) -> Option<TenantClient> {
        let now = self.pools.clock().now();
        let guard = self.pools.enter_warm(tenant, now)?;
        let pool = &guard.entry().pool;
        if pool.server().arbiter.is_silent() {
            return None;
        }
        let connection = pool.try_take(now)?;
        Some(TenantClient::new(CheckedOut::new(guard, connection)))
    }

    pub(crate) async fn checkout(
        &self,
        tenant: TenantId,
        limit: Duration,
    ) -> Result<TenantClient, ResolveError> {
        let started = Instant::now();
        let deadline = started + limit;
        for _ in 0..ATTEMPTS_MAX {
            let Some(guard) = self.enter(tenant, started, deadline).await? else {
                continue;
            };
            let entry = guard.entry();
            if let Some(refusal) = entry.pool.refusal() {
                return Err(refusal);
            }
            match entry.pool.wait(started, deadline).await {
                Ok(connection) => return Ok(TenantClient::new(CheckedOut::new(guard, connection))),
                Err(CheckoutFailure::Closed) => {}
                Err(CheckoutFailure::Error(ResolveError::LoginRefused { .. }))
                    if entry.snapshot.read_at.elapsed() > REFUSED_REREAD_AFTER =>
                {
                    // The role may have a new password whose notification has not arrived yet.
                    self.cache.forget(tenant);
                }
                Err(CheckoutFailure::Error(error)) => return Err(error),
            }
        }
        Err(ResolveError::Changing { tenant })
    }

    /// Enters the tenant's pool through the gate. `None`: the tenant changed meanwhile.
    async fn enter(
        &self,
        tenant: TenantId,
        started: Instant,
        deadline: Instant,
    ) -> Result<Option<PoolGuard>, ResolveError> {
        if let Some(guard) = self.pools.enter_warm(tenant, self.pools.clock().now()) {
            self.counters.snapshot_hits.fetch_add(1, Relaxed);
            return Ok(Some(guard));
        }
        let view = timeout_at(deadline, self.admitted(tenant))
            .await
            .map_err(|_elapsed| ResolveError::RegistryUnavailable {
                tenant,
                reason: format!("no answer within {} ms", started.elapsed().as_millis()),
            })??;
        self.pools.enter(&view, started, deadline).await
    }

    /// The tenant's snapshot, if the gate admits it. Otherwise this closes the tenant's pool.
    pub(crate) async fn admitted(&self, tenant: TenantId) -> Result<View, ResolveError> {
        match self.cache.view(tenant).await {
            Ok(view) => match view.snapshot.admit(self.window) {
                Ok(()) => Ok(view),
                Err(refusal) => {
                    self.pools.refuse(&view);
                    Err(refusal)
                }
            },
            Err(error) => {
                if matches!(error, ResolveError::UnknownTenant { .. }) {
                    self.pools.refuse_unknown(tenant);
                }
                Err(error)
            }
        }
    }

    pub(crate) fn stats(
        &self,
        listening: bool,
        registered: bool,
        registration_age: Option<Duration>,
    ) -> ResolverStats {
        let counters = &self.counters;
        let tenants = self.pools.statuses();
        let servers = self.pools.servers();
        ResolverStats {
            pools_open: tenants.len(),
            pools_max: self.pools.pools_max(),
            evictions: counters.evictions(),
            waiting_for_room: self.pools.waiting_for_room(),
            // Not the connection counter: it counts a connection until after its slot is free, when another
            // connection may count already.
            connections: servers.iter().map(|server| server.slots_taken).sum(),
            connects_total: servers.iter().map(|server| server.connects_total).sum(),
            connect_errors_total: servers.iter().map(|server| server.connect_errors_total).sum(),
            discarded_total: counters.discarded.load(Relaxed),
            checkout_timeouts_total: counters.checkout_timeouts.load(Relaxed),
            snapshot_hits_total: counters.snapshot_hits.load(Relaxed),
            snapshot_misses_total: counters.snapshot_misses.load(Relaxed),
            snapshot_loads_total: counters.snapshot_loads.load(Relaxed),
            snapshot_remembered_total: counters.snapshot_remembered.load(Relaxed),
            invalidations_total: counters.invalidations.load(Relaxed),
            invalidations_all_total: counters.invalidations_all.load(Relaxed),
            registry_available: !self.cache.outage.is_on(),
            listening,
            registered,
            registration_age,
            budgets: self.pools.budgets(),
            wait_histogram: counters.wait_histogram(),
            wait_total: counters.wait_total(),
            servers,
            tenants,
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // Arbiters and pools hold references to each other. Closing the pools breaks that cycle.
        self.pools.close_all();
    }
}
