//! The choice of the tenure, by figures: 40 tenants with one caller each that asks without a pause, on 8
//! slots, in virtual time (`cargo run --release -p arbiter --example simulate -- tenure noisy`). For the
//! default on real servers, run `scripts/bench router --scenario oversubscribed`.
//!
//! | tenure | queries a second | longest wait | connects a second |
//! |---|---|---|---|
//! | 10 ms | 18,500 | 0.13 s | 283 |
//! | 25 ms | 24,000 | 0.18 s | 199 |
//! | **50 ms** | 33,300 | 0.28 s | 123 |
//! | 100 ms | 37,100 | 0.48 s | 70 |
//!
//! The tenure does not change what a noisy neighbour costs the quiet tenants, because the slots that they
//! take are idle or past their tenure: with 32 callers of 20 ms each beside 16 tenants that ask every 50 ms,
//! the 99th percentile of the quiet tenants' waits is 19 to 20 ms.

use std::time::Duration;

/// The bounds and times of one server's arbiter. The notes on this module and on `frequency` give the
/// reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The most connections to the server that exist at once. Each counts from before its connect until its
    /// backend is gone.
    pub budget: usize,
    /// The most connects under way at once. More would only queue for the server's processors.
    pub connects_max: usize,
    /// How long a tenant keeps a connection while others wait for a slot. Shorter tenures spend more of the
    /// server on connects, longer ones make every tenant wait longer.
    pub tenure: Duration,
    /// How long a connection within its tenure must be idle before the arbiter takes it. Its tenant's next
    /// request is often a moment away (the anticipation of disk schedulers: Iyer and Druschel, "Anticipatory
    /// scheduling", SOSP 2001). 2 ms spare tenants that ask again after half a millisecond (11,100 queries a
    /// second; 7,400 with 1 ms), and stay fair where tenants think for longer. With less, a noisy tenant
    /// would get a little more of what quiet ones leave idle (`simulate -- anticipation noisy`).
    pub anticipation: Duration,
    /// How long a tenant's callers must have waited without a break before it takes a *further* connection
    /// from another tenant. A second connection saves its callers a short wait and costs the other tenant a
    /// connect.
    pub grow_after: Duration,
    /// After how many uses per slot all frequencies are halved, so that former favourites do not stay for
    /// ever.
    pub ageing_uses: u64,
    /// For how many tenants without a connection, per slot, the arbiter remembers the frequency.
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
