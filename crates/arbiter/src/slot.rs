use std::fmt;

use crate::{
    Arbiter, Seat,
    sync::{Arc, AtomicBool, Ordering},
};

/// The right to one connection. Whoever drives the socket holds it, from before the connect until the backend is gone;
/// dropping it gives the slot back.
#[must_use = "a slot that is dropped is free"]
pub struct Slot<S: Seat> {
    arbiter: Arc<Arbiter<S>>,
    tenant: S::Tenant,
    ending: Arc<AtomicBool>,
    connecting: bool,
}

/// Kept with a connection's handle: when it is dropped the slot is known to come back soon, so that no second connection
/// is closed for the same waiting tenant.
pub struct Hold<S: Seat> {
    arbiter: Arc<Arbiter<S>>,
    tenant: S::Tenant,
    ending: Arc<AtomicBool>,
}

/// What a connect that came to nothing says about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It did not answer in time.
    Silent,
    /// It cannot be reached, or it is shutting down or starting.
    Unreachable,
    /// It is there, and has no room for another connection.
    Full,
    /// It is there, and refuses this log-in.
    NotItsFault,
}

impl<S: Seat> Slot<S> {
    pub(crate) fn new(arbiter: &Arc<Arbiter<S>>, tenant: S::Tenant) -> Self {
        Self {
            arbiter: Arc::clone(arbiter),
            tenant,
            ending: Arc::new(AtomicBool::new(false)),
            connecting: true,
        }
    }

    /// The log-in is done: the next connect may begin.
    pub fn connected(&mut self) {
        if std::mem::take(&mut self.connecting) {
            self.arbiter.connected(self.tenant);
        }
    }

    /// The connect came to nothing. The slot stays taken until it is dropped, for a backend may have begun.
    pub fn failed(&mut self, verdict: Verdict) {
        if std::mem::take(&mut self.connecting) {
            let newly_ending = !self.ending.swap(true, Ordering::SeqCst);
            self.arbiter.failed(self.tenant, newly_ending, verdict);
        }
    }

    /// Goes with the handle of this slot's connection.
    #[must_use]
    pub fn hold(&self) -> Hold<S> {
        Hold {
            arbiter: Arc::clone(&self.arbiter),
            tenant: self.tenant,
            ending: Arc::clone(&self.ending),
        }
    }
}

impl<S: Seat> Drop for Slot<S> {
    fn drop(&mut self) {
        let was_ending = self.ending.swap(true, Ordering::SeqCst);
        self.arbiter.released(self.tenant, self.connecting, was_ending);
    }
}

impl<S: Seat> Hold<S> {
    /// Says that the connection is about to end; true the first time.
    pub(crate) fn end(&self) -> bool {
        !self.ending.swap(true, Ordering::SeqCst)
    }
}

impl<S: Seat> AsRef<Self> for Hold<S> {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl<S: Seat> Drop for Hold<S> {
    fn drop(&mut self) {
        if self.end() {
            self.arbiter.ending(self.tenant);
        }
    }
}

impl<S: Seat> fmt::Debug for Slot<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("connecting", &self.connecting)
            .finish_non_exhaustive()
    }
}

impl<S: Seat> fmt::Debug for Hold<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").finish_non_exhaustive()
    }
}
