//! The client: it looks a name up once, connects to an address that was judged, and to no other; follows no
//! redirect, uses no proxy, and has one limit over the whole of a request.

use std::{error::Error, net::SocketAddr, sync::Arc};

use reqwest::{
    Client,
    dns::{Name, Resolve, Resolving},
    redirect::Policy,
};

use crate::{OutboxConfig, OutboxError, address::is_public};

/// Looks names up, and leaves out what must not be connected to. The client connects to what this gives and
/// looks nothing up again, so a name that changes its address in between gains nothing.
struct Judging {
    private: bool,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "{name} leads to {found}, which is no address of the internet (see the setting \
     webhooks.private_addresses)"
)]
struct NoPublicAddress {
    name: String,
    found: String,
}

impl Resolve for Judging {
    fn resolve(&self, name: Name) -> Resolving {
        let private = self.private;
        Box::pin(async move {
            let all: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let judged: Vec<SocketAddr> = all
                .iter()
                .copied()
                .filter(|address| private || is_public(address.ip()))
                .collect();
            if judged.is_empty() {
                let found: Vec<String> = all.iter().map(|address| address.ip().to_string()).collect();
                return Err(NoPublicAddress {
                    name: name.as_str().to_owned(),
                    found: found.join(", "),
                }
                .into());
            }
            Ok(Box::new(judged.into_iter()) as Box<_>)
        })
    }
}

pub(crate) fn client(config: &OutboxConfig) -> Result<Client, OutboxError> {
    Client::builder()
        .dns_resolver(Arc::new(Judging {
            private: config.private_addresses,
        }))
        .redirect(Policy::none())
        .no_proxy()
        .referer(false)
        .timeout(config.request_timeout)
        .user_agent(concat!("tenantry/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| OutboxError::Tls {
            why: describe(&error),
        })
}

/// An error with its causes. The URL is left out: it may hold a token of the receiver's.
pub(crate) fn describe(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() {
        return "no answer in time".to_owned();
    } else if error.is_connect() {
        "no connection".to_owned()
    } else {
        "the request failed".to_owned()
    };
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if inner_text != "client error (Connect)" && !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
