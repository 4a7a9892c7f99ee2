//! The resolver.

use std::{sync::Arc, time::Duration};

use anyhow::{anyhow, ensure};
use futures_util::{FutureExt, future::BoxFuture};
use model::{SchemaVersion, TenantId, VersionWindow};
use resolver::{ResolveError, Resolver, ResolverConfig};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Failure, POINT, Peer, SLEEP, Work, item};
use crate::{
    fleet::{Fleet, Host, Tenant},
    tenants::VERSION,
};

/// Long enough that contention shows as a long wait and not as an error.
const PATIENCE: Duration = Duration::from_secs(15);
const CLOSE_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Ours {
    pub(crate) resolver: Resolver,
    tenants: Vec<TenantId>,
}

/// Only this program's one superuser uses the server as well.
const RESERVE: usize = 1;

/// The resolver's defaults, except for the budget, the reserve and the timeouts.
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

    /// A resolver shortly after the program's start: once it listens for changes, it reads everything anew
    /// that it had read before.
    pub(crate) async fn start(config: ResolverConfig) -> anyhow::Result<Resolver> {
        let resolver = Resolver::start(config);
        let begun = Instant::now();
        loop {
            let stats = resolver.stats();
            if stats.listening && stats.invalidations_all_total > 0 {
                return Ok(resolver);
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "the resolver does not hear of changes after {PATIENCE:?}"
            );
            sleep(Duration::from_millis(5)).await;
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

pub(super) async fn open(
    fleet: &Fleet,
    host: &Host,
    tenants: &[Tenant],
) -> anyhow::Result<(Arc<dyn Peer>, Value)> {
    let mut config = config(fleet, host.budget);
    // An empty pool costs about a kilobyte: there is no reason to have fewer of them than tenants that are
    // active.
    config.pools_max = config.pools_max.max(tenants.len());
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
    let ours = Ours::new(Ours::start(config).await?, tenants);
    Ok((Arc::new(ours), shown))
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
