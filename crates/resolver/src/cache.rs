//! Snapshots of tenants: read once, shared by all, dropped when they change.
//!
//! Invariant: a snapshot read before a change was announced is never used after it ([`crate::cache_epoch`]). The one
//! exception is stated: while the registry cannot be reached, a tenant that was known before goes on being served for
//! `outage_max`, unless a change of that very tenant was announced since.
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

/// Enough for the mistakes of a moment; more would let a stranger fill the memory with ids that do not exist.
const ABSENT_MAX: u64 = 1_024;

/// Bounds the results of reads that are kept for those who waited for them: they are in `known`, too.
const READS_MAX: u64 = 4_096;
const READS_KEPT: Duration = Duration::from_secs(1);

/// A snapshot and the epoch that it was read under.
#[derive(Debug, Clone)]
struct Known {
    snapshot: Arc<Snapshot>,
    epoch: CacheEpoch,
}

/// A snapshot and the state of the fence before it was asked for.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) epoch: CacheEpoch,
    /// Not read under this epoch: the registry is away.
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

    /// The state of the fence under which the snapshot may be used again without another look.
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
    /// What is known: to be used as it is under the epoch it was read under, and through an outage of the registry for as
    /// long as only `CacheEpoch::all` has been raised since, as a lost connection does.
    known: Cache<TenantId, Known>,
    /// Reads under way: all who ask for one tenant wait for one read.
    reads: Cache<(TenantId, CacheEpoch), Arc<Snapshot>>,
    /// Tenants that do not exist.
    absent: Cache<(TenantId, CacheEpoch), ()>,
    /// The servers, with `CacheEpoch::all` as it was before they were read: a change of a server raises it. There are few.
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
            // Least recently used, not TinyLFU: a newcomer is asked for again at once.
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

    /// The tenant as it is, or was at the latest announced change; one read of the registry however many callers ask.
    pub(crate) async fn view(&self, tenant: TenantId) -> Result<View, ResolveError> {
        // Before anything is looked at: see the fence.
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
            // It has grown old; a read that was kept for others may be as old.
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

    /// Forgets the tenant: what was read about it so far is not used again.
    pub(crate) fn forget(&self, tenant: TenantId) {
        self.epochs.advance(tenant);
        self.counters.invalidations.fetch_add(1, Relaxed);
    }

    /// Forgets all, because changes may have been missed.
    pub(crate) fn forget_all(&self) {
        self.epochs.advance_all();
        self.counters.invalidations_all.fetch_add(1, Relaxed);
    }

    /// Whether the registry answers; ends the outage when it does.
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

    /// The id behind a slug. Not cached: a slug may be given to another tenant.
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

    /// Whether an outage of the registry leaves anybody served.
    pub(crate) fn remembers_any(&self, window: VersionWindow) -> bool {
        self.known.iter().any(|(tenant, known)| {
            self.is_remembered(*tenant, &known) && known.snapshot.admit(window).is_ok()
        })
    }

    /// Whether this may be used while the registry is away.
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

    /// A read that began earlier and ends later must not take the place of a newer one.
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

/// A connection to the registry with a statement under way. Dropped in the middle it is closed: back in its pool it
/// would make the next borrower wait for a statement that nobody wants.
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
