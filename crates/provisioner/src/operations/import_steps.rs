//! Taking an archive into the registry that does not know it, as one that was restored from an older backup: the dump is
//! proved as every archive is, and only then recorded.

use archive::{ArchiveError, Manifest, Place};
use model::{ArchiveId, Slug};
use registry::NewArchive;
use serde::{Deserialize, Serialize};

use crate::{
    ProvisionError,
    engine::{Context, Saw},
    error::StepError,
    operations::verify::{in_scratch, seen, tell_missing},
    request::{begin, commit},
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

pub(crate) fn params(cx: &Context<'_>) -> Result<ImportParams, StepError> {
    serde_json::from_value(cx.operation.params.clone()).map_err(|error| {
        StepError::fatal(ProvisionError::Refused {
            why: format!("the operation does not say what is to be imported: {error}"),
        })
    })
}

/// Proves the dump and records it. An earlier try may have come as far as the row.
pub(crate) async fn import(cx: &Context<'_>) -> Saw {
    let params = params(cx)?;
    let config = &cx.inner.config;
    let place = Place::parse(&params.location)?;
    cx.inner.require_here(&place, params.host.as_deref()).await?;
    let mut manifest = Manifest::read(&place).await?;
    if manifest.fingerprint()? != params.fingerprint {
        return Err(StepError::fatal(ArchiveError::Broken {
            location: params.location,
            why: "its manifest's content has changed since the import was asked for".to_owned(),
        }));
    }
    let known = registry::archive_by_id(&config.registry.client().await?, params.archive).await?;
    if let Some(archive) = known {
        return Ok(seen(&archive, &manifest));
    }
    let server = cx.server_for_scratch(Some(&params.server)).await?;
    let held = cx.maintenance_on(&server, manifest.tenant).await?;
    let like = cx.template(&held).await?;
    let scratch = config.namespace.scratch_database(cx.operation.id);
    let missing = in_scratch(cx, &held, &like, &scratch, &place, &manifest).await?;

    let mut client = config.registry.client().await?;
    if manifest.verified_at.is_none() {
        manifest.verified_at = Some(registry::registry_now(&client).await?);
        manifest.write(&place).await?;
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
        location: place.to_string(),
        host: cx.inner.host_of(&place),
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
    let mut saw = seen(&archive, &manifest);
    tell_missing(cx, &mut saw, &missing);
    Ok(saw)
}
