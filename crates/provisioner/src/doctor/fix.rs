//! Fixing what is safe to fix. Each remedy looks again before it acts, and none drops what may hold a
//! laboratory's data.

use std::collections::HashMap;

use identity::SealContext;
use model::{DbName, RoleName, ServerName, TenantId};
use registry::NewAudit;
use serde_json::json;

use super::{
    finding::{Finding, Remedy},
    names::{Named, named},
};
use crate::{
    Inner, ProvisionError, RequestedBy,
    request::not_found,
    server::{
        AdminSession, await_empty, create_role, end_subscriptions, look, open_to_nobody_else, require_own,
        role_is_there, settle,
    },
};

/// Sessions on the servers that something is fixed on.
pub(super) struct Fixer<'a> {
    inner: &'a Inner,
    by: &'a RequestedBy,
    sessions: HashMap<ServerName, AdminSession>,
}

impl<'a> Fixer<'a> {
    pub(super) fn new(inner: &'a Inner, by: &'a RequestedBy) -> Self {
        Self {
            inner,
            by,
            sessions: HashMap::new(),
        }
    }

    /// Fixes a finding that has a remedy, and writes into it what came of that.
    pub(super) async fn fix(&mut self, finding: &mut Finding) {
        let Some(remedy) = finding.remedy.clone() else {
            return;
        };
        match self.apply(finding.server.as_ref(), remedy).await {
            Ok(()) => {
                finding.fixed = true;
                tracing::info!(kind = finding.kind.as_str(), subject = finding.subject, "fixed");
                self.write_down(finding).await;
            }
            Err(error) => finding.not_fixed = Some(error.to_string()),
        }
    }

    async fn apply(&mut self, server: Option<&ServerName>, remedy: Remedy) -> Result<(), ProvisionError> {
        let inner = self.inner;
        match remedy {
            Remedy::Align(tenant) => inner.align(tenant).await.map(|_ended| ()),
            Remedy::MakeRole(tenant) => make_role(inner, tenant).await,
            Remedy::Settle(tenant) => settle_rights(inner, tenant).await,
            Remedy::Run { database, statements } => {
                let session = self.session(server).await?;
                run_statements(inner, session, database.as_ref(), &statements).await
            }
            Remedy::RecordVersion(tenant, version) => {
                let client = inner.config.registry.client().await?;
                registry::tenant_set_db_version(&client, tenant, version).await?;
                Ok(())
            }
            Remedy::Wake(operation) => {
                let client = inner.config.registry.client().await?;
                // `false`: somebody has it again by now.
                registry::operation_wake(&client, operation).await?;
                Ok(())
            }
            Remedy::CloseToPublic(database) => close_to_public(self.session(server).await?, &database).await,
            Remedy::TakeConnect { role, database } => {
                let sql = format!("REVOKE ALL ON DATABASE {database} FROM {role}");
                self.session(server)
                    .await?
                    .run("taking a right to connect", &sql)
                    .await
            }
            Remedy::DropScratch(database) => {
                still_nobodys(inner, &database).await?;
                let session = self.session(server).await?;
                end_subscriptions(inner, session, &database).await?;
                drop_closed(session, &database).await
            }
            Remedy::DropEmptyClone(database) => {
                still_nobodys(inner, &database).await?;
                let session = self.session(server).await?;
                drop_empty_clone(inner, session, &database).await
            }
            Remedy::DropTemplate(database) => {
                let session = self.session(server).await?;
                let sql = format!("ALTER DATABASE {database} WITH IS_TEMPLATE false");
                session
                    .run("unsealing a template that nobody needs", &sql)
                    .await?;
                drop_closed(session, &database).await
            }
            Remedy::DropRole(role) => drop_role(self.session(server).await?, &role).await,
        }
    }

    async fn session(&mut self, server: Option<&ServerName>) -> Result<&AdminSession, ProvisionError> {
        let name = server.ok_or_else(|| ProvisionError::Invalid {
            field: "server",
            why: "what is to be fixed is on no server".to_owned(),
        })?;
        if !self.sessions.contains_key(name) {
            let client = self.inner.config.registry.client().await?;
            let server = registry::server_by_name(&client, name).await?;
            let server =
                server.ok_or_else(|| registry::RegistryError::UnknownServer { name: name.clone() })?;
            let session = self.inner.session(self.inner.admin_of(server)?).await?;
            self.sessions.insert(name.clone(), session);
        }
        Ok(&self.sessions[name])
    }

    async fn write_down(&self, finding: &Finding) {
        let written = async {
            let client = self.inner.config.registry.client().await?;
            let entry = NewAudit {
                actor: &self.by.actor,
                action: "doctor.mended",
                tenant: None,
                detail: json!({
                    "kind": finding.kind,
                    "server": finding.server,
                    "subject": finding.subject,
                    "slug": finding.slug,
                    "seen": finding.seen,
                }),
                request_id: self.by.request_id.as_deref(),
                client_ip: self.by.client_ip,
            };
            registry::audit_insert(&client, &entry).await
        };
        if let Err(error) = written.await {
            tracing::warn!(subject = finding.subject, %error, "the audit does not say what was fixed");
        }
    }
}

/// A role that is missing is made closed; aligning opens it where the laboratory serves.
async fn make_role(inner: &Inner, id: TenantId) -> Result<(), ProvisionError> {
    let client = inner.config.registry.client().await?;
    let tenant = registry::tenant_by_id(&client, id).await?;
    let tenant = tenant.ok_or_else(|| not_found(id))?;
    drop(client);
    let session = inner.session(inner.admin(&tenant).await?).await?;
    if !role_is_there(&session, &tenant).await? {
        let sealed = tenant
            .role_secret
            .as_ref()
            .ok_or_else(|| ProvisionError::Missing {
                what: "stored password of role",
                name: tenant.role_name.as_str().to_owned(),
                server: "the registry".to_owned(),
            })?;
        let password = inner.open(&SealContext::TenantRole(tenant.id), sealed)?;
        create_role(inner, &session, &tenant, &password, "NOLOGIN").await?;
        settle(inner, &session, &tenant, &tenant.db_name).await?;
    }
    inner.align(id).await.map(|_ended| ())
}

async fn settle_rights(inner: &Inner, id: TenantId) -> Result<(), ProvisionError> {
    let client = inner.config.registry.client().await?;
    let tenant = registry::tenant_by_id(&client, id).await?;
    let tenant = tenant.ok_or_else(|| not_found(id))?;
    drop(client);
    let session = inner.session(inner.admin(&tenant).await?).await?;
    require_own(&session, &tenant).await?;
    settle(inner, &session, &tenant, &tenant.db_name).await
}

/// Statements that a check named: all of them or none.
async fn run_statements(
    inner: &Inner,
    session: &AdminSession,
    database: Option<&DbName>,
    statements: &[String],
) -> Result<(), ProvisionError> {
    let (doing, sql) = ("taking back what was found", statements.join("; "));
    let Some(database) = database else {
        return session.run(doing, &sql).await;
    };
    let target = session.target.with_database(database.as_str());
    let client = inner.connect_inside(&target).await?;
    let done = client.batch_execute(&sql).await;
    done.map_err(ProvisionError::db(doing, &target))
}

async fn close_to_public(session: &AdminSession, database: &DbName) -> Result<(), ProvisionError> {
    let sql = format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC");
    session.run("closing a database to PUBLIC", &sql).await?;
    // A REVOKE by a role that does not own the database ends without an error and changes nothing.
    let row = session
        .client
        .query_opt(
            "SELECT pg_get_userbyid(d.datdba)::text
               FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
              WHERE d.datname = $1 AND a.grantee = 0 LIMIT 1",
            &[&database.as_str()],
        )
        .await
        .map_err(ProvisionError::db("reading a database's rights", &session.target))?;
    match row {
        None => Ok(()),
        Some(row) => Err(ProvisionError::Invalid {
            field: "database",
            why: format!(
                "the administrator of {} may not close it: its owner {} has to",
                session.target,
                row.get::<_, String>(0)
            ),
        }),
    }
}

/// Nobody has begun to work with it since it was found.
async fn still_nobodys(inner: &Inner, database: &DbName) -> Result<(), ProvisionError> {
    let client = inner.config.registry.client().await?;
    let in_use = || ProvisionError::Invalid {
        field: "database",
        why: format!("{} is in use by now", database.as_str()),
    };
    if registry::tenant_by_db_name(&client, database).await?.is_some() {
        return Err(in_use());
    }
    let live = match named(&inner.config.namespace, database.as_str()) {
        Some(Named::Scratch(operation)) => {
            let operation = registry::operation_by_id(&client, operation).await?;
            operation.is_some_and(|operation| !operation.status.is_final())
        }
        Some(Named::Making(tenant)) => {
            let live = registry::OperationFilter {
                tenant: Some(tenant),
                live: true,
                ..registry::OperationFilter::default()
            };
            !registry::operations_list(&client, &live, None, 1)
                .await?
                .is_empty()
        }
        _ => false,
    };
    if live { Err(in_use()) } else { Ok(()) }
}

/// Without FORCE: an operator should look at a session that is still there.
async fn drop_closed(session: &AdminSession, database: &DbName) -> Result<(), ProvisionError> {
    if look(session, database).await?.is_none() {
        return Ok(());
    }
    let sql = format!("ALTER DATABASE {database} WITH ALLOW_CONNECTIONS false");
    session.run("closing a database that nobody needs", &sql).await?;
    let sql = format!("DROP DATABASE IF EXISTS {database}");
    session.run("dropping a database that nobody needs", &sql).await
}

/// A clone of the template has tables and no laboratory. One that has a profile was somebody's, whatever its
/// name says.
async fn drop_empty_clone(
    inner: &Inner,
    session: &AdminSession,
    database: &DbName,
) -> Result<(), ProvisionError> {
    if look(session, database).await?.is_none() {
        return Ok(());
    }
    open_to_nobody_else(session, database).await?;
    let inhabited = is_inhabited(inner, session, database).await;
    let sql = format!("ALTER DATABASE {database} WITH ALLOW_CONNECTIONS false");
    session.run("closing a clone that nobody needs", &sql).await?;
    if inhabited? {
        return Err(ProvisionError::Invalid {
            field: "database",
            why: format!(
                "{} holds a laboratory and stays; look at it by hand",
                database.as_str()
            ),
        });
    }
    await_empty(session, database, inner.config.bounds.sessions_end_limit).await?;
    drop_closed(session, database).await?;
    // A spare's group role has lost what it was for.
    let namespace = &inner.config.namespace;
    if migrator::spares_lock(&session.client, namespace).await? {
        migrator::spare_groups_tidy(&session.client, namespace).await?;
    }
    Ok(())
}

async fn is_inhabited(
    inner: &Inner,
    session: &AdminSession,
    database: &DbName,
) -> Result<bool, ProvisionError> {
    let target = session.target.with_database(database.as_str());
    let client = inner.connect_inside(&target).await?;
    let asking = || ProvisionError::db("looking whether a clone holds a laboratory", &target);
    let row = client
        .query_one("SELECT to_regclass('public.lab_profile') IS NOT NULL", &[])
        .await
        .map_err(asking())?;
    if !row.get::<_, bool>(0) {
        // Not a clone of ours: it may hold anything.
        let row = client
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_class WHERE relkind IN ('r', 'p', 'm')
                            AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
                            AND relpersistence <> 't' AND NOT starts_with(relnamespace::regnamespace::text, 'pg_toast'))",
                &[],
            )
            .await
            .map_err(asking())?;
        return Ok(row.get(0));
    }
    let row = client
        .query_one("SELECT EXISTS (SELECT FROM public.lab_profile)", &[])
        .await
        .map_err(asking())?;
    Ok(row.get(0))
}

/// The server itself refuses to drop a role that owns something or has a right.
async fn drop_role(session: &AdminSession, role: &RoleName) -> Result<(), ProvisionError> {
    let sql = format!("DROP ROLE IF EXISTS {role}");
    session.run("dropping a role that nobody has", &sql).await
}
