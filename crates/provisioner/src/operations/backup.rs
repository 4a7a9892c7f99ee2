//! Backing a laboratory up while it works: the worker makes an archive, then removes what the schedule does
//! not keep.

use model::{ArchiveId, OperationId, OperationKind, TenantId, TenantState};
use registry::Tenant;
use serde_json::json;

use crate::{
    Inner, ProvisionError, Provisioner, RequestedBy,
    engine::{Context, StepResult},
    operations::{Definition, Sequence, definition::steps, dump::dump_in_service, verify::verify_last},
    preconditions::Planned,
    request::{audit, begin, commit, earlier, insert_operation, not_found},
    retention,
};

/// The steps. Nothing is to be taken back.
pub(crate) const DEFINITION: Definition = Definition {
    steps: steps! {
        Dump => dump_in_service,
        Verify => verify_last,
        Prune => prune,
    },
    undo: Sequence::EMPTY,
};

impl Provisioner {
    /// Asks for an archive of a laboratory that goes on working.
    ///
    /// # Errors
    /// [`ProvisionError::Refused`] unless it is active or suspended; [`ProvisionError::Unmet`];
    /// [`registry::RegistryError::OperationInProgress`], [`registry::RegistryError::NotFound`].
    pub async fn request_backup(
        &self,
        tenant: TenantId,
        by: RequestedBy,
    ) -> Result<OperationId, ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        if let Some(earlier) = earlier(&client, &by, OperationKind::Backup, |op| op.tenant == tenant).await? {
            return Ok(earlier.id);
        }
        // Without a lock: it may take its time.
        self.inner.require_backup(tenant).await?;
        let txn = begin(&mut client).await?;
        let found = registry::tenant_lock_in_txn(&txn, tenant)
            .await?
            .ok_or_else(|| not_found(tenant))?;
        can_be_backed_up(&found)?;
        let id = OperationId::generate();
        let asked = insert_operation(&txn, id, OperationKind::Backup, &found, json!({}), &by).await?;
        audit(&txn, "tenant.backup_requested", &asked, &by).await?;
        commit(txn).await?;
        Ok(id)
    }
}

impl Inner {
    /// Refuses a backup that could not be made, with all that is in the way, whether a person asks for it or
    /// a schedule.
    pub(crate) async fn require_backup(&self, tenant: TenantId) -> Result<(), ProvisionError> {
        let client = self.config.registry.client().await?;
        let found = registry::tenant_by_id(&client, tenant).await?;
        drop(client);
        let found = found.ok_or_else(|| not_found(tenant))?;
        can_be_backed_up(&found)?;
        self.require(&Planned::of(OperationKind::Backup, &found)).await
    }
}

fn can_be_backed_up(tenant: &Tenant) -> Result<(), ProvisionError> {
    match tenant.status {
        TenantState::Active | TenantState::Suspended => Ok(()),
        status => Err(ProvisionError::Refused {
            why: format!(
                "{} is {status}: only an active or suspended laboratory can be backed up",
                tenant.slug
            ),
        }),
    }
}

/// The last step of a backup: what the laboratory's schedule does not keep goes.
pub(crate) async fn prune(cx: &Context<'_>) -> StepResult {
    let pruned = retention::prune(cx.inner, Some(cx.operation.tenant), &cx.actor).await?;
    let pruned: Vec<ArchiveId> = pruned.iter().map(|archive| archive.id).collect();
    Ok(json!({ "pruned": pruned }))
}
