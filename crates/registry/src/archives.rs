//! Verified dumps. A row here means that the dump was restored and compared; it outlives the laboratory.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use model::{ArchiveId, OperationId, SchemaVersion, Slug, TenantId};
use serde_json::Value;
use tokio_postgres::Row;

use crate::{Actor, RegistryError, page_limit, row::Reader, sql, tenants::version_number};

/// A verified dump.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Its id.
    pub id: ArchiveId,
    /// The laboratory it holds.
    pub tenant: TenantId,
    /// The slug that the laboratory had.
    pub tenant_slug: Slug,
    /// The name that the laboratory had.
    pub tenant_name: String,
    /// The operation that made it.
    pub operation: Option<OperationId>,
    /// Where it is: a path, later a URL.
    pub location: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of the file, in lower-case hex.
    pub sha256: String,
    /// The schema version inside.
    pub db_version: SchemaVersion,
    /// What was in it, and what it was compared with.
    pub manifest: Value,
    /// Who asked for it.
    pub created_by: Actor,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When it was proved last.
    pub verified_at: Timestamp,
}

macro_rules! columns {
    () => {
        "id, tenant_id, tenant_slug, tenant_name, operation_id, location, bytes, sha256, db_version, manifest, \
         created_by, created_at, verified_at"
    };
}

impl Archive {
    fn from_row(row: &Row) -> Result<Self, RegistryError> {
        let r = Reader::new(row, "archives", "id");
        Ok(Self {
            id: r.id("id")?,
            tenant: r.id("tenant_id")?,
            tenant_slug: r.parse("tenant_slug")?,
            tenant_name: r.get("tenant_name")?,
            operation: r.id_opt("operation_id")?,
            location: r.get("location")?,
            bytes: r.with("bytes", |n: i64| u64::try_from(n))?,
            sha256: r.get("sha256")?,
            db_version: r.version("db_version")?,
            manifest: r.get("manifest")?,
            created_by: r.parse("created_by")?,
            created_at: r.get("created_at")?,
            verified_at: r.get("verified_at")?,
        })
    }
}

/// A dump that was just verified.
#[derive(Debug, Clone)]
pub struct NewArchive {
    /// Its id.
    pub id: ArchiveId,
    /// The laboratory it holds.
    pub tenant: TenantId,
    /// The laboratory's slug.
    pub tenant_slug: Slug,
    /// The laboratory's name.
    pub tenant_name: String,
    /// The operation that made it.
    pub operation: Option<OperationId>,
    /// Where it is.
    pub location: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of the file, in lower-case hex.
    pub sha256: String,
    /// The schema version inside.
    pub db_version: SchemaVersion,
    /// What is in it, and what it was compared with.
    pub manifest: Value,
    /// Who asked for it.
    pub created_by: Actor,
}

/// Records an archive. A second one of the same operation replaces the first: the step was run again, and its dump is
/// the one that was proved.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn archive_insert(client: &impl GenericClient, new: &NewArchive) -> Result<Archive, RegistryError> {
    let statement = concat!(
        "INSERT INTO archives (id, tenant_id, tenant_slug, tenant_name, operation_id, location, bytes, sha256,
             db_version, manifest, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         ON CONFLICT (operation_id) DO UPDATE SET location = excluded.location, bytes = excluded.bytes,
             sha256 = excluded.sha256, db_version = excluded.db_version, manifest = excluded.manifest,
             verified_at = now()
         RETURNING ",
        columns!()
    );
    let row = sql::row_one(
        client,
        "recording an archive",
        statement,
        &[
            &new.id.as_uuid(),
            &new.tenant.as_uuid(),
            &new.tenant_slug.as_str(),
            &new.tenant_name,
            &new.operation.map(OperationId::as_uuid),
            &new.location,
            &i64::try_from(new.bytes).unwrap_or(i64::MAX),
            &new.sha256,
            &version_number(new.db_version),
            &new.manifest,
            &new.created_by.to_string(),
        ],
    )
    .await;
    Archive::from_row(&row?)
}

/// The archive with this id.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or the row cannot be read.
pub async fn archive_by_id(
    client: &impl GenericClient,
    id: ArchiveId,
) -> Result<Option<Archive>, RegistryError> {
    let statement = concat!("SELECT ", columns!(), " FROM archives WHERE id = $1");
    let row = sql::row_opt(client, "reading an archive", statement, &[&id.as_uuid()]).await?;
    row.as_ref().map(Archive::from_row).transpose()
}

/// The archive that an operation made.
///
/// # Errors
/// As [`archive_by_id`].
pub async fn archive_by_operation(
    client: &impl GenericClient,
    operation: OperationId,
) -> Result<Option<Archive>, RegistryError> {
    let statement = concat!("SELECT ", columns!(), " FROM archives WHERE operation_id = $1");
    let row = sql::row_opt(client, "reading an archive", statement, &[&operation.as_uuid()]).await?;
    row.as_ref().map(Archive::from_row).transpose()
}

/// One page of archives, newest first, older than the archive `before`; of one laboratory when it is named.
///
/// # Errors
/// As [`archive_by_id`].
pub async fn archives_list(
    client: &impl GenericClient,
    tenant: Option<TenantId>,
    before: Option<ArchiveId>,
    limit: u32,
) -> Result<Vec<Archive>, RegistryError> {
    // Ids are made in the order of time, so they are the order too.
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM archives WHERE ($1::uuid IS NULL OR tenant_id = $1) AND ($2::uuid IS NULL OR id < $2)
         ORDER BY id DESC LIMIT $3"
    );
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [
        &tenant.map(TenantId::as_uuid),
        &before.map(ArchiveId::as_uuid),
        &page_limit(limit),
    ];
    let rows = sql::rows(client, "listing archives", statement, &params).await?;
    rows.iter().map(Archive::from_row).collect()
}
