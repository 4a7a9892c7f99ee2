//! Tenant id in, a safe pooled connection to that tenant's own database out, within a hard budget of connections a server.
//!
//! tenant id → cached snapshot → gate (does its state serve? is its schema version inside the window?) → the tenant's
//! own deadpool, one of at most `pools_max` → [`TenantClient`]. When the pool has no connection to lend, the server's
//! [arbiter] decides who gets the next one.
//!
//! What holds:
//!
//! - At most `budget` connections to a server exist, connects under way and connections that are ending included. The server
//!   never refuses one for want of room, unless somebody else takes it.
//! - No tenant starves, however many there are for a connection and however busy one of them is.
//! - A snapshot read before a change was announced is never used after it, whatever was in flight.
//! - No query runs on a tenant whose state or schema version the gate refuses.
//! - The next borrower of a connection never sees and never waits for what the one before left behind.
//! - A pool that somebody holds or waits for is never closed to make room. Every wait and every queue has its bound.
//! - A warm checkout makes no round trip, reads nothing and takes no lock that tenants share.
//!
//! The resolver never runs DDL, never changes a tenant's row, and hands out no connection that is not bound to one tenant.
//!
//! Programs depend on the facade `tenantry`, whose documentation shows how it is used in tokio and in actix-web.

mod background_tasks;
mod cache;
mod cache_epoch;
mod capacity;
mod checked_out;
mod client;
mod clock;
mod config;
mod connect;
mod connection;
mod connection_counter;
mod core;
mod drive;
mod error;
mod jitter;
mod lru_order;
mod outage;
mod pool;
mod pools;
mod registration;
mod resolver;
mod server;
mod snapshot;
mod stats;
mod wire;

pub use crate::{
    capacity::{Capacity, CapacityError},
    client::{TenantClient, TenantTransaction},
    config::ResolverConfig,
    error::ResolveError,
    resolver::Resolver,
    snapshot::Snapshot,
    stats::{Evictions, PoolStatus, ResolverStats, ServerStats, TenantPoolStats, WAIT_BUCKETS_S},
};
