//! Specimens, by the barcode on the tube.

use actix_web::{HttpResponse, get, patch, post};
use lab::{
    Action, When,
    collection::CollectionCorrection,
    rejection::Rejected,
    rejection::Rejection,
    specimens::{self, Specimen},
};

use crate::{
    extract::{Body, IfMatch, PathText, Tenant},
    problem::ApiResult,
    response,
};

/// One specimen.
#[utoipa::path(tag = "laboratory", params(("barcode" = String, Path)),
    responses((status = 200, body = Specimen, headers(("ETag" = String)))))]
#[get("/specimens/{barcode}")]
pub(crate) async fn show(tenant: Tenant, barcode: PathText) -> ApiResult<HttpResponse> {
    let specimen = tenant
        .read(Action::OrderRead, async |txn, _| {
            specimens::get(txn, &barcode.0).await
        })
        .await?;
    Ok(response::ok_tagged(specimen.version, &specimen))
}

/// Records that a specimen was drawn. An unlikely time (days away from the order) needs `confirmUnlikely`.
#[utoipa::path(tag = "laboratory", request_body = When, params(("barcode" = String, Path)),
    responses((status = 200, body = Specimen, headers(("ETag" = String)))))]
#[post("/specimens/{barcode}/collect")]
pub(crate) async fn collect(tenant: Tenant, barcode: PathText, body: Body<When>) -> ApiResult<HttpResponse> {
    let specimen = tenant
        .write(Action::SpecimenCollect, async |txn, actor| {
            specimens::collect(txn, actor, &barcode.0, &body.value).await
        })
        .await?;
    Ok(response::ok_tagged(specimen.version, &specimen))
}

/// Records that a specimen came in; from now on its tests can have values.
#[utoipa::path(tag = "laboratory", request_body = When, params(("barcode" = String, Path)),
    responses((status = 200, body = Specimen, headers(("ETag" = String)))))]
#[post("/specimens/{barcode}/receive")]
pub(crate) async fn receive(tenant: Tenant, barcode: PathText, body: Body<When>) -> ApiResult<HttpResponse> {
    let specimen = tenant
        .write(Action::SpecimenHandle, async |txn, actor| {
            specimens::receive(txn, actor, &barcode.0, &body.value).await
        })
        .await?;
    Ok(response::ok_tagged(specimen.version, &specimen))
}

/// Corrects when a specimen was collected or received. Results from it that are not released are evaluated
/// again; released ones that would be evaluated otherwise are marked.
#[utoipa::path(tag = "laboratory", request_body = CollectionCorrection,
    params(("barcode" = String, Path), ("If-Match" = String, Header)),
    responses((status = 200, body = Specimen, headers(("ETag" = String)))))]
#[patch("/specimens/{barcode}")]
pub(crate) async fn correct(
    tenant: Tenant,
    barcode: PathText,
    version: IfMatch,
    body: Body<CollectionCorrection>,
) -> ApiResult<HttpResponse> {
    let specimen = tenant
        .write(Action::SpecimenCorrect, async |txn, actor| {
            lab::collection::correct(txn, actor, &barcode.0, version.0, &body.value).await
        })
        .await?;
    Ok(response::ok_tagged(specimen.version, &specimen))
}

/// Rejects a specimen; another is expected instead when it is to be drawn again.
#[utoipa::path(tag = "laboratory", request_body = Rejection, params(("barcode" = String, Path)),
    responses((status = 200, body = Rejected)))]
#[post("/specimens/{barcode}/reject")]
pub(crate) async fn reject(
    tenant: Tenant,
    barcode: PathText,
    body: Body<Rejection>,
) -> ApiResult<HttpResponse> {
    let rejected = tenant
        .write(Action::SpecimenHandle, async |txn, actor| {
            lab::rejection::reject(txn, actor, &barcode.0, &body.value).await
        })
        .await?;
    Ok(response::ok(&rejected))
}

/// Records that a specimen was thrown away.
#[utoipa::path(tag = "laboratory", params(("barcode" = String, Path)),
    responses((status = 200, body = Specimen, headers(("ETag" = String)))))]
#[post("/specimens/{barcode}/dispose")]
pub(crate) async fn dispose(tenant: Tenant, barcode: PathText) -> ApiResult<HttpResponse> {
    let specimen = tenant
        .write(Action::SpecimenHandle, async |txn, actor| {
            specimens::dispose(txn, actor, &barcode.0).await
        })
        .await?;
    Ok(response::ok_tagged(specimen.version, &specimen))
}
