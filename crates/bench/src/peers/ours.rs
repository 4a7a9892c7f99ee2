//! The resolver.

use std::{sync::Arc, time::Duration};

use anyhow::anyhow;
use futures_util::{FutureExt, future::BoxFuture};
use model::{SchemaVersion, TenantId, VersionWindow};
use resolver::{ResolveError, Resolver, ResolverConfig};
use serde_json::{Value, json};

use super::{Failure, POINT, Peer, SLEEP, Work, item};
use crate::{
    fleet::{Fleet, Host, Tenant},
    tenants::VERSION,
};

/// Long enough that a full house shows as a long wait and not as an error.
const PATIENCE: Duration = Duration::from_secs(15);
const CLOSE_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Ours {
    pub(crate) resolver: Resolver,
    tenants: Vec<TenantId>,
}

/// Nobody else uses the server but this program's one superuser.
const RESERVE: usize = 1;

/// The resolver's defaults but for the budget and the patience.
pub(crate) fn config(fleet: &Fleet, budget: usize) -> ResolverConfig {
    let version = SchemaVersion::new(VERSION);
    let window = VersionWindow {
        oldest: version,
        newest: version,
    };
    ResolverConfig {
        budget,
        reserve: RESERVE,
        checkout_timeout: PATIENCE,
        ..ResolverConfig::new(fleet.registry.clone(), fleet.sealer.clone(), window)
    }
}

impl Ours {
    pub(crate) fn new(resolver: Resolver, tenants: &[Tenant]) -> Self {
        Self {
            resolver,
            tenants: tenants.iter().map(|tenant| tenant.id).collect(),
        }
    }

    async fn ask(&self, tenant: usize, work: Work) -> Result<(), Failure> {
        let mut client = self.resolver.checkout(self.tenants[tenant]).await?;
        match work {
            Work::Point => client.query_one(POINT, &[&item()]).await?,
            Work::Sleep => client.query_one(SLEEP, &[]).await?,
        };
        Ok(())
    }
}

pub(super) fn open(fleet: &Fleet, host: &Host, tenants: &[Tenant]) -> (Arc<dyn Peer>, Value) {
    let config = config(fleet, host.budget);
    let shown = json!({
        "budget": host.budget,
        "reserve": config.reserve,
        "pools_max": config.pools_max,
        "pool_size_max": config.pool_size_max,
        "tenure_ms": config.tenure.as_millis(),
        "connects_max": config.connects_max,
        "checkout_timeout_s": config.checkout_timeout.as_secs(),
        "statement": "prepared, cached with a bound",
    });
    let ours = Ours::new(Resolver::start(config), tenants);
    (Arc::new(ours), shown)
}

impl Peer for Ours {
    fn request(&self, tenant: usize, work: Work) -> BoxFuture<'_, Result<(), Failure>> {
        self.ask(tenant, work).boxed()
    }

    fn connects(&self) -> Option<u64> {
        Some(self.resolver.stats().connects_total)
    }

    fn rest(&self) -> BoxFuture<'_, anyhow::Result<()>> {
        async {
            let left = self.resolver.close(CLOSE_LIMIT).await;
            left.map_err(|left| anyhow!("the resolver kept {left} connections after {CLOSE_LIMIT:?}"))
        }
        .boxed()
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        let text = format!("{error:?}");
        let variant = text
            .split(|c: char| !c.is_ascii_alphanumeric())
            .next()
            .unwrap_or_default();
        if error.to_string().contains("53300") {
            return Self::new(format!("{variant} 53300"));
        }
        Self::new(variant)
    }
}
