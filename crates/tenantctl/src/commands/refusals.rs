//! Log-ins that were refused.

use serde_json::json;

use crate::{
    context::Context,
    find::{self, TenantRef},
    output::{moment, table},
    view::RefusalsView,
};

pub(crate) async fn run(context: &Context, tenant: Option<&TenantRef>, limit: u32) -> anyhow::Result<()> {
    let client = context.client().await?;
    let tenant = match tenant {
        Some(wanted) => Some(find::tenant_id(&client, wanted).await?),
        None => None,
    };
    let refusals = registry::refusals_list(&client, tenant, limit).await?;
    let out = &context.out;
    if out.json {
        let views: Vec<RefusalsView> = refusals.iter().map(RefusalsView::from).collect();
        return out.document(&json!({"refusals": views}));
    }
    if refusals.is_empty() {
        out.note("no log-in was refused in the last 90 days");
        return Ok(());
    }
    let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows = refusals.into_iter().map(|row| {
        let place = row.tenant_slug.map(|slug| slug.to_string());
        let place = place.or_else(|| row.tenant.map(|id| id.to_string()));
        vec![
            moment(row.since),
            row.refusals.to_string(),
            row.audience,
            dash(place),
            dash(row.email),
            dash(row.client),
            row.reason,
        ]
    });
    out.answer(&table(
        &[
            "HOUR",
            "REFUSED",
            "TO",
            "LABORATORY",
            "ACCOUNT",
            "CLIENT",
            "REASON",
        ],
        rows,
    ))?;
    out.note("a line without account and client counts what is beyond the 200 lines of an hour");
    Ok(())
}
