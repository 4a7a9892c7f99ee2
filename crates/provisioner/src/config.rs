use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use identity::Sealer;
use model::{Email, Namespace, StaffId, TenantId};
use registry::{Registry, RegistryClock};

use crate::BoxError;

/// Writes a new laboratory's first rows: its profile and its first staff member. It runs in a transaction on
/// the administrator's connection and is called again after a crash, so it must be content with rows that are
/// there.
///
/// A hook and not a call, because the provisioner knows nothing of what a laboratory does.
pub type SeedHook = Arc<
    dyn for<'a> Fn(&'a tokio_postgres::Transaction<'a>, &'a Seed) -> BoxFuture<'a, Result<(), BoxError>>
        + Send
        + Sync,
>;

/// What a new laboratory begins with.
#[derive(Debug, Clone)]
pub struct Seed {
    /// Its id in the registry.
    pub tenant: TenantId,
    /// Its name.
    pub name: String,
    /// IANA name of its time zone.
    pub time_zone: String,
    /// The first administrator, who has the same id in the registry.
    pub admin_id: StaffId,
    /// Log-in name.
    pub admin_email: Email,
    /// The person's name.
    pub admin_name: String,
}

/// What the provisioner works with.
#[derive(Clone)]
pub struct ProvisionerConfig {
    /// The master database.
    pub registry: Registry,
    /// Opens the administrators' passwords (context `server:<name>`) and seals the laboratories'
    /// (`tenant:<id>:role`).
    pub sealer: Sealer,
    /// The prefix of every database and role.
    pub namespace: Namespace,
    /// Where archives are written unless `archive.url` says otherwise. Workers on several hosts must see the
    /// same directory.
    pub archive_dir: PathBuf,
    /// How archives are written.
    pub archive: ArchiveOptions,
    /// Where `pg_dump` and `pg_restore` are; when absent, those of the server's version or else the newest
    /// installed.
    pub pg_bin: Option<PathBuf>,
    /// How long a claim holds without being renewed.
    pub lease: Duration,
    /// The other limits.
    pub bounds: Bounds,
    /// What a laboratory's role may take of its server, and reach on it.
    pub roles: RolePolicy,
    /// Writes a laboratory's first rows.
    pub seed: SeedHook,
    /// The registry's clock, for how far this machine's own is off. What is compared is compared by the
    /// registry itself.
    pub clock: RegistryClock,
}

/// What a laboratory's own role may take of its server, and reach there beside its database.
#[derive(Debug, Clone)]
pub struct RolePolicy {
    /// The most sessions that one role may have (`CONNECTION LIMIT`), over all routers.
    pub connections_max: u32,
    /// The most temporary files of one session, in MiB (`temp_file_limit`, which only a superuser can
    /// change).
    pub temp_file_max_mb: u32,
    /// What to do about databases of others on the server that every role may connect to.
    pub open_databases: OpenRule,
}

impl Default for RolePolicy {
    fn default() -> Self {
        Self {
            connections_max: 36,
            temp_file_max_mb: 1024,
            open_databases: OpenRule::Warn,
        }
    }
}

/// What to do about databases that PUBLIC may connect to, as PostgreSQL's `CREATE DATABASE` makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenRule {
    /// No laboratory is made on such a server, and the doctor names them.
    Refuse,
    /// They are listed.
    Warn,
}

/// How archives are written, and where to.
#[derive(Debug, Clone)]
pub struct ArchiveOptions {
    /// The store, as [`archive::Store::open`] reads it; the archive directory when absent.
    pub url: Option<String>,
    /// For whom they are encrypted.
    pub keys: archive::Keys,
    /// How dumps are compressed.
    pub compression: archive::Compression,
    /// How many connections a restore has.
    pub jobs: usize,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        Self {
            url: None,
            keys: archive::Keys::default(),
            compression: archive::Compression::default(),
            jobs: 2,
        }
    }
}

/// Limits of operations and their worker.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// How long a connection to a server and its log-in may take.
    pub connect_timeout: Duration,
    /// How often an operation is tried, counted anew for its undoing, before it fails for good.
    pub attempts_max: u32,
    /// The wait after the first failed try; each later one doubles it.
    pub backoff_min: Duration,
    /// The longest wait between two tries.
    pub backoff_max: Duration,
    /// How many operations one worker runs at once.
    pub operations_parallel_max: usize,
    /// How many databases are kept ready on each server, cloned ahead of time.
    pub spares: usize,
    /// How often it is looked whether as many are there.
    pub spares_every: Duration,
    /// How often a worker looks for work of which no notification reached it.
    pub poll_every: Duration,
    /// How long a fence waits for routers to let go of a laboratory by themselves.
    pub routers_grace: Duration,
    /// How often a worker looks whether laboratories that do not serve are closed on their servers too.
    pub fences_every: Duration,
    /// How often a worker looks for backups that are due.
    pub schedules_every: Duration,
    /// How long an operation is left to other hosts when what it needs cannot be read on this one.
    pub elsewhere_limit: Duration,
    /// How long sessions that were asked to end may take.
    pub sessions_end_limit: Duration,
    /// How long `pg_dump`, `pg_restore` and the comparison may take each.
    pub dump_limit: Duration,
    /// How long a worker that is asked to stop waits for its operations to end before it gives them back.
    pub shutdown_grace: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            attempts_max: 8,
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            operations_parallel_max: 4,
            spares: 0,
            spares_every: Duration::from_secs(30),
            poll_every: Duration::from_secs(5),
            routers_grace: Duration::from_secs(5),
            fences_every: Duration::from_secs(30),
            schedules_every: Duration::from_secs(30),
            elsewhere_limit: Duration::from_secs(10 * 60),
            sessions_end_limit: Duration::from_secs(10),
            dump_limit: Duration::from_secs(6 * 60 * 60),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

impl Bounds {
    /// The wait after the `attempt`-th failed try: doubling, bounded, and between half and the whole of it
    /// so that many operations that failed together do not come back together.
    pub(crate) fn backoff(&self, attempt: u32) -> Duration {
        let doubled = self
            .backoff_min
            .saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
        doubled
            .min(self.backoff_max)
            .mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound() {
        let bounds = Bounds {
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            ..Bounds::default()
        };
        for (attempt, whole_s) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (1000, 60)] {
            let wait = bounds.backoff(attempt);
            let whole = Duration::from_secs(whole_s);
            assert!(wait >= whole / 2 && wait <= whole, "{attempt}: {wait:?}");
        }
    }
}
