//! What the registry alone shows: operations that nobody works on, laboratories between two states with
//! nobody to move them on, secrets that cannot be opened.

use std::time::Duration;

use identity::SealContext;
use jiff::Timestamp;
use model::TenantState;
use registry::{Operation, Server, Tenant};

use super::{
    finding::{Finding, FindingKind, Remedy},
    registry_state::{RegistryState, UnderWay},
};
use crate::Inner;

/// How long an operation may be due, or its lease over, before it counts as forgotten. A worker looks every
/// few seconds, but with all of its hands full it comes later.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5 * 60);

/// Operations that are due and that nobody runs.
pub(super) fn stuck(registry_state: &RegistryState) -> Vec<Finding> {
    let overdue = |since: Timestamp| {
        since < registry_state.now
            && registry_state.now.duration_since(since).unsigned_abs() > FORGOTTEN_AFTER
    };
    let why = |operation: &Operation| match operation.lease_until {
        Some(until) if overdue(until) => {
            let owner = operation.lease_owner.as_deref().unwrap_or("nobody");
            Some(format!(
                "{owner} held its lease until {} and is gone",
                moment(until)
            ))
        }
        None if overdue(operation.not_before) => Some(format!(
            "it has been due since {} and nobody runs it",
            moment(operation.not_before)
        )),
        _ => None,
    };
    let found = registry_state.operations.iter().filter_map(|operation| {
        let seen = format!(
            "{} of {}: {}",
            operation.kind,
            operation.tenant_slug,
            why(operation)?
        );
        let advice = format!(
            "start a tenantd, whose worker takes it on; or run it here: `tenantctl operations watch {}`. \
             `tenantctl doctor --fix` makes it due and tells the workers",
            operation.id
        );
        let finding = Finding::new(
            FindingKind::StuckOperation,
            operation.id.to_string(),
            seen,
            advice,
        );
        Some(
            finding
                .of(&operation.tenant_slug)
                .fixed_by(Remedy::Wake(operation.id)),
        )
    });
    found.collect()
}

/// Laboratories that an operation should move on, and none does.
pub(super) fn abandoned(registry_state: &RegistryState, under_way: &UnderWay) -> Vec<Finding> {
    let idle = registry_state
        .tenants
        .iter()
        .filter(|tenant| !under_way.concerns(tenant.id));
    let found = idle.filter_map(|tenant| {
        let slug = &tenant.slug;
        let (kind, advice) = match tenant.status {
            TenantState::Provisioning => (
                FindingKind::ProvisioningWithoutOperation,
                format!(
                    "`tenantctl operations list --tenant {slug}` shows the operation that failed and why; \
                     `tenantctl operations retry ID` goes on with it"
                ),
            ),
            TenantState::Deleting => (
                FindingKind::DeletingWithoutOperation,
                format!(
                    "`tenantctl offboard {slug}` goes on with the removal; `tenantctl operations cancel ID` \
                     with its operation, which `tenantctl operations list --tenant {slug}` shows, brings the \
                     laboratory back"
                ),
            ),
            TenantState::Restoring => (
                FindingKind::RestoringWithoutOperation,
                format!(
                    "`tenantctl operations list --tenant {slug}` shows the operation that failed and why; \
                     `tenantctl operations retry ID` goes on with it"
                ),
            ),
            TenantState::Active | TenantState::Suspended => return None,
        };
        let seen = format!(
            "it has been {} since {} and no operation is under way",
            tenant.status,
            moment(tenant.updated_at)
        );
        Some(Finding::new(kind, slug.as_str(), seen, advice).of(slug))
    });
    found.collect()
}

/// The registry takes no writes.
pub(super) fn read_only(database: &str) -> Finding {
    let seen = "it takes no writes (transaction_read_only is on): laboratories go on, and log-ins and \
                operations are refused";
    let advice = "after a failover, point the master database's settings (MASTER_PGHOST) at the new primary; \
                  where a provider keeps a full disk from filling further, give it room; else look for who \
                  set default_transaction_read_only";
    Finding::new(FindingKind::RegistryReadOnly, database, seen, advice)
}

/// Stored passwords that this process cannot open.
pub(super) fn unopened(inner: &Inner, servers: &[Server], registry_state: &RegistryState) -> Vec<Finding> {
    let advice = "give this process the key that sealed it (`keys` in the state directory, from its backup): \
                  the message names the key's id";
    let server_found = servers.iter().filter_map(|server| {
        let refused = inner.admin_of(server.clone()).err()?;
        let subject = SealContext::Server(server.name.clone()).to_string();
        Some(
            Finding::new(
                FindingKind::UndecryptableSecret,
                subject,
                refused.to_string(),
                advice,
            )
            .on(&server.name),
        )
    });
    let tenants_found = registry_state.tenants.iter().filter_map(|tenant| {
        let context = SealContext::TenantRole(tenant.id);
        let seen = match &tenant.role_secret {
            Some(sealed) => inner.open(&context, sealed).err()?.to_string(),
            None if has_served(tenant) => "no password of its role is stored".to_owned(),
            None => return None,
        };
        Some(
            Finding::new(
                FindingKind::UndecryptableSecret,
                context.to_string(),
                seen,
                advice,
            )
            .of(&tenant.slug),
        )
    });
    server_found.chain(tenants_found).collect()
}

fn has_served(tenant: &Tenant) -> bool {
    matches!(tenant.status, TenantState::Active | TenantState::Suspended)
}

/// A time for people: UTC, to the second.
pub(super) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgetting_takes_longer_than_a_lease_and_a_backoff() {
        let bounds = crate::Bounds::default();
        assert!(FORGOTTEN_AFTER > bounds.backoff_max * 2);
    }
}
