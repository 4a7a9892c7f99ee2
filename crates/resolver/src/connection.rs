//! One connection to a tenant's database: its bounds, what the resolver keeps with it, and why it could not
//! be made.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use arbiter::{ConnectionGuard, FailureKind, Timestamp};
use deadpool_postgres::ClientWrapper;
use model::TenantId;
use tokio::sync::oneshot;
use tokio_postgres::Client;

use crate::{ResolverConfig, capacity::CapacityError, jitter::jitter, wire::WireState};

/// The bounds of connections, the same for all tenants.
#[derive(Debug, Clone)]
pub(crate) struct ConnectLimits {
    pub(crate) connect_timeout: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) lifetime_max: Duration,
    pub(crate) tenure: Duration,
    pub(crate) statements_max: usize,
    pub(crate) budget: usize,
    pub(crate) reserve: usize,
    /// Identifies this process among the server's sessions; the part before the last colon also identifies
    /// its predecessors.
    pub(crate) application_name: String,
}

/// Why a connect failed.
#[derive(Debug, Clone)]
pub(crate) enum ConnectFailure {
    /// The server did not finish the log-in in time.
    TimedOut { limit: Duration },
    /// The server could not be reached, or is starting or shutting down.
    Unavailable { reason: String },
    /// The server has no room for another connection.
    Full { reason: String },
    /// The server answers and refuses this log-in.
    Refused { reason: String },
    /// The budget does not fit the server.
    TooLarge(CapacityError),
    /// The password cannot be decrypted, or there is none.
    NoPassword(Box<crate::ResolveError>),
}

/// One connection with its statement cache.
pub(crate) struct Connection {
    client: ClientWrapper,
    pub(crate) wire_state: Arc<WireState>,
    pub(crate) guard: ConnectionGuard<TenantId>,
    pub(crate) tenure_ends: Timestamp,
    pub(crate) idle_since: Timestamp,
    /// The session's count of answers when the connection was last given back.
    answers: u32,
    idle_max: Duration,
    expires_at: Timestamp,
    /// Dropped with the connection: tells the task that drives the socket that no statement will follow.
    _handle: oneshot::Sender<()>,
}

impl ConnectLimits {
    pub(crate) fn new(config: &ResolverConfig) -> Self {
        Self {
            connect_timeout: config.connect_timeout,
            statement_timeout: config.statement_timeout,
            idle_timeout: config.idle_timeout,
            lifetime_max: config.lifetime_max,
            tenure: config.tenure,
            statements_max: config.statements_max,
            budget: config.budget,
            reserve: config.reserve,
            application_name: config.application_name(),
        }
    }
}

impl Connection {
    /// The task that drives the socket waits for the drop of `handle`.
    pub(crate) fn new(
        client: Client,
        wire_state: Arc<WireState>,
        guard: ConnectionGuard<TenantId>,
        now: Timestamp,
        limits: &ConnectLimits,
        handle: oneshot::Sender<()>,
    ) -> Self {
        Self {
            // The wrapper aborts the task that it is given. That would cut the connection's end short, so it
            // gets an idle task.
            client: ClientWrapper::new(client, tokio::spawn(std::future::ready(()))),
            answers: wire_state.answers(),
            wire_state,
            guard,
            tenure_ends: now + limits.tenure,
            idle_since: now,
            idle_max: jittered(limits.idle_timeout),
            expires_at: now + jittered(limits.lifetime_max),
            _handle: handle,
        }
    }

    /// Whether callers may still use it.
    pub(crate) fn is_fit(&self, now: Timestamp) -> bool {
        !self.client.is_closed() && now < self.expires_at
    }

    /// Whether it is idle, or alive, for too long.
    pub(crate) fn is_stale(&self, now: Timestamp) -> bool {
        !self.is_fit(now) || now.since(self.idle_since) >= self.idle_max
    }

    /// Whether the server has answered anything since the last call.
    pub(crate) fn has_answered(&mut self) -> bool {
        let answers = self.wire_state.answers();
        std::mem::replace(&mut self.answers, answers) != answers
    }

    /// Drops the prepared statements if one of them turned out to be older than the schema.
    pub(crate) fn forget_outdated_statements(&self) {
        if self.wire_state.take_outdated() {
            self.client.statement_cache.clear();
        }
    }

    /// Keeps the cache of prepared statements within its bound by dropping all of them: a caller that uses
    /// more different texts than that has no use for a cache.
    pub(crate) fn trim_statements(&self, max: usize) {
        if self.client.statement_cache.size() > max {
            self.client.statement_cache.clear();
        }
    }
}

impl ConnectFailure {
    /// Whether another attempt would fail in the same way. Then the callers that wait get the error at once.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. } | Self::NoPassword(_) | Self::TooLarge(_)
        )
    }

    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Self::TimedOut { .. } => FailureKind::Silent,
            Self::Unavailable { .. } => FailureKind::Unreachable,
            Self::Full { .. } => FailureKind::Full,
            Self::Refused { .. } | Self::TooLarge(_) => FailureKind::Refused,
            Self::NoPassword(_) => FailureKind::NotTried,
        }
    }
}

impl std::fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut { limit } => write!(f, "no answer within {} ms", limit.as_millis()),
            Self::Unavailable { reason } | Self::Full { reason } | Self::Refused { reason } => {
                f.write_str(reason)
            }
            Self::TooLarge(error) => error.fmt(f),
            Self::NoPassword(error) => error.fmt(f),
        }
    }
}

/// A tenth less or more at random, so that connections that were made together do not end together.
fn jittered(limit: Duration) -> Duration {
    (limit / 10_000).saturating_mul(9_000 + 2 * jitter())
}

impl Deref for Connection {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        &self.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut ClientWrapper {
        &mut self.client
    }
}

impl AsRef<ConnectionGuard<TenantId>> for Connection {
    fn as_ref(&self) -> &ConnectionGuard<TenantId> {
        &self.guard
    }
}
