//! Closing and opening a laboratory.

use model::Reason;
use registry::Tenant;
use serde_json::json;

use crate::{
    context::Context,
    find::{TenantRef, tenant},
    view::TenantView,
};

pub(crate) async fn suspend(
    context: &Context,
    wanted: &TenantRef,
    reason: Option<Reason>,
) -> anyhow::Result<()> {
    let found = tenant(&context.client().await?, wanted).await?;
    let by = context.requested_by(reason);
    let tenant = context.platform.provisioner.suspend(found.id, by).await?;
    told(
        context,
        &tenant,
        "its users get 403 from now on; `tenantctl resume` opens it again",
    )
}

pub(crate) async fn resume(
    context: &Context,
    wanted: &TenantRef,
    reason: Option<Reason>,
) -> anyhow::Result<()> {
    let found = tenant(&context.client().await?, wanted).await?;
    let by = context.requested_by(reason);
    let tenant = context.platform.provisioner.resume(found.id, by).await?;
    told(context, &tenant, "its users are served again")
}

fn told(context: &Context, tenant: &Tenant, meaning: &str) -> anyhow::Result<()> {
    if context.out.json {
        return context.out.document(&json!({"tenant": TenantView::from(tenant)}));
    }
    context
        .out
        .answer(&format!("{} is {}", tenant.slug, tenant.status))?;
    context.out.note(meaning);
    Ok(())
}
