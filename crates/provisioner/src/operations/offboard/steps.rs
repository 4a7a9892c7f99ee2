//! Removing a laboratory that is archived. Up to the drop nothing is lost by failing: the laboratory stays,
//! closed.

use std::time::Duration;

use model::{Step, TenantEvent, TenantState};
use registry::Tenant;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    ProvisionError,
    engine::{Context, StepOutcome, StepResult},
    error::StepError,
    operations::{
        Definition,
        definition::steps,
        dump::{dump_closed, never_archived, ready_to_archive, require_archive_of},
        provision::steps::remove,
        verify::verify_closed,
    },
    preconditions::Planned,
    request::{begin, commit},
    server::{
        AdminSession, close_and_drop, drop_role, end_sessions,
        fence::{close_database, let_in, lock_out, open_again, wait_for_routers},
        look_for_own, require_own,
    },
};

/// What a removal was asked with.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Grace {
    /// How long it can be cancelled once the archive is verified, in seconds.
    #[serde(default)]
    pub(crate) grace_s: u64,
}

impl Grace {
    fn of(operation: &registry::Operation) -> Result<Self, StepError> {
        serde_json::from_value(operation.params.clone()).map_err(|error| {
            StepError::fatal(ProvisionError::CorruptStep {
                operation: operation.id,
                step: Step::Grace,
                why: error.to_string(),
            })
        })
    }
}

/// The steps, and what takes back what they made.
pub(crate) const DEFINITION: Definition = Definition {
    steps: steps! {
        Fence => fence,
        Dump => dump_closed,
        Verify => verify_closed,
        Grace => grace,
        DropDatabase => drop_database,
        DropRole => drop_role,
        RemoveTenant => remove_tenant,
    },
    undo: steps! {
        Readmit => readmit,
    },
};

/// Nobody is let in any more, and nobody is left inside.
pub(crate) async fn fence(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    let session = require_closable(cx, &tenant).await?;
    close(cx, &session, &tenant).await
}

/// Everything that an operation needs which closes a laboratory: nothing is closed before that is there.
pub(crate) async fn require_closable(cx: &Context<'_>, tenant: &Tenant) -> Result<AdminSession, StepError> {
    let session = cx.maintenance(tenant).await?;
    require_own(&session, tenant).await?;
    let closing = Planned::of(cx.operation.kind, tenant);
    cx.inner.require(&closing).await?;
    ready_to_archive(cx, &session, tenant).await?;
    Ok(session)
}

/// Closes a laboratory that does not serve any more: its routers let go, its role is locked out, every
/// session is ended.
pub(crate) async fn close(cx: &Context<'_>, session: &AdminSession, tenant: &Tenant) -> StepResult {
    let routers = wait_for_routers(cx.inner, tenant).await?;
    if !routers.silent.is_empty() {
        tracing::warn!(
            operation.id = %cx.operation.id,
            tenant.slug = %tenant.slug,
            routers = ?routers.silent,
            waited_ms = routers.waited_ms,
            "routers have not let go of a laboratory that is being closed; the server ends their connections"
        );
    }
    let (database, role) = (&tenant.db_name, &tenant.role_name);
    if lock_out(cx.inner, session, tenant).await? {
        let sql = format!("REVOKE ALL ON DATABASE {database} FROM {role}");
        session.run("closing the database to its role", &sql).await?;
    }
    close_database(session, database).await?;
    let ended = end_sessions(cx, session, database).await?;
    Ok(json!({ "routers": routers, "sessions_ended": ended }))
}

/// The one place where a laboratory's data go away. It asks for an archive of this very operation, recorded
/// as verified, whose file and manifest are there and whose content is what was verified, and which still
/// holds what the database does.
///
/// A database that is not there counts as dropped only when this operation noted before that it was about to
/// drop it, and on this server: on another one, to which the laboratory's server was pointed meanwhile, it is
/// not missing but elsewhere.
pub(crate) async fn drop_database(cx: &Context<'_>) -> StepResult {
    let tenant = cx.tenant().await?;
    if tenant.status != TenantState::Deleting {
        return Err(never_archived(&tenant));
    }
    let session = cx.maintenance(&tenant).await?;
    let server = server_identifier(&session).await?;
    // Before the archive: a drop that is done already must not fail for a file that was moved since.
    if look_for_own(&session, &tenant).await?.is_none() {
        return if cx.operation.drop_begun_on.as_deref() == Some(&server) {
            Ok(json!({ "database": tenant.db_name, "dropped": "by an earlier try" }))
        } else {
            Err(gone(&tenant, &session))
        };
    }
    // An earlier try may have been cut off between its last word and the drop.
    cx.make_reversible().await?;
    let archive = require_archive_of(cx, &session, &tenant).await?;
    let client = cx.inner.config.registry.client().await?;
    cx.make_irreversible(&client).await?;
    registry::operation_note_drop(&client, cx.lease, &server).await?;
    drop(client);
    if let Err(failure) = close_and_drop(cx, &session, &tenant.db_name).await {
        // Whole and under its name: nothing happened yet that could not be taken back.
        if matches!(look_for_own(&session, &tenant).await, Ok(Some(_))) {
            cx.make_reversible().await?;
        }
        return Err(failure);
    }
    Ok(json!({ "database": tenant.db_name, "dropped": true, "archive": archive.id }))
}

fn gone(tenant: &Tenant, session: &AdminSession) -> StepError {
    StepError::fatal(ProvisionError::Missing {
        what: "database",
        name: tenant.db_name.as_str().to_owned(),
        server: format!(
            "{}, where this operation did not drop it: if server {} has another address now, set it back and \
             run the operation again",
            session.target, tenant.server
        ),
    })
}

/// The server itself, whatever leads to it.
async fn server_identifier(session: &AdminSession) -> Result<String, ProvisionError> {
    let row = session
        .client
        .query_one("SELECT system_identifier::text FROM pg_control_system()", &[])
        .await
        .map_err(ProvisionError::db("asking which server it is", &session.target))?;
    Ok(row.get(0))
}

/// The time in which the removal can be cancelled, counted from the first time that this step is reached: the
/// archive is verified by then.
pub(crate) async fn grace(cx: &Context<'_>) -> Result<StepOutcome, StepError> {
    let grace = Grace::of(cx.operation)?;
    match cx.operation.waiting_until {
        // It was claimed again, so by the registry's clock the time has come.
        Some(until) => Ok(StepOutcome::Done(
            json!({ "grace_s": grace.grace_s, "until": until }),
        )),
        None if grace.grace_s == 0 => Ok(StepOutcome::Done(json!({ "grace_s": 0 }))),
        None => Ok(StepOutcome::Waits(Duration::from_secs(grace.grace_s))),
    }
}

/// Opens a laboratory again whose removal was cancelled, and gives it back the state before. The server is
/// told first, with the row locked: a laboratory that is in service can log in, and no reconciler closes it
/// in between.
pub(crate) async fn readmit(cx: &Context<'_>) -> StepResult {
    let Some(tenant) = cx.tenant_opt().await? else {
        return Ok(json!({ "tenant": "gone" }));
    };
    let Some(before) = tenant.status_before else {
        return Ok(json!({ "status": tenant.status, "was": "readmitted already" }));
    };
    let session = cx.maintenance(&tenant).await?;
    let event = match tenant.status {
        TenantState::Restoring => TenantEvent::RestoreFinished { before },
        _ => TenantEvent::CancelOffboard { before },
    };
    let mut client = cx.inner.config.registry.client().await?;
    let txn = begin(&mut client).await?;
    registry::operation_renew(&txn, cx.lease, cx.inner.config.lease).await?;
    registry::tenant_transition_in_txn(&txn, tenant.id, event, &cx.change()).await?;
    if before.serves() {
        let_in(cx.inner, &session, &tenant).await?;
    } else {
        open_again(&session, &tenant.db_name).await?;
    }
    commit(txn).await?;
    Ok(json!({ "status": before }))
}

pub(crate) async fn remove_tenant(cx: &Context<'_>) -> StepResult {
    remove(cx, TenantEvent::OffboardFinished).await
}
