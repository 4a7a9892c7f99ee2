//! The registry's own schema: `migrations-master/`, embedded, and brought up by one caller at a time.
//!
//! Refinery lets two runners at once fail over each other, so every run holds an advisory lock. It takes a
//! history that is ahead of the code for a missing file and panics on a history row that it cannot parse, so
//! both are looked at before it is asked.

use std::time::Duration;

use model::{DbName, SchemaVersion};
use pg::ConnectTarget;
use tokio_postgres::{Client, error::SqlState};

use crate::{Registry, RegistryError};

mod embedded {
    refinery::embed_migrations!("../../migrations-master");
}

/// The key of the advisory lock: "tenantry" in ASCII, so that people find it in `pg_locks`.
const MIGRATION_LOCK: i64 = 0x7465_6e61_6e74_7279;
/// How long one caller waits for another that is migrating.
const MIGRATION_LOCK_WAIT: &str = "120s";
/// Databases that every server has for its own use.
const SERVERS_OWN: [&str; 3] = ["postgres", "template0", "template1"];
/// How long a connection that is used once may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The version of the registry's schema that this binary needs.
#[must_use]
pub fn latest() -> SchemaVersion {
    let newest = embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(refinery::Migration::version)
        .max();
    SchemaVersion::new(newest.and_then(|number| u32::try_from(number).ok()).unwrap_or(0))
}

/// Creates the master database itself when it is missing; says whether it did. `admin` is any database of the
/// server.
///
/// # Errors
/// [`RegistryError::Unavailable`] when the server cannot be reached, [`RegistryError::Db`] when it refuses.
pub async fn ensure_database(admin: &ConnectTarget, database: &str) -> Result<bool, RegistryError> {
    let name = DbName::from_catalog(database).map_err(|e| RegistryError::Migrate {
        reason: e.to_string(),
    })?;
    refuse_servers_own(database)?;
    let client = connect(admin).await?;
    lock(&client).await?;
    // Closed and without rights of its own is what a creation leaves that was killed before its second
    // statement. One of somebody else's stays closed.
    let found = client
        .query_opt(
            "SELECT NOT datallowconn AND datacl IS NULL AND pg_get_userbyid(datdba) = current_user FROM pg_database WHERE datname = $1",
            &[&database],
        )
        .await
        .map_err(|e| RegistryError::from_driver("looking for the registry's database", e))?;
    match found.map(|row| row.get::<_, bool>(0)) {
        Some(false) => return Ok(false),
        Some(true) => return open_database(&client, &name).await.map(|()| false),
        None => {}
    }
    // template0, because nobody can be connected to it and because its locale leaves the encoding free.
    // Closed, because everybody may connect to a new database and a later REVOKE ends no session.
    let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' ALLOW_CONNECTIONS false");
    match client.batch_execute(&create).await {
        Ok(()) => open_database(&client, &name).await.map(|()| true),
        // Somebody else was faster, before the server's own look (42P04) or after it (23505).
        Err(e)
            if [
                Some(&SqlState::DUPLICATE_DATABASE),
                Some(&SqlState::UNIQUE_VIOLATION),
            ]
            .contains(&e.code()) =>
        {
            Ok(false)
        }
        Err(e) => Err(RegistryError::from_driver("creating the registry's database", e)),
    }
}

fn refuse_servers_own(database: &str) -> Result<(), RegistryError> {
    if !SERVERS_OWN.contains(&database) {
        return Ok(());
    }
    Err(RegistryError::NotARegistry {
        database: database.to_owned(),
        why: "it is the server's own, in which its other users work or from which databases are made"
            .to_owned(),
    })
}

/// Lets the registry's own user in and not everybody, in one transaction.
async fn open_database(client: &Client, name: &DbName) -> Result<(), RegistryError> {
    let sql = format!(
        "REVOKE ALL ON DATABASE {name} FROM PUBLIC; ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"
    );
    client
        .batch_execute(&sql)
        .await
        .map_err(|e| RegistryError::from_driver("opening the registry's database to its user", e))
}

/// Keeps other callers out for as long as this connection lives, also when we are killed.
async fn lock(client: &Client) -> Result<(), RegistryError> {
    let sql =
        format!("SET lock_timeout = '{MIGRATION_LOCK_WAIT}'; SELECT pg_advisory_lock({MIGRATION_LOCK})");
    client
        .batch_execute(&sql)
        .await
        .map_err(|e| RegistryError::from_driver("waiting for another migration of it to end", e))
}

impl Registry {
    /// Refuses a database that cannot become the registry, and changes nothing: one of the server's own; one
    /// that is there and is neither a registry nor empty; an empty one that belongs to somebody else. One
    /// that is not there yet may become it.
    ///
    /// # Errors
    /// [`RegistryError::NotARegistry`]; [`RegistryError::Migrate`] for a history that no migration wrote.
    pub async fn require_usable(&self) -> Result<(), RegistryError> {
        refuse_servers_own(&self.target().database)?;
        let client = match connect(self.target()).await {
            Ok(client) => client,
            // It is not there, or its server does not answer, which whatever comes next says.
            Err(RegistryError::Unavailable { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let found = history_version(&client).await?;
        self.refuse_another_use(&client, found).await
    }

    /// Brings the schema to this binary's version. Any number of processes may call it at once.
    ///
    /// # Errors
    /// [`RegistryError::VersionMismatch`] when the database is newer than the code,
    /// [`RegistryError::ReadOnly`], and as [`Registry::require_usable`]; nothing is changed then.
    pub async fn migrate(&self) -> Result<SchemaVersion, RegistryError> {
        refuse_servers_own(&self.target().database)?;
        let mut client = connect(self.target()).await?;
        lock(&client).await?;
        let read_only = "SELECT current_setting('transaction_read_only')::boolean";
        let asked = client.query_one(read_only, &[]).await;
        let asked =
            asked.map_err(|e| RegistryError::from_driver("asking whether the registry takes writes", e))?;
        if asked.get(0) {
            return Err(RegistryError::ReadOnly {
                database: self.target().database.clone(),
            });
        }
        let found = history_version(&client).await?;
        self.refuse_another_use(&client, found).await?;
        if found > latest() {
            return Err(RegistryError::VersionMismatch {
                found,
                expected: latest(),
            });
        }
        let runner = embedded::migrations::runner();
        let report = runner
            .run_async(&mut client)
            .await
            .map_err(|e| migrate_error(&e))?;
        for migration in report.applied_migrations() {
            tracing::info!(migration = %migration, "registry migrated");
        }
        Ok(latest())
    }

    /// Refuses a template, and a database that another application uses: before the first migration it must
    /// be empty and belong to the role that migrates it, or to a role of which that one is a member; and a
    /// history that it has must be ours.
    async fn refuse_another_use(&self, client: &Client, found: SchemaVersion) -> Result<(), RegistryError> {
        let failed = |e| RegistryError::from_driver("looking at what the registry's database holds", e);
        let template =
            "SELECT datistemplate FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()";
        let why = if client.query_one(template, &[]).await.map_err(failed)?.get(0) {
            Some(
                "it is a template, which every role with CREATEDB may copy; ALTER DATABASE … IS_TEMPLATE \
                  false ends that"
                    .to_owned(),
            )
        } else if found == SchemaVersion::new(0) {
            let row = client.query_opt(HELD_BY_OTHERS, &[]).await.map_err(failed)?;
            match row {
                Some(row) => Some(format!(
                    "it is not empty, it holds {} for example",
                    row.get::<_, &str>(0)
                )),
                None => owned_by_another(client).await.map_err(failed)?,
            }
        } else {
            let ours = embedded::migrations::runner();
            let ours = ours
                .get_migrations()
                .iter()
                .find(|migration| migration.version() == 1);
            let row = client
                .query_opt(
                    "SELECT name::text FROM public.refinery_schema_history WHERE version = 1",
                    &[],
                )
                .await
                .map_err(failed)?;
            let first: Option<String> = row.map(|row| row.get(0));
            (first.as_deref() != ours.map(refinery::Migration::name))
                .then(|| "its migrations are another application's".to_owned())
        };
        match why {
            None => Ok(()),
            Some(why) => Err(RegistryError::NotARegistry {
                database: self.target().database.clone(),
                why,
            }),
        }
    }

    /// Checks that the schema is the one this binary was built for.
    ///
    /// # Errors
    /// [`RegistryError::VersionMismatch`] says which of the two is newer and what to do.
    pub async fn check_version(&self) -> Result<(), RegistryError> {
        let client = self.client().await?;
        let found = history_version(&client).await?;
        if found == latest() {
            return Ok(());
        }
        Err(RegistryError::VersionMismatch {
            found,
            expected: latest(),
        })
    }
}

/// What others have made in the connected database: a table, view, sequence, function, type, schema or large
/// object. Not counted are the schema `public`, temporary objects, those of extensions, which a site's template1
/// may hold, and the history table of a first migration that was interrupted. PostgreSQL's own objects have an
/// oid below 16384 (FirstNormalObjectId).
const HELD_BY_OTHERS: &str = "
    SELECT pg_catalog.format('%s %s', kind, name) FROM (
      SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'view' WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind,
             c.relname::text AS name, c.oid, 'pg_catalog.pg_class'::pg_catalog.regclass AS class,
             c.relnamespace AS namespace
        FROM pg_catalog.pg_class c
       WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND c.relname <> 'refinery_schema_history'
      UNION ALL SELECT 'function', p.proname::text, p.oid, 'pg_catalog.pg_proc', p.pronamespace
        FROM pg_catalog.pg_proc p
      UNION ALL SELECT 'type', t.typname::text, t.oid, 'pg_catalog.pg_type', t.typnamespace
        FROM pg_catalog.pg_type t WHERE t.typrelid = 0 AND t.typelem = 0
      UNION ALL SELECT 'schema', n.nspname::text, n.oid, 'pg_catalog.pg_namespace', n.oid
        FROM pg_catalog.pg_namespace n WHERE n.nspname <> 'public'
      UNION ALL SELECT 'large object', l.oid::text, l.oid, 'pg_catalog.pg_largeobject', NULL
        FROM pg_catalog.pg_largeobject_metadata l) AS held
     WHERE held.oid >= 16384
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.oid = held.namespace AND n.nspname ~ '^pg_')
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
            WHERE d.classid = held.class AND d.objid = held.oid AND d.deptype IN ('e', 'i'))
     ORDER BY kind = 'table' DESC, kind, name LIMIT 1";

/// Whose the connected database is, where it is somebody else's. A superuser counts as a member of those
/// roles alone that it was made a member of.
async fn owned_by_another(client: &Client) -> Result<Option<String>, tokio_postgres::Error> {
    let row = client
        .query_opt(
            "SELECT quote_ident(o.rolname), quote_ident(me.rolname), quote_ident(d.datname)
               FROM pg_catalog.pg_database d JOIN pg_catalog.pg_roles o ON o.oid = d.datdba
               JOIN pg_catalog.pg_roles me ON me.rolname = current_user
              WHERE d.datname = pg_catalog.current_database() AND o.oid <> me.oid
                AND (me.rolsuper OR NOT pg_catalog.pg_has_role(me.oid, o.oid, 'MEMBER'))
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.roleid = o.oid AND m.member = me.oid)",
            &[],
        )
        .await?;
    Ok(row.map(|row| {
        let (owner, user, name): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        format!(
            "it is empty and belongs to {owner}, who may need it; if it was made to be the registry, say so \
             with ALTER DATABASE {name} OWNER TO {user}"
        )
    }))
}

async fn connect(target: &ConnectTarget) -> Result<Client, RegistryError> {
    pg::connect_with(
        target,
        "tenantry registry migrations",
        CONNECT_LIMIT,
        "-c search_path=public",
    )
    .await
    .map_err(|e| RegistryError::Unavailable {
        reason: e.to_string(),
    })
}

/// The newest version in the history table; zero when there is none.
async fn history_version(client: &Client) -> Result<SchemaVersion, RegistryError> {
    let failed = |e| RegistryError::from_driver("reading the history of the registry's migrations", e);
    let exists = client
        .query_one(
            "SELECT to_regclass('public.refinery_schema_history') IS NOT NULL",
            &[],
        )
        .await
        .map_err(failed)?;
    if !exists.get::<_, bool>(0) {
        return Ok(SchemaVersion::new(0));
    }
    let row = client
        .query_one(
            "SELECT coalesce(max(version), 0)::int4,
                    count(*) FILTER (WHERE version < 0 OR name IS NULL
                        OR checksum !~ '^[0-9]{1,20}$' OR checksum IS NULL
                        OR applied_on IS NULL OR applied_on !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T')
             FROM public.refinery_schema_history",
            &[],
        )
        .await
        .map_err(failed)?;
    let malformed: i64 = row.get(1);
    if malformed > 0 {
        return Err(RegistryError::Migrate {
            reason: format!(
                "{malformed} rows of refinery_schema_history were not written by a migration; \
                 restore the table from a backup or remove what was added by hand"
            ),
        });
    }
    Ok(SchemaVersion::new(row.get::<_, i32>(0).unsigned_abs()))
}

fn migrate_error(error: &refinery::Error) -> RegistryError {
    let mut reason = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        match inner.downcast_ref::<tokio_postgres::Error>() {
            Some(db) => reason = format!("{reason} {}", pg::describe(db)),
            None => reason = format!("{reason} {inner}"),
        }
        cause = inner.source();
    }
    RegistryError::Migrate { reason }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Refinery skips a file that it cannot name, with no more than a log line.
    #[test]
    fn every_file_of_the_folder_is_embedded() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations-master");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let runner = embedded::migrations::runner();
        let known = runner
            .get_migrations()
            .iter()
            .map(|m| format!("{m}.sql"))
            .collect();
        assert_eq!(files, known);
        let versions: Vec<i32> = {
            let mut versions: Vec<i32> = runner
                .get_migrations()
                .iter()
                .map(refinery::Migration::version)
                .collect();
            versions.sort_unstable();
            versions
        };
        let expected: Vec<i32> = (1..).take(versions.len()).collect();
        assert_eq!(versions, expected, "versions count up from 1 without a gap");
    }
}
