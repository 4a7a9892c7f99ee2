//! Proving a dump: it is restored beside the original and compared with it, row by row. Only then does the registry
//! learn that there is an archive.

use std::path::{Path, PathBuf};

use model::{DbName, Step};
use registry::{NewArchive, Tenant};
use serde_json::{Value, json};

use super::{
    Context, Saw,
    database::{look, open_to_nobody_else, require_own},
    offboard::{Dumped, require_file, server_version},
};
use crate::{
    ProvisionError,
    compare::{Contents, compare},
    dump::{self, Programs},
    error::StepError,
    fault::Moment,
    manifest::{FORMAT, Manifest},
    reach::Session,
};

pub(super) fn manifest_file(dump: &Path) -> PathBuf {
    dump.with_extension("manifest.json")
}

/// Refuses a manifest that is not there, or not as it was recorded.
pub(super) async fn require_manifest(dump: &Path, recorded: &Value) -> Result<(), ProvisionError> {
    let path = manifest_file(dump);
    let why = match tokio::fs::read(&path).await {
        Err(error) => error.to_string(),
        Ok(content) => match serde_json::from_slice::<Value>(&content) {
            Ok(found) if found == *recorded => return Ok(()),
            Ok(_) => "its content has changed".to_owned(),
            Err(error) => format!("it cannot be read: {error}"),
        },
    };
    Err(ProvisionError::ArchiveBroken { path, why })
}

pub(super) async fn verify(cx: &Context<'_>) -> Saw {
    let tenant = cx.tenant().await?;
    let held = cx.maintenance(&tenant).await?;
    require_own(&held, &tenant).await?;
    open_to_nobody_else(&held, &tenant.db_name).await?;
    let dumped = cx.dumped().await?;
    require_file(&dumped.file, dumped.bytes, &dumped.sha256).await?;
    let scratch = cx.inner.config.namespace.scratch_database(cx.operation.id);
    drop_if_there(&held, &scratch).await?;
    let outcome = restore_and_compare(cx, &held, &tenant, &dumped, &scratch).await;
    // Also when the comparison failed; after a crash the next try begins with it.
    let dropped = drop_if_there(&held, &scratch).await;
    let contents = outcome?;
    dropped?;
    record(cx, &held, &tenant, dumped, contents).await
}

async fn restore_and_compare(
    cx: &Context<'_>,
    held: &Session,
    tenant: &Tenant,
    dumped: &Dumped,
    scratch: &DbName,
) -> Result<Contents, StepError> {
    let config = &cx.inner.config;
    let (major, _) = server_version(held).await?;
    let programs = Programs::find(config.pg_bin.as_deref(), major, &held.target).await?;
    create_like(cx, held, &tenant.db_name, scratch).await?;
    let copy = held.target.with_database(scratch.as_str());
    programs
        .restore(&copy, &dumped.file, config.bounds.dump_limit)
        .await?;
    let original = held.target.with_database(tenant.db_name.as_str());
    Ok(compare(
        &original,
        &copy,
        config.bounds.connect_timeout,
        config.bounds.dump_limit,
    )
    .await?)
}

/// An empty database with the original's encoding and locale, which decide how text sorts. Nobody but us gets in, at no
/// moment: a session that slipped in before a REVOKE would go on, and read what is restored later.
async fn create_like(
    cx: &Context<'_>,
    held: &Session,
    original: &DbName,
    scratch: &DbName,
) -> Result<(), ProvisionError> {
    let row = held
        .client
        .query_one(
            "SELECT quote_literal(pg_encoding_to_char(encoding)), quote_literal(datcollate), quote_literal(datctype)
               FROM pg_database WHERE datname = $1",
            &[&original.as_str()],
        )
        .await
        .map_err(ProvisionError::db("reading the database's locale", &held.target))?;
    let (encoding, collate, ctype): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    let sql = format!(
        "CREATE DATABASE {scratch} TEMPLATE template0 ENCODING {encoding} LC_COLLATE {collate} LC_CTYPE {ctype} \
         STRATEGY wal_log ALLOW_CONNECTIONS false"
    );
    held.run("making the scratch database", &sql).await?;
    cx.reach(Step::Verify, Moment::ScratchMade).await;
    open_to_nobody_else(held, scratch).await
}

/// FORCE: a `pg_restore` whose process was killed with ours may still write into it.
async fn drop_if_there(held: &Session, scratch: &DbName) -> Result<bool, ProvisionError> {
    let there = look(held, scratch).await?.is_some();
    if there {
        let sql = format!("DROP DATABASE IF EXISTS {scratch} WITH (FORCE)");
        held.run("dropping the scratch database", &sql).await?;
    }
    Ok(there)
}

/// For an operation that failed for good.
pub(super) async fn drop_scratch(cx: &Context<'_>) -> Result<(), StepError> {
    let Some(tenant) = cx.tenant_opt().await? else {
        return Ok(());
    };
    let held = cx.maintenance(&tenant).await?;
    drop_if_there(
        &held,
        &cx.inner.config.namespace.scratch_database(cx.operation.id),
    )
    .await?;
    Ok(())
}

/// The manifest first, then the registry: a row there promises that both files are whole.
async fn record(
    cx: &Context<'_>,
    held: &Session,
    tenant: &Tenant,
    dumped: Dumped,
    contents: Contents,
) -> Saw {
    let original = held.target.with_database(tenant.db_name.as_str());
    let schema_version = migrator::history_version(&cx.inner.connect(&original).await?).await?;
    let rows: u64 = contents.tables.iter().map(|t| t.rows).sum();
    let tables = contents.tables.len();
    let manifest = Manifest {
        format: FORMAT,
        archive: dumped.archive,
        tenant: tenant.id,
        slug: tenant.slug.clone(),
        name: tenant.name.clone(),
        time_zone: tenant.time_zone.clone(),
        database: tenant.db_name.clone(),
        schema_version,
        shape_sha256: contents.shape_sha256,
        server_version: dumped.server_version,
        dumped_with: dumped.dumped_with,
        file: dumped
            .file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        bytes: dumped.bytes,
        sha256: dumped.sha256.clone(),
        tables: contents.tables,
        sequences: contents.sequences,
        operation: cx.operation.id,
        requested_by: cx.operation.created_by.to_string(),
        dumped_at: dumped.dumped_at,
        verified_at: cx.inner.config.clock.now(),
    };
    let path = manifest_file(&dumped.file);
    let unwritable = |error: serde_json::Error| ProvisionError::io("writing", &path)(error.into());
    let content = serde_json::to_vec_pretty(&manifest).map_err(unwritable)?;
    dump::write_whole(&path, content).await?;
    let manifest = serde_json::to_value(&manifest).map_err(unwritable)?;
    let client = cx.inner.config.registry.client().await?;
    let archive = NewArchive {
        id: dumped.archive,
        tenant: tenant.id,
        tenant_slug: tenant.slug.clone(),
        tenant_name: tenant.name.clone(),
        operation: Some(cx.operation.id),
        location: dumped.file.to_string_lossy().into_owned(),
        bytes: dumped.bytes,
        sha256: dumped.sha256,
        db_version: schema_version,
        manifest,
        created_by: cx.operation.created_by.clone(),
    };
    let archive = registry::archive_insert(&client, &archive).await?;
    Ok(
        json!({ "archive": archive.id, "file": archive.location, "tables": tables, "rows": rows, "bytes": archive.bytes }),
    )
}
