//! Events out: what happened is sent to the addresses that operators registered, signed as Standard Webhooks
//! (<https://www.standardwebhooks.com>) describe it.
//!
//! The events themselves are written by the registry, in the transaction of what happened. This crate sends
//! them, in the worker of each `tenantd`, and looks after the addresses.
//!
//! What is promised:
//!
//! - At least once: an event of a committed change is sent until the receiver answers 2xx, or until it is
//!   given up after [`OutboxConfig::attempts_max`] attempts or [`OutboxConfig::age_max`]. A process that dies
//!   between the receiver's answer and our note of it sends again, under the same `webhook-id`.
//! - In order, for one laboratory and one address: an event is not sent while an earlier one is pending.
//!   Behind one that was given up the next goes on. Nothing is promised about the order between laboratories.
//! - Every wait, queue and retry is bounded; an address to which nothing gets through is switched off, with
//!   an audit row, a log line and an event to the others.
//!
//! The crate never follows a redirect, never connects to a private address unless it is allowed to, and never
//! reads more of an answer than a line for the log. It knows nothing of what a laboratory does.

mod address;
mod config;
mod deliver;
mod error;
mod http;
mod manage;
mod secret;
mod stats;
mod worker;

use std::sync::Arc;

pub use config::OutboxConfig;
pub use deliver::Sent;
pub use error::OutboxError;
pub use manage::{NewAddress, OVERLAP_MAX};
pub use stats::OutboxStats;

/// Sends events and looks after the addresses. Clones share everything.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<Inner>,
}

struct Inner {
    config: OutboxConfig,
    /// This process among all that send.
    owner: String,
    http: tokio::sync::OnceCell<reqwest::Client>,
    counts: stats::Counts,
}

impl Outbox {
    /// An outbox; nothing is sent yet.
    #[must_use]
    pub fn new(config: OutboxConfig) -> Self {
        Self {
            inner: Arc::new(Inner {
                config,
                owner: format!("{}:{:08x}", std::process::id(), rand::random::<u32>()),
                http: tokio::sync::OnceCell::new(),
                counts: stats::Counts::default(),
            }),
        }
    }

    /// What was sent by this process so far.
    #[must_use]
    pub fn stats(&self) -> OutboxStats {
        self.inner.counts.read()
    }
}
