//! Where the tests' PostgreSQL is.

use std::path::PathBuf;

use embedded::{Cluster, ThrowawayOptions};
use pg::ConnectTarget;
use secrecy::SecretString;
use tokio::sync::OnceCell;

/// Where the tests' server was told to come from, the newest one on the machine otherwise. Client programs
/// must come from there too: they may not be older than the server.
#[must_use]
pub fn pg_bin() -> Option<PathBuf> {
    std::env::var_os("TENANTRY_PG_BIN").map(Into::into)
}

/// The server that this run's tests share, as its superuser, database `postgres`.
///
/// `with-postgres` and `scripts/test` name it in `TENANTRY_TEST_PG*`. Without them the process has a
/// throw-away cluster of its own, which ends with it: right for `cargo test -p CRATE`, wasteful where each
/// test is a process.
///
/// # Panics
/// When the variables are not all there, or the process' own cluster does not start.
pub async fn postgres() -> ConnectTarget {
    // Never dropped; its supervisor sees the process end.
    static OWN: OnceCell<Cluster> = OnceCell::const_new();
    if let Some(shared) = from_environment() {
        return shared;
    }
    let start = || async {
        let options = ThrowawayOptions {
            bin: pg_bin(),
            ..ThrowawayOptions::default()
        };
        Cluster::start_throwaway(options)
            .await
            .unwrap_or_else(|error| panic!("no PostgreSQL for the tests: {error}"))
    };
    OWN.get_or_init(start).await.target().clone()
}

fn from_environment() -> Option<ConnectTarget> {
    let host = std::env::var("TENANTRY_TEST_PGHOST").ok()?;
    let part = |name: &str| {
        std::env::var(name)
            .unwrap_or_else(|_| panic!("TENANTRY_TEST_PGHOST is set, so {name} must be set, too"))
    };
    Some(ConnectTarget {
        host,
        port: part("TENANTRY_TEST_PGPORT")
            .parse()
            .expect("TENANTRY_TEST_PGPORT must be a port number"),
        user: part("TENANTRY_TEST_PGUSER"),
        password: SecretString::from(part("TENANTRY_TEST_PGPASSWORD")),
        database: "postgres".to_owned(),
    })
}
