//! Inviting a laboratory's administrators: each gets a link that is shown once, and sets a password by it.
//!
//! Nothing here knows a password, and the token itself is kept nowhere: whoever asked for the invitation
//! hands it on.

use std::time::Duration;

use jiff::Timestamp;
use model::{Email, StaffId, TenantId};
use registry::{Admin, NewInvitation, RegistryError, invitation_put_in_txn, invitation_revoke_in_txn};
use secrecy::SecretString;

use crate::{
    ProvisionError, Provisioner, RequestedBy,
    request::{begin, commit},
};

/// An invitation as it was made: the only time that its token is known.
#[derive(Debug, Clone)]
pub struct Invited {
    /// Who is invited.
    pub admin: StaffId,
    /// Their address.
    pub email: Email,
    /// What they set a password with.
    pub token: SecretString,
    /// Until when.
    pub expires_at: Timestamp,
}

fn unknown(admin: StaffId) -> ProvisionError {
    let (what, id) = (registry::Entity::Administrator, admin.to_string());
    RegistryError::NotFound { what, id }.into()
}

impl Provisioner {
    /// Invites an administrator to set a password, the first one or another: the one they have stays valid
    /// until then. An invitation that they had before is no longer valid.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when the laboratory has no such administrator; [`ProvisionError::Refused`]
    /// when they may not log in.
    pub async fn invite(
        &self,
        tenant: TenantId,
        admin: StaffId,
        valid_for: Duration,
        by: &RequestedBy,
    ) -> Result<Invited, ProvisionError> {
        let wanted = |found: &Admin| match found.disabled_at {
            None => Ok(true),
            Some(_) => Err(ProvisionError::Refused {
                why: format!(
                    "{} is not active; let them in again before you invite them",
                    found.email
                ),
            }),
        };
        let invited = self.invite_if(tenant, admin, wanted, valid_for, by).await?;
        invited.ok_or_else(|| unknown(admin))
    }

    /// Takes back an administrator's invitation that nobody has accepted: its link is good for nothing from
    /// now on. `false` when there was none. The password that they have stays.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when the laboratory has no such administrator.
    pub async fn revoke_invitation(
        &self,
        tenant: TenantId,
        admin: StaffId,
        by: &RequestedBy,
    ) -> Result<bool, ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        let txn = begin(&mut client).await?;
        let found = registry::admin_lock_in_txn(&txn, tenant, admin).await?;
        found.ok_or_else(|| unknown(admin))?;
        let revoked = invitation_revoke_in_txn(&txn, tenant, admin, &by.change()).await?;
        commit(txn).await?;
        Ok(revoked)
    }

    /// Invites the first administrator of a laboratory that was just asked for, if they have no password.
    /// Asked again, as for a request that is repeated, there is another invitation in place of the first as
    /// long as that was not accepted, and none from then on.
    ///
    /// # Errors
    /// [`ProvisionError::Registry`] when the registry cannot be asked.
    pub async fn invite_first(
        &self,
        tenant: TenantId,
        valid_for: Duration,
        by: &RequestedBy,
    ) -> Result<Option<Invited>, ProvisionError> {
        let client = self.inner.config.registry.client().await?;
        let first = registry::admins_of(&client, tenant).await?.into_iter().next();
        drop(client);
        let Some(first) = first else { return Ok(None) };
        let wanted = |found: &Admin| Ok(found.password_hash.is_none() && found.disabled_at.is_none());
        self.invite_if(tenant, first.id, wanted, valid_for, by).await
    }

    /// The administrator stays as they are from the look to the commit: one who accepts an invitation at this
    /// moment gets no other.
    async fn invite_if(
        &self,
        tenant: TenantId,
        admin: StaffId,
        wanted: impl FnOnce(&Admin) -> Result<bool, ProvisionError>,
        valid_for: Duration,
        by: &RequestedBy,
    ) -> Result<Option<Invited>, ProvisionError> {
        let token = identity::generate_invitation_token();
        let mut client = self.inner.config.registry.client().await?;
        let txn = begin(&mut client).await?;
        let found = registry::admin_lock_in_txn(&txn, tenant, admin).await?;
        let Some(found) = found else { return Ok(None) };
        if !wanted(&found)? {
            return Ok(None);
        }
        let new = NewInvitation {
            tenant,
            admin,
            token_sha256: identity::invitation_digest(&token),
            valid_for,
        };
        let made = invitation_put_in_txn(&txn, &new, &by.change()).await?;
        commit(txn).await?;
        Ok(Some(Invited {
            admin,
            email: found.email,
            token,
            expires_at: made.expires_at,
        }))
    }
}
