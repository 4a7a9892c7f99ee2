//! The operations: for each kind how it is asked for, which steps it has, and what they do. A step looks
//! before it acts and says what it saw; run again after a crash at any point, it finds what is there and does
//! the rest.

pub(crate) mod adopt;
pub(crate) mod archived_admins;
pub(crate) mod backup;
mod control;
mod definition;
pub(crate) mod dump;
pub(crate) mod import_archive;
pub(crate) mod migrate;
pub(crate) mod offboard;
pub(crate) mod provision;
pub(crate) mod restore;
pub(crate) mod verify;
pub(crate) mod verify_archive;

use model::{OperationKind, Step};

pub(crate) use self::definition::{Definition, Sequence, StepFn};
use crate::{engine::Context, error::StepError};

/// What an operation of a kind consists of.
pub(crate) fn definition(kind: OperationKind) -> &'static Definition {
    match kind {
        OperationKind::Provision => &provision::steps::DEFINITION,
        OperationKind::Adopt => &adopt::steps::DEFINITION,
        OperationKind::Migrate => &migrate::DEFINITION,
        OperationKind::Backup => &backup::DEFINITION,
        OperationKind::Restore => &restore::steps::DEFINITION,
        OperationKind::RestoreInPlace => &restore::in_place::DEFINITION,
        OperationKind::Offboard => &offboard::steps::DEFINITION,
        OperationKind::VerifyArchive => &verify_archive::DEFINITION,
        OperationKind::ImportArchive => &import_archive::DEFINITION,
    }
}

/// The steps of an operation, in order.
#[must_use]
pub fn steps(kind: OperationKind) -> &'static [Step] {
    definition(kind).steps.order
}

/// The steps that take away all that an operation has made which failed for good or was cancelled, in order;
/// empty where there is nothing to take away.
#[must_use]
pub fn undo_steps(kind: OperationKind) -> &'static [Step] {
    definition(kind).undo.order
}

/// What an operation that fails for good or is cancelled must not leave lying about, beside what undoing
/// takes away. Failing here is logged: the operation's own error matters more.
pub(crate) async fn clean_up(cx: &Context<'_>, cancelled: bool) {
    if steps(cx.operation.kind).contains(&Step::Verify)
        && let Err(failure) = drop_scratch(cx).await
    {
        tracing::warn!(
            operation.id = %cx.operation.id,
            error = %failure.error,
            "the scratch database may be left; it is dropped when the operation runs again"
        );
    }
    // A removal that failed is opened again and goes on with the dump that it has. Others make another one,
    // and what nobody verified would stay for good.
    if (cancelled || cx.operation.kind != OperationKind::Offboard)
        && steps(cx.operation.kind).contains(&Step::Dump)
        && let Err(failure) = dump::remove_unrecorded(cx).await
    {
        tracing::warn!(
            operation.id = %cx.operation.id,
            error = %failure.error,
            "the files of an archive that is not wanted may be left"
        );
    }
}

/// For an operation that failed for good.
async fn drop_scratch(cx: &Context<'_>) -> Result<(), StepError> {
    let server = match cx.tenant_opt().await? {
        Some(tenant) => tenant.server,
        None if cx.operation.kind == OperationKind::VerifyArchive => cx.scratch_server().await?,
        None if cx.operation.kind == OperationKind::ImportArchive => {
            let lived = import_archive::params(cx)?.server;
            cx.server_for_scratch(Some(&lived)).await?
        }
        None => return Ok(()),
    };
    let session = cx.maintenance_on(&server, cx.operation.tenant).await?;
    let scratch = cx.inner.config.namespace.scratch_database(cx.operation.id);
    verify::drop_if_there(cx, &session, &scratch).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_stands_in_both_directions() {
        for &kind in OperationKind::ALL {
            let (steps, undo) = (steps(kind), undo_steps(kind));
            // A restore in place lets people in again, whichever way it went.
            let both: Vec<_> = steps.iter().filter(|step| undo.contains(step)).collect();
            assert!(
                both.is_empty() || (kind == OperationKind::RestoreInPlace && both == [&Step::Readmit]),
                "{kind}: {both:?}"
            );
            assert!(!kind.failure_is_undone() || !undo.is_empty(), "{kind}");
            assert_eq!(kind.can_be_undone(), !undo.is_empty(), "{kind}");
        }
    }
}
