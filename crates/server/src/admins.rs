//! The registry's copy of a laboratory's first admins, kept equal to the laboratory's staff list.
//!
//! Log-in finds an admin by e-mail in the registry, so a new password or address counts from there. The
//! registry and the laboratory are two databases and no commit covers both. The order is: the change is made
//! in the laboratory, then made and committed in the registry, then committed in the laboratory. Whatever
//! either of the two refuses stops both; only a break between the two commits leaves the registry ahead. It
//! is in that order because the laboratory's row carries the version: as long as it has not been committed,
//! the client's very same request (same `If-Match`) fits still, and sent again it brings both to the same.
//! The other way round it would get 412, and the registry would stay as it is.

use lab::Actor;
use model::{StaffId, TenantId};
use registry::{AdminPatch, Change, admin_change_in_txn, admin_set_password_in_txn};
use secrecy::SecretString;

use crate::{problem::ApiResult, state::AppState};

/// Writes a change of a person into the registry, if the registry knows them.
///
/// # Errors
/// 409 when the registry has the address already, 503 when it cannot be reached.
pub async fn change(
    state: &AppState,
    tenant: TenantId,
    by: &Actor,
    id: StaffId,
    patch: &AdminPatch,
) -> ApiResult<()> {
    let actor = registry::Actor::Staff(by.staff);
    let changed = (state.registry)
        .in_txn(async |txn| admin_change_in_txn(txn, tenant, id, patch, &circumstances(&actor, by)).await)
        .await?;
    tracing::debug!(
        known = changed.is_some(),
        "a person's change reached the registry"
    );
    Ok(())
}

/// Writes a new password's hash into the registry, if the registry knows the person.
///
/// # Errors
/// 503 when the registry cannot be reached.
pub async fn set_password(
    state: &AppState,
    tenant: TenantId,
    by: &Actor,
    id: StaffId,
    hash: &SecretString,
) -> ApiResult<()> {
    let actor = registry::Actor::Staff(by.staff);
    let known = (state.registry)
        .in_txn(async |txn| {
            admin_set_password_in_txn(txn, tenant, id, hash, &circumstances(&actor, by)).await
        })
        .await?;
    tracing::debug!(known, "a person's new password reached the registry");
    Ok(())
}

fn circumstances<'a>(actor: &'a registry::Actor, by: &'a Actor) -> Change<'a> {
    Change {
        request_id: by.request_id.as_deref(),
        client_ip: by.client_ip,
        ..Change::by(actor)
    }
}
