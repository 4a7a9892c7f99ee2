//! Verified dumps of laboratories that may be gone.

use model::{ArchiveId, TenantId};
use registry::{Archive, PAGE_MAX};
use serde_json::json;

use crate::{
    cli::Archives,
    context::Context,
    find::tenant_id,
    foreground,
    outcome::Refusal,
    output::{moment, pairs, size, table},
    view::ArchiveView,
};

pub(crate) async fn run(context: &Context, what: Archives) -> anyhow::Result<()> {
    let client = context.client().await?;
    match what {
        Archives::Verify { archive, no_wait } => {
            let archive = archive.id(&client).await?;
            drop(client);
            verify(context, archive, no_wait).await
        }
        Archives::Import { location, no_wait } => import(context, &location, no_wait).await,
        Archives::Prune { tenant, dry_run } => {
            let tenant = match &tenant {
                Some(wanted) => Some(tenant_id(&client, wanted).await?),
                None => None,
            };
            drop(client);
            prune(context, tenant, dry_run).await
        }
        Archives::List { tenant } => {
            let tenant = match &tenant {
                Some(wanted) => Some(tenant_id(&client, wanted).await?),
                None => None,
            };
            let archives = registry::archives_list(&client, tenant, None, PAGE_MAX).await?;
            if context.out.json {
                let views: Vec<ArchiveView> = archives.iter().map(ArchiveView::from).collect();
                return context.out.document(&json!({"archives": views}));
            }
            if archives.is_empty() {
                context
                    .out
                    .note("no archive yet; `tenantctl backup SLUG` makes one");
                return Ok(());
            }
            let rows = archives.iter().map(|archive| {
                vec![
                    archive.id.to_string(),
                    archive.tenant_slug.to_string(),
                    archive.made_for.to_string(),
                    size(archive.bytes),
                    moment(archive.created_at),
                    moment(archive.verified_at),
                    archive.location.clone(),
                ]
            });
            context.out.answer(&table(
                &["ID", "SLUG", "FOR", "SIZE", "CREATED", "VERIFIED", "WHERE"],
                rows,
            ))
        }
        Archives::Show { archive } => {
            let archive = archive.id(&client).await?;
            let Some(found) = registry::archive_by_id(&client, archive).await? else {
                let message = format!("there is no archive {archive}; `tenantctl archives list` shows all");
                return Err(Refusal::NotFound(message).into());
            };
            if context.out.json {
                return context
                    .out
                    .document(&json!({"archive": ArchiveView::with_manifest(&found)}));
            }
            let head = pairs([
                ("id", found.id.to_string()),
                (
                    "laboratory",
                    format!("{} ({}, {})", found.tenant_name, found.tenant_slug, found.tenant),
                ),
                ("made for", found.made_for.to_string()),
                ("where", found.location.clone()),
                ("size", format!("{} ({} bytes)", size(found.bytes), found.bytes)),
                ("sha256", found.sha256.clone()),
                ("schema", found.db_version.to_string()),
                ("asked for by", found.created_by.to_string()),
                ("created", moment(found.created_at)),
                ("verified", moment(found.verified_at)),
            ]);
            let manifest = serde_json::to_string_pretty(&found.manifest)?;
            context.out.answer(&format!("{head}\n\nMANIFEST\n{manifest}"))
        }
    }
}

async fn verify(context: &Context, archive: ArchiveId, no_wait: bool) -> anyhow::Result<()> {
    let by = context.requested_by(None);
    let provisioner = &context.platform.provisioner;
    let (_, operation) = provisioner.request_verify_archive(archive, by).await?;
    if no_wait {
        context.out.note(&format!(
            "a running tenantd does it; `tenantctl operations watch {operation}` follows"
        ));
        return context
            .out
            .answer(&format!("archive {archive} is being verified"));
    }
    foreground::run(context, operation, "archive").await?;
    let found = registry::archive_by_id(&context.client().await?, archive).await?;
    if context.out.json {
        let view = found.as_ref().map(ArchiveView::from);
        return context.out.document(&json!({"archive": view}));
    }
    context.out.answer(&format!(
        "archive {archive} restores and holds what its manifest says"
    ))
}

/// An operator with a terminal on the host may name any location, as they may read it anyway.
async fn import(context: &Context, location: &str, no_wait: bool) -> anyhow::Result<()> {
    let by = context.requested_by(None);
    let asked = context
        .platform
        .provisioner
        .request_import(location, true, by)
        .await?;
    if no_wait {
        context.out.note(&format!(
            "a running tenantd does it; `tenantctl operations watch {}` follows",
            asked.operation
        ));
        return context
            .out
            .answer(&format!("archive {} is being imported", asked.archive));
    }
    foreground::run(context, asked.operation, "archive").await?;
    let found = registry::archive_by_id(&context.client().await?, asked.archive).await?;
    if context.out.json {
        let view = found.as_ref().map(ArchiveView::from);
        return context.out.document(&json!({"archive": view}));
    }
    let slug = found.map_or_else(
        || asked.tenant.to_string(),
        |archive| archive.tenant_slug.to_string(),
    );
    context.out.answer(&format!(
        "archive {} of {slug} restores, holds what its manifest says, and is recorded",
        asked.archive
    ))
}

/// What one pruning removes is bounded, so it is asked again until nothing is left.
async fn prune(context: &Context, tenant: Option<TenantId>, dry_run: bool) -> anyhow::Result<()> {
    let provisioner = &context.platform.provisioner;
    let mut pruned: Vec<Archive> = Vec::new();
    if dry_run {
        pruned = provisioner.prunable_archives(tenant).await?;
    } else {
        loop {
            let some = provisioner
                .prune_archives(tenant, context.requested_by(None))
                .await?;
            if some.is_empty() {
                break;
            }
            pruned.extend(some);
        }
    }
    if context.out.json {
        let views: Vec<ArchiveView> = pruned.iter().map(ArchiveView::from).collect();
        return context
            .out
            .document(&json!({"dryRun": dry_run, "archives": views}));
    }
    let word = if dry_run { "would go" } else { "removed" };
    for archive in &pruned {
        context.out.answer(&format!(
            "{word}: {} of {}, {}",
            archive.id, archive.tenant_slug, archive.location
        ))?;
    }
    context.out.note(&format!("{} archives {word}", pruned.len()));
    Ok(())
}
