//! Asking for a laboratory to be removed. Nothing is dropped here; the steps do that, once there is a
//! verified archive.

use std::time::Duration;

use model::{OperationId, OperationKind, TenantEvent, TenantId, TenantState};
use registry::{Operation, OperationFilter, RegistryError};
use serde_json::{Value, json};

use crate::{
    ProvisionError, Provisioner, RequestedBy,
    operations::offboard::steps::Grace,
    preconditions::Planned,
    request::{audit, begin, commit, earlier, insert_operation},
};

/// A removal with a shorter grace period than this must be confirmed by the laboratory's slug, wherever it is
/// asked for.
pub const GRACE_UNCONFIRMED_MIN: Duration = Duration::from_secs(3_600);

/// The longest grace period of a removal: ten years.
pub const GRACE_MAX: Duration = Duration::from_secs(3_650 * 86_400);

impl Provisioner {
    /// Asks for a laboratory to be archived and removed: it is closed and `deleting` from now on, and its
    /// data are dropped when `grace` has passed since its archive was verified. Until then
    /// [`Provisioner::cancel`] brings it back. Asked again after the removal failed, the failed operation is
    /// opened again and goes on where it stopped.
    ///
    /// # Errors
    /// [`RegistryError::Illegal`] when its state does not allow it, [`ProvisionError::Unmet`] when something
    /// is missing that the removal needs: nothing is closed then; [`RegistryError::OperationInProgress`],
    /// [`ProvisionError::Invalid`] for a grace period of more than [`GRACE_MAX`].
    pub async fn request_offboard(
        &self,
        tenant: TenantId,
        grace: Duration,
        by: RequestedBy,
    ) -> Result<OperationId, ProvisionError> {
        if grace > GRACE_MAX {
            return Err(ProvisionError::Invalid {
                field: "grace",
                why: format!("a grace period has at most {} days", GRACE_MAX.as_secs() / 86_400),
            });
        }
        let params = json!(Grace {
            grace_s: grace.as_secs()
        });
        let mut client = self.inner.config.registry.client().await?;
        if let Some(earlier) = earlier(&client, &by, OperationKind::Offboard, |op| {
            op.tenant == tenant && op.params == params
        })
        .await?
        {
            return Ok(earlier.id);
        }
        let found = registry::tenant_by_id(&client, tenant).await?;
        if found.as_ref().is_some_and(|t| t.status == TenantState::Deleting) {
            return self.resume_offboard(tenant, params, &by).await;
        }
        if let Some(found) = &found {
            found
                .status
                .on(TenantEvent::Offboard)
                .map_err(RegistryError::from)?;
            self.inner
                .require(&Planned::of(OperationKind::Offboard, found))
                .await?;
        }
        let txn = begin(&mut client).await?;
        let operation = OperationId::generate();
        let change = by.change().in_operation(operation);
        let tenant = registry::tenant_transition_in_txn(&txn, tenant, TenantEvent::Offboard, &change).await?;
        insert_operation(&txn, operation, OperationKind::Offboard, &tenant, params, &by).await?;
        commit(txn).await?;
        Ok(operation)
    }

    /// Ends the grace period of a removal: it goes on at once.
    ///
    /// # Errors
    /// [`RegistryError::NotWaiting`].
    pub async fn end_grace(
        &self,
        operation: OperationId,
        by: RequestedBy,
    ) -> Result<Operation, ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        let txn = begin(&mut client).await?;
        let woken = registry::operation_end_wait(&txn, operation).await?;
        audit(&txn, "operation.grace_ended", &woken, &by).await?;
        commit(txn).await?;
        Ok(woken)
    }

    async fn resume_offboard(
        &self,
        tenant: TenantId,
        params: Value,
        by: &RequestedBy,
    ) -> Result<OperationId, ProvisionError> {
        let filter = OperationFilter {
            tenant: Some(tenant),
            kind: Some(OperationKind::Offboard),
            ..OperationFilter::default()
        };
        let client = self.inner.config.registry.client().await?;
        let last = registry::operations_list(&client, &filter, None, 1).await?.pop();
        drop(client);
        match last {
            Some(last) if last.status.is_final() => self.reopen_with(last.id, Some(params), by.clone()).await,
            _ => Err(RegistryError::OperationInProgress { tenant }.into()),
        }
    }
}
