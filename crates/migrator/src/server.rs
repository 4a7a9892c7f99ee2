//! What a server must be before laboratories can live on it: asked in one question, and before anything is
//! changed.
//!
//! `tenantctl up`, a request to provision and the doctor ask the same question, so that they cannot disagree.

use std::fmt;

use model::Namespace;
use pg::ConnectTarget;
use tokio_postgres::{GenericClient, types::Type};

use crate::{
    MigrateError,
    lock::{MAINTENANCE_DATABASE, session},
};

/// What the ownership comment of a laboratory's database or role begins with; the laboratory's id stands
/// behind it.
pub const OWNERSHIP_COMMENT: &str = "tenantry laboratory ";

/// The databases that every server has.
pub const SHARED_DATABASES: [&str; 2] = [MAINTENANCE_DATABASE, "template1"];

/// A server as its administrator finds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerState {
    /// What the administrator's role lacks; nothing, when it is a superuser.
    pub lacks: Vec<String>,
    /// Whether every role may connect to the registry's own database, where that is on this server.
    pub registry_open: bool,
    /// Databases that are no laboratory's and that every role may connect to, the shared ones among them.
    pub open: Vec<OpenDatabase>,
    /// Databases and roles in the namespace that are marked as a laboratory's.
    pub marked: Vec<Marked>,
    /// Roles of others that can grant themselves any role that is no superuser, a laboratory's too: those
    /// with CREATEROLE, up to PostgreSQL 15. From 16 on such a role needs the ADMIN OPTION on what it grants.
    pub role_creators: Vec<String>,
}

/// A database that PUBLIC may connect to, as PostgreSQL makes them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenDatabase {
    /// Its name.
    pub database: String,
    /// Whose it is.
    pub owner: String,
    /// What every role may do with it, as `CONNECT, TEMPORARY`.
    pub rights: String,
}

/// A database or role that is marked as a laboratory's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// Its name.
    pub name: String,
    /// The laboratory's id, as the ownership comment says it.
    pub laboratory: String,
}

impl fmt::Display for OpenDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.database, self.rights)
    }
}

impl OpenDatabase {
    /// Whether every server has it.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        SHARED_DATABASES.contains(&self.database.as_str())
    }
}

/// Looks at the server that `client` is connected to, in its maintenance database.
///
/// # Errors
/// [`MigrateError::Db`] when the server cannot be asked.
pub async fn server_state(
    client: &impl GenericClient,
    namespace: &Namespace,
    registry_database: &str,
) -> Result<ServerState, MigrateError> {
    let failed = || MigrateError::db("looking whether the server is fit for laboratories", "the server");
    let asked_role = async {
        client
            .query_typed_one(
                "SELECT rolname::text, rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user",
                &[],
            )
            .await
    };
    // Databases with a name of ours are the doctor's to judge, but not one that nobody marked: it is
    // somebody's who likes the prefix.
    let asked_open = async {
        client
            .query_typed(
                "SELECT d.datname::text, pg_get_userbyid(d.datdba)::text, string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type)
                   FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                  WHERE d.datallowconn AND a.grantee = 0
                  GROUP BY d.oid, d.datname, d.datdba HAVING bool_or(a.privilege_type = 'CONNECT')
                  ORDER BY d.datname",
                &[],
            )
            .await
    };
    let asked_marked = async {
        client
            .query_typed(
                "SELECT name, substr(comment, length($2) + 1) FROM (
                     SELECT datname::text AS name, shobj_description(oid, 'pg_database') AS comment FROM pg_database
                     UNION ALL SELECT rolname::text, shobj_description(oid, 'pg_authid') FROM pg_roles) AS things
                  WHERE starts_with(name, $1) AND starts_with(comment, $2) ORDER BY name",
                &[
                    (&format!("{}_", namespace.as_str()), Type::TEXT),
                    (&OWNERSHIP_COMMENT, Type::TEXT),
                ],
            )
            .await
    };
    let asked_creators = async {
        client
            .query_typed(
                "SELECT rolname::text FROM pg_roles
                  WHERE rolcreaterole AND NOT rolsuper AND rolname <> current_user AND current_setting('server_version_num')::int < 160000
                    AND NOT coalesce(starts_with(shobj_description(oid, 'pg_authid'), $1), false) ORDER BY 1",
                &[(&OWNERSHIP_COMMENT, Type::TEXT)],
            )
            .await
    };
    let (role, open, marked, creators) =
        tokio::try_join!(asked_role, asked_open, asked_marked, asked_creators).map_err(failed())?;
    let open = open.iter().map(|row| OpenDatabase {
        database: row.get(0),
        owner: row.get(1),
        rights: row.get(2),
    });
    let (registry, open): (Vec<_>, Vec<_>) = open.partition(|open| open.database == registry_database);
    Ok(ServerState {
        lacks: lacks(role.get(1), role.get(2), role.get(3)),
        registry_open: !registry.is_empty(),
        open,
        marked: marked
            .iter()
            .map(|row| Marked {
                name: row.get(0),
                laboratory: row.get(1),
            })
            .collect(),
        role_creators: creators.iter().map(|row| row.get(0)).collect(),
    })
}

/// Managed offerings give attributes of their own instead of SUPERUSER. They do not suffice yet: dumps read
/// every row whatever its policies, grants are made on other owners' objects, and functions of the server's
/// own are closed.
fn lacks(superuser: bool, create_database: bool, create_role: bool) -> Vec<String> {
    if superuser {
        return Vec::new();
    }
    let others = [(create_database, "CREATEDB"), (create_role, "CREATEROLE")];
    let others = others.into_iter().filter(|(has, _)| !has).map(|(_, word)| word);
    std::iter::once("SUPERUSER")
        .chain(others)
        .map(str::to_owned)
        .collect()
}

/// The login roles that get into a database through PUBLIC alone: whom closing it shuts out. Not superusers,
/// and not the installation's own.
pub(crate) async fn roles_through_public(
    client: &impl GenericClient,
    namespace: &Namespace,
    database: &str,
) -> Result<Vec<String>, MigrateError> {
    let rows = client
        .query(
            "SELECT r.rolname::text FROM pg_roles r, pg_database d
              WHERE d.datname = $1 AND r.rolcanlogin AND NOT r.rolsuper AND NOT starts_with(r.rolname::text, $2)
                AND NOT coalesce(starts_with(shobj_description(r.oid, 'pg_authid'), $3), false)
                AND NOT EXISTS (SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                     WHERE a.grantee <> 0 AND a.privilege_type = 'CONNECT' AND pg_has_role(r.oid, a.grantee, 'USAGE'))
              ORDER BY 1",
            &[&database, &format!("{}_tenant_", namespace.as_str()), &OWNERSHIP_COMMENT],
        )
        .await
        .map_err(MigrateError::db(
            "looking who gets into a database through PUBLIC",
            "the server",
        ))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A database that every role may connect to, every laboratory's among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaysOpen {
    /// The database.
    pub open: OpenDatabase,
    /// The login roles that get in through PUBLIC alone, and would not any more if it were closed; known for
    /// the shared databases and the registry's.
    pub through_public: Vec<String>,
}

/// Looks at a server as its administrator: [`server_state`], on a session of its own.
///
/// # Errors
/// [`MigrateError::Connect`], [`MigrateError::Db`].
pub async fn server_look(
    admin: &ConnectTarget,
    namespace: &Namespace,
    registry_database: &str,
) -> Result<ServerState, MigrateError> {
    let client = session(&admin.with_database(MAINTENANCE_DATABASE)).await?;
    server_state(&client, namespace, registry_database).await
}

/// The databases that are no laboratory's and that every role may connect to, with those whom closing them
/// would shut out.
///
/// # Errors
/// As [`server_look`].
pub async fn stays_open(
    admin: &ConnectTarget,
    namespace: &Namespace,
    registry_database: &str,
) -> Result<Vec<StaysOpen>, MigrateError> {
    let client = session(&admin.with_database(MAINTENANCE_DATABASE)).await?;
    let state = server_state(&client, namespace, registry_database).await?;
    let mut found = Vec::new();
    for open in state.open {
        let through_public = if open.is_shared() {
            roles_through_public(&client, namespace, &open.database).await?
        } else {
            Vec::new()
        };
        found.push(StaysOpen { open, through_public });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superuser_lacks_nothing_and_anybody_else_at_least_that() {
        assert!(lacks(true, false, false).is_empty());
        assert_eq!(lacks(false, true, true), ["SUPERUSER"]);
        assert_eq!(lacks(false, false, true), ["SUPERUSER", "CREATEDB"]);
    }
}
