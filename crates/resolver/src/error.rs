use std::{sync::Arc, time::Duration};

use identity::SealError;
use model::{SchemaVersion, ServerName, Slug, TenantId, TenantState};
use registry::RegistryError;

use crate::CapacityError;

/// Why a tenant cannot be served now. Each variant carries the figures that its message needs; none carries a secret.
///
/// It can be cloned because all callers that wait for one look-up get the same answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveError {
    /// The registry has no such tenant.
    #[error("there is no laboratory {tenant}")]
    UnknownTenant {
        /// The id that was asked for.
        tenant: TenantId,
    },
    /// The registry has no tenant of this short name.
    #[error("there is no laboratory {slug}")]
    UnknownSlug {
        /// The short name that was asked for.
        slug: Slug,
    },
    /// A short name could not be looked up.
    #[error("laboratory {slug} cannot be looked up: {source}")]
    SlugLookup {
        /// The short name that was asked for.
        slug: Slug,
        /// What is wrong.
        source: Arc<RegistryError>,
    },
    /// The tenant exists and is closed for its users.
    #[error("laboratory {tenant} is {state} and not in service")]
    NotServing {
        /// Which tenant.
        tenant: TenantId,
        /// The state it is in.
        state: TenantState,
    },
    /// Its schema is older than this binary understands.
    #[error(
        "laboratory {tenant} has schema version {have} and this program needs {need}; run `tenantctl migrate --all`"
    )]
    Behind {
        /// Which tenant.
        tenant: TenantId,
        /// The version of its schema.
        have: SchemaVersion,
        /// The oldest version that is served.
        need: SchemaVersion,
    },
    /// A newer binary has migrated it.
    #[error(
        "laboratory {tenant} has schema version {have} and this program knows none past {newest}; update the program"
    )]
    Ahead {
        /// Which tenant.
        tenant: TenantId,
        /// The version of its schema.
        have: SchemaVersion,
        /// The newest version that is served.
        newest: SchemaVersion,
    },
    /// The registry cannot be reached and this process does not know the tenant.
    #[error("laboratory {tenant} cannot be looked up: {reason}; is the registry's server up and reachable?")]
    RegistryUnavailable {
        /// Which tenant.
        tenant: TenantId,
        /// What the registry's driver says.
        reason: String,
    },
    /// The registry answered with something that cannot be used.
    #[error("laboratory {tenant} cannot be looked up: {source}")]
    Registry {
        /// Which tenant.
        tenant: TenantId,
        /// What is wrong.
        source: Arc<RegistryError>,
    },
    /// The tenant's row lacks what a connection needs.
    #[error("laboratory {tenant} cannot be connected to: {missing}; run `tenantctl show` on it")]
    Incomplete {
        /// Which tenant.
        tenant: TenantId,
        /// What is missing.
        missing: String,
    },
    /// The server of the tenant's database did not let us in, or not in time.
    #[error("server {server} of laboratory {tenant} is not available: {reason}")]
    ServerUnavailable {
        /// Which tenant.
        tenant: TenantId,
        /// The server's name in the registry.
        server: ServerName,
        /// What the driver says.
        reason: String,
    },
    /// The server did not answer several times in a row. It is tried again in the background; meanwhile everybody is refused
    /// at once.
    #[error(
        "server {server} of laboratory {tenant} is down: {reason}; it is tried again in {} ms",
        .retry_after.as_millis()
    )]
    ServerDown {
        /// Which tenant.
        tenant: TenantId,
        /// The server's name in the registry.
        server: ServerName,
        /// Why the latest connect came to nothing.
        reason: String,
        /// How soon it is tried again.
        retry_after: Duration,
    },
    /// All connections of the budget stayed with other tenants.
    #[error(
        "all {budget} connections to server {server} stayed in use for {} ms and laboratory {tenant} got none; try again, or raise `budget`",
        .waited.as_millis()
    )]
    BudgetBusy {
        /// Which tenant.
        tenant: TenantId,
        /// The server's name in the registry.
        server: ServerName,
        /// The most connections to it.
        budget: usize,
        /// How long the caller waited.
        waited: Duration,
    },
    /// The configured budget does not fit the server.
    #[error("laboratory {tenant} is not connected to server {server}: {source}")]
    BudgetTooLarge {
        /// Which tenant.
        tenant: TenantId,
        /// The server's name in the registry.
        server: ServerName,
        /// The figures.
        source: CapacityError,
    },
    /// The server is there and refuses this log-in: wrong password, no such role, no such or a closed database, or the limit of this
    /// one role is reached.
    #[error(
        "server {server} refuses the log-in of laboratory {tenant}: {reason}; unless it is just being closed its role or database differs \
         from the registry's record: `tenantctl doctor --deep` names the cause"
    )]
    LoginRefused {
        /// Which tenant.
        tenant: TenantId,
        /// The server's name in the registry.
        server: ServerName,
        /// What the server says.
        reason: String,
    },
    /// All of the tenant's connections stayed in use.
    #[error(
        "all {max} connections of laboratory {tenant} stayed in use for {} ms; try again, or raise the pool's size",
        .waited.as_millis()
    )]
    PoolTimeout {
        /// Which tenant.
        tenant: TenantId,
        /// The most connections that it may have.
        max: usize,
        /// How long the caller waited.
        waited: Duration,
    },
    /// All pools stayed in use and this tenant has none yet.
    #[error(
        "all {pools_max} pools stayed in use for {} ms and laboratory {tenant} has none; try again, or raise `pools_max`",
        .waited.as_millis()
    )]
    PoolsBusy {
        /// Which tenant.
        tenant: TenantId,
        /// The most pools that may be open.
        pools_max: usize,
        /// How long the caller waited.
        waited: Duration,
    },
    /// As many callers wait already as may.
    #[error("{waiting} requests of laboratory {tenant} wait already and {max} may; try again later")]
    QueueFull {
        /// Which tenant.
        tenant: TenantId,
        /// How many wait.
        waiting: usize,
        /// How many may.
        max: usize,
    },
    /// The tenant's record changed again and again while a connection was being made for it.
    #[error("the record of laboratory {tenant} is changing; try again")]
    Changing {
        /// Which tenant.
        tenant: TenantId,
    },
    /// The password of the tenant's role cannot be opened, most often because it was sealed with another key.
    #[error("the sealed password of laboratory {tenant} cannot be opened: {source}")]
    Unseal {
        /// Which tenant.
        tenant: TenantId,
        /// Names both keys when they differ.
        source: SealError,
    },
    /// Connections of the tenant were still in use at the end of the time that a drain was given.
    #[error(
        "{connections} connections of laboratory {tenant} were still in use after {} ms",
        .waited.as_millis()
    )]
    StillInUse {
        /// Which tenant.
        tenant: TenantId,
        /// How many are left.
        connections: usize,
        /// How long the drain waited.
        waited: Duration,
    },
}
