//! A database that exists made a laboratory, or its making taken up again.

use model::{OperationId, OperationKind, SchemaVersion};
use provisioner::Adoption;

use super::provision::{finish, take_up};
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
    let (slug, no_wait) = (wanted.slug.clone(), wanted.no_wait);
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
    finish(context, &TenantRef::Slug(slug), operation, resumed, password).await
}

async fn request(context: &Context, wanted: Adopt) -> anyhow::Result<(OperationId, Option<NewPassword>)> {
    let mut password = None;
    let mut admin_password = None;
    if let Some(email) = wanted
        .admin_email
        .as_ref()
        .filter(|_| wanted.admin_password_stdin)
    {
        let given = password::obtain(email.as_str(), true, "TENANTRY_ADMIN_PASSWORD")?;
        let hash = context.platform.passwords.hash(&given.secret).await?;
        let local_part = email.as_str().split('@').next().unwrap_or_default().to_owned();
        admin_password = Some((wanted.admin_name.unwrap_or(local_part), hash.into()));
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
        admin_password,
    };
    let by = context.requested_by(None);
    let asked = context.platform.provisioner.request_adopt(adoption, by).await?;
    Ok((asked.1, password))
}
