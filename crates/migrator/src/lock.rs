//! Sessions for administration, and the advisory locks that keep two of them from doing the same at once.
//!
//! An advisory lock lives in one database and in one session. So whoever guards work on a server takes it in
//! one fixed database, and does the guarded work on the very session that holds it: when that session is
//! lost, so is the right.

use std::time::Duration;

use model::Namespace;
use pg::ConnectTarget;
use sha2::{Digest, Sha256};
use tokio_postgres::{Client, error::SqlState, types::Type};

use crate::MigrateError;

/// The database in which server-wide work is done and its locks are taken: it exists on every server.
pub const MAINTENANCE_DATABASE: &str = "postgres";

/// How long a connection and its log-in may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait for another process that does the same work.
const LOCK_WAIT_S: u64 = 120;
/// How long one statement may wait for a table or a database in use, before it fails and is tried again
/// later: a migration that waits in the queue for a table blocks everyone behind it.
const STATEMENT_LOCK_WAIT_S: u64 = 10;
/// How long one statement of a migration may run.
const STATEMENT_LIMIT_MIN: u64 = 30;

/// What a lock guards; the number keeps the kinds apart.
#[derive(Clone, Copy)]
pub(crate) enum Guarded<'a> {
    /// Building the template of a namespace.
    Template(&'a Namespace),
    /// Making the spares of a namespace.
    Spares(&'a Namespace),
    /// Comparing a database that is to be adopted with each version, in a scratch database of a namespace.
    Comparing(&'a Namespace),
    /// Migrating the database that the session is connected to.
    Migration,
    /// Changing the rights of the server's shared databases.
    ServerRights,
}

impl Guarded<'_> {
    /// A key of this program's own: the first eight bytes of a hash, as PostgreSQL's `bigint`.
    fn key(self) -> i64 {
        let name = match self {
            Self::Template(namespace) => format!("tenantry template {}", namespace.as_str()),
            Self::Spares(namespace) => format!("tenantry spares {}", namespace.as_str()),
            Self::Comparing(namespace) => format!("tenantry comparing {}", namespace.as_str()),
            Self::Migration => "tenantry migration".to_owned(),
            Self::ServerRights => "tenantry server rights".to_owned(),
        };
        let digest: [u8; 32] = Sha256::digest(name.as_bytes()).into();
        digest[..8]
            .iter()
            .fold(0, |key, &byte| (key << 8) | i64::from(byte))
    }

    fn doing(self) -> &'static str {
        match self {
            Self::Template(_) => "building the template",
            Self::Spares(_) => "making spares",
            Self::Comparing(_) => "comparing a database with each version",
            Self::Migration => "migrating",
            Self::ServerRights => "changing the rights of the shared databases",
        }
    }
}

/// A session with bounded waits, whose statement ends soon after this process does. Migrations make their
/// objects in `public`, whatever path the database's owner has set for it: with theirs, functions of theirs
/// could stand for the server's own.
pub(crate) async fn session(target: &ConnectTarget) -> Result<Client, MigrateError> {
    let client = pg::connect(target, "tenantry migrator", CONNECT_LIMIT).await?;
    let settings = format!(
        "SET search_path = public; SET lock_timeout = '{STATEMENT_LOCK_WAIT_S}s'; SET statement_timeout = '{STATEMENT_LIMIT_MIN}min'; \
         SET client_connection_check_interval = '500ms'"
    );
    client
        .batch_execute(&settings)
        .await
        .map_err(MigrateError::db("preparing a session", target))?;
    Ok(client)
}

/// Takes the lock for as long as the session lives.
pub(crate) async fn acquire(
    client: &Client,
    target: &ConnectTarget,
    guarded: Guarded<'_>,
) -> Result<(), MigrateError> {
    let place = || target.to_string();
    let sql = format!(
        "SET lock_timeout = '{LOCK_WAIT_S}s'; SELECT pg_advisory_lock({}); SET lock_timeout = '{STATEMENT_LOCK_WAIT_S}s'",
        guarded.key()
    );
    match client.batch_execute(&sql).await {
        Ok(()) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Err(MigrateError::Busy {
            doing: guarded.doing(),
            place: place(),
            waited_s: LOCK_WAIT_S,
        }),
        Err(source) => Err(MigrateError::Db {
            doing: guarded.doing(),
            place: place(),
            source,
        }),
    }
}

/// Takes the lock for as long as the session lives or until it is given back, unless somebody else has it.
pub(crate) async fn try_acquire(
    client: &Client,
    guarded: Guarded<'_>,
) -> Result<bool, tokio_postgres::Error> {
    let row = client
        .query_typed_one("SELECT pg_try_advisory_lock($1)", &[(&guarded.key(), Type::INT8)])
        .await?;
    Ok(row.get(0))
}

/// Says for as long as the session lives that a database which is to be adopted is compared in a scratch
/// database of the namespace, for which no operation stands yet. Any number of sessions may say so at once.
/// To be said in the maintenance database.
///
/// # Errors
/// [`MigrateError::Db`] when the server cannot be asked.
pub async fn comparing_begin(client: &Client, namespace: &Namespace) -> Result<(), MigrateError> {
    let sql = format!(
        "SELECT pg_advisory_lock_shared({})",
        Guarded::Comparing(namespace).key()
    );
    let said = client.batch_execute(&sql).await;
    said.map_err(MigrateError::db(
        Guarded::Comparing(namespace).doing(),
        "the server",
    ))
}

/// Whether anybody has said [`comparing_begin`].
///
/// # Errors
/// [`MigrateError::Db`] when the server cannot be asked.
pub async fn comparing_is_under_way(
    client: &impl tokio_postgres::GenericClient,
    namespace: &Namespace,
) -> Result<bool, MigrateError> {
    let held = is_held(client, Guarded::Comparing(namespace)).await;
    held.map_err(MigrateError::db(
        "looking whether a database is compared",
        "the server",
    ))
}

/// Whether anybody holds the lock; to be asked in the database in which it is taken.
pub(crate) async fn is_held(
    client: &impl tokio_postgres::GenericClient,
    guarded: Guarded<'_>,
) -> Result<bool, tokio_postgres::Error> {
    // The server shows a key as two halves, and marks one that was given whole by the number 1.
    let row = client
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_locks
              WHERE locktype = 'advisory' AND granted AND objsubid = 1
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND (classid::bigint << 32) | objid::bigint = $1)",
            &[&guarded.key()],
        )
        .await?;
    Ok(row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_guarded_differs_in_its_key() {
        let (a, b) = (Namespace::parse("a").unwrap(), Namespace::parse("b").unwrap());
        let keys = [
            Guarded::Template(&a),
            Guarded::Template(&b),
            Guarded::Spares(&a),
            Guarded::Comparing(&a),
            Guarded::Migration,
            Guarded::ServerRights,
        ]
        .map(Guarded::key);
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key));
        }
    }
}
