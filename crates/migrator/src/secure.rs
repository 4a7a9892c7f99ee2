//! Every role may connect to every database unless that is taken away: PostgreSQL grants CONNECT and TEMP to
//! PUBLIC by default. A clone gets its own rights when it is made; this closes the databases that are there
//! anyway.

use model::Namespace;
use pg::ConnectTarget;
use tokio_postgres::Client;

use crate::{
    MigrateError,
    lock::{Guarded, MAINTENANCE_DATABASE, acquire, session},
    server::{OpenDatabase, SHARED_DATABASES, StaysOpen, roles_through_public},
};

/// Takes every right on `postgres`, `template1` and, where it is on this server, the registry's database from
/// PUBLIC, as [`close_to_public`] does: for servers that nobody else uses.
///
/// # Errors
/// As [`close_to_public`].
pub async fn secure_server(
    admin: &ConnectTarget,
    namespace: &Namespace,
    registry_database: &str,
) -> Result<(), MigrateError> {
    let [maintenance, template] = SHARED_DATABASES;
    close_to_public(admin, namespace, &[maintenance, template, registry_database])
        .await
        .map(drop)
}

/// Takes every right on these databases from PUBLIC, as far as they are on this server, and reads back that
/// it took: a REVOKE by a role that does not own the database ends without an error and changes nothing.
/// Gives those that were open.
///
/// `namespace` says for whom; the rights of these databases are the same for all.
///
/// # Errors
/// [`MigrateError::StillPublic`] names the database, its owner and the statement that is needed.
pub async fn close_to_public(
    admin: &ConnectTarget,
    namespace: &Namespace,
    databases: &[&str],
) -> Result<Vec<String>, MigrateError> {
    let target = admin.with_database(MAINTENANCE_DATABASE);
    let client = session(&target).await?;
    if public_rights(&client, &target, databases).await?.is_empty() {
        return Ok(Vec::new());
    }
    // Two sessions that change one catalogue row at once fail with "tuple concurrently updated".
    acquire(&client, &target, Guarded::ServerRights).await?;
    let mut closed = Vec::new();
    for rights in public_rights(&client, &target, databases).await? {
        let sql = format!(
            "REVOKE ALL ON DATABASE {} FROM PUBLIC",
            model::quote_ident(&rights.database)
        );
        client
            .batch_execute(&sql)
            .await
            .map_err(MigrateError::db("closing a shared database", &target))?;
        tracing::info!(
            namespace = namespace.as_str(),
            database = rights.database,
            "closed to PUBLIC"
        );
        closed.push(rights.database);
    }
    match public_rights(&client, &target, databases)
        .await?
        .into_iter()
        .next()
    {
        None => Ok(closed),
        Some(left) => Err(MigrateError::StillPublic {
            database: left.database,
            place: target.to_string(),
            privileges: left.privileges,
            owner: left.owner,
        }),
    }
}

/// Those among these databases that [`close_to_public`] would close and that every role may connect to, with
/// whom that shuts out.
///
/// # Errors
/// [`MigrateError::Connect`], [`MigrateError::Db`].
pub async fn would_close(
    admin: &ConnectTarget,
    namespace: &Namespace,
    databases: &[&str],
) -> Result<Vec<StaysOpen>, MigrateError> {
    let target = admin.with_database(MAINTENANCE_DATABASE);
    let client = session(&target).await?;
    let mut found = Vec::new();
    for rights in public_rights(&client, &target, databases).await? {
        if !rights.privileges.contains("CONNECT") {
            continue;
        }
        let through_public = roles_through_public(&client, namespace, &rights.database).await?;
        let open = OpenDatabase {
            database: rights.database,
            owner: rights.owner,
            rights: rights.privileges,
        };
        found.push(StaysOpen { open, through_public });
    }
    Ok(found)
}

struct PublicRights {
    database: String,
    owner: String,
    privileges: String,
}

/// The databases among `names` on which PUBLIC still has a right. Absent ones are not listed.
async fn public_rights(
    client: &Client,
    target: &ConnectTarget,
    names: &[&str],
) -> Result<Vec<PublicRights>, MigrateError> {
    let rows = client
        .query(
            "SELECT d.datname::text, pg_get_userbyid(d.datdba)::text, string_agg(a.privilege_type, ', ')
               FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
              WHERE d.datname = ANY ($1::text[]) AND a.grantee = 0
              GROUP BY d.datname, d.datdba ORDER BY d.datname",
            &[&names],
        )
        .await
        .map_err(MigrateError::db(
            "reading the rights of the shared databases",
            target,
        ))?;
    Ok(rows
        .iter()
        .map(|row| PublicRights {
            database: row.get(0),
            owner: row.get(1),
            privileges: row.get(2),
        })
        .collect())
}
