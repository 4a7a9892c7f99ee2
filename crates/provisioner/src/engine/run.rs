//! Running one claimed operation: its steps in order, skipping those that are done, under a lease that is
//! renewed on the side. A failure that may pass gives the operation back with a wait that is kept in the
//! registry; any other, or one too many, turns it to undoing where there is something to undo, and ends it.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use model::{OperationKind, OperationStatus, Step, StepStatus, TenantState, UndoReason};
use registry::{Actor, Lease, NewAudit, NewTenantEvent, Operation, Outcome, RegistryError, StepRow};
use serde_json::{Value, json};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::{
    Inner, Progress, ProvisionError, Provisioner,
    engine::{
        Context, Observer, StepOutcome,
        fault::{Moment, Point},
    },
    error::StepError,
    operations::{self, Sequence, StepFn, definition, steps, undo_steps},
    request::{begin, commit},
};

/// How long giving an operation back may take when this process is asked to stop.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);
/// How many times `attempts_max` an operation may be begun when its processes keep dying.
const CUT_OFF_FACTOR: u32 = 4;
/// How often it is looked whether an operation is cancelled while one of its steps is under way.
const CANCEL_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Aborts a task when it goes out of scope.
pub(crate) struct Aborting(pub(crate) JoinHandle<()>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Provisioner {
    /// Carries a claimed operation as far as it goes. `stop` turning true interrupts it between two polls and
    /// gives it back at once.
    pub(crate) async fn carry_out(
        &self,
        operation: Operation,
        lease: Lease,
        observe: Observer<'_>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), ProvisionError> {
        let inner = &*self.inner;
        observe(Progress::Claimed {
            kind: operation.kind,
            attempt: operation.attempts,
        });
        let (lost_sender, lost) = oneshot::channel();
        let _heartbeat = Aborting(tokio::spawn(heartbeat(self.clone(), lease.clone(), lost_sender)));
        let run = Run {
            inner,
            operation: &operation,
            lease: &lease,
            observe,
        };
        let stopped = async {
            // A sender that is gone will never say stop.
            if stop.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            outcome = run.all() => outcome,
            _ = lost => Err(RegistryError::LeaseLost { operation: operation.id }.into()),
            () = stopped => {
                run.give_back("interrupted: the process that ran it was shut down").await;
                Err(ProvisionError::Interrupted { operation: operation.id })
            }
        }
    }
}

/// Renews the lease until it is lost: taken away, or run out because the registry could not be asked in time.
async fn heartbeat(provisioner: Provisioner, lease: Lease, lost: oneshot::Sender<()>) {
    let length = provisioner.inner.config.lease;
    let mut good_until = Instant::now() + length;
    loop {
        tokio::time::sleep(length / 4).await;
        let asked_at = Instant::now();
        let renewing = async {
            let client = provisioner.inner.config.registry.client().await?;
            registry::operation_renew(&client, &lease, length).await
        };
        let left = good_until.saturating_duration_since(asked_at);
        match tokio::time::timeout(left, renewing).await {
            Ok(Ok(())) => good_until = asked_at + length,
            Ok(Err(RegistryError::LeaseLost { .. })) => break,
            Ok(Err(error)) => {
                tracing::warn!(operation.id = %lease.operation, %error, "the lease could not be renewed; trying again");
            }
            Err(_elapsed) => break,
        }
        if Instant::now() >= good_until {
            break;
        }
    }
    tracing::warn!(operation.id = %lease.operation, "the lease is lost; stopping");
    // The receiver may be gone already, when the work has just ended.
    let _ = lost.send(());
}

struct Run<'a> {
    inner: &'a Inner,
    operation: &'a Operation,
    lease: &'a Lease,
    observe: Observer<'a>,
}

/// What a sequence of steps came to.
enum Ended {
    Done,
    /// Given back, to be tried again or to go on later.
    GivenBack,
    /// Someone asked to cancel it.
    Cancelled,
    /// For good, for this reason.
    Failed(String),
}

impl Run<'_> {
    async fn all(&self) -> Result<(), ProvisionError> {
        let kind = self.operation.kind;
        if self.operation.status == OperationStatus::Undoing {
            let why = self.operation.error.clone().unwrap_or_default();
            return self.undo(self.operation.why_undone(), &why).await;
        }
        let cx = Context::new(self.inner, self.operation, self.lease, false, self.observe);
        let ended = if self.died_too_often() {
            Ended::Failed(format!(
                "gave up after {} tries: the processes that ran it died",
                self.operation.attempts - 1
            ))
        } else {
            tokio::select! {
                ended = self.sequence(&cx, &definition(kind).steps) => ended?,
                // The step under way is dropped with its programs. What it left on the server is ended by the
                // undoing.
                () = self.cancelled() => Ended::Cancelled,
            }
        };
        let cancelled = matches!(ended, Ended::Cancelled);
        let (reason, why) = match ended {
            Ended::GivenBack => return Ok(()),
            Ended::Done => {
                // Nothing is done on the server any more, so its session is given back meanwhile.
                let (finished, ()) = tokio::join!(self.finish(Outcome::Succeeded), cx.close());
                return finished;
            }
            Ended::Cancelled => (UndoReason::Cancelled, self.cancelled_by().await?),
            // Asked for while the step failed.
            Ended::Failed(_) if self.is_cancel_requested().await? => {
                (UndoReason::Cancelled, self.cancelled_by().await?)
            }
            Ended::Failed(why) => {
                if !kind.failure_is_undone() || !self.may_be_undone().await? {
                    operations::clean_up(&cx, false).await;
                    return self.finish(Outcome::Failed(&why)).await;
                }
                (UndoReason::Failed, why)
            }
        };
        operations::clean_up(&cx, cancelled).await;
        drop(cx);
        let client = self.inner.config.registry.client().await?;
        registry::operation_set_undoing(&client, self.lease, reason, &why).await?;
        drop(client);
        (self.observe)(Progress::Undoing { error: why.clone() });
        self.undo(reason, &why).await
    }

    /// Returns when someone has asked to cancel the operation and it can still be taken back.
    async fn cancelled(&self) {
        loop {
            match self.is_cancel_requested().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(operation.id = %self.operation.id, %error, "not known whether it is cancelled");
                }
            }
            tokio::time::sleep(CANCEL_LOOK_EVERY).await;
        }
    }

    async fn is_cancel_requested(&self) -> Result<bool, ProvisionError> {
        let client = self.inner.config.registry.client().await?;
        Ok(registry::operation_cancel_is_requested(&client, self.lease).await?)
    }

    /// Who cancelled it, as its error says it.
    async fn cancelled_by(&self) -> Result<String, ProvisionError> {
        let client = self.inner.config.registry.client().await?;
        let now = registry::operation_by_id(&client, self.operation.id).await?;
        let by = now.and_then(|operation| operation.cancel_requested_by);
        let by = by.map_or_else(|| "nobody who is known".to_owned(), |by| by.to_string());
        Ok(format!("cancelled by {by}"))
    }

    /// Failures end an operation at `attempts_max`; the tries beside them were cut off by a crash each. They
    /// are given more room, since a machine may be restarted often, but not for ever.
    fn died_too_often(&self) -> bool {
        self.operation.attempts
            > self
                .inner
                .config
                .bounds
                .attempts_max
                .saturating_mul(CUT_OFF_FACTOR)
    }

    /// What was being made and is in service stays, whatever its operation says: its activation may have been
    /// committed just before the connection broke.
    async fn may_be_undone(&self) -> Result<bool, ProvisionError> {
        if self.operation.kind == OperationKind::RestoreInPlace {
            return Ok(!self.is_irreversible().await?);
        }
        let client = self.inner.config.registry.client().await?;
        let tenant = registry::tenant_by_id(&client, self.operation.tenant).await?;
        Ok(tenant.is_none_or(|t| t.status == TenantState::Provisioning))
    }

    async fn undo(&self, reason: UndoReason, why: &str) -> Result<(), ProvisionError> {
        let cx = Context::new(self.inner, self.operation, self.lease, true, self.observe);
        match self.sequence(&cx, &definition(self.operation.kind).undo).await? {
            Ended::GivenBack | Ended::Cancelled => Ok(()),
            Ended::Done => match reason {
                UndoReason::Cancelled => self.finish(Outcome::Cancelled(why)).await,
                UndoReason::Failed => self.finish(Outcome::Failed(why)).await,
            },
            Ended::Failed(undo_error) => {
                let (error, undo_error) = (why, undo_error.as_str());
                self.finish(Outcome::FailedToUndo { error, undo_error }).await
            }
        }
    }

    async fn is_irreversible(&self) -> Result<bool, ProvisionError> {
        let client = self.inner.config.registry.client().await?;
        let now = registry::operation_by_id(&client, self.operation.id).await?;
        Ok(now.is_some_and(|operation| operation.irreversible))
    }

    /// When a step of the other direction was begun last. What was done before that may have been taken away
    /// since (or made again, when a failed operation was reopened after its undoing), so it counts no
    /// more.
    fn turned_at(&self, known: &[StepRow], undoing: bool) -> Option<Timestamp> {
        let kind = self.operation.kind;
        let (own, opposite) = if undoing {
            (undo_steps(kind), steps(kind))
        } else {
            (steps(kind), undo_steps(kind))
        };
        // A step that stands in both directions says nothing.
        let begun = known
            .iter()
            .filter(|row| opposite.contains(&row.step) && !own.contains(&row.step));
        begun.map(|row| row.began_at).max()
    }

    /// Runs the steps that are not done yet.
    async fn sequence(&self, cx: &Context<'_>, sequence: &'static Sequence) -> Result<Ended, ProvisionError> {
        let undoing = cx.undoing;
        let client = self.inner.config.registry.client().await?;
        let known = registry::steps_of(&client, self.operation.id).await?;
        drop(client);
        let turned_at = self.turned_at(&known, undoing);
        // Noted together with the begin of the next step, which saves the registry half of the writing.
        let mut to_note = None;
        for (at, (&step, &function)) in sequence.order.iter().zip(sequence.functions).enumerate() {
            let done = |row: &StepRow| {
                // One that stands in both directions may have been done in the other: it looks before it
                // acts.
                let kind = self.operation.kind;
                let in_both = steps(kind).contains(&step) && undo_steps(kind).contains(&step);
                !in_both
                    && row.step == step
                    && row.status == StepStatus::Done
                    && turned_at.is_none_or(|t| row.began_at > t)
            };
            if known.iter().any(done) {
                continue;
            }
            (self.observe)(Progress::StepBegan {
                step,
                number: at + 1,
                of: sequence.order.len(),
                undoing,
            });
            let failure = match self.step(cx, to_note.take(), (step, function), undoing).await? {
                Ok(StepOutcome::Done(saw)) => {
                    to_note = Some((step, saw));
                    continue;
                }
                Ok(StepOutcome::Waits(delay)) => {
                    let client = self.inner.config.registry.client().await?;
                    registry::operation_wait(&client, self.lease, delay).await?;
                    (self.observe)(Progress::Waiting { delay });
                    return Ok(Ended::GivenBack);
                }
                Err(failure) => failure,
            };
            if matches!(failure.error, ProvisionError::Cancelled { .. }) {
                return Ok(Ended::Cancelled);
            }
            let error = failure.error.to_string();
            // Another host may have what this one lacks. It is told by the registry's clock how long that is
            // hoped for.
            if matches!(failure.error, ProvisionError::Elsewhere { .. }) {
                if self.operation.left_long_enough() {
                    let limit = self.inner.config.bounds.elsewhere_limit.as_secs();
                    let tried = self.operation.not_here.join(", ");
                    return Ok(Ended::Failed(format!(
                        "{step}: {error}; it was left to others for {limit} s, and none came (tried on: \
                         {tried})"
                    )));
                }
                return self.leave_to_others(step, &error).await;
            }
            let attempts_max = self.inner.config.bounds.attempts_max;
            // Turning to undoing counts the failures anew without a new claim.
            let attempt = if undoing && self.operation.status != OperationStatus::Undoing {
                1
            } else {
                self.operation.failures + 1
            };
            if !failure.retry {
                return Ok(Ended::Failed(format!("{step}: {error}")));
            }
            if attempt >= attempts_max {
                return Ok(Ended::Failed(format!(
                    "{step}: gave up after {attempt} tries: {error}"
                )));
            }
            let delay = self.inner.config.bounds.backoff(attempt);
            let kept = format!("{step}: {error}");
            tracing::warn!(
                operation.id = %self.operation.id,
                tenant.slug = %self.operation.tenant_slug,
                %step,
                attempt,
                error,
                delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                "a step failed and will be tried again"
            );
            let client = self.inner.config.registry.client().await?;
            registry::operation_release_for_retry(&client, self.lease, delay, &kept).await?;
            (self.observe)(Progress::WillRetry { delay });
            return Ok(Ended::GivenBack);
        }
        if let Some((last, saw)) = to_note {
            let client = self.inner.config.registry.client().await?;
            registry::step_done(&client, self.lease, last, &saw).await?;
        }
        Ok(Ended::Done)
    }

    async fn leave_to_others(&self, step: Step, error: &str) -> Result<Ended, ProvisionError> {
        let (host, limit) = (&self.inner.host, self.inner.config.bounds.elsewhere_limit);
        let client = self.inner.config.registry.client().await?;
        let why = format!("{step}: {error}");
        registry::operation_leave_to_others(&client, self.lease, host, limit, &why).await?;
        tracing::info!(
            operation.id = %self.operation.id,
            tenant.slug = %self.operation.tenant_slug,
            %step,
            error,
            "an operation is left to another host"
        );
        (self.observe)(Progress::LeftToOthers {
            error: error.to_owned(),
        });
        Ok(Ended::GivenBack)
    }

    /// One try of one step. The outer error means that the registry did not record it, or that the lease is
    /// lost: then nothing more may be done.
    async fn step(
        &self,
        cx: &Context<'_>,
        done: Option<(Step, Value)>,
        (step, function): (Step, StepFn),
        undoing: bool,
    ) -> Result<Result<StepOutcome, StepError>, ProvisionError> {
        let point = |moment| Point {
            kind: self.operation.kind,
            undoing,
            step,
            moment,
        };
        let registry = &self.inner.config.registry;
        let done = done.as_ref().map(|(step, saw)| (*step, saw));
        let client = registry.client().await?;
        // Both questions go to the registry at once: nearly every step begins with the second one.
        let (_, tenant) = tokio::try_join!(
            registry::step_begin(&client, self.lease, done, step),
            registry::tenant_by_id(&client, self.operation.tenant),
        )?;
        drop(client);
        cx.begins_with(tenant).await;
        self.inner.faults.reach(point(Moment::Begun)).await;
        let began = Instant::now();
        match function(cx).await {
            Ok(StepOutcome::Waits(delay)) => Ok(Ok(StepOutcome::Waits(delay))),
            Ok(StepOutcome::Done(saw)) => {
                self.inner.faults.reach(point(Moment::Acted)).await;
                let took = began.elapsed();
                (self.observe)(Progress::StepDone {
                    step,
                    took,
                    saw: saw.clone(),
                });
                Ok(Ok(StepOutcome::Done(saw)))
            }
            Err(StepError {
                error: ProvisionError::Registry(lost @ RegistryError::LeaseLost { .. }),
                ..
            }) => Err(lost.into()),
            Err(failure) => {
                let error = failure.error.to_string();
                let client = registry.client().await?;
                registry::step_failed(&client, self.lease, step, &error).await?;
                // An archive that is verified once more does not come from a dump of this operation.
                let steps = steps(self.operation.kind);
                for &earlier in failure.error.invalidates(step) {
                    if !steps.contains(&earlier) {
                        continue;
                    }
                    registry::step_failed(&client, self.lease, earlier, &error).await?;
                }
                (self.observe)(Progress::StepFailed { step, error });
                Ok(Err(failure))
            }
        }
    }

    /// Ends the operation, with an event (while there is a laboratory to have it), an audit row, and what
    /// others are told.
    async fn finish(&self, outcome: Outcome<'_>) -> Result<(), ProvisionError> {
        let operation = self.operation;
        let (word, error) = (outcome.status(), outcome.error_text());
        let actor = Actor::Worker(self.inner.owner.clone());
        let detail = json!({
            "operation": operation.id,
            "kind": operation.kind,
            "slug": operation.tenant_slug,
            "error": error,
        });
        let mut client = self.inner.config.registry.client().await?;
        let txn = begin(&mut client).await?;
        // The laboratory's row first, then its events, in the order in which every change of its state locks
        // them.
        let there = registry::tenant_lock_in_txn(&txn, operation.tenant)
            .await?
            .is_some();
        // Before the operation's row, because it locks the laboratory's events: whoever changes the
        // laboratory holds that lock before it looks at the laboratory's operations.
        registry::outbox_of_operation_end(&txn, operation, outcome, &actor).await?;
        registry::operation_finish(&txn, self.lease, outcome).await?;
        if operation.kind == OperationKind::Backup {
            registry::backup_schedule_note_end_in_txn(&txn, operation.tenant, outcome).await?;
        }
        let kind = format!("{}_{word}", operation.kind);
        let event = NewTenantEvent {
            tenant: operation.tenant,
            kind: &kind,
            actor: &actor,
            operation: Some(operation.id),
            detail: detail.clone(),
        };
        let action = format!("operation.{word}");
        let entry = NewAudit {
            actor: &actor,
            action: &action,
            tenant: Some(operation.tenant),
            detail,
            request_id: None,
            client_ip: None,
        };
        let telling = async {
            if there {
                registry::event_insert(&txn, &event).await?;
            }
            Ok(())
        };
        tokio::try_join!(biased; telling, registry::audit_insert(&txn, &entry))?;
        commit(txn).await?;
        tracing::info!(
            operation.id = %operation.id,
            operation.kind = %operation.kind,
            tenant.slug = %operation.tenant_slug,
            error,
            "operation {word}"
        );
        Ok(())
    }

    async fn give_back(&self, why: &str) {
        let releasing = async {
            let client = self.inner.config.registry.client().await?;
            registry::operation_give_back(&client, self.lease, why).await
        };
        match tokio::time::timeout(RELEASE_LIMIT, releasing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(operation.id = %self.operation.id, %error, "an interrupted operation waits for its lease to end");
            }
            Err(_elapsed) => {
                tracing::warn!(operation.id = %self.operation.id, "an interrupted operation waits for its lease to end");
            }
        }
    }
}
