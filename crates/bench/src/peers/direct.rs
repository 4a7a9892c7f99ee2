//! A connect for each request, as many at once as serve it best.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_postgres::{Config, NoTls, types::Type};

use super::{Failure, POINT, Peer, SLEEP, Work, item};
use crate::fleet::{Host, Tenant};

/// With more connects at once, each gets slower and the rate falls.
const PLACES_MAX: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(15);

struct Direct {
    configs: Vec<Config>,
    places: Semaphore,
}

pub(super) fn open(host: &Host, tenants: &[Tenant]) -> (Arc<dyn Peer>, Value) {
    // A backend exits some time after its client: without room for closing ones, the server refuses
    // connections (53300).
    let places = PLACES_MAX.min(host.budget * 3 / 4);
    let direct = Direct {
        configs: tenants
            .iter()
            .map(|tenant| tenant.target.to_config("bench direct", TIMEOUT))
            .collect(),
        places: Semaphore::new(places),
    };
    let shown = json!({
        "at_once_max": places,
        "statement": "unnamed, in one round trip after the log-in",
    });
    (Arc::new(direct), shown)
}

/// Connects, works, and closes. The bare connect rate is measured with it, too.
pub(crate) async fn once(config: &Config, work: Work) -> Result<(), Failure> {
    let (client, connection) = config.connect(NoTls).await?;
    let driver = tokio::spawn(connection);
    match work {
        Work::Point => {
            client.query_typed(POINT, &[(&item(), Type::INT4)]).await?;
        }
        Work::Sleep => {
            client.query_typed(SLEEP, &[]).await?;
        }
    }
    drop(client);
    // Until the driver has sent the termination message and closed the socket.
    let _ = driver.await;
    Ok(())
}

impl Peer for Direct {
    fn request(&self, tenant: usize, work: Work) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let _place = self.places.acquire().await;
            once(&self.configs[tenant], work).await
        }
        .boxed()
    }

    fn rest(&self) -> BoxFuture<'_, anyhow::Result<()>> {
        async { Ok(()) }.boxed()
    }
}
