use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// What this process has sent so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutboxStats {
    /// Attempts that receivers took.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Deliveries that were given up.
    pub given_up: u64,
    /// Addresses that were switched off.
    pub switched_off: u64,
    /// Time in requests, all together.
    pub took: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) delivered: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) given_up: AtomicU64,
    pub(crate) switched_off: AtomicU64,
    pub(crate) took_ms: AtomicU64,
}

impl Counts {
    pub(crate) fn read(&self) -> OutboxStats {
        OutboxStats {
            delivered: self.delivered.load(Relaxed),
            failed: self.failed.load(Relaxed),
            given_up: self.given_up.load(Relaxed),
            switched_off: self.switched_off.load(Relaxed),
            took: Duration::from_millis(self.took_ms.load(Relaxed)),
        }
    }

    pub(crate) fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Relaxed);
    }
}
