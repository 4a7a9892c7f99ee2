//! Databases cloned ahead of time, so that making a laboratory costs a rename and not a copy.
//!
//! A spare is an untouched clone: sealed, and named for the schema that it was cloned from. It is claimed by
//! renaming it, which is atomic, so two claims never get the same one, and whoever dies in between leaves
//! either a spare or a laboratory's database. The server's own catalogue is the only list of them.
//!
//! The first session in a new database pays for a file that the server keeps of each database's catalogue
//! (`pg_internal.init`), which a clone does not get from its template. So whoever makes a spare connects to
//! it once, and closes it again: the laboratory's first connection is as quick as any. Until then it has
//! another name, and getting its own is the last act.
//!
//! In that session it also gets its rights: a spare comes with a group role of its own, which has the spare's
//! name until a laboratory claims both. To grant them to a laboratory's role when it is made would cost it a
//! log-in and some thirty statements.

use model::{DbName, Namespace};
use pg::ConnectTarget;
use tokio_postgres::{Client, GenericClient, types::Type};

use crate::{
    MigrateError,
    clone::create_database,
    group::group_ensure,
    lock::{Guarded, is_held, session, try_acquire},
    source,
    template::{BACKEND_GONE_LIMIT, await_empty},
};

/// What is kept ready on a server.
#[derive(Debug, Clone, Default)]
pub struct Spares {
    /// Those of this code's schema, ready to be claimed.
    pub ready: Vec<DbName>,
    /// Those of a schema that has no template any more, and those that somebody took the group role from. One
    /// that has a template belongs to an older or newer binary that still runs.
    pub stale: Vec<DbName>,
    /// Those that are being made. Whoever holds [`spares_lock`] knows that their maker was killed.
    pub unfinished: Vec<DbName>,
}

/// Takes the right to make spares on the server for this session, unless somebody else has it.
///
/// # Errors
/// [`MigrateError::Db`].
pub async fn spares_lock(client: &Client, namespace: &Namespace) -> Result<bool, MigrateError> {
    let taken = try_acquire(client, Guarded::Spares(namespace)).await;
    taken.map_err(MigrateError::db("taking the lock of the spares", "the server"))
}

/// Whether somebody makes spares on the server at this moment, asked on a session in
/// [`crate::MAINTENANCE_DATABASE`].
///
/// # Errors
/// [`MigrateError::Db`].
pub async fn spares_are_being_made(
    client: &impl GenericClient,
    namespace: &Namespace,
) -> Result<bool, MigrateError> {
    let held = is_held(client, Guarded::Spares(namespace)).await;
    held.map_err(MigrateError::db("looking for makers of spares", "the server"))
}

/// The spares of the namespace on the server that `client` is connected to.
///
/// # Errors
/// [`MigrateError::Db`] when the server cannot be asked.
pub async fn spares_list(client: &impl GenericClient, namespace: &Namespace) -> Result<Spares, MigrateError> {
    let all = format!("{}_spare_", namespace.as_str());
    let rows = client
        .query_typed(
            "SELECT d.datname::text, EXISTS (
                 SELECT FROM pg_database t
                  WHERE t.datistemplate AND starts_with(t.datname::text, $2)
                    AND split_part(t.datname::text, '_', 4) = split_part(d.datname::text, '_', 3)),
                    starts_with(d.datname::text, $3), EXISTS (SELECT FROM pg_roles r WHERE r.rolname = d.datname)
               FROM pg_database d
              WHERE starts_with(d.datname::text, $1) AND (NOT d.datallowconn OR starts_with(d.datname::text, $3))
              ORDER BY d.datname",
            &[
                (&all, Type::TEXT),
                (&format!("{}_template_v", namespace.as_str()), Type::TEXT),
                (&format!("{all}making_"), Type::TEXT),
            ],
        )
        .await
        .map_err(MigrateError::db("listing the spares", "the server"))?;
    let current = namespace.spare_prefix(source::fingerprint());
    let mut found = Spares::default();
    for row in rows {
        let name: String = row.get(0);
        let (of_a_template, in_the_making, has_group): (bool, bool, bool) =
            (row.get(1), row.get(2), row.get(3));
        let is_current = name.starts_with(&current);
        if let Ok(name) = DbName::from_catalog(name) {
            if in_the_making {
                found.unfinished.push(name);
            } else if is_current && has_group {
                found.ready.push(name);
            } else if !of_a_template || is_current {
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

/// Makes a spare: copies the template, connects to the copy once, closes it and gives it its name. To be
/// called by whoever holds [`spares_lock`] on `client`; killed in between it leaves an unfinished one.
///
/// # Errors
/// [`MigrateError::Db`], [`MigrateError::Connect`]; [`MigrateError::Busy`] when no turn comes to make a
/// database, or somebody who has entered the copy does not leave.
pub async fn spare_make(
    client: &Client,
    admin: &ConnectTarget,
    namespace: &Namespace,
    template: &DbName,
    number: u64,
) -> Result<DbName, MigrateError> {
    let (making, name) = (
        namespace.spare_in_the_making(number),
        spare_name(namespace, number),
    );
    let group = namespace.spare_group(source::fingerprint(), number);
    let failed = || MigrateError::db("making a spare", admin);
    group_ensure(client, &group).await?;
    clone_template(client, template, &making).await?;
    // One transaction: it is never open to everybody.
    let open = format!(
        "REVOKE ALL ON DATABASE {making} FROM PUBLIC; ALTER DATABASE {making} WITH ALLOW_CONNECTIONS true"
    );
    client.batch_execute(&open).await.map_err(failed())?;
    let inside = session(&admin.with_database(making.as_str())).await?;
    let granted = inside.batch_execute(&source::grants(Some(&group))).await;
    drop(inside);
    granted.map_err(failed())?;
    let close = format!("ALTER DATABASE {making} WITH ALLOW_CONNECTIONS false");
    client.batch_execute(&close).await.map_err(failed())?;
    // Another administrator's program that looks into every database may have come in meanwhile.
    client
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
            &[&making.as_str()],
        )
        .await
        .map_err(failed())?;
    if !await_empty(client, &making).await.map_err(failed())? {
        return Err(MigrateError::Busy {
            doing: "making a spare",
            place: admin.to_string(),
            waited_s: BACKEND_GONE_LIMIT.as_secs(),
        });
    }
    let rename = format!("ALTER DATABASE {making} RENAME TO {name}");
    client.batch_execute(&rename).await.map_err(failed())?;
    Ok(name)
}

/// Drops a spare and its group role. One that was claimed meanwhile is not there any more under this name,
/// and stays.
///
/// # Errors
/// [`MigrateError::Db`].
pub async fn spare_drop(client: &Client, name: &DbName) -> Result<(), MigrateError> {
    let failed = || MigrateError::db("dropping a stale spare", "the server");
    // Two statements: a database is not dropped inside a transaction.
    for sql in [
        format!("DROP DATABASE IF EXISTS {name}"),
        format!("DROP ROLE IF EXISTS {name}"),
    ] {
        client.batch_execute(&sql).await.map_err(failed())?;
    }
    Ok(())
}

/// Drops group roles of spares that are not there: their makers were killed. To be called by whoever holds
/// [`spares_lock`]. Gives how many.
///
/// # Errors
/// [`MigrateError::Db`].
pub async fn spare_groups_tidy(client: &Client, namespace: &Namespace) -> Result<usize, MigrateError> {
    let failed = || MigrateError::db("dropping the group roles of spares", "the server");
    let rows = client
        .query_typed(
            "SELECT quote_ident(r.rolname) FROM pg_roles r
              WHERE starts_with(r.rolname::text, $1) AND NOT r.rolcanlogin
                AND NOT EXISTS (SELECT FROM pg_database d WHERE d.datname = r.rolname)
                AND NOT EXISTS (SELECT FROM pg_shdepend s WHERE s.refobjid = r.oid AND s.refclassid = 'pg_authid'::regclass)",
            &[(&format!("{}_spare_", namespace.as_str()), Type::TEXT)],
        )
        .await
        .map_err(failed())?;
    for row in &rows {
        let sql = format!("DROP ROLE IF EXISTS {}", row.get::<_, &str>(0));
        client.batch_execute(&sql).await.map_err(failed())?;
    }
    Ok(rows.len())
}

/// Copies the template under a new name; nobody can connect to the copy yet.
///
/// # Errors
/// [`MigrateError::Db`].
pub async fn clone_template(client: &Client, template: &DbName, name: &DbName) -> Result<(), MigrateError> {
    create_database(client, name, &template.to_string(), "").await
}
