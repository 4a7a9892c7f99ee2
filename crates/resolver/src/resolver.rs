use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use model::{Slug, TenantId, VersionWindow};
use tokio::time::{Instant, timeout_at};

use crate::{
    PoolStatus, ResolveError, ResolverConfig, ResolverStats, Snapshot, TenantClient,
    background_tasks::BackgroundTasks,
    cache::{SnapshotCache, View},
    cache_epoch::CacheEpochs,
    checked_out::CheckedOut,
    pool::CheckoutFailure,
    pools::{PoolGuard, Pools},
    registration::Registration,
    stats::Counters,
};

/// How often one checkout starts over because the tenant changed under it. Each time is a change that came between
/// two lines of code; more than two in a row is not bad luck.
const ATTEMPTS_MAX: usize = 5;

/// A snapshot younger than this is not read again only because a log-in was refused: a broken tenant under load would
/// otherwise cost the registry a read for each request.
const REFUSED_REREAD_AFTER: Duration = Duration::from_secs(1);

/// Tenant id in, connection to that tenant's database out. Clones share everything; the background tasks end with the
/// last clone.
#[derive(Clone)]
pub struct Resolver {
    core: Arc<Core>,
    background: Arc<BackgroundTasks>,
    registration: Arc<Registration>,
}

pub(crate) struct Core {
    pub(crate) cache: SnapshotCache,
    pub(crate) pools: Pools,
    pub(crate) counters: Arc<Counters>,
    window: VersionWindow,
    checkout_timeout: Duration,
}

impl Resolver {
    /// Starts the tasks that listen for changes, register this process and look after the pools. Nothing is connected yet.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start(config: ResolverConfig) -> Self {
        let epochs = Arc::new(CacheEpochs::new());
        let counters = Arc::new(Counters::default());
        let core = Arc::new(Core {
            cache: SnapshotCache::new(&config, Arc::clone(&epochs), Arc::clone(&counters)),
            pools: Pools::new(&config, epochs, Arc::clone(&counters)),
            counters,
            window: config.window,
            checkout_timeout: config.checkout_timeout,
        });
        let registration = Arc::new(Registration::start(&core, &config));
        let background = Arc::new(BackgroundTasks::start(&core, &config, &registration));
        Self {
            core,
            background,
            registration,
        }
    }

    /// The id behind a tenant's short name, whatever the tenant's state. Each call asks the registry: keep the id and not the slug,
    /// for a slug may be given to another tenant once its first one is gone, and an id never is.
    ///
    /// # Errors
    /// [`ResolveError::UnknownSlug`], or [`ResolveError::SlugLookup`] when the registry could not be read.
    pub async fn tenant_id(&self, slug: &Slug) -> Result<TenantId, ResolveError> {
        self.core.cache.id_of(slug).await
    }

    /// The tenant as the registry describes it, whatever its state. Costs no query when it is cached.
    ///
    /// # Errors
    /// [`ResolveError::UnknownTenant`], or why the registry could not be read.
    pub async fn snapshot(&self, tenant: TenantId) -> Result<Arc<Snapshot>, ResolveError> {
        Ok(self.core.cache.view(tenant).await?.snapshot)
    }

    /// A connection to the tenant's database, if the tenant may be served.
    ///
    /// A warm one, whose pool is open and has an idle connection, costs no round trip, no read and no lock that tenants
    /// share. Else it waits, at most `checkout_timeout`.
    ///
    /// # Errors
    /// Every [`ResolveError`] but `StillInUse`.
    pub async fn checkout(&self, tenant: TenantId) -> Result<TenantClient, ResolveError> {
        match self.core.warm(tenant) {
            Some(client) => Ok(client),
            None => self.core.checkout(tenant, self.core.checkout_timeout).await,
        }
    }

    /// As [`Self::checkout`], waiting at most `limit`: what is left of a request's own time, say.
    ///
    /// # Errors
    /// As [`Self::checkout`].
    pub async fn checkout_within(
        &self,
        tenant: TenantId,
        limit: Duration,
    ) -> Result<TenantClient, ResolveError> {
        match self.core.warm(tenant) {
            Some(client) => Ok(client),
            None => self.core.checkout(tenant, limit).await,
        }
    }

    /// The schema versions that are served.
    #[must_use]
    pub fn window(&self) -> VersionWindow {
        self.core.window
    }

    /// The tenant's pool, if one is open.
    #[must_use]
    pub fn pool_status(&self, tenant: TenantId) -> Option<PoolStatus> {
        self.core.pools.status(tenant)
    }

    /// Whether some tenant would be served even though the registry cannot be reached: one that is known, may be served, and
    /// was read less than `outage_max` ago.
    ///
    /// For a probe in an outage: it looks through what is known until it finds one.
    #[must_use]
    pub fn serves_without_registry(&self) -> bool {
        self.core.cache.remembers_any(self.core.window)
    }

    /// The figures of this moment.
    #[must_use]
    pub fn stats(&self) -> ResolverStats {
        self.core
            .stats(self.background.is_listening(), &self.registration)
    }

    /// Closes the tenant's pool and waits until this process holds no connection to its database.
    ///
    /// It keeps nobody from asking for the tenant again: whoever needs it closed changes its state in the registry
    /// first. What was read about the tenant before this call is not used after it.
    ///
    /// # Errors
    /// [`ResolveError::StillInUse`] when connections are still on loan after `limit`; they end when they are given back.
    pub async fn drain(&self, tenant: TenantId, limit: Duration) -> Result<(), ResolveError> {
        let started = Instant::now();
        self.core.cache.forget(tenant);
        self.core.pools.close_drained(tenant);
        let connection_counter = &self.core.pools.connection_counter;
        let left = connection_counter
            .wait_for_none(started + limit, |connection_counter| {
                connection_counter.of(tenant)
            })
            .await;
        left.map_err(|connections| ResolveError::StillInUse {
            tenant,
            connections,
            waited: started.elapsed(),
        })
    }

    /// Closes all pools and waits until this process holds no connection to any tenant; for the end of a program.
    /// Then its registration ends: no operation waits for it any more.
    ///
    /// # Errors
    /// How many connections are left after `limit`.
    pub async fn close(&self, limit: Duration) -> Result<(), usize> {
        let deadline = Instant::now() + limit;
        self.core.cache.forget_all();
        self.core.pools.close_all();
        let connection_counter = &self.core.pools.connection_counter;
        connection_counter
            .wait_for_none(deadline, |connection_counter| connection_counter.total())
            .await?;
        // With connections left it runs out by itself: until then operations wait for them.
        self.registration.end().await;
        Ok(())
    }
}

impl Core {
    /// A connection at once, if everything is at hand.
    fn warm(&self, tenant: TenantId) -> Option<TenantClient> {
        let now = self.pools.clock().now();
        let guard = self.pools.enter_warm(tenant, now)?;
        let pool = &guard.entry().pool;
        if pool.server().arbiter.is_silent() {
            return None;
        }
        let connection = pool.try_take(now)?;
        Some(TenantClient::new(CheckedOut::new(guard, connection)))
    }

    async fn checkout(&self, tenant: TenantId, limit: Duration) -> Result<TenantClient, ResolveError> {
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
                    // The role may have a new password that we have not heard of yet.
                    self.cache.forget(tenant);
                }
                Err(CheckoutFailure::Error(error)) => return Err(error),
            }
        }
        Err(ResolveError::Changing { tenant })
    }

    /// Into the tenant's pool, through the gate. `None`: the tenant changed meanwhile.
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

    /// The tenant's snapshot once it is through the gate. The pool of a tenant that is not is closed.
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

    fn stats(&self, listening: bool, registration: &Registration) -> ResolverStats {
        let counters = &self.counters;
        let tenants = self.pools.statuses();
        let servers = self.pools.servers();
        ResolverStats {
            pools_open: tenants.len(),
            pools_max: self.pools.pools_max(),
            evictions: counters.evictions(),
            waiting_for_room: self.pools.waiting_for_room(),
            // Not the census: it counts a connection out after its slot is free, when another may already be counted in.
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
            registered: registration.is_registered(),
            registration_age: registration.renewed_age(),
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
        // The arbiters know the pools and the pools their arbiter: closing them ends that.
        self.pools.close_all();
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("pools_open", &self.core.pools.tenants_open().len())
            .field("window", &self.core.window)
            .finish_non_exhaustive()
    }
}
