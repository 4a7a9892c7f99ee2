//! The pool as the arbiter sees it.

use std::sync::{
    Arc,
    atomic::Ordering::{Relaxed, SeqCst},
};

use arbiter::{PoolHandle, Refusal, Slot, Timestamp};
use model::TenantId;

use super::TenantPool;
use crate::{connect, connection::Connection};

impl PoolHandle for TenantPool {
    type Tenant = TenantId;
    type Idle = Connection;

    fn tenant(&self) -> TenantId {
        self.snapshot.tenant
    }

    fn slots_max(&self) -> usize {
        self.common.pool_size_max
    }

    fn is_closed(&self) -> bool {
        Self::is_closed(self)
    }

    fn waiting_since(&self) -> Option<Timestamp> {
        // While callers wait, idle connections are on their way to those callers.
        (self.waiting.load(SeqCst) > self.idle()).then(|| self.waiting_since.get())
    }

    fn idle(&self) -> usize {
        self.connections.status().available
    }

    fn last_used(&self) -> Timestamp {
        self.last_used.get()
    }

    fn last_answered(&self) -> Timestamp {
        self.last_answered.get()
    }

    fn tenure_ends(&self) -> Timestamp {
        self.tenure_ends.get()
    }

    fn uses(&self) -> u64 {
        self.uses.load(Relaxed)
    }

    fn take_idle(&self) -> Option<Connection> {
        let connection = self.connections.try_remove().ok()?;
        self.counters.evictions.fetch_add(1, Relaxed);
        Some(*connection)
    }

    fn connect(self: &Arc<Self>, slot: Slot<TenantId>) {
        connect::begin(Arc::clone(self), slot);
    }

    fn refuse(&self, _: Refusal) {
        // Each caller asks the arbiter again, which tells it when to retry.
        self.changed.notify_waiters();
    }
}
