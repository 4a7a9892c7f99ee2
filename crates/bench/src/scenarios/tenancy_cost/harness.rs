//! The harness: one PostgreSQL server, an installation that the product itself makes on it, and the programs.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use embedded::Cluster;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use pg::ConnectTarget;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::api::{OPERATOR, PASSWORD};
use crate::{
    fleet::{self, CONNECT_LIMIT},
    sampler::refusals,
};

const NAMESPACE: &str = "bench";
/// The key of the single-tenant program's tokens, which guard nothing.
const SINGLE_TENANT_KEY: &str = "a key of the right length, 32 B.";
const SINGLE_TENANT_PASSWORD: &str = "plain";
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(20);

pub(super) struct Harness {
    cluster: Cluster,
    /// The directory of this program, which also holds the others.
    programs: PathBuf,
    budget: usize,
}

/// A program that answers HTTP; it is killed when this is dropped.
pub(super) struct Program {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only if the program has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// Starts it and waits for the line that says where it listens.
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {program}; scripts/bench builds it"))?;
        let said = child.stdout.take().context("its output was asked for")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on http://");
        let address = address.with_context(|| format!("{program} said {line:?} and not where it listens"))?;
        Ok(Self {
            child,
            address: address.parse()?,
        })
    }
}

impl Harness {
    pub(super) async fn start(max_connections: usize, budget: usize) -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        Ok(Self {
            cluster: fleet::throwaway(max_connections).await?,
            programs: own
                .parent()
                .map(Path::to_owned)
                .context("a program is in a folder")?,
            budget,
        })
    }

    fn server(&self) -> &ConnectTarget {
        self.cluster.target()
    }

    /// One of the product's programs with its settings, and nothing of this process's environment.
    fn command(&self, program: &str) -> Command {
        let server = self.server();
        let mut command = Command::new(self.programs.join(program));
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("MASTER_PGHOST", &server.host)
            .env("MASTER_PGPORT", server.port.to_string())
            .env("MASTER_PGUSER", &server.user)
            .env("MASTER_PGPASSWORD", server.password.expose_secret())
            .env("MASTER_PGDATABASE", format!("{NAMESPACE}_registry"))
            .env("TENANTRY_NAMES_NAMESPACE", NAMESPACE)
            .env("TENANTRY_STATE_DIR", self.cluster.dir().join("state"))
            .env("TENANTRY_HTTP_LISTEN", "127.0.0.1:0")
            .env("TENANTRY_ROUTER_BUDGET", self.budget.to_string())
            .env("TENANTRY_ROUTER_POOLS_MAX", self.budget.to_string());
        command
    }

    /// Registry, template and an operator.
    pub(super) fn prepare(&self) -> anyhow::Result<()> {
        let run = |command: &mut Command| {
            let ended = command
                .output()
                .context("cannot run tenantctl; scripts/bench builds it")?;
            let said = String::from_utf8_lossy(&ended.stderr);
            ensure!(ended.status.success(), "tenantctl: {said}");
            anyhow::Ok(())
        };
        run(self.command("tenantctl").args(["up", "--no-serve"]))?;
        run(self
            .command("tenantctl")
            .args(["operator", "create", "--email", OPERATOR, "--name", "Olga Ops"])
            .env("TENANTRY_OPERATOR_PASSWORD", PASSWORD))
    }

    pub(super) async fn tenantd(&self) -> anyhow::Result<Program> {
        let log = File::create(self.cluster.dir().join("tenantd.log"))?;
        let program = Program::start(self.command("tenantd").stderr(log))?;
        let ready = format!("http://{}/readyz", program.address);
        let is_ready = async || {
            reqwest::get(&ready)
                .await
                .is_ok_and(|answer| answer.status() == 200)
        };
        let waiting = async {
            while !is_ready().await {
                tokio::time::sleep(POLL_EVERY).await;
            }
        };
        let waited = tokio::time::timeout(START_LIMIT, waiting).await;
        waited.context("tenantd does not become ready")?;
        Ok(program)
    }

    /// Gives a laboratory's database to the single-tenant program by setting a known password for its role.
    /// From then on `tenantd` cannot serve it.
    pub(super) async fn take_over(&self, slug: &str) -> anyhow::Result<()> {
        let admin = pg::connect(self.server(), "bench admin", CONNECT_LIMIT).await?;
        let role = model::quote_ident(&name_of(slug));
        let sql = format!("ALTER ROLE {role} PASSWORD '{SINGLE_TENANT_PASSWORD}'");
        Ok(admin.batch_execute(&sql).await?)
    }

    /// The single-tenant program on the database of this laboratory.
    pub(super) fn single_tenant(&self, slug: &str, pool_max: usize) -> anyhow::Result<Program> {
        let name = name_of(slug);
        let mut command = Command::new(self.programs.join("single-tenant"));
        command
            .env_clear()
            .env("SINGLE_TENANT_PGHOST", &self.server().host)
            .env("SINGLE_TENANT_PGPORT", self.server().port.to_string())
            .env("SINGLE_TENANT_PGUSER", &name)
            .env("SINGLE_TENANT_PGPASSWORD", SINGLE_TENANT_PASSWORD)
            .env("SINGLE_TENANT_PGDATABASE", &name)
            .env("SINGLE_TENANT_POOL_MAX", pool_max.to_string())
            .env("SINGLE_TENANT_KEY", SINGLE_TENANT_KEY);
        Program::start(&mut command)
    }

    /// How many connections the server has refused because it was full.
    pub(super) fn refused(&self) -> anyhow::Result<usize> {
        refusals(&self.cluster.log(), 0)
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        Ok(self.cluster.stop().await?)
    }
}

/// A laboratory's database and role have one name.
fn name_of(slug: &str) -> String {
    format!("{NAMESPACE}_tenant_{slug}")
}

/// The claims of one of `tenantd`'s tokens, signed for the single-tenant program.
pub(super) fn signed_for_single_tenant(token: &str) -> anyhow::Result<String> {
    let claims = token.split('.').nth(1).context("a token has three parts")?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    let key = EncodingKey::from_secret(SINGLE_TENANT_KEY.as_bytes());
    Ok(jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &key,
    )?)
}
