//! What most programs do: an LRU map of deadpools, one for each tenant, with a bound on the number of pools.
//!
//! At the bound it closes the least recently used pool; checked-out connections live on until they are given
//! back.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolBuilder, PoolError, RecyclingMethod, Runtime};
use futures_util::{FutureExt, future::BoxFuture};
use lru::LruCache;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_postgres::{Config, NoTls};

use super::{Failure, NaiveTuning, POINT, Peer, SLEEP, Tuning, Work, item};
use crate::fleet::Tenant;

const TIMEOUT: Duration = Duration::from_secs(15);
/// Another request may close a pool between the moment it is found and the moment it is used.
const ATTEMPTS: usize = 8;

struct Naive {
    configs: Vec<Config>,
    size: usize,
    places: Semaphore,
    pools: Mutex<LruCache<usize, Pool>>,
}

pub(super) fn open(tenants: &[Tenant], tuning: Tuning) -> (Arc<dyn Peer>, Value) {
    let NaiveTuning { pools, size, places } = tuning.naive;
    let naive = Naive {
        configs: tenants
            .iter()
            .map(|tenant| tenant.target.to_config("bench naive", TIMEOUT))
            .collect(),
        size,
        places: Semaphore::new(places),
        pools: Mutex::new(LruCache::new(
            NonZeroUsize::new(pools).unwrap_or(NonZeroUsize::MIN),
        )),
    };
    let shown = json!({
        "pools_max": pools,
        "pool_size": size,
        "at_once_max": places,
        "recycling": "fast",
        "timeouts_s": TIMEOUT.as_secs(),
        "statement": "prepared, cached by deadpool-postgres",
    });
    (Arc::new(naive), shown)
}

/// The fastest deadpool there is: nothing is checked, and no time limit sets a timer.
pub(crate) fn bare(config: Config, size: usize) -> Pool {
    builder(config, size)
        .build()
        .expect("without timeouts it needs no runtime")
}

fn builder(config: Config, size: usize) -> PoolBuilder {
    let fast = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    Pool::builder(Manager::from_config(config, NoTls, fast)).max_size(size)
}

/// A deadpool as its users configure it.
pub(super) fn pool(config: Config, size: usize) -> Pool {
    builder(config, size)
        .wait_timeout(Some(TIMEOUT))
        .create_timeout(Some(TIMEOUT))
        .runtime(Runtime::Tokio1)
        .build()
        .expect("a pool with a runtime can have timeouts")
}

impl Naive {
    fn pool(&self, tenant: usize) -> Pool {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&tenant) {
            return pool.clone();
        }
        let pool = pool(self.configs[tenant].clone(), self.size);
        if let Some((_, evicted)) = pools.push(tenant, pool.clone()) {
            evicted.close();
        }
        pool
    }

    async fn ask(&self, tenant: usize, work: Work) -> Result<(), Failure> {
        let _place = self.places.acquire().await;
        for _ in 0..ATTEMPTS {
            let client = match self.pool(tenant).get().await {
                Ok(client) => client,
                Err(PoolError::Closed) => continue,
                Err(PoolError::Backend(error)) => return Err(error.into()),
                Err(error) => return Err(Failure::new(error.to_string())),
            };
            match work {
                Work::Point => {
                    let statement = client.prepare_cached(POINT).await?;
                    client.query_one(&statement, &[&item()]).await?;
                }
                Work::Sleep => {
                    let statement = client.prepare_cached(SLEEP).await?;
                    client.query_one(&statement, &[]).await?;
                }
            }
            return Ok(());
        }
        Err(Failure::new("closed again and again"))
    }
}

impl Peer for Naive {
    fn request(&self, tenant: usize, work: Work) -> BoxFuture<'_, Result<(), Failure>> {
        self.ask(tenant, work).boxed()
    }

    fn rest(&self) -> BoxFuture<'_, anyhow::Result<()>> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, pool) in &*pools {
            pool.close();
        }
        pools.clear();
        async { Ok(()) }.boxed()
    }
}
