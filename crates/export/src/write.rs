//! Writing an export: the page for people, each table's rows as they come, then the documents that describe
//! them. How a column is described depends on its values, which are looked at just before they are written.

use std::io;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio_postgres::Transaction;

use crate::{
    About, ExportError, Plan,
    archive::Archive,
    document::{FileEntry, data_package, manifest, readme},
    plan::Resource,
};

/// How many bytes of rows go to the compressor at once, about. The server sends each row by itself.
const ROWS_BYTES: usize = 32 * 1024;
/// From this size on disk on, a table's file may come to 4 GiB: compressed values grow several times when
/// they are written out.
const LARGE_BYTES: i64 = 256 * 1024 * 1024;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Tables.
    pub tables: usize,
    /// Rows of all tables.
    pub rows: u64,
    /// Size of the archive.
    pub bytes: u64,
}

/// Writes the archive. `out` takes its bytes, some 64 KiB at a time; while it waits, nothing is read. `done`
/// is told of each table that is done.
///
/// # Errors
/// [`ExportError`]; what was written until then is no archive.
pub async fn write(
    txn: &Transaction<'_>,
    plan: &Plan,
    about: &About,
    out: impl AsyncFnMut(Bytes) -> io::Result<()>,
    mut done: impl FnMut(&str, u64),
) -> Result<Summary, ExportError> {
    let mut archive = Archive::new(out);
    let mut plan = plan.clone();
    let mut files: Vec<FileEntry> = Vec::with_capacity(plan.resources.len() + 2);
    files.push(
        archive
            .whole("README.txt", readme(about, &plan).as_bytes())
            .await?,
    );
    let mut rows = 0;
    for resource in &mut plan.resources {
        resource.settle_encodings(txn).await?;
        let file = table(txn, &mut archive, resource).await?;
        rows += file.rows.unwrap_or(0);
        done(&resource.title, file.rows.unwrap_or(0));
        files.push(file);
    }
    files.push(
        archive
            .whole("datapackage.json", &data_package(about, &plan))
            .await?,
    );
    let manifest = manifest(about, &plan, &files);
    archive.whole("manifest.json", &manifest).await?;
    Ok(Summary {
        tables: plan.resources.len(),
        rows,
        bytes: archive.finish().await?,
    })
}

async fn table<Out: AsyncFnMut(Bytes) -> io::Result<()>>(
    txn: &Transaction<'_>,
    archive: &mut Archive<Out>,
    resource: &Resource,
) -> Result<FileEntry, ExportError> {
    let reading = || ExportError::db(format!("reading the table {}", resource.title));
    archive.begin(&resource.path, resource.table.bytes >= LARGE_BYTES)?;
    let rows = txn.copy_out(&resource.copy()).await.map_err(reading())?;
    let mut rows = std::pin::pin!(rows);
    let mut records = crate::records::Records::default();
    let mut buffer = Vec::with_capacity(ROWS_BYTES * 2);
    while let Some(bytes) = rows.try_next().await.map_err(reading())? {
        records.pass(&bytes, &mut buffer);
        if buffer.len() >= ROWS_BYTES {
            archive.write(&buffer).await?;
            buffer.clear();
        }
    }
    archive.write(&buffer).await?;
    Ok(archive.end(Some(records.rows())))
}
