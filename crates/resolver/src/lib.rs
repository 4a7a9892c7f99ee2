//! Tenant id in, a safe pooled connection to that tenant's own database out.
//!
//! tenant id → cached snapshot → gate (does its state serve? is its schema version inside the window?) → the tenant's
//! own deadpool, one of at most `pools_max` in an LRU → [`TenantClient`].
//!
//! What holds:
//!
//! - A snapshot read before a change was announced is never used after it, whatever was in flight.
//! - No query runs on a tenant whose state or schema version the gate refuses.
//! - The next borrower of a connection never sees and never waits for what the one before left behind.
//! - A pool that somebody holds or waits for is never closed to make room. Every wait and every queue has its bound.
//! - A warm checkout makes no round trip and reads nothing.
//!
//! The resolver never runs DDL, never writes the registry, and hands out no connection that is not bound to one tenant.
//!
//! ```no_run
//! use resolver::{ResolveError, Resolver, ResolverConfig};
//!
//! # async fn example(registry: registry::Registry, sealer: identity::Sealer, tenant: model::TenantId)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let version = model::SchemaVersion::new;
//! let window = model::VersionWindow { oldest: version(1), newest: version(3) };
//! let resolver = Resolver::start(ResolverConfig {
//!     pools_max: 50,
//!     ..ResolverConfig::new(registry, sealer, window)
//! });
//!
//! let mut client = match resolver.checkout(tenant).await {
//!     Ok(client) => client,
//!     Err(ResolveError::NotServing { state, .. }) => return Err(format!("closed: {state}").into()),
//!     Err(other) => return Err(other.into()),
//! };
//! let transaction = client.transaction().await?;
//! let statement = transaction.prepare_cached("SELECT count(*) FROM patients").await?;
//! let patients: i64 = transaction.query_one(&statement, &[]).await?.get(0);
//! transaction.commit().await?;
//! println!("{patients} patients; pool: {:?}", resolver.pool_status(tenant));
//! # Ok(()) }
//! ```

mod cache;
mod capacity;
mod census;
mod client;
mod clock;
mod config;
mod connect;
mod error;
mod fence;
mod keeper;
mod loan;
mod outage;
mod pool;
mod pools;
mod recency;
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
