//! The ground that both sides are measured on: one private server with a registry, and the product's own
//! parts.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use embedded::{Cluster, ThrowawayOptions};
use identity::{SealContext, SealKey, Sealer};
use model::{Email, Namespace, OperationId, ServerName, Slug, SystemClock, TenantId};
use pg::ConnectTarget;
use provisioner::{ArchiveOptions, Bounds, NewAdmin, NewLab, Provisioner, ProvisionerConfig, RequestedBy};
use registry::{NewServer, Registry, RegistryOptions};
use resolver::{Resolver, ResolverConfig};
use tokio_postgres::Client;

/// As safe as a server in service.
pub(crate) const SAFE: [(&str, &str); 5] = [
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("max_connections", "100"),
    ("max_wal_size", "4GB"),
];
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const INVITATION: Duration = Duration::from_secs(7 * 86_400);

/// A server, the registry on it, and what works on both.
pub(crate) struct Harness {
    pub(crate) provisioner: Provisioner,
    pub(crate) resolver: Resolver,
    pub(crate) namespace: Namespace,
    pub(crate) admin: ConnectTarget,
    cluster: Cluster,
}

impl Harness {
    pub(crate) async fn start(spares: usize) -> anyhow::Result<Self> {
        let options = ThrowawayOptions {
            // Only its directory is a passing one.
            parameters: SAFE
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..ThrowawayOptions::default()
        };
        let cluster = Cluster::start_throwaway(options).await?;
        let admin = cluster.target().clone();
        registry::ensure_database(&admin, "registry").await?;
        let registry = Registry::new(&admin.with_database("registry"), RegistryOptions::default());
        registry.migrate().await?;
        let sealer = Sealer::new(SealKey::generate());
        let name = ServerName::parse("main")?;
        let server = NewServer {
            host: admin.host.clone(),
            port: admin.port,
            admin_user: admin.user.clone(),
            admin_secret: sealer.seal(&SealContext::Server(name.clone()), &admin.password),
            name,
        };
        registry::server_upsert(&registry.client().await?, &server).await?;
        let namespace = Namespace::default();
        migrator::secure_server(&admin, &namespace, "registry").await?;
        migrator::template_ensure(&admin, &namespace).await?;
        let resolver = Resolver::start(ResolverConfig::new(
            registry.clone(),
            sealer.clone(),
            migrator::window(),
        ));
        let config = ProvisionerConfig {
            registry: registry.clone(),
            sealer,
            namespace: namespace.clone(),
            archive_dir: cluster.dir().join("archives"),
            archive: ArchiveOptions::default(),
            pg_bin: Some(cluster.bin().dir().to_owned()),
            lease: Duration::from_secs(30),
            bounds: Bounds {
                spares,
                ..Bounds::default()
            },
            roles: provisioner::RolePolicy::default(),
            seed: bootstrap::seed_hook(),
            clock: registry::RegistryClock::new(Arc::new(SystemClock)),
        };
        Ok(Self {
            provisioner: Provisioner::new(config),
            resolver,
            namespace,
            admin,
            cluster,
        })
    }

    /// The server's administrator in its maintenance database.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        Ok(pg::connect(&self.admin, "bench", CONNECT_LIMIT).await?)
    }

    /// The administrator in another database.
    pub(crate) async fn client_of(&self, database: &str) -> anyhow::Result<Client> {
        Ok(pg::connect(&self.admin.with_database(database), "bench", CONNECT_LIMIT).await?)
    }

    /// A program of the server's own version.
    pub(crate) fn program(&self, name: &str) -> tokio::process::Command {
        tokio::process::Command::new(self.cluster.bin().dir().join(name))
    }

    /// A directory that goes with the server.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.cluster.dir()
    }

    pub(crate) async fn steps(&self, operation: OperationId) -> anyhow::Result<Vec<registry::StepRow>> {
        let client = self.provisioner.config().registry.client().await?;
        Ok(registry::steps_of(&client, operation).await?)
    }

    pub(crate) async fn newest_archive(&self, tenant: TenantId) -> anyhow::Result<model::ArchiveId> {
        let client = self.provisioner.config().registry.client().await?;
        let found = registry::archives_list(&client, Some(tenant), None, 1).await?;
        Ok(found.first().context("there is an archive")?.id)
    }

    /// Asks for a laboratory whose administrator is invited, as the API and the terminal do.
    pub(crate) async fn ask(&self, slug: &str) -> anyhow::Result<(TenantId, OperationId)> {
        let lab = NewLab {
            slug: Slug::parse(slug)?,
            name: format!("Laboratory {slug}"),
            time_zone: "Europe/Vienna".to_owned(),
            server: None,
            admin: NewAdmin {
                email: Email::parse(&format!("ada@{slug}.example"))?,
                display_name: "Ada".to_owned(),
                password_hash: None,
            },
        };
        let by = RequestedBy::terminal("bench");
        let (tenant, operation) = self.provisioner.request_provision(lab, by.clone()).await?;
        let invited = self.provisioner.invite_first(tenant.id, INVITATION, &by).await?;
        anyhow::ensure!(invited.is_some(), "the administrator is invited");
        Ok((tenant.id, operation))
    }

    /// A query as a request of the laboratory makes it.
    pub(crate) async fn query(&self, tenant: TenantId) -> anyhow::Result<()> {
        let mut client = self.resolver.checkout(tenant).await?;
        let rows = client
            .query("SELECT display_name FROM staff WHERE active", &[])
            .await
            .context("the first query")?;
        anyhow::ensure!(rows.len() == 1, "the administrator is not there");
        Ok(())
    }

    /// Closes the router's pool of a laboratory.
    pub(crate) async fn let_go(&self, tenant: TenantId) -> anyhow::Result<()> {
        Ok(self.resolver.drain(tenant, CONNECT_LIMIT).await?)
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        drop((self.provisioner, self.resolver));
        Ok(self.cluster.stop().await?)
    }
}
