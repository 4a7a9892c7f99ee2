//! The typed structs, one for each concern. Durations and sizes carry their unit in the name.

use std::{net::SocketAddr, path::PathBuf};

use ipnet::IpNet;
use model::{DbName, Namespace, Slug, TenantId};
use secrecy::SecretString;

use crate::Explained;

/// Everything both binaries are told from outside.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the registry is.
    pub registry: RegistrySettings,
    /// Where the laboratories' databases are.
    pub tenant_server: TenantServerSettings,
    /// Whose staff may log in without being listed in the registry.
    pub default_tenant: DefaultTenant,
    /// Directories.
    pub paths: Paths,
    /// Archives.
    pub archive: Archive,
    /// tenantd's HTTP side.
    pub http: Http,
    /// The pools.
    pub router: Router,
    /// Passwords and tokens.
    pub auth: Auth,
    /// Operations.
    pub worker: Worker,
    /// What a laboratory's role may take of its server.
    pub roles: Roles,
    /// Events out.
    pub webhooks: Webhooks,
    /// Logging.
    pub log: Log,
    /// Names on the servers.
    pub names: Names,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    pub(crate) explained: Vec<Explained>,
}

/// Where the registry is.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// The server; `None` means the embedded one.
    pub server: Option<ServerAddress>,
    /// The registry's database, on whichever server.
    pub database: String,
    /// Most connections of one process.
    pub pool_max: usize,
    /// Limit on connecting.
    pub connect_timeout_ms: u64,
    /// Limit on waiting for a free connection.
    pub checkout_timeout_ms: u64,
}

/// A PostgreSQL server that others run.
#[derive(Debug, Clone)]
pub struct ServerAddress {
    /// Host name, address or socket directory.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Its password; empty when none is set.
    pub password: SecretString,
}

/// Where the laboratories' databases are. What is `None` is as for the registry.
#[derive(Debug, Clone)]
pub struct TenantServerSettings {
    /// Host name, address or socket directory.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// A superuser there.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<SecretString>,
}

/// Whose staff may log in without being listed in the registry.
#[derive(Debug, Clone)]
pub struct DefaultTenant {
    /// The first hint that is set, in the order id, slug, database, `PGDATABASE`.
    pub hint: Option<DefaultTenantHint>,
    /// Where the hint came from, for messages to ops: `variable SINGLE_TENANT_SLUG`.
    pub source: Option<String>,
}

/// How the default laboratory is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultTenantHint {
    /// By its id.
    Id(TenantId),
    /// By its slug.
    Slug(Slug),
    /// By its database.
    Database(DbName),
}

/// Directories, all absolute.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Keys and the embedded server's data.
    pub state_dir: PathBuf,
    /// Dumps of offboarded laboratories.
    pub archive_dir: PathBuf,
    /// PostgreSQL's programs; `None` finds the newest.
    pub pg_bin: Option<PathBuf>,
}

impl Paths {
    /// Where the keys lie.
    #[must_use]
    pub fn keys_dir(&self) -> PathBuf {
        self.state_dir.join("keys")
    }

    /// Where the embedded server keeps its data.
    #[must_use]
    pub fn embedded_dir(&self) -> PathBuf {
        self.state_dir.join("postgres")
    }
}

/// Archives.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Where they go; `None` is the archive directory.
    pub url: Option<String>,
    /// For whom they are encrypted.
    pub age_recipient: Option<String>,
    /// What opens them.
    pub age_identity_file: Option<PathBuf>,
    /// auto, gzip, zstd or none.
    pub compression: String,
    /// Connections of one restore.
    pub jobs: usize,
}

/// tenantd's HTTP side.
#[derive(Debug, Clone)]
pub struct Http {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What links for people begin with, without a slash at its end.
    pub public_url: Option<String>,
    /// Largest file that is imported.
    pub body_max_bytes: usize,
    /// Most bytes of all larger bodies together.
    pub bodies_max_bytes: usize,
    /// Reverse proxies that say for whom they ask.
    pub trusted_proxies: Vec<IpNet>,
    /// Where they say it.
    pub client_header: ClientHeader,
    /// Limit on one request.
    pub request_timeout_ms: u64,
    /// How long requests may finish after a signal to stop.
    pub shutdown_grace_ms: u64,
    /// How long `/readyz` says 503 after SIGTERM before connections are refused.
    pub shutdown_announce_ms: u64,
    /// Threads that serve; `None` is one for each processor.
    pub workers: Option<usize>,
}

/// The header in which a trusted proxy says for whom it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` of RFC 7239.
    Forwarded,
}

/// The pools.
#[derive(Debug, Clone)]
pub struct Router {
    /// Most laboratories with an open pool.
    pub pools_max: usize,
    /// Most connections to one laboratory.
    pub pool_size_max: usize,
    /// Most connections to one server.
    pub budget: usize,
    /// Connections of a server that are left to others.
    pub reserve: usize,
    /// Whether budgets of all processes that do not fit a server together keep this one from starting.
    pub refuse_overbooking: bool,
    /// How long a laboratory keeps a connection while others wait.
    pub tenure_ms: u64,
    /// Most connects under way at once to one server.
    pub connects_max: usize,
    /// Limit on waiting for a connection.
    pub checkout_timeout_ms: u64,
    /// Limit on connecting.
    pub connect_timeout_ms: u64,
    /// Age at which a cached tenant row is read again.
    pub snapshot_ttl_ms: u64,
    /// Most requests waiting for one laboratory.
    pub waiting_max: usize,
    /// How long an idle connection is kept.
    pub idle_timeout_ms: u64,
    /// Limit on one statement.
    pub statement_timeout_ms: u64,
    /// How long known laboratories are served without the registry.
    pub outage_max_s: u64,
    /// Most prepared statements kept on one connection.
    pub statements_max: usize,
    /// How long a registration lives without renewal.
    pub ttl_s: u64,
}

/// Passwords and tokens.
#[derive(Debug, Clone)]
pub struct Auth {
    /// Life of a token.
    pub token_ttl_s: u64,
    /// How long an invitation can be accepted.
    pub invitation_ttl_s: u64,
    /// Most passwords hashed at once.
    pub password_hashes_parallel_max: usize,
    /// Limit on waiting for a turn to hash.
    pub password_hash_wait_ms: u64,
}

/// Operations.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Most operations at once.
    pub parallel_max: usize,
    /// How long an operation stays with a silent worker.
    pub lease_s: u64,
    /// How often a worker looks without being told.
    pub poll_ms: u64,
    /// How many databases are kept ready on each server.
    pub spares: usize,
    /// How often an operation is tried.
    pub attempts_max: u32,
    /// How long offboarding waits for connections to close by themselves.
    pub routers_grace_ms: u64,
    /// How long a removal can be called off.
    pub offboard_grace_s: u64,
    /// Limit on one dump or restore.
    pub dump_limit_s: u64,
}

/// What a laboratory's role may take of its server, and reach there.
#[derive(Debug, Clone)]
pub struct Roles {
    /// Most sessions of one role.
    pub connections_max: u32,
    /// Most temporary files of one session, in MiB.
    pub temp_file_max_mb: u32,
    /// Whether a server with databases of others that are open to every role is refused.
    pub open_databases_refused: bool,
}

/// Events out.
#[derive(Debug, Clone)]
pub struct Webhooks {
    /// Limit on one request.
    pub timeout_ms: u64,
    /// How often an event is sent before it is given up.
    pub attempts_max: u32,
    /// How long it waits before it is given up.
    pub age_max_s: u64,
    /// The wait behind the first failed attempt.
    pub backoff_min_ms: u64,
    /// The longest wait between two attempts.
    pub backoff_max_s: u64,
    /// A webhook is switched off when nothing got through for so long.
    pub off_after_s: u64,
    /// How long events are kept.
    pub keep_s: u64,
    /// Most requests at once.
    pub parallel_max: usize,
    /// How often it is looked for events that are due.
    pub poll_ms: u64,
    /// Whether they may lead to addresses that are not the internet's.
    pub private_addresses: bool,
}

/// Logging.
#[derive(Debug, Clone)]
pub struct Log {
    /// Levels and modules, in tracing's own notation; it was parsed once and is valid.
    pub filter: String,
    /// How a line is written.
    pub format: LogFormat,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Names on the servers.
#[derive(Debug, Clone)]
pub struct Names {
    /// Prefix of databases and roles.
    pub namespace: Namespace,
}
