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
//! # In any tokio program
//!
//! ```no_run
//! use resolver::{ResolveError, Resolver, ResolverConfig};
//!
//! # async fn example(registry: registry::Registry, sealer: identity::Sealer, tenant: model::TenantId)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let version = model::SchemaVersion::new;
//! let window = model::VersionWindow { oldest: version(1), newest: version(3) };
//! let resolver = Resolver::start(ResolverConfig {
//!     budget: 80,
//!     ..ResolverConfig::new(registry, sealer, window)
//! });
//!
//! let mut client = match resolver.checkout(tenant).await {
//!     Ok(client) => client,
//!     Err(ResolveError::NotServing { state, .. }) => return Err(format!("closed: {state}").into()),
//!     Err(other) => return Err(other.into()),
//! };
//! let row = client.query_one("SELECT count(*) FROM patients WHERE family_name = $1", &[&"Curie"]).await?;
//! println!("{} patients; pool: {:?}", row.get::<_, i64>(0), resolver.pool_status(tenant));
//!
//! let transaction = client.transaction().await?;
//! transaction.execute("UPDATE patients SET name = btrim(name)", &[]).await?;
//! transaction.commit().await?;
//! # Ok(()) }
//! ```
//!
//! # In an actix-web program
//!
//! The resolver is application data, and clones of it share everything. Which tenant a request speaks for is the
//! application's to know: here a token would have told it.
//!
//! ```no_run
//! use actix_web::{App, HttpServer, error, web};
//! use model::TenantId;
//! use resolver::Resolver;
//!
//! async fn patients(tenant: web::ReqData<TenantId>, resolver: web::Data<Resolver>) -> actix_web::Result<String> {
//!     let mut client = resolver.checkout(*tenant).await.map_err(error::ErrorServiceUnavailable)?;
//!     let row = client
//!         .query_one("SELECT count(*) FROM patients", &[])
//!         .await
//!         .map_err(error::ErrorInternalServerError)?;
//!     Ok(row.get::<_, i64>(0).to_string())
//! }
//!
//! # async fn serve(resolver: Resolver) -> std::io::Result<()> {
//! let app = move || {
//!     App::new()
//!         .app_data(web::Data::new(resolver.clone()))
//!         .route("/patients", web::get().to(patients))
//! };
//! HttpServer::new(app).bind(("127.0.0.1", 8080))?.run().await
//! # }
//! ```

mod cache;
mod capacity;
mod census;
mod client;
mod clock;
mod config;
mod connect;
mod drive;
mod error;
mod fence;
mod keeper;
mod loan;
mod outage;
mod pool;
mod pools;
mod recency;
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
