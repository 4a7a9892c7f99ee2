//! Verified dumps. A row here means that the dump was restored and compared; it outlives the laboratory.

use deadpool_postgres::{GenericClient, Transaction};
use jiff::Timestamp;
use model::{ArchiveId, OperationId, OperationKind, SchemaVersion, Slug, TenantId};
use serde_json::Value;
use tokio_postgres::Row;

use crate::{
    Actor, Entity, Lease, Position, RegistryError, leases::held, paging::page_limit, row::Reader, sql,
    tenants::version_number,
};

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
    /// Where it is: a path or a URL.
    pub location: String,
    /// The host that wrote it, where that is a path; absent in archives of an earlier version.
    pub host: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of the file, in lower-case hex.
    pub sha256: String,
    /// The schema version inside.
    pub db_version: SchemaVersion,
    /// What was in it, and what it was compared with.
    pub manifest: Value,
    /// What it was made for: only backups are ever pruned.
    pub made_for: OperationKind,
    /// The laboratory's administrators, sealed; absent in archives of an earlier version.
    pub admins: Option<Vec<u8>>,
    /// Since when it is being removed.
    pub pruning_since: Option<Timestamp>,
    /// Who asked for it.
    pub created_by: Actor,
    /// When it was recorded; when it was dumped, for one that was imported.
    pub created_at: Timestamp,
    /// When it was taken from its manifest, because the registry did not know it.
    pub imported_at: Option<Timestamp>,
    /// When it was verified last.
    pub verified_at: Timestamp,
}

macro_rules! columns {
    () => {
        "id, tenant_id, tenant_slug, tenant_name, operation_id, location, host, bytes, sha256, db_version, \
         manifest, made_for, admins, pruning_since, created_by, created_at, imported_at, verified_at"
    };
}

/// Whether the operation `o`, which was asked for with an archive, may still read it.
macro_rules! needs_it {
    () => {
        "(o.finished_at IS NULL OR o.kind = 'restore_in_place' AND o.status = 'failed' AND o.past_return)"
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
            host: r.get("host")?,
            bytes: r.with("bytes", |n: i64| u64::try_from(n))?,
            sha256: r.get("sha256")?,
            db_version: r.version("db_version")?,
            manifest: r.get("manifest")?,
            made_for: r.parse("made_for")?,
            admins: r.get("admins")?,
            pruning_since: r.get("pruning_since")?,
            created_by: r.parse("created_by")?,
            created_at: r.get("created_at")?,
            imported_at: r.get("imported_at")?,
            verified_at: r.get("verified_at")?,
        })
    }

    /// Where it stands in lists.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::new(self.created_at, self.id.as_uuid())
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
    /// The host that wrote it, where that is a path.
    pub host: Option<String>,
    /// When it was dumped, for one that the registry takes from its manifest; a time to come counts as the
    /// present.
    pub imported_from: Option<Timestamp>,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of the file, in lower-case hex.
    pub sha256: String,
    /// The schema version inside.
    pub db_version: SchemaVersion,
    /// What is in it, and what it was compared with.
    pub manifest: Value,
    /// What it was made for.
    pub made_for: OperationKind,
    /// The laboratory's administrators, sealed.
    pub admins: Vec<u8>,
    /// Who asked for it.
    pub created_by: Actor,
}

/// Records an archive. A second one of the same operation replaces the first: the step was run again, and its
/// dump is the one that was verified.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn archive_insert(client: &impl GenericClient, new: &NewArchive) -> Result<Archive, RegistryError> {
    let statement = concat!(
        "INSERT INTO archives (id, tenant_id, tenant_slug, tenant_name, operation_id, location, bytes, sha256,
             db_version, manifest, created_by, made_for, admins, host, created_at, imported_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
             least($15::timestamptz, clock_timestamp()), CASE WHEN $15::timestamptz IS NOT NULL THEN clock_timestamp() END)
         ON CONFLICT (operation_id) DO UPDATE SET location = excluded.location, host = excluded.host, bytes = excluded.bytes,
             sha256 = excluded.sha256, db_version = excluded.db_version, manifest = excluded.manifest,
             admins = excluded.admins, verified_at = now()
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
            &new.made_for.as_str(),
            &new.admins,
            &new.host,
            &new.imported_from,
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

/// Takes back that the operation recorded an archive, because it is about to write another one under the same
/// name. Gives whether there was one.
///
/// # Errors
/// [`RegistryError::LeaseLost`].
pub async fn archive_unrecord(client: &impl GenericClient, lease: &Lease) -> Result<bool, RegistryError> {
    let statement = concat!(
        "WITH held AS (SELECT id FROM operations WHERE ",
        held!(),
        " FOR UPDATE), gone AS (
             DELETE FROM archives USING held WHERE operation_id = held.id RETURNING archives.id
         )
         SELECT id, (SELECT count(*) FROM gone) AS gone FROM held"
    );
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [&lease.operation.as_uuid(), &lease.owner, &lease.token];
    let row = sql::row_opt(client, "taking an archive's record back", statement, &params).await?;
    let gone: i64 = Reader::new(&row.ok_or_else(|| lease.lost())?, "operations", "id").get("gone")?;
    Ok(gone > 0)
}

/// One page of archives, newest first by the registry's clock, starting after `after`; of one laboratory when
/// it is named.
///
/// # Errors
/// As [`archive_by_id`].
pub async fn archives_list(
    client: &impl GenericClient,
    tenant: Option<TenantId>,
    after: Option<Position>,
    limit: u32,
) -> Result<Vec<Archive>, RegistryError> {
    let (at, id) = Position::parts(after);
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM archives WHERE ($1::uuid IS NULL OR tenant_id = $1) AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::uuid))
         ORDER BY created_at DESC, id DESC LIMIT $4"
    );
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&tenant.map(TenantId::as_uuid), &at, &id, &page_limit(limit)];
    let rows = sql::rows(client, "listing archives", statement, &params).await?;
    rows.iter().map(Archive::from_row).collect()
}

/// The archive with this id, which cannot begin to be pruned before the transaction ends. `None` also when it
/// is being pruned already.
///
/// # Errors
/// As [`archive_by_id`].
pub async fn archive_lock_in_txn(
    txn: &Transaction<'_>,
    id: ArchiveId,
) -> Result<Option<Archive>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM archives WHERE id = $1 AND pruning_since IS NULL FOR SHARE"
    );
    let row = sql::row_opt(txn, "locking an archive", statement, &[&id.as_uuid()]).await?;
    row.as_ref().map(Archive::from_row).transpose()
}

/// Notes that an archive was verified once more.
///
/// # Errors
/// [`RegistryError::NotFound`] when it is gone.
pub async fn archive_note_verified(
    client: &impl GenericClient,
    id: ArchiveId,
) -> Result<Archive, RegistryError> {
    let statement = concat!(
        "UPDATE archives SET verified_at = now() WHERE id = $1 RETURNING ",
        columns!()
    );
    let row = sql::row_opt(client, "noting a verification", statement, &[&id.as_uuid()]).await?;
    let (what, id) = (Entity::Archive, id.to_string());
    Archive::from_row(&row.ok_or(RegistryError::NotFound { what, id })?)
}

/// Which archives a laboratory's schedule does not keep any more: backups that are neither among its last
/// ones nor young enough, and not the one that was verified last. Of all laboratories unless one is named;
/// the oldest first, `limit` at most. A laboratory without a schedule, or that is gone, keeps everything. One
/// that an operation works on is kept, and one that a failed restore in place has exchanged already: it needs
/// the archive to come to its end.
///
/// # Errors
/// As [`archive_by_id`].
pub async fn archives_prunable(
    client: &impl GenericClient,
    tenant: Option<TenantId>,
    limit: u32,
) -> Result<Vec<Archive>, RegistryError> {
    let statement = concat!(
        "WITH ranked AS (
             SELECT a.*, row_number() OVER (PARTITION BY a.tenant_id ORDER BY a.created_at DESC, a.id DESC) AS place,
                    row_number() OVER (PARTITION BY a.tenant_id ORDER BY a.verified_at DESC, a.created_at DESC, a.id DESC) AS verified
               FROM archives a WHERE a.made_for = 'backup' AND ($1::uuid IS NULL OR a.tenant_id = $1)
         )
         SELECT ",
        columns!(),
        " FROM (SELECT r.* FROM ranked r JOIN backup_schedules s ON s.tenant_id = r.tenant_id
                 WHERE r.place > s.keep_last AND r.verified > 1 AND r.pruning_since IS NULL
                   AND (s.keep_for_s IS NULL OR r.created_at < now() - make_interval(secs => s.keep_for_s))
                   AND NOT EXISTS (SELECT FROM operations o WHERE o.params ->> 'archive' = r.id::text AND ",
        needs_it!(),
        ")) AS old
         ORDER BY created_at, id LIMIT $2"
    );
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
        [&tenant.map(TenantId::as_uuid), &page_limit(limit)];
    let rows = sql::rows(client, "looking for archives past their time", statement, &params).await?;
    rows.iter().map(Archive::from_row).collect()
}

/// Notes that an archive is being removed; `false` when it is in use or gone. Who wants to restore it and who
/// wants to remove it meet on its row.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn archive_begin_pruning(txn: &Transaction<'_>, id: ArchiveId) -> Result<bool, RegistryError> {
    // The lock first: an operation that was committed while we waited for it is seen by the second statement.
    let lock = "SELECT id FROM archives WHERE id = $1 FOR UPDATE";
    if sql::row_opt(txn, "locking an archive", lock, &[&id.as_uuid()])
        .await?
        .is_none()
    {
        return Ok(false);
    }
    let statement = concat!(
        "UPDATE archives SET pruning_since = coalesce(pruning_since, now()) WHERE id = $1
            AND NOT EXISTS (SELECT FROM operations o WHERE o.params ->> 'archive' = archives.id::text AND ",
        needs_it!(),
        ")"
    );
    Ok(sql::touched(txn, "beginning to remove an archive", statement, &[&id.as_uuid()]).await? > 0)
}

/// Those whose removal was begun and not ended, `limit` at most; of one laboratory when it is named.
///
/// # Errors
/// As [`archive_by_id`].
pub async fn archives_being_pruned(
    client: &impl GenericClient,
    tenant: Option<TenantId>,
    limit: u32,
) -> Result<Vec<Archive>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM archives WHERE pruning_since IS NOT NULL AND ($1::uuid IS NULL OR tenant_id = $1) \
         ORDER BY created_at, id LIMIT $2"
    );
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
        [&tenant.map(TenantId::as_uuid), &page_limit(limit)];
    let rows = sql::rows(
        client,
        "looking for archives that are being removed",
        statement,
        &params,
    )
    .await?;
    rows.iter().map(Archive::from_row).collect()
}

/// Removes the row of an archive whose files are gone.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn archive_remove(client: &impl GenericClient, id: ArchiveId) -> Result<bool, RegistryError> {
    let statement = "DELETE FROM archives WHERE id = $1 AND pruning_since IS NOT NULL";
    Ok(sql::touched(client, "removing an archive", statement, &[&id.as_uuid()]).await? > 0)
}
