//! The order in which pools were used, kept off the warm path.
//!
//! An `lru` list changes with every use, under a lock that all tenants share. Here each pool notes its last use itself, and the
//! order is put right only when somebody has to go: whoever is first in it and was used since is filed anew. What is
//! then first without having been used since it was filed is the least recently used: all others were filed later, and used
//! no earlier than that. So the order is exact, and a use costs one store.

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
    /// Files a tenant under the time of its last use.
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

    /// The tenant whose last use, as filed, is the oldest of those behind `after`.
    pub(crate) fn oldest_after(&self, after: Option<(Timestamp, TenantId)>) -> Option<(Timestamp, TenantId)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.order.range((from, Bound::Unbounded)).next().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.recorded.len()
    }
}
