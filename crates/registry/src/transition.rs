//! Changes of a laboratory's state: decided by the model, written with their event, their audit and what
//! others are told in one transaction.

use deadpool_postgres::Transaction;
use model::{IllegalTransition, TenantEvent, TenantId, TenantState};
use tokio_postgres::types::ToSql;

use crate::{
    Change, RegistryError, Tenant, outbox, sql,
    tenants::{columns, not_found, record, record_audit, tenant_lock_in_txn},
};

/// Moves a laboratory to its next state and returns it as it is then. An event after which the row goes
/// deletes it and returns the laboratory as it was.
///
/// # Errors
/// [`RegistryError::Illegal`] when the event does not fit the state, [`RegistryError::NotFound`] when there
/// is no such laboratory.
pub async fn tenant_transition_in_txn(
    txn: &Transaction<'_>,
    id: TenantId,
    event: TenantEvent,
    change: &Change<'_>,
) -> Result<Tenant, RegistryError> {
    let before = tenant_lock_in_txn(txn, id).await?.ok_or_else(|| not_found(id))?;
    let Some(status) = next(&before, event)? else {
        delete(txn, &before, event, change).await?;
        return Ok(before);
    };
    let status_before = status.remembers().then_some(before.status.as_str());
    let statement = concat!(
        "UPDATE tenants SET status = $2, status_before = $3,
             activated_at = CASE WHEN $2 = 'active' THEN coalesce(activated_at, now()) ELSE activated_at END
         WHERE id = $1 RETURNING ",
        columns!()
    );
    let params: [&(dyn ToSql + Sync); 3] = [&id.as_uuid(), &status.as_str(), &status_before];
    let after = sql::row_one(txn, "changing a laboratory's state", statement, &params).await?;
    let after = Tenant::from_row(&after)?;
    record(txn, &after, word(event), event.into(), change).await?;
    Ok(after)
}

/// Deletes a laboratory's row, and with it its admins and events; operations, archives and audit stay.
/// `false` when the row was gone already, so that a step which was cut off after its commit can be run
/// again.
///
/// # Errors
/// [`RegistryError::Illegal`] when `event` does not end the life of a laboratory in this state.
pub async fn tenant_delete_in_txn(
    txn: &Transaction<'_>,
    id: TenantId,
    event: TenantEvent,
    change: &Change<'_>,
) -> Result<bool, RegistryError> {
    let Some(tenant) = tenant_lock_in_txn(txn, id).await? else {
        return Ok(false);
    };
    match next(&tenant, event)? {
        None => delete(txn, &tenant, event, change).await.map(|()| true),
        Some(_) => Err(IllegalTransition {
            from: tenant.status,
            event,
        }
        .into()),
    }
}

/// The state after the event. What leads back leads to the recorded state and to no other.
fn next(tenant: &Tenant, event: TenantEvent) -> Result<Option<TenantState>, IllegalTransition> {
    if let TenantEvent::CancelOffboard { before } | TenantEvent::RestoreFinished { before } = event
        && tenant.status_before != Some(before)
    {
        return Err(IllegalTransition {
            from: tenant.status,
            event,
        });
    }
    tenant.status.on(event)
}

async fn delete(
    txn: &Transaction<'_>,
    tenant: &Tenant,
    event: TenantEvent,
    change: &Change<'_>,
) -> Result<(), RegistryError> {
    record_audit(txn, tenant, word(event), change).await?;
    outbox::of_tenant(txn, event.into(), tenant, None, change).await?;
    let statement = "DELETE FROM tenants WHERE id = $1";
    sql::touched(txn, "removing a laboratory", statement, &[&tenant.id.as_uuid()]).await?;
    Ok(())
}

fn word(event: TenantEvent) -> &'static str {
    match event {
        TenantEvent::Provisioned => "activated",
        TenantEvent::ProvisionUndone => "provision_undone",
        TenantEvent::Suspend => "suspended",
        TenantEvent::Resume => "resumed",
        TenantEvent::Offboard => "offboard_requested",
        TenantEvent::CancelOffboard { .. } => "readmitted",
        TenantEvent::OffboardFinished => "removed",
        TenantEvent::RestoreInPlace => "restore_requested",
        TenantEvent::RestoreFinished { .. } => "readmitted",
    }
}
