//! Asking for the backups that are due. Every worker looks; the registry gives each of them to one.

use model::{OperationId, OperationKind};
use registry::{Outcome, RegistryError};
use serde_json::json;

use crate::{
    ProvisionError, Provisioner, RequestedBy,
    request::{audit, begin, commit, insert_operation, not_found},
};

/// How many are asked for in one look: when many are due, as after a long standstill, they come in portions.
const AT_ONCE_MAX: usize = 16;

impl Provisioner {
    /// Looks until it is aborted.
    pub(crate) async fn ask_for_due_backups(&self) {
        let every = self.inner.config.bounds.schedules_every;
        loop {
            if let Err(error) = self.request_due_backups().await {
                tracing::warn!(%error, "backups that are due cannot be asked for; trying again");
            }
            // Several workers need not look at the same moment.
            tokio::time::sleep(every.mul_f64(rand::random_range(0.75..=1.25))).await;
        }
    }

    /// Asks for the backups that are due now, a bounded number of them, and says which. One that was missed,
    /// however often, is made once. What keeps a backup from being made, as it would one that a person asks
    /// for, is noted as its failure, and it is due again soon.
    ///
    /// # Errors
    /// [`ProvisionError::Registry`] when the registry cannot be asked.
    pub async fn request_due_backups(&self) -> Result<Vec<OperationId>, ProvisionError> {
        let mut asked = Vec::new();
        for _ in 0..AT_ONCE_MAX {
            match self.request_due_backup().await {
                Ok(Due::Asked(operation)) => asked.push(operation),
                Ok(Due::Refused) => {}
                Ok(Due::None) => break,
                // Somebody asked for another operation between our look and our write: it is due again at the
                // next look.
                Err(ProvisionError::Registry(RegistryError::OperationInProgress { tenant })) => {
                    tracing::debug!(tenant.id = %tenant, "a backup that is due waits for another operation");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(asked)
    }

    async fn request_due_backup(&self) -> Result<Due, ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        let Some(tenant) = registry::backup_schedule_due(&client).await? else {
            return Ok(Due::None);
        };
        // Without a lock: it may take its time.
        let refused = match self.inner.require_backup(tenant).await {
            Ok(()) => None,
            Err(error @ (ProvisionError::Unmet { .. } | ProvisionError::Refused { .. })) => Some(error),
            Err(error) => return Err(error),
        };
        let txn = begin(&mut client).await?;
        // Another worker may have been quicker.
        let Some(schedule) = registry::backup_schedule_take_due_in_txn(&txn, tenant).await? else {
            return Ok(Due::Refused);
        };
        if let Some(error) = refused {
            let why = error.to_string();
            tracing::warn!(tenant.slug = %schedule.tenant_slug, error = why, "a backup that is due cannot be made now");
            registry::backup_schedule_note_end_in_txn(&txn, tenant, Outcome::Failed(&why)).await?;
            commit(txn).await?;
            return Ok(Due::Refused);
        }
        let tenant = registry::tenant_by_id(&txn, schedule.tenant)
            .await?
            .ok_or_else(|| not_found(schedule.tenant))?;
        let by = RequestedBy::actor(schedule.created_by);
        let id = OperationId::generate();
        let params = json!({ "scheduled": true });
        let written = insert_operation(&txn, id, OperationKind::Backup, &tenant, params, &by).await?;
        audit(&txn, "tenant.backup_due", &written, &by).await?;
        commit(txn).await?;
        Ok(Due::Asked(id))
    }
}

/// What came of a look for a backup that is due.
enum Due {
    /// None is.
    None,
    /// It was asked for.
    Asked(OperationId),
    /// It cannot be made now, or somebody else asked for it.
    Refused,
}
