//! The least-recently-used order of pools, kept off the warm path.
//!
//! An `lru` list changes with every use, under a lock that all tenants share. Here each pool records its last
//! use itself, and the order is corrected only when a pool must go: if the first pool was used since its
//! entry was recorded, its entry is recorded anew. The first pool that was not used since is the least
//! recently used one: the entries of all others were recorded later, and those pools were used no earlier
//! than their entries say. So the order is exact, and a use costs one store.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
};

use arbiter::Timestamp;
use model::TenantId;

#[derive(Debug, Default)]
pub(crate) struct LruOrder {
    order: BTreeSet<(Timestamp, TenantId)>,
    recorded: HashMap<TenantId, Timestamp>,
}

impl LruOrder {
    /// Records the time of a tenant's last use.
    pub(crate) fn record_use(&mut self, tenant: TenantId, used: Timestamp) {
        self.remove(tenant);
        self.recorded.insert(tenant, used);
        self.order.insert((used, tenant));
    }

    pub(crate) fn remove(&mut self, tenant: TenantId) {
        if let Some(used) = self.recorded.remove(&tenant) {
            self.order.remove(&(used, tenant));
        }
    }

    /// The tenant whose recorded use is the oldest of those after `after`.
    pub(crate) fn oldest_after(&self, after: Option<(Timestamp, TenantId)>) -> Option<(Timestamp, TenantId)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.order.range((from, Bound::Unbounded)).next().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.recorded.len()
    }
}
