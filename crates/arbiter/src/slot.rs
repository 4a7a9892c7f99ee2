use std::fmt;

use crate::{
    Arbiter, PoolHandle, Timestamp,
    sync::{Arc, AtomicU64, Ordering},
};

/// The right to one connection. Whoever drives the socket holds it, from before the connect until the backend is gone;
/// dropping it gives the slot back.
#[must_use = "a slot that is dropped is free"]
pub struct Slot<P: PoolHandle> {
    arbiter: Arc<Arbiter<P>>,
    tenant: P::Tenant,
    closing: Arc<Closing>,
    connecting: bool,
    /// The connect came to nothing.
    failed: bool,
}

/// Kept with a connection's handle: when it is dropped the slot is known to come back soon, so that no second connection
/// is closed for the same waiting tenant.
pub struct ConnectionGuard<P: PoolHandle> {
    arbiter: Arc<Arbiter<P>>,
    tenant: P::Tenant,
    closing: Arc<Closing>,
}

/// When a connection began to end, if it has. The slot and the hold share it. Only the state writes it, under its lock: else
/// a slot could come back between the moment in which its connection is said to end and the one in which that is booked.
pub(crate) struct Closing(AtomicU64);

impl Closing {
    const NOT_YET: u64 = u64::MAX;

    fn new() -> Self {
        Self(AtomicU64::new(Self::NOT_YET))
    }

    /// The end begins; false if it had begun before.
    pub(crate) fn begin(&self, now: Timestamp) -> bool {
        let now = now.as_micros().min(Self::NOT_YET - 1);
        self.0
            .compare_exchange(Self::NOT_YET, now, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// When it began.
    pub(crate) fn began(&self) -> Option<Timestamp> {
        let began = self.0.load(Ordering::SeqCst);
        (began != Self::NOT_YET).then_some(Timestamp::from_micros(began))
    }
}

/// What a connect that came to nothing says about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// It did not answer in time.
    Silent,
    /// It cannot be reached, or it is shutting down or starting.
    Unreachable,
    /// It is there, and has no room for another connection.
    Full,
    /// It is there, and refuses this log-in.
    Refused,
    /// It was not even tried: the reason lies on this side, and says nothing about the server.
    NotTried,
    /// It is not known: the task that connected went down.
    Lost,
}

impl<P: PoolHandle> Slot<P> {
    pub(crate) fn new(arbiter: &Arc<Arbiter<P>>, tenant: P::Tenant) -> Self {
        Self {
            arbiter: Arc::clone(arbiter),
            tenant,
            closing: Arc::new(Closing::new()),
            connecting: true,
            failed: false,
        }
    }

    /// The log-in is done: the next connect may begin. The tenant is not put into the line again by itself: whoever hands the
    /// connection over looks whether callers still wait, and says so with [`Arbiter::request_slot`].
    pub fn connected(&mut self) {
        if std::mem::take(&mut self.connecting) {
            self.arbiter.connected(self.tenant, &self.closing);
        }
    }

    /// The connect came to nothing. The slot stays taken until it is dropped, for a backend may have begun; it hardly
    /// counts against the tenant's own bound any more, or a server that does not answer would be tried once and never found out.
    pub fn failed(&mut self, kind: FailureKind) {
        if std::mem::take(&mut self.connecting) {
            self.failed = true;
            self.arbiter.failed(self.tenant, &self.closing, kind);
        }
    }

    /// Goes with the handle of this slot's connection.
    #[must_use]
    pub fn guard(&self) -> ConnectionGuard<P> {
        ConnectionGuard {
            arbiter: Arc::clone(&self.arbiter),
            tenant: self.tenant,
            closing: Arc::clone(&self.closing),
        }
    }
}

impl<P: PoolHandle> Drop for Slot<P> {
    fn drop(&mut self) {
        // A connect that ended without a word (it panicked, its runtime went down) is not begun anew at once: that could go on
        // without end.
        self.failed(FailureKind::Lost);
        self.arbiter.released(self.tenant, self.failed, &self.closing);
    }
}

impl<P: PoolHandle> ConnectionGuard<P> {
    pub(crate) fn closing(&self) -> &Closing {
        &self.closing
    }
}

impl<P: PoolHandle> AsRef<Self> for ConnectionGuard<P> {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl<P: PoolHandle> Drop for ConnectionGuard<P> {
    fn drop(&mut self) {
        if self.closing.began().is_none() {
            self.arbiter.dropped(self.tenant, &self.closing);
        }
    }
}

impl<P: PoolHandle> fmt::Debug for Slot<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("connecting", &self.connecting)
            .finish_non_exhaustive()
    }
}

impl<P: PoolHandle> fmt::Debug for ConnectionGuard<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionGuard").finish_non_exhaustive()
    }
}
