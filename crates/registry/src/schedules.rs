//! When laboratories are backed up, and how that went. Whoever takes a due one moves it on in the same
//! transaction, so that it runs once, however many workers look, and once only when it was missed for long.
//! One that fails is due again soon, with a growing wait, and until one succeeds everybody who looks is told.

use std::time::Duration;

use deadpool_postgres::{GenericClient, Transaction};
use jiff::Timestamp;
use model::{Slug, TenantId};
use tokio_postgres::{Row, types::ToSql};

use crate::{Actor, Outcome, RegistryError, paging::page_limit, row::Reader, sql};

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
    /// When the last backup succeeded, also one that was asked for by hand.
    pub succeeded_at: Option<Timestamp>,
    /// When one failed last,
    pub failed_at: Option<Timestamp>,
    /// and why.
    pub failure: Option<String>,
    /// How many have failed since the last that succeeded.
    pub failures: u32,
    /// How old the newest backup is: the time since the last one that succeeded, or since the schedule was
    /// set.
    pub age: Duration,
    /// Whether that is more than one and a half intervals, while the laboratory can be backed up.
    pub overdue: bool,
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
            succeeded_at: r.get("succeeded_at")?,
            failed_at: r.get("failed_at")?,
            failure: r.get("failure")?,
            failures: r.count("failures")?,
            age: r.with("age_s", seconds)?,
            overdue: r.get("overdue")?,
            created_by: r.parse("created_by")?,
        })
    }
}

/// Seconds since the newest backup of the schedule `s`. The registry's clock may have been set back.
macro_rules! age {
    () => {
        "greatest(0, extract(epoch FROM clock_timestamp() - coalesce(s.succeeded_at, s.created_at)))::int8"
    };
}

/// Whether the newest backup of the schedule `s` of the laboratory `t` is too old.
macro_rules! overdue {
    () => {
        concat!(
            "(t.status IN ('active', 'suspended') AND ",
            age!(),
            " > s.every_s * 3 / 2)"
        )
    };
}

macro_rules! columns {
    () => {
        concat!(
            "s.tenant_id, t.slug::text AS tenant_slug, s.every_s, s.keep_last, s.keep_for_s, s.next_at, \
             s.created_by, s.succeeded_at, s.failed_at, s.failure, s.failures, ",
            age!(),
            " AS age_s, ",
            overdue!(),
            " AS overdue"
        )
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

/// Which schedules are due: of a laboratory that can be backed up now.
macro_rules! due {
    () => {
        "backup_schedules s JOIN tenants t ON t.id = s.tenant_id
          WHERE s.next_at <= clock_timestamp() AND t.status IN ('active', 'suspended')
            AND NOT EXISTS (SELECT FROM operations o WHERE o.tenant_id = s.tenant_id AND o.finished_at IS NULL)"
    };
}

/// The laboratory whose schedule is due longest. Somebody else may see the same.
///
/// # Errors
/// As [`backup_schedule_of`].
pub async fn backup_schedule_due(client: &impl GenericClient) -> Result<Option<TenantId>, RegistryError> {
    let statement = concat!("SELECT s.tenant_id FROM ", due!(), " ORDER BY s.next_at LIMIT 1");
    let row = sql::row_opt(client, "looking for backups that are due", statement, &[]).await?;
    let read = |row: &Row| Reader::new(row, "backup_schedules", "tenant_id").id("tenant_id");
    row.as_ref().map(read).transpose()
}

/// Takes a laboratory's schedule, if it is due and nobody else has it, and moves it on: by its interval, and
/// by up to a twentieth of it so that many that were set together do not stay together. It stays taken only
/// if the transaction is committed.
///
/// # Errors
/// As [`backup_schedule_of`].
pub async fn backup_schedule_take_due_in_txn(
    txn: &Transaction<'_>,
    tenant: TenantId,
) -> Result<Option<BackupSchedule>, RegistryError> {
    let statement = concat!(
        "WITH due AS (
             SELECT s.tenant_id FROM ",
        due!(),
        " AND s.tenant_id = $1 FOR UPDATE OF s SKIP LOCKED
         ), moved AS (
             UPDATE backup_schedules s
                SET next_at = clock_timestamp() + make_interval(secs => s.every_s * (1 - random() / 20))
               FROM due WHERE s.tenant_id = due.tenant_id RETURNING s.*
         )
         SELECT ",
        columns!(),
        " FROM moved s JOIN tenants t ON t.id = s.tenant_id"
    );
    let params: [&(dyn ToSql + Sync); 1] = [&tenant.as_uuid()];
    let row = sql::row_opt(txn, "taking a backup that is due", statement, &params).await?;
    row.as_ref().map(BackupSchedule::from_row).transpose()
}

/// Notes how a backup of a laboratory ended, if it has a schedule. One that failed is due again: in five
/// minutes, doubling with each failure in a row, at most an hour and a quarter of the interval, and never
/// later than it would have been. One that was cancelled says nothing.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn backup_schedule_note_end_in_txn(
    txn: &Transaction<'_>,
    tenant: TenantId,
    outcome: Outcome<'_>,
) -> Result<(), RegistryError> {
    let doing = "noting how a backup ended";
    match outcome {
        Outcome::Succeeded => {
            let statement = "UPDATE backup_schedules SET succeeded_at = clock_timestamp(), failures = 0 WHERE tenant_id = $1";
            sql::touched(txn, doing, statement, &[&tenant.as_uuid()]).await?;
        }
        // Between three quarters of the wait and all of it: many that failed together do not come back
        // together.
        Outcome::Failed(why) | Outcome::FailedToUndo { error: why, .. } => {
            let statement = "UPDATE backup_schedules
                    SET failed_at = clock_timestamp(), failure = $2, failures = failures + 1,
                        next_at = least(next_at, clock_timestamp() + make_interval(secs => (1 - random() / 4)
                            * least(300 * 2.0 ^ least(failures, 20), every_s / 4, 3600)))
                  WHERE tenant_id = $1";
            sql::touched(txn, doing, statement, &[&tenant.as_uuid(), &why]).await?;
        }
        Outcome::Cancelled(_) => {}
    }
    Ok(())
}

/// Those whose last backup failed or whose newest one is too old, the oldest first.
///
/// # Errors
/// As [`backup_schedule_of`].
pub async fn backup_schedules_in_trouble(
    client: &impl GenericClient,
    limit: u32,
) -> Result<Vec<BackupSchedule>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM backup_schedules s JOIN tenants t ON t.id = s.tenant_id WHERE s.failures > 0 OR ",
        overdue!(),
        " ORDER BY coalesce(s.succeeded_at, s.created_at), s.tenant_id LIMIT $1"
    );
    let rows = sql::rows(
        client,
        "looking for backups that fail",
        statement,
        &[&page_limit(limit)],
    )
    .await?;
    rows.iter().map(BackupSchedule::from_row).collect()
}

/// Those whose newest backup is oldest, by their intervals.
///
/// # Errors
/// As [`backup_schedule_of`].
pub async fn backup_schedules_oldest(
    client: &impl GenericClient,
    limit: u32,
) -> Result<Vec<BackupSchedule>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM backup_schedules s JOIN tenants t ON t.id = s.tenant_id ORDER BY ",
        age!(),
        " / s.every_s::float8 DESC, s.tenant_id LIMIT $1"
    );
    let rows = sql::rows(
        client,
        "looking for the oldest backups",
        statement,
        &[&page_limit(limit)],
    )
    .await?;
    rows.iter().map(BackupSchedule::from_row).collect()
}

/// How many schedules there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackupTotals {
    /// All.
    pub schedules: u32,
    /// Those whose last backup failed.
    pub failing: u32,
    /// Those whose newest backup is too old.
    pub overdue: u32,
}

/// How many schedules there are, and how many of them are in trouble.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn backup_totals(client: &impl GenericClient) -> Result<BackupTotals, RegistryError> {
    let statement = concat!(
        "SELECT count(*)::int AS schedules, (count(*) FILTER (WHERE s.failures > 0))::int AS failing,
                (count(*) FILTER (WHERE ",
        overdue!(),
        "))::int AS overdue FROM backup_schedules s JOIN tenants t ON t.id = s.tenant_id"
    );
    let row = sql::row_one(client, "counting backup schedules", statement, &[]).await?;
    let r = Reader::new(&row, "backup_schedules", "tenant_id");
    Ok(BackupTotals {
        schedules: r.count("schedules")?,
        failing: r.count("failing")?,
        overdue: r.count("overdue")?,
    })
}
