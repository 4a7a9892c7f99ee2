//! Who asks: the bearer token, checked, and whether the person may still work. Nothing but the token decides who somebody
//! is and whose data is meant.

use std::net::IpAddr;

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload, http::header, web::Data};
use futures_util::{FutureExt, future::LocalBoxFuture};
use identity::Principal;
use model::{OperatorId, Role, StaffId, TenantId};
use provisioner::RequestedBy;
use registry::operator_by_id;

use super::{IdempotencyKey, tenant::standing};
use crate::{
    problem::{Answer, Kind, Problem},
    state::AppState,
    trace::Trace,
};

/// Anybody with a valid token who may still work. A laboratory that cannot be asked at the moment (it is suspended, or its
/// server is away) leaves the token's word: so calls that take this one show nothing of a laboratory's own data.
#[derive(Debug, Clone)]
pub struct Caller(pub Principal);

impl FromRequest for Caller {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Answer<Self>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let req = req.clone();
        async move {
            let principal = principal(&req)?;
            match &principal {
                Principal::Operator { operator } => on_duty(state(&req), *operator).await?,
                Principal::Staff { staff, tenant, role } => {
                    on_staff(state(&req), *tenant, *staff, *role).await?;
                }
            }
            Ok(Self(principal))
        }
        .boxed_local()
    }
}

/// Refuses the token of an operator who may no longer log in.
async fn on_duty(state: &AppState, operator: OperatorId) -> Answer<()> {
    let client = state.registry_client().await?;
    match operator_by_id(&client, operator).await? {
        Some(operator) if operator.disabled_at.is_none() => Ok(()),
        _ => Err(Problem::new(Kind::TokenInvalid)),
    }
}

async fn on_staff(state: &AppState, tenant: TenantId, staff: StaffId, role: Role) -> Answer<()> {
    let mut client = match state.resolver.checkout(tenant).await {
        Ok(client) => client,
        Err(error) => {
            tracing::debug!(%error, "a token is taken at its word");
            return Ok(());
        }
    };
    let txn = client.read_only_transaction().await?;
    let outcome = standing(&txn, staff, role).await;
    let _settled = txn.rollback().await;
    outcome
}

/// An operator of the platform, with where the request came from.
#[derive(Debug, Clone)]
pub struct OperatorCaller {
    /// Who it is.
    pub operator: OperatorId,
    request_id: Option<String>,
    client_ip: Option<IpAddr>,
}

impl OperatorCaller {
    /// The operator as the registry's audit keeps it, with the request's circumstances.
    #[must_use]
    pub fn requested_by(self, key: IdempotencyKey) -> RequestedBy {
        RequestedBy {
            request_id: self.request_id,
            client_ip: self.client_ip,
            idempotency_key: key.0,
            ..RequestedBy::operator(self.operator)
        }
    }
}

impl FromRequest for OperatorCaller {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Answer<Self>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let req = req.clone();
        async move {
            let operator = match principal(&req)? {
                Principal::Staff { .. } => return Err(Problem::new(Kind::WrongAudience)),
                Principal::Operator { operator } => operator,
            };
            on_duty(state(&req), operator).await?;
            Ok(Self {
                operator,
                request_id: request_id(&req),
                client_ip: client_ip(&req),
            })
        }
        .boxed_local()
    }
}

pub(super) fn state(req: &HttpRequest) -> &AppState {
    req.app_data::<Data<AppState>>()
        .expect("the application is built with its state")
}

/// Whom the request's token stands for.
pub(super) fn principal(req: &HttpRequest) -> Answer<Principal> {
    let value = req
        .headers()
        .get(header::AUTHORIZATION)
        .ok_or_else(|| Problem::new(Kind::TokenMissing))?;
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let token = token.ok_or_else(|| Problem::new(Kind::TokenInvalid))?;
    Ok(state(req).tokens.verify(token)?)
}

/// The trace id of the request, as logs and audits keep it.
pub(crate) fn request_id(req: &HttpRequest) -> Option<String> {
    req.extensions().get::<Trace>().map(Trace::id)
}

/// The client's address: the peer of the connection, or whom a trusted proxy asks for. The audits and the limits take it
/// from here and from nowhere else.
pub fn client_ip(req: &HttpRequest) -> Option<IpAddr> {
    let peer = req.peer_addr()?;
    Some(state(req).proxies.client(peer.ip(), req.headers()))
}
