//! Putting an archive in the place of what a laboratory holds: restored beside it and checked first; then the
//! two databases change names in one transaction, and the one that was replaced is dropped last of all.

use model::{DbName, Step, TenantEvent, TenantState};
use pg::literal;
use registry::Tenant;
use serde_json::json;

use super::steps::{Restored, mark_whole, restore_into};
use crate::{
    ProvisionError,
    engine::{Context, StepResult, fault::Moment},
    error::StepError,
    operations::{
        Definition,
        archived_admins::open_admins,
        definition::steps,
        dump::{dump_closed, require_archive, require_archive_of},
        migrate::{ensure_schema, record_version},
        offboard::steps::{close, readmit, require_closable},
        verify::{drop_if_there, report_missing, verify_closed},
    },
    request::{begin, commit},
    server::{AdminSession, close_and_drop, end_sessions, handed_on, look, ownership_comment, require_own},
};

/// The steps, and what takes back what they made.
pub(crate) const DEFINITION: Definition = Definition {
    steps: steps! {
        RestoreDatabase => restore_beside,
        Fence => fence,
        Dump => dump_closed,
        Verify => verify_closed,
        SwapDatabase => swap_database,
        EnsureSchema => ensure_schema,
        RecordVersion => record_version,
        Readmit => readmit,
        DropReplaced => drop_replaced,
    },
    undo: steps! {
        DropRestored => drop_restored,
        Readmit => readmit,
    },
};

/// The ownership comment is the last act: a database of this name that has it is whole.
pub(crate) async fn restore_beside(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let session = cx.maintenance(&tenant).await?;
    let restored = cx.inner.config.namespace.restored_database(cx.operation.id);
    let comment = ownership_comment(&tenant);
    if look(&session, &restored)
        .await?
        .is_some_and(|found| found.has_comment(&comment))
    {
        return Ok(json!({ "database": restored, "made": false }));
    }
    let Restored {
        archive,
        rows,
        missing,
    } = restore_into(cx, &session, &restored).await?;
    mark_whole(&session, &restored, &comment).await?;
    let mut saw = json!({ "database": restored, "made": true, "archive": archive.id, "rows": rows });
    report_missing(cx, &mut saw, &missing);
    Ok(saw)
}

/// Nobody is let in any more, and nobody is left inside. The laboratory is closed here and not before: it
/// served while the archive was restored beside it.
pub(crate) async fn fence(cx: &Context<'_>) -> StepResult {
    let mut tenant = cx.tenant().await?;
    let session = require_closable(cx, &tenant).await?;
    if tenant.status != TenantState::Restoring {
        let mut client = cx.inner.config.registry.client().await?;
        let txn = begin(&mut client).await?;
        registry::operation_renew(&txn, cx.lease, cx.inner.config.lease).await?;
        tenant =
            registry::tenant_transition_in_txn(&txn, tenant.id, TenantEvent::RestoreInPlace, &cx.change())
                .await?;
        commit(txn).await?;
    }
    close(cx, &session, &tenant).await
}

/// The two change names in one transaction. Before that, what the laboratory holds must be in a verified
/// archive.
pub(crate) async fn swap_database(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let session = cx.maintenance(&tenant).await?;
    let namespace = &cx.inner.config.namespace;
    let restored = namespace.restored_database(cx.operation.id);
    let replaced = namespace.replaced_database(cx.operation.id);
    if look(&session, &replaced).await?.is_none() {
        // An earlier try may have been cut off between its last word and the exchange.
        cx.make_reversible().await?;
        require_own(&session, &tenant).await?;
        let whole = look(&session, &restored).await?;
        if !whole.is_some_and(|found| found.has_comment(&ownership_comment(&tenant))) {
            return Err(StepError::fatal(ProvisionError::Missing {
                what: "restored database",
                name: restored.as_str().to_owned(),
                server: session.target.to_string(),
            }));
        }
        if tenant.status != TenantState::Restoring {
            let why = format!(
                "{} is {} and not closed for a restore",
                tenant.slug, tenant.status
            );
            return Err(StepError::fatal(ProvisionError::Check { why }));
        }
        require_archive_of(cx, &session, &tenant).await?;
        cx.make_irreversible(&cx.inner.config.registry.client().await?)
            .await?;
        if let Err(failure) = exchange(cx, &session, &tenant, &restored, &replaced).await {
            // Nothing has another name: it can still be taken back. Where that is not known, it counts as
            // done.
            if matches!(look(&session, &replaced).await, Ok(None)) {
                cx.make_reversible().await?;
            }
            return Err(failure);
        }
    }
    put_admins_back(cx, &tenant).await?;
    Ok(json!({ "database": tenant.db_name, "replaced": replaced }))
}

/// Both are closed before their sessions are ended, since whoever comes back in between would keep them from
/// being renamed. What takes the name is open again, to administrators only, in the transaction in which it
/// gets it; what is cut off before that begins anew, and opens the laboratory's own first.
async fn exchange(
    cx: &Context<'_>,
    session: &AdminSession,
    tenant: &Tenant,
    restored: &DbName,
    replaced: &DbName,
) -> Result<(), StepError> {
    let name = &tenant.db_name;
    let sql = format!(
        "ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false; ALTER DATABASE {restored} WITH ALLOW_CONNECTIONS false"
    );
    session.run("closing both databases", &sql).await?;
    cx.reach(Step::SwapDatabase, Moment::Closed).await;
    end_sessions(cx, session, name).await?;
    end_sessions(cx, session, restored).await?;
    let was = literal(&format!("tenantry replaced {}", tenant.id));
    let mut sql = format!(
        "ALTER DATABASE {name} RENAME TO {replaced};
         COMMENT ON DATABASE {replaced} IS {was};
         ALTER DATABASE {restored} RENAME TO {name};
         ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true CONNECTION LIMIT 0;"
    );
    // The limit keeps out who is let in by name, until the laboratory is readmitted.
    for statement in handed_on(session, name, name).await? {
        sql.push_str(&format!("\n{statement};"));
    }
    session.run("exchanging the databases", &sql).await?;
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
pub(crate) async fn drop_replaced(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let session = cx.maintenance(&tenant).await?;
    let replaced = cx.inner.config.namespace.replaced_database(cx.operation.id);
    if look(&session, &replaced).await?.is_none() {
        return Ok(json!({ "dropped": "by an earlier try" }));
    }
    let (archive, _) = require_archive(cx, &tenant).await?;
    close_and_drop(cx, &session, &replaced).await?;
    Ok(json!({ "dropped": replaced, "archive": archive.id }))
}

/// For a restore in place that is undone: nothing was exchanged yet.
pub(crate) async fn drop_restored(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let session = cx.maintenance(&tenant).await?;
    let restored = cx.inner.config.namespace.restored_database(cx.operation.id);
    let dropped = drop_if_there(cx, &session, &restored).await?;
    Ok(json!({ "database": restored, "dropped": dropped }))
}
