//! What only a look into each database can show: its own migration history, beside the version in the registry.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};
use model::{SchemaVersion, ServerName, TenantId, TenantState};
use pg::ConnectTarget;
use registry::{OperationFilter, Tenant};

use super::{
    facts::{Facts, UnderWay},
    finding::{Ailment, Finding, Remedy},
};
use crate::{Inner, ProvisionError};

/// How many databases are looked into at once, over all servers.
const PARALLEL_MAX: usize = 8;

/// Reads the history of each laboratory that serves or is suspended, on the servers that answered. Gives what is wrong and
/// how many were read.
pub(super) async fn findings(
    inner: &Inner,
    servers: &HashMap<ServerName, ConnectTarget>,
    facts: &Facts,
    under_way: &UnderWay,
) -> (Vec<Finding>, usize) {
    let whole = facts.tenants.iter().filter(|tenant| {
        matches!(tenant.status, TenantState::Active | TenantState::Suspended)
            && !under_way.changes(tenant.id)
            && servers.contains_key(&tenant.server)
    });
    let looks = stream::iter(whole)
        .map(|tenant| async move {
            let target = servers[&tenant.server].with_database(tenant.db_name.as_str());
            look(inner, &target, tenant).await
        })
        .buffer_unordered(PARALLEL_MAX);
    let mut looks = std::pin::pin!(looks);
    let (mut found, mut count) = (Vec::new(), 0);
    while let Some(finding) = looks.next().await {
        count += 1;
        found.extend(finding);
    }
    (found, count)
}

async fn look(inner: &Inner, target: &ConnectTarget, tenant: &Tenant) -> Option<Finding> {
    let name = tenant.db_name.as_str();
    let finding = match read(inner, target).await {
        Ok(version) if version == tenant.db_version => return None,
        Ok(version) => differs(tenant, version),
        Err(error) => {
            let advice =
                "see to what the message says; a laboratory whose history cannot be read is not migrated";
            Finding::new(Ailment::UnreadableDatabase, name, error.to_string(), advice)
        }
    };
    // What was read may have been in the middle of a change that has begun, or ended, since.
    match as_before(inner, tenant).await {
        Ok(true) => Some(finding.on(&tenant.server).of(&tenant.slug)),
        Ok(false) => None,
        Err(error) => {
            tracing::warn!(tenant.slug = %tenant.slug, %error, "a finding could not be confirmed and is left out");
            None
        }
    }
}

fn differs(tenant: &Tenant, version: SchemaVersion) -> Finding {
    let seen = format!(
        "the registry has version {} of {} and the database's own history version {version}",
        tenant.db_version, tenant.slug
    );
    let name = tenant.db_name.as_str();
    if version > tenant.db_version {
        let advice = "`tenantctl doctor --fix` records the version that was found";
        return Finding::new(Ailment::VersionDiffers, name, seen, advice)
            .mended_by(Remedy::RecordVersion(tenant.id, version));
    }
    let advice = format!(
        "a recorded version is never lowered: `tenantctl migrate {}` brings the database up to it",
        tenant.slug
    );
    Finding::new(Ailment::VersionDiffers, name, seen, advice)
}

async fn read(inner: &Inner, target: &ConnectTarget) -> Result<SchemaVersion, ProvisionError> {
    let client = inner.connect_inside(target).await?;
    Ok(migrator::history_version(&client).await?)
}

pub(super) async fn as_before(inner: &Inner, tenant: &Tenant) -> Result<bool, ProvisionError> {
    let client = inner.config.registry.client().await?;
    let now = registry::tenant_by_id(&client, tenant.id).await?;
    let same = now.is_some_and(|now| now.generation == tenant.generation);
    Ok(same && !is_under_way(&client, tenant.id).await?)
}

async fn is_under_way(client: &registry::RegistryClient, tenant: TenantId) -> Result<bool, ProvisionError> {
    let live = OperationFilter {
        tenant: Some(tenant),
        live: true,
        ..OperationFilter::default()
    };
    Ok(!registry::operations_list(client, &live, None, 1)
        .await?
        .is_empty())
}
