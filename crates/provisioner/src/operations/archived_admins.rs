//! The administrators of a laboratory as its archive keeps them: sealed, because their passwords' hashes are
//! among them.

use identity::SealContext;
use jiff::Timestamp;
use model::{ArchiveId, Email, StaffId, TenantId};
use registry::{Admin, Archive};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Inner, ProvisionError};

/// An administrator as an archive keeps him, sealed: the password's hash is in it.
#[derive(Serialize, Deserialize)]
struct KeptAdmin {
    id: StaffId,
    email: String,
    display_name: String,
    /// Absent for one who had not accepted an invitation yet.
    password_hash: Option<String>,
    disabled_at: Option<Timestamp>,
    created_at: Timestamp,
}

/// The laboratory's administrators, sealed for the archive.
pub(crate) async fn seal_admins(
    inner: &Inner,
    archive: ArchiveId,
    tenant: TenantId,
) -> Result<Vec<u8>, ProvisionError> {
    let client = inner.config.registry.client().await?;
    let admins: Vec<KeptAdmin> = registry::admins_of(&client, tenant)
        .await?
        .into_iter()
        .map(|admin| KeptAdmin {
            id: admin.id,
            email: admin.email.as_str().to_owned(),
            display_name: admin.display_name,
            password_hash: admin.password_hash.map(|hash| hash.expose_secret().to_owned()),
            disabled_at: admin.disabled_at,
            created_at: admin.created_at,
        })
        .collect();
    let text = SecretString::from(json!(admins).to_string());
    Ok(inner
        .config
        .sealer
        .seal(&SealContext::ArchivedAdmins(archive), &text))
}

/// An archive's administrators, as those of the laboratory that it becomes.
pub(crate) fn open_admins(
    inner: &Inner,
    archive: &Archive,
    tenant: TenantId,
) -> Result<Vec<Admin>, ProvisionError> {
    open_sealed_admins(inner, archive.id, archive.admins.as_deref(), tenant)
}

/// The administrators that were sealed for an archive.
pub(crate) fn open_sealed_admins(
    inner: &Inner,
    archive: ArchiveId,
    sealed: Option<&[u8]>,
    tenant: TenantId,
) -> Result<Vec<Admin>, ProvisionError> {
    let refused = |why: String| ProvisionError::Refused {
        why: format!("the administrators in archive {archive} cannot be read: {why}"),
    };
    let sealed =
        sealed.ok_or_else(|| refused("it was made by an earlier version, which kept none".to_owned()))?;
    let text = inner.open(&SealContext::ArchivedAdmins(archive), sealed)?;
    let value: Value =
        serde_json::from_str(text.expose_secret()).map_err(|_| refused("they are damaged".to_owned()))?;
    let kept: Vec<KeptAdmin> =
        serde_json::from_value(value).map_err(|_| refused("they are damaged".to_owned()))?;
    kept.into_iter()
        .map(|admin| {
            Ok(Admin {
                id: admin.id,
                tenant,
                email: Email::known(&admin.email).map_err(|error| refused(error.to_string()))?,
                display_name: admin.display_name,
                password_hash: admin.password_hash.map(SecretString::from),
                disabled_at: admin.disabled_at,
                created_at: admin.created_at,
            })
        })
        .collect()
}
