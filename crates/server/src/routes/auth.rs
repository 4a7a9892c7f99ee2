//! Getting a token, and reading what it says.

use actix_web::{HttpRequest, HttpResponse, get, post, web};
use identity::Principal;
use jiff::Timestamp;
use model::{ClientNetwork, Email, Role, TenantId};
use registry::{Actor, NewAudit, NewRefusal, audit_insert, operator_end_sessions_in_txn, refusal_count};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    attempts::Audience,
    extract::{Caller, IdempotencyKey, PublicBody, client_ip, request_id},
    input::{self, Password},
    login::{self, Credentials, Found},
    problem::{ApiResult, Kind},
    response,
    state::AppState,
};

/// What stands in the place of a role for operators.
const OPERATOR: &str = "operator";

/// Who wants in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoginBody {
    #[serde(deserialize_with = "input::known_email")]
    email: Email,
    #[schema(value_type = String, format = Password)]
    password: Password,
    /// The laboratory's slug or id. Needed by staff of all but the default laboratory, and by admins of
    /// several: without it their log-in is refused like one with a wrong password.
    #[schema(example = "acme-lab")]
    tenant: Option<String>,
}

/// Which operator wants in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OperatorLoginBody {
    #[serde(deserialize_with = "input::known_email")]
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
    response::ok(&Session {
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
        Principal::Operator { .. } => (None, OPERATOR.to_owned()),
    }
}

/// Logs a laboratory's admin or staff in.
#[utoipa::path(tag = "log-in", security(()), request_body = LoginBody, responses((status = 200, body = Session)))]
#[post("/auth/login")]
pub(crate) async fn log_in(
    req: HttpRequest,
    body: PublicBody<LoginBody>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let LoginBody {
        email,
        password,
        tenant,
    } = body.0;
    let given = Credentials {
        email: &email,
        password: password.secret(),
        client: client_ip(&req).map(ClientNetwork::of),
    };
    let mut found = Found::default();
    let outcome = login::staff(&state, &given, tenant.as_deref(), &mut found).await;
    record(&req, &state, &email, Audience::Lab, &outcome, found.tenant).await?;
    Ok(session(&state, &outcome?))
}

/// Logs an operator of the platform in.
#[utoipa::path(tag = "log-in", security(()), request_body = OperatorLoginBody,
    responses((status = 200, body = Session)))]
#[post("/operators/login")]
pub(crate) async fn operator_log_in(
    req: HttpRequest,
    body: PublicBody<OperatorLoginBody>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let OperatorLoginBody { email, password } = body.0;
    let given = Credentials {
        email: &email,
        password: password.secret(),
        client: client_ip(&req).map(ClientNetwork::of),
    };
    let outcome = login::operator(&state, &given).await;
    record(&req, &state, &email, Audience::Operator, &outcome, None).await?;
    Ok(session(&state, &outcome?))
}

/// Writes a log-in into the registry's audit: every log-in is written. A refusal is counted instead, so that
/// no client fills the audit at its own speed; one past the limit on attempts is not even counted. What
/// failed on our side says nothing about the person and is in the log.
async fn record(
    req: &HttpRequest,
    state: &AppState,
    email: &Email,
    audience: Audience,
    outcome: &ApiResult<Principal>,
    meant: Option<TenantId>,
) -> ApiResult<()> {
    let (request_id, client_ip) = (request_id(req), client_ip(req));
    let (actor, tenant) = match outcome {
        Ok(Principal::Staff { staff, tenant, .. }) => (Actor::Staff(*staff), Some(*tenant)),
        Ok(Principal::Operator { operator, .. }) => (Actor::Operator(*operator), None),
        Err(problem) => {
            let kind = problem.kind();
            let limited = matches!(kind, Kind::TooManyAttempts | Kind::TooManyAtOnce);
            if limited || !kind.status().is_client_error() {
                return Ok(());
            }
            let refusal = NewRefusal {
                audience: audience.as_str(),
                reason: kind.code(),
                tenant: meant,
                email: Some(email),
                client: client_ip.map(ClientNetwork::of),
                request_id: request_id.as_deref(),
            };
            return Ok(refusal_count(&state.registry_client().await?, &refusal).await?);
        }
    };
    let entry = NewAudit {
        actor: &actor,
        action: "login.succeeded",
        tenant,
        detail: json!({ "email": email, "audience": audience.as_str() }),
        request_id: request_id.as_deref(),
        client_ip,
    };
    Ok(audit_insert(&state.registry_client().await?, &entry).await?)
}

/// Ends every access token of the person, on every device. Log in again for a new one.
#[utoipa::path(tag = "log-in", responses((status = 204)))]
#[post("/auth/logout")]
pub(crate) async fn log_out(caller: Caller, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    match caller {
        Caller::Staff(tenant) => {
            tenant
                .write_own(
                    async |txn, actor| lab::staff::sessions_end(txn, actor).await,
                    async || Ok(()),
                )
                .await?;
        }
        Caller::Operator(operator) => {
            let id = operator.operator;
            let by = operator.requested_by(IdempotencyKey(None));
            state
                .registry
                .in_txn(async |txn| operator_end_sessions_in_txn(txn, id, &by.change()).await)
                .await?;
        }
    }
    Ok(HttpResponse::NoContent().finish())
}

/// Who the token stands for.
#[utoipa::path(tag = "log-in", responses((status = 200, body = Me)))]
#[get("/me")]
pub(crate) async fn me(caller: Caller) -> ApiResult<HttpResponse> {
    let me = match caller {
        Caller::Staff(tenant) => {
            let _person = tenant.attend().await?;
            Me {
                id: tenant.actor().staff.as_uuid(),
                tenant_id: Some(tenant.id()),
                role: tenant.actor().role.as_str().to_owned(),
            }
        }
        Caller::Operator(caller) => Me {
            id: caller.operator.as_uuid(),
            tenant_id: None,
            role: OPERATOR.to_owned(),
        },
    };
    Ok(response::ok(&me))
}
