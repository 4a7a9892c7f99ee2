//! Changing one's mind about an operation: cancelling it, and running one that failed once more.

use model::{OperationId, OperationKind, TenantState};
use registry::{Operation, RegistryError};
use serde_json::Value;

use crate::{
    ProvisionError, Provisioner, RequestedBy,
    request::{audit, begin, commit},
};

impl Provisioner {
    /// Asks for an operation to be cancelled, which brings back what was before it: a laboratory being made
    /// is taken away, one being removed is opened again. It is done when the operation is `cancelled`.
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

    pub(crate) async fn reopen_with(
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
