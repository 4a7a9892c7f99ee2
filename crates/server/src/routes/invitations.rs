//! Inviting administrators, and accepting an invitation: through the API, or on a page for people.

use std::sync::LazyLock;

use actix_web::{HttpRequest, HttpResponse, delete, get, http::header, post, web};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use identity::Principal;
use jiff::Timestamp;
use model::{ClientNetwork, Email, StaffId, TenantId};
use registry::{
    Actor, Admin, Invitation, NewAudit, NewRefusal, admins_of, audit_insert, invitations_of, refusal_count,
    tenant_by_id,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::auth::{Session, session};
use crate::{
    extract::{IdempotencyKey, OperatorCaller, PathId, PublicBody, client_ip, request_id},
    input::{self, NewPassword, Password},
    invitations::{self, Bearer, Circumstances, InvitationView},
    problem::{ApiResult, Kind, Problem},
    response,
    state::AppState,
};

/// An invitation that is accepted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AcceptBody {
    /// The part of the link behind the `#`.
    #[schema(value_type = String)]
    token: Password,
    #[schema(value_type = NewPassword)]
    password: Password,
}

/// Accepts an invitation: sets the password of the administrator whom the token invites, uses the token up
/// and logs them in. As long as the laboratory is not in service nothing is used up.
#[utoipa::path(tag = "log-in", security(()), request_body = AcceptBody, responses((status = 200, body = Session)))]
#[post("/auth/invitations/accept")]
pub(crate) async fn accept(
    req: HttpRequest,
    body: PublicBody<AcceptBody>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let AcceptBody { token, password } = body.0;
    input::check_length("password", &password)?;
    let from = Circumstances {
        request_id: request_id(&req),
        client_ip: client_ip(&req),
    };
    let mut bearer = Bearer::default();
    let outcome = invitations::accept(&state, token.secret(), &password, &from, &mut bearer).await;
    record(&state, &outcome, &bearer, &from).await?;
    Ok(session(&state, &outcome?))
}

/// An acceptance is a log-in, and is written where log-ins are; that the invitation was used stands there
/// already. What was refused is counted where a token was wrong, and not past the limit on attempts.
async fn record(
    state: &AppState,
    outcome: &ApiResult<Principal>,
    bearer: &Bearer,
    from: &Circumstances,
) -> ApiResult<()> {
    let actor = match outcome {
        Ok(Principal::Staff { staff, .. }) => Actor::Staff(*staff),
        Err(problem) if problem.kind() == Kind::InvitationInvalid => {
            let refusal = NewRefusal {
                audience: "invitation",
                reason: problem.kind().code(),
                tenant: bearer.tenant,
                email: bearer.email.as_ref(),
                client: from.client_ip.map(ClientNetwork::of),
                request_id: from.request_id.as_deref(),
            };
            return Ok(refusal_count(&state.registry_client().await?, &refusal).await?);
        }
        _ => return Ok(()),
    };
    let entry = NewAudit {
        actor: &actor,
        action: "login.succeeded",
        tenant: bearer.tenant,
        detail: json!({ "email": bearer.email, "audience": "lab", "via": "invitation" }),
        request_id: from.request_id.as_deref(),
        client_ip: from.client_ip,
    };
    Ok(audit_insert(&state.registry_client().await?, &entry).await?)
}

/// An administrator of a laboratory, as the registry knows them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdminView {
    /// The id that the person also has in the laboratory's staff list.
    #[schema(value_type = Uuid)]
    id: StaffId,
    email: Email,
    display_name: String,
    /// Whether they have set a password; who has none cannot log in.
    has_password: bool,
    /// Since when they may not log in.
    disabled_at: Option<Timestamp>,
    /// Until when an invitation can be accepted that is under way.
    invited_until: Option<Timestamp>,
    created_at: Timestamp,
}

impl AdminView {
    fn of(admin: Admin, invitations: &[Invitation]) -> Self {
        let open = |invitation: &&Invitation| {
            invitation.admin == admin.id && !invitation.expired && invitation.accepted_at.is_none()
        };
        Self {
            id: admin.id,
            has_password: admin.password_hash.is_some(),
            disabled_at: admin.disabled_at,
            invited_until: invitations.iter().find(open).map(|open| open.expires_at),
            created_at: admin.created_at,
            email: admin.email,
            display_name: admin.display_name,
        }
    }
}

/// The administrators of one laboratory whom the registry knows, first come first: at most 500.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path)), responses((status = 200, body = [AdminView])))]
#[get("/tenants/{id}/admins")]
pub(crate) async fn list(
    _operator: OperatorCaller,
    id: PathId<TenantId>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let client = state.registry_client().await?;
    let known = tenant_by_id(&client, id.0).await?;
    known.ok_or_else(|| Problem::new(Kind::UnknownTenant))?;
    let invitations = invitations_of(&client, id.0).await?;
    let admins = admins_of(&client, id.0).await?;
    let shown: Vec<AdminView> = admins
        .into_iter()
        .map(|admin| AdminView::of(admin, &invitations))
        .collect();
    Ok(response::ok(&shown))
}

/// Gives a new invitation to an administrator who has not accepted one yet, or has lost the password: that
/// one stays valid until the invitation is accepted. An invitation that they had before no longer is. The
/// token is shown only now.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path), ("adminId" = Uuid, Path)),
    responses((status = 201, body = InvitationView)))]
#[post("/tenants/{id}/admins/{adminId}/invitation")]
pub(crate) async fn renew(
    operator: OperatorCaller,
    path: web::Path<(String, String)>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let (tenant, admin) = ids(path.into_inner())?;
    let by = operator.requested_by(IdempotencyKey(None));
    let made = invitations::renew(&state, tenant, admin, &by).await?;
    Ok(HttpResponse::Created()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .json(made))
}

/// Takes back the invitation that an administrator has not accepted: its link is good for nothing from now
/// on. Also 204 when there is none. A password that they have stays.
#[utoipa::path(tag = "operators", params(("id" = Uuid, Path), ("adminId" = Uuid, Path)), responses((status = 204)))]
#[delete("/tenants/{id}/admins/{adminId}/invitation")]
pub(crate) async fn revoke(
    operator: OperatorCaller,
    path: web::Path<(String, String)>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let (tenant, admin) = ids(path.into_inner())?;
    let by = operator.requested_by(IdempotencyKey(None));
    state.provisioner.revoke_invitation(tenant, admin, &by).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// As `PathId` has it: what is no id names nothing.
fn ids((tenant, admin): (String, String)) -> ApiResult<(TenantId, StaffId)> {
    let tenant = tenant.parse().map_err(|_| Problem::new(Kind::UnknownTenant))?;
    let admin = admin.parse().map_err(|_| Problem::new(Kind::NotFound))?;
    Ok((tenant, admin))
}

const STYLE: &str = include_str!("invitation.css");
const SCRIPT: &str = include_str!("invitation.js");

/// The page, and a policy under which nothing but its own style and script work in it: they are named by
/// their digests, so whatever else came in would not run.
static PAGE: LazyLock<(String, String)> = LazyLock::new(|| {
    let html = include_str!("invitation.html")
        .replace("/*style*/", STYLE)
        .replace("/*script*/", SCRIPT);
    let digest = |text: &str| {
        let digest = Sha256::digest(text.as_bytes());
        format!("'sha256-{}'", STANDARD.encode(digest))
    };
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        digest(STYLE),
        digest(SCRIPT)
    );
    (html, policy)
});

/// The page on which an administrator accepts an invitation. It takes the token from the link's fragment,
/// which is sent to no server, and posts it to `/api/v1/auth/invitations/accept`.
#[utoipa::path(tag = "log-in", security(()), responses((status = 200, body = String, content_type = "text/html")))]
#[get("/invitation")]
pub(crate) async fn page() -> HttpResponse {
    let (page, policy) = &*PAGE;
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, policy.as_str()))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::X_FRAME_OPTIONS, "DENY"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(page.as_str())
}
