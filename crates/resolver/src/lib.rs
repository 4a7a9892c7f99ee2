//! Takes a tenant id and returns a safe pooled connection to that tenant's own database, within a hard budget
//! of connections per server.
//!
//! tenant id → cached snapshot → gate (does the tenant's state serve? is its schema version inside the
//! window?) → the tenant's own deadpool, one of at most `pools_max` → [`TenantClient`]. When the pool has no
//! idle connection, the server's [arbiter] decides which tenant gets the next one.
//!
//! Invariants:
//!
//! - At most `budget` connections to a server exist, including connects under way and closing connections. So
//!   the server refuses no connection for lack of room, unless another program takes the room.
//! - No tenant starves, however many tenants wait for a connection and however busy one of them is.
//! - A snapshot that was read before a change was announced is never used after the announcement, whatever
//!   was in flight.
//! - No query runs on a tenant whose state or schema version the gate refuses.
//! - A caller never sees, and never waits for, what the previous user of its connection left behind.
//! - A pool that a caller uses or waits for is never closed to make room. Every wait and every queue has its
//!   bound.
//! - A warm checkout makes no round trip, reads no row and takes no lock that tenants share.
//!
//! The resolver never runs DDL, never changes a tenant's row, and hands out no connection that is not bound
//! to one tenant.
//!
//! Programs depend on the facade `tenantry`, whose documentation shows how to use it in tokio and in
//! actix-web.

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
