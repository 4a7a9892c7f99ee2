//! Backups that are made by themselves: how old the newest ones are, and how many schedules are in trouble.

use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use registry::{BackupSchedule, BackupTotals, backup_schedules_oldest, backup_totals};

use super::figures::gauge;
use crate::{
    metrics::{TENANT_SERIES_MAX, TenantLabels},
    problem::ApiResult,
    state::AppState,
};

/// What is read of the schedules at a scrape.
pub(super) struct Backups {
    totals: BackupTotals,
    /// Those whose newest backup is oldest by their intervals: what an alert asks for is among them.
    oldest: Vec<BackupSchedule>,
}

pub(super) async fn read(state: &AppState) -> ApiResult<Backups> {
    let client = state.registry_client().await?;
    let most = u32::try_from(TENANT_SERIES_MAX).unwrap_or(u32::MAX);
    Ok(Backups {
        totals: backup_totals(&client).await?,
        oldest: backup_schedules_oldest(&client, most).await?,
    })
}

pub(super) fn put(out: &mut Registry, backups: &Backups) {
    let BackupTotals {
        schedules,
        failing,
        overdue,
    } = backups.totals;
    for (name, help, value) in [
        (
            "backup_schedules",
            "Laboratories that are backed up by a schedule",
            schedules,
        ),
        (
            "backups_failing",
            "Of these, those whose last backup failed",
            failing,
        ),
        (
            "backups_overdue",
            "Of these, those whose newest backup is older than one and a half intervals",
            overdue,
        ),
    ] {
        gauge(out, name, help, i64::from(value));
    }
    type Read = fn(&BackupSchedule) -> u64;
    let gauges: [(&str, &str, Read); 2] = [
        (
            "backup_age_seconds",
            "How old a laboratory's newest backup is, or its schedule while there is none; the hundred oldest by their intervals",
            |schedule| schedule.age.as_secs(),
        ),
        (
            "backup_interval_seconds",
            "How often it is to be backed up",
            |schedule| schedule.every.as_secs(),
        ),
    ];
    for (name, help, read) in gauges {
        let family = Family::<TenantLabels, Gauge>::default();
        for schedule in &backups.oldest {
            let tenant = schedule.tenant_slug.to_string();
            let value = i64::try_from(read(schedule)).unwrap_or(i64::MAX);
            family.get_or_create(&TenantLabels { tenant }).set(value);
        }
        out.register(name, help, family);
    }
}
