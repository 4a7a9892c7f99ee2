use std::fmt;

use crate::{FailureKind, closing::Closing, sync::Arc};

/// The right to one connection. The task that drives the socket owns it, from before the connect until the
/// backend is gone. Dropping it gives the slot back.
#[must_use = "a slot that is dropped is free"]
pub struct Slot<T: Copy> {
    events: Arc<dyn SlotEvents<T>>,
    tenant: T,
    closing: Arc<Closing>,
    connecting: bool,
    /// The connect failed.
    failed: bool,
}

/// Belongs to a connection's handle. When it is dropped, the arbiter knows that the slot will come back soon,
/// and does not close a second connection for the same waiting tenant.
pub struct ConnectionGuard<T: Copy> {
    events: Arc<dyn SlotEvents<T>>,
    tenant: T,
    closing: Arc<Closing>,
}

/// What slots and guards report. The arbiter implements it; as a trait, it keeps this file independent of the
/// arbiter.
pub(crate) trait SlotEvents<T>: Send + Sync {
    /// The log-in succeeded.
    fn connected(self: Arc<Self>, tenant: T, closing: &Closing);
    /// The connect failed. The slot is still out.
    fn connect_failed(self: Arc<Self>, tenant: T, closing: &Closing, kind: FailureKind);
    /// The connection's handle was dropped. The slot is still out.
    fn handle_dropped(self: Arc<Self>, tenant: T, closing: &Closing);
    /// The slot came back. `failed`: its connect had failed.
    fn slot_released(self: Arc<Self>, tenant: T, failed: bool, closing: &Closing);
}

impl<T: Copy> Slot<T> {
    pub(crate) fn new(events: Arc<dyn SlotEvents<T>>, tenant: T) -> Self {
        Self {
            events,
            tenant,
            closing: Arc::new(Closing::new()),
            connecting: true,
            failed: false,
        }
    }

    /// Reports that the log-in succeeded, so that the next connect may begin. The arbiter does not enqueue
    /// the tenant again: the pool that takes the connection checks whether callers still wait, and then calls
    /// [`Arbiter::request_slot`](crate::Arbiter::request_slot).
    pub fn connected(&mut self) {
        if std::mem::take(&mut self.connecting) {
            Arc::clone(&self.events).connected(self.tenant, &self.closing);
        }
    }

    /// Reports that the connect failed. The slot stays taken until it is dropped, because a backend may have
    /// begun. It counts only little against the tenant's own bound from now on: otherwise a tenant with one
    /// slot would try a silent server once, and never find out that the server is down.
    pub fn failed(&mut self, kind: FailureKind) {
        if std::mem::take(&mut self.connecting) {
            self.failed = true;
            Arc::clone(&self.events).connect_failed(self.tenant, &self.closing, kind);
        }
    }

    /// A guard for the handle of this slot's connection.
    #[must_use]
    pub fn guard(&self) -> ConnectionGuard<T> {
        ConnectionGuard {
            events: Arc::clone(&self.events),
            tenant: self.tenant,
            closing: Arc::clone(&self.closing),
        }
    }
}

impl<T: Copy> Drop for Slot<T> {
    fn drop(&mut self) {
        // If neither `connected` nor `failed` was called, the task panicked or its runtime ended. The arbiter
        // does not retry such a connect at once, since that could go on without end.
        self.failed(FailureKind::Lost);
        Arc::clone(&self.events).slot_released(self.tenant, self.failed, &self.closing);
    }
}

impl<T: Copy> ConnectionGuard<T> {
    pub(crate) fn closing(&self) -> &Closing {
        &self.closing
    }
}

impl<T: Copy> AsRef<Self> for ConnectionGuard<T> {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl<T: Copy> Drop for ConnectionGuard<T> {
    fn drop(&mut self) {
        if self.closing.began().is_none() {
            Arc::clone(&self.events).handle_dropped(self.tenant, &self.closing);
        }
    }
}

impl<T: Copy> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("connecting", &self.connecting)
            .finish_non_exhaustive()
    }
}

impl<T: Copy> fmt::Debug for ConnectionGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionGuard").finish_non_exhaustive()
    }
}
