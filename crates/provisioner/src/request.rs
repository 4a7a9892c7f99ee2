//! What every request for a change has in common: who asks, the same request asked again, and the rows that
//! are written.

use std::net::IpAddr;

use deadpool_postgres::Transaction;
use model::{OperationId, OperationKind, OperatorId, Reason, ServerName, TenantId};
use registry::{Actor, Change, NewAudit, NewOperation, Operation, RegistryError, Tenant};
use serde_json::{Value, json};

use crate::ProvisionError;

/// Who asks for a change, and how it can be recognised when it is asked for again.
#[derive(Debug, Clone)]
pub struct RequestedBy {
    /// The person.
    pub actor: Actor,
    /// Why, in the person's words.
    pub reason: Option<Reason>,
    /// The request's id, for the audit.
    pub request_id: Option<String>,
    /// From where it came.
    pub client_ip: Option<IpAddr>,
    /// The same key and content again is the same operation.
    pub idempotency_key: Option<String>,
}

impl RequestedBy {
    /// A caller of whom no more is known.
    #[must_use]
    pub fn actor(actor: Actor) -> Self {
        Self {
            actor,
            reason: None,
            request_id: None,
            client_ip: None,
            idempotency_key: None,
        }
    }

    /// A person of the platform's staff.
    #[must_use]
    pub fn operator(id: OperatorId) -> Self {
        Self::actor(Actor::Operator(id))
    }

    /// The person at the command line, by account name.
    #[must_use]
    pub fn terminal(user: impl Into<String>) -> Self {
        Self::actor(Actor::Terminal(user.into()))
    }

    /// The same for the registry's events and audit.
    #[must_use]
    pub fn change(&self) -> Change<'_> {
        Change {
            actor: &self.actor,
            operation: None,
            reason: self.reason.as_deref(),
            request_id: self.request_id.as_deref(),
            client_ip: self.client_ip,
        }
    }
}

pub(crate) async fn only_server(client: &registry::RegistryClient) -> Result<ServerName, ProvisionError> {
    let mut servers = registry::servers_list(client).await?;
    match (servers.pop(), servers.is_empty()) {
        (Some(only), true) => Ok(only.name),
        (last, _) => Err(ProvisionError::WhichServer {
            known: servers
                .into_iter()
                .chain(last)
                .map(|s| s.name.to_string())
                .collect(),
        }),
    }
}

/// The operation that a request with this key asked for before.
pub(crate) async fn earlier(
    client: &registry::RegistryClient,
    by: &RequestedBy,
    kind: OperationKind,
    same: impl Fn(&Operation) -> bool,
) -> Result<Option<Operation>, ProvisionError> {
    let Some(key) = &by.idempotency_key else {
        return Ok(None);
    };
    match registry::operation_by_idempotency_key(client, key).await? {
        Some(found) if found.kind == kind && same(&found) => Ok(Some(found)),
        Some(_) => Err(ProvisionError::IdempotencyMismatch { key: key.clone() }),
        None => Ok(None),
    }
}

pub(crate) async fn tenant_of(
    client: &registry::RegistryClient,
    operation: &Operation,
) -> Result<Tenant, ProvisionError> {
    let found = registry::tenant_by_id(client, operation.tenant).await?;
    found.ok_or_else(|| ProvisionError::TenantGone {
        slug: operation.tenant_slug.clone(),
    })
}

pub(crate) async fn insert_operation(
    txn: &Transaction<'_>,
    id: OperationId,
    kind: OperationKind,
    tenant: &Tenant,
    params: Value,
    by: &RequestedBy,
) -> Result<Operation, RegistryError> {
    let new = NewOperation {
        id,
        kind,
        tenant: tenant.id,
        tenant_slug: tenant.slug.clone(),
        params,
        created_by: by.actor.clone(),
        idempotency_key: by.idempotency_key.clone(),
    };
    registry::operation_insert_in_txn(txn, &new).await
}

pub(crate) async fn audit(
    txn: &Transaction<'_>,
    action: &str,
    operation: &Operation,
    by: &RequestedBy,
) -> Result<(), RegistryError> {
    let entry = NewAudit {
        actor: &by.actor,
        action,
        tenant: Some(operation.tenant),
        detail: json!({
            "operation": operation.id,
            "kind": operation.kind,
            "slug": operation.tenant_slug,
            "reason": by.reason,
        }),
        request_id: by.request_id.as_deref(),
        client_ip: by.client_ip,
    };
    registry::audit_insert(txn, &entry).await
}

pub(crate) fn not_found(tenant: TenantId) -> RegistryError {
    RegistryError::NotFound {
        what: registry::Entity::Laboratory,
        id: tenant.to_string(),
    }
}

pub(crate) async fn begin(client: &mut registry::RegistryClient) -> Result<Transaction<'_>, ProvisionError> {
    client
        .transaction()
        .await
        .map_err(ProvisionError::db("beginning a transaction", "the registry"))
}

pub(crate) async fn commit(txn: Transaction<'_>) -> Result<(), ProvisionError> {
    txn.commit()
        .await
        .map_err(ProvisionError::db("committing", "the registry"))
}
