//! Links by which administrators set their passwords.

use std::time::Duration;

use model::{Email, TenantId};
use provisioner::Invited;
use registry::{Admin, RegistryClient};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::{
    context::Context,
    find::{TenantRef, tenant},
    outcome::Refusal,
    output::moment,
};

pub(crate) async fn run(
    context: &Context,
    wanted: &TenantRef,
    email: Option<&Email>,
    revoke: bool,
) -> anyhow::Result<()> {
    let client = context.client().await?;
    let tenant = tenant(&client, wanted).await?;
    let admin = admin_of(&client, tenant.id, email).await?;
    drop(client);
    let by = context.requested_by(None);
    let provisioner = &context.platform.provisioner;
    if revoke {
        let revoked = provisioner.revoke_invitation(tenant.id, admin.id, &by).await?;
        return told_revoked(context, &admin, revoked);
    }
    let invited = provisioner.invite(tenant.id, admin.id, valid_for(context), &by);
    let invited = invited.await?;
    if context.out.json {
        return context.out.document(&document(context, &invited));
    }
    context.out.answer(&text(context, &invited))
}

fn told_revoked(context: &Context, admin: &Admin, revoked: bool) -> anyhow::Result<()> {
    if context.out.json {
        let document = json!({ "adminId": admin.id, "email": admin.email, "revoked": revoked });
        return context.out.document(&document);
    }
    let email = &admin.email;
    context.out.answer(&if revoked {
        format!("the invitation for {email} is taken back; its link is good for nothing now")
    } else {
        format!("{email} has no invitation that could be taken back")
    })
}

/// The administrator with this address, or the only one.
async fn admin_of(client: &RegistryClient, tenant: TenantId, email: Option<&Email>) -> anyhow::Result<Admin> {
    let mut admins = registry::admins_of(client, tenant).await?;
    let known: Vec<&str> = admins.iter().map(|admin| admin.email.as_str()).collect();
    let known = known.join(", ");
    if let Some(email) = email {
        let same = |admin: &Admin| admin.email.as_str().eq_ignore_ascii_case(email.as_str());
        return admins.into_iter().find(same).ok_or_else(|| {
            Refusal::NotFound(format!(
                "the registry knows no administrator {email} of this laboratory; it knows {known}"
            ))
            .into()
        });
    }
    match (admins.pop(), admins.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => Err(Refusal::Usage(format!("which administrator? name one with --email: {known}")).into()),
    }
}

/// The first administrator of a laboratory that is being made, if they have no password.
pub(super) async fn first(context: &Context, tenant: TenantId) -> anyhow::Result<Option<Invited>> {
    let by = context.requested_by(None);
    let provisioner = &context.platform.provisioner;
    Ok(provisioner.invite_first(tenant, valid_for(context), &by).await?)
}

fn valid_for(context: &Context) -> Duration {
    Duration::from_secs(context.settings.auth.invitation_ttl_s)
}

/// What `--json` prints of an invitation.
pub(super) fn document(context: &Context, invited: &Invited) -> serde_json::Value {
    json!({
        "adminId": invited.admin,
        "email": invited.email,
        "token": invited.token.expose_secret(),
        "path": bootstrap::invitation_path(&invited.token),
        "link": link(context, invited),
        "expiresAt": invited.expires_at,
    })
}

/// What a person reads of it.
pub(super) fn text(context: &Context, invited: &Invited) -> String {
    let (shown, how) = match link(context, invited) {
        Some(link) => (link, ""),
        None => (
            bootstrap::invitation_path(&invited.token),
            ", below the address of tenantd (set http.public_url to have links whole)",
        ),
    };
    format!(
        "invitation for {}, shown only now, valid once until {}{how}:\n{shown}",
        invited.email,
        moment(invited.expires_at)
    )
}

fn link(context: &Context, invited: &Invited) -> Option<String> {
    bootstrap::invitation_link(context.settings.http.public_url.as_deref(), &invited.token)
}
