//! Making a laboratory, and taking away what was made of it.

use model::{DbName, TenantEvent, TenantState};
use pg::literal;
use registry::Tenant;
use serde_json::json;
use tokio_postgres::{error::SqlState, types::Type};

use crate::{
    ProvisionError, Seed,
    engine::{Context, StepResult},
    error::StepError,
    operations::{Definition, definition::steps, migrate::bring_to_latest},
    request::{begin, commit},
    server::{
        AdminSession, close_and_drop, create_or_fix, drop_role, look, look_for_own, ownership_comment,
        reachable, require_own, rights, role_is_there, settle,
    },
};

/// The steps, and what takes back what they made.
pub(crate) const DEFINITION: Definition = Definition {
    steps: steps! {
        EnsureRole => ensure_role,
        EnsureDatabase => ensure_database,
        SecureDatabase => secure_database,
        EnsureSchema => ensure_schema,
        Seed => seed,
        Check => check,
        Activate => activate,
    },
    undo: steps! {
        DropDatabase => undo_database,
        DropRole => drop_role,
        RemoveTenant => undo_tenant,
    },
};

pub(crate) async fn ensure_role(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let session = cx.maintenance(&tenant).await?;
    make_role(cx, &session, &tenant).await
}

/// Makes the role, once it is certain that the template is there.
pub(crate) async fn make_role(cx: &Context<'_>, session: &AdminSession, tenant: &Tenant) -> StepResult {
    // The group role comes with the database, and the laboratory's role is made a member of it then.
    let looking = async { Ok(role_is_there(session, tenant).await?) };
    let (template, there) =
        tokio::try_join!(async { Ok::<_, StepError>(cx.template(session).await?) }, looking)?;
    let made = create_or_fix(cx, session, tenant, there).await?;
    Ok(json!({ "role": tenant.role_name, "made": made, "template": template }))
}

/// Clones the template under a name that holds the laboratory's id, marks the clone as this laboratory's, and
/// only then gives it the real name. So a database under the real name is whole and known to be ours, or it
/// is somebody else's.
pub(crate) async fn ensure_database(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let session = cx.maintenance(&tenant).await?;
    let namespace = &cx.inner.config.namespace;
    let making = namespace.database_in_the_making(tenant.id);
    let spares = async { Ok(migrator::spares_list(&*session.client, namespace).await?.ready) };
    let (own, begun, spares) =
        tokio::try_join!(look_for_own(&session, &tenant), look(&session, &making), spares)?;
    if own.is_some() {
        return Ok(json!({ "database": tenant.db_name, "made": false }));
    }
    if begun.is_none()
        && let Some(spare) = claim_spare(cx, &session, &tenant, spares).await?
    {
        return Ok(json!({ "database": tenant.db_name, "made": true, "spare": spare }));
    }
    let mut cloned_from = None;
    if begun.is_none() {
        let template = cx.template(&session).await?;
        migrator::clone_template(&session.client, &template, &making).await?;
        cloned_from = Some(template);
    }
    let comment = literal(&ownership_comment(&tenant));
    session
        .run(
            "marking the database",
            &format!("COMMENT ON DATABASE {making} IS {comment}"),
        )
        .await?;
    let name = &tenant.db_name;
    session
        .run(
            "naming the database",
            &format!("ALTER DATABASE {making} RENAME TO {name}"),
        )
        .await?;
    Ok(json!({ "database": name, "made": true, "template": cloned_from }))
}

/// Takes a database that was cloned ahead of time, and the group role that has its rights already. Names and
/// ownership comments change in one transaction, so that of two that want the same one the second finds it
/// gone, and it is never there half claimed.
async fn claim_spare(
    cx: &Context<'_>,
    session: &AdminSession,
    tenant: &Tenant,
    spares: Vec<DbName>,
) -> Result<Option<DbName>, ProvisionError> {
    let (name, role, comment) = (
        &tenant.db_name,
        &tenant.role_name,
        literal(&ownership_comment(tenant)),
    );
    let group = cx.inner.config.namespace.tenant_group(tenant.id);
    for spare in spares {
        // A spare's group has the spare's name.
        let sql = format!(
            "ALTER DATABASE {spare} RENAME TO {name}; COMMENT ON DATABASE {name} IS {comment};
             ALTER ROLE {spare} RENAME TO {group}; COMMENT ON ROLE {group} IS {comment}; GRANT {group} TO {role}"
        );
        match session.client.batch_execute(&sql).await {
            Ok(()) => {
                cx.inner.spare_taken.notify_one();
                return Ok(Some(spare));
            }
            // Somebody else was faster, or is in there though nobody should be.
            Err(error)
                if error.code().is_some_and(|code| {
                    [
                        &SqlState::INVALID_CATALOG_NAME,
                        &SqlState::OBJECT_IN_USE,
                        // The group: taken away by hand, or there from an earlier try.
                        &SqlState::UNDEFINED_OBJECT,
                        &SqlState::DUPLICATE_OBJECT,
                    ]
                    .contains(&code)
                }) => {}
            Err(error) => return Err(ProvisionError::db("claiming a spare", &session.target)(error)),
        }
    }
    Ok(None)
}

/// A clone has the rights of any new database: everybody may connect. It was closed until now.
pub(crate) async fn secure_database(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let session = cx.maintenance(&tenant).await?;
    let (database, role) = (&tenant.db_name, &tenant.role_name);
    // Asked together: they take one round trip.
    let (_, rights) = tokio::try_join!(
        require_own(&session, &tenant),
        rights(cx.inner, &session, &tenant, database)
    )?;
    // One transaction: at no moment is it open to others than its own role.
    let sql = format!(
        "REVOKE ALL ON DATABASE {database} FROM PUBLIC;
         GRANT CONNECT ON DATABASE {database} TO {role};
         ALTER DATABASE {database} WITH ALLOW_CONNECTIONS true"
    );
    session.run("securing the database", &sql).await?;
    // A spare comes with its rights.
    if !rights.are_settled() {
        settle(cx.inner, &session, &tenant, database).await?;
    }
    Ok(json!({ "database": database, "open_to": role, "rights_came_with_it": rights.are_settled() }))
}

/// A fresh clone is at the latest version already and costs one look. It is looked at through the
/// laboratory's own role, whose connection the next steps need anyway.
pub(crate) async fn ensure_schema(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let before = migrator::history_version(&*cx.own(&tenant).await?).await?;
    let after = bring_to_latest(cx, &tenant, before).await?;
    Ok(json!({ "from": before, "to": after }))
}

/// Written by the laboratory's own role, on the connection that checks it afterwards.
pub(crate) async fn seed(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let seed = seed_of(cx, &tenant).await?;
    let mut client = cx.own(&tenant).await?;
    let failed = || ProvisionError::db("writing the first rows", tenant.db_name.as_str());
    let txn = client.transaction().await.map_err(failed())?;
    (cx.inner.config.seed)(&txn, &seed).await.map_err(|error| {
        let mut why = error.to_string();
        let mut passing = false;
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
        while let Some(inner) = cause {
            if let Some(db) = inner.downcast_ref::<tokio_postgres::Error>() {
                passing = crate::error::is_passing(db);
                why = pg::describe(db);
            }
            cause = inner.source();
        }
        StepError::from(ProvisionError::Seed { why, passing })
    })?;
    txn.commit().await.map_err(failed())?;
    Ok(json!({ "admin": seed.admin_id }))
}

async fn seed_of(cx: &Context<'_>, tenant: &Tenant) -> Result<Seed, ProvisionError> {
    let client = cx.inner.config.registry.client().await?;
    let admin = registry::admins_of(&client, tenant.id).await?.into_iter().next();
    let admin = admin.ok_or_else(|| ProvisionError::Missing {
        what: "administrator of",
        name: tenant.slug.to_string(),
        server: "the registry".to_owned(),
    })?;
    Ok(Seed {
        tenant: tenant.id,
        name: tenant.name.clone(),
        time_zone: tenant.time_zone.clone(),
        admin_id: admin.id,
        admin_email: admin.email,
        admin_name: admin.display_name,
    })
}

/// The last look: through the laboratory's own role and its stored password, as its requests will come.
pub(crate) async fn check(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let client = cx.own(&tenant).await?;
    let failed = |why: String| Err(StepError::fatal(ProvisionError::Check { why }));
    let asking = || ProvisionError::db("checking the laboratory", tenant.db_name.as_str());

    let seed = seed_of(cx, &tenant).await?;
    let admin = seed.admin_id.as_uuid();
    let first_rows = async {
        let sql = "SELECT (SELECT tenant_id FROM public.lab_profile), (SELECT role FROM public.staff WHERE id = $1)";
        client.query_typed_one(sql, &[(&admin, Type::UUID)]).await
    };
    // Asked all at once: together they take one round trip.
    let (row, may, has, open) = tokio::try_join!(
        first_rows,
        what_it_may(&client),
        too_much(&client),
        reachable(&client)
    )
    .map_err(asking())?;
    if row.get::<_, Option<uuid::Uuid>>(0) != Some(tenant.id.as_uuid()) {
        return failed("the profile names another laboratory, or none".to_owned());
    }
    if row.get::<_, Option<String>>(1).is_none() {
        return failed("the first administrator is not among the staff".to_owned());
    }
    if let Some(what) = may {
        return failed(format!("the laboratory's role may {what}"));
    }
    if let Some(why) = has {
        return failed(why);
    }
    let reaches = cx.inner.admit(open)?;
    if !reaches.is_empty() {
        tracing::warn!(
            tenant.slug = %tenant.slug,
            databases = reaches.join(", "),
            "the laboratory's role can connect to databases of others, which are open to every role"
        );
    }
    Ok(json!({ "role": tenant.role_name, "checked": true, "reaches": reaches }))
}

/// Tries what no laboratory's role may do, each for itself and taken back at once, in one round trip; gives
/// the first that was not refused for want of a privilege.
async fn what_it_may(client: &tokio_postgres::Client) -> Result<Option<&'static str>, tokio_postgres::Error> {
    const FORBIDDEN: [(&str, &str); 8] = [
        ("create tables", "CREATE TABLE public.tenantry_check ()"),
        (
            "create temporary tables",
            "CREATE TEMPORARY TABLE tenantry_check ()",
        ),
        ("create schemas", "CREATE SCHEMA tenantry_check"),
        ("change tables", "ALTER TABLE public.staff ADD tenantry_check int"),
        ("truncate", "TRUNCATE public.staff"),
        ("delete people", "DELETE FROM public.staff"),
        ("delete the audit", "DELETE FROM public.audit_event"),
        (
            "change the history",
            "UPDATE public.refinery_schema_history SET name = name",
        ),
    ];
    // A block with a handler is a savepoint; raising at its end takes back what was not refused.
    let tries: String = FORBIDDEN
        .iter()
        .enumerate()
        .map(|(at, (_, sql))| {
            format!(
                "BEGIN {sql}; RAISE EXCEPTION 'may' USING ERRCODE = 'TNTRY', DETAIL = '{at}';
                 EXCEPTION WHEN insufficient_privilege THEN NULL; END;"
            )
        })
        .collect();
    match client
        .batch_execute(&format!("DO $check$ BEGIN {tries} END $check$"))
        .await
    {
        Ok(()) => Ok(None),
        Err(error) => {
            let raised = error.as_db_error().filter(|db| db.code().code() == "TNTRY");
            let at = raised.and_then(|db| db.detail()?.parse::<usize>().ok());
            match at.and_then(|at| FORBIDDEN.get(at)) {
                Some((what, _)) => Ok(Some(what)),
                None => Err(error),
            }
        }
    }
}

/// What the role could do that no laboratory's role should.
async fn too_much(client: &tokio_postgres::Client) -> Result<Option<String>, tokio_postgres::Error> {
    let row = client
        .query_typed_one(
            "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls,
                    (SELECT count(*) FROM pg_shdepend d
                      WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid AND d.deptype = 'o'),
                    (SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c
                      WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
                        AND has_table_privilege(c.oid, 'TRUNCATE, REFERENCES, TRIGGER'))
               FROM pg_roles r WHERE rolname = current_user",
            &[],
        )
        .await?;
    if row.get(0) {
        return Ok(Some("its role has an attribute of an administrator".to_owned()));
    }
    if row.get::<_, i64>(1) > 0 {
        return Ok(Some("its role owns something".to_owned()));
    }
    if let Some(tables) = row.get::<_, Option<String>>(2) {
        return Ok(Some(format!("its role may truncate or alter {tables}")));
    }
    Ok(None)
}

/// The last step and the only one that writes `active`. Version and state change in one transaction, and only
/// while the lease is held.
pub(crate) async fn activate(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    if tenant.status == TenantState::Active {
        return Ok(json!({ "version": tenant.db_version, "was": "active already" }));
    }
    let version = migrator::history_version(&*cx.own(&tenant).await?).await?;
    let mut client = cx.inner.config.registry.client().await?;
    let txn = begin(&mut client).await?;
    // Fails without the lease, as every write of an operation does.
    cx.make_irreversible(&txn).await?;
    registry::tenant_set_db_version(&txn, tenant.id, version).await?;
    registry::tenant_transition_in_txn(&txn, tenant.id, TenantEvent::Provisioned, &cx.change()).await?;
    commit(txn).await?;
    Ok(json!({ "version": version }))
}

/// Refuses to take away what was ever in service.
pub(crate) fn require_never_in_service(tenant: &Tenant) -> Result<(), StepError> {
    if tenant.status == TenantState::Provisioning && tenant.activated_at.is_none() {
        return Ok(());
    }
    Err(StepError::fatal(ProvisionError::WasInService {
        slug: tenant.slug.clone(),
    }))
}

/// Takes the database away, in either of its names, unless it is not this laboratory's or was ever in
/// service.
pub(crate) async fn undo_database(cx: &Context<'_>) -> StepResult {
    let Some(tenant) = cx.tenant_opt().await? else {
        return Ok(json!({ "database": "gone with the laboratory" }));
    };
    require_never_in_service(&tenant)?;
    let session = cx.maintenance(&tenant).await?;
    drop_made(cx, &session, tenant).await
}

/// Drops what this operation made of the laboratory's database, under either name.
pub(crate) async fn drop_made(cx: &Context<'_>, session: &AdminSession, tenant: Tenant) -> StepResult {
    let making = cx.inner.config.namespace.database_in_the_making(tenant.id);
    let mut dropped = Vec::new();
    if look(session, &making).await?.is_some() {
        close_and_drop(cx, session, &making).await?;
        dropped.push(making);
    }
    match look_for_own(session, &tenant).await {
        Ok(Some(_)) => {
            close_and_drop(cx, session, &tenant.db_name).await?;
            dropped.push(tenant.db_name);
        }
        Ok(None) | Err(ProvisionError::NotOurs { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(json!({ "dropped": dropped }))
}

pub(crate) async fn undo_tenant(cx: &Context<'_>) -> StepResult {
    remove(cx, TenantEvent::ProvisionUndone).await
}

/// Deletes the row, while the lease is held. Operation, archive and audit stay.
pub(crate) async fn remove(cx: &Context<'_>, event: TenantEvent) -> StepResult {
    let mut client = cx.inner.config.registry.client().await?;
    let txn = begin(&mut client).await?;
    registry::operation_renew(&txn, cx.lease, cx.inner.config.lease).await?;
    let removed = registry::tenant_delete_in_txn(&txn, cx.operation.tenant, event, &cx.change()).await?;
    commit(txn).await?;
    Ok(json!({ "removed": removed }))
}
