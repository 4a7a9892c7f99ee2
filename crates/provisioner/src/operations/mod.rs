//! The operations: for each kind how it is asked for and what its steps do. A step looks before it acts and says what it
//! saw; run again after a crash at any point, it finds what is there and does the rest.

pub(crate) mod adopt;
pub(crate) mod archived_admins;
pub(crate) mod backup;
mod control;
pub(crate) mod dump;
pub(crate) mod import_archive;
pub(crate) mod migrate;
pub(crate) mod offboard;
pub(crate) mod provision;
pub(crate) mod restore;
pub(crate) mod verify;
pub(crate) mod verify_archive;

use model::{OperationKind, Step};

use crate::{
    engine::{Context, Ran},
    error::StepError,
    server::{drop_role, fence},
};

pub(crate) async fn run(cx: &Context<'_>, step: Step, undoing: bool) -> Result<Ran, StepError> {
    let adopting = cx.operation.kind == OperationKind::Adopt;
    let saw = match step {
        Step::Grace => return offboard::steps::grace(cx),
        Step::EnsureRole => provision::steps::ensure_role(cx).await,
        Step::EnsureDatabase => provision::steps::ensure_database(cx).await,
        Step::SecureDatabase if adopting => adopt::steps::secure_database(cx).await,
        Step::SecureDatabase => provision::steps::secure_database(cx).await,
        Step::EnsureSchema if adopting => adopt::steps::ensure_schema(cx).await,
        Step::EnsureSchema => migrate::ensure_schema(cx).await,
        Step::Seed => provision::steps::seed(cx).await,
        Step::Check => provision::steps::check(cx).await,
        Step::Activate => provision::steps::activate(cx).await,
        Step::RecordVersion => migrate::record_version(cx).await,
        Step::Fence => fence::fence(cx).await,
        Step::Dump => dump::dump(cx).await,
        Step::Verify => verify::verify(cx).await,
        Step::Prune => backup::prune(cx).await,
        Step::RestoreDatabase => restore::steps::restore_database(cx).await,
        Step::SwapDatabase => restore::steps::swap_database(cx).await,
        Step::DropReplaced => restore::steps::drop_replaced(cx).await,
        Step::DropRestored => restore::steps::drop_restored(cx).await,
        Step::Readmit => offboard::steps::readmit(cx).await,
        Step::DropDatabase if undoing => provision::steps::undo_database(cx).await,
        Step::DropDatabase => offboard::steps::drop_database(cx).await,
        Step::DropRole => drop_role(cx).await,
        Step::RemoveTenant if undoing => provision::steps::undo_tenant(cx).await,
        Step::RemoveTenant => offboard::steps::remove_tenant(cx).await,
        Step::Inspect => adopt::steps::inspect(cx).await,
        Step::Baseline => adopt::steps::baseline(cx).await,
        Step::Release => adopt::steps::release(cx).await,
    };
    saw.map(Ran::Saw)
}

/// What an operation that fails for good or is called off must not leave lying about, beside what undoing takes away. Failing
/// here is logged: the operation's own error matters more.
pub(crate) async fn clean_up(cx: &Context<'_>, called_off: bool) {
    if cx.operation.kind.steps().contains(&Step::Verify)
        && let Err(failure) = verify::drop_scratch(cx).await
    {
        tracing::warn!(
            operation.id = %cx.operation.id,
            error = %failure.error,
            "the scratch database may be left; it is dropped when the operation runs again"
        );
    }
    // A removal that failed is opened again and goes on with the dump that it has. Others make another one, and what nobody
    // verified would stay for good.
    if (called_off || cx.operation.kind != OperationKind::Offboard)
        && cx.operation.kind.steps().contains(&Step::Dump)
        && let Err(failure) = dump::remove_unrecorded(cx).await
    {
        tracing::warn!(
            operation.id = %cx.operation.id,
            error = %failure.error,
            "the files of an archive that is not wanted may be left"
        );
    }
}
