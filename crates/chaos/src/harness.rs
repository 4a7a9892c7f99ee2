//! The harness: a private PostgreSQL, two `tenantd` that use it, and ways to kill them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use bootstrap::Platform;
use embedded::{Cluster, ThrowawayOptions};
use model::{Clock as _, OperationKind, OperationStatus, SystemClock};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret as _;
use settings::Settings;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};
use tokio_postgres::Client;

use crate::{expected::Expected, kill_target::KillTarget};

/// How long operations may take to end once everything runs again. They take seconds, so this passes only if
/// something is stuck.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
const START_LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
pub(crate) const SPARES: usize = 2;

pub(crate) struct Harness {
    pub(crate) platform: Platform,
    pub(crate) cluster: Cluster,
    environment: BTreeMap<String, String>,
    program: PathBuf,
    workers: [Option<Child>; 2],
    dir: Option<tempfile::TempDir>,
}

impl Harness {
    pub(crate) async fn start(tenantd: Option<&Path>) -> anyhow::Result<Self> {
        let program = match tenantd {
            Some(path) => path.to_owned(),
            None => std::env::current_exe()?.with_file_name("tenantd"),
        };
        ensure!(
            program.exists(),
            "{} is not there: build it, or name it with --tenantd",
            program.display()
        );
        let options = ThrowawayOptions {
            parameters: [
                ("max_connections", "200"),
                // Only processes die here and never the machine, so writes need not reach the disk; but
                // committed writes must reach the system's cache.
                ("synchronous_commit", "on"),
                ("full_page_writes", "on"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            ..ThrowawayOptions::default()
        };
        let cluster = Cluster::start_throwaway(options).await?;
        let dir = tempfile::tempdir()?;
        let environment = environment(&cluster, dir.path());
        let settings = Settings::load(None, environment.clone())?;
        let platform = Platform::open(&settings).await?;
        platform.prepare(|_| {}).await?;
        let mut harness = Self {
            platform,
            cluster,
            environment,
            program,
            workers: [None, None],
            dir: Some(dir),
        };
        harness.start_workers().await?;
        Ok(harness)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new("."), |dir| dir.path())
    }

    async fn start_workers(&mut self) -> anyhow::Result<()> {
        for number in 0..self.workers.len() {
            if self.workers[number].is_none() {
                self.workers[number] = Some(self.spawn(number).await?);
            }
        }
        Ok(())
    }

    async fn spawn(&self, number: usize) -> anyhow::Result<Child> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir().join(format!("tenantd-{number}.log")))?;
        let mut child = Command::new(&self.program)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let out = child.stdout.take().context("its output is piped")?;
        let mut lines = BufReader::new(out).lines();
        let first = tokio::time::timeout(START_LIMIT, lines.next_line()).await;
        ensure!(
            matches!(&first, Ok(Ok(Some(line))) if line.starts_with("listening on ")),
            "tenantd does not start: {first:?}"
        );
        // Reads the output to its end, so that the process never waits for a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(child)
    }

    /// Kills the target, starts again what it killed, and returns the steps that were interrupted.
    pub(crate) async fn kill(&mut self, target: KillTarget) -> anyhow::Result<Vec<String>> {
        let landed = match target {
            KillTarget::Nobody => Vec::new(),
            KillTarget::First => self.kill_workers(&[0]).await?,
            KillTarget::Second => self.kill_workers(&[1]).await?,
            KillTarget::Both => self.kill_workers(&[0, 1]).await?,
            KillTarget::Postgres => self.kill_postgres().await?,
        };
        self.start_workers().await?;
        Ok(landed)
    }

    async fn kill_workers(&mut self, numbers: &[usize]) -> anyhow::Result<Vec<String>> {
        let mut pids = Vec::new();
        for &number in numbers {
            let mut child = self.workers[number]
                .take()
                .context("both run between two rounds")?;
            ensure!(
                child.try_wait()?.is_none(),
                "tenantd {number} had ended before it was killed; its log is in {}",
                self.dir().display()
            );
            pids.push(child.id().context("it runs")?);
            child.kill().await?;
        }
        self.in_the_midst(&pids).await
    }

    /// The steps that these processes were running when they were killed, according to the registry.
    async fn in_the_midst(&self, pids: &[u32]) -> anyhow::Result<Vec<String>> {
        let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
        let rows = self
            .registry()
            .await?
            .query(
                "SELECT o.kind || '/' || CASE o.status WHEN 'undoing' THEN 'undo/' ELSE '' END || s.step
                   FROM operation_steps s JOIN operations o ON o.id = s.operation_id
                  WHERE s.status = 'running' AND o.finished_at IS NULL AND o.lease_owner = s.worker
                    AND split_part(s.worker, ':', 2) = ANY ($1)",
                &[&pids],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Kills the whole server, as when its machine loses power; what was written to the system's cache
    /// survives here.
    async fn kill_postgres(&mut self) -> anyhow::Result<Vec<String>> {
        let before: Vec<u32> = self.workers.iter().flatten().filter_map(Child::id).collect();
        let file = self.cluster.dir().join("data/postmaster.pid");
        let text = std::fs::read_to_string(&file)?;
        let pid: i32 = text.lines().next().unwrap_or_default().parse()?;
        let pid = Pid::from_raw(pid).context("a process has a number")?;
        kill_process(pid, Signal::KILL)?;
        let begun = Instant::now();
        while !self.cluster.has_ended() {
            ensure!(
                begun.elapsed() < START_LIMIT,
                "the killed PostgreSQL does not end"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.cluster.restart().await?;
        let hit = self.in_the_midst(&before).await?;
        Ok(hit.into_iter().map(|step| format!("{step} (postgres)")).collect())
    }

    /// Waits until no operation has anything to do, and returns how each operation ended.
    pub(crate) async fn settle(
        &mut self,
        expected: &mut Expected,
    ) -> anyhow::Result<Vec<(OperationKind, OperationStatus)>> {
        let begun = Instant::now();
        let mut ended = Vec::new();
        loop {
            let client = self.client().await?;
            let mut busy = Vec::new();
            for (tenant, kind, id) in expected.live().collect::<Vec<_>>() {
                let Some(operation) = registry::operation_by_id(&client, id).await? else {
                    bail!("operation {id} is gone from the registry");
                };
                let waits = operation.status == OperationStatus::Pending
                    && operation.waiting_until.is_some()
                    && operation.cancel_requested_at.is_none();
                if operation.status.is_final() {
                    ended.push((kind, operation.status));
                    expected.ended(tenant, kind, &operation)?;
                } else if waits && operation.waiting_until > Some(soon()) {
                    expected.laboratory(tenant)?.state = model::TenantState::Deleting;
                } else {
                    busy.push(format!(
                        "{kind} of {} is {} ({})",
                        operation.tenant_slug,
                        operation.status,
                        operation.error_text().unwrap_or_default()
                    ));
                }
            }
            drop(client);
            if busy.is_empty() {
                return Ok(ended);
            }
            if begun.elapsed() > SETTLE_LIMIT {
                bail!("after {} s: {}", SETTLE_LIMIT.as_secs(), busy.join("; "));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn client(&self) -> anyhow::Result<registry::RegistryClient> {
        Ok(self.platform.registry.client().await?)
    }

    pub(crate) async fn registry(&self) -> anyhow::Result<Client> {
        self.connect(&self.platform.registry.target().database).await
    }

    /// As the server's superuser.
    pub(crate) async fn connect(&self, database: &str) -> anyhow::Result<Client> {
        let target = self.cluster.target().with_database(database);
        Ok(pg::connect(&target, "chaos", CONNECT_LIMIT).await?)
    }

    /// Keeps the logs and archives for inspection.
    pub(crate) fn keep_logs(&mut self) {
        if let Some(dir) = self.dir.take() {
            eprintln!("\nchaos: logs and archives are kept in {}", dir.keep().display());
        }
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        for child in self.workers.iter_mut().flatten() {
            child.kill().await?;
        }
        self.platform.close().await?;
        Ok(self.cluster.stop().await?)
    }
}

/// A grace period that ends before this moment is waited for, so that none ends during the audit.
fn soon() -> jiff::Timestamp {
    SystemClock.now() + jiff::SignedDuration::from_mins(1)
}

fn environment(cluster: &Cluster, dir: &Path) -> BTreeMap<String, String> {
    let target = cluster.target();
    let mut environment: BTreeMap<String, String> = [
        ("MASTER_PGHOST", target.host.clone()),
        ("MASTER_PGPORT", target.port.to_string()),
        ("MASTER_PGUSER", target.user.clone()),
        ("MASTER_PGPASSWORD", target.password.expose_secret().to_owned()),
        ("MASTER_PGDATABASE", "registry".to_owned()),
        ("TENANTRY_STATE_DIR", dir.join("state").display().to_string()),
        ("TENANTRY_PG_BIN", cluster.bin().dir().display().to_string()),
        ("TENANTRY_HTTP_LISTEN", "127.0.0.1:0".to_owned()),
        ("TENANTRY_HTTP_WORKERS", "1".to_owned()),
        // A killed router counts until its registration expires, so the budgets of several rounds must fit.
        ("TENANTRY_ROUTER_BUDGET", "16".to_owned()),
        // The operations of a killed worker wait at most this long.
        ("TENANTRY_WORKER_LEASE_S", "2".to_owned()),
        ("TENANTRY_WORKER_POLL_MS", "200".to_owned()),
        ("TENANTRY_WORKER_SPARES", SPARES.to_string()),
        ("TENANTRY_WORKER_ROUTERS_GRACE_MS", "200".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    environment.insert("PATH".to_owned(), std::env::var("PATH").unwrap_or_default());
    environment
}
