use std::time::Duration;

use identity::Sealer;
use model::VersionWindow;
use registry::Registry;

/// What a [`Resolver`](crate::Resolver) needs and how far it may go. Every wait and every count has its bound here.
///
/// [`ResolverConfig::new`] fills in the bounds; change the ones you need:
/// `ResolverConfig { pool_size_max: 8, ..ResolverConfig::new(registry, sealer, window) }`.
#[derive(Clone)]
pub struct ResolverConfig {
    /// Where tenants are looked up.
    pub registry: Registry,
    /// Opens the sealed passwords of the tenants' roles.
    pub sealer: Sealer,
    /// The tenant schemas that this binary may serve.
    pub window: VersionWindow,
    /// The most pools open at once. At the bound the least recently used pool with nothing on loan is closed.
    pub pools_max: usize,
    /// The most connections of one tenant.
    pub pool_size_max: usize,
    /// The most callers that may wait for one tenant's connections, or for room for another pool.
    pub waiting_max: usize,
    /// The longest wait for a connection or for room for a pool; a connect comes on top, with its own limit.
    pub checkout_timeout: Duration,
    /// The limit over one whole connect to a tenant's server, log-in included.
    pub connect_timeout: Duration,
    /// The limit over one look-up in the registry.
    pub registry_timeout: Duration,
    /// `statement_timeout` on tenants' connections, and the longest they may idle inside a transaction.
    pub statement_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How old a connection may grow. Each gets up to a tenth less or more, so that they do not end together.
    pub lifetime_max: Duration,
    /// How long a snapshot is used without a fresh look. Changes are announced at once; this is the safety net.
    pub snapshot_ttl: Duration,
    /// How long "there is no such tenant" is remembered.
    pub absent_ttl: Duration,
    /// How long known tenants are served while the registry cannot be reached.
    pub outage_max: Duration,
    /// The most snapshots kept.
    pub snapshots_max: u64,
}

impl ResolverConfig {
    /// The configuration with the bounds that suit one machine.
    #[must_use]
    pub fn new(registry: Registry, sealer: Sealer, window: VersionWindow) -> Self {
        Self {
            registry,
            sealer,
            window,
            pools_max: 200,
            pool_size_max: 4,
            waiting_max: 1_000,
            checkout_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(3),
            registry_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            lifetime_max: Duration::from_secs(30 * 60),
            snapshot_ttl: Duration::from_secs(30),
            absent_ttl: Duration::from_secs(5),
            outage_max: Duration::from_secs(10 * 60),
            snapshots_max: 100_000,
        }
    }
}
