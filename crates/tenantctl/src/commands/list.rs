//! The fleet at a glance.

use model::{SchemaVersion, ServerName, TenantState};
use registry::{PAGE_MAX, Tenant, TenantFilter};
use serde_json::json;

use crate::{
    context::Context,
    outcome::Refusal,
    output::{moment, table},
    view::TenantView,
};

pub(crate) async fn run(
    context: &Context,
    status: Option<TenantState>,
    server: Option<ServerName>,
    behind: bool,
) -> anyhow::Result<()> {
    if let Some(server) = &server {
        known_server(context, server).await?;
    }
    let filtered = status.is_some() || server.is_some() || behind;
    let filter = TenantFilter {
        status,
        server,
        behind: behind.then(migrator::latest),
    };
    let tenants = all(context, &filter).await?;
    let out = &context.out;
    if out.json {
        let views: Vec<TenantView> = tenants.iter().map(TenantView::from).collect();
        return out.document(&json!({"tenants": views}));
    }
    if tenants.is_empty() {
        out.note(if filtered {
            "no laboratory matches; `tenantctl list` shows all"
        } else {
            "no laboratory yet; `tenantctl provision --help` shows how to make one"
        });
        return Ok(());
    }
    let rows = tenants.iter().map(|tenant| {
        vec![
            tenant.slug.to_string(),
            tenant.status.to_string(),
            version(tenant.db_version),
            tenant.server.to_string(),
            moment(tenant.created_at),
            tenant.name.clone(),
        ]
    });
    out.answer(&table(
        &["SLUG", "STATUS", "SCHEMA", "SERVER", "CREATED", "NAME"],
        rows,
    ))
}

/// Refuses a server that is not registered: an empty list would say that it hosts no laboratory.
async fn known_server(context: &Context, wanted: &ServerName) -> anyhow::Result<()> {
    let servers = registry::servers_list(&context.client().await?).await?;
    if servers.iter().any(|server| server.name == *wanted) {
        return Ok(());
    }
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    Err(Refusal::NotFound(format!(
        "there is no server {wanted}; registered: {}",
        names.join(", ")
    ))
    .into())
}

/// Every laboratory that the filter lets through, page by page.
pub(crate) async fn all(context: &Context, filter: &TenantFilter) -> anyhow::Result<Vec<Tenant>> {
    let client = context.client().await?;
    let mut tenants: Vec<Tenant> = Vec::new();
    loop {
        let after = tenants.last().map(|tenant| tenant.slug.clone());
        let page = registry::tenants_list(&client, filter, after.as_ref(), PAGE_MAX).await?;
        let full = page.len() == PAGE_MAX as usize;
        tenants.extend(page);
        if !full {
            return Ok(tenants);
        }
    }
}

/// A laboratory's version, marked where it is not the code's.
pub(crate) fn version(version: SchemaVersion) -> String {
    let code = migrator::latest();
    match version.cmp(&code) {
        std::cmp::Ordering::Equal => version.to_string(),
        std::cmp::Ordering::Less => format!("{version} (behind {code})"),
        std::cmp::Ordering::Greater => format!("{version} (ahead of {code})"),
    }
}
