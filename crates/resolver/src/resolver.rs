use std::{fmt, sync::Arc, time::Duration};

use model::{Slug, TenantId, VersionWindow};
use tokio::time::Instant;

use crate::{
    PoolStatus, ResolveError, ResolverConfig, ResolverStats, Snapshot, TenantClient,
    background_tasks::BackgroundTasks, core::Core, registration::Registration,
};

/// Takes a tenant id and returns a connection to that tenant's database. Clones share everything; the
/// background tasks end with the last clone.
#[derive(Clone)]
pub struct Resolver {
    core: Arc<Core>,
    background: Arc<BackgroundTasks>,
    registration: Arc<Registration>,
}

impl Resolver {
    /// Starts the tasks that listen for changes, register this process and maintain the pools. It opens no
    /// connection yet.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start(config: ResolverConfig) -> Self {
        let core = Arc::new(Core::new(&config));
        let registration = Arc::new(Registration::start(&core, &config));
        let background = Arc::new(BackgroundTasks::start(&core, &config, &registration));
        Self {
            core,
            background,
            registration,
        }
    }

    /// The id of the tenant with this slug, whatever the tenant's state. Each call reads the registry: keep
    /// the id and not the slug, because a slug may be given to another tenant once its first one is gone, and
    /// an id never is.
    ///
    /// # Errors
    /// [`ResolveError::UnknownSlug`], or [`ResolveError::SlugLookup`] when the registry could not be read.
    pub async fn tenant_id(&self, slug: &Slug) -> Result<TenantId, ResolveError> {
        self.core.cache.id_of(slug).await
    }

    /// The tenant as the registry describes it, whatever its state. A cached snapshot costs no query.
    ///
    /// # Errors
    /// [`ResolveError::UnknownTenant`], or why the registry could not be read.
    pub async fn snapshot(&self, tenant: TenantId) -> Result<Arc<Snapshot>, ResolveError> {
        Ok(self.core.cache.view(tenant).await?.snapshot)
    }

    /// A connection to the tenant's database, if the tenant may be served.
    ///
    /// A warm checkout, from an open pool with an idle connection, costs no round trip, no read and no lock
    /// that tenants share. Otherwise the caller waits, at most `checkout_timeout`.
    ///
    /// # Errors
    /// Every [`ResolveError`] but `StillInUse`.
    pub async fn checkout(&self, tenant: TenantId) -> Result<TenantClient, ResolveError> {
        match self.core.warm(tenant) {
            Some(client) => Ok(client),
            None => self.core.checkout(tenant, self.core.checkout_timeout).await,
        }
    }

    /// As [`Self::checkout`], waiting at most `limit`; for example what is left of a request's own deadline.
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

    /// Whether the resolver would serve some tenant although the registry cannot be reached: a tenant that is
    /// cached, may be served, and was read less than `outage_max` ago.
    ///
    /// For a readiness probe in an outage: it searches the cache until it finds such a tenant.
    #[must_use]
    pub fn serves_without_registry(&self) -> bool {
        self.core.cache.remembers_any(self.core.window)
    }

    /// The figures of this moment.
    #[must_use]
    pub fn stats(&self) -> ResolverStats {
        self.core.stats(
            self.background.is_listening(),
            self.registration.is_registered(),
            self.registration.renewed_age(),
        )
    }

    /// Closes the tenant's pool and waits until this process holds no connection to its database.
    ///
    /// This does not prevent callers from checking out the tenant again: to keep the tenant closed, change
    /// its state in the registry first. The resolver uses nothing after this call that it read about the
    /// tenant before.
    ///
    /// # Errors
    /// [`ResolveError::StillInUse`] if connections are still checked out after `limit`; they end when they
    /// are given back.
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

    /// Closes all pools and waits until this process holds no connection to any tenant. Then it ends the
    /// registration of this process, so that no operation waits for it any more. For the end of a program.
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
        // If connections are left, the registration expires by itself, and operations wait for the
        // connections until then.
        self.registration.end().await;
        Ok(())
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
