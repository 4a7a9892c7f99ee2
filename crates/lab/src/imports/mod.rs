//! Files of results from instruments, CSV or NDJSON.
//!
//! A row lands as `entered`, never as verified. A row that matches nothing, has the wrong unit, is a control sample or cannot
//! be read is set aside with its line, its text and the reason; it is never dropped and never stops the others. The same file
//! gives the same batch. A dry run goes the whole way except for writing values, and takes nothing from the real run.

mod lines;
mod matching;

use std::collections::HashMap;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Actor, ImportFormat, ImportId, LabError, Page, PageRequest, Txn, audit, entry, paging::Cursor,
    rows::Reader,
};

/// Most bytes of a file.
pub const IMPORT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most rows of a file, without blank lines and the CSV's header.
pub const IMPORT_ROWS_MAX: usize = 50_000;

/// An imported file.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImportBatch {
    /// Id.
    pub id: ImportId,
    /// `done`: an import is one transaction, nobody ever sees it half done.
    pub status: &'static str,
    /// How it was written.
    pub format: ImportFormat,
    /// Whether it was a rehearsal that wrote no value.
    pub dry_run: bool,
    /// Whether this very file had been imported before: this is that batch, and nothing was done now.
    pub repeated: bool,
    /// SHA-256 of the file, in hexadecimal.
    pub file_sha256: String,
    /// Rows of the file.
    pub rows_total: i32,
    /// Rows whose value landed (or would have).
    pub rows_ok: i32,
    /// Rows that were set aside.
    pub rows_rejected: i32,
    /// Who imported it.
    pub created_by: Uuid,
    /// When.
    pub created_at: Timestamp,
}

/// A row that was set aside.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImportError {
    /// Line of the file, from 1, the CSV's header included.
    pub line: i32,
    /// The line, cut after 2,000 characters.
    pub raw: String,
    /// A stable word for programs: `bad_row`, `bad_value`, `wrong_unit`, `unknown_specimen`, `unknown_test`, `not_ordered`,
    /// `ambiguous`, `not_received`, `control_sample`, `duplicate_in_file`, `already_entered`, `already_final`.
    pub code: String,
    /// What is wrong.
    pub reason: String,
}

/// A row that cannot land, before it has a batch.
pub(crate) struct SetAside {
    line: i32,
    raw: String,
    code: &'static str,
    reason: String,
}

/// Imports a file.
///
/// # Errors
/// [`LabError::Invalid`] when the file as a whole cannot be read: too large, no rows, a header that lacks a column.
/// [`LabError::Conflict`] `in_flight` when the same file is being imported at this moment.
pub async fn run(
    txn: &Txn<'_>,
    actor: &Actor,
    format: ImportFormat,
    dry_run: bool,
    file: &[u8],
) -> Result<ImportBatch, LabError> {
    if file.len() > IMPORT_BYTES_MAX {
        return Err(LabError::invalid(
            "file",
            format!(
                "it has {} bytes; at most {IMPORT_BYTES_MAX} are taken: split it",
                file.len()
            ),
        ));
    }
    let sha256 = Sha256::digest(file).to_vec();
    if !dry_run {
        alone(txn, &sha256).await?;
        if let Some(batch) = by_file(txn, &sha256).await? {
            return Ok(batch);
        }
    }
    let lines::Parsed { rows, mut set_aside } = lines::parse(format, file)?;
    let total = rows.len() + set_aside.len();
    let landing = matching::match_rows(txn, rows, &mut set_aside).await?;
    set_aside.sort_by_key(|row| row.line);
    let id = ImportId::generate();
    let counts = [total, landing.len(), set_aside.len()].map(|n| i32::try_from(n).unwrap_or(i32::MAX));
    let statement = txn
        .prepare_cached(
            "INSERT INTO import_batch (id, format, dry_run, file_sha256, rows_total, rows_ok, rows_rejected, created_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .await?;
    txn.execute(
        &statement,
        &[
            &id,
            &format,
            &dry_run,
            &sha256,
            &counts[0],
            &counts[1],
            &counts[2],
            &actor.staff.as_uuid(),
        ],
    )
    .await?;
    store_set_aside(txn, id, &set_aside).await?;
    if !dry_run {
        let entries: Vec<entry::Entry<'_>> = landing.iter().map(matching::Landing::entry).collect();
        entry::write(txn, actor, Some(id), &entries).await?;
    }
    let detail = serde_json::json!({ "dryRun": dry_run, "rowsTotal": counts[0], "rowsOk": counts[1], "rowsRejected": counts[2] });
    audit::write(txn, actor, "import.run", "import", id, Some(detail)).await?;
    get(txn, id).await
}

/// One batch.
///
/// # Errors
/// [`LabError::NotFound`].
pub async fn get(txn: &Txn<'_>, id: ImportId) -> Result<ImportBatch, LabError> {
    let statement = txn
        .prepare_cached(&format!("SELECT {COLUMNS} FROM import_batch WHERE id = $1"))
        .await?;
    let row = txn.query_opt(&statement, &[&id]).await?;
    batch(&row.ok_or_else(|| LabError::not_found("import", id))?, false)
}

/// The rows of a batch that were set aside, by line.
///
/// # Errors
/// [`LabError::NotFound`]; [`LabError::Invalid`] for a bad page.
pub async fn errors(txn: &Txn<'_>, id: ImportId, page: &PageRequest) -> Result<Page<ImportError>, LabError> {
    get(txn, id).await?;
    let after = i32::try_from(page.after_number()?.unwrap_or(0)).unwrap_or(i32::MAX);
    let statement = txn
        .prepare_cached(
            "SELECT batch_id, line, raw, code, reason FROM import_error WHERE batch_id = $1 AND line > $2 ORDER BY line LIMIT $3",
        )
        .await?;
    let rows = txn.query(&statement, &[&id, &after, &page.fetch()?]).await?;
    let errors = rows
        .iter()
        .map(|row| {
            let row = Reader::new("import_error", row);
            Ok(ImportError {
                line: row.get("line")?,
                raw: row.get("raw")?,
                code: row.get("code")?,
                reason: row.get("reason")?,
            })
        })
        .collect::<Result<Vec<_>, LabError>>()?;
    page.page(errors, |error| Cursor::Number(error.line.into()))
}

/// One import of one file at a time: the second one would find rows already entered and call them mistakes.
async fn alone(txn: &Txn<'_>, sha256: &[u8]) -> Result<(), LabError> {
    let name = format!("import\n{}", hex::encode(sha256));
    let statement = txn
        .prepare_cached("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))")
        .await?;
    if txn.query_one(&statement, &[&name]).await?.get(0) {
        Ok(())
    } else {
        Err(LabError::conflict(
            "in_flight",
            "this file is being imported at this moment; ask again shortly",
        ))
    }
}

async fn by_file(txn: &Txn<'_>, sha256: &[u8]) -> Result<Option<ImportBatch>, LabError> {
    let statement = txn
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM import_batch WHERE file_sha256 = $1 AND NOT dry_run"
        ))
        .await?;
    let row = txn.query_opt(&statement, &[&sha256]).await?;
    row.map(|row| batch(&row, true)).transpose()
}

async fn store_set_aside(txn: &Txn<'_>, id: ImportId, rows: &[SetAside]) -> Result<(), LabError> {
    let lines: Vec<i32> = rows.iter().map(|row| row.line).collect();
    let raws: Vec<&str> = rows.iter().map(|row| row.raw.as_str()).collect();
    let codes: Vec<&str> = rows.iter().map(|row| row.code).collect();
    let reasons: Vec<&str> = rows.iter().map(|row| row.reason.as_str()).collect();
    let statement = txn
        .prepare_cached(
            "INSERT INTO import_error (batch_id, line, raw, code, reason)
             SELECT $1, u.* FROM unnest($2::int[], $3::text[], $4::text[], $5::text[]) AS u",
        )
        .await?;
    txn.execute(&statement, &[&id, &lines, &raws, &codes, &reasons])
        .await?;
    Ok(())
}

/// Groups by key, for lookups that many rows share.
fn group<K: std::hash::Hash + Eq, V>(pairs: impl IntoIterator<Item = (K, V)>) -> HashMap<K, Vec<V>> {
    let mut groups: HashMap<K, Vec<V>> = HashMap::new();
    for (key, value) in pairs {
        groups.entry(key).or_default().push(value);
    }
    groups
}

const COLUMNS: &str =
    "id, format, dry_run, file_sha256, rows_total, rows_ok, rows_rejected, created_by, created_at";

fn batch(row: &Row, repeated: bool) -> Result<ImportBatch, LabError> {
    let row = Reader::new("import_batch", row);
    Ok(ImportBatch {
        id: row.get("id")?,
        status: "done",
        format: row.get("format")?,
        dry_run: row.get("dry_run")?,
        repeated,
        file_sha256: hex::encode(row.get::<&[u8]>("file_sha256")?),
        rows_total: row.get("rows_total")?,
        rows_ok: row.get("rows_ok")?,
        rows_rejected: row.get("rows_rejected")?,
        created_by: row.get("created_by")?,
        created_at: row.get("created_at")?,
    })
}
