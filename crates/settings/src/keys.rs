//! Every key, once.

use crate::Accept;

/// One thing that can be configured.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in the TOML file: `section.key`.
    pub name: &'static str,
    /// Its one name in the environment.
    pub env: &'static str,
    /// The default.
    pub default: DefaultValue,
    /// What it accepts.
    pub accept: Accept,
    /// What it is for, in one sentence.
    pub meaning: &'static str,
}

/// What holds when a key is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// This number.
    Number(i64),
    /// This text.
    Text(&'static str),
    /// A value worked out at the start, described here.
    Derived(&'static str),
    /// Nothing is set, which means what is described here.
    Unset(&'static str),
}

/// Variables that begin with `TENANTRY_` and are no keys: the file's place, the passwords that `tenantctl
/// provision` and `tenantctl operator create` read, and what the scripts log in with.
pub const OTHER_VARIABLES: &[&str] = &[
    "TENANTRY_ADMIN_PASSWORD",
    "TENANTRY_CONFIG",
    "TENANTRY_OPERATOR_PASSWORD",
    "TENANTRY_PASSWORD",
    "TENANTRY_URL",
];

const PORT: Accept = Accept::Number { min: 1, max: 65_535 };

/// A limit on waiting: 10 ms to 10 minutes.
const WAIT_MS: Accept = Accept::Number {
    min: 10,
    max: 600_000,
};

const fn count(min: i64, max: i64) -> Accept {
    Accept::Number { min, max }
}

const fn key(
    name: &'static str,
    env: &'static str,
    default: DefaultValue,
    accept: Accept,
    meaning: &'static str,
) -> Key {
    Key {
        name,
        env,
        default,
        accept,
        meaning,
    }
}

use DefaultValue::{Derived, Number, Text, Unset};

/// All keys, by section.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("registry.host", "MASTER_PGHOST", Unset("the embedded server"), Accept::Text, "PostgreSQL server of the registry: host name, address or socket directory; localhost when only other MASTER_PG* are set"),
    key("registry.port", "MASTER_PGPORT", Unset("5432"), PORT, "its port"),
    key("registry.user", "MASTER_PGUSER", Unset("postgres"), Accept::Text, "role that owns the registry; it creates databases and roles when it also serves the laboratories"),
    key("registry.password", "MASTER_PGPASSWORD", Unset("none"), Accept::Secret, "its password"),
    key("registry.database", "MASTER_PGDATABASE", Unset("tenantry"), Accept::Database, "the registry's database; `tenantctl up` creates it"),
    key("registry.pool_max", "TENANTRY_REGISTRY_POOL_MAX", Number(8), count(1, 1_000), "most connections of one process to the registry"),
    key("registry.connect_timeout_ms", "TENANTRY_REGISTRY_CONNECT_TIMEOUT_MS", Number(5_000), WAIT_MS, "limit on connecting to the registry, log-in included"),
    key("registry.checkout_timeout_ms", "TENANTRY_REGISTRY_CHECKOUT_TIMEOUT_MS", Number(5_000), WAIT_MS, "limit on waiting for a free connection to the registry"),

    key("tenant_server.host", "TENANT_PGHOST", Unset("the registry's"), Accept::Text, "PostgreSQL server of the laboratories' databases"),
    key("tenant_server.port", "TENANT_PGPORT", Unset("the registry's"), PORT, "its port"),
    key("tenant_server.user", "TENANT_PGUSER", Unset("the registry's"), Accept::Text, "a superuser there: it revokes rights on postgres and template1"),
    key("tenant_server.password", "TENANT_PGPASSWORD", Unset("the registry's"), Accept::Secret, "its password"),

    key("default_tenant.id", "DEFAULT_TENANT_ID", Unset("no default laboratory by id"), Accept::TenantId, "laboratory whose staff log in without being listed in the registry; first hint"),
    key("default_tenant.slug", "SINGLE_TENANT_SLUG", Unset("none by slug"), Accept::Slug, "the same by slug; second hint"),
    key("default_tenant.database", "DEFAULT_TENANT_DB", Unset("none by database"), Accept::Database, "the same by database name; third hint"),
    key("default_tenant.pgdatabase", "PGDATABASE", Unset("none"), Accept::Database, "the same by the name that libpq's programs use; last hint"),

    key("paths.state_dir", "TENANTRY_STATE_DIR", Derived("/var/lib/tenantry for root, else $XDG_STATE_HOME/tenantry or ~/.local/state/tenantry"), Accept::Path, "keys and the embedded server's data"),
    key("paths.archive_dir", "TENANTRY_ARCHIVE_DIR", Derived("<state_dir>/archives"), Accept::Path, "dumps of offboarded laboratories"),
    key("paths.pg_bin", "TENANTRY_PG_BIN", Unset("the newest PostgreSQL found"), Accept::Path, "directory of initdb, postgres, pg_dump and pg_restore"),

    key("archive.url", "TENANTRY_ARCHIVE_URL", Unset("the directory in paths.archive_dir"), Accept::Text, "where archives go: file:///directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, with the credentials that the store's own programs read from the environment; archives stay where they are when it changes, and are found there"),
    key("archive.age_recipient", "TENANTRY_ARCHIVE_AGE_RECIPIENT", Unset("archives are not encrypted"), Accept::Text, "age recipient (age1…) for whom archives are encrypted"),
    key("archive.age_identity_file", "TENANTRY_ARCHIVE_AGE_IDENTITY_FILE", Unset("none"), Accept::Path, "file of the age identity that opens them: needed to prove and to restore an encrypted archive"),
    key("archive.compression", "TENANTRY_ARCHIVE_COMPRESSION", Text("auto"), Accept::Word(&["auto", "gzip", "zstd", "none"]), "how dumps are compressed; auto is zstd where pg_dump can (16 and later), else gzip"),
    key("archive.jobs", "TENANTRY_ARCHIVE_JOBS", Number(2), count(1, 64), "connections of one restore, where the archive is a local file that is not encrypted"),

    key("http.listen", "TENANTRY_HTTP_LISTEN", Text("127.0.0.1:8080"), Accept::Socket, "where tenantd listens"),
    key("http.public_url", "TENANTRY_HTTP_PUBLIC_URL", Unset("links are shown without it"), Accept::WebAddress, "where people reach this tenantd, through the proxy before it: what links in invitations begin with"),
    key("http.body_max_bytes", "TENANTRY_HTTP_BODY_MAX_BYTES", Number(16_777_216), count(1_024, 1_073_741_824), "largest file that is imported; a larger one gets 413, as does any other body above 1 MiB, or 16 KiB before log-in"),
    key("http.bodies_max_bytes", "TENANTRY_HTTP_BODIES_MAX_BYTES", Number(67_108_864), count(16_777_216, 4_294_967_295), "memory of one process for all bodies above 16 KiB that are being read or worked on; a request that finds none free for five seconds gets 503"),
    key("http.trusted_proxies", "TENANTRY_HTTP_TRUSTED_PROXIES", Unset("the peer of a connection is the client"), Accept::Networks, "reverse proxies whose word is taken for who the client is, separated by commas: log-ins are limited for each client, and the audit names it"),
    key("http.client_header", "TENANTRY_HTTP_CLIENT_HEADER", Text("x-forwarded-for"), Accept::Word(&["x-forwarded-for", "forwarded"]), "the header in which they write it; choose the one that your proxy sets itself and does not pass on from clients"),
    key("http.request_timeout_ms", "TENANTRY_HTTP_REQUEST_TIMEOUT_MS", Number(30_000), WAIT_MS, "limit on one request, from its head to its answer"),
    key("http.shutdown_announce_ms", "TENANTRY_HTTP_SHUTDOWN_ANNOUNCE_MS", Number(3_000), count(0, 600_000), "how long /readyz says 503 after SIGTERM while requests are served as before, so that a load balancer stops sending them before connections are refused; set it to the time that its probes take to notice"),
    key("http.shutdown_grace_ms", "TENANTRY_HTTP_SHUTDOWN_GRACE_MS", Number(10_000), count(0, 600_000), "how long requests may finish after a signal to stop"),
    key("http.workers", "TENANTRY_HTTP_WORKERS", Unset("one for each processor"), count(1, 1_024), "threads that serve requests"),

    key("router.pools_max", "TENANTRY_ROUTER_POOLS_MAX", Number(200), count(1, 10_000), "most laboratories with an open pool in one process; past it the least recently used idle pool closes, one without connections first; an empty pool costs about a kilobyte, so let it exceed the laboratories that are active at the same time"),
    key("router.pool_size_max", "TENANTRY_ROUTER_POOL_SIZE_MAX", Number(8), count(1, 1_000), "most connections of one process to one laboratory"),
    key("router.budget", "TENANTRY_ROUTER_BUDGET", Number(64), count(1, 10_000), "most connections of one process to one PostgreSQL server for all its laboratories together, never exceeded; tenantd does not start when the server cannot hold them beside router.reserve; with several tenantd the sum of their budgets has to fit"),
    key("router.reserve", "TENANTRY_ROUTER_RESERVE", Number(16), count(0, 10_000), "connections of each server that are left to others: the registry's pool, listening, migrations, dumps, people"),
    key("router.overbooking", "TENANTRY_ROUTER_OVERBOOKING", Text("warn"), Accept::Word(&["warn", "refuse"]), "what tenantd does at its start when its budget and those of the other running tenantd together do not fit a server: warn, or refuse to start"),
    key("router.tenure_ms", "TENANTRY_ROUTER_TENURE_MS", Number(50), count(1, 10_000), "how long a laboratory keeps a connection while others wait for one; while nobody waits it keeps it until router.idle_timeout_ms"),
    key("router.connects_max", "TENANTRY_ROUTER_CONNECTS_MAX", Number(4), count(1, 1_000), "most connects of one process under way at once to one server"),
    key("router.checkout_timeout_ms", "TENANTRY_ROUTER_CHECKOUT_TIMEOUT_MS", Number(5_000), WAIT_MS, "limit on waiting for a laboratory's connection; past it 503"),
    key("router.connect_timeout_ms", "TENANTRY_ROUTER_CONNECT_TIMEOUT_MS", Number(3_000), WAIT_MS, "limit on connecting to a laboratory's database, log-in included"),
    key("router.snapshot_ttl_ms", "TENANTRY_ROUTER_SNAPSHOT_TTL_MS", Number(30_000), count(100, 3_600_000), "age at which a cached tenant row is read again though no notice of a change came"),
    key("router.waiting_max", "TENANTRY_ROUTER_WAITING_MAX", Number(1_000), count(1, 100_000), "most requests waiting for one laboratory's connections; the next gets 503 at once"),
    key("router.idle_timeout_ms", "TENANTRY_ROUTER_IDLE_TIMEOUT_MS", Number(60_000), count(100, 86_400_000), "how long an idle connection is kept"),
    key("router.statement_timeout_ms", "TENANTRY_ROUTER_STATEMENT_TIMEOUT_MS", Number(30_000), WAIT_MS, "limit on one statement in a laboratory's database"),
    key("router.outage_max_s", "TENANTRY_ROUTER_OUTAGE_MAX_S", Number(600), count(0, 86_400), "how long known laboratories are served while the registry cannot be reached"),
    key("router.statements_max", "TENANTRY_ROUTER_STATEMENTS_MAX", Number(256), count(1, 100_000), "most prepared statements kept on one connection"),
    key("router.ttl_s", "TENANTRY_ROUTER_TTL_S", Number(10), count(1, 3_600), "how long a router stays registered that can no longer renew its registration, which it does every third of this; operations do not wait for it past that"),

    key("auth.token_ttl_s", "TENANTRY_AUTH_TOKEN_TTL_S", Number(3_600), count(60, 86_400), "life of a token"),
    key("auth.invitation_ttl_s", "TENANTRY_AUTH_INVITATION_TTL_S", Number(604_800), count(300, 2_592_000), "how long an invitation can be accepted, by which an administrator sets a password"),
    key("auth.password_hashes_parallel_max", "TENANTRY_AUTH_PASSWORD_HASHES_PARALLEL_MAX", Number(2), count(1, 64), "most passwords hashed at once; each takes 19 MiB, which are kept"),
    key("auth.password_hash_wait_ms", "TENANTRY_AUTH_PASSWORD_HASH_WAIT_MS", Number(5_000), WAIT_MS, "limit on waiting for a turn to hash, which goes round robin over clients; past it 503"),

    key("worker.parallel_max", "TENANTRY_WORKER_PARALLEL_MAX", Number(4), count(1, 64), "most operations that one process runs at once"),
    key("worker.lease_s", "TENANTRY_WORKER_LEASE_S", Number(30), count(2, 3_600), "how long an operation stays with a worker that no longer renews its lease"),
    key("worker.poll_ms", "TENANTRY_WORKER_POLL_MS", Number(5_000), count(100, 600_000), "how often a worker looks for operations when no notice comes"),
    key("worker.spares", "TENANTRY_WORKER_SPARES", Number(2), count(0, 1_000), "how many databases are kept ready on each server, cloned ahead of time, so that making a laboratory costs a rename and not a copy; each takes the disk of an empty laboratory"),
    key("worker.attempts_max", "TENANTRY_WORKER_ATTEMPTS_MAX", Number(8), count(1, 1_000), "how often an operation is tried before it fails for good"),
    key("worker.routers_grace_ms", "TENANTRY_WORKER_ROUTERS_GRACE_MS", Number(5_000), count(0, 600_000), "how long suspending and offboarding wait for routers to let go before the server ends their connections"),
    key("worker.offboard_grace_s", "TENANTRY_WORKER_OFFBOARD_GRACE_S", Number(2_592_000), count(0, 315_360_000), "how long a removal can be called off once its archive is proved, unless the request says otherwise"),
    key("worker.dump_limit_s", "TENANTRY_WORKER_DUMP_LIMIT_S", Number(21_600), count(1, 604_800), "limit on one run of pg_dump or pg_restore"),

    key("roles.connections_max", "TENANTRY_ROLES_CONNECTIONS_MAX", Unset("four times router.pool_size_max, and four"), count(1, 10_000), "most sessions that one laboratory's role may have on its server, over all tenantd: raise it when more than two share a server, since each has two generations while it is restarted; `tenantctl doctor --fix` sets it for roles that are there"),
    key("roles.temp_file_max_mb", "TENANTRY_ROLES_TEMP_FILE_MAX_MB", Number(1_024), count(1, 1_048_576), "most temporary files of one session of a laboratory's role, in MiB"),
    key("roles.open_databases", "TENANTRY_ROLES_OPEN_DATABASES", Text("warn"), Accept::Word(&["refuse", "warn"]), "whether laboratories are made on a server with databases of others that every role may connect to, as PostgreSQL makes them: warn lists what a laboratory's role can reach there, refuse makes none until they are closed"),

    key("webhooks.timeout_ms", "TENANTRY_WEBHOOKS_TIMEOUT_MS", Number(10_000), count(100, 60_000), "limit on one request to a webhook, from the look-up of its name to the end of the answer"),
    key("webhooks.attempts_max", "TENANTRY_WEBHOOKS_ATTEMPTS_MAX", Number(20), count(1, 1_000), "how often an event is sent to a webhook before it is given up"),
    key("webhooks.age_max_s", "TENANTRY_WEBHOOKS_AGE_MAX_S", Number(259_200), count(1, 2_592_000), "how long an event waits for a webhook before it is given up, also for one that is switched off"),
    key("webhooks.backoff_min_ms", "TENANTRY_WEBHOOKS_BACKOFF_MIN_MS", Number(2_000), count(10, 600_000), "the wait behind the first failed attempt; each later one doubles it"),
    key("webhooks.backoff_max_s", "TENANTRY_WEBHOOKS_BACKOFF_MAX_S", Number(21_600), count(1, 86_400), "longest wait between two attempts"),
    key("webhooks.off_after_s", "TENANTRY_WEBHOOKS_OFF_AFTER_S", Number(432_000), count(1, 2_592_000), "a webhook is switched off when every attempt has failed for so long, and at least five did"),
    key("webhooks.keep_s", "TENANTRY_WEBHOOKS_KEEP_S", Number(2_592_000), count(3_600, 315_360_000), "how long events and their deliveries are kept"),
    key("webhooks.parallel_max", "TENANTRY_WEBHOOKS_PARALLEL_MAX", Number(16), count(1, 256), "most requests to webhooks under way in one process; a quarter of them to one webhook"),
    key("webhooks.poll_ms", "TENANTRY_WEBHOOKS_POLL_MS", Number(1_000), count(10, 600_000), "how often a process looks for events that are due"),
    key("webhooks.private_addresses", "TENANTRY_WEBHOOKS_PRIVATE_ADDRESSES", Text("refuse"), Accept::Word(&["refuse", "allow"]), "whether webhooks may lead to addresses that are not the internet's, such as 10.0.0.0/8 or this machine"),

    key("log.filter", "TENANTRY_LOG_FILTER", Text("info,actix_server=warn"), Accept::LogFilter, "what is logged"),
    key("log.format", "TENANTRY_LOG_FORMAT", Text("text"), Accept::Word(&["text", "json"]), "how a log line is written"),

    key("names.namespace", "TENANTRY_NAMES_NAMESPACE", Text("lab"), Accept::Namespace, "prefix of every database and role that this installation makes"),
];
