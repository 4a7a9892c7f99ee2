//! Bringing a laboratory's schema to this code's version: the request, and the steps.

use model::{OperationId, OperationKind, SchemaVersion, TenantId, TenantState};
use registry::Tenant;
use serde_json::json;

use crate::{
    ProvisionError, Provisioner, RequestedBy,
    engine::{Context, StepResult},
    error::StepError,
    operations::{Definition, Sequence, definition::steps},
    preconditions::Planned,
    request::{audit, begin, commit, earlier, insert_operation, not_found},
    server::{fix_password, rights, settle},
};

impl Provisioner {
    /// Asks for a laboratory's schema to be brought to this code's version.
    ///
    /// # Errors
    /// [`ProvisionError::NotMigratable`], [`registry::RegistryError::OperationInProgress`];
    /// [`ProvisionError::Unmet`] when its database is not there or was not made for it.
    pub async fn request_migrate(
        &self,
        tenant: TenantId,
        by: RequestedBy,
    ) -> Result<OperationId, ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        if let Some(earlier) = earlier(&client, &by, OperationKind::Migrate, |op| op.tenant == tenant).await?
        {
            return Ok(earlier.id);
        }
        let found = migratable(&client, tenant).await?;
        let planned = Planned::of(OperationKind::Migrate, &found);
        self.inner.require(&planned).await?;
        let txn = begin(&mut client).await?;
        let found = migratable(&txn, tenant).await?;
        let operation = OperationId::generate();
        let written =
            insert_operation(&txn, operation, OperationKind::Migrate, &found, json!({}), &by).await?;
        audit(&txn, "tenant.migrate_requested", &written, &by).await?;
        commit(txn).await?;
        Ok(operation)
    }
}

async fn migratable(
    client: &impl deadpool_postgres::GenericClient,
    tenant: TenantId,
) -> Result<Tenant, ProvisionError> {
    let found = registry::tenant_by_id(client, tenant).await?;
    let found = found.ok_or_else(|| not_found(tenant))?;
    match found.status {
        TenantState::Active | TenantState::Suspended => Ok(found),
        state => Err(ProvisionError::NotMigratable {
            slug: found.slug,
            state,
        }),
    }
}

/// The steps. Nothing is to be taken back.
pub(crate) const DEFINITION: Definition = Definition {
    steps: steps! {
        EnsureSchema => ensure_schema,
        RecordVersion => record_version,
    },
    undo: Sequence::EMPTY,
};

pub(crate) async fn ensure_schema(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let before = migrator::history_version(&*cx.inside(&tenant).await?).await?;
    let after = bring_to_latest(cx, &tenant, before).await?;
    let session = cx.maintenance(&tenant).await?;
    let settled = rights(cx.inner, &session, &tenant, &tenant.db_name)
        .await?
        .are_settled();
    if !settled {
        settle(cx.inner, &session, &tenant, &tenant.db_name).await?;
    }
    let password = tenant.status == TenantState::Active && fix_password(cx, &session, &tenant).await?;
    Ok(json!({ "from": before, "to": after, "rights_settled": !settled, "password_put_back": password }))
}

/// Runs the missing migrations, where there are any.
pub(crate) async fn bring_to_latest(
    cx: &Context<'_>,
    tenant: &Tenant,
    before: SchemaVersion,
) -> Result<SchemaVersion, StepError> {
    if before == migrator::latest() {
        return Ok(before);
    }
    cx.make_irreversible(&cx.inner.config.registry.client().await?)
        .await?;
    let target = cx
        .inner
        .admin(tenant)
        .await?
        .with_database(tenant.db_name.as_str());
    let group = cx.inner.config.namespace.tenant_group(tenant.id);
    Ok(migrator::migrate_database(&target, &group).await?)
}

/// Writes down what the laboratory's own history says, and never what a migration was meant to reach.
pub(crate) async fn record_version(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let found = migrator::history_version(&*cx.inside(&tenant).await?).await?;
    let client = cx.inner.config.registry.client().await?;
    let recorded = registry::tenant_set_db_version(&client, tenant.id, found).await?;
    Ok(json!({ "found": found, "recorded": recorded }))
}
