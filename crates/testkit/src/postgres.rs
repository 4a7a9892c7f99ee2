//! Where the tests' PostgreSQL is.

use pg::ConnectTarget;
use secrecy::SecretString;

/// The server that this run's tests share, as its superuser, database `postgres`.
///
/// # Panics
/// When the environment names no server.
pub async fn postgres() -> ConnectTarget {
    from_environment().expect(
        "no PostgreSQL for the tests: run scripts/test, or `with-postgres -- cargo nextest run`, \
         or set TENANTRY_TEST_PGHOST, TENANTRY_TEST_PGPORT, TENANTRY_TEST_PGUSER and TENANTRY_TEST_PGPASSWORD",
    )
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
