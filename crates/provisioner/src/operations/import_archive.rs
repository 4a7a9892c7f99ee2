//! Asking for an archive that the registry does not know to be taken into it: the dump and the manifest beside it.

use archive::{Manifest, Place};
use model::{ArchiveId, OperationId, OperationKind, Slug, TenantId};
use registry::NewOperation;
use serde_json::json;

use crate::{
    ProvisionError, Provisioner, RequestedBy,
    operations::{archived_admins::open_sealed_admins, import_steps::ImportParams},
    request::{audit, begin, commit, earlier},
};

/// An import that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Import {
    /// The archive, which keeps its id.
    pub archive: ArchiveId,
    /// The laboratory that it holds, which may be gone.
    pub tenant: TenantId,
    /// The operation that proves and records it.
    pub operation: OperationId,
}

/// How the name of a manifest ends.
const MANIFEST: &str = "manifest.json";

fn refused(location: &str, why: impl std::fmt::Display) -> ProvisionError {
    ProvisionError::Invalid {
        field: "location",
        why: format!("{location} cannot be imported: {why}"),
    }
}

impl Provisioner {
    /// Asks for a dump, with the manifest beside it, to be taken into the registry: it is restored and compared as every archive
    /// is, and recorded under its own id. `location` is a path on this host or a URL, of the dump or of the manifest. A
    /// location outside the configured store is refused unless `anywhere`.
    ///
    /// # Errors
    /// [`ProvisionError::Invalid`] says what is wrong with the files or the keys; [`ProvisionError::Refused`] when the archive is recorded
    /// already; [`ProvisionError::ArchiveTooNew`];
    /// [`registry::RegistryError::OperationInProgress`] while another operation works on its laboratory.
    pub async fn request_import(
        &self,
        location: &str,
        anywhere: bool,
        by: RequestedBy,
    ) -> Result<Import, ProvisionError> {
        let inner = &self.inner;
        let place = Place::parse(location).map_err(|error| refused(location, error))?;
        if !anywhere && !inner.store()?.holds(&place) {
            return Err(refused(
                location,
                "it does not lie where this installation keeps its archives; put the dump and its manifest there, or use \
                 `tenantctl archives import`",
            ));
        }
        let dump = dump_of(&place).await.map_err(|error| refused(location, error))?;
        let (place, bytes) = dump.ok_or_else(|| {
            refused(
                location,
                format!("there is no such dump that {} can read", inner.host),
            )
        })?;
        let manifest = Manifest::read(&place)
            .await
            .map_err(|error| refused(location, error))?;
        if bytes != manifest.bytes {
            let why = format!("it has {bytes} bytes and its manifest says {}", manifest.bytes);
            return Err(refused(location, why));
        }
        let made_for = [
            OperationKind::Backup,
            OperationKind::Offboard,
            OperationKind::RestoreInPlace,
        ];
        let slug = Slug::parse(&manifest.slug).map_err(|error| refused(location, error))?;
        if !made_for.contains(&manifest.made_for) {
            let why = format!("its manifest says that it was made for {}", manifest.made_for);
            return Err(refused(location, why));
        }
        let (have, code) = (manifest.schema_version, migrator::latest());
        if have > code {
            let archive = manifest.archive;
            return Err(ProvisionError::ArchiveTooNew { archive, have, code });
        }
        // What another installation sealed cannot be restored here; the message names the key.
        let sealed = hex::decode(&manifest.admins).map_err(|error| refused(location, error))?;
        open_sealed_admins(inner, manifest.archive, Some(&sealed), manifest.tenant)
            .map_err(|error| refused(location, error))?;
        let params = json!(ImportParams {
            archive: manifest.archive,
            location: place.to_string(),
            host: inner.host_of(&place),
            fingerprint: manifest.fingerprint()?,
            server: manifest.server.clone(),
        });
        let kind = OperationKind::ImportArchive;
        let mut client = inner.config.registry.client().await?;
        let import = |operation| Import {
            archive: manifest.archive,
            tenant: manifest.tenant,
            operation,
        };
        if let Some(earlier) = earlier(&client, &by, kind, |op| op.params == params).await? {
            return Ok(import(earlier.id));
        }
        let txn = begin(&mut client).await?;
        if let Some(known) = registry::archive_by_id(&txn, manifest.archive).await? {
            return Err(ProvisionError::Refused {
                why: format!(
                    "archive {} is recorded already: it lies in {}, and `tenantctl archives verify {}` looks whether it is whole",
                    known.id, known.location, known.id
                ),
            });
        }
        let new = NewOperation {
            id: OperationId::generate(),
            kind,
            tenant: manifest.tenant,
            tenant_slug: slug,
            params: params.clone(),
            created_by: by.actor.clone(),
            idempotency_key: by.idempotency_key.clone(),
        };
        let asked = registry::operation_insert_in_txn(&txn, &new).await?;
        audit(&txn, "archive.import_requested", &asked, &by).await?;
        commit(txn).await?;
        Ok(import(asked.id))
    }
}

/// The dump that a location means, with its size: itself, or what its manifest stands beside.
async fn dump_of(place: &Place) -> Result<Option<(Place, u64)>, ProvisionError> {
    let candidates = if place.file_name().ends_with(MANIFEST) {
        vec![place.sibling("dump"), place.sibling("dump.age")]
    } else {
        vec![place.clone()]
    };
    for dump in candidates {
        if let Some(bytes) = dump.size().await? {
            return Ok(Some((dump, bytes)));
        }
    }
    Ok(None)
}
