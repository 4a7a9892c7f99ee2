//! Backups that are made by themselves: whether they succeed, and how old the newest one is.

use registry::{BackupSchedule, PAGE_MAX};

use super::{
    finding::{Finding, FindingKind},
    registry_checks::moment,
};
use crate::{Inner, ProvisionError};

/// One finding for each schedule that fails or is behind; the first 500, those with the oldest backups.
pub(super) async fn findings(inner: &Inner) -> Result<Vec<Finding>, ProvisionError> {
    let client = inner.config.registry.client().await?;
    let found = registry::backup_schedules_in_trouble(&client, PAGE_MAX).await?;
    Ok(found.iter().map(finding).collect())
}

fn finding(schedule: &BackupSchedule) -> Finding {
    let slug = &schedule.tenant_slug;
    let last = schedule.succeeded_at.map_or_else(
        || "no backup has succeeded yet".to_owned(),
        |at| format!("the last that succeeded was at {}", moment(at)),
    );
    let kind = if schedule.overdue {
        FindingKind::BackupOverdue
    } else {
        FindingKind::BackupFailing
    };
    let finding = match (schedule.failures, schedule.failed_at, &schedule.failure) {
        (1.., Some(at), Some(why)) => {
            let seen = format!(
                "{} backups in a row failed, the last one at {}: {why}; {last}",
                schedule.failures,
                moment(at)
            );
            let advice = format!(
                "see to what the message says; it is tried again at {}, and `tenantctl backup {slug}` tries \
                 at once",
                moment(schedule.next_at)
            );
            Finding::new(kind, slug.as_str(), seen, advice)
        }
        _ => {
            let seen = format!(
                "a backup is to be made every {} s and {last}; the next one is due at {}",
                schedule.every.as_secs(),
                moment(schedule.next_at)
            );
            let advice = format!(
                "see whether a tenantd runs, whose worker makes it, and whether another operation is in the \
                 way: `tenantctl operations list --tenant {slug} --live`"
            );
            Finding::new(kind, slug.as_str(), seen, advice)
        }
    };
    finding.of(slug)
}
