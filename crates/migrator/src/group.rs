//! The group role of a laboratory: what the laboratory's role may do in its database is granted to it.
//!
//! One for each database, so that a role which is let into another laboratory's database by mistake can do
//! nothing there.

use model::{Namespace, RoleName};
use pg::ConnectTarget;
use tokio_postgres::{Client, GenericClient, error::SqlState};

use crate::{MigrateError, history::history_version, lock::session, source};

/// Makes a group role when it is missing. It cannot log in.
///
/// # Errors
/// [`MigrateError::Db`].
pub async fn group_ensure(client: &Client, group: &RoleName) -> Result<(), MigrateError> {
    let failed = || MigrateError::db("making a group role", "the server");
    let exists = client
        .query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&group.as_str()])
        .await
        .map_err(failed())?
        .is_some();
    if exists {
        return Ok(());
    }
    match client.batch_execute(&group_make(group)).await {
        Ok(()) => Ok(()),
        // Someone else was faster; two at the very same moment meet in the unique index.
        Err(error)
            if [
                Some(&SqlState::DUPLICATE_OBJECT),
                Some(&SqlState::UNIQUE_VIOLATION),
            ]
            .contains(&error.code()) =>
        {
            Ok(())
        }
        Err(error) => Err(failed()(error)),
    }
}

/// The statement that makes a group role.
#[must_use]
pub fn group_make(group: &RoleName) -> String {
    format!("CREATE ROLE {group} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS")
}

/// Makes the database that `admin` names give the group role what a laboratory's role may do in it, and
/// nothing to any other role of the installation: not to the group that earlier versions shared, and not to
/// other laboratories' roles, which are known by their ownership comment. One transaction. `own` is the
/// laboratory's own role.
///
/// The group gets its rights only in a database at this code's version, since they name its tables and
/// columns; the migration of one that is older grants them, and until then it serves nobody.
///
/// # Errors
/// [`MigrateError::Connect`], [`MigrateError::Db`], [`MigrateError::CorruptHistory`].
pub async fn rights_settle(
    admin: &ConnectTarget,
    namespace: &Namespace,
    group: &RoleName,
    own: &RoleName,
) -> Result<(), MigrateError> {
    let mut client = session(admin).await?;
    let failed = || MigrateError::db("settling the rights in the database", admin);
    let is_current = history_version(&client).await? == source::latest();
    let txn = client.transaction().await.map_err(failed())?;
    let mut sql = if is_current {
        source::grants(Some(group))
    } else {
        String::new()
    };
    // Its rights are its group's: what was granted to the role itself goes, but for the right to connect.
    if has_rights_inside(&txn, own).await.map_err(failed())? {
        sql.push_str(&rights_take(own));
    }
    let strangers = strangers(&txn, namespace, group, own).await.map_err(failed())?;
    for stranger in &strangers {
        sql.push_str(&rights_take(stranger));
        sql.push_str(&format!(
            "REVOKE ALL ON DATABASE {} FROM {stranger};",
            model::quote_ident(&admin.database)
        ));
    }
    txn.batch_execute(&sql).await.map_err(failed())?;
    txn.commit().await.map_err(failed())?;
    if !strangers.is_empty() {
        tracing::warn!(
            database = %admin.database,
            roles = strangers.iter().map(RoleName::as_str).collect::<Vec<_>>().join(", "),
            "took rights from roles of other laboratories"
        );
    }
    Ok(())
}

/// Statements that take every right in the schema `public` from a role.
#[must_use]
pub fn rights_take(role: &RoleName) -> String {
    let objects = ["TABLES", "SEQUENCES", "FUNCTIONS"];
    let mut sql: String = objects
        .iter()
        .map(|objects| format!("REVOKE ALL ON ALL {objects} IN SCHEMA public FROM {role};"))
        .collect();
    sql.push_str(&format!("REVOKE ALL ON SCHEMA public FROM {role};"));
    sql
}

/// Whether a role has rights on things in the connected database that it does not own.
async fn has_rights_inside(
    client: &impl GenericClient,
    role: &RoleName,
) -> Result<bool, tokio_postgres::Error> {
    let row = client
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid
                 WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND r.rolname = $1 AND s.deptype = 'a'
                   AND s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))",
            &[&role.as_str()],
        )
        .await?;
    Ok(row.get(0))
}

/// Roles of the installation that have rights in the connected database, or on it, and should have none.
async fn strangers(
    client: &impl GenericClient,
    namespace: &Namespace,
    group: &RoleName,
    own: &RoleName,
) -> Result<Vec<RoleName>, tokio_postgres::Error> {
    let rows = client
        .query(
            "SELECT r.rolname::text FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
              WHERE d.datname = pg_catalog.current_database() AND r.rolname <> ALL ($1::text[])
                AND (r.rolname = $2 OR pg_catalog.starts_with(r.rolname::text, $3)
                     OR pg_catalog.starts_with(pg_catalog.shobj_description(r.oid, 'pg_authid'), 'tenantry laboratory '))
                AND EXISTS (SELECT FROM pg_catalog.pg_shdepend s
                     WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = r.oid AND s.deptype = 'a'
                       AND (s.dbid = d.oid OR (s.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND s.objid = d.oid)))",
            &[
                &[group.as_str(), own.as_str()].as_slice(),
                &namespace.shared_group().as_str(),
                &namespace.tenant_group_prefix(),
            ],
        )
        .await?;
    let names = rows
        .iter()
        .map(|row| RoleName::from_catalog(row.get::<_, String>(0)));
    Ok(names.filter_map(Result::ok).collect())
}
