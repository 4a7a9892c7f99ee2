//! Laboratories, as the platform's operators see them.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, get, post, web};
use identity::PasswordContext;
use jiff::Timestamp;
use lab::Page;
use model::{
    Email, Reason, ServerName, Slug, TenantId, TenantState,
    openapi::{Line, TimeZone},
};
use provisioner::{GRACE_MAX, GRACE_UNCONFIRMED_MIN, NewAdmin, NewLab};
use registry::{Tenant, TenantFilter, tenant_by_id, tenants_list};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::operations::Accepted;
use crate::{
    extract::{Body, IdempotencyKey, MaybeBody, OperatorCaller, Params, PathId},
    input::{self, NewPassword, Password},
    invitations,
    problem::{ApiResult, Kind, Problem},
    response,
    state::AppState,
};

/// A laboratory as the registry knows it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantView {
    #[schema(value_type = Uuid)]
    id: TenantId,
    slug: Slug,
    name: String,
    /// IANA name.
    #[schema(example = "Europe/Vienna")]
    time_zone: String,
    server: ServerName,
    /// The name of its database.
    database: String,
    /// One of provisioning, active, suspended, deleting.
    status: TenantState,
    /// The version of its schema.
    db_version: u32,
    /// Raised by every change.
    generation: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
    activated_at: Option<Timestamp>,
}

impl From<Tenant> for TenantView {
    fn from(tenant: Tenant) -> Self {
        Self {
            id: tenant.id,
            slug: tenant.slug,
            name: tenant.name,
            time_zone: tenant.time_zone,
            server: tenant.server,
            database: tenant.db_name.as_str().to_owned(),
            status: tenant.status,
            db_version: tenant.db_version.number(),
            generation: tenant.generation,
            created_at: tenant.created_at,
            updated_at: tenant.updated_at,
            activated_at: tenant.activated_at,
        }
    }
}

/// Which laboratories to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only those in this state.
    #[param(inline)]
    status: Option<TenantState>,
    /// Where the page starts: `next` of the page before.
    after: Option<String>,
    /// The most items, 1 to 200; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// The laboratories in the order of their slugs.
#[utoipa::path(tag = "operators", params(ListQuery), responses((status = 200, body = Page<TenantView>)))]
#[get("/tenants")]
pub(crate) async fn list(
    req: HttpRequest,
    _operator: OperatorCaller,
    query: Params<ListQuery>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let Params(query) = query;
    let limit = response::limit(query.limit)?;
    let after = query
        .after
        .as_deref()
        .map(Slug::parse)
        .transpose()
        .map_err(|_| response::bad_cursor())?;
    let filter = TenantFilter {
        status: query.status,
        ..TenantFilter::default()
    };
    let client = state.registry_client().await?;
    let found = tenants_list(&client, &filter, after.as_ref(), limit + 1).await?;
    let page = response::cut(found, limit, |tenant| tenant.slug.to_string());
    Ok(response::page(&req, &response::map(page, TenantView::from)))
}

/// A laboratory to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewTenantBody {
    #[schema(value_type = Slug)]
    slug: String,
    /// The name that people read.
    #[schema(value_type = Line)]
    name: String,
    /// UTC unless given.
    #[schema(value_type = Option<TimeZone>)]
    time_zone: Option<String>,
    /// The server to host it, by its name in the registry; the first one unless given.
    #[schema(value_type = Option<ServerName>)]
    server: Option<String>,
    /// Its first admin, who is also its first staff member.
    admin: NewAdminBody,
}

/// The first admin of a laboratory.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewAdminBody {
    /// Log-in name.
    email: Email,
    #[schema(value_type = Line)]
    display_name: String,
    /// Without one they are invited to set it: the answer has the link, once.
    #[schema(value_type = Option<NewPassword>)]
    password: Option<Password>,
}

/// Makes a laboratory: its row and the operation at once, its database in the course of the operation.
///
/// An admin without a password is invited to set one. The same request again under the same `Idempotency-Key`
/// gives the same operation; as long as the invitation was not accepted there is a new one in place of the
/// first, and none from then on.
#[utoipa::path(tag = "operators", request_body = NewTenantBody, params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = Accepted, headers(("Location" = String, description = "The operation")))))]
#[post("/tenants")]
pub(crate) async fn provision(
    operator: OperatorCaller,
    key: IdempotencyKey,
    body: Body<NewTenantBody>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let NewTenantBody {
        slug,
        name,
        time_zone,
        server,
        admin,
    } = body.value;
    let slug = Slug::parse(&slug)?;
    let server = server
        .as_deref()
        .map(ServerName::parse)
        .transpose()
        .map_err(|error| Problem::field(Kind::Invalid, "server", error.to_string()))?;
    let password_hash = match &admin.password {
        Some(password) => {
            let context = PasswordContext::of(&admin.email).and_laboratory(&name, slug.as_str());
            Some(input::hashed(&state.passwords, "admin.password", password, &context).await?)
        }
        None => None,
    };
    let admin = NewAdmin {
        email: admin.email,
        display_name: admin.display_name,
        password_hash,
    };
    let time_zone = time_zone.unwrap_or_else(|| "UTC".to_owned());
    let new = NewLab {
        slug,
        name,
        time_zone,
        server,
        admin,
    };
    let by = operator.requested_by(key);
    let invited = new.admin.password_hash.is_none();
    let (tenant, operation) = state.provisioner.request_provision(new, by.clone()).await?;
    let invitation = if invited {
        invitations::first(&state, tenant.id, &by).await?
    } else {
        None
    };
    Ok(Accepted::inviting(
        tenant.id,
        operation,
        invitation,
        &[lab::catalogue::COVERAGE_NOTE],
    ))
}

/// One laboratory.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), responses((status = 200, body = TenantView)))]
#[get("/tenants/{id}")]
pub(crate) async fn show(
    _operator: OperatorCaller,
    id: PathId<TenantId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let client = state.registry_client().await?;
    let tenant = tenant_by_id(&client, id.0)
        .await?
        .ok_or_else(|| Problem::new(Kind::UnknownTenant))?;
    Ok(response::ok(&TenantView::from(tenant)))
}

/// Closes a laboratory for its users; everything is kept.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), responses((status = 200, body = TenantView)))]
#[post("/tenants/{id}/suspend")]
pub(crate) async fn suspend(
    operator: OperatorCaller,
    id: PathId<TenantId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let tenant = state
        .provisioner
        .suspend(id.0, operator.requested_by(IdempotencyKey(None)))
        .await?;
    Ok(response::ok(&TenantView::from(tenant)))
}

/// Opens a suspended laboratory again.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), responses((status = 200, body = TenantView)))]
#[post("/tenants/{id}/resume")]
pub(crate) async fn resume(
    operator: OperatorCaller,
    id: PathId<TenantId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let tenant = state
        .provisioner
        .resume(id.0, operator.requested_by(IdempotencyKey(None)))
        .await?;
    Ok(response::ok(&TenantView::from(tenant)))
}

/// Brings a laboratory's schema to the version of this service.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)),
    responses((status = 202, body = Accepted, headers(("Location" = String, description = "The operation")))))]
#[post("/tenants/{id}/migrate")]
pub(crate) async fn migrate(
    operator: OperatorCaller,
    key: IdempotencyKey,
    id: PathId<TenantId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let operation = state
        .provisioner
        .request_migrate(id.0, operator.requested_by(key))
        .await?;
    Ok(Accepted::answer(id.0, operation))
}

/// The slug typed once more: a laboratory is not dropped at once by a slip.
async fn confirm(state: &AppState, id: TenantId, slug: Option<&str>) -> ApiResult<()> {
    let client = state.registry_client().await?;
    let tenant = tenant_by_id(&client, id)
        .await?
        .ok_or_else(|| Problem::new(Kind::UnknownTenant))?;
    if slug == Some(tenant.slug.as_str()) {
        return Ok(());
    }
    let why =
        "for a grace period of less than an hour the laboratory's slug is needed once more, in `confirmSlug`";
    Err(Problem::field(Kind::Invalid, "confirmSlug", why))
}

// The description of `OffboardBody` says so.
const _: () = assert!(GRACE_MAX.as_secs() == 315_360_000);

/// How a laboratory is to be removed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OffboardBody {
    /// How long the removal can be cancelled once the archive is verified; as configured (30 days) unless
    /// given.
    #[schema(example = 2_592_000, maximum = 315_360_000)]
    grace_seconds: Option<u64>,
    /// The laboratory's slug once more: needed for a grace period of less than an hour, since nothing brings
    /// the database back then but a restore.
    #[schema(example = "acme-lab")]
    confirm_slug: Option<String>,
    /// Why, for the audit: one line.
    reason: Option<Reason>,
}

/// Removes a laboratory: it is closed at once, archived, the archive verified; when the grace period is over
/// the database is dropped and the archive stays. Until then `POST /operations/{id}/cancel` brings the
/// laboratory back.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = Option<OffboardBody>),
    responses((status = 202, body = Accepted, headers(("Location" = String, description = "The operation")))))]
#[post("/tenants/{id}/offboard")]
pub(crate) async fn offboard(
    operator: OperatorCaller,
    key: IdempotencyKey,
    id: PathId<TenantId>,
    body: MaybeBody<OffboardBody>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let MaybeBody(OffboardBody {
        grace_seconds,
        confirm_slug,
        reason,
    }) = body;
    let grace = grace_seconds.map_or(state.offboard_grace, Duration::from_secs);
    if grace < GRACE_UNCONFIRMED_MIN {
        confirm(&state, id.0, confirm_slug.as_deref()).await?;
    }
    let mut by = operator.requested_by(key);
    by.reason = reason;
    let asked = state.provisioner.request_offboard(id.0, grace, by).await;
    let operation = asked.map_err(|error| Problem::from(error).renaming("grace", "graceSeconds"))?;
    Ok(Accepted::answer(id.0, operation))
}
