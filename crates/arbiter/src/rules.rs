//! The tenure by figures: 40 tenants with a caller each that asks without a pause, 8 slots, in virtual time
//! (`cargo run --release -p arbiter --example simulate -- tenure noisy`; what real servers make of the default,
//! `scripts/bench router --scenario oversubscribed` says):
//!
//! | tenure | queries a second | longest wait | connects a second |
//! |---|---|---|---|
//! | 10 ms | 18,500 | 0.13 s | 283 |
//! | 25 ms | 24,000 | 0.18 s | 199 |
//! | **50 ms** | 33,300 | 0.28 s | 123 |
//! | 100 ms | 37,100 | 0.48 s | 70 |
//!
//! A noisy neighbour costs the quiet ones the same with any of them, for what they take is idle or past its tenure: with 32
//! callers of 20 ms each beside 16 tenants that ask every 50 ms the 99th percentile of the quiet is 19 to 20 ms.

use std::time::Duration;

/// The bounds and times of one server's arbiter. Why these: the notes on this module and on `frequency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The most connections to the server that exist at once, from before a connect until the backend is gone.
    pub budget: usize,
    /// The most connects under way at once. More only queue on the server's processors.
    pub connects_max: usize,
    /// How long a tenant keeps a connection while others wait for a slot. Shorter ones spend more of the server on connects,
    /// longer ones make everybody wait longer.
    pub tenure: Duration,
    /// How long a connection within its tenure may be idle before it is taken: its next request is often a moment away
    /// (the anticipation of disk schedulers: Iyer and Druschel, "Anticipatory scheduling", SOSP 2001). 2 ms keep the turn of
    /// tenants that ask again after half a millisecond (11,100 queries a second; 7,400 with 1 ms) and stay fair where they
    /// think for longer; a noisy tenant would get a little more of what quiet ones leave idle with less
    /// (`simulate -- anticipation noisy`).
    pub anticipation: Duration,
    /// How long a tenant's callers must have waited without a break before it takes a *further* connection from another
    /// tenant: a second connection saves a short wait, and costs somebody a connect.
    pub grow_after: Duration,
    /// After how many uses per slot all frequencies are halved, so that what was popular once does not stay for ever.
    pub ageing_uses: u64,
    /// How many tenants without a connection have their frequency remembered, per slot.
    pub memory: usize,
}

impl Rules {
    /// The rules that suit a server with `budget` connections.
    #[must_use]
    pub const fn new(budget: usize) -> Self {
        Self {
            budget,
            connects_max: 4,
            tenure: Duration::from_millis(50),
            anticipation: Duration::from_millis(2),
            grow_after: Duration::from_millis(10),
            ageing_uses: 64,
            memory: 16,
        }
    }
}
