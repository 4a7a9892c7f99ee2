//! From a laboratory's short name to its data, with no dependency but `tenantry` and tokio:
//!
//! ```sh
//! MASTER_PGHOST=db.example.org MASTER_PGPASSWORD=… TENANTRY_STATE_DIR=/var/lib/tenantry \
//!     cargo run -p tenantry --example query -- acme-lab
//! ```

use std::{env, error::Error, path::PathBuf, time::Duration};

use tenantry::{
    ConnectTarget, Registry, RegistryOptions, Resolver, ResolverConfig, SchemaVersion, SealKey, Sealer, Slug,
    VersionWindow,
};

/// The first version of the laboratory's schema that has the table which is read here.
const OLDEST: u32 = 4;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let slug = env::args().nth(1).ok_or("usage: query SLUG")?;
    let slug = Slug::parse(&slug)?;
    let router = router()?;

    let tenant = router.tenant_id(&slug).await?;
    let mut client = router.checkout(tenant).await?;
    let row = client.query_one("SELECT count(*) FROM patient", &[]).await?;
    println!("{slug}: {} patients", row.get::<_, i64>(0));

    drop(client);
    // Ends the registration: nobody waits for this program any more.
    if let Err(connections) = router.close(Duration::from_secs(5)).await {
        eprintln!("{connections} connections were still in use");
    }
    Ok(())
}

fn router() -> Result<Resolver, Box<dyn Error>> {
    let var = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let master = ConnectTarget {
        host: var("MASTER_PGHOST", "localhost"),
        port: var("MASTER_PGPORT", "5432").parse()?,
        user: var("MASTER_PGUSER", "postgres"),
        password: env::var("MASTER_PGPASSWORD")?.into(),
        database: var("MASTER_PGDATABASE", "tenantry_registry"),
    };
    let key = PathBuf::from(env::var("TENANTRY_STATE_DIR")?).join("keys/seal.key");
    let config = ResolverConfig {
        // A program that asks one question needs no more.
        budget: 2,
        ..ResolverConfig::new(
            Registry::new(&master, RegistryOptions::default()),
            Sealer::new(SealKey::read(&key)?),
            VersionWindow {
                oldest: SchemaVersion::new(OLDEST),
                newest: SchemaVersion::new(u32::MAX),
            },
        )
    };
    Ok(Resolver::start(config))
}
