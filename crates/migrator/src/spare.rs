//! Databases cloned ahead of time, so that making a laboratory costs a rename and not a copy.
//!
//! A spare is an untouched clone: sealed, and named for the schema that it was cloned from. It is claimed by renaming it,
//! which is atomic, so two claims never get the same one, and whoever dies in between leaves either a spare or a laboratory's
//! database. The server's own catalogue is the only list of them.

use model::{DbName, Namespace};
use tokio_postgres::{Client, GenericClient};

use crate::{MigrateError, clone::clone_strategy, source};

/// What is kept ready on a server.
#[derive(Debug, Clone, Default)]
pub struct Spares {
    /// Those of this code's schema, ready to be claimed.
    pub ready: Vec<DbName>,
    /// Those of a schema that has no template any more. One that has belongs to an older or newer binary that still runs.
    pub stale: Vec<DbName>,
}

/// The spares of the namespace on the server that `client` is connected to.
///
/// # Errors
/// [`MigrateError::Db`] when the server cannot be asked.
pub async fn spares_list(client: &impl GenericClient, namespace: &Namespace) -> Result<Spares, MigrateError> {
    let all = format!("{}_spare_", namespace.as_str());
    let rows = client
        .query(
            "SELECT d.datname::text, EXISTS (
                 SELECT FROM pg_database t
                  WHERE t.datistemplate AND starts_with(t.datname::text, $2)
                    AND split_part(t.datname::text, '_', 4) = split_part(d.datname::text, '_', 3))
               FROM pg_database d WHERE starts_with(d.datname::text, $1) AND NOT d.datallowconn ORDER BY d.datname",
            &[&all, &format!("{}_template_v", namespace.as_str())],
        )
        .await
        .map_err(MigrateError::db("listing the spares", "the server"))?;
    let current = namespace.spare_prefix(source::fingerprint());
    let mut found = Spares::default();
    for row in rows {
        let name: String = row.get(0);
        let of_a_template: bool = row.get(1);
        let is_current = name.starts_with(&current);
        if let Ok(name) = DbName::from_catalog(name) {
            if is_current {
                found.ready.push(name);
            } else if !of_a_template {
                found.stale.push(name);
            }
        }
    }
    Ok(found)
}

/// The name of a spare of this code's schema; `number` tells it from others and should be random.
#[must_use]
pub fn spare_name(namespace: &Namespace, number: u64) -> DbName {
    namespace.spare_database(source::fingerprint(), number)
}

/// Drops a spare. One that was claimed meanwhile is not there any more under this name, and stays.
///
/// # Errors
/// [`MigrateError::Db`].
pub async fn spare_drop(client: &Client, name: &DbName) -> Result<(), MigrateError> {
    client
        .batch_execute(&format!("DROP DATABASE IF EXISTS {name}"))
        .await
        .map_err(MigrateError::db("dropping a stale spare", "the server"))
}

/// Copies the template under a new name; nobody can connect to the copy yet.
///
/// # Errors
/// [`MigrateError::Db`].
pub async fn clone_template(client: &Client, template: &DbName, name: &DbName) -> Result<(), MigrateError> {
    let failed = || MigrateError::db("cloning the template", "the server");
    let strategy = clone_strategy(client).await.map_err(failed())?.word();
    let sql =
        format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY {strategy} ALLOW_CONNECTIONS false");
    client.batch_execute(&sql).await.map_err(failed())
}
