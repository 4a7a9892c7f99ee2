//! Exports: the feed of released results and of what became of them.

use actix_web::{HttpRequest, HttpResponse, get};
use lab::{
    Action, Page, PageRequest,
    result_feed::{self, ResultChange},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    extract::{Params, Tenant},
    problem::ApiResult,
    response,
};

/// Which part of the feed to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// Where the page starts: `next` of the page before; from the beginning unless given.
    after: Option<String>,
    /// The most items, 1 to 200; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Released, corrected, amended and voided results in the order in which that was committed. After the
/// laboratory was restored in place a cursor of before is answered with 409 `feed_restarted`: what it has
/// read may not be there any more, so begin again without one.
#[utoipa::path(tag = "laboratory", params(ExportQuery), responses((status = 200, body = Page<ResultChange>)))]
#[get("/exports/results")]
pub(crate) async fn results(
    req: HttpRequest,
    tenant: Tenant,
    query: Params<ExportQuery>,
) -> ApiResult<HttpResponse> {
    let page = PageRequest {
        limit: query.0.limit,
        after: query.0.after,
    };
    let epoch = tenant.snapshot().session_epoch;
    let found = tenant
        .read(Action::Export, async |txn, _| {
            result_feed::page(txn, epoch, &page).await
        })
        .await?;
    Ok(response::page(&req, &found))
}
