//! Getting a token, and reading what it says.

use actix_web::{HttpRequest, HttpResponse, get, post, web};
use identity::Principal;
use jiff::Timestamp;
use model::{Email, Role, TenantId};
use registry::{Actor, NewAudit, audit_insert};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    answer,
    extract::{Body, Caller, client_ip, request_id},
    input::Password,
    login::{self, Found},
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

pub(super) fn session(state: &AppState, principal: &Principal) -> HttpResponse {
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
    let mut found = Found::default();
    let outcome = login::staff(&state, &email, password.secret(), tenant.as_deref(), &mut found).await;
    record(&req, &state, &email, "lab", &outcome, found.tenant).await?;
    let principal = outcome?;
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
    let outcome = login::operator(&state, &email, password.secret()).await;
    record(&req, &state, &email, "operator", &outcome, None).await?;
    let principal = outcome?;
    state.attempts.succeeded(&email, client).await;
    Ok(session(&state, &principal))
}

/// Writes a log-in into the registry's audit: nobody gets in unwritten. What failed on our side says nothing about the
/// person and is in the log; attempts past the limit are not written, so that nobody fills the audit at their own speed.
async fn record(
    req: &HttpRequest,
    state: &AppState,
    email: &Email,
    audience: &str,
    outcome: &Answer<Principal>,
    known: Option<TenantId>,
) -> Answer<()> {
    let mut detail = json!({ "email": email, "audience": audience });
    let (action, actor, tenant) = match outcome {
        Ok(Principal::Staff { staff, tenant, .. }) => {
            ("login.succeeded", Actor::Staff(*staff), Some(*tenant))
        }
        Ok(Principal::Operator { operator }) => ("login.succeeded", Actor::Operator(*operator), None),
        Err(problem) if problem.kind().status().is_client_error() => {
            detail["reason"] = json!(problem.kind().code());
            ("login.refused", Actor::Anonymous, known)
        }
        Err(_) => return Ok(()),
    };
    let request_id = request_id(req);
    let entry = NewAudit {
        actor: &actor,
        action,
        tenant,
        detail,
        request_id: request_id.as_deref(),
        client_ip: client_ip(req),
    };
    Ok(audit_insert(&state.registry_client().await?, &entry).await?)
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
