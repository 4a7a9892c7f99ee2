//! Who asks: the bearer token, checked, and whether the person may still work. Nothing but the token decides
//! who the caller is and which tenant's data is meant.

use std::net::IpAddr;

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload, http::header, web::Data};
use futures_util::{FutureExt, future::LocalBoxFuture};
use identity::Principal;
use model::{OperatorId, SessionEpoch};
use provisioner::RequestedBy;
use registry::operator_by_id;

use super::{IdempotencyKey, Tenant};
use crate::{
    problem::{ApiResult, Kind, Problem},
    state::AppState,
    trace::Trace,
};

/// Anybody with a valid token: what their kind may do is decided there.
pub enum Caller {
    /// A person of a laboratory that is in service. Whether they may still work is asked with what they do.
    Staff(Tenant),
    /// An operator who may still log in.
    Operator(OperatorCaller),
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, ApiResult<Self>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let req = req.clone();
        async move {
            Ok(match principal(&req)? {
                Principal::Staff { .. } => Self::Staff(Tenant::of(&req).await?),
                Principal::Operator { .. } => Self::Operator(OperatorCaller::of(&req).await?),
            })
        }
        .boxed_local()
    }
}

/// Refuses a token that was ended, and that of an operator who may no longer log in.
async fn on_duty(state: &AppState, operator: OperatorId, epoch: SessionEpoch) -> ApiResult<()> {
    let client = state.registry_client().await?;
    match operator_by_id(&client, operator).await? {
        Some(operator) if operator.disabled_at.is_none() && operator.session_epoch == epoch => Ok(()),
        _ => Err(Problem::new(Kind::TokenInvalid)),
    }
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
    async fn of(req: &HttpRequest) -> ApiResult<Self> {
        let Principal::Operator { operator, epoch } = principal(req)? else {
            return Err(Problem::new(Kind::WrongAudience));
        };
        on_duty(state(req), operator, epoch).await?;
        Ok(Self {
            operator,
            request_id: request_id(req),
            client_ip: client_ip(req),
        })
    }

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
    type Future = LocalBoxFuture<'static, ApiResult<Self>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let req = req.clone();
        async move { Self::of(&req).await }.boxed_local()
    }
}

pub(super) fn state(req: &HttpRequest) -> &AppState {
    req.app_data::<Data<AppState>>()
        .expect("the application is built with its state")
}

/// Whom the request's token stands for.
pub(super) fn principal(req: &HttpRequest) -> ApiResult<Principal> {
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

/// The client's address: the peer of the connection, or whom a trusted proxy asks for. The audits and the
/// limits take it from here and from nowhere else.
pub fn client_ip(req: &HttpRequest) -> Option<IpAddr> {
    let peer = req.peer_addr()?;
    Some(state(req).proxies.client(peer.ip(), req.headers()))
}
