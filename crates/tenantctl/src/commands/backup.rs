//! Archives of laboratories that go on working, asked for by hand or on a schedule.

use model::OperationId;
use provisioner::Schedule;
use registry::{BackupSchedule, PAGE_MAX, Tenant};
use serde_json::{Value, json};

use crate::{
    cli::{Backup, BackupCommand, SetSchedule},
    context::Context,
    find::tenant,
    foreground,
    outcome::Refusal,
    output::{moment, moment_or_dash, size, span, table},
    view::{ArchiveView, OperationView},
};

pub(crate) async fn run(context: &Context, what: Backup) -> anyhow::Result<()> {
    match (what.command, what.tenant) {
        (Some(BackupCommand::Schedule(set)), _) => schedule(context, set).await,
        (Some(BackupCommand::Schedules), _) => schedules(context).await,
        (None, Some(wanted)) => {
            let found = tenant(&context.client().await?, &wanted).await?;
            let by = context.requested_by(what.reason);
            let operation = context.platform.provisioner.request_backup(found.id, by).await?;
            if !what.no_wait {
                foreground::run(context, operation, found.slug.as_str()).await?;
            }
            backed_up(context, &found, operation).await
        }
        (None, None) => Err(Refusal::Usage(
            "name the laboratory to back up: `tenantctl backup acme-lab`".to_owned(),
        )
        .into()),
    }
}

async fn backed_up(context: &Context, found: &Tenant, operation: OperationId) -> anyhow::Result<()> {
    let client = context.client().await?;
    let archive = registry::archive_by_operation(&client, operation).await?;
    let asked = registry::operation_by_id(&client, operation).await?;
    if context.out.json {
        return context.out.document(&json!({
            "tenantId": found.id,
            "slug": found.slug,
            "operation": asked.as_ref().map(OperationView::from),
            "archive": archive.as_ref().map(ArchiveView::from),
        }));
    }
    match archive {
        Some(archive) => context.out.answer(&format!(
            "{} is backed up: archive {} ({}) in {}",
            found.slug,
            archive.id,
            size(archive.bytes),
            archive.location
        )),
        None => {
            context.out.note(&format!(
                "a running tenantd does it; `tenantctl operations watch {operation}` follows"
            ));
            context.out.answer(&format!("{} is being backed up", found.slug))
        }
    }
}

async fn schedule(context: &Context, set: SetSchedule) -> anyhow::Result<()> {
    let found = tenant(&context.client().await?, &set.tenant).await?;
    let schedule = match (set.off, set.every) {
        (true, _) => None,
        (false, Some(every)) => Some(Schedule {
            every,
            keep_last: set.keep_last,
            keep_for: set.keep_for,
        }),
        (false, None) => {
            let client = context.client().await?;
            let now = registry::backup_schedule_of(&client, found.id).await?;
            return told(context, &found, now.as_ref());
        }
    };
    let by = context.requested_by(None);
    let provisioner = &context.platform.provisioner;
    let now = provisioner.set_backup_schedule(found.id, schedule, by).await?;
    told(context, &found, now.as_ref())
}

fn told(context: &Context, found: &Tenant, schedule: Option<&BackupSchedule>) -> anyhow::Result<()> {
    if context.out.json {
        let schedule = schedule.map(view);
        return context
            .out
            .document(&json!({ "tenantId": found.id, "slug": found.slug, "schedule": schedule }));
    }
    match schedule {
        Some(schedule) => context.out.answer(&format!(
            "{} is backed up every {}, the next time at {}; {}; {}",
            found.slug,
            span(schedule.every),
            moment(schedule.next_at),
            kept(schedule),
            went(schedule)
        )),
        None => context.out.answer(&format!(
            "{} is not backed up by itself, and its archives are kept",
            found.slug
        )),
    }
}

fn kept(schedule: &BackupSchedule) -> String {
    let last = format!("the last {} are kept", schedule.keep_last);
    match schedule.keep_for {
        Some(time) => format!("{last}, and each for {} at least", span(time)),
        None => last,
    }
}

/// How the last ones went.
pub(crate) fn went(schedule: &BackupSchedule) -> String {
    let last = match schedule.succeeded_at {
        Some(at) => format!("the last one succeeded at {}", moment(at)),
        None => "none has succeeded yet".to_owned(),
    };
    match (schedule.failures, schedule.failed_at, &schedule.failure) {
        (1.., Some(at), Some(why)) => {
            format!(
                "{last}, {} failed since, at {}: {why}",
                schedule.failures,
                moment(at)
            )
        }
        _ => last,
    }
}

/// In a word, for a table.
fn state(schedule: &BackupSchedule) -> &'static str {
    match (schedule.overdue, schedule.failures) {
        (true, _) => "overdue",
        (false, 1..) => "failing",
        (false, 0) => "ok",
    }
}

pub(crate) fn view(schedule: &BackupSchedule) -> Value {
    json!({
        "tenantId": schedule.tenant,
        "slug": schedule.tenant_slug,
        "everySeconds": schedule.every.as_secs(),
        "keepLast": schedule.keep_last,
        "keepForSeconds": schedule.keep_for.map(|time| time.as_secs()),
        "nextAt": schedule.next_at,
        "lastSuccessAt": schedule.succeeded_at,
        "lastFailureAt": schedule.failed_at,
        "lastFailure": schedule.failure,
        "failures": schedule.failures,
        "ageSeconds": schedule.age.as_secs(),
        "overdue": schedule.overdue,
        "createdBy": schedule.created_by.to_string(),
    })
}

async fn schedules(context: &Context) -> anyhow::Result<()> {
    let client = context.client().await?;
    let mut all: Vec<BackupSchedule> = Vec::new();
    loop {
        let after = all.last().map(|schedule| schedule.tenant_slug.clone());
        let page = registry::backup_schedules_list(&client, after.as_ref(), PAGE_MAX).await?;
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    if context.out.json {
        let views: Vec<Value> = all.iter().map(view).collect();
        return context.out.document(&json!({ "schedules": views }));
    }
    if all.is_empty() {
        context
            .out
            .note("no schedule yet; `tenantctl backup schedule SLUG --every 24h --keep-last 7` sets one");
        return Ok(());
    }
    let rows = all.iter().map(|schedule| {
        vec![
            schedule.tenant_slug.to_string(),
            span(schedule.every),
            schedule.keep_last.to_string(),
            schedule.keep_for.map_or_else(|| "-".to_owned(), span),
            moment(schedule.next_at),
            moment_or_dash(schedule.succeeded_at),
            moment_or_dash(schedule.failed_at),
            state(schedule).to_owned(),
        ]
    });
    let header = [
        "SLUG",
        "EVERY",
        "KEEP LAST",
        "KEEP FOR",
        "NEXT",
        "LAST SUCCESS",
        "LAST FAILURE",
        "STATE",
    ];
    context.out.answer(&table(&header, rows))?;
    for schedule in all.iter().filter(|schedule| state(schedule) != "ok") {
        context
            .out
            .note(&format!("{}: {}", schedule.tenant_slug, went(schedule)));
    }
    Ok(())
}
