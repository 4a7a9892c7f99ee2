//! Taking an archive into the registry that does not know it, as one that was restored from an older backup:
//! the dump is verified as every archive is, and only then recorded.

use archive::{ArchiveError, Location, Manifest};
use model::{ArchiveId, OperationId, OperationKind, Slug, TenantId};
use registry::{NewArchive, NewOperation};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    ProvisionError, Provisioner, RequestedBy,
    engine::{Context, StepResult},
    error::StepError,
    operations::{
        Definition, Sequence,
        archived_admins::open_sealed_admins,
        definition::steps,
        verify::{archive_summary, in_scratch, report_missing},
    },
    request::{audit, begin, commit, earlier},
};

/// What the operation keeps of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImportParams {
    pub(crate) archive: ArchiveId,
    pub(crate) location: String,
    /// The host that saw it, where that is a path.
    pub(crate) host: Option<String>,
    /// What the manifest must still say.
    pub(crate) fingerprint: String,
    /// The server that the laboratory lived on.
    pub(crate) server: String,
}

/// The steps. Nothing is to be taken back.
pub(crate) const DEFINITION: Definition = Definition {
    steps: steps! {
        Verify => import,
    },
    undo: Sequence::EMPTY,
};

/// An import that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Import {
    /// The archive, which keeps its id.
    pub archive: ArchiveId,
    /// The laboratory that it holds, which may be gone.
    pub tenant: TenantId,
    /// The operation that verifies and records it.
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
    /// Asks for a dump, with the manifest beside it, to be taken into the registry: it is restored and
    /// compared as every archive is, and recorded under its own id. `path_or_url` is a path on this host or a
    /// URL, of the dump or of the manifest. A location outside the configured store is refused unless
    /// `anywhere`.
    ///
    /// # Errors
    /// [`ProvisionError::Invalid`] says what is wrong with the files or the keys; [`ProvisionError::Refused`]
    /// when the archive is recorded already; [`ProvisionError::ArchiveTooNew`];
    /// [`registry::RegistryError::OperationInProgress`] while another operation works on its laboratory.
    pub async fn request_import(
        &self,
        path_or_url: &str,
        anywhere: bool,
        by: RequestedBy,
    ) -> Result<Import, ProvisionError> {
        let inner = &self.inner;
        let location = Location::parse(path_or_url).map_err(|error| refused(path_or_url, error))?;
        if !anywhere && !inner.store()?.holds(&location) {
            return Err(refused(
                path_or_url,
                "it does not lie where this installation keeps its archives; put the dump and its manifest \
                 there, or use `tenantctl archives import`",
            ));
        }
        let dump = dump_of(&location)
            .await
            .map_err(|error| refused(path_or_url, error))?;
        let (location, bytes) = dump.ok_or_else(|| {
            refused(
                path_or_url,
                format!("there is no such dump that {} can read", inner.host),
            )
        })?;
        let manifest = Manifest::read(&location)
            .await
            .map_err(|error| refused(path_or_url, error))?;
        if bytes != manifest.bytes {
            let why = format!("it has {bytes} bytes and its manifest says {}", manifest.bytes);
            return Err(refused(path_or_url, why));
        }
        let made_for = [
            OperationKind::Backup,
            OperationKind::Offboard,
            OperationKind::RestoreInPlace,
        ];
        let slug = Slug::parse(&manifest.slug).map_err(|error| refused(path_or_url, error))?;
        if !made_for.contains(&manifest.made_for) {
            let why = format!("its manifest says that it was made for {}", manifest.made_for);
            return Err(refused(path_or_url, why));
        }
        let (have, code) = (manifest.schema_version, migrator::latest());
        if have > code {
            let archive = manifest.archive;
            return Err(ProvisionError::ArchiveTooNew { archive, have, code });
        }
        // What another installation sealed cannot be restored here; the message names the key.
        let sealed = hex::decode(&manifest.admins).map_err(|error| refused(path_or_url, error))?;
        open_sealed_admins(inner, manifest.archive, Some(&sealed), manifest.tenant)
            .map_err(|error| refused(path_or_url, error))?;
        let params = json!(ImportParams {
            archive: manifest.archive,
            location: location.to_string(),
            host: inner.host_of(&location),
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
                    "archive {} is recorded already: it lies in {}, and `tenantctl archives verify {}` looks \
                     whether it is whole",
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
async fn dump_of(location: &Location) -> Result<Option<(Location, u64)>, ProvisionError> {
    let candidates = if location.file_name().ends_with(MANIFEST) {
        vec![location.sibling("dump"), location.sibling("dump.age")]
    } else {
        vec![location.clone()]
    };
    for dump in candidates {
        if let Some(bytes) = dump.size().await? {
            return Ok(Some((dump, bytes)));
        }
    }
    Ok(None)
}

pub(crate) fn params(cx: &Context<'_>) -> Result<ImportParams, StepError> {
    serde_json::from_value(cx.operation.params.clone()).map_err(|error| {
        StepError::fatal(ProvisionError::Refused {
            why: format!("the operation does not say what is to be imported: {error}"),
        })
    })
}

/// Verifies the dump and records it. An earlier try may have come as far as the row.
pub(crate) async fn import(cx: &Context<'_>) -> StepResult {
    let params = params(cx)?;
    let config = &cx.inner.config;
    let location = Location::parse(&params.location)?;
    cx.inner.require_here(&location, params.host.as_deref()).await?;
    let mut manifest = Manifest::read(&location).await?;
    if manifest.fingerprint()? != params.fingerprint {
        return Err(StepError::fatal(ArchiveError::Broken {
            location: params.location,
            why: "its manifest's content has changed since the import was asked for".to_owned(),
        }));
    }
    let known = registry::archive_by_id(&config.registry.client().await?, params.archive).await?;
    if let Some(archive) = known {
        return Ok(archive_summary(&archive, &manifest));
    }
    let server = cx.server_for_scratch(Some(&params.server)).await?;
    let session = cx.maintenance_on(&server, manifest.tenant).await?;
    let like = cx.template(&session).await?;
    let scratch = config.namespace.scratch_database(cx.operation.id);
    let missing = in_scratch(cx, &session, &like, &scratch, &location, &manifest).await?;

    let mut client = config.registry.client().await?;
    if manifest.verified_at.is_none() {
        manifest.verified_at = Some(registry::registry_now(&client).await?);
        manifest.write(&location).await?;
    }
    let slug = Slug::parse(&manifest.slug).map_err(|error| {
        StepError::fatal(ProvisionError::Refused {
            why: format!("the manifest's slug is none: {error}"),
        })
    })?;
    let new = NewArchive {
        id: manifest.archive,
        tenant: manifest.tenant,
        tenant_slug: slug,
        tenant_name: manifest.name.clone(),
        operation: Some(manifest.operation),
        location: location.to_string(),
        host: cx.inner.host_of(&location),
        imported_from: Some(manifest.dumped_at),
        bytes: manifest.bytes,
        sha256: manifest.sha256.clone(),
        db_version: manifest.schema_version,
        manifest: manifest.recorded()?,
        made_for: manifest.made_for,
        admins: hex::decode(&manifest.admins).unwrap_or_default(),
        created_by: cx.operation.created_by.clone(),
    };
    let txn = begin(&mut client).await?;
    cx.hold(&txn).await?;
    let archive = registry::archive_insert(&txn, &new).await?;
    commit(txn).await?;
    let mut saw = archive_summary(&archive, &manifest);
    report_missing(cx, &mut saw, &missing);
    Ok(saw)
}
