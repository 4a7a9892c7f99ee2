//! Invitations of administrators: the right to set a password of one's own, once and for a while.
//!
//! The registry knows the SHA-256 of a token and never the token. An administrator has one invitation at
//! most: a newer one takes the place of the one before.

use std::time::Duration;

use deadpool_postgres::{GenericClient, Transaction};
use jiff::Timestamp;
use model::{StaffId, TenantId};
use serde_json::json;
use tokio_postgres::{Row, types::ToSql};

use crate::{Change, Entity, RegistryError, admins::record, row::Reader, sql};

/// An invitation that is to be.
#[derive(Debug, Clone)]
pub struct NewInvitation {
    /// The laboratory.
    pub tenant: TenantId,
    /// Who is invited.
    pub admin: StaffId,
    /// The SHA-256 of the token.
    pub token_sha256: [u8; 32],
    /// How long it can be accepted, by the registry's clock.
    pub valid_for: Duration,
}

/// An invitation.
#[derive(Debug, Clone)]
pub struct Invitation {
    /// The laboratory.
    pub tenant: TenantId,
    /// Who is invited.
    pub admin: StaffId,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it can be accepted.
    pub expires_at: Timestamp,
    /// Whether that time has come, by the registry's clock.
    pub expired: bool,
    /// When it was accepted.
    pub accepted_at: Option<Timestamp>,
}

macro_rules! columns {
    () => {
        "tenant_id, admin_id, created_by, created_at, expires_at, expires_at <= clock_timestamp() AS \
         expired, accepted_at"
    };
}

impl Invitation {
    fn from_row(row: &Row) -> Result<Self, RegistryError> {
        let r = Reader::new(row, "admin_invitations", "admin_id");
        Ok(Self {
            tenant: r.id("tenant_id")?,
            admin: r.id("admin_id")?,
            created_by: r.get("created_by")?,
            created_at: r.get("created_at")?,
            expires_at: r.get("expires_at")?,
            expired: r.get("expired")?,
            accepted_at: r.get("accepted_at")?,
        })
    }
}

/// Invites an administrator and writes that into the audit; an invitation that they had before is no longer
/// valid.
///
/// # Errors
/// [`RegistryError::NotFound`] when the laboratory has no such administrator; the transaction is lost then.
pub async fn invitation_put_in_txn(
    txn: &Transaction<'_>,
    new: &NewInvitation,
    change: &Change<'_>,
) -> Result<Invitation, RegistryError> {
    let statement = concat!(
        "INSERT INTO admin_invitations AS i (tenant_id, admin_id, token_sha256, created_by, expires_at)
         VALUES ($1, $2, $3, $4, clock_timestamp() + $5 * interval '1 second')
         ON CONFLICT (tenant_id, admin_id) DO UPDATE SET token_sha256 = excluded.token_sha256,
             created_by = excluded.created_by, created_at = excluded.created_at, expires_at = excluded.expires_at,
             accepted_at = NULL
         RETURNING ",
        columns!()
    );
    let params: [&(dyn ToSql + Sync); 5] = [
        &new.tenant.as_uuid(),
        &new.admin.as_uuid(),
        &new.token_sha256.as_slice(),
        &change.actor.to_string(),
        &new.valid_for.as_secs_f64(),
    ];
    let put = sql::row_one(txn, "inviting an administrator", statement, &params).await;
    let put = put.map_err(|error| match error.violated() {
        Some("admin_invitations_tenant_id_admin_id_fkey") => RegistryError::NotFound {
            what: Entity::Administrator,
            id: new.admin.to_string(),
        },
        _ => error,
    })?;
    let invitation = Invitation::from_row(&put)?;
    let detail = json!({ "admin": new.admin, "expiresAt": invitation.expires_at });
    record(txn, new.tenant, "admin.invited", detail, change).await?;
    Ok(invitation)
}

/// The invitation whose token has this SHA-256, also one that has expired or was accepted.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or the row cannot be read.
pub async fn invitation_by_digest(
    client: &impl GenericClient,
    token_sha256: &[u8; 32],
) -> Result<Option<Invitation>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM admin_invitations WHERE token_sha256 = $1"
    );
    let digest = token_sha256.as_slice();
    let row = sql::row_opt(client, "looking for an invitation", statement, &[&digest]).await?;
    row.as_ref().map(Invitation::from_row).transpose()
}

/// The invitations of one laboratory's administrators, also those that have expired or were accepted.
///
/// # Errors
/// As [`invitation_by_digest`].
pub async fn invitations_of(
    client: &impl GenericClient,
    tenant: TenantId,
) -> Result<Vec<Invitation>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM admin_invitations WHERE tenant_id = $1 ORDER BY admin_id LIMIT 500"
    );
    let rows = sql::rows(client, "listing invitations", statement, &[&tenant.as_uuid()]).await?;
    rows.iter().map(Invitation::from_row).collect()
}

/// Uses an invitation up and writes that into the audit; `false` when it was accepted, replaced or has
/// expired meanwhile.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn invitation_accept_in_txn(
    txn: &Transaction<'_>,
    token_sha256: &[u8; 32],
    change: &Change<'_>,
) -> Result<bool, RegistryError> {
    let statement = concat!(
        "UPDATE admin_invitations SET accepted_at = clock_timestamp()
         WHERE token_sha256 = $1 AND accepted_at IS NULL AND expires_at > clock_timestamp() RETURNING ",
        columns!()
    );
    let digest = token_sha256.as_slice();
    let row = sql::row_opt(txn, "accepting an invitation", statement, &[&digest]).await?;
    let Some(accepted) = row.as_ref().map(Invitation::from_row).transpose()? else {
        return Ok(false);
    };
    let detail = json!({ "admin": accepted.admin });
    record(txn, accepted.tenant, "invitation.accepted", detail, change).await?;
    Ok(true)
}

/// Takes back an administrator's invitation that nobody has accepted and writes that into the audit; `false`
/// when there was none.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn invitation_revoke_in_txn(
    txn: &Transaction<'_>,
    tenant: TenantId,
    admin: StaffId,
    change: &Change<'_>,
) -> Result<bool, RegistryError> {
    let ended = invitation_end_in_txn(txn, tenant, admin).await?;
    if ended {
        record(
            txn,
            tenant,
            "invitation.revoked",
            json!({ "admin": admin }),
            change,
        )
        .await?;
    }
    Ok(ended)
}

/// Ends an administrator's invitation that nobody has accepted; `false` when there was none.
pub(crate) async fn invitation_end_in_txn(
    txn: &Transaction<'_>,
    tenant: TenantId,
    admin: StaffId,
) -> Result<bool, RegistryError> {
    let statement =
        "DELETE FROM admin_invitations WHERE tenant_id = $1 AND admin_id = $2 AND accepted_at IS NULL";
    let params: [&(dyn ToSql + Sync); 2] = [&tenant.as_uuid(), &admin.as_uuid()];
    let ended = sql::touched(txn, "ending an invitation", statement, &params).await?;
    Ok(ended > 0)
}
