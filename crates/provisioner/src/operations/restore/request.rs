//! Asking for an archive to be restored: as a laboratory of its own, or in the place of what its laboratory
//! holds.

use archive::Manifest;
use identity::SealContext;
use model::{ArchiveId, OperationId, OperationKind, ServerName, Slug, TenantId, TenantState};
use registry::{Archive, NewOperation, RegistryError, Tenant};
use serde_json::json;

use crate::{
    ProvisionError, Provisioner, RequestedBy,
    operations::archived_admins::open_admins,
    preconditions::Planned,
    request::{audit, begin, commit, earlier, insert_operation, only_server, tenant_of},
};

/// As what an archive comes back.
#[derive(Debug, Clone, Default)]
pub struct RestoreAs {
    /// Another laboratory with this slug; the same one under its id and slug when absent.
    pub slug: Option<Slug>,
    /// On this server; where the laboratory lived when absent, or on the only one there is.
    pub server: Option<ServerName>,
}

impl Provisioner {
    /// Asks for a laboratory to be made out of an archive: the one that was removed, under its id and slug,
    /// or another beside the one that lives.
    ///
    /// # Errors
    /// [`ProvisionError::Refused`] says what can be done instead; [`ProvisionError::ArchiveTooNew`];
    /// [`RegistryError::SlugTaken`], [`RegistryError::NotFound`].
    pub async fn request_restore(
        &self,
        archive: ArchiveId,
        restore_as: RestoreAs,
        by: RequestedBy,
    ) -> Result<(Tenant, OperationId), ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        let params = json!({ "archive": archive, "as": restore_as.slug, "server": restore_as.server });
        if let Some(earlier) = earlier(&client, &by, OperationKind::Restore, |op| op.params == params).await?
        {
            return Ok((tenant_of(&client, &earlier).await?, earlier.id));
        }
        let found = registry::archive_by_id(&client, archive).await?;
        let manifest = restorable(&found.ok_or_else(|| no_archive(archive))?)?;
        let server = match &restore_as.server {
            Some(server) => server.clone(),
            None => match ServerName::parse(&manifest.server) {
                Ok(lived) if registry::server_by_name(&client, &lived).await?.is_some() => lived,
                _ => only_server(&client).await?,
            },
        };
        let planned = Planned {
            kind: OperationKind::Restore,
            server: &server,
            tenant: None,
            manifest: Some(&manifest),
        };
        self.inner.require(&planned).await?;
        let txn = begin(&mut client).await?;
        // Held from here on: it cannot be pruned before the operation is there, which keeps it.
        let archive = registry::archive_lock_in_txn(&txn, archive)
            .await?
            .ok_or_else(|| no_archive(archive))?;
        let (id, slug) = match &restore_as.slug {
            Some(slug) => (TenantId::generate(), slug.clone()),
            None => (archive.tenant, archive.tenant_slug.clone()),
        };
        if let Some(living) = registry::tenant_by_id(&txn, id).await? {
            return Err(ProvisionError::Refused {
                why: format!(
                    "{} is {}: an archive of a laboratory that is there comes back beside it, under another \
                     slug (`--as`), or in its place (`--in-place`)",
                    living.slug, living.status
                ),
            });
        }
        let admins = open_admins(&self.inner, &archive, id)?;
        let operation = OperationId::generate();
        let new = NewOperation {
            id: operation,
            kind: OperationKind::Restore,
            tenant: id,
            tenant_slug: slug.clone(),
            params,
            created_by: by.actor.clone(),
            idempotency_key: by.idempotency_key.clone(),
        };
        registry::operation_insert_in_txn(&txn, &new).await?;
        let namespace = &self.inner.config.namespace;
        let tenant = registry::NewTenant {
            id,
            name: archive.tenant_name.clone(),
            time_zone: manifest.time_zone,
            server,
            db_name: namespace.tenant_database(&slug),
            role_name: namespace.tenant_role(&slug),
            role_secret: Some(
                self.inner
                    .config
                    .sealer
                    .seal(&SealContext::TenantRole(id), &identity::generate_password()),
            ),
            slug,
        };
        let tenant =
            registry::tenant_insert_in_txn(&txn, &tenant, &by.change().in_operation(operation)).await?;
        registry::admins_put_back_in_txn(&txn, id, &admins).await?;
        commit(txn).await?;
        Ok((tenant, operation))
    }

    /// Asks for an archive to take the place of what its laboratory holds now. It serves until the archive is
    /// restored beside it and checked; what it held is archived then. Can be cancelled until the two are
    /// exchanged.
    ///
    /// # Errors
    /// As [`Provisioner::request_restore`].
    pub async fn request_restore_in_place(
        &self,
        archive: ArchiveId,
        by: RequestedBy,
    ) -> Result<(TenantId, OperationId), ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        let params = json!({ "archive": archive });
        let kind = OperationKind::RestoreInPlace;
        if let Some(earlier) = earlier(&client, &by, kind, |op| op.params == params).await? {
            return Ok((earlier.tenant, earlier.id));
        }
        let found = registry::archive_by_id(&client, archive).await?;
        let found = found.ok_or_else(|| no_archive(archive))?;
        let manifest = restorable(&found)?;
        if let Some(tenant) = registry::tenant_by_id(&client, found.tenant).await? {
            let planned = Planned {
                manifest: Some(&manifest),
                ..Planned::of(kind, &tenant)
            };
            self.inner.require(&planned).await?;
        }
        let txn = begin(&mut client).await?;
        let archive = registry::archive_lock_in_txn(&txn, archive)
            .await?
            .ok_or_else(|| no_archive(archive))?;
        restorable(&archive)?;
        open_admins(&self.inner, &archive, archive.tenant)?;
        let found = registry::tenant_lock_in_txn(&txn, archive.tenant).await?;
        let found = found.ok_or_else(|| ProvisionError::Refused {
            why: format!(
                "{} is not there any more, so nothing is to be replaced: restore it without `--in-place`",
                archive.tenant_slug
            ),
        })?;
        if !matches!(found.status, TenantState::Active | TenantState::Suspended) {
            return Err(ProvisionError::Refused {
                why: format!(
                    "{} is {}: only an active or suspended laboratory can be restored in place",
                    found.slug, found.status
                ),
            });
        }
        let id = OperationId::generate();
        let asked = insert_operation(&txn, id, kind, &found, params, &by).await?;
        audit(&txn, "tenant.restore_in_place_requested", &asked, &by).await?;
        commit(txn).await?;
        Ok((found.id, id))
    }
}

pub(crate) fn no_archive(id: ArchiveId) -> RegistryError {
    RegistryError::NotFound {
        what: registry::Entity::Archive,
        id: id.to_string(),
    }
}

/// What an archive's row says of it, if this version can restore it.
fn restorable(archive: &Archive) -> Result<Manifest, ProvisionError> {
    let code = migrator::latest();
    if archive.db_version > code {
        return Err(ProvisionError::ArchiveTooNew {
            archive: archive.id,
            have: archive.db_version,
            code,
        });
    }
    Manifest::from_value(archive.manifest.clone()).map_err(|why| ProvisionError::Refused {
        why: format!("archive {} cannot be restored: {why}", archive.id),
    })
}
