//! The steps of all operations, one function each. A step looks before it acts and says what it saw; run again after a
//! crash at any point, it finds what is there and does the rest.

mod adopt;
mod archive;
mod belongings;
mod database;
pub(crate) mod fence;
pub(crate) mod import;
mod migrate;
mod offboard;
mod prove;
mod provision;
mod restore;
mod role;
mod session;

use std::time::Duration;

use model::{OperationKind, Step};
use registry::{Actor, Change, Lease, Operation, Tenant};
use serde_json::Value;
use tokio::sync::Mutex;

pub(crate) use adopt::{agrees, version_by_shape};
pub(crate) use database::{
    await_empty, end_subscriptions, look, look_for_own, open_to_nobody_else, require_own,
};
pub(crate) use offboard::Grace;
pub(crate) use role::{create as create_role, role_is_there};

use crate::{
    Inner, Progress, ProvisionError,
    engine::{Moment, Observer, Point},
    error::StepError,
    server::Session,
};

type Saw = Result<Value, StepError>;

/// What a step that did not fail came to.
pub(crate) enum Ran {
    /// It is done, and this is what it saw.
    Saw(Value),
    /// It does nothing but wait, for so long.
    Waits(Duration),
}

/// What a step works with: fresh for each claim of an operation.
pub(crate) struct Context<'a> {
    inner: &'a Inner,
    operation: &'a Operation,
    lease: &'a Lease,
    observe: Observer<'a>,
    actor: Actor,
    /// The laboratory as it was when the step began, for the step's first look.
    known: Mutex<Option<Option<Tenant>>>,
    /// The session on the server's maintenance database, kept from step to step: a log-in costs more than most steps.
    session: Mutex<Option<Session>>,
    /// The administrator's session on the laboratory's own database, kept likewise.
    inside: Mutex<Option<tokio_postgres::Client>>,
    /// The session of the laboratory's own role, as its requests will come.
    own: Mutex<Option<tokio_postgres::Client>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        inner: &'a Inner,
        operation: &'a Operation,
        lease: &'a Lease,
        observe: Observer<'a>,
    ) -> Self {
        Self {
            inner,
            operation,
            lease,
            observe,
            actor: Actor::Worker(inner.owner.clone()),
            known: Mutex::new(None),
            session: Mutex::new(None),
            inside: Mutex::new(None),
            own: Mutex::new(None),
        }
    }

    /// The laboratory, read anew: an earlier step may have changed it.
    async fn tenant(&self) -> Result<Tenant, ProvisionError> {
        self.tenant_opt()
            .await?
            .ok_or_else(|| ProvisionError::TenantGone {
                slug: self.operation.tenant_slug.clone(),
            })
    }

    /// A step begins, and this is what its laboratory was just then; none: it is gone.
    pub(crate) async fn begins_with(&self, tenant: Option<Tenant>) {
        *self.known.lock().await = Some(tenant);
    }

    async fn tenant_opt(&self) -> Result<Option<Tenant>, ProvisionError> {
        if let Some(tenant) = self.known.lock().await.take() {
            return Ok(tenant);
        }
        let client = self.inner.config.registry.client().await?;
        Ok(registry::tenant_by_id(&client, self.operation.tenant).await?)
    }

    /// A moment within a step at which a test may stop.
    async fn reach(&self, step: Step, moment: Moment) {
        let point = Point {
            kind: self.operation.kind,
            undoing: !self.operation.kind.steps().contains(&step),
            step,
            moment,
        };
        self.inner.faults.reach(point).await;
    }

    /// Whether a step of this operation was ever begun.
    async fn has_begun(&self, step: Step) -> Result<bool, ProvisionError> {
        let client = self.inner.config.registry.client().await?;
        let rows = registry::steps_of(&client, self.operation.id).await?;
        Ok(rows.iter().any(|row| row.step == step))
    }

    /// To be called before what cannot be taken back, in its transaction where it has one: from here on nobody can call the
    /// operation off. Fails when somebody has.
    async fn pass_return(&self, client: &impl deadpool_postgres::GenericClient) -> Result<(), StepError> {
        self.unless_called_off(registry::operation_pass_return(client, self.lease).await?)
    }

    /// Until the transaction ends nobody can call the operation off. Fails when somebody has.
    async fn hold(&self, txn: &deadpool_postgres::Transaction<'_>) -> Result<(), StepError> {
        self.unless_called_off(registry::operation_hold_in_txn(txn, self.lease).await?)
    }

    fn unless_called_off(&self, wanted: bool) -> Result<(), StepError> {
        if wanted {
            return Ok(());
        }
        Err(StepError::fatal(ProvisionError::CalledOff {
            operation: self.operation.id,
            kind: self.operation.kind,
            slug: self.operation.tenant_slug.clone(),
            why: "before it could not be taken back".to_owned(),
        }))
    }

    /// To be called where it is seen that nothing has happened yet that cannot be taken back.
    async fn regain_return(&self) -> Result<(), StepError> {
        let client = self.inner.config.registry.client().await?;
        Ok(registry::operation_regain_return(&client, self.lease).await?)
    }

    fn change(&self) -> Change<'_> {
        Change::by(&self.actor).in_operation(self.operation.id)
    }

    /// Tells whoever watches, here and through the registry, how much is written. The registry is told when it can be:
    /// it is only for show.
    fn tell_bytes(&self, step: Step, bytes: u64, total: Option<u64>) {
        (self.observe)(Progress::Bytes { step, bytes, total });
        let (registry, lease) = (self.inner.config.registry.clone(), self.lease.clone());
        tokio::spawn(async move {
            let told = async {
                let client = registry.client().await?;
                let progress = serde_json::json!({ "bytes": bytes, "total": total });
                registry::operation_progress(&client, &lease, &progress).await
            };
            if let Err(error) = told.await {
                tracing::debug!(%error, "progress not told");
            }
        });
    }
}

/// How the registry marks a role or database on a server as one laboratory's own.
pub(crate) fn mark_of(tenant: &Tenant) -> String {
    format!("{}{}", migrator::LABORATORY_MARK, tenant.id)
}

/// A text as an SQL literal. Needed where the server takes no parameters: in DDL.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

pub(crate) async fn run(cx: &Context<'_>, step: Step, undoing: bool) -> Result<Ran, StepError> {
    let adopting = cx.operation.kind == OperationKind::Adopt;
    let saw = match step {
        Step::Grace => return offboard::grace(cx),
        Step::EnsureRole => provision::ensure_role(cx).await,
        Step::EnsureDatabase => provision::ensure_database(cx).await,
        Step::SecureDatabase if adopting => adopt::secure_database(cx).await,
        Step::SecureDatabase => provision::secure_database(cx).await,
        Step::EnsureSchema if adopting => adopt::ensure_schema(cx).await,
        Step::EnsureSchema => migrate::ensure_schema(cx).await,
        Step::Seed => provision::seed(cx).await,
        Step::Check => provision::check(cx).await,
        Step::Activate => provision::activate(cx).await,
        Step::RecordVersion => migrate::record_version(cx).await,
        Step::Fence => fence::fence(cx).await,
        Step::Dump => archive::dump(cx).await,
        Step::Verify => prove::verify(cx).await,
        Step::Prune => archive::prune(cx).await,
        Step::RestoreDatabase => restore::restore_database(cx).await,
        Step::SwapDatabase => restore::swap_database(cx).await,
        Step::DropReplaced => restore::drop_replaced(cx).await,
        Step::DropRestored => restore::drop_restored(cx).await,
        Step::Readmit => offboard::readmit(cx).await,
        Step::DropDatabase if undoing => provision::undo_database(cx).await,
        Step::DropDatabase => offboard::drop_database(cx).await,
        Step::DropRole => role::drop_role(cx).await,
        Step::RemoveTenant if undoing => provision::undo_tenant(cx).await,
        Step::RemoveTenant => offboard::remove_tenant(cx).await,
        Step::Inspect => adopt::inspect(cx).await,
        Step::Baseline => adopt::baseline(cx).await,
        Step::Release => adopt::release(cx).await,
    };
    saw.map(Ran::Saw)
}

/// What an operation that fails for good or is called off must not leave lying about, beside what undoing takes away. Failing
/// here is logged: the operation's own error matters more.
pub(crate) async fn clean_up(cx: &Context<'_>, called_off: bool) {
    if cx.operation.kind.steps().contains(&Step::Verify)
        && let Err(failure) = prove::drop_scratch(cx).await
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
        && let Err(failure) = archive::remove_unrecorded(cx).await
    {
        tracing::warn!(
            operation.id = %cx.operation.id,
            error = %failure.error,
            "the files of an archive that is not wanted may be left"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_hold_quotes_and_backslashes() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r" E'a\\''b'");
    }
}
