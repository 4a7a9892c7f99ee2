//! The laboratory itself: its settings and its audit trail.

use actix_web::{HttpRequest, HttpResponse, get, patch};
use lab::{
    Action, Page, PageRequest,
    audit::{self, AuditEvent},
    profile::{self, Profile, ProfilePatch},
};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    extract::{Body, IfMatch, Params, Tenant},
    problem::ApiResult,
    response,
};

/// The laboratory's settings.
#[utoipa::path(tag = "laboratory", responses((status = 200, body = Profile, headers(("ETag" = String)))))]
#[get("/profile")]
pub(crate) async fn show(tenant: Tenant) -> ApiResult<HttpResponse> {
    let profile = tenant
        .read(Action::ProfileChange, async |txn, _| profile::get(txn).await)
        .await?;
    Ok(response::ok_tagged(profile.version, &profile))
}

/// Changes the laboratory's settings.
#[utoipa::path(tag = "laboratory", request_body = ProfilePatch, params(("If-Match" = String, Header)),
    responses((status = 200, body = Profile, headers(("ETag" = String)))))]
#[patch("/profile")]
pub(crate) async fn change(
    tenant: Tenant,
    version: IfMatch,
    body: Body<ProfilePatch>,
) -> ApiResult<HttpResponse> {
    let profile = tenant
        .write(Action::ProfileChange, async |txn, actor| {
            profile::update(txn, actor, version.0, &body.value).await
        })
        .await?;
    Ok(response::ok_tagged(profile.version, &profile))
}

/// Which deeds to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only those on the record with this id.
    entity_id: Option<String>,
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// The most items, 1 to 200; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Who did what, newest first.
#[utoipa::path(tag = "laboratory", params(AuditQuery), responses((status = 200, body = Page<AuditEvent>)))]
#[get("/audit")]
pub(crate) async fn audit_trail(
    req: HttpRequest,
    tenant: Tenant,
    query: Params<AuditQuery>,
) -> ApiResult<HttpResponse> {
    let Params(AuditQuery {
        entity_id,
        after,
        limit,
    }) = query;
    let page = PageRequest { limit, after };
    let found = tenant
        .read(Action::AuditRead, async |txn, _| {
            audit::list(txn, entity_id.as_deref(), &page).await
        })
        .await?;
    Ok(response::page(&req, &found))
}
