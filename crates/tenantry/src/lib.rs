//! Tenantry as a library: from a tenant's name to a pooled connection to that tenant's own PostgreSQL
//! database.
//!
//! This is the one crate to depend on. It holds no code of its own: it exports the router ([`Resolver`]) and
//! every type that a program meets on the way to it. What holds of the router stands in [`Resolver`]'s own
//! crate and in short here:
//!
//! - At most `budget` connections to a server exist, and they are shared fairly between its tenants.
//! - A tenant that is suspended, or whose schema this program does not know, gets no query.
//! - The next borrower of a connection never meets what the one before left behind.
//! - Every wait and every queue has its bound.
//!
//! # What it needs
//!
//! A registry (the master database, which `tenantctl up` prepares), a log-in for it, and `seal.key` out of
//! the control plane's state directory, with which the passwords of the tenants' roles are sealed. The
//! program registers as a router, so that suspending a tenant waits until it has let go of it.
//!
//! # In any tokio program
//!
//! ```no_run
//! use tenantry::{
//!     ConnectTarget, Registry, RegistryOptions, ResolveError, Resolver, ResolverConfig, SchemaVersion, SealKey, Sealer, Slug,
//!     VersionWindow,
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let master = ConnectTarget {
//!     host: "db.example.org".to_owned(),
//!     port: 5432,
//!     user: "tenantry".to_owned(),
//!     password: std::env::var("MASTER_PGPASSWORD")?.into(),
//!     database: "tenantry_registry".to_owned(),
//! };
//! let registry = Registry::new(&master, RegistryOptions::default());
//! let sealer = Sealer::new(SealKey::read("/var/lib/tenantry/keys/seal.key".as_ref())?);
//! // The versions of the tenants' schema that this program's statements were written for.
//! let window = VersionWindow { oldest: SchemaVersion::new(9), newest: SchemaVersion::new(10) };
//! let router = Resolver::start(ResolverConfig {
//!     budget: 40,
//!     ..ResolverConfig::new(registry, sealer, window)
//! });
//!
//! let tenant = router.tenant_id(&Slug::parse("acme-lab")?).await?;
//! let mut client = match router.checkout(tenant).await {
//!     Ok(client) => client,
//!     Err(ResolveError::NotServing { state, .. }) => return Err(format!("closed: {state}").into()),
//!     Err(other) => return Err(other.into()),
//! };
//! let row = client.query_one("SELECT count(*) FROM patient WHERE family_name = $1", &[&"Curie"]).await?;
//! println!("{} patients; pool: {:?}", row.get::<_, i64>(0), router.pool_status(tenant));
//!
//! // Begun again by itself when the schema has changed under its prepared statements.
//! client
//!     .write(async |transaction| -> Result<u64, Box<dyn std::error::Error>> {
//!         Ok(transaction.execute("UPDATE patient SET family_name = btrim(family_name)", &[]).await?)
//!     })
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! Keep the id and not the slug: a slug may be given to another tenant once its first one is gone, an id
//! never is.
//!
//! # In an actix-web program
//!
//! The router is application data, and clones of it share everything. Which tenant a request speaks for is
//! the application's to know; here an earlier middleware has put it into the request.
//!
//! ```no_run
//! use actix_web::{App, HttpServer, error, web};
//! use tenantry::{Resolver, TenantId};
//!
//! async fn patients(tenant: web::ReqData<TenantId>, router: web::Data<Resolver>) -> actix_web::Result<String> {
//!     let mut client = router.checkout(*tenant).await.map_err(error::ErrorServiceUnavailable)?;
//!     let row = client
//!         .query_one("SELECT count(*) FROM patient", &[])
//!         .await
//!         .map_err(error::ErrorInternalServerError)?;
//!     Ok(row.get::<_, i64>(0).to_string())
//! }
//!
//! # async fn serve(router: Resolver) -> std::io::Result<()> {
//! let app = move || {
//!     App::new()
//!         .app_data(web::Data::new(router.clone()))
//!         .route("/patients", web::get().to(patients))
//! };
//! HttpServer::new(app).bind(("127.0.0.1", 8080))?.run().await
//! # }
//! ```

pub use identity::{KeyError, SealError, SealKey, Sealer};
pub use model::{
    DbName, RoleName, SchemaVersion, ServerName, Slug, SlugError, TenantId, TenantState, VersionWindow,
};
pub use pg::{ConnectError, ConnectTarget};
pub use registry::{Budgets, Overbooked, Registry, RegistryError, RegistryOptions};
pub use resolver::{
    Capacity, CapacityError, Evictions, PoolStatus, ResolveError, Resolver, ResolverConfig, ResolverStats,
    ServerStats, Snapshot, TenantClient, TenantPoolStats, TenantTransaction, WAIT_BUCKETS_S,
};
pub use secrecy::SecretString;
/// The driver, of the version whose rows, parameters and errors the router's functions take and return.
pub use tokio_postgres;
