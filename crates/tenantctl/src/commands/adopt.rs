//! A database that exists made a laboratory, or its making taken up again.

use identity::PasswordContext;
use model::{OperationId, OperationKind, SchemaVersion};
use provisioner::{AdminEntry, Adoption};

use super::provision::{Made, finish, take_up};
use crate::{
    cli::Adopt,
    context::Context,
    find::TenantRef,
    foreground,
    password::{self, NewPassword},
};

pub(crate) async fn run(context: &Context, wanted: Adopt) -> anyhow::Result<()> {
    let client = context.client().await?;
    let found = registry::tenant_by_slug(&client, &wanted.slug).await?;
    let (slug, no_wait, invite) = (wanted.slug.clone(), wanted.no_wait, wanted.invite);
    let resumed = found.is_some();
    let (operation, password) = match found {
        Some(tenant) => (
            take_up(context, &client, &tenant, OperationKind::Adopt).await?,
            None,
        ),
        None => {
            drop(client);
            request(context, wanted).await?
        }
    };
    if !no_wait {
        foreground::run(context, operation, slug.as_str()).await?;
    }
    let made = Made {
        operation,
        resumed,
        password,
        invite,
        note: None,
    };
    finish(context, &TenantRef::Slug(slug), made).await
}

async fn request(context: &Context, wanted: Adopt) -> anyhow::Result<(OperationId, Option<NewPassword>)> {
    let mut password = None;
    let mut admin_entry = if wanted.invite {
        AdminEntry::Invited
    } else {
        AdminEntry::Refused
    };
    if let Some(email) = wanted
        .admin_email
        .as_ref()
        .filter(|_| wanted.admin_password_stdin)
    {
        let name = wanted.name.as_deref().unwrap_or_default();
        let known = PasswordContext::of(email).and_laboratory(name, wanted.slug.as_str());
        let given = password::obtain(email.as_str(), &known, true, "TENANTRY_ADMIN_PASSWORD")?;
        let hash = context.platform.passwords.hash(&given.chosen).await?;
        admin_entry = AdminEntry::Password(hash.into());
        password = Some(given);
    }
    let adoption = Adoption {
        database: wanted.database,
        slug: wanted.slug,
        server: wanted.server,
        baseline: wanted.baseline.map(SchemaVersion::new),
        name: wanted.name,
        time_zone: wanted.time_zone,
        admin_email: wanted.admin_email,
        admin_name: wanted.admin_name,
        admin_entry,
    };
    let by = context.requested_by(None);
    let asked = context.platform.provisioner.request_adopt(adoption, by).await?;
    Ok((asked.1, password))
}
