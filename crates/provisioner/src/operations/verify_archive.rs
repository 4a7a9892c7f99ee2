//! Verifying an archive once more, at any time after it was made.

use archive::{Location, Manifest};
use model::{ArchiveId, OperationId, OperationKind, ServerName, TenantId};
use registry::NewOperation;
use serde_json::json;

use crate::{
    ProvisionError, Provisioner, RequestedBy,
    engine::{Context, StepResult},
    operations::{
        Definition, Sequence,
        definition::steps,
        restore::request::no_archive,
        verify::{drop_made_group, ensure_groups, in_scratch, report_missing},
    },
    preconditions::Planned,
    request::{audit, begin, commit, earlier},
};

/// The steps. Nothing is to be taken back.
pub(crate) const DEFINITION: Definition = Definition {
    steps: steps! {
        Verify => verify_again,
    },
    undo: Sequence::EMPTY,
};

impl Provisioner {
    /// Asks for an archive to be verified once more: fetched, restored and compared with its manifest.
    ///
    /// # Errors
    /// [`registry::RegistryError::NotFound`]; [`registry::RegistryError::OperationInProgress`] while another
    /// operation works on its laboratory.
    pub async fn request_verify_archive(
        &self,
        archive: ArchiveId,
        by: RequestedBy,
    ) -> Result<(TenantId, OperationId), ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        let params = json!({ "archive": archive });
        let kind = OperationKind::VerifyArchive;
        if let Some(earlier) = earlier(&client, &by, kind, |op| op.params == params).await? {
            return Ok((earlier.tenant, earlier.id));
        }
        let found = registry::archive_by_id(&client, archive).await?;
        let found = found.ok_or_else(|| no_archive(archive))?;
        if let Ok(manifest) = Manifest::from_value(found.manifest.clone()) {
            let lived = registry::tenant_by_id(&client, found.tenant)
                .await?
                .map(|tenant| tenant.server);
            let lived = lived.or_else(|| ServerName::parse(&manifest.server).ok());
            let known = match &lived {
                Some(name) => registry::server_by_name(&client, name).await?.is_some(),
                None => false,
            };
            if let (Some(server), true) = (&lived, known) {
                let planned = Planned {
                    kind,
                    server,
                    tenant: None,
                    manifest: Some(&manifest),
                };
                self.inner.require(&planned).await?;
            }
        }
        let txn = begin(&mut client).await?;
        let archive = registry::archive_lock_in_txn(&txn, archive)
            .await?
            .ok_or_else(|| no_archive(archive))?;
        let new = NewOperation {
            id: OperationId::generate(),
            kind,
            tenant: archive.tenant,
            tenant_slug: archive.tenant_slug.clone(),
            params,
            created_by: by.actor.clone(),
            idempotency_key: by.idempotency_key.clone(),
        };
        let asked = registry::operation_insert_in_txn(&txn, &new).await?;
        audit(&txn, "archive.verify_requested", &asked, &by).await?;
        commit(txn).await?;
        Ok((asked.tenant, asked.id))
    }
}

/// Once more, at any time: what was recorded must still be there and restore.
pub(crate) async fn verify_again(cx: &Context<'_>) -> StepResult {
    let archive = cx.archive().await?;
    let location = Location::parse(&archive.location)?;
    cx.inner.require_here(&location, archive.host.as_deref()).await?;
    let manifest = Manifest::require(&location, &archive.manifest).await?;
    let session = cx
        .maintenance_on(&cx.scratch_server().await?, archive.tenant)
        .await?;
    let like = cx.template(&session).await?;
    let scratch = cx.inner.config.namespace.scratch_database(cx.operation.id);
    let made = ensure_groups(cx, &session, &manifest).await?;
    let verified = in_scratch(cx, &session, &like, &scratch, &location, &manifest).await;
    drop_made_group(&session, made).await;
    let missing = verified?;
    let client = cx.inner.config.registry.client().await?;
    let archive = registry::archive_note_verified(&client, archive.id).await?;
    let (tables, rows) = (manifest.contents.tables.len(), manifest.contents.rows());
    let mut saw = json!({ "archive": archive.id, "tables": tables, "rows": rows });
    report_missing(cx, &mut saw, &missing);
    Ok(saw)
}
