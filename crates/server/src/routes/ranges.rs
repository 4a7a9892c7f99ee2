//! Reference ranges of a test.

use actix_web::{HttpRequest, HttpResponse, get, post};
use lab::{
    Action, Page, RangeId,
    ranges::{self, CloseRange, NewRange, RangeView},
};

use crate::{
    extract::{Body, IdempotencyKey, MaybeBody, PathId, PathText, Tenant},
    problem::ApiResult,
    response::{self, Created},
};

/// All ranges of a test, those in force first.
#[utoipa::path(tag = "laboratory", params(("code" = String, Path)), responses((status = 200, body = Page<RangeView>)))]
#[get("/tests/{code}/ranges")]
pub(crate) async fn list(req: HttpRequest, tenant: Tenant, code: PathText) -> ApiResult<HttpResponse> {
    let items = tenant
        .read(Action::CatalogueRead, async |txn, _| {
            ranges::list(txn, &code.0).await
        })
        .await?;
    Ok(response::page(&req, &Page { items, next: None }))
}

/// Adds a range, in force from now on. Results that were judged before keep what they were judged by.
#[utoipa::path(tag = "laboratory", request_body = NewRange,
    params(("code" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = RangeView, headers(("Location" = String)))))]
#[post("/tests/{code}/ranges")]
pub(crate) async fn create(
    tenant: Tenant,
    code: PathText,
    key: IdempotencyKey,
    body: Body<NewRange>,
) -> ApiResult<HttpResponse> {
    let route = format!("POST tests/{}/ranges", code.0);
    let work = tenant.create(
        Action::CatalogueChange,
        &key,
        &route,
        &body.bytes,
        async |txn, actor| {
            let range = ranges::create(txn, actor, &code.0, &body.value).await?;
            Ok(Created::of(
                format!("/api/v1/tests/{}/ranges", code.0),
                None,
                &range,
            ))
        },
    );
    work.await
}

/// Closes a range from now on. Refused while people have a critical limit by this range alone, unless the
/// body says why no notice is needed any more.
#[utoipa::path(tag = "laboratory", request_body = Option<CloseRange>, params(("id" = Uuid, Path)), responses((status = 200, body = RangeView)))]
#[post("/ranges/{id}/close")]
pub(crate) async fn close(
    tenant: Tenant,
    id: PathId<RangeId>,
    body: MaybeBody<CloseRange>,
) -> ApiResult<HttpResponse> {
    Ok(response::ok(
        &tenant
            .write(Action::CatalogueChange, async |txn, actor| {
                ranges::close(txn, actor, id.0, &body.0).await
            })
            .await?,
    ))
}
