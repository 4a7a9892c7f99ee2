//! A laboratory archived and removed.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use model::{OperationId, OperationKind, OperationStatus};
use provisioner::ProvisionError;
use registry::{OperationFilter, RegistryError, Tenant};
use serde_json::json;

use crate::{
    context::Context,
    find::{TenantRef, tenant},
    foreground,
    outcome::Refusal,
    output::size,
    view::{ArchiveView, OperationView},
};

pub(crate) async fn run(
    context: &Context,
    wanted: &TenantRef,
    yes: bool,
    reason: Option<String>,
    no_wait: bool,
) -> anyhow::Result<()> {
    let found = tenant(&context.client().await?, wanted).await?;
    if !yes {
        confirm(&found)?;
    }
    let operation = request(context, &found, reason).await?;
    if !no_wait {
        foreground::run(context, operation, found.slug.as_str()).await?;
    }
    finish(context, &found, operation).await
}

/// The slug typed again: a laboratory is not removed by a slip.
fn confirm(tenant: &Tenant) -> anyhow::Result<()> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let message = format!(
            "offboarding {} must be confirmed: add --yes where nobody can be asked",
            tenant.slug
        );
        return Err(Refusal::Usage(message).into());
    }
    let mut stderr = io::stderr();
    write!(
        stderr,
        "{} will be archived and then removed. Type its slug to go on: ",
        tenant.name
    )?;
    stderr.flush()?;
    let mut typed = String::new();
    io::stdin().read_line(&mut typed).context("reading the answer")?;
    if typed.trim() == tenant.slug.as_str() {
        return Ok(());
    }
    Err(Refusal::Usage(format!("that is not {}; nothing was changed", tenant.slug)).into())
}

/// A new operation, a failed one opened again, or the one that is under way.
async fn request(context: &Context, tenant: &Tenant, reason: Option<String>) -> anyhow::Result<OperationId> {
    let asked = context
        .platform
        .provisioner
        .request_offboard(tenant.id, context.requested_by(reason))
        .await;
    match asked {
        Ok(operation) => Ok(operation),
        Err(ProvisionError::Registry(error @ RegistryError::OperationInProgress { .. })) => {
            let filter = OperationFilter {
                tenant: Some(tenant.id),
                kind: Some(OperationKind::Offboard),
                live: true,
                ..OperationFilter::default()
            };
            let live = registry::operations_list(&context.client().await?, &filter, None, 1)
                .await?
                .pop();
            let live = live.ok_or_else(|| anyhow::Error::new(error))?;
            context.out.note(&format!(
                "{} is being offboarded already; going on with it",
                tenant.slug
            ));
            Ok(live.id)
        }
        Err(error) => Err(error.into()),
    }
}

async fn finish(context: &Context, tenant: &Tenant, operation: OperationId) -> anyhow::Result<()> {
    let client = context.client().await?;
    let archive = registry::archive_by_operation(&client, operation).await?;
    let operation = registry::operation_by_id(&client, operation).await?;
    let out = &context.out;
    if out.json {
        return out.document(&json!({
            "tenantId": tenant.id,
            "slug": tenant.slug,
            "operation": operation.as_ref().map(OperationView::from),
            "archive": archive.as_ref().map(ArchiveView::from),
        }));
    }
    // An archive is recorded steps before the laboratory is gone: only the operation's end says that it is.
    match (archive, operation) {
        (Some(archive), Some(operation)) if operation.status == OperationStatus::Succeeded => {
            out.answer(&format!(
                "{} is archived and removed: archive {} ({}) in {}",
                tenant.slug,
                archive.id,
                size(archive.bytes),
                archive.location
            ))
        }
        (_, Some(operation)) => {
            out.note(&format!(
                "a running tenantd does it; `tenantctl operations watch {}` follows",
                operation.id
            ));
            out.answer(&format!("{} is being offboarded", tenant.slug))
        }
        (_, None) => Ok(()),
    }
}
