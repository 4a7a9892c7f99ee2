//! Archives: proven dumps of laboratories, some of which are gone.

use actix_web::{HttpRequest, HttpResponse, get, post, web};
use jiff::Timestamp;
use lab::Page;
use model::{ArchiveId, OperationId, OperationKind, Reason, ServerName, Slug, TenantId};
use provisioner::RestoreAs;
use registry::{Archive, archive_by_id, archives_list, tenant_by_id};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::operations::Accepted;
use crate::{
    extract::{Body, IdempotencyKey, MaybeBody, OperatorCaller, Params, PathId},
    problem::{ApiResult, Kind, Problem},
    response,
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
    /// One of backup, offboard, restore_in_place.
    made_for: OperationKind,
    /// When it was recorded; when it was dumped, for one that was imported.
    created_at: Timestamp,
    /// When it was taken into a registry that did not know it.
    imported_at: Option<Timestamp>,
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
            made_for: archive.made_for,
            created_at: archive.created_at,
            imported_at: archive.imported_at,
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
    #[param(minimum = 1, maximum = 200)]
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
) -> ApiResult<HttpResponse> {
    let Params(query) = query;
    let limit = response::limit(query.limit)?;
    let before = query
        .after
        .map(|text| text.parse())
        .transpose()
        .map_err(|_| response::bad_cursor())?;
    let client = state.registry_client().await?;
    let found = archives_list(&client, query.tenant_id, before, limit + 1).await?;
    let page = response::cut(found, limit, |archive| archive.position().to_string());
    Ok(response::page(&req, &response::map(page, ArchiveView::from)))
}

/// One archive with its manifest.
#[derive(Debug, Serialize, ToSchema)]
pub struct FullArchiveView {
    #[serde(flatten)]
    archive: ArchiveView,
    /// What the laboratory held: tables with their rows and checksums, sequences, versions.
    manifest: serde_json::Value,
}

/// One archive with its manifest.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), responses((status = 200, body = FullArchiveView)))]
#[get("/archives/{id}")]
pub(crate) async fn show(
    _operator: OperatorCaller,
    id: PathId<ArchiveId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let client = state.registry_client().await?;
    let found = archive_by_id(&client, id.0).await?;
    let found = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
    let manifest = found.manifest.clone();
    let archive = found.into();
    Ok(response::ok(&FullArchiveView { archive, manifest }))
}

/// Proves an archive once more: it is fetched, restored beside everything else and compared with its
/// manifest.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = Accepted, headers(("Location" = String, description = "The operation")))))]
#[post("/archives/{id}/verify")]
pub(crate) async fn verify(
    operator: OperatorCaller,
    key: IdempotencyKey,
    id: PathId<ArchiveId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let by = operator.requested_by(key);
    let (tenant, operation) = state.provisioner.request_verify_archive(id.0, by).await?;
    Ok(Accepted::answer(tenant, operation))
}

/// A dump that the registry does not know.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImportBody {
    /// The dump or the manifest beside it, where this installation keeps its archives: a path on the server's
    /// host, or a URL.
    #[schema(
        min_length = 1,
        max_length = 2000,
        example = "s3://archives/0190a5b0-0000-7000-8000-000000000001/0190a5b0-0000-7000-8000-000000000002.dump"
    )]
    location: String,
}

/// Takes a dump and the manifest beside it into the registry, as after that was restored from an older
/// backup. It is restored and compared with its manifest first.
#[utoipa::path(tag = "operators", params(("Idempotency-Key" = Option<String>, Header)), request_body = ImportBody,
    responses((status = 202, body = Accepted, headers(("Location" = String, description = "The operation")))))]
#[post("/archives/import")]
pub(crate) async fn import(
    operator: OperatorCaller,
    key: IdempotencyKey,
    body: Body<ImportBody>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let location = body.value.location;
    if location.is_empty() || location.len() > 2000 {
        let why = "it must have 1 to 2,000 bytes";
        return Err(Problem::field(Kind::Invalid, "location", why));
    }
    let by = operator.requested_by(key);
    let asked = state.provisioner.request_import(&location, false, by).await?;
    Ok(Accepted::answer(asked.tenant, asked.operation))
}

/// As what an archive comes back.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreBody {
    /// As another laboratory with this slug; the removed one itself, under its id and slug, unless given.
    #[schema(value_type = Option<Slug>)]
    r#as: Option<String>,
    /// In place of what its laboratory holds now, which is archived first.
    #[serde(default)]
    in_place: bool,
    /// The laboratory's slug once more: needed for `inPlace`.
    confirm_slug: Option<String>,
    /// The server to host it; where it lived unless given.
    #[schema(value_type = Option<ServerName>)]
    server: Option<String>,
    reason: Option<Reason>,
}

/// Makes a laboratory out of an archive.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = Option<RestoreBody>),
    responses((status = 202, body = Accepted, headers(("Location" = String, description = "The operation")))))]
#[post("/archives/{id}/restore")]
pub(crate) async fn restore(
    operator: OperatorCaller,
    key: IdempotencyKey,
    id: PathId<ArchiveId>,
    body: MaybeBody<RestoreBody>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let MaybeBody(body) = body;
    let invalid = |field: &str, why: String| Problem::field(Kind::Invalid, field, why);
    let mut by = operator.requested_by(key);
    by.reason = body.reason;
    if !body.in_place {
        let slug = body.r#as.as_deref().map(Slug::parse).transpose();
        let slug = slug.map_err(|error| Problem::from(error).renaming("slug", "as"))?;
        let server = body.server.as_deref().map(ServerName::parse).transpose();
        let restore_as = RestoreAs {
            slug,
            server: server.map_err(|error| invalid("server", error.to_string()))?,
        };
        let (tenant, operation) = state.provisioner.request_restore(id.0, restore_as, by).await?;
        return Ok(Accepted::answer(tenant.id, operation));
    }
    if body.r#as.is_some() || body.server.is_some() {
        return Err(invalid(
            "inPlace",
            "`inPlace` goes with neither `as` nor `server`".to_owned(),
        ));
    }
    let client = state.registry_client().await?;
    let found = archive_by_id(&client, id.0).await?;
    let found = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
    let living = tenant_by_id(&client, found.tenant).await?;
    let slug = living.map_or(found.tenant_slug, |tenant| tenant.slug);
    if body.confirm_slug.as_deref() != Some(slug.as_str()) {
        let why = "what the laboratory holds is replaced: its slug is needed once more, in `confirmSlug`";
        return Err(invalid("confirmSlug", why.to_owned()));
    }
    drop(client);
    let (tenant, operation) = state.provisioner.request_restore_in_place(id.0, by).await?;
    Ok(Accepted::answer(tenant, operation))
}

/// What is to be pruned.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PruneBody {
    /// Only archives of this laboratory.
    #[schema(value_type = Option<Uuid>)]
    tenant_id: Option<TenantId>,
    /// Only say which.
    #[serde(default)]
    dry_run: bool,
}

/// Archives that were removed, or would be.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pruned {
    dry_run: bool,
    items: Vec<ArchiveView>,
}

/// Removes the backups that no schedule keeps any more; 500 at most, the next call goes on.
#[utoipa::path(tag = "operators", request_body(content = Option<PruneBody>), responses((status = 200, body = Pruned)))]
#[post("/archives/prune")]
pub(crate) async fn prune(
    operator: OperatorCaller,
    body: MaybeBody<PruneBody>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let MaybeBody(PruneBody { tenant_id, dry_run }) = body;
    let pruned = if dry_run {
        state.provisioner.prunable_archives(tenant_id).await?
    } else {
        let by = operator.requested_by(IdempotencyKey(None));
        state.provisioner.prune_archives(tenant_id, by).await?
    };
    let items = pruned.into_iter().map(ArchiveView::from).collect();
    Ok(response::ok(&Pruned { dry_run, items }))
}
