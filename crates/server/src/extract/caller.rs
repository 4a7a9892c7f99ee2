//! Who asks: the bearer token, checked. Nothing but the token decides who somebody is and whose data is meant.

use std::{
    future::{Ready, ready},
    net::IpAddr,
};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload, http::header, web::Data};
use identity::Principal;
use model::OperatorId;
use provisioner::RequestedBy;

use super::IdempotencyKey;
use crate::{
    problem::{Answer, Kind, Problem},
    state::AppState,
    trace::Trace,
};

/// Anybody with a valid token.
#[derive(Debug, Clone)]
pub struct Caller(pub Principal);

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Answer<Self>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(principal(req).map(Self))
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
    type Future = Ready<Answer<Self>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(match principal(req) {
            Err(problem) => Err(problem),
            Ok(Principal::Staff { .. }) => Err(Problem::new(Kind::WrongAudience)),
            Ok(Principal::Operator { operator }) => Ok(Self {
                operator,
                request_id: request_id(req),
                client_ip: client_ip(req),
            }),
        })
    }
}

/// Whom the request's token stands for.
pub(super) fn principal(req: &HttpRequest) -> Answer<Principal> {
    let state = req
        .app_data::<Data<AppState>>()
        .expect("the application is built with its state");
    let value = req
        .headers()
        .get(header::AUTHORIZATION)
        .ok_or_else(|| Problem::new(Kind::TokenMissing))?;
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let token = token.ok_or_else(|| Problem::new(Kind::TokenInvalid))?;
    Ok(state.tokens.verify(token)?)
}

/// The trace id of the request, as logs and audits keep it.
pub(crate) fn request_id(req: &HttpRequest) -> Option<String> {
    req.extensions().get::<Trace>().map(Trace::id)
}

/// The address of whoever opened the connection. Forwarding headers are not believed: anybody can send them.
pub fn client_ip(req: &HttpRequest) -> Option<IpAddr> {
    req.peer_addr().map(|peer| peer.ip())
}
