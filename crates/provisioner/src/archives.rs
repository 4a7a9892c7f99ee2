//! Asking for backups and restores, and removing archives past their time.

use std::time::Duration;

use archive::Manifest;
use model::{ArchiveId, OperationId, OperationKind, ServerName, Slug, TenantId, TenantState};
use registry::{
    Actor, Archive, BackupSchedule, NewAudit, NewBackupSchedule, NewOperation, PAGE_MAX, RegistryError,
    Tenant,
};
use serde_json::json;

use crate::{
    Inner, ProvisionError, Provisioner, RequestedBy,
    operations::archived_admins::open_admins,
    preconditions::Planned,
    request::{
        audit, begin, commit, earlier, insert_operation, not_found, only_server, role_secret_context,
        tenant_of,
    },
};

/// The shortest and the longest time between two backups.
const EVERY: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(3_600)..=Duration::from_secs(366 * 86_400);
/// The longest that each backup can be kept at least: 36,600 days.
const KEEP_FOR_MAX: Duration = Duration::from_secs(36_600 * 86_400);
const KEEP_LAST_MAX: u32 = 10_000;
/// How many archives one pruning removes; the next one goes on.
const PRUNED_AT_ONCE_MAX: u32 = PAGE_MAX;

/// As what an archive comes back.
#[derive(Debug, Clone, Default)]
pub struct RestoreAs {
    /// Another laboratory with this slug; the same one under its id and slug when absent.
    pub slug: Option<Slug>,
    /// On this server; where the laboratory lived when absent, or on the only one there is.
    pub server: Option<ServerName>,
}

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
    /// Asks for an archive of a laboratory that goes on working.
    ///
    /// # Errors
    /// [`ProvisionError::Refused`] unless it is active or suspended; [`ProvisionError::Unmet`];
    /// [`RegistryError::OperationInProgress`], [`RegistryError::NotFound`].
    pub async fn request_backup(
        &self,
        tenant: TenantId,
        by: RequestedBy,
    ) -> Result<OperationId, ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        if let Some(earlier) = earlier(&client, &by, OperationKind::Backup, |op| op.tenant == tenant).await? {
            return Ok(earlier.id);
        }
        // Without a lock: it may take its time.
        self.inner.require_backup(tenant).await?;
        let txn = begin(&mut client).await?;
        let found = registry::tenant_lock_in_txn(&txn, tenant)
            .await?
            .ok_or_else(|| not_found(tenant))?;
        can_be_backed_up(&found)?;
        let id = OperationId::generate();
        let asked = insert_operation(&txn, id, OperationKind::Backup, &found, json!({}), &by).await?;
        audit(&txn, "tenant.backup_requested", &asked, &by).await?;
        commit(txn).await?;
        Ok(id)
    }

    /// Asks for a laboratory to be made out of an archive: the one that was removed, under its id and slug, or another beside
    /// the one that lives.
    ///
    /// # Errors
    /// [`ProvisionError::Refused`] says what can be done instead; [`ProvisionError::ArchiveTooNew`];
    /// [`RegistryError::SlugTaken`], [`RegistryError::NotFound`].
    pub async fn request_restore(
        &self,
        archive: ArchiveId,
        restore_as: RestoreAs,
        by: RequestedBy,
    ) -> Result<(Tenant, OperationId), ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        let params = json!({ "archive": archive, "as": restore_as.slug, "server": restore_as.server });
        if let Some(earlier) = earlier(&client, &by, OperationKind::Restore, |op| op.params == params).await?
        {
            return Ok((tenant_of(&client, &earlier).await?, earlier.id));
        }
        let found = registry::archive_by_id(&client, archive).await?;
        let manifest = restorable(&found.ok_or_else(|| no_archive(archive))?)?;
        let server = match &restore_as.server {
            Some(server) => server.clone(),
            None => match ServerName::parse(&manifest.server) {
                Ok(lived) if registry::server_by_name(&client, &lived).await?.is_some() => lived,
                _ => only_server(&client).await?,
            },
        };
        let planned = Planned {
            kind: OperationKind::Restore,
            server: &server,
            tenant: None,
            manifest: Some(&manifest),
        };
        self.inner.require(&planned).await?;
        let txn = begin(&mut client).await?;
        // Held from here on: it cannot be pruned before the operation is there, which keeps it.
        let archive = registry::archive_lock_in_txn(&txn, archive)
            .await?
            .ok_or_else(|| no_archive(archive))?;
        let (id, slug) = match &restore_as.slug {
            Some(slug) => (TenantId::generate(), slug.clone()),
            None => (archive.tenant, archive.tenant_slug.clone()),
        };
        if let Some(living) = registry::tenant_by_id(&txn, id).await? {
            return Err(ProvisionError::Refused {
                why: format!(
                    "{} is {}: an archive of a laboratory that is there comes back beside it, under another slug (`--as`), or \
                     in its place (`--in-place`)",
                    living.slug, living.status
                ),
            });
        }
        let admins = open_admins(&self.inner, &archive, id)?;
        let operation = OperationId::generate();
        let new = NewOperation {
            id: operation,
            kind: OperationKind::Restore,
            tenant: id,
            tenant_slug: slug.clone(),
            params,
            created_by: by.actor.clone(),
            idempotency_key: by.idempotency_key.clone(),
        };
        registry::operation_insert_in_txn(&txn, &new).await?;
        let namespace = &self.inner.config.namespace;
        let tenant = registry::NewTenant {
            id,
            name: archive.tenant_name.clone(),
            time_zone: manifest.time_zone,
            server,
            db_name: namespace.tenant_database(&slug),
            role_name: namespace.tenant_role(&slug),
            role_secret: Some(
                self.inner
                    .config
                    .sealer
                    .seal(&role_secret_context(id), &identity::generate_password()),
            ),
            slug,
        };
        let tenant =
            registry::tenant_insert_in_txn(&txn, &tenant, &by.change().in_operation(operation)).await?;
        registry::admins_put_back_in_txn(&txn, id, &admins).await?;
        commit(txn).await?;
        Ok((tenant, operation))
    }

    /// Asks for an archive to take the place of what its laboratory holds now. It serves until the archive is restored beside
    /// it and checked; what it held is archived then. Can be called off until the two are exchanged.
    ///
    /// # Errors
    /// As [`Provisioner::request_restore`].
    pub async fn request_restore_in_place(
        &self,
        archive: ArchiveId,
        by: RequestedBy,
    ) -> Result<(TenantId, OperationId), ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        let params = json!({ "archive": archive });
        let kind = OperationKind::RestoreInPlace;
        if let Some(earlier) = earlier(&client, &by, kind, |op| op.params == params).await? {
            return Ok((earlier.tenant, earlier.id));
        }
        let found = registry::archive_by_id(&client, archive).await?;
        let found = found.ok_or_else(|| no_archive(archive))?;
        let manifest = restorable(&found)?;
        if let Some(tenant) = registry::tenant_by_id(&client, found.tenant).await? {
            let planned = Planned {
                manifest: Some(&manifest),
                ..Planned::of(kind, &tenant)
            };
            self.inner.require(&planned).await?;
        }
        let txn = begin(&mut client).await?;
        let archive = registry::archive_lock_in_txn(&txn, archive)
            .await?
            .ok_or_else(|| no_archive(archive))?;
        restorable(&archive)?;
        open_admins(&self.inner, &archive, archive.tenant)?;
        let found = registry::tenant_lock_in_txn(&txn, archive.tenant).await?;
        let found = found.ok_or_else(|| ProvisionError::Refused {
            why: format!(
                "{} is not there any more, so nothing is to be replaced: restore it without `--in-place`",
                archive.tenant_slug
            ),
        })?;
        if !matches!(found.status, TenantState::Active | TenantState::Suspended) {
            return Err(ProvisionError::Refused {
                why: format!(
                    "{} is {}: only an active or suspended laboratory can be restored in place",
                    found.slug, found.status
                ),
            });
        }
        let id = OperationId::generate();
        let asked = insert_operation(&txn, id, kind, &found, params, &by).await?;
        audit(&txn, "tenant.restore_in_place_requested", &asked, &by).await?;
        commit(txn).await?;
        Ok((found.id, id))
    }

    /// Asks for an archive to be proved once more: fetched, restored and compared with its manifest.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::OperationInProgress`] while another operation works on its laboratory.
    pub async fn request_verify_archive(
        &self,
        archive: ArchiveId,
        by: RequestedBy,
    ) -> Result<(TenantId, OperationId), ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        let params = json!({ "archive": archive });
        let kind = OperationKind::VerifyArchive;
        if let Some(earlier) = earlier(&client, &by, kind, |op| op.params == params).await? {
            return Ok((earlier.tenant, earlier.id));
        }
        let found = registry::archive_by_id(&client, archive).await?;
        let found = found.ok_or_else(|| no_archive(archive))?;
        if let Ok(manifest) = Manifest::from_value(found.manifest.clone()) {
            let lived = registry::tenant_by_id(&client, found.tenant)
                .await?
                .map(|tenant| tenant.server);
            let lived = lived.or_else(|| ServerName::parse(&manifest.server).ok());
            let known = match &lived {
                Some(name) => registry::server_by_name(&client, name).await?.is_some(),
                None => false,
            };
            if let (Some(server), true) = (&lived, known) {
                let planned = Planned {
                    kind,
                    server,
                    tenant: None,
                    manifest: Some(&manifest),
                };
                self.inner.require(&planned).await?;
            }
        }
        let txn = begin(&mut client).await?;
        let archive = registry::archive_lock_in_txn(&txn, archive)
            .await?
            .ok_or_else(|| no_archive(archive))?;
        let new = NewOperation {
            id: OperationId::generate(),
            kind,
            tenant: archive.tenant,
            tenant_slug: archive.tenant_slug.clone(),
            params,
            created_by: by.actor.clone(),
            idempotency_key: by.idempotency_key.clone(),
        };
        let asked = registry::operation_insert_in_txn(&txn, &new).await?;
        audit(&txn, "archive.verify_requested", &asked, &by).await?;
        commit(txn).await?;
        Ok((asked.tenant, asked.id))
    }

    /// Sets a laboratory's backup schedule; the first backup is made soon. `None` ends it, and from then on nothing of it is
    /// pruned.
    ///
    /// # Errors
    /// [`ProvisionError::Invalid`] names the field, [`RegistryError::NotFound`].
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

    /// Removes the archives that no schedule keeps any more, and says which; at most 500, the next call goes on. Never the
    /// one that was proved last, never one of a laboratory that is gone, never one that is being restored.
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

impl Inner {
    /// Refuses a backup that could not be made, with all that is in the way, whoever wants it: a person, or a schedule.
    pub(crate) async fn require_backup(&self, tenant: TenantId) -> Result<(), ProvisionError> {
        let client = self.config.registry.client().await?;
        let found = registry::tenant_by_id(&client, tenant).await?;
        drop(client);
        let found = found.ok_or_else(|| not_found(tenant))?;
        can_be_backed_up(&found)?;
        self.require(&Planned::of(OperationKind::Backup, &found)).await
    }
}

fn can_be_backed_up(tenant: &Tenant) -> Result<(), ProvisionError> {
    match tenant.status {
        TenantState::Active | TenantState::Suspended => Ok(()),
        status => Err(ProvisionError::Refused {
            why: format!(
                "{} is {status}: only an active or suspended laboratory can be backed up",
                tenant.slug
            ),
        }),
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
        let removed = async { archive::Place::parse(&archive.location)?.remove_archive().await };
        if let Err(error) = removed.await {
            // The others are not kept for it, nor is the backup that came before this told as failed; the mark stays, and the
            // next look tries again.
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
    match archive::Place::parse(&archive.location) {
        Ok(place) => {
            let host = inner.lies_elsewhere(&place, archive.host.as_deref()).await;
            // Gone here too where this host wrote it; on another one its directory may merely not be mounted here.
            host.is_some()
        }
        Err(_) => false,
    }
}

fn no_archive(id: ArchiveId) -> RegistryError {
    RegistryError::NotFound {
        what: "archive",
        id: id.to_string(),
    }
}

/// What an archive's row says of it, if this version can restore it.
fn restorable(archive: &Archive) -> Result<Manifest, ProvisionError> {
    let code = migrator::latest();
    if archive.db_version > code {
        return Err(ProvisionError::ArchiveTooNew {
            archive: archive.id,
            have: archive.db_version,
            code,
        });
    }
    Manifest::from_value(archive.manifest.clone()).map_err(|why| ProvisionError::Refused {
        why: format!("archive {} cannot be restored: {why}", archive.id),
    })
}
