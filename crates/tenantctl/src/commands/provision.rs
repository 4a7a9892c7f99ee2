//! A laboratory made, or its making taken up again.

use bootstrap::COVERAGE_NOTE;
use identity::PasswordContext;
use model::{OperationId, OperationKind, TenantState};
use provisioner::{NewAdmin, NewLab, ProvisionError};
use registry::{OperationFilter, RegistryClient, RegistryError, Tenant};
use serde_json::json;

use super::invite;
use crate::{
    cli::Provision,
    context::Context,
    find::{TenantRef, tenant},
    foreground,
    outcome::Refusal,
    password::{self, NewPassword},
    view::{OperationView, TenantView},
};

pub(crate) async fn run(context: &Context, wanted: Provision) -> anyhow::Result<()> {
    let client = context.client().await?;
    let found = registry::tenant_by_slug(&client, &wanted.slug).await?;
    let resumed = found.is_some();
    let slug = wanted.slug.clone();
    let (no_wait, invite) = (wanted.no_wait, wanted.invite);
    let (operation, password) = match found {
        Some(tenant) => (
            take_up(context, &client, &tenant, OperationKind::Provision).await?,
            None,
        ),
        None => {
            drop(client);
            request(context, wanted).await?
        }
    };
    let made = Made {
        operation,
        resumed,
        password,
        invite,
        note: Some(COVERAGE_NOTE),
    };
    if !no_wait {
        foreground::run(context, operation, slug.as_str()).await?;
    }
    finish(context, &TenantRef::Slug(slug), made).await
}

/// A new laboratory.
async fn request(context: &Context, wanted: Provision) -> anyhow::Result<(OperationId, Option<NewPassword>)> {
    let email = wanted.admin_email;
    let password = if wanted.invite {
        None
    } else {
        let from_stdin = wanted.admin_password_stdin;
        let context = PasswordContext::of(&email).and_laboratory(&wanted.name, wanted.slug.as_str());
        Some(password::obtain(
            email.as_str(),
            &context,
            from_stdin,
            "TENANTRY_ADMIN_PASSWORD",
        )?)
    };
    let password_hash = match &password {
        Some(password) => Some(context.platform.passwords.hash(&password.chosen).await?.into()),
        None => None,
    };
    let local_part = email.as_str().split('@').next().unwrap_or_default().to_owned();
    let lab = NewLab {
        slug: wanted.slug,
        name: wanted.name,
        time_zone: wanted.time_zone,
        server: wanted.server,
        admin: NewAdmin {
            display_name: wanted.admin_name.unwrap_or(local_part),
            email,
            password_hash,
        },
    };
    let provisioner = &context.platform.provisioner;
    provisioner.check_provision(&lab).await?;
    // Of a request that would be refused no password is shown, and before anything is kept: the hash alone,
    // after an interruption, would be a door without a key. With `--json` it is in the document.
    if let Some(generated) = password.as_ref().and_then(NewPassword::to_show)
        && !context.out.json
    {
        context
            .out
            .tell(&format!("generated password, shown only now: {generated}"));
    }
    let by = context.requested_by(None);
    let (_, operation) = provisioner
        .request_provision(lab, by)
        .await
        .map_err(|error| match error {
            // Another process was faster than our look.
            ProvisionError::Registry(error @ RegistryError::SlugTaken { .. }) => anyhow::Error::new(error),
            other => other.into(),
        })?;
    Ok((operation, password))
}

/// The operation that makes a laboratory of which the row is there already.
pub(super) async fn take_up(
    context: &Context,
    client: &RegistryClient,
    tenant: &Tenant,
    kind: OperationKind,
) -> anyhow::Result<OperationId> {
    let slug = &tenant.slug;
    match tenant.status {
        TenantState::Provisioning => {}
        TenantState::Active | TenantState::Suspended | TenantState::Restoring => {
            let message = format!(
                "the slug {slug} is taken: {} is {} since {}; choose another, or see `tenantctl show {slug}`",
                tenant.name,
                tenant.status,
                crate::output::moment(tenant.activated_at.unwrap_or(tenant.updated_at))
            );
            return Err(Refusal::Conflict(message).into());
        }
        TenantState::Deleting => {
            let message = format!(
                "the slug {slug} is taken until the removal of {} is done; `tenantctl offboard {slug}` goes on with it",
                tenant.name
            );
            return Err(Refusal::Conflict(message).into());
        }
    }
    let filter = OperationFilter {
        tenant: Some(tenant.id),
        kind: Some(kind),
        ..OperationFilter::default()
    };
    let Some(last) = registry::operations_list(client, &filter, None, 1).await?.pop() else {
        anyhow::bail!(
            "{slug} is provisioning, but not by an operation of kind {kind}; see `tenantctl operations list --tenant {slug}`"
        );
    };
    context.out.note(&format!(
        "{slug} was asked for at {} and is half done; going on with it (administrator and password stay as given then)",
        crate::output::moment(last.created_at)
    ));
    if last.status.is_final() {
        return Ok(context
            .platform
            .provisioner
            .reopen(last.id, context.requested_by(None))
            .await?);
    }
    Ok(last.id)
}

/// A laboratory that was asked for, here or before.
pub(super) struct Made {
    pub(super) operation: OperationId,
    /// It was asked for before.
    pub(super) resumed: bool,
    pub(super) password: Option<NewPassword>,
    /// Its administrator is to be invited, unless they have a password.
    pub(super) invite: bool,
    /// What the person who asked for it must know of its initial catalogue.
    pub(super) note: Option<&'static str>,
}

pub(super) async fn finish(context: &Context, wanted: &TenantRef, made: Made) -> anyhow::Result<()> {
    let Made {
        operation,
        resumed,
        password,
        invite,
        note,
    } = made;
    let client = context.client().await?;
    let tenant = tenant(&client, wanted).await?;
    let operation = registry::operation_by_id(&client, operation).await?;
    drop(client);
    // Last, so that nothing that stops this command before its end loses a link: run again, it gives another.
    let invited = if invite {
        invite::first(context, tenant.id).await?
    } else {
        None
    };
    let out = &context.out;
    if out.json {
        return out.document(&json!({
            "tenant": TenantView::from(&tenant),
            "operation": operation.as_ref().map(OperationView::from),
            "resumed": resumed,
            "notes": note.into_iter().collect::<Vec<_>>(),
            "generatedPassword": password.as_ref().and_then(NewPassword::to_show),
            "invitation": invited.as_ref().map(|invited| invite::document(context, invited)),
        }));
    }
    if let Some(operation) = operation.filter(|_| tenant.status != TenantState::Active) {
        out.note(&format!(
            "a running tenantd makes it; `tenantctl operations watch {}` follows",
            operation.id
        ));
    }
    out.answer(&format!(
        "{} is {}: {} ({})",
        tenant.slug, tenant.status, tenant.name, tenant.id
    ))?;
    if let Some(note) = note {
        out.note(note);
    }
    match invited {
        Some(invited) => out.answer(&invite::text(context, &invited)),
        None if invite => {
            out.note(&format!(
                "the administrator has a password, so no invitation was made; `tenantctl invite {}` gives a link to set another",
                tenant.slug
            ));
            Ok(())
        }
        None => Ok(()),
    }
}
