//! Getting a token, and reading what it says.

use actix_web::{HttpRequest, HttpResponse, get, post, web};
use identity::Principal;
use jiff::Timestamp;
use model::{Email, Role, TenantId};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    answer,
    extract::{Body, Caller, client_ip},
    input::Password,
    login,
    problem::Answer,
    state::AppState,
};

/// Who wants in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoginBody {
    #[schema(value_type = String, example = "admin@acme-lab.example")]
    email: Email,
    #[schema(value_type = String, format = Password)]
    password: Password,
    /// The laboratory's slug or id. Needed by staff of all but the default laboratory, and by admins of several.
    #[schema(example = "acme-lab")]
    tenant: Option<String>,
}

/// Which operator wants in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OperatorLoginBody {
    #[schema(value_type = String, example = "ops@platform.example")]
    email: Email,
    #[schema(value_type = String, format = Password)]
    password: Password,
}

/// A token and what it stands for.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// To be sent as `Authorization: Bearer …`.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    expires_at: Timestamp,
    /// The laboratory; absent for operators.
    #[schema(value_type = Option<Uuid>)]
    tenant_id: Option<TenantId>,
    /// The person's role in the laboratory, or `operator`.
    role: String,
}

/// Who a token stands for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Me {
    /// The person's id.
    id: Uuid,
    /// The laboratory; absent for operators.
    #[schema(value_type = Option<Uuid>)]
    tenant_id: Option<TenantId>,
    /// The person's role in the laboratory, or `operator`.
    role: String,
}

fn session(state: &AppState, principal: &Principal) -> HttpResponse {
    let (token, expires_at) = state.tokens.issue(principal);
    let (tenant_id, role) = belongs(principal);
    answer::ok(&Session {
        access_token: token.expose_secret().to_owned(),
        token_type: "Bearer",
        expires_at,
        tenant_id,
        role,
    })
}

fn belongs(principal: &Principal) -> (Option<TenantId>, String) {
    match principal {
        Principal::Staff { tenant, role, .. } => (Some(*tenant), Role::as_str(*role).to_owned()),
        Principal::Operator { .. } => (None, "operator".to_owned()),
    }
}

/// Logs a laboratory's admin or staff in.
#[utoipa::path(tag = "log-in", security(()), request_body = LoginBody, responses((status = 200, body = Session)))]
#[post("/auth/login")]
pub(crate) async fn log_in(
    req: HttpRequest,
    body: Body<LoginBody>,
    state: web::Data<AppState>,
) -> Answer<HttpResponse> {
    let LoginBody {
        email,
        password,
        tenant,
    } = body.value;
    let client = client_ip(&req);
    state.attempts.begin(&email, client).await?;
    let principal = login::staff(&state, &email, password.secret(), tenant.as_deref()).await?;
    state.attempts.succeeded(&email, client).await;
    Ok(session(&state, &principal))
}

/// Logs an operator of the platform in.
#[utoipa::path(tag = "log-in", security(()), request_body = OperatorLoginBody,
    responses((status = 200, body = Session)))]
#[post("/operators/login")]
pub(crate) async fn operator_log_in(
    req: HttpRequest,
    body: Body<OperatorLoginBody>,
    state: web::Data<AppState>,
) -> Answer<HttpResponse> {
    let OperatorLoginBody { email, password } = body.value;
    let client = client_ip(&req);
    state.attempts.begin(&email, client).await?;
    let principal = login::operator(&state, &email, password.secret()).await?;
    state.attempts.succeeded(&email, client).await;
    Ok(session(&state, &principal))
}

/// Who the token stands for.
#[utoipa::path(tag = "log-in", responses((status = 200, body = Me)))]
#[get("/me")]
pub(crate) async fn me(caller: Caller) -> HttpResponse {
    let Caller(principal) = caller;
    let id = match &principal {
        Principal::Staff { staff, .. } => staff.as_uuid(),
        Principal::Operator { operator } => operator.as_uuid(),
    };
    let (tenant_id, role) = belongs(&principal);
    answer::ok(&Me { id, tenant_id, role })
}
