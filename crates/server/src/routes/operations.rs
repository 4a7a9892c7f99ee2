//! Durable operations on laboratories, with their steps.

use actix_web::{HttpRequest, HttpResponse, get, http::header, post, web};
use jiff::Timestamp;
use lab::Page;
use model::{OperationId, OperationKind, OperationStatus, Reason, Slug, Step, StepStatus, TenantId};
use registry::{Operation, OperationFilter, StepRow, operation_by_id, operations_list, steps_of};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    extract::{Body, IdempotencyKey, OperatorCaller, Params, PathId},
    invitations::InvitationView,
    problem::{ApiResult, Kind, Problem},
    response,
    state::AppState,
};

/// An operation that was taken on.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    #[schema(value_type = Uuid)]
    operation_id: OperationId,
    /// For the first administrator of a new laboratory who was given no password: shown only now.
    #[serde(skip_serializing_if = "Option::is_none")]
    invitation: Option<InvitationView>,
    /// What the person who asked for a new laboratory must know of its initial catalogue.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, required = false)]
    notes: Vec<&'static str>,
}

impl Accepted {
    /// 202, with the operation's address.
    #[must_use]
    pub fn answer(tenant_id: TenantId, operation_id: OperationId) -> HttpResponse {
        Self::inviting(tenant_id, operation_id, None, &[])
    }

    /// The same with the invitation of its first administrator, which no cache may keep.
    #[must_use]
    pub fn inviting(
        tenant_id: TenantId,
        operation_id: OperationId,
        invitation: Option<InvitationView>,
        notes: &'static [&'static str],
    ) -> HttpResponse {
        let mut response = HttpResponse::Accepted();
        if invitation.is_some() {
            response.insert_header((header::CACHE_CONTROL, "no-store"));
        }
        response
            .insert_header((header::LOCATION, format!("/api/v1/operations/{operation_id}")))
            .json(Self {
                tenant_id,
                operation_id,
                invitation,
                notes: notes.to_vec(),
            })
    }
}

/// A durable, stepwise change to one laboratory.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationView {
    #[schema(value_type = Uuid)]
    id: OperationId,
    /// One of provision, adopt, migrate, backup, restore, restore_in_place, offboard, verify_archive.
    kind: OperationKind,
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    /// The slug that the laboratory had when it was asked for.
    tenant_slug: Slug,
    /// One of pending, running, undoing, succeeded, failed, cancelled.
    status: OperationStatus,
    /// Why the last try failed.
    error: Option<String>,
    /// How often it was begun.
    attempts: u32,
    /// How far the present step is, in its own words.
    progress: Option<serde_json::Value>,
    /// Who asked for it to be cancelled.
    cancel_requested_by: Option<String>,
    /// Until when it does nothing but wait: the grace period of a removal.
    waiting_until: Option<Timestamp>,
    /// Who asked for it.
    created_by: String,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    /// Its steps as far as they were begun; only when a single operation is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<StepView>>,
}

/// One step of an operation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    #[schema(example = "ensure_database")]
    step: Step,
    /// One of running, done, failed.
    status: StepStatus,
    attempts: u32,
    /// Which process ran it.
    worker: String,
    began_at: Timestamp,
    ended_at: Option<Timestamp>,
    /// What it found and did.
    saw: Option<serde_json::Value>,
    error: Option<String>,
}

impl OperationView {
    fn of(operation: Operation, steps: Option<Vec<StepRow>>) -> Self {
        Self {
            error: operation.error_text(),
            id: operation.id,
            kind: operation.kind,
            tenant_id: operation.tenant,
            tenant_slug: operation.tenant_slug,
            status: operation.status,
            attempts: operation.attempts,
            progress: operation.progress,
            cancel_requested_by: operation.cancel_requested_by.map(|by| by.to_string()),
            waiting_until: operation.waiting_until,
            created_by: operation.created_by.to_string(),
            created_at: operation.created_at,
            started_at: operation.started_at,
            finished_at: operation.finished_at,
            steps: steps.map(|steps| steps.into_iter().map(StepView::from).collect()),
        }
    }
}

impl From<StepRow> for StepView {
    fn from(row: StepRow) -> Self {
        let StepRow {
            operation: _,
            step,
            status,
            attempts,
            worker,
            began_at,
            ended_at,
            saw,
            error,
        } = row;
        Self {
            step,
            status,
            attempts,
            worker,
            began_at,
            ended_at,
            saw,
            error,
        }
    }
}

/// Which operations to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only those on this laboratory, which may be gone by now.
    #[param(value_type = Option<Uuid>)]
    tenant_id: Option<TenantId>,
    /// Only those of this kind.
    #[param(inline)]
    kind: Option<OperationKind>,
    /// Only those in this status.
    #[param(inline)]
    status: Option<OperationStatus>,
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// The most items, 1 to 200; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Operations, newest first.
#[utoipa::path(tag = "operators", params(ListQuery), responses((status = 200, body = Page<OperationView>)))]
#[get("/operations")]
pub(crate) async fn list(
    req: HttpRequest,
    _operator: OperatorCaller,
    query: Params<ListQuery>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let Params(query) = query;
    let limit = response::limit(query.limit)?;
    let before = query
        .after
        .map(|text| text.parse())
        .transpose()
        .map_err(|_| response::bad_cursor())?;
    let filter = OperationFilter {
        tenant: query.tenant_id,
        kind: query.kind,
        status: query.status,
        live: false,
    };
    let client = state.registry_client().await?;
    let found = operations_list(&client, &filter, before, limit + 1).await?;
    let page = response::cut(found, limit, |operation| operation.position().to_string());
    Ok(response::page(
        &req,
        &response::map(page, |operation| OperationView::of(operation, None)),
    ))
}

/// One operation with its steps.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), responses((status = 200, body = OperationView)))]
#[get("/operations/{id}")]
pub(crate) async fn show(
    _operator: OperatorCaller,
    id: PathId<OperationId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let client = state.registry_client().await?;
    let operation = operation_by_id(&client, id.0)
        .await?
        .ok_or_else(|| Problem::new(Kind::NotFound))?;
    let steps = steps_of(&client, id.0).await?;
    Ok(response::ok(&OperationView::of(operation, Some(steps))))
}

/// Calls an operation off: what it made is taken away, what it closed is opened again. It is done when the
/// operation's status is `cancelled`. Asked again, nothing changes.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), responses((status = 202, body = OperationView)))]
#[post("/operations/{id}/cancel")]
pub(crate) async fn cancel(
    operator: OperatorCaller,
    id: PathId<OperationId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let by = operator.requested_by(IdempotencyKey(None));
    let operation = state.provisioner.cancel(id.0, by).await?;
    Ok(HttpResponse::Accepted().json(OperationView::of(operation, None)))
}

/// The end of a grace period.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndGraceBody {
    /// The laboratory's slug once more, since nothing brings the database back then but a restore.
    #[schema(example = "acme-lab")]
    confirm_slug: String,
    reason: Option<Reason>,
}

/// Ends the grace period of a removal: its database is dropped at once and not when the period is over; the
/// archive stays. 409 while the removal does not wait yet (the archive must be proved first) and when it does
/// no longer.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), request_body = EndGraceBody,
    responses((status = 202, body = OperationView)))]
#[post("/operations/{id}/end-grace")]
pub(crate) async fn end_grace(
    operator: OperatorCaller,
    id: PathId<OperationId>,
    body: Body<EndGraceBody>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let EndGraceBody { confirm_slug, reason } = body.value;
    let client = state.registry_client().await?;
    let operation = operation_by_id(&client, id.0)
        .await?
        .ok_or_else(|| Problem::new(Kind::NotFound))?;
    drop(client);
    if confirm_slug != operation.tenant_slug.as_str() {
        let why =
            "`confirmSlug` is not the slug of the laboratory that this operation removes; type it once more";
        return Err(Problem::field(Kind::Invalid, "confirmSlug", why));
    }
    let mut by = operator.requested_by(IdempotencyKey(None));
    by.reason = reason;
    let operation = state.provisioner.end_grace(id.0, by).await?;
    Ok(HttpResponse::Accepted().json(OperationView::of(operation, None)))
}

/// Lets an operation that failed be run once more; steps that are done stay done.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), responses((status = 202, body = OperationView)))]
#[post("/operations/{id}/retry")]
pub(crate) async fn retry(
    operator: OperatorCaller,
    id: PathId<OperationId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let by = operator.requested_by(IdempotencyKey(None));
    state.provisioner.reopen(id.0, by).await?;
    let client = state.registry_client().await?;
    let operation = operation_by_id(&client, id.0)
        .await?
        .ok_or_else(|| Problem::new(Kind::NotFound))?;
    Ok(HttpResponse::Accepted().json(OperationView::of(operation, None)))
}
