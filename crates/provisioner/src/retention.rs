//! Backup schedules: how often a laboratory is backed up, what is kept of it, and removing what is past its
//! time.

use std::time::Duration;

use model::TenantId;
use registry::{Actor, Archive, BackupSchedule, NewAudit, NewBackupSchedule, PAGE_MAX};
use serde_json::json;

use crate::{
    Inner, ProvisionError, Provisioner, RequestedBy,
    request::{begin, commit, not_found},
};

/// The shortest and the longest time between two backups.
const EVERY: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(3_600)..=Duration::from_secs(366 * 86_400);
/// The longest that each backup can be kept at least: 36,600 days.
const KEEP_FOR_MAX: Duration = Duration::from_secs(36_600 * 86_400);
const KEEP_LAST_MAX: u32 = 10_000;
/// How many archives one pruning removes; the next one goes on.
const PRUNED_AT_ONCE_MAX: u32 = PAGE_MAX;

/// When a laboratory is backed up, and what is kept.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// How often: an hour to 366 days.
    pub every: Duration,
    /// How many backups are kept at least.
    pub keep_last: u32,
    /// How long each is kept at least.
    pub keep_for: Option<Duration>,
}

impl Schedule {
    fn check(&self) -> Result<(), ProvisionError> {
        let invalid = |field, why: &str| {
            let why = why.to_owned();
            Err(ProvisionError::Invalid { field, why })
        };
        if !EVERY.contains(&self.every) {
            return invalid("every", "backups are made every hour to every 366 days");
        }
        if !(1..=KEEP_LAST_MAX).contains(&self.keep_last) {
            return invalid("keepLast", "1 to 10,000 backups are kept");
        }
        if self
            .keep_for
            .is_some_and(|time| !(*EVERY.start()..=KEEP_FOR_MAX).contains(&time))
        {
            return invalid("keepFor", "a backup is kept for an hour to 36,600 days");
        }
        Ok(())
    }
}

impl Provisioner {
    /// Sets a laboratory's backup schedule; the first backup is made soon. `None` ends it, and from then on
    /// nothing of it is pruned.
    ///
    /// # Errors
    /// [`ProvisionError::Invalid`] names the field, [`registry::RegistryError::NotFound`].
    pub async fn set_backup_schedule(
        &self,
        tenant: TenantId,
        schedule: Option<Schedule>,
        by: RequestedBy,
    ) -> Result<Option<BackupSchedule>, ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        let txn = begin(&mut client).await?;
        let found = registry::tenant_lock_in_txn(&txn, tenant)
            .await?
            .ok_or_else(|| not_found(tenant))?;
        let (set, detail) = match &schedule {
            Some(schedule) => {
                schedule.check()?;
                let new = NewBackupSchedule {
                    tenant,
                    every: schedule.every,
                    keep_last: schedule.keep_last,
                    keep_for: schedule.keep_for,
                    first_in: Duration::ZERO,
                    by: by.actor.clone(),
                };
                let detail = json!({
                    "slug": found.slug,
                    "everySeconds": schedule.every.as_secs(),
                    "keepLast": schedule.keep_last,
                    "keepForSeconds": schedule.keep_for.map(|time| time.as_secs()),
                });
                (
                    Some(registry::backup_schedule_set_in_txn(&txn, &new).await?),
                    detail,
                )
            }
            None => {
                registry::backup_schedule_remove(&txn, tenant).await?;
                (None, json!({ "slug": found.slug, "ended": true }))
            }
        };
        let entry = NewAudit {
            actor: &by.actor,
            action: "tenant.backup_schedule_set",
            tenant: Some(tenant),
            detail,
            request_id: by.request_id.as_deref(),
            client_ip: by.client_ip,
        };
        registry::audit_insert(&txn, &entry).await?;
        commit(txn).await?;
        Ok(set)
    }

    /// Which archives no schedule keeps any more, of one laboratory or of all; nothing is removed.
    ///
    /// # Errors
    /// [`ProvisionError::Registry`] when the registry cannot be asked.
    pub async fn prunable_archives(&self, tenant: Option<TenantId>) -> Result<Vec<Archive>, ProvisionError> {
        let client = self.inner.config.registry.client().await?;
        let mut found = registry::archives_being_pruned(&client, tenant, PRUNED_AT_ONCE_MAX).await?;
        found.extend(registry::archives_prunable(&client, tenant, PRUNED_AT_ONCE_MAX).await?);
        Ok(found)
    }

    /// Removes the archives that no schedule keeps any more, and says which; at most 500, the next call goes
    /// on. Never the one that was verified last, never one of a laboratory that is gone, never one that is
    /// being restored.
    ///
    /// # Errors
    /// [`ProvisionError::Archive`] when the files cannot be removed; what was begun goes on next time.
    pub async fn prune_archives(
        &self,
        tenant: Option<TenantId>,
        by: RequestedBy,
    ) -> Result<Vec<Archive>, ProvisionError> {
        prune(&self.inner, tenant, &by.actor).await
    }
}

/// Files first, then the row: one that was cut off in between is found by its row and gone on with.
pub(crate) async fn prune(
    inner: &Inner,
    tenant: Option<TenantId>,
    actor: &Actor,
) -> Result<Vec<Archive>, ProvisionError> {
    let registry = &inner.config.registry;
    let mut client = registry.client().await?;
    for archive in registry::archives_prunable(&client, tenant, PRUNED_AT_ONCE_MAX).await? {
        if is_elsewhere(inner, &archive).await {
            continue;
        }
        let txn = begin(&mut client).await?;
        registry::archive_begin_pruning(&txn, archive.id).await?;
        commit(txn).await?;
    }
    let begun = registry::archives_being_pruned(&client, tenant, PRUNED_AT_ONCE_MAX).await?;
    drop(client);
    let mut pruned = Vec::new();
    for archive in begun {
        if is_elsewhere(inner, &archive).await {
            continue;
        }
        let removed = async {
            archive::Location::parse(&archive.location)?
                .remove_archive()
                .await
        };
        if let Err(error) = removed.await {
            // The others are not kept for it, nor is the backup that came before this told as failed; the
            // mark stays, and the next look tries again.
            tracing::warn!(
                archive.id = %archive.id,
                location = archive.location,
                %error,
                "an archive past its time cannot be removed; trying again later"
            );
            continue;
        }
        let mut client = registry.client().await?;
        let txn = begin(&mut client).await?;
        // Another may have been quicker.
        if registry::archive_remove(&txn, archive.id).await? {
            let entry = NewAudit {
                actor,
                action: "archive.pruned",
                tenant: Some(archive.tenant),
                detail: json!({ "archive": archive.id, "slug": archive.tenant_slug, "location": archive.location }),
                request_id: None,
                client_ip: None,
            };
            registry::audit_insert(&txn, &entry).await?;
        }
        commit(txn).await?;
        pruned.push(archive);
    }
    Ok(pruned)
}

/// Whether another host has to remove it: a file that this one does not see is not gone.
async fn is_elsewhere(inner: &Inner, archive: &Archive) -> bool {
    match archive::Location::parse(&archive.location) {
        Ok(location) => {
            let host = inner.lies_elsewhere(&location, archive.host.as_deref()).await;
            // Gone here too where this host wrote it; on another one its directory may merely not be mounted
            // here.
            host.is_some()
        }
        Err(_) => false,
    }
}
