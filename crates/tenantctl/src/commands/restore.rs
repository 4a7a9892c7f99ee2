//! An archive becomes a laboratory again.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use model::{OperationId, Slug, TenantId};
use provisioner::RestoreAs;
use registry::Archive;
use serde_json::json;

use crate::{
    cli::Restore,
    context::Context,
    foreground,
    outcome::Refusal,
    view::{OperationView, TenantView},
};

pub(crate) async fn run(context: &Context, what: Restore) -> anyhow::Result<()> {
    let client = context.client().await?;
    let wanted = what.archive.id(&client).await?;
    let archive = registry::archive_by_id(&client, wanted).await?;
    drop(client);
    let Some(archive) = archive else {
        let message = format!("there is no archive {wanted}; `tenantctl archives list` shows all");
        return Err(Refusal::NotFound(message).into());
    };
    let by = context.requested_by(what.reason);
    let provisioner = &context.platform.provisioner;
    // Before anybody is asked whether it is meant. A server that does not answer is waited for by a worker,
    // later.
    let not_kept = provisioner.not_kept(&archive, what.server.as_ref(), what.in_place);
    for lost in not_kept.await.unwrap_or_default() {
        context.out.note(&format!("not restored as it was: {lost}"));
    }
    let (tenant, operation, slug) = if what.in_place {
        confirm(context, &archive, what.confirm.as_deref()).await?;
        let (tenant, operation) = provisioner.request_restore_in_place(archive.id, by).await?;
        (tenant, operation, archive.tenant_slug.clone())
    } else {
        let restore_as = RestoreAs {
            slug: what.r#as,
            server: what.server,
        };
        let (tenant, operation) = provisioner.request_restore(archive.id, restore_as, by).await?;
        (tenant.id, operation, tenant.slug)
    };
    if !what.no_wait {
        foreground::run(context, operation, slug.as_str()).await?;
    }
    finish(context, &archive, tenant, &slug, operation, what.no_wait).await
}

/// The slug typed again: what a laboratory holds is not replaced by a slip.
async fn confirm(context: &Context, archive: &Archive, typed: Option<&str>) -> anyhow::Result<()> {
    let living = registry::tenant_by_id(&context.client().await?, archive.tenant).await?;
    let slug = living.map_or_else(|| archive.tenant_slug.clone(), |tenant| tenant.slug);
    let same = |typed: &str| {
        if typed == slug.as_str() {
            return Ok(());
        }
        Err(Refusal::Usage(format!("that is not {slug}; nothing was changed")).into())
    };
    if let Some(typed) = typed {
        return same(typed);
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let message = format!(
            "restoring {slug} in place must be confirmed: add --confirm {slug} where no terminal can ask for it"
        );
        return Err(Refusal::Usage(message).into());
    }
    let mut stderr = io::stderr();
    write!(
        stderr,
        "{slug} will hold what it held at {}; what it holds now is archived first. Type its slug to go on: ",
        crate::output::moment(archive.created_at)
    )?;
    stderr.flush()?;
    let mut typed = String::new();
    io::stdin().read_line(&mut typed).context("reading the answer")?;
    same(typed.trim())
}

async fn finish(
    context: &Context,
    archive: &Archive,
    tenant: TenantId,
    slug: &Slug,
    operation: OperationId,
    no_wait: bool,
) -> anyhow::Result<()> {
    let client = context.client().await?;
    let found = registry::tenant_by_id(&client, tenant).await?;
    let asked = registry::operation_by_id(&client, operation).await?;
    if context.out.json {
        return context.out.document(&json!({
            "tenant": found.as_ref().map(TenantView::from),
            "operation": asked.as_ref().map(OperationView::from),
            "archiveId": archive.id,
        }));
    }
    if no_wait {
        context.out.note(&format!(
            "a running tenantd does it; `tenantctl operations watch {operation}` follows"
        ));
        return context.out.answer(&format!("{slug} is being restored"));
    }
    let held = registry::archive_by_operation(&client, operation).await?;
    if let Some(held) = held {
        context
            .out
            .note(&format!("what it held before is archive {}", held.id));
    }
    let status = found.map_or_else(|| "gone".to_owned(), |tenant| tenant.status.to_string());
    context.out.answer(&format!(
        "{slug} is restored from archive {} and {status}",
        archive.id
    ))
}
