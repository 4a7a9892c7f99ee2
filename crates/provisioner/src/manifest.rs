//! What stands beside a dump, so that it can be judged and restored without the registry.

use jiff::Timestamp;
use model::{ArchiveId, DbName, OperationId, SchemaVersion, Slug, TenantId};
use serde::Serialize;

/// One table's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableDigest {
    /// Its name with its schema.
    pub name: String,
    /// How many rows it has.
    pub rows: u64,
    /// SHA-256 of its rows as COPY writes them, in the order of its key.
    pub sha256: String,
}

/// The manifest of one archive: `<archive id>.manifest.json` beside `<archive id>.dump`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The form of this document.
    pub format: u32,
    /// The archive.
    pub archive: ArchiveId,
    /// The laboratory, as it was when it was archived.
    pub tenant: TenantId,
    /// Its slug.
    pub slug: Slug,
    /// Its name.
    pub name: String,
    /// Its time zone.
    pub time_zone: String,
    /// The database that was dumped.
    pub database: DbName,
    /// The version in its own migration history.
    pub schema_version: SchemaVersion,
    /// SHA-256 over the shape of the database.
    pub shape_sha256: String,
    /// The server's version.
    pub server_version: String,
    /// The program that wrote the dump.
    pub dumped_with: String,
    /// The dump's file name.
    pub file: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
    /// Every table with its rows; all were compared with a restored copy.
    pub tables: Vec<TableDigest>,
    /// How many sequences were compared.
    pub sequences: u64,
    /// The operation that archived it.
    pub operation: OperationId,
    /// Who asked for it.
    pub requested_by: String,
    /// When the dump was whole.
    pub dumped_at: Timestamp,
    /// When the comparison had ended.
    pub verified_at: Timestamp,
}

/// The present form of the document.
pub(crate) const FORMAT: u32 = 1;
