//! Files of results from instruments, CSV or NDJSON.
//!
//! A row lands as `entered`, never as verified. A row that matches nothing, has the wrong unit, contradicts
//! another row, is a control sample or cannot be read is set aside with its line, its text and the reason; it
//! is never dropped and never stops the others. A row that says that nothing was measured is neither.
//!
//! The same file, or one that says the same with other line ends, quotes or order, is the same batch, and is
//! worked on again each time that it comes: what was set aside may land now, and what landed before does
//! nothing. `retry` does the same for the rows set aside without the file. Each run's counts say what that
//! run did. A dry run goes the whole way except for writing values, and takes nothing from the real run.

mod lines;
mod matching;
mod set_aside;

pub use set_aside::{Fields, IMPORT_ROWS_MAX};

use set_aside::SetAside;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio_postgres::{Row, types::Json};
use uuid::Uuid;

use crate::{
    Actor, ImportFormat, ImportId, LabError, Page, PageRequest, ResultId, Txn, audit, entry, paging::Cursor,
    rows::Reader,
};

/// Most bytes of a file.
pub const IMPORT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An imported file, with the counts of its latest run: those four add up to `rowsTotal`.
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
    /// Whether this file, or one that says the same, had been imported before: this is that batch.
    pub repeated: bool,
    /// SHA-256 of the file that came first, in hexadecimal.
    pub file_sha256: String,
    /// How often the batch was worked on with some effect, the first time included.
    pub runs: i32,
    /// Rows of the file.
    pub rows_total: i32,
    /// Rows whose value landed in this run (or would have).
    pub rows_ok: i32,
    /// Rows for which this run did nothing, because their value had landed before.
    pub rows_unchanged: i32,
    /// Rows that say that nothing was measured: an empty value, or a word such as `NA`.
    pub rows_not_done: i32,
    /// Rows that are set aside.
    pub rows_rejected: i32,
    /// Those of them that contradict a value which is there (`conflict`): somebody has to look which is
    /// right. A row with a fault of its own (`bad_value`, `wrong_unit`) is not among them, but is shown with
    /// the value, too (`contradictedBy`).
    pub rows_conflicting: i32,
    /// Who imported it.
    pub created_by: Uuid,
    /// When.
    pub created_at: Timestamp,
    /// When the latest run was that had an effect.
    pub last_run_at: Timestamp,
}

/// A row that is set aside.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImportError {
    /// Line of the file where the row begins, from 1, the CSV's header included.
    pub line: i32,
    /// The row, cut after 2,000 characters.
    pub raw: String,
    /// A stable word for programs: `bad_row`, `bad_value`, `wrong_unit`, `unknown_specimen`, `unknown_test`,
    /// `not_ordered`, `ambiguous`, `not_received`, `control_sample`, `contradiction`, `duplicate_in_file`,
    /// `sent_back`, `already_entered` (it has this value), `conflict` (it has another one), `already_final`.
    pub code: String,
    /// What is wrong.
    pub reason: String,
}

/// What one run found, apart from what it set aside.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Counts {
    ok: i32,
    unchanged: i32,
    not_done: i32,
    rejected: i32,
    /// Of the rejected.
    conflicting: i32,
}

/// Imports a file. One that was imported before is the same batch and is worked on again.
///
/// # Errors
/// [`LabError::Invalid`] when the file as a whole cannot be read: too large, no rows, a header that lacks a
/// column. [`LabError::Conflict`] `in_flight` when the same file is being imported at this moment.
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
    let mut known = None;
    let mut parsed = None;
    if !dry_run {
        alone(txn, &sha256).await?;
        known = by_file(txn, &sha256).await?;
    }
    let mut content = None;
    if known.is_none() {
        let read = lines::parse(format, file)?;
        let hash = lines::content_sha256(&read);
        if !dry_run {
            alone(txn, &hash).await?;
            known = by_content(txn, &hash).await?;
        }
        content = Some(hash);
        parsed = Some(read);
    }
    let lines::Parsed { rows, set_aside } = match (parsed, &known) {
        (Some(parsed), _) => parsed,
        (None, known) => lines::parse(known.as_ref().map_or(format, |batch| batch.format), file)?,
    };
    let total = count(rows.len() + set_aside.len());
    if let Some(batch) = known {
        let done = work(txn, actor, &batch, "redelivery", rows, set_aside, 0).await?;
        return Ok(ImportBatch {
            repeated: true,
            ..done
        });
    }
    let id = ImportId::generate();
    let statement = txn
        .prepare_cached(
            "INSERT INTO import_batch (id, format, dry_run, file_sha256, content_sha256, rows_total, created_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING created_at",
        )
        .await?;
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
        &id,
        &format,
        &dry_run,
        &sha256,
        &content,
        &total,
        &actor.staff.as_uuid(),
    ];
    let created_at: Timestamp = txn.query_one(&statement, &params).await?.get(0);
    let batch = ImportBatch {
        id,
        status: "done",
        format,
        dry_run,
        repeated: false,
        file_sha256: hex::encode(&sha256),
        runs: 0,
        rows_total: total,
        rows_ok: 0,
        rows_unchanged: 0,
        rows_not_done: 0,
        rows_rejected: 0,
        rows_conflicting: 0,
        created_by: actor.staff.as_uuid(),
        created_at,
        last_run_at: created_at,
    };
    work(txn, actor, &batch, "delivery", rows, set_aside, 0).await
}

/// Tries the rows again that are set aside, and touches no other. Asked for twice, the second finds what the
/// first left.
///
/// # Errors
/// [`LabError::NotFound`]; [`LabError::Conflict`] `dry_run` for a rehearsal, `in_flight` while the file is
/// being imported.
pub async fn retry(txn: &Txn<'_>, actor: &Actor, id: ImportId) -> Result<ImportBatch, LabError> {
    let batch = get(txn, id).await?;
    if batch.dry_run {
        return Err(LabError::conflict(
            "dry_run",
            "this was a rehearsal and set nothing aside for good; import the file",
        ));
    }
    alone(txn, &hex::decode(&batch.file_sha256).unwrap_or_default()).await?;
    let sql = "SELECT content_sha256 FROM import_batch WHERE id = $1";
    let content: Option<Vec<u8>> = txn
        .query_one(&txn.prepare_cached(sql).await?, &[&id])
        .await?
        .get(0);
    if let Some(content) = content {
        alone(txn, &content).await?;
    }
    // Again, under the lock.
    let batch = get(txn, id).await?;
    let (mut rows, mut set_aside) = (Vec::new(), Vec::new());
    for row in set_aside_of(txn, id, batch.runs).await? {
        match row.fields.clone() {
            Some(fields) => match lines::read(row.line, row.raw.clone(), fields) {
                Ok(read) => rows.push(read),
                Err(_) => set_aside.push(row),
            },
            None => set_aside.push(row),
        }
    }
    let landed = batch.rows_ok + batch.rows_unchanged;
    work(txn, actor, &batch, "retry", rows, set_aside, landed).await
}

/// Matches rows, writes the values that land, and notes the run if it changed anything. `landed` rows are not
/// among `rows` because their value landed in an earlier run.
async fn work(
    txn: &Txn<'_>,
    actor: &Actor,
    batch: &ImportBatch,
    kind: &str,
    rows: Vec<lines::ImportRow>,
    mut set_aside: Vec<SetAside>,
    landed: i32,
) -> Result<ImportBatch, LabError> {
    let matched = matching::match_rows(txn, batch.id, rows, &mut set_aside).await?;
    set_aside.sort_by_key(|row| row.line);
    let not_done_before = if kind == "retry" { batch.rows_not_done } else { 0 };
    let counts = Counts {
        ok: count(matched.landing.len()),
        unchanged: count(matched.unchanged) + landed,
        not_done: count(matched.not_done) + not_done_before,
        rejected: count(set_aside.len()),
        conflicting: count(
            set_aside
                .iter()
                .filter(|row| row.code == matching::CONFLICT)
                .count(),
        ),
    };
    let answer = |runs, last_run_at| ImportBatch {
        runs,
        rows_ok: counts.ok,
        rows_unchanged: counts.unchanged,
        rows_not_done: counts.not_done,
        rows_rejected: counts.rejected,
        rows_conflicting: counts.conflicting,
        last_run_at,
        ..batch.clone()
    };
    if batch.runs > 0
        && counts.ok == 0
        && set_aside == set_aside_of(txn, batch.id, batch.runs).await?
        && all_kept(txn, batch.id, &matched.said).await?
    {
        return Ok(answer(batch.runs, batch.last_run_at));
    }
    let run = batch.runs + 1;
    let statement = txn
        .prepare_cached(
            "INSERT INTO import_run (batch_id, run, kind, rows_ok, rows_unchanged, rows_not_done, rows_rejected, run_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING run_at",
        )
        .await?;
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 8] = [
        &batch.id,
        &run,
        &kind,
        &counts.ok,
        &counts.unchanged,
        &counts.not_done,
        &counts.rejected,
        &actor.staff.as_uuid(),
    ];
    let run_at: Timestamp = txn.query_one(&statement, &params).await?.get(0);
    store_set_aside(txn, batch.id, run, &set_aside).await?;
    if !batch.dry_run {
        let entries: Vec<entry::Entry<'_>> = matched.landing.iter().map(matching::Landing::entry).collect();
        entry::write(txn, actor, Some(batch.id), &entries).await?;
        // After the values of the same file: a row that cannot be read speaks against one that landed beside
        // it.
        store_said(txn, batch.id, run, &matched.said).await?;
    }
    let detail = serde_json::json!({
        "run": run, "kind": kind, "dryRun": batch.dry_run, "rowsTotal": batch.rows_total, "rowsOk": counts.ok,
        "rowsUnchanged": counts.unchanged, "rowsNotDone": counts.not_done, "rowsRejected": counts.rejected,
        "rowsConflicting": counts.conflicting,
    });
    audit::write(txn, actor, "import.run", "import", batch.id, Some(detail)).await?;
    Ok(answer(run, run_at))
}

fn count(rows: usize) -> i32 {
    i32::try_from(rows).unwrap_or(i32::MAX)
}

/// One batch, with the counts of its latest run.
///
/// # Errors
/// [`LabError::NotFound`].
pub async fn get(txn: &Txn<'_>, id: ImportId) -> Result<ImportBatch, LabError> {
    let statement = txn.prepare_cached(&format!("{SELECT} WHERE b.id = $1")).await?;
    let row = txn.query_opt(&statement, &[&id]).await?;
    batch(&row.ok_or_else(|| LabError::not_found("import", id))?)
}

/// The rows of a batch that are set aside, by line.
///
/// # Errors
/// [`LabError::NotFound`]; [`LabError::Invalid`] for a bad page.
pub async fn errors(txn: &Txn<'_>, id: ImportId, page: &PageRequest) -> Result<Page<ImportError>, LabError> {
    let run = get(txn, id).await?.runs;
    let after = i32::try_from(page.after_number()?.unwrap_or(0)).unwrap_or(i32::MAX);
    let statement = txn
        .prepare_cached(
            "SELECT batch_id, line, raw, code, reason FROM import_error WHERE batch_id = $1 AND run = $2 AND line > $3
             ORDER BY line LIMIT $4",
        )
        .await?;
    let rows = txn
        .query(&statement, &[&id, &run, &after, &page.fetch()?])
        .await?;
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
        .prepare_cached(&format!("{SELECT} WHERE b.file_sha256 = $1 AND NOT b.dry_run"))
        .await?;
    let row = txn.query_opt(&statement, &[&sha256]).await?;
    row.as_ref().map(batch).transpose()
}

async fn by_content(txn: &Txn<'_>, sha256: &[u8]) -> Result<Option<ImportBatch>, LabError> {
    let statement = txn
        .prepare_cached(&format!("{SELECT} WHERE b.content_sha256 = $1 AND NOT b.dry_run"))
        .await?;
    let row = txn.query_opt(&statement, &[&sha256]).await?;
    row.as_ref().map(batch).transpose()
}

async fn store_set_aside(txn: &Txn<'_>, id: ImportId, run: i32, rows: &[SetAside]) -> Result<(), LabError> {
    let lines: Vec<i32> = rows.iter().map(|row| row.line).collect();
    let raws: Vec<&str> = rows.iter().map(|row| row.raw.as_str()).collect();
    let codes: Vec<&str> = rows.iter().map(|row| row.code.as_str()).collect();
    let reasons: Vec<&str> = rows.iter().map(|row| row.reason.as_str()).collect();
    let fields: Vec<Option<Json<&Fields>>> = rows.iter().map(|row| row.fields.as_ref().map(Json)).collect();
    let statement = txn
        .prepare_cached(
            "INSERT INTO import_error (batch_id, run, line, raw, code, reason, fields)
             SELECT $1, $2, u.* FROM unnest($3::int[], $4::text[], $5::text[], $6::text[], $7::jsonb[]) AS u",
        )
        .await?;
    txn.execute(&statement, &[&id, &run, &lines, &raws, &codes, &reasons, &fields])
        .await?;
    Ok(())
}

/// Keeps what the rows say of results: a value that differs is not released before somebody has looked.
async fn store_said(txn: &Txn<'_>, id: ImportId, run: i32, said: &[matching::Said]) -> Result<(), LabError> {
    let lines: Vec<i32> = said.iter().map(|row| row.line).collect();
    let results: Vec<ResultId> = said.iter().map(|row| row.result).collect();
    let (mut numbers, mut comparators, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for row in said {
        let (number, comparator, text) = match &row.value {
            Some(entry::Value::Number(number, comparator)) => (Some(*number), *comparator, None),
            Some(entry::Value::Text(text)) => (None, None, Some(text.as_str())),
            None => (None, None, None),
        };
        numbers.push(number);
        comparators.push(comparator);
        texts.push(text);
    }
    let statement = txn
        .prepare_cached(
            "INSERT INTO import_conflict (batch_id, run, line, result_id, attempt, had_value, value_num, comparator, value_text)
             SELECT $1, $2, u.line, r.id, r.attempt, num_nonnulls(r.value_num, r.value_text) = 1, u.value_num, u.comparator, u.value_text
             FROM unnest($3::int[], $4::uuid[], $5::numeric[], $6::text[], $7::text[])
                    AS u (line, id, value_num, comparator, value_text)
             JOIN result r ON r.id = u.id",
        )
        .await?;
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
        [&id, &run, &lines, &results, &numbers, &comparators, &texts];
    txn.execute(&statement, &params).await?;
    Ok(())
}

/// Whether earlier runs have kept what the rows say of the present measurements. After a repeat, the same row
/// speaks of another one.
async fn all_kept(txn: &Txn<'_>, id: ImportId, said: &[matching::Said]) -> Result<bool, LabError> {
    let lines: Vec<i32> = said.iter().map(|row| row.line).collect();
    let results: Vec<ResultId> = said.iter().map(|row| row.result).collect();
    let statement = txn
        .prepare_cached(
            "SELECT NOT EXISTS (
               SELECT FROM unnest($2::int[], $3::uuid[]) AS u (line, id) JOIN result r ON r.id = u.id
                WHERE NOT EXISTS (SELECT FROM import_conflict c WHERE c.batch_id = $1 AND c.line = u.line
                                     AND c.result_id = r.id AND c.attempt = r.attempt
                                     AND (c.had_value OR num_nonnulls(r.value_num, r.value_text) = 0)))",
        )
        .await?;
    Ok(txn.query_one(&statement, &[&id, &lines, &results]).await?.get(0))
}

async fn set_aside_of(txn: &Txn<'_>, id: ImportId, run: i32) -> Result<Vec<SetAside>, LabError> {
    let statement = txn
        .prepare_cached(
            "SELECT batch_id, line, raw, code, reason, fields FROM import_error WHERE batch_id = $1 AND run = $2 ORDER BY line",
        )
        .await?;
    let rows = txn.query(&statement, &[&id, &run]).await?;
    rows.iter()
        .map(|row| {
            let row = Reader::new("import_error", row);
            Ok(SetAside {
                line: row.get("line")?,
                raw: row.get("raw")?,
                code: row.get("code")?,
                reason: row.get("reason")?,
                fields: row
                    .get::<Option<Json<Fields>>>("fields")?
                    .map(|Json(fields)| fields),
            })
        })
        .collect()
}

const SELECT: &str = "
    SELECT b.id, b.format, b.dry_run, b.file_sha256, b.rows_total, b.created_by, b.created_at,
           r.run, r.rows_ok, r.rows_unchanged, r.rows_not_done, r.rows_rejected, r.run_at,
           (SELECT count(*)::int FROM import_error e WHERE e.batch_id = b.id AND e.run = r.run AND e.code = 'conflict') AS rows_conflicting
    FROM import_batch b
    JOIN LATERAL (SELECT * FROM import_run i WHERE i.batch_id = b.id ORDER BY i.run DESC LIMIT 1) AS r ON true";

fn batch(row: &Row) -> Result<ImportBatch, LabError> {
    let row = Reader::new("import_batch", row);
    Ok(ImportBatch {
        id: row.get("id")?,
        status: "done",
        format: row.get("format")?,
        dry_run: row.get("dry_run")?,
        repeated: false,
        file_sha256: hex::encode(row.get::<&[u8]>("file_sha256")?),
        runs: row.get("run")?,
        rows_total: row.get("rows_total")?,
        rows_ok: row.get("rows_ok")?,
        rows_unchanged: row.get("rows_unchanged")?,
        rows_not_done: row.get("rows_not_done")?,
        rows_rejected: row.get("rows_rejected")?,
        rows_conflicting: row.get("rows_conflicting")?,
        created_by: row.get("created_by")?,
        created_at: row.get("created_at")?,
        last_run_at: row.get("run_at")?,
    })
}
