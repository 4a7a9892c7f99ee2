//! Epochs of the snapshot cache: they keep a snapshot that was read before a change from being used after it.
//!
//! Each tenant has a number that only grows, and so has the whole registry. A reader takes both numbers (a
//! [`CacheEpoch`]) *before* it reads the row, and the cache stores the snapshot under tenant *and* epoch. A
//! change advances the number, so the result of a read in flight is stored under an epoch that no reader asks
//! for any more. No order of events can bring an old row back, and the cache needs no lock and no comparison
//! of rows.
//!
//! Tenants share [`STRIPES`] numbers, which bounds the memory. A collision costs another tenant one needless
//! read, and its service during an outage of the registry, when nothing can be read.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use model::TenantId;

/// 8 kB. With 10,000 changes in a minute, changes of other tenants make the resolver read a tenant again at
/// most once in six seconds.
const STRIPES: usize = 1_024;

/// The numbers of one tenant and of the whole registry at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CacheEpoch {
    /// Advanced by changes of this tenant.
    pub(crate) tenant: u64,
    /// Advanced when notifications may have been missed, or when a change concerns all tenants.
    pub(crate) all: u64,
}

#[derive(Debug)]
pub(crate) struct CacheEpochs {
    all: AtomicU64,
    tenants: Box<[AtomicU64]>,
}

impl CacheEpochs {
    pub(crate) fn new() -> Self {
        Self {
            all: AtomicU64::new(0),
            tenants: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(crate) fn current(&self, tenant: TenantId) -> CacheEpoch {
        CacheEpoch {
            tenant: self.stripe(tenant).load(SeqCst),
            all: self.all.load(SeqCst),
        }
    }

    /// After this call, nothing is used that was read about `tenant` before it.
    pub(crate) fn advance(&self, tenant: TenantId) {
        self.stripe(tenant).fetch_add(1, SeqCst);
    }

    /// After this call, nothing is used that was read before it, except during an outage of the registry.
    pub(crate) fn advance_all(&self) {
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
        let epochs = CacheEpochs::new();
        let tenants: Vec<_> = (0..64).map(|_| TenantId::generate()).collect();
        let before: Vec<_> = tenants.iter().map(|&t| epochs.current(t)).collect();
        epochs.advance(tenants[0]);
        assert_ne!(epochs.current(tenants[0]), before[0]);
        let changed = (0..64)
            .filter(|&i| epochs.current(tenants[i]) != before[i])
            .count();
        assert!(changed < 16, "{changed} of 64 changed with one");
        epochs.advance_all();
        assert!((0..64).all(|i| epochs.current(tenants[i]) != before[i]));
    }
}
