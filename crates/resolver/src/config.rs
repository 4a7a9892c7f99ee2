use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

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
    /// The most pools open at once. At the bound the least recently used pool with nothing on loan is closed, one without a connection
    /// before one that has some. An empty pool costs about a kilobyte, so let this exceed the tenants that are active at the same
    /// time.
    pub pools_max: usize,
    /// The most connections of this process to one server; none exists beyond it, whatever is evicted, cancelled or killed.
    pub budget: usize,
    /// The connections of a server that are left to others: the registry, LISTEN, dumps, migrations, people. A budget that
    /// does not fit beside it is refused.
    pub reserve: usize,
    /// The most connections of one tenant; at most the budget.
    pub pool_size_max: usize,
    /// How long a tenant keeps a connection while others wait for one.
    pub tenure: Duration,
    /// The most connects under way at once to one server.
    pub connects_max: usize,
    /// Drive each connection on the runtime of the caller that waited for it, not on the one that the resolver was started
    /// on. Where callers have runtimes of their own, as actix-web's workers have, it saves each round trip two changes of
    /// thread. Such a runtime has to keep running: while it is blocked its connections stand still, whoever has them on loan,
    /// and when it ends they end.
    pub drive_on_callers: bool,
    /// The most prepared statements cached with a connection; looked at when it is given back.
    pub statements_max: usize,
    /// The most callers that may wait for one tenant's connections, or for room for another pool.
    pub waiting_max: usize,
    /// The longest wait for a connection, a connect and room for a pool included.
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
    /// Names this process among its like, the same after a restart: the connections that its predecessor left behind on a
    /// server count against the budget until they are gone. Letters, digits, `-`, `_` and `.`; at most 32 of them count. By
    /// default a name that no other resolver has.
    pub instance: Option<String>,
    /// How long the registration of this process in the registry lives without renewal; it is renewed three times as often.
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

    /// What shows in `pg_stat_activity`: the instance, then a number of this very resolver.
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
