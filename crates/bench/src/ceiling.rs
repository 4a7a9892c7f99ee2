//! Measures how many connects a second this machine can make at all: a log-in by SCRAM and one query, nothing
//! else. `direct` is checked against this rate, and `morning` is measured by it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use tokio::{task::JoinSet, time::Instant};
use tokio_postgres::Config;

use crate::{
    fleet::Tenant,
    measure::count,
    peers::{Work, once},
};

const LANES: [usize; 3] = [4, 8, 16];
const TIMEOUT: Duration = Duration::from_secs(15);

/// The best rate of several numbers of parallel connectors, each for `length`, over all the databases in
/// turn.
pub(crate) async fn connects_per_second(tenants: &[Tenant], length: Duration) -> f64 {
    let configs: Arc<[Config]> = tenants
        .iter()
        .map(|tenant| tenant.target.to_config("bench ceiling", TIMEOUT))
        .collect();
    // The first connection to a database writes a cache file there; later ones do not.
    stream::iter(&*configs)
        .for_each_concurrent(8, |config| async move {
            drop(once(config, Work::Point).await);
        })
        .await;
    let mut best: f64 = 0.0;
    for lanes in LANES {
        let next = Arc::new(AtomicUsize::new(0));
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..lanes {
            let (configs, next) = (Arc::clone(&configs), Arc::clone(&next));
            tasks.spawn(async move {
                let mut made = 0;
                while begun.elapsed() < length {
                    let number = next.fetch_add(1, Relaxed) % configs.len();
                    made += usize::from(once(&configs[number], Work::Point).await.is_ok());
                }
                made
            });
        }
        let made: usize = tasks.join_all().await.into_iter().sum();
        best = best.max(count(made) / begun.elapsed().as_secs_f64());
    }
    best
}
