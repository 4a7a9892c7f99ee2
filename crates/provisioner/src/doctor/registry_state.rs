//! One reading of the registry: the laboratories and what is under way. It grows with the fleet by under a
//! kilobyte a laboratory.

use std::collections::{HashMap, HashSet};

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use model::{OperationId, ServerName, TenantId};
use registry::{
    Budgets, Operation, OperationFilter, PAGE_MAX, Registry, RegistryError, Tenant, TenantFilter,
};
use tokio_postgres::IsolationLevel;

use crate::{ProvisionError, request::commit};

pub(super) struct RegistryState {
    /// The time of the reading, on the registry's clock.
    pub(super) now: Timestamp,
    pub(super) tenants: Vec<Tenant>,
    /// Operations that have not ended.
    pub(super) operations: Vec<Operation>,
    /// What all running routers may take of each server.
    pub(super) budgets: Budgets,
    /// Laboratories in whose databases roles of their own people may have rights.
    pub(super) with_people: HashSet<TenantId>,
    by_id: HashMap<TenantId, usize>,
    by_database: HashMap<String, usize>,
    by_role: HashMap<(ServerName, String), usize>,
}

impl RegistryState {
    /// Reads page by page, in one snapshot: a laboratory that is being removed is never read without its
    /// operation.
    pub(super) async fn read(registry: &Registry) -> Result<Self, ProvisionError> {
        let mut client = registry.client().await?;
        let snapshot = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await
            .map_err(ProvisionError::db("beginning a snapshot", "the registry"))?;
        let read = Self {
            budgets: registry::router_budgets(&snapshot, None).await?,
            with_people: registry::tenants_with_people(&snapshot).await?,
            ..Self::of(
                registry::registry_now(&snapshot).await?,
                tenants(&snapshot).await?,
                operations(&snapshot).await?,
            )
        };
        commit(snapshot).await?;
        Ok(read)
    }

    fn of(now: Timestamp, tenants: Vec<Tenant>, operations: Vec<Operation>) -> Self {
        let (mut by_id, mut by_database, mut by_role) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (place, tenant) in tenants.iter().enumerate() {
            by_id.insert(tenant.id, place);
            by_database.insert(tenant.db_name.as_str().to_owned(), place);
            by_role.insert(
                (tenant.server.clone(), tenant.role_name.as_str().to_owned()),
                place,
            );
        }
        Self {
            by_id,
            by_database,
            by_role,
            now,
            tenants,
            operations,
            budgets: Budgets::default(),
            with_people: HashSet::new(),
        }
    }

    pub(super) fn by_id(&self, id: TenantId) -> Option<&Tenant> {
        self.by_id.get(&id).map(|&place| &self.tenants[place])
    }

    /// The laboratory that has this database, wherever; no two have one of the same name.
    pub(super) fn by_database(&self, name: &str) -> Option<&Tenant> {
        self.by_database.get(name).map(|&place| &self.tenants[place])
    }

    pub(super) fn by_role(&self, server: &ServerName, name: &str) -> Option<&Tenant> {
        let key = (server.clone(), name.to_owned());
        self.by_role.get(&key).map(|&place| &self.tenants[place])
    }
}

async fn operations(client: &impl GenericClient) -> Result<Vec<Operation>, RegistryError> {
    let live = OperationFilter {
        live: true,
        ..OperationFilter::default()
    };
    let mut read: Vec<Operation> = Vec::new();
    loop {
        let after = read.last().map(Operation::position);
        let page = registry::operations_list(client, &live, after, PAGE_MAX).await?;
        let full = page.len() == PAGE_MAX as usize;
        read.extend(page);
        if !full {
            return Ok(read);
        }
    }
}

async fn tenants(client: &impl GenericClient) -> Result<Vec<Tenant>, RegistryError> {
    let all = TenantFilter::default();
    let mut read: Vec<Tenant> = Vec::new();
    loop {
        let after = read.last().map(|tenant| tenant.slug.clone());
        let page = registry::tenants_list(client, &all, after.as_ref(), PAGE_MAX).await?;
        let full = page.len() == PAGE_MAX as usize;
        read.extend(page);
        if !full {
            return Ok(read);
        }
    }
}

/// What operations under way in any of several readings explain.
#[derive(Default)]
pub(super) struct UnderWay {
    operations: HashSet<OperationId>,
    /// Laboratories with any operation, also one that only waits.
    any: HashSet<TenantId>,
    /// Laboratories that an operation may change at this moment.
    at_work: HashSet<TenantId>,
}

impl UnderWay {
    pub(super) fn of(readings: &[&RegistryState]) -> Self {
        let mut found = Self::default();
        for registry_state in readings {
            for operation in &registry_state.operations {
                found.operations.insert(operation.id);
                found.any.insert(operation.tenant);
                if !operation.is_waiting() {
                    found.at_work.insert(operation.tenant);
                }
            }
        }
        found
    }

    pub(super) fn has(&self, operation: OperationId) -> bool {
        self.operations.contains(&operation)
    }

    /// Whether an operation on the laboratory has not ended.
    pub(super) fn concerns(&self, tenant: TenantId) -> bool {
        self.any.contains(&tenant)
    }

    /// Whether what is seen of the laboratory may be in the middle of a change.
    pub(super) fn changes(&self, tenant: TenantId) -> bool {
        self.at_work.contains(&tenant)
    }

    /// Whether a name holds the id of an operation under way, or of its laboratory.
    pub(super) fn explains_name(&self, name: &str) -> bool {
        let ids = self.operations.iter().map(|id| id.as_uuid());
        let ids = ids.chain(self.any.iter().map(|id| id.as_uuid()));
        ids.into_iter().any(|id| name.contains(&id.simple().to_string()))
    }
}
