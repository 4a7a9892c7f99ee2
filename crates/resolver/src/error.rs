use std::{sync::Arc, time::Duration};

use identity::SealError;
use model::{SchemaVersion, ServerName, Slug, TenantId, TenantState};
use registry::RegistryError;

use crate::CapacityError;

/// Why a tenant cannot be served now. Each variant carries the figures that its message needs; none carries a
/// secret.
///
/// The type is `Clone` because all callers that wait for one look-up get the same error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveError {
    /// The registry has no tenant with this id.
    #[error("no laboratory has the id {tenant}")]
    UnknownTenant {
        /// The id that the caller passed.
        tenant: TenantId,
    },
    /// The registry has no tenant with this slug.
    #[error("no laboratory has the slug {slug}")]
    UnknownSlug {
        /// The slug that the caller passed.
        slug: Slug,
    },
    /// The registry could not be asked for a slug.
    #[error("cannot look up laboratory {slug}: {source}")]
    SlugLookup {
        /// The slug that the caller passed.
        slug: Slug,
        /// What is wrong.
        source: Arc<RegistryError>,
    },
    /// The tenant exists, and its state does not serve its users.
    #[error("laboratory {tenant} is {state} and not in service")]
    NotServing {
        /// Which tenant.
        tenant: TenantId,
        /// The state it is in.
        state: TenantState,
    },
    /// The tenant's schema is older than this binary supports.
    #[error(
        "laboratory {tenant} has schema version {have}, and this program needs at least {need}; \
         run `tenantctl migrate --all`"
    )]
    Behind {
        /// Which tenant.
        tenant: TenantId,
        /// The version of its schema.
        have: SchemaVersion,
        /// The oldest version that is served.
        need: SchemaVersion,
    },
    /// A newer binary has migrated the tenant.
    #[error(
        "laboratory {tenant} has schema version {have}, and this program supports none past {newest}; \
         update the program"
    )]
    Ahead {
        /// Which tenant.
        tenant: TenantId,
        /// The version of its schema.
        have: SchemaVersion,
        /// The newest version that is served.
        newest: SchemaVersion,
    },
    /// The registry cannot be reached, and this process has not cached the tenant.
    #[error(
        "cannot look up laboratory {tenant}: {reason}; check that the registry's server is up and reachable"
    )]
    RegistryUnavailable {
        /// Which tenant.
        tenant: TenantId,
        /// What the registry's driver says.
        reason: String,
    },
    /// The registry's answer could not be used.
    #[error("cannot look up laboratory {tenant}: {source}")]
    Registry {
        /// Which tenant.
        tenant: TenantId,
        /// What is wrong.
        source: Arc<RegistryError>,
    },
    /// The tenant's row lacks what a connection needs.
    #[error("cannot connect to laboratory {tenant}: {missing}; run `tenantctl show` on it")]
    Incomplete {
        /// Which tenant.
        tenant: TenantId,
        /// What is missing.
        missing: String,
    },
    /// The server of the tenant's database refused the connection, or did not answer in time.
    #[error("server {server} of laboratory {tenant} is not available: {reason}")]
    ServerUnavailable {
        /// Which tenant.
        tenant: TenantId,
        /// The server's name in the registry.
        server: ServerName,
        /// What the driver says.
        reason: String,
    },
    /// The server did not answer several times in a row. The arbiter tries it again in the background, and
    /// refuses all callers at once until it answers.
    #[error(
        "server {server} of laboratory {tenant} is down: {reason}; the next attempt is in {} ms",
        .retry_after.as_millis()
    )]
    ServerDown {
        /// Which tenant.
        tenant: TenantId,
        /// The server's name in the registry.
        server: ServerName,
        /// Why the latest connect failed.
        reason: String,
        /// How soon the arbiter tries the server again.
        retry_after: Duration,
    },
    /// Other tenants kept all connections of the budget.
    #[error(
        "laboratory {tenant} got no connection within {} ms: all {budget} connections to server {server} \
         were in use; try again, or raise `budget`",
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
    #[error("cannot connect to laboratory {tenant} on server {server}: {source}")]
    BudgetTooLarge {
        /// Which tenant.
        tenant: TenantId,
        /// The server's name in the registry.
        server: ServerName,
        /// The figures.
        source: CapacityError,
    },
    /// The server answers and refuses this log-in: the password is wrong, the role or database does not
    /// exist, the database accepts no connections, or the role has reached its own connection limit.
    #[error(
        "server {server} refuses the log-in of laboratory {tenant}: {reason}; unless the laboratory is being \
         closed just now, its role or database differs from the registry's record: \
         run `tenantctl doctor --deep`"
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
        "all {max} connections of laboratory {tenant} were in use for {} ms; \
         try again, or raise `pool_size_max`",
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
    /// All pools stayed in use, and this tenant has no pool yet.
    #[error(
        "laboratory {tenant} got no pool within {} ms: all {pools_max} pools were in use; \
         try again, or raise `pools_max`",
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
    /// As many callers wait as may.
    #[error("checkout queue of laboratory {tenant} full: {waiting} waiting (limit {max}); try again later")]
    QueueFull {
        /// Which tenant.
        tenant: TenantId,
        /// How many callers wait.
        waiting: usize,
        /// How many callers may wait.
        max: usize,
    },
    /// The tenant's row changed several times in a row during one checkout.
    #[error("the registry's record of laboratory {tenant} kept changing during the checkout; try again")]
    Changing {
        /// Which tenant.
        tenant: TenantId,
    },
    /// The password of the tenant's role cannot be decrypted, most often because it was sealed with another
    /// key.
    #[error("cannot decrypt the password of laboratory {tenant}: {source}")]
    Unseal {
        /// Which tenant.
        tenant: TenantId,
        /// Names both keys when they differ.
        source: SealError,
    },
    /// A drain reached its time limit while connections of the tenant were in use.
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
