use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use identity::Sealer;
use model::VersionWindow;
use registry::Registry;

/// What a [`Resolver`](crate::Resolver) needs, and its bounds: every wait and every count has its bound here.
///
/// [`ResolverConfig::new`] fills in the bounds; change the ones you need:
/// `ResolverConfig { pool_size_max: 8, ..ResolverConfig::new(registry, sealer, window) }`.
#[derive(Clone)]
pub struct ResolverConfig {
    /// Where tenants are looked up.
    pub registry: Registry,
    /// Decrypts the sealed passwords of the tenants' roles.
    pub sealer: Sealer,
    /// The tenant schemas that this binary may serve.
    pub window: VersionWindow,
    /// The most pools open at once. At the bound, the resolver closes the least recently used pool that no
    /// caller is using; pools without a connection go first. An empty pool costs about a kilobyte, so let
    /// this exceed the number of tenants that are active at the same time.
    pub pools_max: usize,
    /// The most connections of this process to one server. No connection exists beyond it, whatever is
    /// evicted, cancelled or killed.
    pub budget: usize,
    /// The connections of a server that are left to others: the registry, LISTEN, dumps, migrations, people.
    /// The resolver does not use a server whose `max_connections` has no room for budget and reserve.
    pub reserve: usize,
    /// The most connections of one tenant; at most the budget.
    pub pool_size_max: usize,
    /// How long a tenant keeps a connection while others wait for one.
    pub tenure: Duration,
    /// The most connects under way at once to one server.
    pub connects_max: usize,
    /// Drive each connection on the runtime of the caller that waited for it, and not on the runtime on which
    /// the resolver was started. Where callers have runtimes of their own, as actix-web's workers have, this
    /// saves two thread switches per round trip. Such a runtime must keep running: while it is blocked, its
    /// connections make no progress, whichever caller has checked them out; when it ends, they end.
    pub drive_on_callers: bool,
    /// The most prepared statements cached with a connection; checked when it is given back.
    pub statements_max: usize,
    /// The most callers that may wait for one tenant's connections, or for room for another pool.
    pub waiting_max: usize,
    /// The longest wait for a connection, including the connect and the wait for room for a pool.
    pub checkout_timeout: Duration,
    /// The time limit of one connect to a tenant's server, including the log-in.
    pub connect_timeout: Duration,
    /// The time limit of one look-up in the registry.
    pub registry_timeout: Duration,
    /// `statement_timeout` on tenants' connections, and the longest they may idle inside a transaction.
    pub statement_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// The oldest age of a connection. Each connection gets up to a tenth less or more, so that connections
    /// that were made together do not end together.
    pub lifetime_max: Duration,
    /// How long a snapshot is used before it is read again. The registry announces changes at once; this is
    /// the safety net.
    pub snapshot_ttl: Duration,
    /// How long the resolver caches that a tenant does not exist.
    pub absent_ttl: Duration,
    /// How long cached tenants are served while the registry cannot be reached.
    pub outage_max: Duration,
    /// The most snapshots kept.
    pub snapshots_max: u64,
    /// Names this process, and keeps the name over a restart: the connections that its predecessor left on a
    /// server count against the budget until they are gone. Letters, digits, `-`, `_` and `.`; characters
    /// after the 32nd are ignored. By default a name that no other resolver has.
    pub instance: Option<String>,
    /// How long the registration of this process in the registry lasts without renewal; the process renews it
    /// three times in that span.
    pub router_ttl: Duration,
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
            budget: 64,
            reserve: 16,
            pool_size_max: 8,
            tenure: Duration::from_millis(50),
            connects_max: 4,
            drive_on_callers: false,
            statements_max: 256,
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
            instance: None,
            router_ttl: Duration::from_secs(10),
        }
    }

    /// The `application_name` in `pg_stat_activity`: the instance, then a number of this resolver.
    pub(crate) fn application_name(&self) -> String {
        let unique = format!("pid-{}-{:08x}", std::process::id(), random());
        let instance: String = self
            .instance
            .as_ref()
            .unwrap_or(&unique)
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
            .take(32)
            .collect();
        format!("tenantry {instance}:{:08x}", random())
    }
}

/// 32 bits of the randomness that the standard library keys its hash maps with.
fn random() -> u64 {
    RandomState::new().hash_one(0_u8) >> 32
}
