//! Backups of laboratories that go on working, and their schedules.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, delete, get, post, put, web};
use jiff::Timestamp;
use lab::Page;
use model::{Slug, TenantId};
use provisioner::Schedule;
use registry::{BackupSchedule, backup_schedule_of, backup_schedules_list};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::operations::Accepted;
use crate::{
    extract::{Body, IdempotencyKey, OperatorCaller, Params, PathId},
    problem::{ApiResult, Kind, Problem},
    response,
    state::AppState,
};

/// Archives a laboratory while it runs.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = Accepted, headers(("Location" = String, description = "The operation")))))]
#[post("/tenants/{id}/backups")]
pub(crate) async fn create(
    operator: OperatorCaller,
    key: IdempotencyKey,
    id: PathId<TenantId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let by = operator.requested_by(key);
    let operation = state.provisioner.request_backup(id.0, by).await?;
    Ok(Accepted::answer(id.0, operation))
}

/// When a laboratory is backed up, and what is kept.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleView {
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    tenant_slug: Slug,
    every_seconds: u64,
    /// A backup is kept while it is one of the last so many,
    keep_last: u32,
    /// or younger than so long.
    keep_for_seconds: Option<u64>,
    next_at: Timestamp,
    /// When the last backup succeeded, also one that was asked for by hand.
    last_success_at: Option<Timestamp>,
    /// When one failed last,
    last_failure_at: Option<Timestamp>,
    /// and why.
    last_failure: Option<String>,
    /// How many have failed since the last that succeeded. Each is tried again, after five minutes at first.
    failures: u32,
    /// The time since the last that succeeded, or since the schedule was set.
    age_seconds: u64,
    /// Whether that is more than one and a half intervals.
    overdue: bool,
}

impl From<BackupSchedule> for ScheduleView {
    fn from(schedule: BackupSchedule) -> Self {
        Self {
            tenant_id: schedule.tenant,
            tenant_slug: schedule.tenant_slug,
            every_seconds: schedule.every.as_secs(),
            keep_last: schedule.keep_last,
            keep_for_seconds: schedule.keep_for.map(|time| time.as_secs()),
            next_at: schedule.next_at,
            last_success_at: schedule.succeeded_at,
            last_failure_at: schedule.failed_at,
            last_failure: schedule.failure,
            failures: schedule.failures,
            age_seconds: schedule.age.as_secs(),
            overdue: schedule.overdue,
        }
    }
}

/// A schedule to be set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScheduleBody {
    /// From an hour to 366 days.
    #[schema(example = 86_400, minimum = 3_600, maximum = 31_622_400)]
    every_seconds: u64,
    #[schema(example = 7, minimum = 1, maximum = 10_000)]
    keep_last: u32,
    /// At least so long each, from an hour to 36,600 days; only the number counts unless given.
    #[schema(minimum = 3_600, maximum = 3_162_240_000_i64)]
    keep_for_seconds: Option<u64>,
}

/// A laboratory's backup schedule.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), responses((status = 200, body = ScheduleView)))]
#[get("/tenants/{id}/backup-schedule")]
pub(crate) async fn show_schedule(
    _operator: OperatorCaller,
    id: PathId<TenantId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let client = state.registry_client().await?;
    let found = backup_schedule_of(&client, id.0).await?;
    let found = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
    Ok(response::ok(&ScheduleView::from(found)))
}

/// Sets a laboratory's backup schedule; the first backup is made soon.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), request_body = ScheduleBody,
    responses((status = 200, body = ScheduleView)))]
#[put("/tenants/{id}/backup-schedule")]
pub(crate) async fn set_schedule(
    operator: OperatorCaller,
    id: PathId<TenantId>,
    body: Body<ScheduleBody>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let ScheduleBody {
        every_seconds,
        keep_last,
        keep_for_seconds,
    } = body.value;
    let schedule = Schedule {
        every: Duration::from_secs(every_seconds),
        keep_last,
        keep_for: keep_for_seconds.map(Duration::from_secs),
    };
    let by = operator.requested_by(IdempotencyKey(None));
    let set = state
        .provisioner
        .set_backup_schedule(id.0, Some(schedule), by)
        .await
        .map_err(|error| {
            let problem = Problem::from(error).renaming("every", "everySeconds");
            problem.renaming("keepFor", "keepForSeconds")
        })?;
    let set = set.ok_or_else(|| Problem::internal("a schedule that was set is not there"))?;
    Ok(response::ok(&ScheduleView::from(set)))
}

/// Ends a laboratory's backup schedule; its archives stay.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), responses((status = 204)))]
#[delete("/tenants/{id}/backup-schedule")]
pub(crate) async fn end_schedule(
    operator: OperatorCaller,
    id: PathId<TenantId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let by = operator.requested_by(IdempotencyKey(None));
    state.provisioner.set_backup_schedule(id.0, None, by).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Which schedules to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// The most items, 1 to 200; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// The backup schedules in the order of the laboratories' slugs.
#[utoipa::path(tag = "operators", params(ListQuery), responses((status = 200, body = Page<ScheduleView>)))]
#[get("/backup-schedules")]
pub(crate) async fn schedules(
    req: HttpRequest,
    _operator: OperatorCaller,
    query: Params<ListQuery>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let Params(query) = query;
    let limit = response::limit(query.limit)?;
    let after = query
        .after
        .as_deref()
        .map(Slug::parse)
        .transpose()
        .map_err(|_| response::bad_cursor())?;
    let client = state.registry_client().await?;
    let found = backup_schedules_list(&client, after.as_ref(), limit + 1).await?;
    let page = response::cut(found, limit, |schedule| schedule.tenant_slug.to_string());
    Ok(response::page(&req, &response::map(page, ScheduleView::from)))
}
