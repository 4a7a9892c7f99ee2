//! Verified dumps of laboratories that may be gone.

use registry::PAGE_MAX;
use serde_json::json;

use crate::{
    cli::Archives,
    context::Context,
    find::tenant_id,
    outcome::Refusal,
    output::{moment, pairs, size, table},
    view::ArchiveView,
};

pub(crate) async fn run(context: &Context, what: Archives) -> anyhow::Result<()> {
    let client = context.client().await?;
    match what {
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
                context.out.note("no archive yet; `tenantctl offboard` makes one");
                return Ok(());
            }
            let rows = archives.iter().map(|archive| {
                vec![
                    archive.id.to_string(),
                    archive.tenant_slug.to_string(),
                    size(archive.bytes),
                    moment(archive.created_at),
                    archive.location.clone(),
                ]
            });
            context
                .out
                .answer(&table(&["ID", "SLUG", "SIZE", "CREATED", "WHERE"], rows))
        }
        Archives::Show { archive } => {
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
