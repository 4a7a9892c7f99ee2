//! The `tenantd` processes that run: what they must have in common, and how far their hosts' clocks are off.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use jiff::{SignedDuration, Timestamp};
use tokio_postgres::{Row, types::ToSql};

use crate::{PAGE_MAX, RegistryError, paging::page_limit, row::Reader, sql};

/// How long a process counts as running after it was heard of.
pub const PROCESS_TTL: Duration = Duration::from_secs(60);

/// What a process says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessReport {
    /// Its name: host, process id and a number of its own.
    pub name: String,
    /// The host.
    pub host: String,
    /// A short name for the key that signs its tokens.
    pub signing_key: String,
    /// Where it writes archives.
    pub archive_store: String,
    /// How far its host's clock was ahead of the registry's, when that was asked last.
    pub clock_offset: SignedDuration,
}

/// A process that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// What it says of itself.
    pub report: ProcessReport,
    /// When it was heard of last, by the registry's clock.
    pub seen_at: Timestamp,
}

/// Says that a process runs, and clears away those that do not any more. Gives the registry's time.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn process_report(
    client: &impl GenericClient,
    report: &ProcessReport,
) -> Result<Timestamp, RegistryError> {
    let statement = "WITH gone AS (
             DELETE FROM processes WHERE name IN (
                 SELECT name FROM processes
                 WHERE name <> $1 AND seen_at < clock_timestamp() - make_interval(secs => $6)
                 LIMIT 100 FOR UPDATE SKIP LOCKED)
         )
         INSERT INTO processes (name, host, signing_key, archive_store, clock_offset_ms, seen_at)
         VALUES ($1, $2, $3, $4, $5, clock_timestamp())
         ON CONFLICT (name) DO UPDATE SET host = excluded.host, signing_key = excluded.signing_key,
             archive_store = excluded.archive_store, clock_offset_ms = excluded.clock_offset_ms,
             seen_at = excluded.seen_at
         RETURNING clock_timestamp()";
    let offset_ms = i64::try_from(report.clock_offset.as_millis()).unwrap_or(i64::MAX);
    let params: [&(dyn ToSql + Sync); 6] = [
        &report.name,
        &report.host,
        &report.signing_key,
        &report.archive_store,
        &offset_ms,
        &PROCESS_TTL.as_secs_f64(),
    ];
    let row = sql::row_one(client, "saying that a process runs", statement, &params).await?;
    Ok(row.get(0))
}

/// Says that a process ends.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn process_end(client: &impl GenericClient, name: &str) -> Result<(), RegistryError> {
    let statement = "DELETE FROM processes WHERE name = $1";
    sql::touched(client, "saying that a process ends", statement, &[&name]).await?;
    Ok(())
}

/// The processes that run, by name: at most [`crate::PAGE_MAX`].
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or a row cannot be read.
pub async fn processes_list(client: &impl GenericClient) -> Result<Vec<Process>, RegistryError> {
    let statement = "SELECT name, host, signing_key, archive_store, clock_offset_ms, seen_at FROM processes
         WHERE seen_at >= clock_timestamp() - make_interval(secs => $1) ORDER BY name LIMIT $2";
    let params: [&(dyn ToSql + Sync); 2] = [&PROCESS_TTL.as_secs_f64(), &page_limit(PAGE_MAX)];
    let rows = sql::rows(client, "listing the processes that run", statement, &params).await?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &Row) -> Result<Process, RegistryError> {
    let r = Reader::new(row, "processes", "name");
    Ok(Process {
        report: ProcessReport {
            name: r.get("name")?,
            host: r.get("host")?,
            signing_key: r.get("signing_key")?,
            archive_store: r.get("archive_store")?,
            clock_offset: SignedDuration::from_millis(r.get("clock_offset_ms")?),
        },
        seen_at: r.get("seen_at")?,
    })
}
