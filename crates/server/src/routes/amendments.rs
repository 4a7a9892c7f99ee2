//! Amendments: changes to released results, each verified by a person of its own.

use actix_web::{HttpResponse, post};
use lab::{
    Action, AmendmentId, ResultId,
    amendments::{self, Amended, AmendmentEntry},
};

use crate::{
    answer::{self, Created},
    extract::{Body, IdempotencyKey, IfMatch, PathId, Tenant},
    problem::Answer,
};

fn tagged(amended: &Amended) -> HttpResponse {
    answer::ok_tagged(amended.result.version, amended)
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
) -> Answer<HttpResponse> {
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

/// Verifies an amendment that another person proposed, and applies it.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path)),
    responses((status = 200, body = Amended, headers(("ETag" = String)))))]
#[post("/amendments/{id}/verify")]
pub(crate) async fn verify(tenant: Tenant, id: PathId<AmendmentId>) -> Answer<HttpResponse> {
    let amended = tenant
        .write(Action::ResultAmend, async |txn, actor| {
            amendments::verify(txn, actor, id.0).await
        })
        .await?;
    Ok(tagged(&amended))
}

/// Takes a proposal back; it stays readable.
#[utoipa::path(tag = "laboratory", params(("id" = Uuid, Path)),
    responses((status = 200, body = Amended, headers(("ETag" = String)))))]
#[post("/amendments/{id}/withdraw")]
pub(crate) async fn withdraw(tenant: Tenant, id: PathId<AmendmentId>) -> Answer<HttpResponse> {
    let amended = tenant
        .write(Action::ResultAmend, async |txn, actor| {
            amendments::withdraw(txn, actor, id.0).await
        })
        .await?;
    Ok(tagged(&amended))
}
