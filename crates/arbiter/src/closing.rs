use crate::{
    Timestamp,
    sync::{AtomicU64, Ordering},
};

/// When a connection began to close, if it has. The connection's slot and its guard share it.
///
/// Only the arbiter's state writes it, under the lock. Otherwise a slot could come back between the moment in
/// which its connection is marked as closing and the moment in which the state counts it as closing.
pub(crate) struct Closing(AtomicU64);

impl Closing {
    const NOT_YET: u64 = u64::MAX;

    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(Self::NOT_YET))
    }

    /// Marks the connection as closing. Returns false if it was marked before.
    pub(crate) fn begin(&self, now: Timestamp) -> bool {
        let now = now.as_micros().min(Self::NOT_YET - 1);
        self.0
            .compare_exchange(Self::NOT_YET, now, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// When the connection began to close.
    pub(crate) fn began(&self) -> Option<Timestamp> {
        let began = self.0.load(Ordering::SeqCst);
        (began != Self::NOT_YET).then_some(Timestamp::from_micros(began))
    }
}
