//! What only a look into each database can show: its own migration history, beside the version in the
//! registry, and who has rights in it.

use std::collections::{BTreeSet, HashMap};

use futures_util::{StreamExt, stream};
use model::{SchemaVersion, ServerName, TenantId, TenantState};
use pg::ConnectTarget;
use registry::{OperationFilter, Tenant};

use super::{
    checks::{self, Laboratory},
    finding::{Finding, FindingKind, Remedy},
    grants, laboratory,
    registry_state::{RegistryState, UnderWay},
};
use crate::{Inner, ProvisionError};

/// How many databases are looked into at once, over all servers.
const PARALLEL_MAX: usize = 8;

/// Reads the history of each laboratory that serves or is suspended, on the servers that answered. Gives what
/// is wrong and how many were read. Databases of `strangers`, which are not the laboratories', are not
/// entered.
pub(super) async fn findings(
    inner: &Inner,
    servers: &HashMap<ServerName, ConnectTarget>,
    registry_state: &RegistryState,
    under_way: &UnderWay,
    strangers: &BTreeSet<TenantId>,
) -> (Vec<Finding>, usize) {
    let whole = registry_state.tenants.iter().filter(|tenant| {
        matches!(tenant.status, TenantState::Active | TenantState::Suspended)
            && !under_way.changes(tenant.id)
            && !strangers.contains(&tenant.id)
            && servers.contains_key(&tenant.server)
    });
    let looks = stream::iter(whole)
        .map(|tenant| async move {
            let target = servers[&tenant.server].with_database(tenant.db_name.as_str());
            look(inner, &target, tenant, registry_state).await
        })
        .buffer_unordered(PARALLEL_MAX);
    let mut looks = std::pin::pin!(looks);
    let (mut found, mut count) = (Vec::new(), 0);
    while let Some(findings) = looks.next().await {
        count += 1;
        found.extend(findings);
    }
    (found, count)
}

async fn look(
    inner: &Inner,
    target: &ConnectTarget,
    tenant: &Tenant,
    registry_state: &RegistryState,
) -> Vec<Finding> {
    let found = match read(inner, target, &laboratory(inner, registry_state, tenant)).await {
        Ok((version, rights)) => {
            let version = (version != tenant.db_version).then(|| differs(tenant, version));
            version.into_iter().chain(rights).collect()
        }
        Err(error) => {
            let advice =
                "see to what the message says; a laboratory whose history cannot be read is not migrated";
            let name = tenant.db_name.as_str();
            vec![Finding::new(
                FindingKind::UnreadableDatabase,
                name,
                error.to_string(),
                advice,
            )]
        }
    };
    if found.is_empty() {
        return found;
    }
    // What was read may have been in the middle of a change that has begun, or ended, since.
    match as_before(inner, tenant).await {
        Ok(true) => {
            let found = found.into_iter();
            found
                .map(|finding| finding.on(&tenant.server).of(&tenant.slug))
                .collect()
        }
        Ok(false) => Vec::new(),
        Err(error) => {
            tracing::warn!(tenant.slug = %tenant.slug, %error, "a finding could not be confirmed and is left out");
            Vec::new()
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
        return Finding::new(FindingKind::VersionDiffers, name, seen, advice)
            .fixed_by(Remedy::RecordVersion(tenant.id, version));
    }
    let advice = format!(
        "a recorded version is never lowered: `tenantctl migrate {}` brings the database up to it",
        tenant.slug
    );
    Finding::new(FindingKind::VersionDiffers, name, seen, advice)
}

async fn read(
    inner: &Inner,
    target: &ConnectTarget,
    laboratory: &Laboratory,
) -> Result<(SchemaVersion, Vec<Finding>), ProvisionError> {
    let client = inner.connect_inside(target).await?;
    let version = migrator::history_version(&client).await?;
    let namespace = &inner.config.namespace;
    let rights = checks::inside(&client, target, namespace, laboratory).await?;
    let mut found: Vec<Finding> = rights
        .into_iter()
        .map(|sighting| sighting.into_finding(laboratory))
        .collect();
    // The grants name the tables and columns of this code's version; the migration of one that is older gives
    // them.
    if version == migrator::latest() {
        found.extend(grants::compared(&client, target, laboratory).await?);
    }
    Ok((version, found))
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
