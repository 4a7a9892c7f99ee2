use std::{hash::Hash, time::Duration};

use crate::{ConnectionGuard, Slot, Timestamp, sync::Arc};

/// One tenant's pool, as the arbiter sees it.
pub trait PoolHandle: Sized + Send + Sync + 'static {
    /// Identifies the tenant.
    type Tenant: Copy + Eq + Hash + Send + Sync + 'static;
    /// An idle connection that was taken out of its pool. Dropping it closes the connection.
    type Idle: AsRef<ConnectionGuard<Self::Tenant>>;

    // The arbiter calls these under its lock: they must be quick, must not block and must not call the
    // arbiter.

    /// Whose pool it is.
    fn tenant(&self) -> Self::Tenant;
    /// The most connections that the tenant may have.
    fn slots_max(&self) -> usize;
    /// Whether the pool is closed. A pool closes before [`Arbiter::remove_pool`](crate::Arbiter::remove_pool)
    /// is called. A caller that does not notice may still request a slot. Without this check, the closed pool
    /// would replace the one that was opened since.
    fn is_closed(&self) -> bool {
        false
    }
    /// Since when callers have been waiting without a break; `None` while no caller waits.
    fn waiting_since(&self) -> Option<Timestamp>;
    /// How many connections are idle, not counting those that waiting callers are about to pick up.
    fn idle(&self) -> usize;
    /// When a connection was last checked out or given back.
    fn last_used(&self) -> Timestamp;
    /// When the server last answered on one of the connections; [`Timestamp::ZERO`] if it never did.
    fn last_answered(&self) -> Timestamp {
        Timestamp::ZERO
    }
    /// When the tenure of the newest connection ends.
    fn tenure_ends(&self) -> Timestamp;
    /// How often connections were checked out since the pool was opened.
    fn uses(&self) -> u64;
    /// Takes an idle connection out of the pool, if one is still there.
    fn take_idle(&self) -> Option<Self::Idle>;

    // The arbiter calls these without its lock.

    /// Starts a connect, on a task of its own and not within this call.
    fn connect(self: &Arc<Self>, slot: Slot<Self::Tenant>);
    /// Tells the waiting callers that the server is down.
    fn refuse(&self, refusal: Refusal);
}

/// The server is down, and the arbiter lets no caller wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// How soon the arbiter tries the server again.
    pub retry_after: Duration,
}
