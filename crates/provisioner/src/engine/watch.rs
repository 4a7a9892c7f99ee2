//! Running one operation in the foreground, or watching while another process runs it.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use model::{OperationId, OperationStatus, Step, StepStatus};
use registry::{Claimable, Operation, RegistryError, StepRow};
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    Progress, ProvisionError, Provisioner,
    engine::Observer,
    operations::{steps, undo_steps},
};

/// How often an operation that is not ours is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Provisioner {
    /// Runs an operation to its end, waiting for its next try where one failed; while another worker has it,
    /// watches instead. One that waits for a time to pass (the grace period of a removal) is returned as it
    /// is then. Dropping the future stops the work; the operation goes on elsewhere once its lease has ended.
    ///
    /// # Errors
    /// [`ProvisionError::Failed`] when the operation ended without success, [`ProvisionError::Cancelled`];
    /// others when the registry cannot be asked.
    pub async fn run(
        &self,
        operation: OperationId,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Operation, ProvisionError> {
        self.run_until(operation, progress, std::future::pending()).await
    }

    /// As [`Provisioner::run`], until `stop` is ready: then the operation is given back at once.
    ///
    /// # Errors
    /// As [`Provisioner::run`], and [`ProvisionError::Interrupted`].
    pub async fn run_until(
        &self,
        operation: OperationId,
        progress: impl Fn(Progress) + Send + Sync,
        stop: impl Future<Output = ()>,
    ) -> Result<Operation, ProvisionError> {
        let (sender, receiver) = watch::channel(false);
        let stopping = async {
            stop.await;
            let _ = sender.send(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = self.to_the_end(operation, &progress, receiver) => outcome,
            () = stopping => unreachable!("it waits for ever"),
        }
    }

    async fn to_the_end(
        &self,
        id: OperationId,
        observe: Observer<'_>,
        stop: watch::Receiver<bool>,
    ) -> Result<Operation, ProvisionError> {
        let config = &self.inner.config;
        let mut watched = Watched::default();
        loop {
            if *stop.borrow() {
                return Err(ProvisionError::Interrupted { operation: id });
            }
            let client = config.registry.client().await?;
            let claimable = Claimable::Operation(id);
            if let Some((operation, lease)) =
                registry::operation_claim(&client, &self.inner.owner, config.lease, claimable).await?
            {
                drop(client);
                match self.carry_out(operation, lease, observe, stop.clone()).await {
                    // Another has it now: watch that one.
                    Err(ProvisionError::Registry(RegistryError::LeaseLost { .. })) => {}
                    outcome => outcome?,
                }
                watched = Watched::default();
                watched.quiet = true;
                let client = config.registry.client().await?;
                match registry::operation_by_id(&client, id).await? {
                    Some(ended) if ended.status == OperationStatus::Succeeded => return Ok(ended),
                    _ => continue,
                }
            }
            let Some(operation) = registry::operation_by_id(&client, id).await? else {
                let (what, id) = (registry::Entity::Operation, id.to_string());
                return Err(RegistryError::NotFound { what, id }.into());
            };
            let rows = registry::steps_of(&client, id).await?;
            drop(client);
            watched.report(&operation, &rows, observe);
            match operation.status {
                OperationStatus::Succeeded => return Ok(operation),
                OperationStatus::Pending if operation.is_waiting() => return Ok(operation),
                OperationStatus::Cancelled => {
                    return Err(ProvisionError::Cancelled {
                        operation: id,
                        kind: operation.kind,
                        why: operation.error_text().unwrap_or_default(),
                        slug: operation.tenant_slug,
                    });
                }
                OperationStatus::Failed => {
                    return Err(ProvisionError::Failed {
                        operation: id,
                        kind: operation.kind,
                        error: operation.error_text().unwrap_or_default(),
                        slug: operation.tenant_slug,
                    });
                }
                OperationStatus::Pending | OperationStatus::Running | OperationStatus::Undoing => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
    }
}

/// What was reported already of an operation that another worker runs.
#[derive(Default)]
struct Watched {
    owner: Option<Option<String>>,
    steps: HashMap<Step, (StepStatus, Timestamp)>,
    /// We ran it ourselves just now, and have reported all that the rows say.
    quiet: bool,
}

impl Watched {
    fn report(&mut self, operation: &Operation, rows: &[StepRow], observe: Observer<'_>) {
        let quiet = std::mem::take(&mut self.quiet);
        let over = operation.status.is_final();
        if !quiet && !over && self.owner.as_ref() != Some(&operation.lease_owner) {
            self.owner = Some(operation.lease_owner.clone());
            let owner = operation.lease_owner.clone();
            observe(Progress::Watching { owner });
        }
        for row in rows {
            let now = (row.status, row.began_at);
            let before = self.steps.insert(row.step, now);
            if quiet || before == Some(now) {
                continue;
            }
            if before.is_none_or(|(_, began_at)| began_at != row.began_at) {
                observe(began(operation, row));
            }
            match row.status {
                StepStatus::Running => {}
                StepStatus::Done => observe(Progress::StepDone {
                    step: row.step,
                    took: row
                        .ended_at
                        .and_then(|ended| Duration::try_from(ended.duration_since(row.began_at)).ok())
                        .unwrap_or_default(),
                    saw: row.saw.clone().unwrap_or(Value::Null),
                }),
                StepStatus::Failed => observe(Progress::StepFailed {
                    step: row.step,
                    error: row.error.clone().unwrap_or_default(),
                }),
            }
        }
        let number = |name: &str| operation.progress.as_ref()?.get(name)?.as_u64();
        let (bytes, total) = (number("bytes"), number("total"));
        let running = rows.iter().find(|row| row.status == StepStatus::Running);
        if let (Some(bytes), Some(row)) = (bytes, running) {
            observe(Progress::Bytes {
                step: row.step,
                bytes,
                total,
            });
        }
    }
}

fn began(operation: &Operation, row: &StepRow) -> Progress {
    let place = |steps: &[Step]| {
        steps
            .iter()
            .position(|&step| step == row.step)
            .map(|at| (at + 1, steps.len()))
    };
    let forward = place(steps(operation.kind));
    let (number, of) = forward
        .or_else(|| place(undo_steps(operation.kind)))
        .unwrap_or_default();
    Progress::StepBegan {
        step: row.step,
        number,
        of,
        undoing: forward.is_none(),
    }
}
