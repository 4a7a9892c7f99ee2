//! A laboratory whose database is gone, though the registry still has it.

use actix_web::{HttpResponse, post, web};
use model::{Reason, Slug, TenantId};
use registry::tenant_by_id;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    extract::{Body, IdempotencyKey, OperatorCaller, PathId},
    problem::{ApiResult, Kind, Problem},
    response,
    state::AppState,
};

/// A laboratory that is to be forgotten.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForgetBody {
    /// The laboratory's slug once more, since its row goes.
    #[schema(example = "acme-lab")]
    confirm_slug: String,
    /// Also when no archive of it is recorded: its data are lost then, and nothing can restore them.
    #[serde(default)]
    without_archive: bool,
    reason: Option<Reason>,
}

/// A laboratory that the registry has no longer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Forgotten {
    /// Its archives are listed under it.
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    slug: Slug,
}

/// Removes the registry's row of a laboratory whose database is gone from its server already, as after the
/// registry was restored from a backup that is older than the laboratory's removal. Nothing is dropped, and
/// its archives stay. 409 while the database is there, also under another name, or when no archive is
/// recorded from which it could be restored and `withoutArchive` is not true.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), request_body = ForgetBody,
    responses((status = 200, body = Forgotten)))]
#[post("/tenants/{id}/forget")]
pub(crate) async fn forget(
    operator: OperatorCaller,
    id: PathId<TenantId>,
    body: Body<ForgetBody>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let ForgetBody {
        confirm_slug,
        without_archive,
        reason,
    } = body.value;
    let found = tenant_by_id(&state.registry_client().await?, id.0).await?;
    let found = found.ok_or_else(|| Problem::new(Kind::UnknownTenant))?;
    if confirm_slug != found.slug.as_str() {
        let why = "it is not the slug of this laboratory; type it once more";
        return Err(Problem::field(Kind::Invalid, "confirmSlug", why));
    }
    let mut by = operator.requested_by(IdempotencyKey(None));
    by.reason = reason;
    let gone = state.provisioner.forget(id.0, without_archive, by).await?;
    Ok(response::ok(&Forgotten {
        tenant_id: gone.id,
        slug: gone.slug,
    }))
}
