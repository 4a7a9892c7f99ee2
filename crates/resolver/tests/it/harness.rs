//! A registry with a server, and laboratories made by hand: a role, a database, a row.
//!
//! The tests run on a runtime with a thread of its own. A harness is removed by a blocking call at the end of
//! the test. Meanwhile a log-in that no task drives would hold up `DROP DATABASE` until the server gives the
//! log-in up.

use std::time::Duration;

use identity::{SealContext, SealKey, Sealer};
use model::{SchemaVersion, ServerName, Slug, TenantEvent, TenantId, VersionWindow};
use pg::ConnectTarget;
use registry::{Actor, Change, NewServer, NewTenant, Registry, RegistryOptions};
use resolver::{Resolver, ResolverConfig, TenantClient};
use secrecy::SecretString;
use testkit::{Space, eventually};

/// Long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Harness {
    // Before the space: when that is removed, no connection of this process is left.
    pub(crate) registry: Registry,
    pub(crate) sealer: Sealer,
    pub(crate) space: Space,
}

impl Harness {
    pub(crate) async fn new() -> Self {
        let space = Space::new().await;
        let registry = Registry::new(&space.registry, RegistryOptions::default());
        registry.migrate().await.unwrap();
        let harness = Self {
            registry,
            sealer: new_sealer(),
            space,
        };
        let server = harness.space.server.clone();
        harness.register_server(&server.host, server.port).await;
        harness
    }

    pub(crate) async fn register_server(&self, host: &str, port: u16) {
        let server = NewServer {
            name: main_server(),
            host: host.to_owned(),
            port,
            admin_user: "nobody".to_owned(),
            admin_secret: vec![0],
        };
        registry::server_upsert(&self.registry.client().await.unwrap(), &server)
            .await
            .unwrap();
    }

    /// The configuration of most tests: small pools, and waits that end only when something is wrong.
    pub(crate) fn config(&self) -> ResolverConfig {
        ResolverConfig {
            pool_size_max: 2,
            checkout_timeout: PATIENCE,
            connect_timeout: PATIENCE,
            registry_timeout: PATIENCE,
            snapshot_ttl: PATIENCE * 60,
            ..ResolverConfig::new(self.registry.clone(), self.sealer.clone(), window())
        }
    }

    /// A resolver that listens already, so that a test knows which notifications it gets.
    pub(crate) async fn resolver(&self, config: ResolverConfig) -> Resolver {
        let resolver = Resolver::start(config);
        eventually("the resolver to listen", PATIENCE, async || {
            let stats = resolver.stats();
            stats.listening && stats.invalidations_all_total > 0
        })
        .await;
        resolver
    }

    /// A laboratory in service at version 2 with a table `notes` of its own.
    pub(crate) async fn tenant(&self, slug: &str) -> TenantId {
        let id = self.tenant_row(slug).await;
        let tenant = self.row(id).await;
        let password = identity::generate_password();
        self.set_role(id, &password, "CREATE").await;
        let admin = self.admin("postgres").await;
        let (database, role) = (&tenant.db_name, &tenant.role_name);
        admin
            .batch_execute(&format!("CREATE DATABASE {database}"))
            .await
            .unwrap();
        let close = format!("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC");
        admin.batch_execute(&close).await.unwrap();
        let open = format!("GRANT CONNECT ON DATABASE {database} TO {role}");
        admin.batch_execute(&open).await.unwrap();
        let inside = self.admin(database.as_str()).await;
        inside
            .batch_execute(&format!(
                "CREATE TABLE notes (text text); INSERT INTO notes VALUES ('{slug}');
                 GRANT SELECT, INSERT ON notes TO {role}"
            ))
            .await
            .unwrap();
        self.set_version(id, 2).await;
        self.transition(id, TenantEvent::Provisioned).await;
        id
    }

    /// A laboratory's row alone, in state `provisioning`.
    pub(crate) async fn tenant_row(&self, slug: &str) -> TenantId {
        let slug = Slug::parse(slug).unwrap();
        let new = NewTenant {
            id: TenantId::generate(),
            name: format!("Laboratory {slug}"),
            time_zone: "Europe/Berlin".to_owned(),
            server: main_server(),
            db_name: self.space.namespace.tenant_database(&slug),
            role_name: self.space.namespace.tenant_role(&slug),
            role_secret: None,
            slug,
        };
        let mut client = self.registry.client().await.unwrap();
        let txn = client.transaction().await.unwrap();
        registry::tenant_insert_in_txn(&txn, &new, &Change::by(&actor()))
            .await
            .unwrap();
        txn.commit().await.unwrap();
        new.id
    }

    /// Gives the role a password, on the server and sealed in the registry. `verb`: CREATE or ALTER.
    pub(crate) async fn set_role(&self, id: TenantId, password: &SecretString, verb: &str) {
        let role = self.row(id).await.role_name;
        let verifier = identity::scram_verifier(password);
        let statement = format!("{verb} ROLE {role} LOGIN PASSWORD '{verifier}'");
        self.admin("postgres")
            .await
            .batch_execute(&statement)
            .await
            .unwrap();
        let sealed = self.sealer.seal(&SealContext::TenantRole(id), password);
        self.set_secret(id, &sealed).await;
    }

    pub(crate) async fn set_secret(&self, id: TenantId, sealed: &[u8]) {
        let client = self.registry.client().await.unwrap();
        registry::tenant_set_role_secret(&client, id, sealed)
            .await
            .unwrap();
    }

    pub(crate) async fn set_version(&self, id: TenantId, version: u32) {
        let client = self.registry.client().await.unwrap();
        registry::tenant_set_db_version(&client, id, SchemaVersion::new(version))
            .await
            .unwrap();
    }

    pub(crate) async fn transition(&self, id: TenantId, event: TenantEvent) {
        let mut client = self.registry.client().await.unwrap();
        let txn = client.transaction().await.unwrap();
        registry::tenant_transition_in_txn(&txn, id, event, &Change::by(&actor()))
            .await
            .unwrap();
        txn.commit().await.unwrap();
    }

    pub(crate) async fn row(&self, id: TenantId) -> registry::Tenant {
        let client = self.registry.client().await.unwrap();
        registry::tenant_by_id(&client, id).await.unwrap().unwrap()
    }

    /// How many backends the tenant's role has, as the server counts them.
    pub(crate) async fn backends(&self, id: TenantId) -> i64 {
        let role = self.row(id).await.role_name;
        let admin = self.admin("postgres").await;
        let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
        admin.query_one(count, &[&role.as_str()]).await.unwrap().get(0)
    }

    pub(crate) async fn admin(&self, database: &str) -> tokio_postgres::Client {
        connect(&self.space.server.with_database(database)).await
    }
}

pub(crate) async fn connect(target: &ConnectTarget) -> tokio_postgres::Client {
    pg::connect(target, "tenantry resolver test", PATIENCE)
        .await
        .unwrap()
}

/// The text in the laboratory's own table: the slug with which it was made.
pub(crate) async fn note(client: &mut TenantClient) -> String {
    let transaction = client.transaction().await.unwrap();
    let note = transaction
        .query_one("SELECT text FROM notes", &[])
        .await
        .unwrap()
        .get(0);
    transaction.commit().await.unwrap();
    note
}

/// Which backend serves the connection.
pub(crate) async fn backend(client: &mut TenantClient) -> i32 {
    let transaction = client.transaction().await.unwrap();
    let pid = transaction
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    transaction.commit().await.unwrap();
    pid
}

pub(crate) fn window() -> VersionWindow {
    VersionWindow {
        oldest: SchemaVersion::new(2),
        newest: SchemaVersion::new(3),
    }
}

pub(crate) fn main_server() -> ServerName {
    ServerName::parse("main").unwrap()
}

/// What a role's password is sealed for.
pub(crate) fn new_sealer() -> Sealer {
    Sealer::new(SealKey::generate())
}

fn actor() -> Actor {
    Actor::Terminal("test".to_owned())
}
