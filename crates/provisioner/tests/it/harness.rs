//! What every test stands on: a namespace of its own with a registry, a registered server and a provisioner.

use std::{sync::Arc, time::Duration};

use identity::{SealContext, SealKey, Sealer};
use model::{Email, OperationId, RoleName, ServerName, Slug, SystemClock, TenantId};
use pg::ConnectTarget;
use provisioner::{
    Bounds, BoxError, NewAdmin, NewLab, Provisioner, ProvisionerConfig, RequestedBy, Seed, SeedHook,
};
use registry::{NewServer, Registry, RegistryClock, RegistryOptions, Tenant};
use secrecy::{ExposeSecret, SecretString};
use testkit::Space;
use tokio_postgres::Client;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// No grace period.
pub(crate) const NOW: Duration = Duration::ZERO;

pub(crate) struct Harness {
    pub(crate) provisioner: Provisioner,
    pub(crate) registry: Registry,
    // Last, so that everything connected to its databases goes before it.
    pub(crate) space: Space,
}

impl Harness {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut ProvisionerConfig)) -> Self {
        Self::within(Space::new().await, change).await
    }

    pub(crate) async fn within(space: Space, change: impl FnOnce(&mut ProvisionerConfig)) -> Self {
        let registry = Registry::new(&space.registry, RegistryOptions::default());
        registry.migrate().await.unwrap();
        let sealer = Sealer::new(SealKey::generate());
        register_server(&registry, &sealer, &space.server, "main").await;
        migrator::secure_server(&space.server, &space.namespace, &space.registry.database)
            .await
            .unwrap();
        let mut config = ProvisionerConfig {
            registry: registry.clone(),
            sealer,
            namespace: space.namespace.clone(),
            archive_dir: space.dir().join("archives"),
            archive: provisioner::ArchiveOptions::default(),
            pg_bin: testkit::pg_bin(),
            lease: Duration::from_secs(30),
            bounds: Bounds {
                attempts_max: 3,
                backoff_min: Duration::from_millis(20),
                backoff_max: Duration::from_millis(100),
                poll_every: Duration::from_millis(200),
                routers_grace: Duration::from_millis(200),
                ..Bounds::default()
            },
            roles: provisioner::RolePolicy::default(),
            seed: seed_hook(),
            clock: RegistryClock::new(Arc::new(SystemClock)),
        };
        change(&mut config);
        Self {
            provisioner: Provisioner::new(config),
            registry,
            space,
        }
    }

    pub(crate) async fn ask(&self, slug: &str) -> (Tenant, OperationId) {
        self.provisioner.request_provision(lab(slug), by()).await.unwrap()
    }

    pub(crate) async fn provisioned(&self, slug: &str) -> Tenant {
        let (tenant, operation) = self.ask(slug).await;
        self.provisioner.run(operation, |_| {}).await.unwrap();
        self.tenant(tenant.id).await.unwrap()
    }

    pub(crate) async fn tenant(&self, id: TenantId) -> Option<Tenant> {
        registry::tenant_by_id(&self.registry.client().await.unwrap(), id)
            .await
            .unwrap()
    }

    /// Archives a laboratory and gives the archive's row.
    pub(crate) async fn backed_up(&self, tenant: &Tenant) -> registry::Archive {
        let operation = self.provisioner.request_backup(tenant.id, by()).await.unwrap();
        self.provisioner.run(operation, |_| {}).await.unwrap();
        let client = self.registry.client().await.unwrap();
        let archive = registry::archive_by_operation(&client, operation).await.unwrap();
        archive.unwrap()
    }

    pub(crate) async fn removed(&self, tenant: &Tenant) -> registry::Archive {
        let operation = self
            .provisioner
            .request_offboard(tenant.id, NOW, by())
            .await
            .unwrap();
        self.provisioner.run(operation, |_| {}).await.unwrap();
        let client = self.registry.client().await.unwrap();
        let archive = registry::archive_by_operation(&client, operation).await.unwrap();
        archive.unwrap()
    }

    /// Whether the laboratory's own role can log in and read.
    pub(crate) async fn serves(&self, id: TenantId) -> bool {
        let target = self.own(&self.tenant(id).await.unwrap());
        match pg::connect(&target, "provisioner test", PATIENCE).await {
            Ok(client) => client.query_one("SELECT count(*) FROM staff", &[]).await.is_ok(),
            Err(_) => false,
        }
    }

    /// That `doctor --deep` finds nothing: what every operation that changes rights must leave behind.
    ///
    /// # Panics
    /// With the findings.
    pub(crate) async fn healthy(&self) {
        let report = self.provisioner.examine(true).await.unwrap();
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
    }

    /// The laboratory's database as the server's administrator.
    pub(crate) async fn inside(&self, tenant: &Tenant) -> Client {
        connect(&self.space.server.with_database(tenant.db_name.as_str())).await
    }

    /// As the laboratory's own role.
    pub(crate) fn own(&self, tenant: &Tenant) -> ConnectTarget {
        let context = SealContext::TenantRole(tenant.id);
        let sealed = tenant.role_secret.as_ref().unwrap();
        let password = self.provisioner.config().sealer.open(&context, sealed).unwrap();
        self.space
            .server
            .with_user(tenant.role_name.as_str(), password)
            .with_database(tenant.db_name.as_str())
    }

    /// The databases and roles of the namespace beside the registry, the template and the groups of
    /// laboratories that are there.
    pub(crate) async fn leftovers(&self) -> Vec<String> {
        let (databases, roles) = self.space.contents().await;
        let client = self.registry.client().await.unwrap();
        let all = registry::TenantFilter::default();
        let tenants = registry::tenants_list(&client, &all, None, registry::PAGE_MAX).await;
        let groups = tenants.unwrap().into_iter();
        let groups: Vec<_> = groups
            .map(|tenant| self.space.namespace.tenant_group(tenant.id))
            .collect();
        // A spare's group has the spare's name.
        let of_spare = |role: &RoleName| {
            databases
                .iter()
                .any(|name| name.as_str() == role.as_str() && role.as_str().contains("_spare_"))
        };
        let roles = roles
            .into_iter()
            .filter(|role| !groups.contains(role) && !of_spare(role));
        let prefix = format!("{}_", self.space.namespace.as_str());
        let names = databases.iter().map(|d| d.as_str().to_owned());
        names
            .chain(roles.map(|r| r.as_str().to_owned()))
            .filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned))
            .filter(|name| name != "registry" && name != "dml" && !name.starts_with("template_v"))
            .collect()
    }
}

pub(crate) async fn register_server(
    registry: &Registry,
    sealer: &Sealer,
    server: &ConnectTarget,
    name: &str,
) {
    let name = ServerName::parse(name).unwrap();
    let new = NewServer {
        host: server.host.clone(),
        port: server.port,
        admin_user: server.user.clone(),
        admin_secret: sealer.seal(
            &SealContext::Server(name.clone()),
            &SecretString::from(server.password.expose_secret().to_owned()),
        ),
        name,
    };
    registry::server_upsert(&registry.client().await.unwrap(), &new)
        .await
        .unwrap();
}

pub(crate) fn lab(slug: &str) -> NewLab {
    NewLab {
        slug: Slug::parse(slug).unwrap(),
        name: format!("Laboratory \"{slug}\"; DROP TABLE staff; --"),
        time_zone: "Europe/Berlin".to_owned(),
        server: None,
        admin: NewAdmin {
            email: Email::parse("ada@example.org").unwrap(),
            display_name: "Ada O'Neil".to_owned(),
            password_hash: Some(SecretString::from(
                "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA".to_owned(),
            )),
        },
    }
}

pub(crate) fn by() -> RequestedBy {
    RequestedBy::terminal("tester")
}

pub(crate) async fn connect(target: &ConnectTarget) -> Client {
    pg::connect(target, "provisioner test", Duration::from_secs(30))
        .await
        .unwrap()
}

/// The rows that a laboratory begins with, in this crate's own words: what a laboratory is, is not its
/// business.
fn seed_hook() -> SeedHook {
    async fn write(txn: &tokio_postgres::Transaction<'_>, seed: &Seed) -> Result<(), BoxError> {
        txn.execute(
            "INSERT INTO lab_profile (tenant_id, name, tz) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            &[&seed.tenant.as_uuid(), &seed.name, &seed.time_zone],
        )
        .await?;
        txn.execute(
            "INSERT INTO staff (id, display_name, email, role) VALUES ($1, $2, $3, 'lab_admin') ON CONFLICT DO NOTHING",
            &[&seed.admin_id.as_uuid(), &seed.admin_name, &seed.admin_email.as_str()],
        )
        .await?;
        Ok(())
    }
    Arc::new(|txn, seed| Box::pin(write(txn, seed)))
}
