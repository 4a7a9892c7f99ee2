//! What all sides are measured on: a registry, and servers with real laboratories' databases.
//!
//! Each server is a private, throw-away PostgreSQL that ends with this program. Its `max_connections` is the
//! budget plus what the server keeps for superusers plus this program's own connection, so that the server
//! itself refuses (53300) the first connection past the budget.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use embedded::{Cluster, ThrowawayOptions};
use identity::{SealKey, Sealer};
use model::{ServerName, TenantId};
use pg::ConnectTarget;
use registry::{NewServer, Registry, RegistryOptions};
use secrecy::SecretString;
use tokio::time::{Instant, sleep};

use crate::tenants;

/// The server's own default, set explicitly because the sum depends on it.
const SUPERUSER_RESERVED: usize = 3;
/// The connection that samples `pg_stat_activity`; short administrative ones do not run while anything is
/// measured.
const OWN: usize = 1;
/// A thousand databases take 7.5 GB, their write-ahead log another 2.
const MEMORY_MIN: u64 = 12 << 30;
/// The time limit of one administrative connect, including the log-in.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const EMPTY_LIMIT: Duration = Duration::from_secs(60);
/// Backends of laboratories and of the pooler, not those of superusers.
pub(crate) const COUNT_BACKENDS: &str = "SELECT count(*) FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND starts_with(usename, 'bench_')";
/// The role with which PgBouncer reaches every database, so that its limit for one user limits all.
pub(crate) const POOL_ROLE: &str = "bench_pool";

/// The registry. It makes servers for the scenarios.
pub(crate) struct Fleet {
    pub(crate) registry: Registry,
    pub(crate) sealer: Sealer,
    cluster: Cluster,
}

/// One laboratory.
#[derive(Clone)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    /// The name of its database and of its role.
    pub(crate) name: String,
    pub(crate) target: ConnectTarget,
}

/// A server with laboratories.
pub(crate) struct Host {
    pub(crate) name: ServerName,
    /// The most connections that laboratories may have.
    pub(crate) budget: usize,
    pub(crate) max_connections: usize,
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) pool_password: SecretString,
    /// As the server's superuser.
    pub(crate) admin: ConnectTarget,
    cluster: Cluster,
}

impl Fleet {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let cluster = throwaway(60).await?;
        registry::ensure_database(cluster.target(), "registry").await?;
        let target = cluster.target().with_database("registry");
        let registry = Registry::new(&target, RegistryOptions::default());
        registry.migrate().await?;
        Ok(Self {
            registry,
            sealer: Sealer::new(SealKey::generate()),
            cluster,
        })
    }

    /// A server with few slots, for scenarios with contention.
    pub(crate) async fn small(&self) -> anyhow::Result<Host> {
        self.host("small", 8, 0, 41).await
    }

    /// A server with a thousand laboratories; with the spare ones, `max_connections` is 100.
    pub(crate) async fn crowd(&self) -> anyhow::Result<Host> {
        self.host("crowd", 90, 6, 1_000).await
    }

    /// A new server for `budget` connections with `count` laboratories; `spare` more connections are allowed.
    pub(crate) async fn host(
        &self,
        name: &str,
        budget: usize,
        spare: usize,
        count: usize,
    ) -> anyhow::Result<Host> {
        let begun = Instant::now();
        let max_connections = budget + spare + SUPERUSER_RESERVED + OWN;
        let cluster = throwaway(max_connections).await?;
        let admin = cluster.target().clone();
        let name = ServerName::parse(name)?;
        self.register(&name, &admin.host, admin.port).await?;
        let pool_password = identity::generate_password();
        let mut host = Host {
            name,
            budget,
            max_connections,
            tenants: Vec::new(),
            pool_password,
            admin,
            cluster,
        };
        tenants::make(self, &mut host, count).await?;
        eprintln!(
            "server {}: {count} laboratories made in {:.1} s; max_connections {max_connections} = \
             budget {budget} + {spare} spare + {SUPERUSER_RESERVED} reserved for superusers + \
             {OWN} of the bench; fsync off, autovacuum off, data in {}",
            host.name,
            begun.elapsed().as_secs_f64(),
            place().display(),
        );
        Ok(host)
    }

    pub(crate) async fn register(&self, name: &ServerName, host: &str, port: u16) -> anyhow::Result<()> {
        let server = NewServer {
            name: name.clone(),
            host: host.to_owned(),
            port,
            admin_user: "nobody".to_owned(),
            admin_secret: vec![0],
        };
        registry::server_upsert(&self.registry.client().await?, &server).await?;
        Ok(())
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        drop(self.registry);
        Ok(self.cluster.stop().await?)
    }
}

impl Host {
    pub(crate) async fn admin(&self) -> anyhow::Result<tokio_postgres::Client> {
        Ok(pg::connect(&self.admin, "bench admin", CONNECT_LIMIT).await?)
    }

    /// Waits until no laboratory has a backend, so that one side's connections are not counted for the next.
    pub(crate) async fn wait_until_empty(&self) -> anyhow::Result<()> {
        let admin = self.admin().await?;
        let begun = Instant::now();
        loop {
            let left: i64 = admin.query_one(COUNT_BACKENDS, &[]).await?.get(0);
            if left == 0 {
                return Ok(());
            }
            if begun.elapsed() > EMPTY_LIMIT {
                bail!("{left} backends of the side before are still there after {EMPTY_LIMIT:?}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.cluster.log()
    }

    /// The server's directory, which the server's account can read. It is removed with the server.
    pub(crate) fn dir(&self) -> &Path {
        self.cluster.dir()
    }

    /// User and group id under which the server runs.
    pub(crate) fn account(&self) -> anyhow::Result<(u32, u32)> {
        let data = self.dir().join("data");
        let meta = data
            .metadata()
            .with_context(|| format!("cannot look at {}", data.display()))?;
        Ok((meta.uid(), meta.gid()))
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        Ok(self.cluster.stop().await?)
    }
}

/// A private server that ends with this program.
pub(crate) async fn throwaway(max_connections: usize) -> anyhow::Result<Cluster> {
    let options = ThrowawayOptions {
        parent: Some(place()),
        parameters: parameters(max_connections),
        ..ThrowawayOptions::default()
    };
    Ok(Cluster::start_throwaway(options).await?)
}

/// In memory if there is room: a thousand databases are 300,000 files, which some disks take minutes to
/// remove, and other programs' use of a disk is noise.
fn place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match rustix::fs::statvfs(memory) {
        Ok(stat) if stat.f_bavail * stat.f_frsize >= MEMORY_MIN => memory.to_owned(),
        _ => std::env::temp_dir(),
    }
}

fn parameters(max_connections: usize) -> Vec<(String, String)> {
    [
        ("max_connections", max_connections.to_string()),
        ("superuser_reserved_connections", SUPERUSER_RESERVED.to_string()),
        // With a thousand databases its launcher starts a worker every 60 ms.
        ("autovacuum", "off".to_owned()),
        // The SQLSTATE in every line: refusals (53300) are counted in the log.
        ("log_line_prefix", "%m [%p] %e ".to_owned()),
        ("max_wal_size", "1GB".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
