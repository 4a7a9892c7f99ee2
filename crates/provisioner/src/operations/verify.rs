//! Verifying a dump: it is restored beside the original and must hold what its manifest says. Only then does
//! the registry learn that there is an archive.

use std::time::Duration;

use archive::{Locale, Location, Manifest, Missing, Snapshot};
use model::{ArchiveId, DbName, RoleName, ServerName, Step};
use pg::literal;
use registry::{Archive, NewArchive, RegistryError, Tenant};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    ProvisionError,
    engine::{Context, StepResult, fault::Moment},
    error::StepError,
    operations::dump::{Steady, programs, server_version},
    request::{begin, commit, only_server},
    server::{AdminSession, end_subscriptions, look, open_to_nobody_else, require_own},
};

/// How often it is looked how far a restore is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long the operation's row is held at a time while a manifest is written, how often that is tried, and
/// the pause between.
const HOLD_LIMIT: Duration = Duration::from_secs(3);
const HOLDS_MAX: u32 = 5;
const HOLD_PAUSE: Duration = Duration::from_secs(1);

/// The parameters of operations that work on an archive which is there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Which {
    pub(crate) archive: ArchiveId,
}

impl Context<'_> {
    /// The archive that the operation was asked for.
    pub(crate) async fn archive(&self) -> Result<Archive, StepError> {
        let Which { archive } = serde_json::from_value(self.operation.params.clone()).map_err(|error| {
            StepError::fatal(ProvisionError::Refused {
                why: format!("the operation does not say which archive: {error}"),
            })
        })?;
        let client = self.inner.config.registry.client().await?;
        let found = registry::archive_by_id(&client, archive).await?;
        let (what, id) = (registry::Entity::Archive, archive.to_string());
        Ok(found.ok_or(RegistryError::NotFound { what, id })?)
    }
}

/// Verifies the dump of a laboratory that goes on working. The backup is made once its archive is recorded.
pub(crate) async fn verify_last(cx: &Context<'_>) -> StepResult {
    verify(cx, Recording::Irreversible).await
}

/// Verifies the dump of a laboratory that is closed: what comes after it can still be cancelled.
pub(crate) async fn verify_closed(cx: &Context<'_>) -> StepResult {
    verify(cx, Recording::Holds).await
}

/// What recording the archive means for the operation.
enum Recording {
    /// From then on it cannot be cancelled.
    Irreversible,
    /// It cannot be cancelled meanwhile.
    Holds,
}

async fn verify(cx: &Context<'_>, recording: Recording) -> StepResult {
    let tenant = cx.tenant().await?;
    let session = cx.maintenance(&tenant).await?;
    require_own(&session, &tenant).await?;
    let dumped = cx.dumped().await?;
    let location = Location::parse(&dumped.location)?;
    // The process that dumped it is gone, perhaps with its host: what is not recorded yet is dumped again
    // rather than waited for.
    if let Some(host) = cx.inner.lies_elsewhere(&location, dumped.host.as_deref()).await {
        return Err(StepError::retry(archive::ArchiveError::Broken {
            location: location.to_string(),
            why: format!("host {host} wrote it and {} cannot read it", cx.inner.host),
        }));
    }
    let manifest = Manifest::read(&location).await?;
    if manifest.fingerprint()? != dumped.fingerprint {
        return Err(StepError::fatal(archive::ArchiveError::Broken {
            location: dumped.location,
            why: "its manifest's content has changed".to_owned(),
        }));
    }
    if let Some(saw) = recorded_already(cx, &session, &location).await? {
        return Ok(saw);
    }
    let scratch = cx.inner.config.namespace.scratch_database(cx.operation.id);
    in_scratch(cx, &session, &tenant.db_name, &scratch, &location, &manifest).await?;
    record(cx, &tenant, &location, manifest, recording).await
}

/// An earlier try came as far as the row. To verify and record it once more would only give the file another
/// time of its verification than the row has, if that try is cut off as well.
async fn recorded_already(
    cx: &Context<'_>,
    session: &AdminSession,
    location: &Location,
) -> Result<Option<Value>, StepError> {
    let client = cx.inner.config.registry.client().await?;
    let row = registry::archive_by_operation(&client, cx.operation.id).await?;
    drop(client);
    let Some(archive) = row.filter(|archive| archive.location == location.to_string()) else {
        return Ok(None);
    };
    match Manifest::require(location, &archive.manifest).await {
        Ok(manifest) => {
            let scratch = cx.inner.config.namespace.scratch_database(cx.operation.id);
            drop_if_there(cx, session, &scratch).await?;
            Ok(Some(archive_summary(&archive, &manifest)))
        }
        Err(archive::ArchiveError::Broken { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn archive_summary(archive: &Archive, manifest: &Manifest) -> Value {
    json!({
        "archive": archive.id,
        "file": archive.location,
        "tables": manifest.contents.tables.len(),
        "rows": manifest.contents.rows(),
        "bytes": archive.bytes,
    })
}

/// Makes the group roles that the dump names: they hold rights in it, and the laboratory may be gone. Nobody
/// is a member of them. Gives the archived laboratory's, if it was not there.
pub(crate) async fn ensure_groups(
    cx: &Context<'_>,
    session: &AdminSession,
    manifest: &Manifest,
) -> Result<Option<RoleName>, StepError> {
    let namespace = &cx.inner.config.namespace;
    let mut made = None;
    for group in [namespace.tenant_group(manifest.tenant), namespace.shared_group()] {
        if !manifest.contents.names_grantee(group.as_str()) {
            continue;
        }
        let row = session
            .client
            .query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&group.as_str()])
            .await
            .map_err(ProvisionError::db("looking for a group role", &session.target))?;
        if row.is_some() {
            continue;
        }
        migrator::group_ensure(&session.client, &group).await?;
        if group != namespace.shared_group() {
            let comment = literal(&format!("{}{}", migrator::OWNERSHIP_COMMENT, manifest.tenant));
            session
                .run(
                    "marking a group role",
                    &format!("COMMENT ON ROLE {group} IS {comment}"),
                )
                .await?;
            made = Some(group);
        }
    }
    Ok(made)
}

/// Drops a group role that was made for a restore alone. Another restore of the same archive may need it
/// still: then it has rights and stays, and the doctor drops it later.
pub(crate) async fn drop_made_group(session: &AdminSession, made: Option<RoleName>) {
    let Some(group) = made else {
        return;
    };
    let sql = format!("DROP ROLE IF EXISTS {group}");
    if let Err(error) = session.client.batch_execute(&sql).await {
        tracing::debug!(error = %pg::describe(&error), "a group role stays for now");
    }
}

impl Context<'_> {
    /// Where a recorded dump is tried.
    pub(crate) async fn scratch_server(&self) -> Result<ServerName, StepError> {
        let archive = self.archive().await?;
        let lived = archive.manifest.get("server").and_then(|name| name.as_str());
        self.server_for_scratch(lived).await
    }

    /// Where a dump is tried: on the laboratory's server, or where it lived, or on the only one there is.
    pub(crate) async fn server_for_scratch(&self, lived: Option<&str>) -> Result<ServerName, StepError> {
        if let Some(tenant) = self.tenant_opt().await? {
            return Ok(tenant.server);
        }
        let client = self.inner.config.registry.client().await?;
        if let Some(Ok(name)) = lived.map(ServerName::parse)
            && registry::server_by_name(&client, &name).await?.is_some()
        {
            return Ok(name);
        }
        Ok(only_server(&client).await?)
    }
}

pub(crate) async fn in_scratch(
    cx: &Context<'_>,
    session: &AdminSession,
    like: &DbName,
    scratch: &DbName,
    location: &Location,
    manifest: &Manifest,
) -> Result<Missing, StepError> {
    drop_if_there(cx, session, scratch).await?;
    let outcome = restore_checked(cx, session, Step::Verify, like, scratch, location, manifest).await;
    // Also when the comparison failed; after a crash the next try begins with it.
    let dropped = drop_if_there(cx, session, scratch).await;
    let missing = outcome?;
    dropped?;
    Ok(missing)
}

/// Says which rights and owners a copy does without, because its server has not their roles.
pub(crate) fn report_missing(cx: &Context<'_>, saw: &mut Value, missing: &Missing) {
    if missing.roles.is_empty() {
        return;
    }
    tracing::warn!(
        operation.id = %cx.operation.id,
        roles = ?missing.roles,
        objects = missing.owned.len(),
        "the server does not have roles that the archive names: their rights are left out, and what they \
         owned is the administrator's"
    );
    saw["rolesMissing"] = json!(missing.roles);
    saw["ownersLeftOut"] = json!(missing.owned);
}

/// Restores a dump into a database that is made for it, and refuses one that does not hold what the manifest
/// says.
pub(crate) async fn restore_checked(
    cx: &Context<'_>,
    session: &AdminSession,
    step: Step,
    like: &DbName,
    into: &DbName,
    location: &Location,
    manifest: &Manifest,
) -> Result<Missing, StepError> {
    let (programs, _) = programs(cx, session).await?;
    create_like(cx, session, step, like, into, manifest.inventory.locale.as_ref()).await?;
    let copy = session.target.with_database(into.as_str());
    let total = Some(manifest.database_bytes);
    let on_progress = |bytes| cx.report_bytes(step, bytes, total);
    let steady = Steady::new(&on_progress);
    let dump = cx.inner.dump_with(&programs);
    let restoring = dump.restore(&copy, location, manifest, &|_| {});
    let looking = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Ok(bytes) = size(session, into).await {
                steady.report(bytes);
            }
        }
    };
    let missing = tokio::select! {
        outcome = restoring => outcome?,
        () = looking => unreachable!("looking goes on until the restore ends"),
    };
    let bounds = &cx.inner.config.bounds;
    let found = Snapshot::open(&copy, bounds.connect_timeout).await?;
    let found = found.contents(bounds.dump_limit).await?;
    match manifest.contents.difference_but_for(&missing, &found) {
        None => Ok(missing),
        Some(why) => Err(StepError::fatal(ProvisionError::Differs { why })),
    }
}

async fn size(session: &AdminSession, name: &DbName) -> Result<u64, ProvisionError> {
    let row = session
        .client
        .query_one(
            "SELECT pg_database_size(datname) FROM pg_database WHERE datname = $1",
            &[&name.as_str()],
        )
        .await
        .map_err(ProvisionError::db(
            "asking for a database's size",
            &session.target,
        ))?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}

/// An empty database with the encoding and locale of the one that was dumped, which decide how text sorts, or
/// with another's where the manifest does not say. Nobody but us gets in, at no moment: a session that
/// slipped in before a REVOKE would go on, and read what is restored later.
async fn create_like(
    cx: &Context<'_>,
    session: &AdminSession,
    step: Step,
    like: &DbName,
    name: &DbName,
    locale: Option<&Locale>,
) -> Result<(), ProvisionError> {
    let (major, _) = server_version(session).await?;
    let options = match locale {
        Some(locale) => locale.options(major),
        None => locale_of(session, like).await?.options(major),
    };
    migrator::create_database(&session.client, name, "template0", &options).await?;
    cx.reach(step, Moment::ScratchMade).await;
    open_to_nobody_else(session, name).await
}

async fn locale_of(session: &AdminSession, name: &DbName) -> Result<Locale, ProvisionError> {
    let row = session
        .client
        .query_one(archive::LOCALE, &[&name.as_str()])
        .await
        .map_err(ProvisionError::db(
            "reading the database's locale",
            &session.target,
        ))?;
    let text: String = row.get(0);
    serde_json::from_str(&text).map_err(|error| ProvisionError::Check {
        why: format!("the locale of {} cannot be read: {error}", name.as_str()),
    })
}

/// FORCE: a `pg_restore` whose process was killed with ours may still write into it.
pub(crate) async fn drop_if_there(
    cx: &Context<'_>,
    session: &AdminSession,
    name: &DbName,
) -> Result<bool, ProvisionError> {
    let there = look(session, name).await?.is_some();
    if there {
        end_subscriptions(cx.inner, session, name).await?;
        let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        session.run("dropping a restored database", &sql).await?;
    }
    Ok(there)
}

/// A row promises that both files are whole, and what was cancelled leaves neither. So the operation's row is
/// held while the manifest says that it was verified and until the archive's row is there: who cancels it
/// comes before both or after both.
async fn record(
    cx: &Context<'_>,
    tenant: &Tenant,
    location: &Location,
    mut manifest: Manifest,
    recording: Recording,
) -> StepResult {
    let config = &cx.inner.config;
    // Meanwhile the lease cannot be renewed, and a connection of the registry's few is taken.
    let limit = HOLD_LIMIT.min(config.lease / 2);
    let mut client = config.registry.client().await?;
    manifest.verified_at = Some(registry::registry_now(&client).await?);
    let mut holds = 0;
    let txn = loop {
        let txn = begin(&mut client).await?;
        match recording {
            Recording::Irreversible => cx.make_irreversible(&txn).await?,
            Recording::Holds => cx.hold(&txn).await?,
        }
        if let Ok(written) = tokio::time::timeout(limit, manifest.write(location)).await {
            written?;
            break txn;
        }
        // The same words again: one that comes late says nothing else.
        holds += 1;
        if holds == HOLDS_MAX {
            return Err(StepError::retry(archive::ArchiveError::TookTooLong {
                what: format!("writing the manifest of {location}"),
                limit,
            }));
        }
        drop(txn);
        tokio::time::sleep(HOLD_PAUSE).await;
    };
    let admins = hex::decode(&manifest.admins).unwrap_or_default();
    let archive = NewArchive {
        id: manifest.archive,
        tenant: tenant.id,
        tenant_slug: tenant.slug.clone(),
        tenant_name: tenant.name.clone(),
        operation: Some(cx.operation.id),
        location: location.to_string(),
        host: cx.inner.host_of(location),
        imported_from: None,
        bytes: manifest.bytes,
        sha256: manifest.sha256.clone(),
        db_version: manifest.schema_version,
        manifest: manifest.recorded()?,
        made_for: cx.operation.kind,
        admins,
        created_by: cx.operation.created_by.clone(),
    };
    let archive = registry::archive_insert(&txn, &archive).await?;
    commit(txn).await?;
    Ok(archive_summary(&archive, &manifest))
}
