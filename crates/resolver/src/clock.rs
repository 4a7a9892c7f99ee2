use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use arbiter::Timestamp;
use tokio::time::Instant;

/// The time since the resolver started, in the form in which the arbiter and atomics hold it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn now(self) -> Timestamp {
        Timestamp::from_micros(micros(self.start.elapsed()))
    }
}

/// A [`Timestamp`] that is read and written without a lock. It orders nothing else.
#[derive(Debug)]
pub(crate) struct AtomicTimestamp(AtomicU64);

impl AtomicTimestamp {
    pub(crate) fn new(at: Timestamp) -> Self {
        Self(AtomicU64::new(at.as_micros()))
    }

    pub(crate) fn get(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Relaxed))
    }

    pub(crate) fn set(&self, at: Timestamp) {
        self.0.store(at.as_micros(), Relaxed);
    }

    /// Sets it unless it holds a later moment already.
    pub(crate) fn advance(&self, at: Timestamp) {
        self.0.fetch_max(at.as_micros(), Relaxed);
    }
}

/// Whole microseconds, as counters hold durations.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
