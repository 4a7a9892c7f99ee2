//! Closing a laboratory for its users and opening it again.
//!
//! The registry's word counts from its commit on; the laboratory's server is made to say the same. Each
//! change of the server is made under the lock of the laboratory's row, so that of a suspension and a
//! resumption at the same time the later one has the last word in both places. Opening tells the server
//! first: a laboratory that is in service can log in. Closing tells it last: if that fails, or the process
//! dies before, the laboratory is closed in the registry, and a reconciler closes the server
//! ([`crate::reconcile`]).

use std::time::Duration;

use model::{TenantEvent, TenantId, TenantState};
use registry::{Actor, NewAudit, NewTenantEvent, RegistryError, Tenant};
use serde_json::{Value, json};

use crate::{
    Inner, ProvisionError, Provisioner, RequestedBy,
    request::{begin, commit, not_found},
    server::fence::{Waited, end_role_sessions, let_in, lock_out, wait_for_routers},
};

/// How often the server is told before it is left to the worker: two at once on one role fail over each
/// other.
const TRIES: u32 = 3;
/// How long to wait between two of them.
const TRY_PAUSE: Duration = Duration::from_millis(50);

impl Provisioner {
    /// Closes a laboratory for its users, at once: from the registry's commit on no router lets anybody in
    /// who was not in. Then waits, for `routers_grace` at most, until every router has let go, and closes the
    /// laboratory on its server too. Where the server cannot be told the suspension stands all the same; a
    /// warning and the audit say so, and a worker goes on trying. Goes on when the caller does not wait for
    /// it.
    ///
    /// # Errors
    /// [`RegistryError::Illegal`] unless it is active, [`RegistryError::NotFound`].
    pub async fn suspend(&self, tenant: TenantId, by: RequestedBy) -> Result<Tenant, ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        let txn = begin(&mut client).await?;
        let tenant =
            registry::tenant_transition_in_txn(&txn, tenant, TenantEvent::Suspend, &by.change()).await?;
        commit(txn).await?;
        drop(client);
        let (inner, closed) = (self.inner.clone(), tenant.clone());
        let closing = tokio::spawn(async move {
            if let Err(error) = inner.close_on_server(&closed, &by.actor).await {
                inner.record_open_server(&closed, &by, &error).await;
            }
        });
        if let Err(error) = closing.await {
            tracing::error!(tenant.slug = %tenant.slug, %error, "closing a laboratory on its server broke");
        }
        Ok(tenant)
    }

    /// Opens a suspended laboratory again, at once, on its server first.
    ///
    /// # Errors
    /// [`RegistryError::Illegal`] unless it is suspended, [`RegistryError::NotFound`];
    /// [`ProvisionError::Connect`] and others when its server cannot be told: it stays closed then.
    pub async fn resume(&self, tenant: TenantId, by: RequestedBy) -> Result<Tenant, ProvisionError> {
        let registry = &self.inner.config.registry;
        let found = registry::tenant_by_id(&registry.client().await?, tenant).await?;
        let found = found.ok_or_else(|| not_found(tenant))?;
        found
            .status
            .on(TenantEvent::Resume)
            .map_err(RegistryError::from)?;
        // Before the row is locked: it may take its time.
        let session = self.inner.session(self.inner.admin(&found).await?).await?;
        let mut client = registry.client().await?;
        let txn = begin(&mut client).await?;
        let tenant =
            registry::tenant_transition_in_txn(&txn, tenant, TenantEvent::Resume, &by.change()).await?;
        let_in(&self.inner, &session, &tenant).await?;
        commit(txn).await?;
        Ok(tenant)
    }
}

impl Inner {
    /// Waits for the routers, makes the server agree with the registry, and writes down what was seen.
    pub(crate) async fn close_on_server(&self, tenant: &Tenant, actor: &Actor) -> Result<(), ProvisionError> {
        let routers = wait_for_routers(self, tenant).await?;
        if !routers.silent.is_empty() {
            tracing::warn!(
                tenant.slug = %tenant.slug,
                routers = ?routers.silent,
                waited_ms = routers.waited_ms,
                "routers have not let go of a suspended laboratory; its server ends their connections"
            );
        }
        let mut tries = 1;
        let ended = loop {
            match self.align(tenant.id).await {
                // A server that is away is the worker's to wait for, not the caller's.
                Err(error)
                    if error.is_transient()
                        && !matches!(error, ProvisionError::Connect(_))
                        && tries < TRIES =>
                {
                    tracing::debug!(tenant.slug = %tenant.slug, %error, "telling the server again");
                }
                outcome => break outcome?,
            }
            tries += 1;
            tokio::time::sleep(TRY_PAUSE).await;
        };
        if let Some(ended) = ended {
            self.write_event(tenant, actor, "fenced", fencing_summary(&routers, ended))
                .await;
        }
        Ok(())
    }

    /// Makes the server say of the laboratory's role what the registry says of the laboratory: closed, or
    /// open. Gives how many sessions it ended, where the laboratory is closed.
    ///
    /// The caller runs it again when it fails after the server's change, as when the lock was lost because
    /// this process stood still: it may have been somebody else's turn.
    pub(crate) async fn align(&self, id: TenantId) -> Result<Option<usize>, ProvisionError> {
        let registry = &self.config.registry;
        let Some(tenant) = registry::tenant_by_id(&registry.client().await?, id).await? else {
            return Ok(None);
        };
        // Before the row is locked: it may take its time.
        let session = self.session(self.admin(&tenant).await?).await?;
        let mut client = registry.client().await?;
        let txn = begin(&mut client).await?;
        let Some(tenant) = registry::tenant_lock_in_txn(&txn, id).await? else {
            return Ok(None);
        };
        let ended = match tenant.status {
            TenantState::Suspended | TenantState::Deleting | TenantState::Restoring => {
                lock_out(self, &session, &tenant).await?;
                Some(end_role_sessions(self, &session, &tenant).await?)
            }
            TenantState::Active => {
                let_in(self, &session, &tenant).await?;
                None
            }
            TenantState::Provisioning => None,
        };
        commit(txn).await?;
        Ok(ended)
    }

    async fn record_open_server(&self, tenant: &Tenant, by: &RequestedBy, error: &ProvisionError) {
        let remedy = "a running tenantd closes it as soon as the server can be reached; until then a router \
                      that is cut off from the registry may still serve it";
        tracing::warn!(
            tenant.slug = %tenant.slug,
            server = %tenant.server,
            %error,
            remedy,
            "a laboratory is suspended, but its server could not be closed to it"
        );
        let detail = json!({
            "slug": tenant.slug,
            "server": tenant.server,
            "error": error.to_string(),
            "remedy": remedy,
        });
        self.write_event(tenant, &by.actor, "fence_missing", detail.clone())
            .await;
        let written = async {
            let client = self.config.registry.client().await?;
            let entry = NewAudit {
                actor: &by.actor,
                action: "tenant.fence_missing",
                tenant: Some(tenant.id),
                detail,
                request_id: by.request_id.as_deref(),
                client_ip: by.client_ip,
            };
            registry::audit_insert(&client, &entry).await
        };
        if let Err(error) = written.await {
            tracing::warn!(tenant.slug = %tenant.slug, %error, "the audit does not say that a fence is missing");
        }
    }

    /// For people to read: nothing depends on it.
    async fn write_event(&self, tenant: &Tenant, actor: &Actor, kind: &str, detail: Value) {
        let written = async {
            let client = self.config.registry.client().await?;
            let event = NewTenantEvent {
                tenant: tenant.id,
                kind,
                actor,
                operation: None,
                detail,
            };
            registry::event_insert(&client, &event).await
        };
        if let Err(error) = written.await {
            tracing::debug!(tenant.slug = %tenant.slug, kind, %error, "an event is not written");
        }
    }
}

fn fencing_summary(routers: &Waited, ended: usize) -> Value {
    json!({ "routers": routers, "sessions_ended": ended })
}
