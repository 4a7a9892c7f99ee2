//! Results: values, and what is done with them one at a time.

use actix_web::{HttpResponse, get, post, put};
use lab::{
    Action, Reason, ResultId,
    critical::{self, CriticalNoticeEntry},
    history::History,
    results::{self, ResultView, ValueEntry},
};

use crate::{
    extract::{Body, IdempotencyKey, IfMatch, PathId, Tenant},
    problem::ApiResult,
    response::{self, Created},
};

fn tagged(result: &ResultView) -> HttpResponse {
    response::ok_tagged(result.version, result)
}

/// One result.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path)),
    responses((status = 200, body = ResultView, headers(("ETag" = String)))))]
#[get("/results/{id}")]
pub(crate) async fn show(tenant: Tenant, id: PathId<ResultId>) -> ApiResult<HttpResponse> {
    let result = tenant
        .read(Action::OrderRead, async |txn, _| results::get(txn, id.0).await)
        .await?;
    Ok(tagged(&result))
}

/// Enters a value; the answer carries its flag and how far it is from the patient's previous one.
#[utoipa::path(tag = "laboratory", request_body = ValueEntry,
    params(("id" = Uuid, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = ResultView, headers(("ETag" = String)))))]
#[put("/results/{id}/value")]
pub(crate) async fn enter(
    tenant: Tenant,
    id: PathId<ResultId>,
    version: IfMatch,
    body: Body<ValueEntry>,
) -> ApiResult<HttpResponse> {
    let result = tenant
        .write(Action::ResultEnter, async |txn, actor| {
            results::enter(txn, actor, id.0, version.0, &body.value).await
        })
        .await?;
    Ok(tagged(&result))
}

/// Sends an entered or verified value back to the bench.
#[utoipa::path(tag = "laboratory", request_body = Reason,
    params(("id" = Uuid, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = ResultView, headers(("ETag" = String)))))]
#[post("/results/{id}/repeat")]
pub(crate) async fn repeat(
    tenant: Tenant,
    id: PathId<ResultId>,
    version: IfMatch,
    body: Body<Reason>,
) -> ApiResult<HttpResponse> {
    let result = tenant
        .write(Action::ResultRepeat, async |txn, actor| {
            results::repeat(txn, actor, id.0, version.0, &body.value).await
        })
        .await?;
    Ok(tagged(&result))
}

/// Gives up a result that was not released.
#[utoipa::path(tag = "laboratory", request_body = Reason,
    params(("id" = Uuid, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = ResultView, headers(("ETag" = String)))))]
#[post("/results/{id}/cancel")]
pub(crate) async fn cancel(
    tenant: Tenant,
    id: PathId<ResultId>,
    version: IfMatch,
    body: Body<Reason>,
) -> ApiResult<HttpResponse> {
    let result = tenant
        .write(Action::ResultRepeat, async |txn, actor| {
            results::cancel(txn, actor, id.0, version.0, &body.value).await
        })
        .await?;
    Ok(tagged(&result))
}

/// Withdraws a released result; it stays readable, marked as voided.
#[utoipa::path(tag = "laboratory", request_body = Reason,
    params(("id" = Uuid, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = ResultView, headers(("ETag" = String)))))]
#[post("/results/{id}/void")]
pub(crate) async fn void(
    tenant: Tenant,
    id: PathId<ResultId>,
    version: IfMatch,
    body: Body<Reason>,
) -> ApiResult<HttpResponse> {
    let result = tenant
        .write(Action::ResultVoid, async |txn, actor| {
            results::void(txn, actor, id.0, version.0, &body.value).await
        })
        .await?;
    Ok(tagged(&result))
}

/// Records who was notified of a critical value; it may be released from then on. `If-Match` says of
/// which value: that of the result at this version, or with `amendmentId` and `amendmentVersion` that of its
/// open amendment. Another one by now is answered with 412.
#[utoipa::path(tag = "laboratory", request_body = CriticalNoticeEntry,
    params(("id" = Uuid, Path), ("If-Match" = String, Header), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = ResultView, headers(("ETag" = String)))))]
#[post("/results/{id}/critical-notice")]
pub(crate) async fn critical_notice(
    tenant: Tenant,
    id: PathId<ResultId>,
    version: IfMatch,
    key: IdempotencyKey,
    body: Body<CriticalNoticeEntry>,
) -> ApiResult<HttpResponse> {
    let route = format!("POST results/{}/critical-notice", id.0);
    let work = tenant.create(
        Action::CriticalNotice,
        &key,
        &route,
        &body.bytes,
        async |txn, actor| {
            critical::record(txn, actor, id.0, version.0, &body.value).await?;
            let result = results::get(txn, id.0).await?;
            Ok(Created::added(result.version, &result))
        },
    );
    work.await
}

/// A result with everything that it ever said.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path)), responses((status = 200, body = History)))]
#[get("/results/{id}/history")]
pub(crate) async fn history(tenant: Tenant, id: PathId<ResultId>) -> ApiResult<HttpResponse> {
    let history = tenant
        .read(Action::ReportRead, async |txn, _| {
            lab::history::of_result(txn, id.0).await
        })
        .await?;
    Ok(response::ok(&history))
}
