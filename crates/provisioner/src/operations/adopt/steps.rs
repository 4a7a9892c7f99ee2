//! Taking over a laboratory that has a database of its own already, and giving it back. Whatever happens, the
//! database, its rows and its own objects stay.

use std::collections::BTreeSet;

use model::{DbName, SchemaVersion, Step, StepStatus};
use pg::{ConnectTarget, literal};
use registry::Tenant;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_postgres::{Client, binary_copy::BinaryCopyOutRow};

use crate::{
    Inner, ProvisionError,
    engine::{Context, StepResult},
    error::StepError,
    operations::{
        Definition,
        adopt::{
            baseline::{Lines, ROW, judge, telling},
            untrusted::untrusted_rows,
        },
        definition::steps,
        provision::steps::{activate, check, ensure_role, seed, undo_tenant},
    },
    server::{
        AdminSession, drop_role, look, look_for_own, open_to_nobody_else, ownership_comment, require_own,
        settle,
    },
};

/// The login roles that can connect to the database of $1 and have rights or objects in it, their own or
/// through a role that they are in: people and programs of the laboratory. Not: superusers, who need no
/// right, and roles that are marked as a laboratory's, this one's new role among them: the installation's own
/// roles are nobody's users, whatever they have there.
const USERS: &str = "SELECT r.rolname::text, quote_ident(r.rolname), has_database_privilege(r.oid, d.oid, 'TEMPORARY')
      FROM pg_roles r, pg_database d
     WHERE d.datname = $1 AND r.rolcanlogin AND NOT r.rolsuper AND r.rolname <> $2
       AND NOT coalesce(starts_with(shobj_description(r.oid, 'pg_authid'), $3), false)
       AND has_database_privilege(r.oid, d.oid, 'CONNECT')
       AND (r.oid = d.datdba OR EXISTS (SELECT FROM pg_shdepend s
            WHERE s.dbid = d.oid AND s.refclassid = 'pg_authid'::regclass AND pg_has_role(r.oid, s.refobjid, 'USAGE')))
     ORDER BY 1";

/// What everybody could do before: given back when the laboratory is.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Before {
    /// CONNECT, TEMPORARY or CREATE, on the database.
    on_database: Vec<String>,
    /// USAGE or CREATE, on the schema `public`.
    on_schema: Vec<String>,
    /// Functions in it, and the server's own that are closed, that everybody could run.
    functions: Vec<String>,
    /// What roles held by name, as the statements that would take it from them. Absent in what earlier
    /// versions noted.
    held: Option<BTreeSet<String>>,
}

/// Rights on the connected database, its schema `public` and the functions that change hands, which roles
/// hold by name; each as the role and the statement that takes it away. $1: the server's own functions that
/// are closed.
const HELD: &str = "SELECT r.rolname::text, format('REVOKE %s ON %s FROM %I', x.right, x.thing, r.rolname) FROM (
        SELECT a.grantee, a.privilege_type AS right, format('DATABASE %I', d.datname) AS thing
          FROM pg_database d, aclexplode(d.datacl) a WHERE d.datname = current_database() AND a.grantee <> d.datdba
        UNION ALL SELECT a.grantee, a.privilege_type, 'SCHEMA public' FROM pg_namespace n, aclexplode(n.nspacl) a
         WHERE n.nspname = 'public' AND a.grantee <> n.nspowner
        UNION ALL SELECT a.grantee, a.privilege_type, format('ROUTINE %s', p.oid::regprocedure) FROM pg_proc p, aclexplode(p.proacl) a
         WHERE (p.pronamespace = to_regnamespace('public') OR p.oid = ANY ($1::text[]::regprocedure[])) AND a.grantee <> p.proowner) x
      JOIN pg_roles r ON r.oid = x.grantee";

/// A person or a program of the laboratory's own.
struct User {
    name: String,
    quoted: String,
    temporary: bool,
}

/// The steps, and what takes back what they made.
pub(crate) const DEFINITION: Definition = Definition {
    steps: steps! {
        Inspect => inspect,
        EnsureRole => ensure_role,
        Baseline => baseline,
        EnsureSchema => ensure_schema,
        SecureDatabase => secure_database,
        Seed => seed,
        Check => check,
        Activate => activate,
    },
    undo: steps! {
        Release => release,
        DropRole => drop_role,
        RemoveTenant => undo_tenant,
    },
};

/// Looks once more whether the database can be adopted, notes what everybody may do in it, and marks it.
pub(crate) async fn inspect(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let session = cx.maintenance(&tenant).await?;
    let comment = ownership_comment(&tenant);
    cx.inner
        .adoptable(&session, &tenant.db_name, Some(&comment))
        .await?;
    let before = before(cx, &session, &tenant).await?;
    let (name, comment) = (&tenant.db_name, literal(&comment));
    session
        .run(
            "marking the database",
            &format!("COMMENT ON DATABASE {name} IS {comment}"),
        )
        .await?;
    Ok(json!({ "database": name, "before": before }))
}

async fn before(cx: &Context<'_>, session: &AdminSession, tenant: &Tenant) -> Result<Before, StepError> {
    let inside = cx.inside(tenant).await?;
    let row = inside
        .query_one(
            "SELECT ARRAY(SELECT a.privilege_type FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                      WHERE d.datname = current_database() AND a.grantee = 0 ORDER BY 1),
                    ARRAY(SELECT a.privilege_type FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
                      WHERE n.nspname = 'public' AND a.grantee = 0 ORDER BY 1),
                    ARRAY(SELECT p.oid::regprocedure::text
                      FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                      WHERE (p.pronamespace = to_regnamespace('public') OR p.oid = ANY ($1::text[]::regprocedure[]))
                        AND a.grantee = 0 AND a.privilege_type = 'EXECUTE' ORDER BY 1)",
            &[&migrator::CLOSED_FUNCTIONS.as_slice()],
        )
        .await
        .map_err(ProvisionError::db("reading the rights in the database", &session.target))?;
    Ok(Before {
        on_database: row.get(0),
        on_schema: row.get(1),
        functions: row.get(2),
        held: Some(
            held_by_name(&inside, session)
                .await?
                .into_iter()
                .map(|(_, sql)| sql)
                .collect(),
        ),
    })
}

async fn held_by_name(
    inside: &Client,
    session: &AdminSession,
) -> Result<Vec<(String, String)>, ProvisionError> {
    let rows = inside
        .query(HELD, &[&migrator::CLOSED_FUNCTIONS.as_slice()])
        .await
        .map_err(ProvisionError::db(
            "reading the rights in the database",
            &session.target,
        ))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Finds out which migrations the database has already, and writes that down where it has no history of its
/// own.
pub(crate) async fn baseline(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let session = cx.maintenance(&tenant).await?;
    require_own(&session, &tenant).await?;
    let wanted = wanted(cx).map(SchemaVersion::new);
    let history = migrator::history_version(&*cx.inside(&tenant).await?).await?;
    if history > SchemaVersion::default() {
        agrees(history, wanted)?;
        return Ok(json!({ "version": history, "by": "its own history" }));
    }
    let scratch = cx.inner.config.namespace.scratch_database(cx.operation.id);
    let target = session.target.with_database(tenant.db_name.as_str());
    let inside = cx.inside(&tenant).await?;
    let version = version_by_shape(cx.inner, &session, (&*inside, &target), &scratch, wanted).await?;
    drop(inside);
    if version > SchemaVersion::default() {
        migrator::baseline_write(&target, version).await?;
    }
    Ok(json!({ "version": version, "by": "what is there" }))
}

fn wanted(cx: &Context<'_>) -> Option<u32> {
    u32::try_from(cx.operation.params.get("baseline")?.as_u64()?).ok()
}

/// Refuses a version that was named and is not the one in the database's own history.
pub(crate) fn agrees(history: SchemaVersion, wanted: Option<SchemaVersion>) -> Result<(), ProvisionError> {
    match wanted {
        Some(wanted) if wanted != history => Err(ProvisionError::Invalid {
            field: "baseline",
            why: format!(
                "the database's own history says version {history}, not {wanted}; leave the baseline out to \
                 go by it"
            ),
        }),
        _ => Ok(()),
    }
}

async fn drop_scratch(session: &AdminSession, scratch: &DbName) -> Result<(), ProvisionError> {
    if look(session, scratch).await?.is_some() {
        // FORCE: our own session of a moment ago may still be ending, and nobody else is let in.
        let sql = format!("DROP DATABASE {scratch} WITH (FORCE)");
        session.run("dropping the scratch database", &sql).await?;
    }
    Ok(())
}

/// Sets where a name without a schema is looked for.
async fn look_up(client: &Client, target: &ConnectTarget, path: &str) -> Result<(), ProvisionError> {
    let sql = format!("SET search_path = {path}");
    let set = client.batch_execute(&sql).await;
    set.map_err(ProvisionError::db("preparing a session", target))
}

/// Which version a database without a history is at, by what is there: the one whose shape and rows it has,
/// as the migrations make them in a scratch database, which is gone afterwards.
///
/// # Errors
/// [`ProvisionError::NotAdoptable`] says what is missing or only half there.
pub(crate) async fn version_by_shape(
    inner: &Inner,
    session: &AdminSession,
    laboratory: (&Client, &ConnectTarget),
    scratch: &DbName,
    wanted: Option<SchemaVersion>,
) -> Result<SchemaVersion, ProvisionError> {
    drop_scratch(session, scratch).await?;
    let judged = compare(inner, session, laboratory, scratch, wanted).await;
    // Also when it failed; after a crash the next try begins with it.
    let dropped = drop_scratch(session, scratch).await;
    let version = judged?;
    dropped?;
    Ok(version)
}

/// Brings a scratch database from version to version, and compares the laboratory's with it at each.
async fn compare(
    inner: &Inner,
    session: &AdminSession,
    (inside, target): (&Client, &ConnectTarget),
    scratch: &DbName,
    wanted: Option<SchemaVersion>,
) -> Result<SchemaVersion, ProvisionError> {
    migrator::create_database(&session.client, scratch, "template0", "ENCODING 'UTF8'").await?;
    open_to_nobody_else(session, scratch).await?;
    let scratch = session.target.with_database(scratch.as_str());
    let mut client = inner.connect_inside(&scratch).await?;
    let mut versions = vec![shape(&client, &scratch).await?];
    let mut keys = BTreeSet::new();
    for number in 1..=migrator::latest().number() {
        look_up(&client, &scratch, "public").await?;
        migrator::migrate_scratch(&mut client, &scratch, SchemaVersion::new(number)).await?;
        look_up(&client, &scratch, "''").await?;
        let mut lines = shape(&client, &scratch).await?;
        keys = keyed_tables(&client, &scratch).await?;
        for key in &keys {
            lines.extend(rows(&client, &scratch, key).await?);
        }
        versions.push(lines);
    }
    drop(client);
    let mut found = shape(inside, target).await?;
    let there = keyed_tables(inside, target).await?;
    for key in keys.intersection(&there) {
        found.extend(rows(inside, target, key).await?);
    }
    judge(&versions, &found, wanted).map_err(|why| ProvisionError::NotAdoptable {
        database: target.database.clone(),
        why,
    })
}

/// The session's search_path is empty, so every name in a definition is qualified.
async fn shape(client: &Client, target: &ConnectTarget) -> Result<Lines, ProvisionError> {
    let rows = client
        .query(archive::SHAPE, &[])
        .await
        .map_err(ProvisionError::db("reading the shape", target))?;
    Ok(telling(rows.iter().map(|row| row.get(0))))
}

/// Tables whose rows a person can name: keyed by one text. Rows under generated ids tell nothing about a
/// version.
async fn keyed_tables(
    client: &Client,
    target: &ConnectTarget,
) -> Result<BTreeSet<(String, String)>, ProvisionError> {
    let rows = client
        .query(
            "SELECT c.relname::text, a.attname::text FROM pg_constraint k
               JOIN pg_class c ON c.oid = k.conrelid
               JOIN pg_attribute a ON a.attrelid = c.oid AND k.conkey = ARRAY[a.attnum]
              WHERE k.contype = 'p' AND c.relnamespace = to_regnamespace('public') AND a.atttypid = 'text'::regtype",
            &[],
        )
        .await
        .map_err(ProvisionError::db("looking for tables with rows", target))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn rows(
    client: &Client,
    target: &ConnectTarget,
    (table, key): &(String, String),
) -> Result<Vec<String>, ProvisionError> {
    let rows = untrusted_rows(client, target, table, &[key]).await?;
    let line = |row: &BinaryCopyOutRow| {
        let key: String = row
            .try_get(0)
            .map_err(ProvisionError::db("reading the keys of rows", target))?;
        Ok(format!("{ROW}{table} {key}"))
    };
    rows.iter().map(line).collect()
}

async fn users(session: &AdminSession, tenant: &Tenant) -> Result<Vec<User>, ProvisionError> {
    let rows = session
        .client
        .query(
            USERS,
            &[
                &tenant.db_name.as_str(),
                &tenant.role_name.as_str(),
                &migrator::OWNERSHIP_COMMENT,
            ],
        )
        .await
        .map_err(ProvisionError::db(
            "looking for the laboratory's own users",
            &session.target,
        ))?;
    Ok(rows
        .iter()
        .map(|row| User {
            name: row.get(0),
            quoted: row.get(1),
            temporary: row.get(2),
        })
        .collect())
}

/// Runs the missing migrations and applies the grants. These take from everybody what PUBLIC could do in the
/// schema, so those who work in it get that by name first.
pub(crate) async fn ensure_schema(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let session = cx.maintenance(&tenant).await?;
    require_own(&session, &tenant).await?;
    let users = users(&session, &tenant).await?;
    let inside = cx.inside(&tenant).await?;
    let before = migrator::history_version(&*inside).await?;
    for user in &users {
        keep_in_schema(&inside, &session, user).await?;
    }
    drop(inside);
    let target = session.target.with_database(tenant.db_name.as_str());
    let group = cx.inner.config.namespace.tenant_group(tenant.id);
    let after = migrator::migrate_database(&target, &group).await?;
    settle(cx.inner, &session, &tenant, &tenant.db_name).await?;
    let kept: Vec<String> = users.into_iter().map(|user| user.name).collect();
    Ok(json!({ "from": before, "to": after, "kept_in_schema": kept }))
}

/// What a user can do in the schema `public`, also through PUBLIC, they can do by name from now on.
async fn keep_in_schema(inside: &Client, session: &AdminSession, user: &User) -> Result<(), ProvisionError> {
    let failed = || {
        ProvisionError::db(
            "keeping the rights of the laboratory's own users",
            &session.target,
        )
    };
    let rows = inside
        .query(
            "SELECT format('GRANT %s ON SCHEMA public TO %s', p.word, $2::text) FROM unnest(ARRAY['USAGE', 'CREATE']) p (word)
              WHERE has_schema_privilege($1::text, 'public', p.word)
             UNION ALL
             SELECT format('GRANT EXECUTE ON ROUTINE %s TO %s', p.oid::regprocedure, $2::text) FROM pg_proc p
              WHERE (p.pronamespace = to_regnamespace('public') OR p.oid = ANY ($3::text[]::regprocedure[]))
                AND has_function_privilege($1::text, p.oid, 'EXECUTE')",
            &[&user.name, &user.quoted, &migrator::CLOSED_FUNCTIONS.as_slice()],
        )
        .await
        .map_err(failed())?;
    let statements: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    inside
        .batch_execute(&statements.join("; "))
        .await
        .map_err(failed())
}

/// Takes CONNECT from everybody and gives it by name to the laboratory's role and to those who work in the
/// database.
pub(crate) async fn secure_database(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let session = cx.maintenance(&tenant).await?;
    require_own(&session, &tenant).await?;
    let users = users(&session, &tenant).await?;
    let (database, role) = (&tenant.db_name, &tenant.role_name);
    // One transaction: at no moment is one of them shut out.
    let mut sql = format!(
        "REVOKE ALL ON DATABASE {database} FROM PUBLIC; GRANT CONNECT ON DATABASE {database} TO {role};"
    );
    for user in &users {
        let rights = if user.temporary {
            "CONNECT, TEMPORARY"
        } else {
            "CONNECT"
        };
        sql.push_str(&format!(
            " GRANT {rights} ON DATABASE {database} TO {};",
            user.quoted
        ));
    }
    session.run("securing the database", &sql).await?;
    let kept: Vec<String> = users.into_iter().map(|user| user.name).collect();
    Ok(json!({ "database": database, "open_to": role, "kept_open_to": kept }))
}

/// Gives the database back: ownership comment and rights as before, also those that users got by name. What
/// migrations made stays.
pub(crate) async fn release(cx: &Context<'_>) -> StepResult {
    let Some(tenant) = cx.tenant_opt().await? else {
        return Ok(json!({ "database": "released with the laboratory" }));
    };
    let session = cx.maintenance(&tenant).await?;
    drop_scratch(
        &session,
        &cx.inner.config.namespace.scratch_database(cx.operation.id),
    )
    .await?;
    match look_for_own(&session, &tenant).await {
        Ok(Some(_)) => {}
        // Never marked, gone, or released by a try that was cut off.
        Ok(None) | Err(ProvisionError::NotOurs { .. }) => {
            return Ok(json!({ "database": tenant.db_name, "released": false }));
        }
        Err(error) => return Err(error.into()),
    }
    let before = noted(cx).await?;
    give_back(cx, &session, &tenant, &before).await?;
    let comment = cx
        .operation
        .params
        .get("commentBefore")
        .and_then(|text| text.as_str());
    let comment = comment.map_or_else(|| "NULL".to_owned(), literal);
    let name = &tenant.db_name;
    // Last: until then it is known to be ours to give back.
    session
        .run(
            "taking the ownership comment away",
            &format!("COMMENT ON DATABASE {name} IS {comment}"),
        )
        .await?;
    Ok(json!({ "database": name, "released": true }))
}

/// What the first step saw; nothing was changed before it was done.
async fn noted(cx: &Context<'_>) -> Result<Option<Before>, ProvisionError> {
    let client = cx.inner.config.registry.client().await?;
    let rows = registry::steps_of(&client, cx.operation.id).await?;
    let row = rows
        .into_iter()
        .find(|row| row.step == Step::Inspect && row.status == StepStatus::Done);
    let Some(saw) = row.and_then(|row| row.saw) else {
        return Ok(None);
    };
    let before = serde_json::from_value(saw["before"].clone());
    before.map(Some).map_err(|error| ProvisionError::CorruptStep {
        operation: cx.operation.id,
        step: Step::Inspect,
        why: error.to_string(),
    })
}

async fn give_back(
    cx: &Context<'_>,
    session: &AdminSession,
    tenant: &Tenant,
    before: &Option<Before>,
) -> Result<(), StepError> {
    let Some(before) = before else {
        return Ok(());
    };
    let group = cx.inner.config.namespace.tenant_group(tenant.id);
    let (database, role) = (&tenant.db_name, &tenant.role_name);
    let users: BTreeSet<String> = users(session, tenant)
        .await?
        .into_iter()
        .map(|user| user.name)
        .collect();
    let inside = cx.inside(tenant).await?;
    let roles = inside
        .query(
            "SELECT rolname::text FROM pg_roles WHERE rolname = ANY ($1::text[])",
            &[&[group.as_str(), role.as_str()].as_slice()],
        )
        .await
        .map_err(ProvisionError::db("looking for the roles", &session.target))?;
    let there = |name: &str| roles.iter().any(|row| row.get::<_, &str>(0) == name);
    let mut sql = String::new();
    if there(group.as_str()) {
        sql.push_str(&migrator::rights_take(&group));
    }
    if there(role.as_str()) {
        sql.push_str(&format!("REVOKE ALL ON DATABASE {database} FROM {role};"));
    }
    if let Some(before) = &before.held {
        let now = held_by_name(&inside, session).await?;
        let given = now
            .iter()
            .filter(|(name, sql)| users.contains(name) && !before.contains(sql));
        for (_, taken) in given {
            sql.push_str(taken);
            sql.push(';');
        }
    }
    for right in &before.on_database {
        sql.push_str(&format!("GRANT {right} ON DATABASE {database} TO PUBLIC;"));
    }
    for right in &before.on_schema {
        sql.push_str(&format!("GRANT {right} ON SCHEMA public TO PUBLIC;"));
    }
    for function in &before.functions {
        sql.push_str(&format!("GRANT EXECUTE ON ROUTINE {function} TO PUBLIC;"));
    }
    inside
        .batch_execute(&sql)
        .await
        .map_err(ProvisionError::db("giving the rights back", &session.target))?;
    Ok(())
}
