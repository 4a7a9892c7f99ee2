//! What a step works with.

use std::time::Duration;

use model::Step;
use registry::{Actor, Change, Lease, Operation, Tenant};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::{
    Inner, Progress, ProvisionError,
    engine::{
        Observer,
        fault::{Moment, Point},
    },
    error::StepError,
    server::AdminSession,
};

pub(crate) type StepResult = Result<Value, StepError>;

/// How a step ended that did not fail.
pub(crate) enum StepOutcome {
    /// It is done, and this is what it saw.
    Done(Value),
    /// It has nothing to do but wait for this long.
    Waits(Duration),
}

impl From<Value> for StepOutcome {
    fn from(saw: Value) -> Self {
        Self::Done(saw)
    }
}

/// What a step works with: fresh for each claim of an operation.
pub(crate) struct Context<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) operation: &'a Operation,
    pub(crate) lease: &'a Lease,
    /// Whether what the operation made is being taken away.
    pub(crate) undoing: bool,
    pub(crate) observe: Observer<'a>,
    pub(crate) actor: Actor,
    /// The laboratory as it was when the step began, for the step's first look.
    pub(crate) known: Mutex<Option<Option<Tenant>>>,
    /// The session on the server's maintenance database, kept from step to step: a log-in costs more than
    /// most steps.
    pub(crate) session: Mutex<Option<AdminSession>>,
    /// The administrator's session on the laboratory's own database, kept likewise.
    pub(crate) inside: Mutex<Option<tokio_postgres::Client>>,
    /// The session of the laboratory's own role, as its requests will come.
    pub(crate) own: Mutex<Option<tokio_postgres::Client>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        inner: &'a Inner,
        operation: &'a Operation,
        lease: &'a Lease,
        undoing: bool,
        observe: Observer<'a>,
    ) -> Self {
        Self {
            inner,
            operation,
            lease,
            undoing,
            observe,
            actor: Actor::Worker(inner.owner.clone()),
            known: Mutex::new(None),
            session: Mutex::new(None),
            inside: Mutex::new(None),
            own: Mutex::new(None),
        }
    }

    /// The laboratory, read anew: an earlier step may have changed it.
    pub(crate) async fn tenant(&self) -> Result<Tenant, ProvisionError> {
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

    pub(crate) async fn tenant_opt(&self) -> Result<Option<Tenant>, ProvisionError> {
        if let Some(tenant) = self.known.lock().await.take() {
            return Ok(tenant);
        }
        let client = self.inner.config.registry.client().await?;
        Ok(registry::tenant_by_id(&client, self.operation.tenant).await?)
    }

    /// A moment within a step at which a test may stop.
    pub(crate) async fn reach(&self, step: Step, moment: Moment) {
        let point = Point {
            kind: self.operation.kind,
            undoing: self.undoing,
            step,
            moment,
        };
        self.inner.faults.reach(point).await;
    }

    /// Whether a step of this operation was ever begun.
    pub(crate) async fn has_begun(&self, step: Step) -> Result<bool, ProvisionError> {
        let client = self.inner.config.registry.client().await?;
        let rows = registry::steps_of(&client, self.operation.id).await?;
        Ok(rows.iter().any(|row| row.step == step))
    }

    /// To be called before what cannot be taken back, in its transaction where it has one: from here on
    /// nobody can call the operation off. Fails when somebody has.
    pub(crate) async fn make_irreversible(
        &self,
        client: &impl deadpool_postgres::GenericClient,
    ) -> Result<(), StepError> {
        self.unless_cancelled(registry::operation_make_irreversible(client, self.lease).await?)
    }

    /// Until the transaction ends nobody can cancel the operation. Fails when somebody has.
    pub(crate) async fn hold(&self, txn: &deadpool_postgres::Transaction<'_>) -> Result<(), StepError> {
        self.unless_cancelled(registry::operation_hold_in_txn(txn, self.lease).await?)
    }

    pub(crate) fn unless_cancelled(&self, wanted: bool) -> Result<(), StepError> {
        if wanted {
            return Ok(());
        }
        Err(StepError::fatal(ProvisionError::Cancelled {
            operation: self.operation.id,
            kind: self.operation.kind,
            slug: self.operation.tenant_slug.clone(),
            why: "before it could not be taken back".to_owned(),
        }))
    }

    /// To be called where it is seen that nothing has happened yet that cannot be taken back.
    pub(crate) async fn make_reversible(&self) -> Result<(), StepError> {
        let client = self.inner.config.registry.client().await?;
        Ok(registry::operation_make_reversible(&client, self.lease).await?)
    }

    pub(crate) fn change(&self) -> Change<'_> {
        Change::by(&self.actor).in_operation(self.operation.id)
    }

    /// Reports to watchers, here and through the registry, how much is written. The registry is told when
    /// it can be: it is only for show.
    pub(crate) fn report_bytes(&self, step: Step, bytes: u64, total: Option<u64>) {
        (self.observe)(Progress::Bytes { step, bytes, total });
        let (registry, lease) = (self.inner.config.registry.clone(), self.lease.clone());
        tokio::spawn(async move {
            let writing = async {
                let client = registry.client().await?;
                let progress = serde_json::json!({ "bytes": bytes, "total": total });
                registry::operation_progress(&client, &lease, &progress).await
            };
            if let Err(error) = writing.await {
                tracing::debug!(%error, "progress is not recorded");
            }
        });
    }
}
