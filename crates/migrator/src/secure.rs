//! Every role may connect to every database unless that is taken away: PostgreSQL grants CONNECT and TEMP to PUBLIC by
//! default. A clone gets its own rights when it is made; this closes the databases that are there anyway.

use model::Namespace;
use pg::ConnectTarget;
use tokio_postgres::Client;

use crate::{
    MigrateError,
    lock::{Guarded, MAINTENANCE_DATABASE, acquire, session},
};

/// Takes every right on `postgres`, `template1` and, where it is on this server, the registry's database from PUBLIC, and
/// reads back that it took: a REVOKE by a role that does not own the database ends without an error and changes nothing.
///
/// `_namespace` says for whom; the rights of these databases are the same for all.
///
/// # Errors
/// [`MigrateError::StillPublic`] names the database, its owner and the statement that is needed.
pub async fn secure_server(
    admin: &ConnectTarget,
    namespace: &Namespace,
    registry_database: &str,
) -> Result<(), MigrateError> {
    let target = admin.with_database(MAINTENANCE_DATABASE);
    let client = session(&target).await?;
    let shared = [MAINTENANCE_DATABASE, "template1", registry_database];
    if public_rights(&client, &target, &shared).await?.is_empty() {
        return Ok(());
    }
    // Two sessions that change one catalogue row at once fail with "tuple concurrently updated".
    acquire(&client, &target, Guarded::ServerRights).await?;
    for rights in public_rights(&client, &target, &shared).await? {
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
    }
    match public_rights(&client, &target, &shared).await?.into_iter().next() {
        None => Ok(()),
        Some(left) => Err(MigrateError::StillPublic {
            database: left.database,
            place: target.to_string(),
            privileges: left.privileges,
            owner: left.owner,
        }),
    }
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
