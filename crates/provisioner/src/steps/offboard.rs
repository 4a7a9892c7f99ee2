//! Archiving a laboratory and removing it. Up to the drop nothing is lost by failing: the laboratory stays, closed.

use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;
use model::{ArchiveId, Step, StepStatus, TenantEvent, TenantState};
use registry::Tenant;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Context, Ran, Saw,
    database::{close_and_drop, end_sessions, look_for_own, open_to_nobody_else, require_own},
    fence,
    provision::remove,
};
use crate::{
    ProvisionError,
    dump::{self, Programs},
    error::StepError,
    reach::Session,
    request::{begin, commit},
};

/// The programs, the server's version, and the file to write: nothing is closed or dumped before all three are in order.
pub(super) async fn ready_to_archive(
    cx: &Context<'_>,
    held: &Session,
    tenant: &Tenant,
) -> Result<(Programs, String, PathBuf), StepError> {
    let (major, server_version) = server_version(held).await?;
    let programs = Programs::find(cx.inner.config.pg_bin.as_deref(), major, &held.target).await?;
    let file = cx.archive_file(tenant)?;
    if let Some(directory) = file.parent() {
        dump::prepare_directory(directory)?;
        dump::try_directory(directory).await?;
    }
    Ok((programs, server_version, file))
}

/// What the dump step hands to those after it, through the registry.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Dumped {
    pub(super) archive: ArchiveId,
    pub(super) file: PathBuf,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    pub(super) server_version: String,
    pub(super) dumped_with: String,
    pub(super) dumped_at: Timestamp,
}

impl Context<'_> {
    /// An operation makes at most one archive, so it lends it its id: whatever an earlier try left under that name is
    /// overwritten and not forgotten.
    pub(super) fn archive_id(&self) -> ArchiveId {
        ArchiveId::from(self.operation.id.as_uuid())
    }

    pub(super) fn archive_file(&self, tenant: &Tenant) -> Result<PathBuf, ProvisionError> {
        let dir = &self.inner.config.archive_dir;
        let dir = std::path::absolute(dir).map_err(ProvisionError::io("finding", dir))?;
        Ok(dir
            .join(tenant.id.to_string())
            .join(format!("{}.dump", self.archive_id())))
    }

    /// What the dump step noted when it was done.
    pub(super) async fn dumped(&self) -> Result<Dumped, ProvisionError> {
        let client = self.inner.config.registry.client().await?;
        let rows = registry::steps_of(&client, self.operation.id).await?;
        let corrupt = |why: String| ProvisionError::CorruptStep {
            operation: self.operation.id,
            step: Step::Dump,
            why,
        };
        let row = rows
            .into_iter()
            .find(|row| row.step == Step::Dump && row.status == StepStatus::Done)
            .ok_or_else(|| corrupt("it is not done".to_owned()))?;
        serde_json::from_value(row.saw.unwrap_or_default()).map_err(|error| corrupt(error.to_string()))
    }
}

/// The server's version, as number and as text.
pub(super) async fn server_version(held: &Session) -> Result<(u32, String), ProvisionError> {
    let row = held
        .client
        .query_one(
            "SELECT current_setting('server_version_num')::int / 10000, current_setting('server_version')",
            &[],
        )
        .await
        .map_err(ProvisionError::db(
            "asking for the server's version",
            &held.target,
        ))?;
    Ok((row.get::<_, i32>(0).unsigned_abs(), row.get(1)))
}

pub(super) async fn dump(cx: &Context<'_>) -> Saw {
    let tenant = cx.tenant().await?;
    let held = cx.maintenance(&tenant).await?;
    require_own(&held, &tenant).await?;
    // A drop that came as far as closing it may have been given up for want of a sound archive.
    open_to_nobody_else(&held, &tenant.db_name).await?;
    let config = &cx.inner.config;
    let (programs, server_version, file) = ready_to_archive(cx, &held, &tenant).await?;
    // A dump whose process was killed with ours may still run; nobody else can be in there behind the fence.
    end_sessions(cx, &held, &tenant.db_name).await?;
    let target = held.target.with_database(tenant.db_name.as_str());
    let grown = |bytes| cx.tell_bytes(Step::Dump, bytes);
    programs
        .dump(&target, &file, config.bounds.dump_limit, grown)
        .await?;
    let (bytes, sha256) = dump::measure(&file).await?;
    let dumped = Dumped {
        archive: cx.archive_id(),
        file,
        bytes,
        sha256,
        server_version,
        dumped_with: programs.version,
        dumped_at: config.clock.now(),
    };
    serde_json::to_value(&dumped).map_err(|error| {
        StepError::fatal(ProvisionError::CorruptStep {
            operation: cx.operation.id,
            step: Step::Dump,
            why: error.to_string(),
        })
    })
}

/// Refuses a dump that is not there, or not as it was noted.
pub(super) async fn require_file(
    file: &std::path::Path,
    bytes: u64,
    sha256: &str,
) -> Result<(), ProvisionError> {
    let broken = |why: String| ProvisionError::ArchiveBroken {
        path: file.to_owned(),
        why,
    };
    match dump::measure(file).await {
        Ok((b, s)) if b == bytes && s == sha256 => Ok(()),
        Ok((b, _)) if b != bytes => Err(broken(format!("it has {b} bytes and not {bytes}"))),
        Ok(_) => Err(broken("its content has changed".to_owned())),
        Err(error) => Err(broken(error.to_string())),
    }
}

/// The one place where a laboratory's data go away. It asks for an archive of this very operation, recorded as verified,
/// whose file and manifest are there and whose content is what was verified.
///
/// A database that is not there counts as dropped only when this operation noted before that it was about to drop it, and
/// on this server: on another one, to which the laboratory's server was pointed meanwhile, it is not missing but elsewhere.
pub(super) async fn drop_database(cx: &Context<'_>) -> Saw {
    let tenant = cx.tenant().await?;
    if tenant.status != TenantState::Deleting {
        return Err(never_archived(&tenant));
    }
    let held = cx.maintenance(&tenant).await?;
    let server = server_identifier(&held).await?;
    // Before the archive: a drop that is done already must not fail for a file that was moved since.
    if look_for_own(&held, &tenant).await?.is_none() {
        return if cx.operation.drop_begun_on.as_deref() == Some(&server) {
            Ok(json!({ "database": tenant.db_name, "dropped": "by an earlier try" }))
        } else {
            Err(gone(&tenant, &held))
        };
    }
    let client = cx.inner.config.registry.client().await?;
    let archive = registry::archive_by_operation(&client, cx.operation.id).await?;
    let archive = archive
        .filter(|a| a.tenant == tenant.id)
        .ok_or_else(|| never_archived(&tenant))?;
    let file = PathBuf::from(&archive.location);
    require_file(&file, archive.bytes, &archive.sha256).await?;
    super::verify::require_manifest(&file, &archive.manifest).await?;
    cx.pass_return(&client).await?;
    registry::operation_note_drop(&client, cx.lease, &server).await?;
    drop(client);
    close_and_drop(cx, &held, &tenant.db_name).await?;
    Ok(json!({ "database": tenant.db_name, "dropped": true, "archive": archive.id }))
}

fn never_archived(tenant: &Tenant) -> StepError {
    StepError::fatal(ProvisionError::WasInService {
        slug: tenant.slug.clone(),
    })
}

fn gone(tenant: &Tenant, held: &Session) -> StepError {
    StepError::fatal(ProvisionError::Missing {
        what: "database",
        name: tenant.db_name.as_str().to_owned(),
        place: format!(
            "{}, where this operation did not drop it: if server {} has another address now, set it back and run the \
             operation again",
            held.target, tenant.server
        ),
    })
}

/// The server itself, whatever leads to it.
async fn server_identifier(held: &Session) -> Result<String, ProvisionError> {
    let row = held
        .client
        .query_one("SELECT system_identifier::text FROM pg_control_system()", &[])
        .await
        .map_err(ProvisionError::db("asking which server it is", &held.target))?;
    Ok(row.get(0))
}

/// The time in which the removal can be called off, counted from the first time that this step is reached: the archive is
/// proved by then.
pub(super) fn grace(cx: &Context<'_>) -> Result<Ran, StepError> {
    let grace = Grace::of(cx.operation)?;
    match cx.operation.waiting_until {
        // It was claimed again, so by the registry's clock the time has come.
        Some(until) => Ok(Ran::Saw(json!({ "grace_s": grace.grace_s, "until": until }))),
        None if grace.grace_s == 0 => Ok(Ran::Saw(json!({ "grace_s": 0 }))),
        None => Ok(Ran::Waits(Duration::from_secs(grace.grace_s))),
    }
}

/// What a removal was asked with.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Grace {
    /// How long it can be called off once the archive is proved, in seconds.
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

/// Opens a laboratory again whose removal was called off, and gives it back the state before. The server is told first, with
/// the row locked: a laboratory that is in service can log in, and no sweep closes it in between.
pub(super) async fn readmit(cx: &Context<'_>) -> Saw {
    let Some(tenant) = cx.tenant_opt().await? else {
        return Ok(json!({ "tenant": "gone" }));
    };
    let Some(before) = tenant.status_before else {
        return Ok(json!({ "status": tenant.status, "was": "readmitted already" }));
    };
    let held = cx.maintenance(&tenant).await?;
    let event = match tenant.status {
        TenantState::Restoring => TenantEvent::RestoreFinished { before },
        _ => TenantEvent::CancelOffboard { before },
    };
    let mut client = cx.inner.config.registry.client().await?;
    let txn = begin(&mut client).await?;
    registry::operation_renew(&txn, cx.lease, cx.inner.config.lease).await?;
    registry::tenant_transition_in_txn(&txn, tenant.id, event, &cx.change()).await?;
    if before.serves() {
        fence::let_in(&held, &tenant).await?;
    }
    commit(txn).await?;
    Ok(json!({ "status": before }))
}

pub(super) async fn remove_tenant(cx: &Context<'_>) -> Saw {
    remove(cx, TenantEvent::OffboardFinished).await
}
