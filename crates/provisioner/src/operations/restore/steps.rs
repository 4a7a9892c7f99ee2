//! Making a laboratory's database out of an archive: beside everything else and checked first, and under its name only when
//! it is whole. In place of one that lives, the two change names in one transaction, and the one that was replaced is dropped
//! last of all.

use archive::{Manifest, Missing, Place};
use model::{DbName, OperationKind, Step, TenantId, TenantState};
use registry::{Archive, Tenant};
use serde_json::json;

use crate::{
    ProvisionError,
    engine::{Context, Moment, Saw},
    error::StepError,
    operations::{
        archived_admins::open_admins,
        dump::{require_archive, require_archive_of},
        verify::{drop_if_there, drop_made_group, ensure_groups, restore_checked, tell_missing},
    },
    request::{begin, commit},
    server::{
        Session, close_and_drop, end_sessions, handed_on, literal, look, look_for_own, mark_of, require_own,
        settle,
    },
};

pub(crate) async fn restore_database(cx: &Context<'_>) -> Saw {
    let tenant = cx.tenant().await?;
    let held = cx.maintenance(&tenant).await?;
    if cx.operation.kind == OperationKind::RestoreInPlace {
        return restore_beside(cx, &held, &tenant).await;
    }
    if look_for_own(&held, &tenant).await?.is_some() {
        return Ok(json!({ "database": tenant.db_name, "made": false }));
    }
    // As for a clone: what has the real name is whole and known to be ours.
    let making = cx.inner.config.namespace.database_in_the_making(tenant.id);
    let Restored {
        archive,
        rows,
        missing,
    } = restore_into(cx, &held, &making).await?;
    if archive.tenant != tenant.id {
        rename_laboratory(cx, &held, &making, tenant.id).await?;
    }
    let name = &tenant.db_name;
    mark_whole(&held, &making, &mark_of(&tenant)).await?;
    let sql = format!("ALTER DATABASE {making} RENAME TO {name}");
    held.run("naming the database", &sql).await?;
    let mut saw = json!({ "database": name, "made": true, "archive": archive.id, "rows": rows });
    tell_missing(cx, &mut saw, &missing);
    Ok(saw)
}

/// The mark is the last act: a database of this name that has it is whole.
async fn restore_beside(cx: &Context<'_>, held: &Session, tenant: &Tenant) -> Saw {
    let restored = cx.inner.config.namespace.restored_database(cx.operation.id);
    let mark = mark_of(tenant);
    if look(held, &restored)
        .await?
        .is_some_and(|found| found.has_mark(&mark))
    {
        return Ok(json!({ "database": restored, "made": false }));
    }
    let Restored {
        archive,
        rows,
        missing,
    } = restore_into(cx, held, &restored).await?;
    mark_whole(held, &restored, &mark).await?;
    let mut saw = json!({ "database": restored, "made": true, "archive": archive.id, "rows": rows });
    tell_missing(cx, &mut saw, &missing);
    Ok(saw)
}

/// What was restored is not on the disk for certain, because nothing waited for it (`Dump::restore`). This commit does, and with
/// it everything that was written before it: the log is one. So what has the mark is whole also after the server crashed.
async fn mark_whole(held: &Session, database: &DbName, mark: &str) -> Result<(), ProvisionError> {
    let sql = format!(
        "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';
         COMMENT ON DATABASE {database} IS {}",
        literal(mark)
    );
    held.run("marking the database", &sql).await
}

/// What a database was made of.
struct Restored {
    archive: Archive,
    rows: u64,
    missing: Missing,
}

async fn restore_into(cx: &Context<'_>, held: &Session, into: &DbName) -> Result<Restored, StepError> {
    let archive = cx.archive().await?;
    let code = migrator::latest();
    if archive.db_version > code {
        return Err(StepError::fatal(ProvisionError::ArchiveTooNew {
            archive: archive.id,
            have: archive.db_version,
            code,
        }));
    }
    let place = Place::parse(&archive.location)?;
    cx.inner.require_here(&place, archive.host.as_deref()).await?;
    let manifest = Manifest::require(&place, &archive.manifest).await?;
    drop_if_there(cx, held, into).await?;
    let like = cx.template(held).await?;
    let made = ensure_groups(cx, held, &manifest).await?;
    let missing = restore_checked(cx, held, Step::RestoreDatabase, &like, into, &place, &manifest).await?;
    // The rights in the dump are those of the archived laboratory's group, or of the one that earlier versions shared.
    settle(cx.inner, held, &cx.tenant().await?, into).await?;
    if archive.tenant != cx.operation.tenant {
        drop_made_group(held, made).await;
    }
    Ok(Restored {
        rows: manifest.contents.rows(),
        archive,
        missing,
    })
}

/// A copy beside the laboratory is another laboratory. Its guard says that a database belongs to one for good; here, and only
/// here, that is not so, and nothing else of the row changes.
async fn rename_laboratory(
    cx: &Context<'_>,
    held: &Session,
    database: &DbName,
    tenant: TenantId,
) -> Result<(), StepError> {
    let target = held.target.with_database(database.as_str());
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

/// The two change names in one transaction. Before that, what the laboratory holds must be in a proved archive.
pub(crate) async fn swap_database(cx: &Context<'_>) -> Saw {
    let tenant = cx.tenant().await?;
    let held = cx.maintenance(&tenant).await?;
    let namespace = &cx.inner.config.namespace;
    let restored = namespace.restored_database(cx.operation.id);
    let replaced = namespace.replaced_database(cx.operation.id);
    if look(&held, &replaced).await?.is_none() {
        // An earlier try may have been cut off between its last word and the exchange.
        cx.regain_return().await?;
        require_own(&held, &tenant).await?;
        let whole = look(&held, &restored).await?;
        if !whole.is_some_and(|found| found.has_mark(&mark_of(&tenant))) {
            return Err(StepError::fatal(ProvisionError::Missing {
                what: "restored database",
                name: restored.as_str().to_owned(),
                place: held.target.to_string(),
            }));
        }
        if tenant.status != TenantState::Restoring {
            let why = format!(
                "{} is {} and not closed for a restore",
                tenant.slug, tenant.status
            );
            return Err(StepError::fatal(ProvisionError::Check { why }));
        }
        require_archive_of(cx, &held, &tenant).await?;
        cx.pass_return(&cx.inner.config.registry.client().await?).await?;
        if let Err(failure) = exchange(cx, &held, &tenant, &restored, &replaced).await {
            // Nothing has another name: it can still be taken back. Where that is not known, it counts as done.
            if matches!(look(&held, &replaced).await, Ok(None)) {
                cx.regain_return().await?;
            }
            return Err(failure);
        }
    }
    put_admins_back(cx, &tenant).await?;
    Ok(json!({ "database": tenant.db_name, "replaced": replaced }))
}

/// Both are closed before their sessions are ended, since whoever comes back in between would keep them from being renamed.
/// What takes the name is open again, to administrators only, in the transaction in which it gets it; what is cut off before
/// that begins anew, and opens the laboratory's own first.
async fn exchange(
    cx: &Context<'_>,
    held: &Session,
    tenant: &Tenant,
    restored: &DbName,
    replaced: &DbName,
) -> Result<(), StepError> {
    let name = &tenant.db_name;
    let sql = format!(
        "ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false; ALTER DATABASE {restored} WITH ALLOW_CONNECTIONS false"
    );
    held.run("closing both databases", &sql).await?;
    cx.reach(Step::SwapDatabase, Moment::Closed).await;
    end_sessions(cx, held, name).await?;
    end_sessions(cx, held, restored).await?;
    let was = literal(&format!("tenantry replaced {}", tenant.id));
    let mut sql = format!(
        "ALTER DATABASE {name} RENAME TO {replaced};
         COMMENT ON DATABASE {replaced} IS {was};
         ALTER DATABASE {restored} RENAME TO {name};
         ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true CONNECTION LIMIT 0;"
    );
    // The limit keeps out who is let in by name, until the laboratory is readmitted.
    for statement in handed_on(held, name, name).await? {
        sql.push_str(&format!("\n{statement};"));
    }
    held.run("exchanging the databases", &sql).await?;
    Ok(())
}

/// The administrators belong to the people in the laboratory's own staff list, which is the archive's now.
async fn put_admins_back(cx: &Context<'_>, tenant: &Tenant) -> Result<(), StepError> {
    let archive = cx.archive().await?;
    let admins = open_admins(cx.inner, &archive, tenant.id)?;
    let mut client = cx.inner.config.registry.client().await?;
    let txn = begin(&mut client).await?;
    registry::operation_renew(&txn, cx.lease, cx.inner.config.lease).await?;
    registry::admins_put_back_in_txn(&txn, tenant.id, &admins).await?;
    commit(txn).await?;
    Ok(())
}

/// What the laboratory held before stays until it serves again, and goes only while its archive is there.
pub(crate) async fn drop_replaced(cx: &Context<'_>) -> Saw {
    let tenant = cx.tenant().await?;
    let held = cx.maintenance(&tenant).await?;
    let replaced = cx.inner.config.namespace.replaced_database(cx.operation.id);
    if look(&held, &replaced).await?.is_none() {
        return Ok(json!({ "dropped": "by an earlier try" }));
    }
    let (archive, _) = require_archive(cx, &tenant).await?;
    close_and_drop(cx, &held, &replaced).await?;
    Ok(json!({ "dropped": replaced, "archive": archive.id }))
}

/// For a restore in place that is undone: nothing was exchanged yet.
pub(crate) async fn drop_restored(cx: &Context<'_>) -> Saw {
    let tenant = cx.tenant().await?;
    let held = cx.maintenance(&tenant).await?;
    let restored = cx.inner.config.namespace.restored_database(cx.operation.id);
    let dropped = drop_if_there(cx, &held, &restored).await?;
    Ok(json!({ "database": restored, "dropped": dropped }))
}
