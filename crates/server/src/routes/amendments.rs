//! Amendments: changes to released results, each verified by a person of its own.

use actix_web::{HttpRequest, HttpResponse, get, post};
use lab::{
    Action, AmendmentId, Page, PageRequest, ResultId,
    amendments::{self, Amended, AmendmentEntry, AmendmentVerification, WaitingAmendment},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    extract::{Body, IdempotencyKey, IfMatch, MaybeBody, Params, PathId, Tenant},
    problem::ApiResult,
    response::{self, Created},
};

fn tagged(amended: &Amended) -> HttpResponse {
    response::ok_tagged(amended.result.version, amended)
}

/// Proposes a change to a released result. It takes effect when another person verifies it.
#[utoipa::path(tag = "laboratory", request_body = AmendmentEntry,
    params(("id" = Uuid, Path), ("If-Match" = String, Header), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Amended, headers(("ETag" = String)))))]
#[post("/results/{id}/amendments")]
pub(crate) async fn propose(
    tenant: Tenant,
    id: PathId<ResultId>,
    version: IfMatch,
    key: IdempotencyKey,
    body: Body<AmendmentEntry>,
) -> ApiResult<HttpResponse> {
    let route = format!("POST results/{}/amendments", id.0);
    let work = tenant.create(
        Action::ResultAmend,
        &key,
        &route,
        &body.bytes,
        async |txn, actor| {
            let amended = amendments::propose(txn, actor, id.0, version.0, &body.value).await?;
            Ok(Created::added(amended.result.version, &amended))
        },
    );
    work.await
}

/// Verifies an amendment that another person proposed, and applies it. The body may be left out.
#[utoipa::path(tag = "laboratory", request_body(content = Option<AmendmentVerification>), params(("id" = Uuid, Path)),
    responses((status = 200, body = Amended, headers(("ETag" = String)))))]
#[post("/amendments/{id}/verify")]
pub(crate) async fn verify(
    tenant: Tenant,
    id: PathId<AmendmentId>,
    body: MaybeBody<AmendmentVerification>,
) -> ApiResult<HttpResponse> {
    let MaybeBody(how) = body;
    let amended = tenant
        .write(Action::ResultAmend, async |txn, actor| {
            amendments::verify(txn, actor, id.0, &how).await
        })
        .await?;
    Ok(tagged(&amended))
}

/// Takes a proposal back; it stays readable.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path)),
    responses((status = 200, body = Amended, headers(("ETag" = String)))))]
#[post("/amendments/{id}/withdraw")]
pub(crate) async fn withdraw(tenant: Tenant, id: PathId<AmendmentId>) -> ApiResult<HttpResponse> {
    let amended = tenant
        .write(Action::ResultAmend, async |txn, actor| {
            amendments::withdraw(txn, actor, id.0).await
        })
        .await?;
    Ok(tagged(&amended))
}

/// Which page to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitingQuery {
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// The most items, 1 to 200; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// The amendments that wait for a second person, the longest waiting first.
#[utoipa::path(tag = "laboratory", params(WaitingQuery), responses((status = 200, body = Page<WaitingAmendment>)))]
#[get("/amendments")]
pub(crate) async fn waiting(
    req: HttpRequest,
    tenant: Tenant,
    query: Params<WaitingQuery>,
) -> ApiResult<HttpResponse> {
    let page = PageRequest {
        limit: query.0.limit,
        after: query.0.after,
    };
    let found = tenant
        .read(Action::ResultAmend, async |txn, _| {
            amendments::waiting(txn, &page).await
        })
        .await?;
    Ok(response::page(&req, &found))
}
