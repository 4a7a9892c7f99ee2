use std::{hash::Hash, time::Duration};

use crate::{ConnectionGuard, Slot, Timestamp, sync::Arc};

/// What the arbiter sees of one tenant's pool, and asks of it.
pub trait PoolHandle: Sized {
    /// Names the tenant.
    type Tenant: Copy + Eq + Hash;
    /// An idle connection that was taken out of its pool; dropping it ends the connection.
    type Idle: AsRef<ConnectionGuard<Self>>;

    // Called under the arbiter's lock: quick, never blocking, never calling the arbiter.

    /// Whose pool it is.
    fn tenant(&self) -> Self::Tenant;
    /// The most connections that the tenant may have.
    fn slots_max(&self) -> usize;
    /// Whether it was closed, which it is before it leaves. A caller who comes too late to notice may still ask the arbiter
    /// for a connection; without this its pool would take the place of the one that was opened since.
    fn is_closed(&self) -> bool {
        false
    }
    /// Since when callers have been waiting without a break; none while nobody waits.
    fn waiting_since(&self) -> Option<Timestamp>;
    /// How many connections are idle. Not those that callers who wait are about to pick up.
    fn idle(&self) -> usize;
    /// When a connection was last lent or given back.
    fn last_used(&self) -> Timestamp;
    /// When the server last answered on one of the connections; zero: never.
    fn last_answered(&self) -> Timestamp {
        Timestamp::ZERO
    }
    /// When the tenure of the latest connection ends.
    fn tenure_ends(&self) -> Timestamp;
    /// How often connections were lent since the pool was opened.
    fn uses(&self) -> u64;
    /// Takes an idle connection out of the pool, if one is still there.
    fn take_idle(&self) -> Option<Self::Idle>;

    // Called without the lock.

    /// Begins a connect. It must not take place in this call, but on a task of its own.
    fn connect(self: &Arc<Self>, slot: Slot<Self>);
    /// Tells the waiting callers that the server is down.
    fn refuse(&self, refusal: Refusal);
}

/// The server is down and nobody waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// How soon it is tried again.
    pub retry_after: Duration,
}
