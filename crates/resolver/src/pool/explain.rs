//! Builds the errors of callers that get no connection: which bound was reached, or what is wrong with the
//! server.

use std::sync::atomic::Ordering::Relaxed;

use arbiter::Refusal;
use tokio::time::Instant;

use super::TenantPool;
use crate::{ResolveError, connection::ConnectFailure};

impl TenantPool {
    /// The wait ended without a connection: because of the tenant's own bound, of the server's budget, or of
    /// a failure of the server.
    pub(super) fn timed_out(&self, started: Instant) -> ResolveError {
        self.common.counters.checkout_timeouts.fetch_add(1, Relaxed);
        self.errors_add();
        let (tenant, waited) = (self.snapshot.tenant, started.elapsed());
        let server = self.server.name.clone();
        let size = self.connections.status().size;
        let last_failure = self.server.last_failure();
        if size >= self.common.pool_size_max {
            let max = self.common.pool_size_max;
            ResolveError::PoolTimeout { tenant, max, waited }
        } else if last_failure.is_empty() {
            let budget = self.server.arbiter.stats().budget;
            ResolveError::BudgetBusy {
                tenant,
                server,
                budget,
                waited,
            }
        } else {
            ResolveError::ServerUnavailable {
                tenant,
                server,
                reason: last_failure,
            }
        }
    }

    /// A connect failed in a way that another attempt would not change.
    pub(super) fn explain(&self, failure: ConnectFailure) -> ResolveError {
        let (tenant, server) = (self.snapshot.tenant, self.server.name.clone());
        match failure {
            ConnectFailure::Refused { reason } => ResolveError::LoginRefused {
                tenant,
                server,
                reason,
            },
            ConnectFailure::NoPassword(error) => *error,
            ConnectFailure::TooLarge(source) => ResolveError::BudgetTooLarge {
                tenant,
                server,
                source,
            },
            other => ResolveError::ServerUnavailable {
                tenant,
                server,
                reason: other.to_string(),
            },
        }
    }

    /// The breaker is open.
    pub(super) fn server_down(&self, refusal: Refusal) -> ResolveError {
        ResolveError::ServerDown {
            tenant: self.snapshot.tenant,
            server: self.server.name.clone(),
            reason: self.server.last_failure(),
            retry_after: refusal.retry_after,
        }
    }
}
