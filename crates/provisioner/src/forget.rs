//! A laboratory whose database is gone though the registry still has it, as after the registry was restored
//! from a backup that is older than the laboratory's removal: its row goes, its archives stay.

use model::{TenantEvent, TenantId};
use registry::{OperationFilter, Tenant};

use crate::{
    ProvisionError, Provisioner, RequestedBy,
    preconditions::renamed,
    request::{begin, commit, not_found},
    server::look_for_own,
};

impl Provisioner {
    /// Removes a laboratory's row from the registry. Nothing is dropped: its database must be gone from its
    /// server already, under whatever name, and a verified archive of it must be recorded, from which it can
    /// be restored, unless `without_archive` says that nothing of it is left to keep.
    ///
    /// # Errors
    /// [`ProvisionError::Refused`] says what stands against it;
    /// [`registry::RegistryError::OperationInProgress`], [`registry::RegistryError::NotFound`];
    /// [`ProvisionError::Connect`] when its server cannot be asked.
    pub async fn forget(
        &self,
        tenant: TenantId,
        without_archive: bool,
        by: RequestedBy,
    ) -> Result<Tenant, ProvisionError> {
        let inner = &self.inner;
        let mut client = inner.config.registry.client().await?;
        let found = registry::tenant_by_id(&client, tenant).await?;
        let found = found.ok_or_else(|| not_found(tenant))?;
        let refused = |why: String| {
            let why = format!("{} is not forgotten: {why}", found.slug);
            Err(ProvisionError::Refused { why })
        };
        let session = inner.session(inner.admin(&found).await?).await?;
        match look_for_own(&session, &found).await {
            Ok(None) => {}
            Ok(Some(_)) => {
                let name = found.db_name.as_str();
                return refused(format!(
                    "its database {name} is there; `tenantctl offboard {}` archives and removes it",
                    found.slug
                ));
            }
            Err(not_ours @ ProvisionError::NotOurs { .. }) => return refused(not_ours.to_string()),
            Err(error) => return Err(error),
        }
        if let Some(renamed) = renamed(&session, &found).await? {
            return refused(renamed);
        }
        let archives = registry::archives_list(&client, Some(tenant), None, 1).await?;
        if archives.is_empty() && !without_archive {
            return refused(format!(
                "no archive of it is recorded; bring one back first (`tenantctl archives import`), or, where \
                 nothing of it is left to keep, `tenantctl forget {slug} --confirm {slug} --without-archive` \
                 (over the API `withoutArchive`): its data are lost then",
                slug = found.slug
            ));
        }
        let live = OperationFilter {
            tenant: Some(tenant),
            live: true,
            ..OperationFilter::default()
        };
        let txn = begin(&mut client).await?;
        registry::tenant_lock_in_txn(&txn, tenant).await?;
        if !registry::operations_list(&txn, &live, None, 1).await?.is_empty() {
            return Err(registry::RegistryError::OperationInProgress { tenant }.into());
        }
        let change = by.change();
        if found.status != model::TenantState::Deleting {
            registry::tenant_transition_in_txn(&txn, tenant, TenantEvent::Offboard, &change).await?;
        }
        registry::tenant_delete_in_txn(&txn, tenant, TenantEvent::OffboardFinished, &change).await?;
        commit(txn).await?;
        Ok(found)
    }
}
