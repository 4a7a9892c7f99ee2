//! What a laboratory's role may do, and how much of its server it may take.
//!
//! Two walls stand between laboratories. Only the laboratory's role may connect to its database; and only the
//! laboratory's group, whose one member that role is, has rights in it. So a role that is let in elsewhere by
//! mistake can do nothing there.

use identity::SealContext;
use model::{DbName, RoleName};
use pg::literal;
use registry::Tenant;
use tokio_postgres::types::Type;

use crate::{
    Inner, ProvisionError,
    server::{AdminSession, ownership_comment},
};

/// What the server's catalogue says of a laboratory's rights in one database.
pub(crate) struct Rights {
    /// The group role is there and marked as this laboratory's.
    group: bool,
    /// The laboratory's role is a member of it.
    member: bool,
    /// The group has rights in the database. They are given in one transaction, so all or none of them.
    given: bool,
    /// The role is still a member of the group that earlier versions shared.
    shared: bool,
}

impl Rights {
    pub(crate) fn are_settled(&self) -> bool {
        self.group && self.member && self.given && !self.shared
    }
}

/// Asks, on a session in any database of the server.
pub(crate) async fn rights(
    inner: &Inner,
    session: &AdminSession,
    tenant: &Tenant,
    database: &DbName,
) -> Result<Rights, ProvisionError> {
    let namespace = &inner.config.namespace;
    let (group, shared) = (namespace.tenant_group(tenant.id), namespace.shared_group());
    let row = session
        .client
        .query_typed_one(
            "SELECT EXISTS (SELECT FROM pg_roles g WHERE g.rolname = $1 AND shobj_description(g.oid, 'pg_authid') = $5),
                    EXISTS (SELECT FROM pg_auth_members m
                             WHERE m.roleid = to_regrole(quote_ident($1)) AND m.member = to_regrole(quote_ident($2))),
                    EXISTS (SELECT FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
                             WHERE d.datname = $4 AND s.refclassid = 'pg_authid'::regclass AND s.deptype = 'a'
                               AND s.refobjid = to_regrole(quote_ident($1))),
                    EXISTS (SELECT FROM pg_auth_members m
                             WHERE m.roleid = to_regrole(quote_ident($3)) AND m.member = to_regrole(quote_ident($2)))",
            &[
                (&group.as_str(), Type::TEXT),
                (&tenant.role_name.as_str(), Type::TEXT),
                (&shared.as_str(), Type::TEXT),
                (&database.as_str(), Type::TEXT),
                (&ownership_comment(tenant), Type::TEXT),
            ],
        )
        .await
        .map_err(ProvisionError::db("reading the role's rights", &session.target))?;
    Ok(Rights {
        group: row.get(0),
        member: row.get(1),
        given: row.get(2),
        shared: row.get(3),
    })
}

/// Gives the laboratory's group its rights in the database and takes every other role of the installation's
/// from it. The laboratory works on meanwhile: what it had through an earlier version's group goes last.
pub(crate) async fn settle(
    inner: &Inner,
    session: &AdminSession,
    tenant: &Tenant,
    database: &DbName,
) -> Result<(), ProvisionError> {
    let namespace = &inner.config.namespace;
    let (group, role) = (namespace.tenant_group(tenant.id), &tenant.role_name);
    migrator::group_ensure(&session.client, &group).await?;
    let comment = literal(&ownership_comment(tenant));
    let sql = format!("COMMENT ON ROLE {group} IS {comment}; GRANT {group} TO {role}");
    session.run("making the laboratory's group role", &sql).await?;
    let target = session.target.with_database(database.as_str());
    migrator::rights_settle(&target, namespace, &group, role).await?;
    if rights(inner, session, tenant, database).await?.shared {
        let sql = format!("REVOKE {} FROM {role}", namespace.shared_group());
        session.run("taking the shared group from the role", &sql).await?;
    }
    Ok(())
}

/// Statements that bound what a role may take of its server. A role can change its own password and its own
/// settings, but not these.
pub(crate) fn limits(inner: &Inner, role: &RoleName) -> String {
    let policy = &inner.config.roles;
    format!(
        "ALTER ROLE {role} CONNECTION LIMIT {}; ALTER ROLE {role} SET temp_file_limit = '{}MB'",
        policy.connections_max, policy.temp_file_max_mb
    )
}

/// What a laboratory's role is, whatever somebody made of it by hand.
const ATTRIBUTES: &str =
    "INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS VALID UNTIL 'infinity'";

/// Statements with which the role can log in, with the password that the registry has for it and within its
/// limits. The server gets a SCRAM verifier and never the password.
pub(crate) fn log_in(inner: &Inner, tenant: &Tenant) -> Result<String, ProvisionError> {
    let role = &tenant.role_name;
    let password = match &tenant.role_secret {
        Some(sealed) => {
            let password = inner.open(&SealContext::TenantRole(tenant.id), sealed)?;
            format!(" PASSWORD {}", literal(&identity::scram_verifier(&password)))
        }
        None => String::new(),
    };
    Ok(format!(
        "ALTER ROLE {role} LOGIN {ATTRIBUTES}{password}; {}",
        limits(inner, role)
    ))
}

/// Drops the laboratory's group role, where it is there and marked as this laboratory's. One that still has
/// rights somewhere stays: without members it is no more than a name.
pub(crate) async fn drop_group(
    inner: &Inner,
    session: &AdminSession,
    tenant: &Tenant,
) -> Result<bool, ProvisionError> {
    let group = inner.config.namespace.tenant_group(tenant.id);
    let row = session
        .client
        .query_typed_opt(
            "SELECT EXISTS (SELECT FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid)
               FROM pg_roles r WHERE r.rolname = $1 AND shobj_description(r.oid, 'pg_authid') = $2",
            &[(&group.as_str(), Type::NAME), (&ownership_comment(tenant), Type::TEXT)],
        )
        .await
        .map_err(ProvisionError::db("looking for the group role", &session.target))?;
    match row {
        Some(row) if !row.get::<_, bool>(0) => {
            session
                .run(
                    "dropping the laboratory's group role",
                    &format!("DROP ROLE IF EXISTS {group}"),
                )
                .await?;
            Ok(true)
        }
        Some(_) => {
            tracing::warn!(
                role = group.as_str(),
                "a group role that still has rights somewhere stays"
            );
            Ok(false)
        }
        None => Ok(false),
    }
}
