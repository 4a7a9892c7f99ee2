//! What every test starts from: a migrated registry of its own, one server, and short ways to make rows.

use model::{Namespace, OperationId, OperationKind, ServerName, Slug, TenantId};
use registry::{
    Actor, Change, NewOperation, NewServer, NewTenant, Operation, Registry, RegistryClient, RegistryError,
    RegistryOptions, Tenant, operation_insert_in_txn, server_upsert, tenant_insert_in_txn,
};
use serde_json::json;
use testkit::Space;

pub(crate) struct Harness {
    pub(crate) registry: Registry,
    pub(crate) actor: Actor,
    pub(crate) space: Space,
}

impl Harness {
    pub(crate) async fn new() -> Self {
        Self::on(Space::new().await).await
    }

    pub(crate) async fn on(space: Space) -> Self {
        let registry = Registry::new(&space.registry, RegistryOptions::default());
        registry.migrate().await.unwrap();
        let harness = Self {
            registry,
            actor: Actor::Terminal("ada".to_owned()),
            space,
        };
        server_upsert(&harness.client().await, &harness.server("main"))
            .await
            .unwrap();
        harness
    }

    pub(crate) async fn client(&self) -> RegistryClient {
        self.registry.client().await.unwrap()
    }

    pub(crate) fn server(&self, name: &str) -> NewServer {
        NewServer {
            name: ServerName::parse(name).unwrap(),
            host: self.space.server.host.clone(),
            port: self.space.server.port,
            admin_user: self.space.server.user.clone(),
            admin_secret: vec![1, 2, 3],
        }
    }

    pub(crate) fn change(&self) -> Change<'_> {
        Change::by(&self.actor)
    }

    pub(crate) async fn try_tenant(&self, slug: &str) -> Result<Tenant, RegistryError> {
        let mut client = self.client().await;
        let txn = client.transaction().await.unwrap();
        let tenant = tenant_insert_in_txn(&txn, &new_tenant(slug), &self.change()).await?;
        txn.commit().await.unwrap();
        Ok(tenant)
    }

    pub(crate) async fn tenant(&self, slug: &str) -> Tenant {
        self.try_tenant(slug).await.unwrap()
    }

    pub(crate) async fn try_operation(
        &self,
        tenant: &Tenant,
        kind: OperationKind,
        key: Option<&str>,
    ) -> Result<Operation, RegistryError> {
        let mut client = self.client().await;
        let txn = client.transaction().await.unwrap();
        let new = NewOperation {
            id: OperationId::generate(),
            kind,
            tenant: tenant.id,
            tenant_slug: tenant.slug.clone(),
            params: json!({ "why": "a test" }),
            created_by: self.actor.clone(),
            idempotency_key: key.map(str::to_owned),
        };
        let operation = operation_insert_in_txn(&txn, &new).await?;
        txn.commit().await.unwrap();
        Ok(operation)
    }

    pub(crate) async fn operation(&self, tenant: &Tenant, kind: OperationKind) -> Operation {
        self.try_operation(tenant, kind, None).await.unwrap()
    }
}

pub(crate) fn new_tenant(slug: &str) -> NewTenant {
    let slug = Slug::parse(slug).unwrap();
    let namespace = Namespace::default();
    NewTenant {
        id: TenantId::generate(),
        name: format!("Laboratory {slug}"),
        time_zone: "Europe/Berlin".to_owned(),
        server: ServerName::parse("main").unwrap(),
        db_name: namespace.tenant_database(&slug),
        role_name: namespace.tenant_role(&slug),
        role_secret: None,
        slug,
    }
}
