//! The fence between what was read before a change and what is used after it.
//!
//! Each tenant has a number that only grows, and so has the whole registry. A reader takes the numbers (its
//! [`Stamp`]) *before* it reads the row, and the snapshot is cached under tenant *and* stamp. A change raises the number, so
//! whatever a read in flight brings back is filed under a stamp that nobody asks for any more. No order of events
//! can bring an old row back, and the cache needs no lock and no comparison of rows for it.
//!
//! Tenants share [`STRIPES`] numbers, which bounds the memory; a collision costs another tenant one needless read,
//! and in an outage of the registry, in which nothing can be read, its service.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use model::TenantId;

/// 8 kB. With 10,000 changes in a minute, a tenant is read again for a stranger's sake once in six seconds at most.
const STRIPES: usize = 1_024;

/// The state of the fence at one moment, for one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    /// Raised by changes of this tenant.
    pub(crate) tenant: u64,
    /// Raised when changes may have been missed, or concern all.
    pub(crate) all: u64,
}

#[derive(Debug)]
pub(crate) struct Fence {
    all: AtomicU64,
    tenants: Box<[AtomicU64]>,
}

impl Fence {
    pub(crate) fn new() -> Self {
        Self {
            all: AtomicU64::new(0),
            tenants: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(crate) fn stamp(&self, tenant: TenantId) -> Stamp {
        Stamp {
            tenant: self.stripe(tenant).load(SeqCst),
            all: self.all.load(SeqCst),
        }
    }

    /// Nothing read about `tenant` before this call is used after it.
    pub(crate) fn raise(&self, tenant: TenantId) {
        self.stripe(tenant).fetch_add(1, SeqCst);
    }

    /// Nothing read before this call is used after it, except through an outage of the registry.
    pub(crate) fn raise_all(&self) {
        self.all.fetch_add(1, SeqCst);
    }

    fn stripe(&self, tenant: TenantId) -> &AtomicU64 {
        // The low half of a UUID is random in versions 4 and 7 alike; the high half of version 7 is the time.
        let (_, low) = tenant.as_uuid().as_u64_pair();
        let index = usize::try_from(low % STRIPES as u64).unwrap_or_default();
        &self.tenants[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_one_tenant_leaves_the_others_alone() {
        let fence = Fence::new();
        let tenants: Vec<_> = (0..64).map(|_| TenantId::generate()).collect();
        let before: Vec<_> = tenants.iter().map(|&t| fence.stamp(t)).collect();
        fence.raise(tenants[0]);
        assert_ne!(fence.stamp(tenants[0]), before[0]);
        let changed = (0..64).filter(|&i| fence.stamp(tenants[i]) != before[i]).count();
        assert!(changed < 16, "{changed} of 64 changed with one");
        fence.raise_all();
        assert!((0..64).all(|i| fence.stamp(tenants[i]) != before[i]));
    }
}
