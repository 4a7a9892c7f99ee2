//! Asking for a laboratory to be removed, and changing one's mind: calling an operation off, ending a grace period, running once
//! more what failed. Nothing is dropped here; the steps do that, behind a proved archive.

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

/// A removal with a shorter grace period than this must be confirmed by the laboratory's slug, wherever it is asked for.
pub const GRACE_UNCONFIRMED_MIN: Duration = Duration::from_secs(3_600);

/// The longest grace period of a removal: ten years.
pub const GRACE_MAX: Duration = Duration::from_secs(3_650 * 86_400);

impl Provisioner {
    /// Asks for a laboratory to be archived and removed: it is closed and `deleting` from now on, and its data are dropped
    /// when `grace` has passed since its archive was proved. Until then [`Provisioner::cancel`] brings it back. Asked again
    /// after the removal failed, the failed operation is opened again and goes on where it stopped.
    ///
    /// # Errors
    /// [`RegistryError::Illegal`] when its state does not allow it, [`ProvisionError::Unmet`] when something is missing that the
    /// removal needs: nothing is closed then; [`RegistryError::OperationInProgress`],
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

    /// Asks for an operation to be called off, which brings back what was before it: a laboratory being made is taken away, one
    /// being removed is opened again. It is done when the operation is `cancelled`.
    ///
    /// # Errors
    /// [`RegistryError::NotCancellable`] says why not, [`RegistryError::NotFound`].
    pub async fn cancel(&self, operation: OperationId, by: RequestedBy) -> Result<Operation, ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        let txn = begin(&mut client).await?;
        let asked = registry::operation_request_cancel_in_txn(&txn, operation, &by.actor).await?;
        audit(&txn, "operation.cancel_requested", &asked, &by).await?;
        commit(txn).await?;
        Ok(asked)
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

    /// Lets an operation that failed be run once more; steps that are done stay done.
    ///
    /// # Errors
    /// [`RegistryError::NotReopenable`], [`RegistryError::OperationInProgress`];
    /// [`ProvisionError::TenantGone`] when its laboratory was taken away by the undoing.
    pub async fn reopen(
        &self,
        operation: OperationId,
        by: RequestedBy,
    ) -> Result<OperationId, ProvisionError> {
        self.reopen_with(operation, None, by).await
    }

    async fn reopen_with(
        &self,
        operation: OperationId,
        params: Option<Value>,
        by: RequestedBy,
    ) -> Result<OperationId, ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        let txn = begin(&mut client).await?;
        let reopened = registry::operation_reopen(&txn, operation).await?;
        if let Some(params) = params {
            registry::operation_set_params(&txn, operation, &params).await?;
        }
        // All that is left to do when the row is gone is to say so: the last step of a removal.
        let tenant = registry::tenant_by_id(&txn, reopened.tenant).await?;
        let makes = matches!(
            reopened.kind,
            OperationKind::Provision | OperationKind::Adopt | OperationKind::Restore
        );
        // Made by another operation since: this one's steps, and its undoing, are not for it.
        if makes
            && tenant
                .as_ref()
                .is_some_and(|t| t.status != TenantState::Provisioning)
        {
            return Err(RegistryError::NotReopenable { operation }.into());
        }
        let gone = tenant.is_none();
        if gone
            && !matches!(
                reopened.kind,
                OperationKind::Offboard | OperationKind::VerifyArchive | OperationKind::ImportArchive
            )
        {
            return Err(ProvisionError::TenantGone {
                slug: reopened.tenant_slug,
            });
        }
        audit(&txn, "operation.reopened", &reopened, &by).await?;
        commit(txn).await?;
        Ok(operation)
    }
}
