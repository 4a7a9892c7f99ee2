//! A place of a test's own: a namespace on the shared server, an empty registry database and a directory.
//!
//! Whatever carries the namespace's prefix belongs to the test and goes with it.

use std::{path::Path, time::Duration};

use model::{DbName, Namespace, RoleName};
use pg::ConnectTarget;
use secrecy::ExposeSecret;
use tempfile::TempDir;
use tokio_postgres::Client;

const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(60);
/// Longer than two connection attempts and a slow `DROP DATABASE`, so that a loop's end is not the reason to
/// fail.
const ROUNDS_MAX: u32 = 20;

/// A namespace that nobody else uses, with an empty registry database in it.
///
/// Dropping it removes every database and role whose name starts with the namespace and an underscore, also
/// those of processes that were killed, and ends their connections.
pub struct Space {
    /// The prefix of everything this test makes on the server: `t` and eleven random characters.
    pub namespace: Namespace,
    /// The empty database `<namespace>_registry`, as the server's superuser.
    pub registry: ConnectTarget,
    /// The server's database `postgres`, as its superuser.
    pub server: ConnectTarget,
    dir: TempDir,
}

impl Space {
    /// Makes a space on [`crate::postgres`].
    ///
    /// # Panics
    /// When the server cannot be reached or refuses.
    pub async fn new() -> Self {
        Self::on(crate::postgres().await).await
    }

    /// Makes a space on a server of the test's own, which must outlive it.
    ///
    /// # Panics
    /// When the server cannot be reached or refuses.
    pub async fn on(server: ConnectTarget) -> Self {
        let namespace = random_namespace();
        let database = DbName::from_catalog(format!("{}_registry", namespace.as_str()))
            .expect("a namespace and a short suffix make a name");
        // Before the database is there, so that a failure below cleans up as well.
        let space = Self {
            registry: server.with_database(database.as_str()),
            server,
            namespace,
            dir: tempfile::Builder::new()
                .prefix("tenantry-test-")
                .tempdir()
                .expect("a temporary directory"),
        };
        let client = pg::connect(&space.server, "tenantry testkit", CONNECT_LIMIT)
            .await
            .expect("the tests' PostgreSQL answers");
        // template0 has no connections and nothing that anybody may have put into template1.
        client
            .batch_execute(&format!("CREATE DATABASE {database} TEMPLATE template0"))
            .await
            .unwrap_or_else(|error| panic!("cannot create {database}: {}", pg::describe(&error)));
        space
    }

    /// A directory of the test's own; it goes with the space.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The settings of `tenantd` and `tenantctl` for this space, as environment variables.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let target = &self.registry;
        vec![
            ("MASTER_PGHOST", target.host.clone()),
            ("MASTER_PGPORT", target.port.to_string()),
            ("MASTER_PGUSER", target.user.clone()),
            ("MASTER_PGPASSWORD", target.password.expose_secret().to_owned()),
            ("MASTER_PGDATABASE", target.database.clone()),
            ("TENANTRY_NAMES_NAMESPACE", self.namespace.as_str().to_owned()),
            (
                "TENANTRY_STATE_DIR",
                self.dir().join("state").display().to_string(),
            ),
            ("TENANTRY_HTTP_LISTEN", "127.0.0.1:0".to_owned()),
            // No load balancer has to notice that a test stops its process.
            ("TENANTRY_HTTP_SHUTDOWN_ANNOUNCE_MS", "0".to_owned()),
            // What a test finds on its server is what it asked for.
            ("TENANTRY_WORKER_SPARES", "0".to_owned()),
        ]
    }

    /// The names of the databases and then of the roles in this namespace, each in order.
    ///
    /// # Panics
    /// When the server cannot be asked.
    pub async fn contents(&self) -> (Vec<DbName>, Vec<RoleName>) {
        let client = pg::connect(&self.server, "tenantry testkit", CONNECT_LIMIT)
            .await
            .expect("the tests' PostgreSQL answers");
        contents(&client, &self.namespace)
            .await
            .expect("the catalog answers")
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let (server, namespace) = (self.server.clone(), self.namespace.clone());
        // A thread and runtime of its own: the test's may be blocked here, shutting down or unwinding.
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| error.to_string())?;
            runtime.block_on(async {
                tokio::time::timeout(CLEAN_UP_LIMIT, clean_up(&server, &namespace))
                    .await
                    .unwrap_or_else(|_| Err(format!("not done within {} s", CLEAN_UP_LIMIT.as_secs())))
            })
        });
        let outcome = cleaner.join().unwrap_or_else(|_| Err("it panicked".to_owned()));
        if let Err(reason) = outcome {
            let message = format!(
                "could not clean up namespace {}: {reason}",
                self.namespace.as_str()
            );
            // A second panic while one unwinds would abort the process and hide the first.
            if std::thread::panicking() {
                eprintln!("{message}");
            } else {
                panic!("{message}");
            }
        }
    }
}

/// `t` and eleven characters from 36: two of a million spaces meet with a chance below 10^-5.
fn random_namespace() -> Namespace {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::from("t");
    for _ in 1..Namespace::LENGTH_MAX {
        text.push(char::from(ALPHABET[rand::random_range(0..ALPHABET.len())]));
    }
    Namespace::parse(&text).expect("lower-case letters and digits make a namespace")
}

/// Drops until nothing is left: a backend whose client was killed may finish a `CREATE` after the first look.
async fn clean_up(server: &ConnectTarget, namespace: &Namespace) -> Result<(), String> {
    let client = pg::connect(server, "tenantry testkit", CONNECT_LIMIT)
        .await
        .map_err(|error| error.to_string())?;
    let mut last_error = String::new();
    for round in 0..ROUNDS_MAX {
        end_connections(&client, namespace)
            .await
            .map_err(|error| pg::describe(&error))?;
        let (databases, roles) = contents(&client, namespace)
            .await
            .map_err(|error| pg::describe(&error))?;
        if databases.is_empty() && roles.is_empty() {
            return Ok(());
        }
        for database in &databases {
            if let Err(error) = drop_database(&client, database).await {
                last_error = format!("{database}: {}", pg::describe(&error));
            }
        }
        for role in &roles {
            if let Err(error) = drop_role(&client, role).await {
                last_error = format!("{role}: {}", pg::describe(&error));
            }
        }
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 20)).await;
    }
    Err(last_error)
}

/// Ends what works in this namespace's databases or as its roles, wherever, so that nothing new appears.
async fn end_connections(client: &Client, namespace: &Namespace) -> Result<(), tokio_postgres::Error> {
    let prefix = format!("{}_", namespace.as_str());
    client
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE pid <> pg_backend_pid() AND (starts_with(datname, $1) OR starts_with(usename, $1))",
            &[&prefix],
        )
        .await?;
    Ok(())
}

async fn contents(
    client: &Client,
    namespace: &Namespace,
) -> Result<(Vec<DbName>, Vec<RoleName>), tokio_postgres::Error> {
    let prefix = format!("{}_", namespace.as_str());
    let databases = client
        .query(
            "SELECT datname::text FROM pg_database WHERE starts_with(datname, $1) ORDER BY 1",
            &[&prefix],
        )
        .await?;
    let roles = client
        .query(
            "SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, $1) ORDER BY 1",
            &[&prefix],
        )
        .await?;
    let known = "the catalog holds valid names";
    Ok((
        databases
            .iter()
            .map(|row| DbName::from_catalog(row.get::<_, String>(0)).expect(known))
            .collect(),
        roles
            .iter()
            .map(|row| RoleName::from_catalog(row.get::<_, String>(0)).expect(known))
            .collect(),
    ))
}

async fn drop_database(client: &Client, database: &DbName) -> Result<(), tokio_postgres::Error> {
    // The server refuses to drop a template, and one that a crash left half-made may be sealed as well.
    let unseal = format!("ALTER DATABASE {database} WITH IS_TEMPLATE false ALLOW_CONNECTIONS true");
    client.batch_execute(&unseal).await?;
    client
        .batch_execute(&format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"))
        .await
}

async fn drop_role(client: &Client, role: &RoleName) -> Result<(), tokio_postgres::Error> {
    // What it was granted in this database or on shared objects; its own databases are gone by now.
    client.batch_execute(&format!("DROP OWNED BY {role}")).await?;
    client.batch_execute(&format!("DROP ROLE IF EXISTS {role}")).await
}
