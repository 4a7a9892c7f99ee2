//! Who gets the next connection to a server, when there are more tenants than connections.
//!
//! One [`Arbiter`] per PostgreSQL server holds a hard budget of slots. A [`Slot`] is the right to one connection: it is
//! taken before the connect begins and comes back when the backend is gone, whatever happened in between. Tenants whose
//! callers wait stand in a fair line; a slot comes from the budget, from an idle connection that will be missed
//! least, or from a tenant whose tenure is over.
//!
//! What holds:
//!
//! - At most `budget` slots are out. No order of grants, failures, cancels and closes loses or doubles one: a slot is a value
//!   with one owner and comes back when it is dropped.
//! - While nobody waits nothing is closed. While somebody waits nobody keeps a connection past its tenure and the statement
//!   or transaction under way.
//! - The tenant with the fewest connections is first, among equals the one that has waited longest. So a tenant without a
//!   connection is served after at most (tenants before it) ÷ budget tenures and connects; none starves.
//! - Nothing here waits, spawns or reads a clock of its own: a [`PoolHandle`] connects, and the clock is passed in.
//!
//! Why not a pool per tenant and a semaphore for all: the semaphore hands a slot to the next *request*, so with five times
//! more busy tenants than slots every query costs a connect. Here a slot goes to a *tenant* for a while.

mod arbiter;
mod breaker;
mod frequency;
mod pool_handle;
mod preemption;
mod rules;
mod slot;
mod state;
mod sync;
mod tenant_entry;
mod timestamp;
mod wait_queue;

pub use crate::{
    arbiter::{Arbiter, ArbiterStats},
    breaker::FAILURES_MAX,
    pool_handle::{PoolHandle, Refusal},
    rules::Rules,
    slot::{ConnectionGuard, FailureKind, Slot},
    timestamp::Timestamp,
};
