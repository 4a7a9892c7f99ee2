//! Writing an archive: a dump of one snapshot, and the manifest of what that snapshot held. Also of a
//! laboratory that goes on working: dump and manifest share the snapshot, whatever is written meanwhile.

use std::time::Instant;

use archive::{Dump, Location, Manifest, Programs, Snapshot, Store};
use model::{ArchiveId, SchemaVersion, Step, StepStatus};
use registry::{Archive, Tenant};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Inner, ProvisionError,
    engine::{Context, StepResult},
    error::StepError,
    operations::archived_admins::seal_admins,
    server::{AdminSession, end_sessions, open_to_nobody_else, require_own},
};

/// What the dump step hands to those after it, through the registry. The rest stands in the manifest.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Dumped {
    pub(crate) archive: ArchiveId,
    pub(crate) location: String,
    /// The host that wrote it, where that is a path.
    #[serde(default)]
    pub(crate) host: Option<String>,
    bytes: u64,
    rows: u64,
    tables: usize,
    /// What the manifest must still say.
    pub(crate) fingerprint: String,
    /// How long `pg_dump` took, and reading afterwards what the snapshot holds.
    #[serde(default)]
    dump_ms: u64,
    #[serde(default)]
    digest_ms: u64,
}

fn ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Inner {
    /// Where new archives go.
    pub(crate) fn store(&self) -> Result<Store, ProvisionError> {
        let config = &self.config;
        match &config.archive.url {
            Some(url) => Ok(Store::open(url)?),
            None => Ok(Store::open(&config.archive_dir.to_string_lossy())?),
        }
    }

    /// The host that a location means something on; `None` for a store that every host sees.
    pub(crate) fn host_of(&self, location: &Location) -> Option<String> {
        location.local().map(|_| self.host.clone())
    }

    /// The host that has a file which cannot be read on this one. `None` where it can, where every host sees
    /// the same store, and where nothing says which host wrote it.
    pub(crate) async fn lies_elsewhere<'a>(
        &self,
        location: &Location,
        host: Option<&'a str>,
    ) -> Option<&'a str> {
        let host = host.filter(|host| *host != self.host && location.local().is_some())?;
        match location.size().await {
            Ok(Some(_)) => None,
            Ok(None) | Err(_) => Some(host),
        }
    }

    /// Refuses a file that another host has, which is not to be taken for one that is gone.
    pub(crate) async fn require_here(
        &self,
        location: &Location,
        host: Option<&str>,
    ) -> Result<(), ProvisionError> {
        match self.lies_elsewhere(location, host).await {
            None => Ok(()),
            Some(host) => Err(ProvisionError::Elsewhere {
                location: location.to_string(),
                host: host.to_owned(),
                here: self.host.clone(),
            }),
        }
    }

    pub(crate) fn dump_with<'a>(&'a self, programs: &'a Programs) -> Dump<'a> {
        let options = &self.config.archive;
        Dump {
            programs,
            keys: &options.keys,
            compression: options.compression,
            jobs: options.jobs,
            limit: self.config.bounds.dump_limit,
        }
    }
}

impl Context<'_> {
    /// An operation makes at most one archive, so it lends it its id: whatever an earlier try left under that
    /// name is overwritten and not forgotten.
    pub(crate) fn archive_id(&self) -> ArchiveId {
        ArchiveId::from(self.operation.id.as_uuid())
    }

    fn archive_location(&self) -> Result<Location, ProvisionError> {
        let ending = match self.inner.config.archive.keys.recipient {
            Some(_) => "dump.age",
            None => "dump",
        };
        let name = format!("{}.{ending}", self.archive_id());
        Ok(self
            .inner
            .store()?
            .location(&self.operation.tenant.to_string(), &name))
    }

    /// What the dump step noted when it was done.
    pub(crate) async fn dumped(&self) -> Result<Dumped, ProvisionError> {
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

/// The programs, the server's version, and the place to write: nothing is closed or dumped before all three
/// are in order.
pub(crate) async fn ready_to_archive(
    cx: &Context<'_>,
    session: &AdminSession,
    tenant: &Tenant,
) -> Result<(Programs, String, Location), StepError> {
    let (programs, server_version) = programs(cx, session).await?;
    cx.inner.config.archive.keys.check()?;
    let location = cx.archive_location()?;
    tracing::debug!(tenant.slug = %tenant.slug, %location, "an archive goes here");
    location.prepare().await?;
    Ok((programs, server_version, location))
}

/// The client programs for a server, and its version.
pub(crate) async fn programs(
    cx: &Context<'_>,
    session: &AdminSession,
) -> Result<(Programs, String), ProvisionError> {
    let (major, version) = server_version(session).await?;
    let programs = Programs::find(cx.inner.config.pg_bin.as_deref(), major, &session.target).await?;
    Ok((programs, version))
}

/// The server's version, as number and as text.
pub(crate) async fn server_version(session: &AdminSession) -> Result<(u32, String), ProvisionError> {
    let row = session
        .client
        .query_one(
            "SELECT current_setting('server_version_num')::int / 10000, current_setting('server_version')",
            &[],
        )
        .await
        .map_err(ProvisionError::db(
            "asking for the server's version",
            &session.target,
        ))?;
    Ok((row.get::<_, i32>(0).unsigned_abs(), row.get(1)))
}

/// Dumps a laboratory that goes on working.
pub(crate) async fn dump_in_service(cx: &Context<'_>) -> StepResult {
    let (tenant, session) = own_database(cx).await?;
    let ready = ready_to_archive(cx, &session, &tenant).await?;
    end_archive_sessions(&session, &tenant).await?;
    dump(cx, &tenant, &session, ready).await
}

/// Dumps a laboratory that is closed.
pub(crate) async fn dump_closed(cx: &Context<'_>) -> StepResult {
    let (tenant, session) = own_database(cx).await?;
    let ready = ready_to_archive(cx, &session, &tenant).await?;
    // A drop that came as far as closing it may have been given up for want of a sound archive.
    open_to_nobody_else(&session, &tenant.db_name).await?;
    // A dump whose process was killed with ours may still run; the fence keeps every other session out.
    end_sessions(cx, &session, &tenant.db_name).await?;
    dump(cx, &tenant, &session, ready).await
}

async fn own_database(cx: &Context<'_>) -> Result<(Tenant, AdminSession), StepError> {
    let tenant = cx.tenant().await?;
    let session = cx.maintenance(&tenant).await?;
    require_own(&session, &tenant).await?;
    Ok((tenant, session))
}

async fn dump(
    cx: &Context<'_>,
    tenant: &Tenant,
    session: &AdminSession,
    (programs, server_version, location): (Programs, String, Location),
) -> StepResult {
    let config = &cx.inner.config;
    // Another dump takes the place of one that was found wanting: its row must not speak of this one.
    registry::archive_unrecord(&config.registry.client().await?, cx.lease).await?;
    let target = session.target.with_database(tenant.db_name.as_str());
    let snapshot = Snapshot::open(&target, config.bounds.connect_timeout).await?;
    let on_progress = |bytes| cx.report_bytes(Step::Dump, bytes, None);
    let steady = Steady::new(&on_progress);
    let began = Instant::now();
    let (written, compression) = cx
        .inner
        .dump_with(&programs)
        .write(&target, Some(snapshot.id()), &location, &|bytes| {
            steady.report(bytes)
        })
        .await?;
    let dump_ms = ms(began);
    let began = Instant::now();
    // Behind the dump, which would have to share the server with it otherwise.
    let contents = snapshot.contents(config.bounds.dump_limit).await?;
    let digest_ms = ms(began);
    let manifest = Manifest {
        format: archive::FORMAT,
        archive: cx.archive_id(),
        made_for: cx.operation.kind,
        tenant: tenant.id,
        slug: tenant.slug.to_string(),
        name: tenant.name.clone(),
        time_zone: tenant.time_zone.clone(),
        server: tenant.server.to_string(),
        database: tenant.db_name.as_str().to_owned(),
        database_bytes: snapshot.database_bytes().await?,
        schema_version: SchemaVersion::new(snapshot.schema_version().await?),
        server_version,
        dumped_with: programs.version.clone(),
        compression: compression.to_owned(),
        encrypted_for: config.archive.keys.recipient.clone(),
        file: location.file_name(),
        bytes: written.bytes,
        sha256: written.sha256,
        contents,
        inventory: snapshot.inventory().await?,
        admins: hex::encode(seal_admins(cx.inner, cx.archive_id(), tenant.id).await?),
        operation: cx.operation.id,
        requested_by: cx.operation.created_by.to_string(),
        dumped_at: registry::registry_now(&config.registry.client().await?).await?,
        verified_at: None,
    };
    manifest.write(&location).await?;
    let dumped = Dumped {
        archive: manifest.archive,
        location: location.to_string(),
        host: cx.inner.host_of(&location),
        bytes: manifest.bytes,
        rows: manifest.contents.rows(),
        tables: manifest.contents.tables.len(),
        fingerprint: manifest.fingerprint()?,
        dump_ms,
        digest_ms,
    };
    Ok(json!(dumped))
}

/// A dump of a laboratory in service that was cut off with its process may still run.
async fn end_archive_sessions(session: &AdminSession, tenant: &Tenant) -> Result<(), ProvisionError> {
    session
        .client
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE datname = $1 AND application_name = 'tenantry archive'",
            &[&tenant.db_name.as_str()],
        )
        .await
        .map(drop)
        .map_err(ProvisionError::db("ending an earlier dump", &session.target))
}

/// The archive that this operation made of a closed laboratory: recorded, there, unchanged, and of what the
/// database still holds. A superuser may have written since.
pub(crate) async fn require_archive_of(
    cx: &Context<'_>,
    session: &AdminSession,
    tenant: &Tenant,
) -> Result<Archive, StepError> {
    let (archive, manifest) = require_archive(cx, tenant).await?;
    // An earlier try may have closed it to be dropped.
    open_to_nobody_else(session, &tenant.db_name).await?;
    let bounds = &cx.inner.config.bounds;
    let target = session.target.with_database(tenant.db_name.as_str());
    let now = Snapshot::open(&target, bounds.connect_timeout).await?;
    let now = now.contents(bounds.dump_limit).await?;
    match manifest.contents.difference(&now) {
        None => Ok(archive),
        Some(why) => Err(StepError::retry(ProvisionError::Changed { why })),
    }
}

/// The archive that this operation made, recorded, there and unchanged.
pub(crate) async fn require_archive(
    cx: &Context<'_>,
    tenant: &Tenant,
) -> Result<(Archive, Manifest), StepError> {
    let client = cx.inner.config.registry.client().await?;
    let archive = registry::archive_by_operation(&client, cx.operation.id).await?;
    let archive = archive
        .filter(|a| a.tenant == tenant.id)
        .ok_or_else(|| never_archived(tenant))?;
    drop(client);
    let location = Location::parse(&archive.location)?;
    cx.inner.require_here(&location, archive.host.as_deref()).await?;
    location.require(archive.bytes, &archive.sha256).await?;
    let manifest = Manifest::require(&location, &archive.manifest).await?;
    Ok((archive, manifest))
}

/// The files of an operation that ended before its archive was recorded. Where it is opened again, it makes
/// another dump.
pub(crate) async fn remove_unrecorded(cx: &Context<'_>) -> Result<(), StepError> {
    let client = cx.inner.config.registry.client().await?;
    if registry::archive_by_operation(&client, cx.operation.id)
        .await?
        .is_some()
    {
        return Ok(());
    }
    let steps = registry::steps_of(&client, cx.operation.id).await?;
    if steps
        .iter()
        .any(|row| row.step == Step::Dump && row.status == StepStatus::Done)
    {
        let why = "the operation ended before the dump was verified, so it was removed";
        registry::step_failed(&client, cx.lease, Step::Dump, why).await?;
    }
    drop(client);
    cx.archive_location()?.remove_archive().await?;
    Ok(())
}

/// Reports at most twice a second.
pub(crate) struct Steady<'a> {
    report: &'a (dyn Fn(u64) + Send + Sync),
    last: std::sync::Mutex<Option<std::time::Instant>>,
}

impl<'a> Steady<'a> {
    pub(crate) fn new(report: &'a (dyn Fn(u64) + Send + Sync)) -> Self {
        Self {
            report,
            last: std::sync::Mutex::new(None),
        }
    }

    pub(crate) fn report(&self, bytes: u64) {
        let mut last = self
            .last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.is_none_or(|at| at.elapsed() >= std::time::Duration::from_millis(500)) {
            *last = Some(std::time::Instant::now());
            (self.report)(bytes);
        }
    }
}

pub(crate) fn never_archived(tenant: &Tenant) -> StepError {
    StepError::fatal(ProvisionError::WasInService {
        slug: tenant.slug.clone(),
    })
}
