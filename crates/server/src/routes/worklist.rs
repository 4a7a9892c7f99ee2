//! The worklist: what is open at the bench. Screens poll it, so an unchanged one is answered without its
//! rows.

use actix_web::{HttpRequest, HttpResponse, get, http::header};
use lab::{
    Action, OpenStatus, PageRequest, ResultStatus,
    worklist::{self, Worklist, WorklistFilter},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    extract::{Params, Tenant, if_none_match},
    problem::ApiResult,
    response,
};

/// Which work to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WorklistQuery {
    /// Only this section's.
    section: Option<String>,
    /// Only results in this status.
    #[param(inline)]
    status: Option<OpenStatus>,
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// The most items, 1 to 1,000; 1,000 unless given.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<u32>,
}

/// Open results, the most urgent first. The entity tag is that of the whole list, not of the page.
#[utoipa::path(tag = "laboratory", params(WorklistQuery, ("If-None-Match" = Option<String>, Header)),
    responses((status = 200, body = Worklist, headers(("ETag" = String))), (status = 304)))]
#[get("/worklist")]
pub(crate) async fn list(
    req: HttpRequest,
    tenant: Tenant,
    query: Params<WorklistQuery>,
) -> ApiResult<HttpResponse> {
    let Params(WorklistQuery {
        section,
        status,
        after,
        limit,
    }) = query;
    let status = status.map(ResultStatus::from);
    let (filter, page) = (WorklistFilter { section, status }, PageRequest { limit, after });
    let (etag, list) = tenant
        .read(Action::WorklistRead, async |txn, _| {
            // The tag before the rows: a change in between makes the tag old, and the next poll reads again.
            let etag = format!("\"{}\"", worklist::token(txn, &filter).await?);
            let unchanged = if_none_match(&req, &etag);
            Ok((
                etag,
                if unchanged {
                    None
                } else {
                    Some(worklist::list(txn, &filter, &page).await?)
                },
            ))
        })
        .await?;
    let mut response = if list.is_some() {
        HttpResponse::Ok()
    } else {
        HttpResponse::NotModified()
    };
    response.insert_header((header::ETAG, etag));
    // To be kept by the person's own browser only, and asked for each time.
    response.insert_header((header::CACHE_CONTROL, "private, no-cache"));
    if let Some(next) = list.as_ref().and_then(|list| list.next.as_ref()) {
        response.insert_header((
            header::LINK,
            response::next_link(req.path(), req.query_string(), next),
        ));
    }
    Ok(match list {
        Some(list) => response.json(list),
        None => response.finish(),
    })
}
