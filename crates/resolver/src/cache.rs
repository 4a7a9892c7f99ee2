//! The cache of tenants' snapshots: each is read once, shared by all callers, and dropped when the tenant
//! changes.
//!
//! Invariant: a snapshot that was read before a change was announced is never used after the announcement
//! ([`crate::cache_epoch`]). The only exception: while the registry cannot be reached, the resolver serves a
//! cached tenant for `outage_max`, unless a change of that tenant was announced since.
//!
//! The cache only reads the registry.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use model::{ServerName, Slug, TenantId, VersionWindow};
use moka::{future::Cache, policy::EvictionPolicy};
use registry::{Registry, RegistryClient, RegistryError, Server, Tenant};
use tokio::time::timeout;

use crate::{
    ResolveError, ResolverConfig, Snapshot,
    cache_epoch::{CacheEpoch, CacheEpochs},
    outage::Outage,
    stats::Counters,
};

/// Enough for occasional mistakes. With more, a stranger could fill the memory with ids that do not exist.
const ABSENT_MAX: u64 = 1_024;

/// Bounds the results of reads that are kept for the callers that waited for them. The results are also in
/// `known`.
const READS_MAX: u64 = 4_096;
const READS_KEPT: Duration = Duration::from_secs(1);

/// A snapshot, and the epoch under which it was read.
#[derive(Debug, Clone)]
struct Known {
    snapshot: Arc<Snapshot>,
    epoch: CacheEpoch,
}

/// A snapshot, and the epoch at the moment when a caller asked for it.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) epoch: CacheEpoch,
    /// The snapshot was read under an earlier epoch, and the registry is unavailable.
    remembered: bool,
}

impl View {
    fn fresh(snapshot: Arc<Snapshot>, epoch: CacheEpoch) -> Self {
        Self {
            snapshot,
            epoch,
            remembered: false,
        }
    }

    /// The epoch under which the snapshot may be used again without asking the cache.
    pub(crate) fn passed(&self) -> Option<CacheEpoch> {
        (!self.remembered).then_some(self.epoch)
    }
}

pub(crate) struct SnapshotCache {
    registry: Registry,
    registry_timeout: Duration,
    snapshot_ttl: Duration,
    outage_max: Duration,
    epochs: Arc<CacheEpochs>,
    /// The cached snapshots. One may be used under the epoch under which it was read; during an outage of the
    /// registry, also if only `CacheEpoch::all` has advanced since, as it does when the connection to the
    /// registry is lost.
    known: Cache<TenantId, Known>,
    /// Reads under way: all callers that ask for one tenant wait for one read.
    reads: Cache<(TenantId, CacheEpoch), Arc<Snapshot>>,
    /// Tenants that do not exist.
    absent: Cache<(TenantId, CacheEpoch), ()>,
    /// The servers, with `CacheEpoch::all` as it was before they were read: a change of a server advances it.
    /// Servers are few.
    servers: Mutex<HashMap<ServerName, (u64, Arc<Server>)>>,
    pub(crate) outage: Outage,
    counters: Arc<Counters>,
}

impl SnapshotCache {
    pub(crate) fn new(config: &ResolverConfig, epochs: Arc<CacheEpochs>, counters: Arc<Counters>) -> Self {
        Self {
            registry: config.registry.clone(),
            registry_timeout: config.registry_timeout,
            snapshot_ttl: config.snapshot_ttl,
            outage_max: config.outage_max,
            epochs,
            // Least recently used, not TinyLFU: a new entry is used again at once.
            known: Cache::builder()
                .max_capacity(config.snapshots_max)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(config.outage_max.max(config.snapshot_ttl))
                .build(),
            reads: Cache::builder()
                .max_capacity(READS_MAX)
                .time_to_live(READS_KEPT)
                .build(),
            absent: Cache::builder()
                .max_capacity(ABSENT_MAX)
                .time_to_live(config.absent_ttl)
                .build(),
            servers: Mutex::default(),
            outage: Outage::default(),
            counters,
        }
    }

    /// The tenant as of the latest announced change or later. However many callers ask, the cache reads the
    /// registry once.
    pub(crate) async fn view(&self, tenant: TenantId) -> Result<View, ResolveError> {
        // Before any other step: see `cache_epoch`.
        let epoch = self.epochs.current(tenant);
        let known = self.known.get(&tenant).await;
        if let Some(known) = &known
            && known.epoch == epoch
            && known.snapshot.read_at.elapsed() < self.snapshot_ttl
        {
            self.counters.snapshot_hits.fetch_add(1, Relaxed);
            return Ok(View::fresh(Arc::clone(&known.snapshot), epoch));
        }
        if let Some(reason) = self.outage.reason() {
            return self.remembered(tenant, known, epoch, reason);
        }
        let key = (tenant, epoch);
        if self.absent.get(&key).await.is_some() {
            self.counters.snapshot_hits.fetch_add(1, Relaxed);
            return Err(ResolveError::UnknownTenant { tenant });
        }
        self.counters.snapshot_misses.fetch_add(1, Relaxed);
        if known.is_some_and(|known| known.epoch == epoch) {
            // The snapshot is too old, and a read that was kept for other callers may be as old.
            self.reads.invalidate(&key).await;
        }
        match self.reads.try_get_with(key, self.load(tenant, epoch)).await {
            Ok(snapshot) => Ok(View::fresh(snapshot, epoch)),
            Err(error) => match &*error {
                ResolveError::RegistryUnavailable { reason, .. } => {
                    let known = self.known.get(&tenant).await;
                    self.remembered(tenant, known, epoch, reason.clone())
                }
                other => Err(other.clone()),
            },
        }
    }

    /// Invalidates the tenant: nothing that was read about it so far is used again.
    pub(crate) fn forget(&self, tenant: TenantId) {
        self.epochs.advance(tenant);
        self.counters.invalidations.fetch_add(1, Relaxed);
    }

    /// Invalidates all tenants, because notifications may have been missed.
    pub(crate) fn forget_all(&self) {
        self.epochs.advance_all();
        self.counters.invalidations_all.fetch_add(1, Relaxed);
    }

    /// Tests whether the registry answers, and ends the outage if it does.
    pub(crate) async fn probe(&self) {
        let probe = async {
            let client = self.registry.client().await?;
            let mut reading = Reading(Some(client));
            let answer = reading.client().simple_query("").await;
            reading.done();
            answer.map_err(|e| RegistryError::Unavailable {
                reason: pg::describe(&e),
            })
        };
        if let Ok(Ok(_)) = timeout(self.registry_timeout, probe).await {
            self.outage.end();
        }
    }

    /// The id of the tenant with this slug. Not cached, because a slug may be given to another tenant.
    pub(crate) async fn id_of(&self, slug: &Slug) -> Result<TenantId, ResolveError> {
        let look = async |client: &_| registry::tenant_by_slug(client, slug).await;
        match self.registry.within(self.registry_timeout, look).await {
            Ok(Some(tenant)) => Ok(tenant.id),
            Ok(None) => Err(ResolveError::UnknownSlug { slug: slug.clone() }),
            Err(source) => Err(ResolveError::SlugLookup {
                slug: slug.clone(),
                source: Arc::new(source),
            }),
        }
    }

    /// Whether the resolver can serve any tenant during an outage of the registry.
    pub(crate) fn remembers_any(&self, window: VersionWindow) -> bool {
        self.known.iter().any(|(tenant, known)| {
            self.is_remembered(*tenant, &known) && known.snapshot.admit(window).is_ok()
        })
    }

    /// Whether this snapshot may be used while the registry is unavailable.
    fn is_remembered(&self, tenant: TenantId, known: &Known) -> bool {
        known.epoch.tenant == self.epochs.current(tenant).tenant
            && known.snapshot.read_at.elapsed() < self.outage_max
    }

    fn remembered(
        &self,
        tenant: TenantId,
        known: Option<Known>,
        epoch: CacheEpoch,
        reason: String,
    ) -> Result<View, ResolveError> {
        match known {
            Some(known)
                if known.epoch.tenant == epoch.tenant
                    && known.snapshot.read_at.elapsed() < self.outage_max =>
            {
                self.counters.snapshot_remembered.fetch_add(1, Relaxed);
                Ok(View {
                    snapshot: known.snapshot,
                    epoch,
                    remembered: true,
                })
            }
            _ => Err(ResolveError::RegistryUnavailable { tenant, reason }),
        }
    }

    async fn load(&self, tenant: TenantId, epoch: CacheEpoch) -> Result<Arc<Snapshot>, ResolveError> {
        self.counters.snapshot_loads.fetch_add(1, Relaxed);
        let limit = self.registry_timeout;
        let read = match timeout(limit, self.read(tenant, epoch)).await {
            Ok(read) => read,
            Err(_elapsed) => Err(RegistryError::Unavailable {
                reason: format!("no answer within {} ms", limit.as_millis()),
            }),
        };
        match read {
            Ok(Some((row, server))) => {
                let snapshot = Arc::new(Snapshot::new(row, &server));
                self.remember(tenant, Arc::clone(&snapshot), epoch).await;
                Ok(snapshot)
            }
            Ok(None) => {
                self.absent.insert((tenant, epoch), ()).await;
                Err(ResolveError::UnknownTenant { tenant })
            }
            Err(RegistryError::Unavailable { reason }) => {
                self.outage.begin(&reason);
                Err(ResolveError::RegistryUnavailable { tenant, reason })
            }
            Err(source) => Err(ResolveError::Registry {
                tenant,
                source: Arc::new(source),
            }),
        }
    }

    /// Caches the snapshot, unless a newer one is cached: a read that began earlier may end later.
    async fn remember(&self, tenant: TenantId, snapshot: Arc<Snapshot>, epoch: CacheEpoch) {
        let newer = |held: &Known| held.epoch.tenant > epoch.tenant || held.epoch.all > epoch.all;
        self.known
            .entry(tenant)
            .and_compute_with(async |held| match held {
                Some(held) if newer(held.value()) => moka::ops::compute::Op::Nop,
                _ => moka::ops::compute::Op::Put(Known { snapshot, epoch }),
            })
            .await;
    }

    async fn read(
        &self,
        tenant: TenantId,
        epoch: CacheEpoch,
    ) -> Result<Option<(Tenant, Arc<Server>)>, RegistryError> {
        let mut reading = Reading(Some(self.registry.client().await?));
        let found = async {
            let Some(row) = registry::tenant_by_id(reading.client(), tenant).await? else {
                return Ok(None);
            };
            let server = match self.known_server(&row.server, epoch) {
                Some(server) => server,
                None => self.read_server(reading.client(), &row.server, epoch).await?,
            };
            Ok(Some((row, server)))
        }
        .await;
        reading.done();
        found
    }

    fn known_server(&self, name: &ServerName, epoch: CacheEpoch) -> Option<Arc<Server>> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let (read_under, server) = servers.get(name)?;
        (*read_under == epoch.all).then(|| Arc::clone(server))
    }

    async fn read_server(
        &self,
        client: &RegistryClient,
        name: &ServerName,
        epoch: CacheEpoch,
    ) -> Result<Arc<Server>, RegistryError> {
        let server = registry::server_by_name(client, name).await?;
        let server = Arc::new(server.ok_or_else(|| RegistryError::UnknownServer { name: name.clone() })?);
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.insert(name.clone(), (epoch.all, Arc::clone(&server)));
        Ok(server)
    }
}

/// A connection to the registry with a statement under way. If it is dropped before the statement ends, it is
/// closed: back in the pool, it would make the next caller wait for a statement whose result is not needed.
struct Reading(Option<RegistryClient>);

impl Reading {
    fn client(&self) -> &RegistryClient {
        self.0
            .as_ref()
            .expect("the client is there until the reading is done")
    }

    fn done(&mut self) {
        self.0 = None;
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(RegistryClient::take(client));
        }
    }
}
