//! Verification and release: all items or none.

use actix_web::{HttpResponse, post};
use lab::{
    Action,
    signoff::{self, Items, Signed},
};

use crate::{
    extract::{Body, Tenant},
    problem::ApiResult,
    response,
};

/// Verifies entered results. The person who entered a value may not verify it, unless the laboratory allows
/// it. A value whose critical mark was lifted (`criticalLifted`) needs a notice, or `confirmLifted` with the
/// reason.
#[utoipa::path(tag = "laboratory", request_body = Items, responses((status = 200, body = Signed)))]
#[post("/verifications")]
pub(crate) async fn verify(tenant: Tenant, body: Body<Items>) -> ApiResult<HttpResponse> {
    let signed = tenant
        .write(Action::ResultVerify, async |txn, actor| {
            signoff::verify(txn, actor, &body.value).await
        })
        .await?;
    Ok(response::ok(&signed))
}

/// Releases verified results. A critical value is not released before its notice is recorded.
#[utoipa::path(tag = "laboratory", request_body = Items, responses((status = 200, body = Signed)))]
#[post("/releases")]
pub(crate) async fn release(tenant: Tenant, body: Body<Items>) -> ApiResult<HttpResponse> {
    let signed = tenant
        .write(Action::ResultRelease, async |txn, actor| {
            signoff::release(txn, actor, &body.value).await
        })
        .await?;
    Ok(response::ok(&signed))
}
