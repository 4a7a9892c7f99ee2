//! Making a laboratory's database out of an archive: beside everything else and checked first, and under its
//! name only when it is whole.

use archive::{Location, Manifest, Missing};
use model::{DbName, Step, TenantId};
use pg::literal;
use registry::Archive;
use serde_json::json;

use crate::{
    ProvisionError,
    engine::{Context, StepResult},
    error::StepError,
    operations::{
        Definition,
        definition::steps,
        migrate::ensure_schema,
        provision::steps::{
            activate, check, drop_made, make_role, require_never_in_service, secure_database, undo_tenant,
        },
        verify::{drop_if_there, drop_made_group, ensure_groups, report_missing, restore_checked},
    },
    server::{AdminSession, drop_role_of, look_for_own, ownership_comment, settle},
};

/// The steps, and what takes back what they made.
pub(crate) const DEFINITION: Definition = Definition {
    steps: steps! {
        EnsureRole => ensure_role,
        RestoreDatabase => restore_database,
        SecureDatabase => secure_database,
        EnsureSchema => ensure_schema,
        Check => check,
        Activate => activate,
    },
    undo: steps! {
        DropDatabase => undo_database,
        DropRole => drop_role,
        RemoveTenant => undo_tenant,
    },
};

/// Makes the role, unless the laboratory is there: one that the registry forgot, as when it was itself
/// restored to an earlier time.
pub(crate) async fn ensure_role(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let session = cx.maintenance(&tenant).await?;
    if !cx.has_begun(Step::RestoreDatabase).await? && look_for_own(&session, &tenant).await?.is_some() {
        return Err(StepError::fatal(ProvisionError::Refused {
            why: format!(
                "the database {} of this laboratory is there already, though the registry did not know the \
                 laboratory; look at it, then adopt it or rename it. Nothing was changed",
                tenant.db_name.as_str()
            ),
        }));
    }
    make_role(cx, &session, &tenant).await
}

pub(crate) async fn restore_database(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let session = cx.maintenance(&tenant).await?;
    if look_for_own(&session, &tenant).await?.is_some() {
        return Ok(json!({ "database": tenant.db_name, "made": false }));
    }
    // As for a clone: what has the real name is whole and known to be ours.
    let making = cx.inner.config.namespace.database_in_the_making(tenant.id);
    let Restored {
        archive,
        rows,
        missing,
    } = restore_into(cx, &session, &making).await?;
    if archive.tenant != tenant.id {
        rename_laboratory(cx, &session, &making, tenant.id).await?;
    }
    let name = &tenant.db_name;
    mark_whole(&session, &making, &ownership_comment(&tenant)).await?;
    let sql = format!("ALTER DATABASE {making} RENAME TO {name}");
    session.run("naming the database", &sql).await?;
    let mut saw = json!({ "database": name, "made": true, "archive": archive.id, "rows": rows });
    report_missing(cx, &mut saw, &missing);
    Ok(saw)
}

/// What was restored is not on the disk for certain, because nothing waited for it (`Dump::restore`). This
/// commit does, and with it everything that was written before it: the log is one. So what has the ownership
/// comment is whole also after the server crashed.
pub(super) async fn mark_whole(
    session: &AdminSession,
    database: &DbName,
    comment: &str,
) -> Result<(), ProvisionError> {
    let sql = format!(
        "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';
         COMMENT ON DATABASE {database} IS {}",
        literal(comment)
    );
    session.run("marking the database", &sql).await
}

/// What a database was made of.
pub(super) struct Restored {
    pub(super) archive: Archive,
    pub(super) rows: u64,
    pub(super) missing: Missing,
}

pub(super) async fn restore_into(
    cx: &Context<'_>,
    session: &AdminSession,
    into: &DbName,
) -> Result<Restored, StepError> {
    let archive = cx.archive().await?;
    let code = migrator::latest();
    if archive.db_version > code {
        return Err(StepError::fatal(ProvisionError::ArchiveTooNew {
            archive: archive.id,
            have: archive.db_version,
            code,
        }));
    }
    let location = Location::parse(&archive.location)?;
    cx.inner.require_here(&location, archive.host.as_deref()).await?;
    let manifest = Manifest::require(&location, &archive.manifest).await?;
    drop_if_there(cx, session, into).await?;
    let like = cx.template(session).await?;
    let made = ensure_groups(cx, session, &manifest).await?;
    let missing = restore_checked(
        cx,
        session,
        Step::RestoreDatabase,
        &like,
        into,
        &location,
        &manifest,
    )
    .await?;
    // The rights in the dump are those of the archived laboratory's group, or of the one that earlier
    // versions shared.
    settle(cx.inner, session, &cx.tenant().await?, into).await?;
    if archive.tenant != cx.operation.tenant {
        drop_made_group(session, made).await;
    }
    Ok(Restored {
        rows: manifest.contents.rows(),
        archive,
        missing,
    })
}

/// A copy beside the laboratory is another laboratory. Its guard says that a database belongs to one for
/// good; here, and only here, that is not so, and nothing else of the row changes.
async fn rename_laboratory(
    cx: &Context<'_>,
    session: &AdminSession,
    database: &DbName,
    tenant: TenantId,
) -> Result<(), StepError> {
    let target = session.target.with_database(database.as_str());
    let mut client = cx.inner.connect_inside(&target).await?;
    let failed = || ProvisionError::db("giving the copy its own laboratory's id", &target);
    let txn = client.transaction().await.map_err(failed())?;
    txn.batch_execute("SET LOCAL session_replication_role = replica")
        .await
        .map_err(failed())?;
    let changed = txn
        .execute(
            "UPDATE public.lab_profile SET tenant_id = $1",
            &[&tenant.as_uuid()],
        )
        .await
        .map_err(failed())?;
    if changed != 1 {
        let why = format!("the archive has {changed} laboratory's profiles and not one");
        return Err(StepError::fatal(ProvisionError::Check { why }));
    }
    txn.commit().await.map_err(failed())?;
    Ok(())
}

/// Drops what this operation restored. What was there before it began stays.
pub(crate) async fn undo_database(cx: &Context<'_>) -> StepResult {
    let Some(tenant) = cx.tenant_opt().await? else {
        return Ok(json!({ "database": "gone with the laboratory" }));
    };
    require_never_in_service(&tenant)?;
    let session = cx.maintenance(&tenant).await?;
    if !cx.has_begun(Step::RestoreDatabase).await? {
        return Ok(json!({ "dropped": [], "left": "what is there was there before" }));
    }
    drop_made(cx, &session, tenant).await
}

/// Drops the role, unless its database is there: one that this operation did not make and therefore left.
pub(crate) async fn drop_role(cx: &Context<'_>) -> StepResult {
    let Some(tenant) = cx.tenant_opt().await? else {
        return Ok(json!({ "role": "gone with the laboratory" }));
    };
    let session = cx.maintenance(&tenant).await?;
    if matches!(look_for_own(&session, &tenant).await, Ok(Some(_))) {
        return Ok(json!({ "role": "left with its database" }));
    }
    drop_role_of(cx, &session, &tenant).await
}
