//! What every handler may use, built once at the start.

use std::time::Duration;

use identity::{Passwords, Tokens};
use model::VersionWindow;
use outbox::Outbox;
use provisioner::Provisioner;
use registry::{Registry, RegistryClient, RegistryClock};
use resolver::Resolver;
use settings::DefaultTenant;

use crate::{
    attempts::Attempts, bodies::Bodies, export_permits::ExportPermits, invitations, lifecycle::Lifecycle,
    metrics::Metrics, problem::ApiResult, proxies::TrustedProxies,
};

/// The parts of one `tenantd`. Handlers of laboratories see none of it: they get a
/// [`crate::extract::Tenant`].
pub struct AppState {
    /// The master database.
    pub registry: Registry,
    /// The time, which is the registry's.
    pub clock: RegistryClock,
    /// Tenant id in, connection out.
    pub resolver: Resolver,
    /// Durable operations.
    pub provisioner: Provisioner,
    /// Events out.
    pub outbox: Outbox,
    /// How long a removal can be cancelled, unless its request says otherwise.
    pub offboard_grace: Duration,
    /// Password hashing, bounded.
    pub passwords: Passwords,
    /// Issues and checks tokens.
    pub tokens: Tokens,
    /// The laboratory whose staff log in without naming it.
    pub default_tenant: DefaultTenant,
    /// How administrators are invited.
    pub invitations: invitations::Options,
    /// Failed log-ins.
    pub attempts: Attempts,
    /// Whose word is taken for who the client is.
    pub proxies: TrustedProxies,
    /// The right to export a whole laboratory.
    pub export_permits: ExportPermits,
    /// Bounds on requests.
    pub limits: Limits,
    /// The memory that bodies may take together.
    pub bodies: Bodies,
    /// Closing or not, and requests under way.
    pub lifecycle: Lifecycle,
    /// Figures.
    pub metrics: Metrics,
}

/// Bounds on one request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest file.
    pub body_max_bytes: usize,
    /// The longest time until the answer.
    pub request_timeout: Duration,
}

impl AppState {
    /// A connection to the registry.
    ///
    /// # Errors
    /// 503 when it cannot be reached.
    pub async fn registry_client(&self) -> ApiResult<RegistryClient> {
        Ok(self.registry.client().await?)
    }

    /// The tenant schemas that this binary may serve.
    #[must_use]
    pub fn window(&self) -> VersionWindow {
        self.resolver.window()
    }
}
