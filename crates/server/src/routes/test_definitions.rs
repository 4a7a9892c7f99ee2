//! The catalogue: the tests that the laboratory does.

use actix_web::{HttpRequest, HttpResponse, get, patch, post};
use lab::{
    Action, Page,
    catalogue::{self, NewTest, Test, TestPatch},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    extract::{Body, IdempotencyKey, IfMatch, Params, PathText, Tenant},
    problem::ApiResult,
    response::{self, Created},
};

/// Which tests to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only those of this section.
    section: Option<String>,
}

/// All tests, on one page.
#[utoipa::path(tag = "laboratory", params(ListQuery), responses((status = 200, body = Page<Test>)))]
#[get("/tests")]
pub(crate) async fn list(
    req: HttpRequest,
    tenant: Tenant,
    query: Params<ListQuery>,
) -> ApiResult<HttpResponse> {
    let section = query.0.section;
    let items = tenant
        .read(Action::CatalogueRead, async |txn, _| {
            catalogue::list(txn, section.as_deref()).await
        })
        .await?;
    Ok(response::page(&req, &Page { items, next: None }))
}

/// Adds a test of the laboratory's own.
#[utoipa::path(tag = "laboratory", request_body = NewTest, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = Test, headers(("Location" = String), ("ETag" = String)))))]
#[post("/tests")]
pub(crate) async fn create(
    tenant: Tenant,
    key: IdempotencyKey,
    body: Body<NewTest>,
) -> ApiResult<HttpResponse> {
    let work = tenant.create(
        Action::CatalogueChange,
        &key,
        "POST tests",
        &body.bytes,
        async |txn, actor| {
            let test = catalogue::create(txn, actor, &body.value).await?;
            Ok(Created::of(
                format!("/api/v1/tests/{}", test.code),
                Some(test.version),
                &test,
            ))
        },
    );
    work.await
}

/// One test.
#[utoipa::path(tag = "laboratory", params(("code" = String, Path)),
    responses((status = 200, body = Test, headers(("ETag" = String)))))]
#[get("/tests/{code}")]
pub(crate) async fn show(tenant: Tenant, code: PathText) -> ApiResult<HttpResponse> {
    let test = tenant
        .read(Action::CatalogueRead, async |txn, _| {
            catalogue::get(txn, &code.0).await
        })
        .await?;
    Ok(response::ok_tagged(test.version, &test))
}

/// Changes a test; its unit and kind stay for ever.
#[utoipa::path(tag = "laboratory", request_body = TestPatch,
    params(("code" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = Test, headers(("ETag" = String)))))]
#[patch("/tests/{code}")]
pub(crate) async fn change(
    tenant: Tenant,
    code: PathText,
    version: IfMatch,
    body: Body<TestPatch>,
) -> ApiResult<HttpResponse> {
    let test = tenant
        .write(Action::CatalogueChange, async |txn, actor| {
            catalogue::update(txn, actor, &code.0, version.0, &body.value).await
        })
        .await?;
    Ok(response::ok_tagged(test.version, &test))
}
