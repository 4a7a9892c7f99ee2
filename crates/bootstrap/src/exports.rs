use export::{About, LeftOut};
use jiff::Timestamp;
use registry::Tenant;

/// What an export of a laboratory leaves out, by `lab`.
#[must_use]
pub fn left_out() -> Vec<LeftOut> {
    let rules = lab::tenant_export::LEFT_OUT.iter();
    rules
        .map(|(table, column, why)| LeftOut {
            table: (*table).to_owned(),
            column: column.map(str::to_owned),
            why: (*why).to_owned(),
        })
        .collect()
}

/// What an export says of the laboratory whose data it holds.
#[must_use]
pub fn about_laboratory(tenant: &Tenant, exported_at: Timestamp) -> About {
    About {
        id: tenant.id.to_string(),
        slug: tenant.slug.to_string(),
        name: tenant.name.clone(),
        schema_version: tenant.db_version.number(),
        exported_at,
    }
}
