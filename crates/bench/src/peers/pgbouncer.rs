//! PgBouncer in transaction mode, tuned as well as it goes for many databases.
//!
//! All clients come as one user: `max_user_connections` counts connections by user, and a `user=` in
//! `[databases]` is counted for each database apart. So its limit is one limit for all databases, and it may
//! close one database's idle connection for another. That gives up the wall between laboratories, in its
//! favour, as does `auth_type = trust`.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::{Pool, PoolError};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage, types::Type};

use super::{Failure, POINT, Peer, SLEEP, Tuning, Work, bouncer::Bouncer, item, naive};
use crate::fleet::{Host, POOL_ROLE, Tenant};

const TIMEOUT: Duration = Duration::from_secs(15);
const CONSOLE: &str = "pgbouncer";
/// For the first client connection of each laboratory, which costs PgBouncer a server connection.
const GREETING_LIMIT: Duration = Duration::from_secs(30);
const GREETING_PARALLEL: usize = 16;

struct PgBouncer {
    /// Connections to PgBouncer, which stay.
    pools: Vec<Pool>,
    console: Config,
    _bouncer: Bouncer,
}

pub(super) async fn open(
    host: &Host,
    tenants: &[Tenant],
    tuning: Tuning,
) -> anyhow::Result<(Arc<dyn Peer>, Value)> {
    let databases = format!("* = host={} port={}", host.admin.host, host.admin.port);
    let settings = [
        ("pool_mode", "transaction".to_owned()),
        ("auth_type", "trust".to_owned()),
        ("default_pool_size", tuning.bouncer_pool.to_string()),
        ("max_user_connections", host.budget.to_string()),
        ("max_db_connections", "0".to_owned()),
        ("max_client_conn", "15000".to_owned()),
        ("server_login_retry", "1".to_owned()),
        ("query_wait_timeout", "0".to_owned()),
        ("autodb_idle_timeout", "0".to_owned()),
        ("admin_users", POOL_ROLE.to_owned()),
        ("log_connections", "0".to_owned()),
        ("log_disconnections", "0".to_owned()),
    ];
    let users = format!("\"{POOL_ROLE}\" \"{}\"\n", host.pool_password.expose_secret());
    let bouncer = Bouncer::start(host, &databases, &settings, &users).await?;
    let mut shown: Map<String, Value> = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    shown.insert("version".to_owned(), json!(bouncer.version));
    shown.insert(
        "statement".to_owned(),
        json!("unnamed in one round trip: this version has no prepared statements in transaction mode"),
    );
    shown.insert(
        "clients".to_owned(),
        json!("connected before the measurement, all as one user"),
    );

    let mut target = host.admin.with_user(POOL_ROLE, SecretString::from(""));
    target.port = bouncer.port;
    let config = |database: &str| {
        target
            .with_database(database)
            .to_config("bench pgbouncer", TIMEOUT)
    };
    let peer = PgBouncer {
        pools: tenants
            .iter()
            .map(|tenant| naive::pool(config(&tenant.name), tuning.clients))
            .collect(),
        console: config(CONSOLE),
        _bouncer: bouncer,
    };
    peer.greet().await;
    Ok((Arc::new(peer), Value::Object(shown)))
}

impl PgBouncer {
    /// Makes the first client connection of each laboratory ahead of time; what fails is tried again by the
    /// requests.
    async fn greet(&self) {
        let greetings = stream::iter(&self.pools)
            .for_each_concurrent(GREETING_PARALLEL, |pool| async move { drop(pool.get().await) });
        let _ = timeout(GREETING_LIMIT, greetings).await;
    }

    async fn ask(&self, tenant: usize, work: Work) -> Result<(), Failure> {
        let client = match self.pools[tenant].get().await {
            Ok(client) => client,
            Err(PoolError::Backend(error)) => return Err(error.into()),
            Err(error) => return Err(Failure::new(error.to_string())),
        };
        match work {
            Work::Point => {
                client.query_typed(POINT, &[(&item(), Type::INT4)]).await?;
            }
            Work::Sleep => {
                client.query_typed(SLEEP, &[]).await?;
            }
        }
        Ok(())
    }
}

impl Peer for PgBouncer {
    fn request(&self, tenant: usize, work: Work) -> BoxFuture<'_, Result<(), Failure>> {
        self.ask(tenant, work).boxed()
    }

    fn rest(&self) -> BoxFuture<'_, anyhow::Result<()>> {
        async {
            let (client, connection) = self.console.connect(NoTls).await?;
            let driver = tokio::spawn(connection);
            let _: Vec<SimpleQueryMessage> = client.simple_query("RECONNECT").await?;
            drop(client);
            let _ = driver.await;
            Ok(())
        }
        .boxed()
    }
}
