//! When laboratories are backed up. Whoever takes a due one moves it on in the same transaction, so that it runs once,
//! however many workers look, and once only when it was missed for long.

use std::time::Duration;

use deadpool_postgres::{GenericClient, Transaction};
use jiff::Timestamp;
use model::{Slug, TenantId};
use tokio_postgres::{Row, types::ToSql};

use crate::{Actor, RegistryError, page_limit, row::Reader, sql};

/// One laboratory's backups.
#[derive(Debug, Clone)]
pub struct BackupSchedule {
    /// The laboratory.
    pub tenant: TenantId,
    /// Its slug.
    pub tenant_slug: Slug,
    /// How often.
    pub every: Duration,
    /// How many are kept at least.
    pub keep_last: u32,
    /// How long each is kept at least.
    pub keep_for: Option<Duration>,
    /// When the next one is due.
    pub next_at: Timestamp,
    /// Who set it.
    pub created_by: Actor,
}

impl BackupSchedule {
    fn from_row(row: &Row) -> Result<Self, RegistryError> {
        let r = Reader::new(row, "backup_schedules", "tenant_id");
        let seconds = |n: i64| u64::try_from(n).map(Duration::from_secs);
        Ok(Self {
            tenant: r.id("tenant_id")?,
            tenant_slug: r.parse("tenant_slug")?,
            every: r.with("every_s", seconds)?,
            keep_last: r.count("keep_last")?,
            keep_for: r.with("keep_for_s", |n: Option<i64>| n.map(seconds).transpose())?,
            next_at: r.get("next_at")?,
            created_by: r.parse("created_by")?,
        })
    }
}

macro_rules! columns {
    () => {
        "s.tenant_id, t.slug::text AS tenant_slug, s.every_s, s.keep_last, s.keep_for_s, s.next_at, s.created_by"
    };
}

/// A schedule to be.
#[derive(Debug, Clone)]
pub struct NewBackupSchedule {
    /// The laboratory.
    pub tenant: TenantId,
    /// How often: an hour to 366 days.
    pub every: Duration,
    /// How many are kept at least: 1 to 10,000.
    pub keep_last: u32,
    /// How long each is kept at least.
    pub keep_for: Option<Duration>,
    /// How soon the first one is due.
    pub first_in: Duration,
    /// Who sets it.
    pub by: Actor,
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Sets a laboratory's schedule, in place of the one it had.
///
/// # Errors
/// [`RegistryError::NotFound`] when there is no such laboratory; the transaction is lost then.
pub async fn backup_schedule_set_in_txn(
    txn: &Transaction<'_>,
    new: &NewBackupSchedule,
) -> Result<BackupSchedule, RegistryError> {
    let statement =
        "INSERT INTO backup_schedules AS s (tenant_id, every_s, keep_last, keep_for_s, next_at, created_by)
         VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5), $6)
         ON CONFLICT (tenant_id) DO UPDATE SET every_s = excluded.every_s, keep_last = excluded.keep_last,
             keep_for_s = excluded.keep_for_s, next_at = least(s.next_at, excluded.next_at),
             created_by = excluded.created_by, updated_at = now()";
    let params: [&(dyn ToSql + Sync); 6] = [
        &new.tenant.as_uuid(),
        &seconds(new.every),
        &i32::try_from(new.keep_last).unwrap_or(i32::MAX),
        &new.keep_for.map(seconds),
        &new.first_in.as_secs_f64(),
        &new.by.to_string(),
    ];
    let set = sql::touched(txn, "setting a backup schedule", statement, &params).await;
    set.map_err(|error| match error.violated() {
        Some("backup_schedules_tenant_id_fkey") => crate::tenants::not_found(new.tenant),
        _ => error,
    })?;
    let found = backup_schedule_of(txn, new.tenant).await?;
    found.ok_or_else(|| crate::tenants::not_found(new.tenant))
}

/// Ends a laboratory's schedule; `false` when it had none.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn backup_schedule_remove(
    client: &impl GenericClient,
    tenant: TenantId,
) -> Result<bool, RegistryError> {
    let statement = "DELETE FROM backup_schedules WHERE tenant_id = $1";
    let gone = sql::touched(
        client,
        "ending a backup schedule",
        statement,
        &[&tenant.as_uuid()],
    )
    .await?;
    Ok(gone > 0)
}

/// A laboratory's schedule.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or the row cannot be read.
pub async fn backup_schedule_of(
    client: &impl GenericClient,
    tenant: TenantId,
) -> Result<Option<BackupSchedule>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM backup_schedules s JOIN tenants t ON t.id = s.tenant_id WHERE s.tenant_id = $1"
    );
    let row = sql::row_opt(
        client,
        "reading a backup schedule",
        statement,
        &[&tenant.as_uuid()],
    )
    .await?;
    row.as_ref().map(BackupSchedule::from_row).transpose()
}

/// One page of schedules in the order of the laboratories' slugs, after the slug `after`.
///
/// # Errors
/// As [`backup_schedule_of`].
pub async fn backup_schedules_list(
    client: &impl GenericClient,
    after: Option<&Slug>,
    limit: u32,
) -> Result<Vec<BackupSchedule>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM backup_schedules s JOIN tenants t ON t.id = s.tenant_id
         WHERE $1::text IS NULL OR t.slug > $1::text::citext ORDER BY t.slug LIMIT $2"
    );
    let params: [&(dyn ToSql + Sync); 2] = [&after.map(Slug::as_str), &page_limit(limit)];
    let rows = sql::rows(client, "listing backup schedules", statement, &params).await?;
    rows.iter().map(BackupSchedule::from_row).collect()
}

/// Takes the schedule that is due longest, of a laboratory that can be backed up now, and moves it on: by its interval, and
/// by up to a twentieth of it so that many that were set together do not stay together. It stays taken only if the
/// transaction is committed.
///
/// # Errors
/// As [`backup_schedule_of`].
pub async fn backup_schedule_take_due_in_txn(
    txn: &Transaction<'_>,
) -> Result<Option<BackupSchedule>, RegistryError> {
    let statement = concat!(
        "WITH due AS (
             SELECT s.tenant_id FROM backup_schedules s JOIN tenants t ON t.id = s.tenant_id
              WHERE s.next_at <= clock_timestamp() AND t.status IN ('active', 'suspended')
                AND NOT EXISTS (SELECT FROM operations o WHERE o.tenant_id = s.tenant_id AND o.finished_at IS NULL)
              ORDER BY s.next_at LIMIT 1 FOR UPDATE OF s SKIP LOCKED
         ), moved AS (
             UPDATE backup_schedules s
                SET next_at = clock_timestamp() + make_interval(secs => s.every_s * (1 - random() / 20))
               FROM due WHERE s.tenant_id = due.tenant_id RETURNING s.*
         )
         SELECT ",
        columns!(),
        " FROM moved s JOIN tenants t ON t.id = s.tenant_id"
    );
    let row = sql::row_opt(txn, "looking for backups that are due", statement, &[]).await?;
    row.as_ref().map(BackupSchedule::from_row).transpose()
}
