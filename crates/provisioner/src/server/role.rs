//! The laboratory's own log-in role. It is marked in the transaction that creates it, so it is never there
//! unmarked.

use identity::SealContext;
use pg::{ConnectTarget, literal};
use registry::Tenant;
use secrecy::SecretString;
use serde_json::json;
use tokio_postgres::{error::SqlState, types::Type};

use crate::{
    Inner, ProvisionError,
    engine::{Context, StepResult},
    error::StepError,
    server::{AdminSession, drop_group, limits, log_in, ownership_comment},
};

impl Context<'_> {
    /// The role's password, generated and stored first where there is none yet: a password that only the
    /// server knew would be lost by a crash.
    async fn role_password(&self, tenant: &Tenant) -> Result<SecretString, ProvisionError> {
        let context = SealContext::TenantRole(tenant.id);
        if let Some(sealed) = &tenant.role_secret {
            return self.inner.open(&context, sealed);
        }
        let password = identity::generate_password();
        let sealed = self.inner.config.sealer.seal(&context, &password);
        let client = self.inner.config.registry.client().await?;
        registry::tenant_set_role_secret(&client, tenant.id, &sealed).await?;
        Ok(password)
    }

    /// The laboratory's database as its own role reaches it.
    pub(crate) async fn own_target(&self, tenant: &Tenant) -> Result<ConnectTarget, StepError> {
        let sealed = tenant
            .role_secret
            .as_ref()
            .ok_or_else(|| ProvisionError::Missing {
                what: "stored password of role",
                name: tenant.role_name.as_str().to_owned(),
                server: "the registry".to_owned(),
            })?;
        let password = self.inner.open(&SealContext::TenantRole(tenant.id), sealed)?;
        let session = self.maintenance(tenant).await?;
        let target = session.target.with_user(tenant.role_name.as_str(), password);
        Ok(target.with_database(tenant.db_name.as_str()))
    }
}

/// Puts the stored password back where the role has another one, as after an `ALTER ROLE … PASSWORD` of its
/// own.
pub(crate) async fn fix_password(
    cx: &Context<'_>,
    session: &AdminSession,
    tenant: &Tenant,
) -> Result<bool, StepError> {
    let target = cx.own_target(tenant).await?;
    match cx.inner.connect(&target).await {
        Err(ProvisionError::Connect(error)) if error.code() == Some(&SqlState::INVALID_PASSWORD) => {
            let sql = log_in(cx.inner, tenant)?;
            session
                .run("putting the role's stored password back", &sql)
                .await?;
            Ok(true)
        }
        // Whatever else keeps it out is not the password, and the doctor names it.
        _ => Ok(false),
    }
}

/// Whether the laboratory's role is there. One of its name that is not marked as this laboratory's is an
/// error.
pub(crate) async fn role_is_there(session: &AdminSession, tenant: &Tenant) -> Result<bool, ProvisionError> {
    let row = session
        .client
        .query_typed_opt(
            "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1",
            &[(&tenant.role_name.as_str(), Type::NAME)],
        )
        .await
        .map_err(ProvisionError::db("looking for the role", &session.target))?;
    match row {
        None => Ok(false),
        Some(row) if row.get::<_, Option<String>>(0).as_deref() == Some(&ownership_comment(tenant)) => {
            Ok(true)
        }
        Some(_) => Err(ProvisionError::NotOurs {
            what: "role",
            name: tenant.role_name.as_str().to_owned(),
            server: session.target.to_string(),
        }),
    }
}

/// Creates the role, or fixes it where it is there. The server gets a SCRAM verifier and never the password,
/// which would stand in its log.
pub(crate) async fn create_or_fix(
    cx: &Context<'_>,
    session: &AdminSession,
    tenant: &Tenant,
    there: bool,
) -> Result<bool, StepError> {
    let password = cx.role_password(tenant).await?;
    let role = &tenant.role_name;
    if there {
        let verifier = literal(&identity::scram_verifier(&password));
        let limits = limits(cx.inner, role);
        let sql = format!("ALTER ROLE {role} LOGIN INHERIT PASSWORD {verifier}; {limits}");
        session.run("fixing the role", &sql).await?;
    } else {
        create(cx.inner, session, tenant, &password, "LOGIN").await?;
    }
    Ok(!there)
}

/// Creates the role and marks it, in one transaction. `log_in` is `LOGIN` or `NOLOGIN`. It has no rights yet:
/// those come with the database.
pub(crate) async fn create(
    inner: &Inner,
    session: &AdminSession,
    tenant: &Tenant,
    password: &SecretString,
    log_in: &'static str,
) -> Result<(), ProvisionError> {
    let role = &tenant.role_name;
    let verifier = literal(&identity::scram_verifier(password));
    let sql = format!(
        "CREATE ROLE {role} {log_in} INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD {verifier};
         COMMENT ON ROLE {role} IS {}; {}",
        literal(&ownership_comment(tenant)),
        limits(inner, role)
    );
    session.run("making the role", &sql).await
}

/// Drops the role, where it is there and this laboratory's.
pub(crate) async fn drop_role(cx: &Context<'_>) -> StepResult {
    let Some(tenant) = cx.tenant_opt().await? else {
        return Ok(json!({ "role": "gone with the laboratory" }));
    };
    let session = cx.maintenance(&tenant).await?;
    drop_role_of(cx, &session, &tenant).await
}

/// The same on a session that is there.
pub(crate) async fn drop_role_of(cx: &Context<'_>, session: &AdminSession, tenant: &Tenant) -> StepResult {
    let there = role_is_there(session, tenant).await;
    let group = drop_group(cx.inner, session, tenant).await?;
    match there {
        Ok(true) => {}
        Ok(false) => return Ok(json!({ "role": "was not there" })),
        Err(ProvisionError::NotOurs { .. }) => {
            return Ok(json!({ "role": "left alone: it is not this laboratory's" }));
        }
        Err(error) => return Err(error.into()),
    }
    let role = &tenant.role_name;
    let drop = format!("DROP ROLE {role}");
    match session.client.batch_execute(&drop).await {
        Ok(()) => {}
        // Somebody granted it something elsewhere by hand. It owns nothing that matters: its database is
        // gone.
        Err(error) if error.code() == Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => {
            let sql = format!("DROP OWNED BY {role}; {drop}");
            session.run("dropping the role", &sql).await?;
        }
        Err(error) => return Err(ProvisionError::db("dropping the role", &session.target)(error).into()),
    }
    Ok(json!({ "role": "dropped", "group_dropped": group }))
}
