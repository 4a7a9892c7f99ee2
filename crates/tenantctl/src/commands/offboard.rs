//! A laboratory archived and removed.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use model::{OperationId, OperationKind, OperationStatus, Reason};
use provisioner::{GRACE_UNCONFIRMED_MIN, ProvisionError};
use registry::{OperationFilter, RegistryError, Tenant};
use serde_json::json;

use crate::{
    context::Context,
    find::{TenantRef, tenant},
    foreground,
    outcome::Refusal,
    output::{moment, size},
    view::{ArchiveView, OperationView},
};

/// When the laboratory is to be gone, and how the operator has confirmed it.
pub(crate) struct When {
    pub(crate) grace: Option<Duration>,
    pub(crate) now: bool,
    pub(crate) yes: bool,
    pub(crate) confirm: Option<String>,
}

pub(crate) async fn run(
    context: &Context,
    wanted: &TenantRef,
    when: When,
    reason: Option<Reason>,
    no_wait: bool,
) -> anyhow::Result<()> {
    let found = tenant(&context.client().await?, wanted).await?;
    let grace = match (when.now, when.grace) {
        (true, _) => Duration::ZERO,
        (false, Some(grace)) => grace,
        (false, None) => Duration::from_secs(context.settings.worker.offboard_grace_s),
    };
    let soon = grace < GRACE_UNCONFIRMED_MIN;
    match (&when.confirm, when.yes) {
        (Some(typed), _) => same(typed, &found)?,
        (None, true) if !soon => {}
        (None, _) => confirm(&found, soon)?,
    }
    let operation = request(context, &found, grace, reason).await?;
    if when.now {
        end_grace(context, operation).await?;
    }
    if !no_wait {
        foreground::run(context, operation, found.slug.as_str()).await?;
    }
    finish(context, &found, operation).await
}

/// The slug typed again: a laboratory is not removed by a slip.
fn confirm(tenant: &Tenant, soon: bool) -> anyhow::Result<()> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let add = if soon {
            format!("--confirm {}", tenant.slug)
        } else {
            "--yes".to_owned()
        };
        let message = format!(
            "offboarding {} must be confirmed: add {add} where no terminal can ask for it",
            tenant.slug
        );
        return Err(Refusal::Usage(message).into());
    }
    let mut stderr = io::stderr();
    let when = if soon {
        "archived and removed at once or within the hour"
    } else {
        "closed at once, archived, and removed when the grace period is over"
    };
    write!(stderr, "{} will be {when}. Type its slug to go on: ", tenant.name)?;
    stderr.flush()?;
    let mut typed = String::new();
    io::stdin().read_line(&mut typed).context("reading the answer")?;
    same(typed.trim(), tenant)
}

fn same(typed: &str, tenant: &Tenant) -> anyhow::Result<()> {
    if typed == tenant.slug.as_str() {
        return Ok(());
    }
    Err(Refusal::Usage(format!("that is not {}; nothing was changed", tenant.slug)).into())
}

/// A laboratory whose database is gone already: the registry's row goes too.
pub(crate) async fn forget(
    context: &Context,
    wanted: &TenantRef,
    confirm: &str,
    without_archive: bool,
    reason: Option<Reason>,
) -> anyhow::Result<()> {
    let found = tenant(&context.client().await?, wanted).await?;
    same(confirm, &found)?;
    let by = context.requested_by(reason);
    let provisioner = &context.platform.provisioner;
    let gone = provisioner.forget(found.id, without_archive, by).await?;
    let archives = registry::archives_list(&context.client().await?, Some(gone.id), None, 1).await?;
    if context.out.json {
        return context
            .out
            .document(&json!({ "tenantId": gone.id, "slug": gone.slug, "forgotten": true, "archived": !archives.is_empty() }));
    }
    if archives.is_empty() {
        let answer = format!(
            "{} is forgotten; no archive of it is recorded, so its data are lost",
            gone.slug
        );
        return context.out.answer(&answer);
    }
    context.out.note(&format!(
        "`tenantctl archives list --tenant {}` shows what it can be restored from",
        gone.id
    ));
    context
        .out
        .answer(&format!("{} is forgotten; its archives are kept", gone.slug))
}

/// A removal that waits already goes on at once.
async fn end_grace(context: &Context, operation: OperationId) -> anyhow::Result<()> {
    let by = context.requested_by(None);
    match context.platform.provisioner.end_grace(operation, by).await {
        Ok(_) | Err(ProvisionError::Registry(RegistryError::NotWaiting { .. })) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A new operation, a failed one opened again, or the one that is under way.
async fn request(
    context: &Context,
    tenant: &Tenant,
    grace: Duration,
    reason: Option<Reason>,
) -> anyhow::Result<OperationId> {
    let asked = context
        .platform
        .provisioner
        .request_offboard(tenant.id, grace, context.requested_by(reason))
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
        (Some(archive), Some(operation)) if operation.is_waiting() => {
            let until = operation.waiting_until.unwrap_or(operation.not_before);
            out.note(&format!(
                "`tenantctl operations cancel {}` brings it back until then, `tenantctl offboard {} --now` does not wait",
                operation.id, tenant.slug
            ));
            out.answer(&format!(
                "{} is closed and archived: archive {} ({}) in {}; a running tenantd removes it at {}",
                tenant.slug,
                archive.id,
                size(archive.bytes),
                archive.location,
                moment(until)
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
