//! Decides which tenant gets the next connection to a server when there are more tenants than connections.
//!
//! One [`Arbiter`] per PostgreSQL server holds a hard budget of slots. A [`Slot`] is the right to one
//! connection: the arbiter grants it before the connect begins, and it comes back when the backend is gone,
//! whatever happened in between. Tenants whose callers wait stand in a fair queue. The arbiter serves them
//! from free slots first, then from the idle connection whose eviction costs least, then from a tenant whose
//! tenure is over.
//!
//! Invariants:
//!
//! - At most `budget` slots are out. No order of grants, failures, cancels and closes loses or doubles a
//!   slot: a slot is a value with one owner and comes back when its owner drops it.
//! - While no caller waits, the arbiter closes nothing. While a caller waits, no other tenant keeps a
//!   connection longer than its tenure and the statement or transaction under way.
//! - The tenant with the fewest connections comes first; among equals, the one that has waited longest. So a
//!   tenant without a connection is served after at most (tenants before it) ÷ budget tenures and connects;
//!   none starves.
//! - The crate neither waits nor spawns nor reads a clock: a [`PoolHandle`] connects, and the caller passes
//!   the clock.
//!
//! Why not a pool per tenant and one semaphore for all: the semaphore hands a slot to the next *request*, so
//! with five times more busy tenants than slots every query costs a connect. Here a slot goes to a *tenant*
//! for a while.
//!
//! The decisions (`state`, `preemption`, `wait_queue`, `frequency`, `breaker`) hold no lock and have no
//! effects. [`Arbiter`] wraps them: it takes the lock, asks for a decision, and carries it out after
//! releasing the lock.

mod arbiter;
mod breaker;
mod closing;
mod failure_kind;
mod frequency;
mod pool_handle;
mod preemption;
mod rules;
mod slot;
mod state;
mod stats;
mod sync;
mod tenant_entry;
mod timestamp;
mod wait_queue;

pub use crate::{
    arbiter::Arbiter,
    breaker::FAILURES_MAX,
    failure_kind::FailureKind,
    pool_handle::{PoolHandle, Refusal},
    rules::Rules,
    slot::{ConnectionGuard, Slot},
    stats::ArbiterStats,
    timestamp::Timestamp,
};
