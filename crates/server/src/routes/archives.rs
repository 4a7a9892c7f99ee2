//! Archives: proven dumps of laboratories, most of which are gone.

use actix_web::{HttpRequest, HttpResponse, get, web};
use jiff::Timestamp;
use lab::Page;
use model::{ArchiveId, OperationId, Slug, TenantId};
use registry::{Archive, archives_list};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    answer,
    extract::{OperatorCaller, Params},
    problem::Answer,
    state::AppState,
};

/// A dump that was restored and compared.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveView {
    #[schema(value_type = Uuid)]
    id: ArchiveId,
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    #[schema(value_type = String)]
    tenant_slug: Slug,
    tenant_name: String,
    #[schema(value_type = Option<Uuid>)]
    operation_id: Option<OperationId>,
    /// Where it is.
    location: String,
    bytes: u64,
    /// SHA-256 of the file, in hex.
    sha256: String,
    db_version: u32,
    created_at: Timestamp,
    verified_at: Timestamp,
}

impl From<Archive> for ArchiveView {
    fn from(archive: Archive) -> Self {
        Self {
            id: archive.id,
            tenant_id: archive.tenant,
            tenant_slug: archive.tenant_slug,
            tenant_name: archive.tenant_name,
            operation_id: archive.operation,
            location: archive.location,
            bytes: archive.bytes,
            sha256: archive.sha256,
            db_version: archive.db_version.number(),
            created_at: archive.created_at,
            verified_at: archive.verified_at,
        }
    }
}

/// Which archives to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only those of this laboratory.
    #[param(value_type = Option<Uuid>)]
    tenant_id: Option<TenantId>,
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// The most items, 1 to 200; 50 unless given.
    limit: Option<u32>,
}

/// Archives, newest first.
#[utoipa::path(tag = "operators", params(ListQuery), responses((status = 200, body = Page<ArchiveView>)))]
#[get("/archives")]
pub(crate) async fn list(
    req: HttpRequest,
    _operator: OperatorCaller,
    query: Params<ListQuery>,
    state: web::Data<AppState>,
) -> Answer<HttpResponse> {
    let Params(query) = query;
    let limit = answer::limit(query.limit)?;
    let before = query
        .after
        .map(|text| text.parse())
        .transpose()
        .map_err(|_| answer::bad_cursor())?;
    let client = state.registry_client().await?;
    let found = archives_list(&client, query.tenant_id, before, limit + 1).await?;
    let page = answer::cut(found, limit, |archive| archive.id.to_string());
    Ok(answer::page(&req, &answer::map(page, ArchiveView::from)))
}
