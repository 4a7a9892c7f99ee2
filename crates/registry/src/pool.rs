//! The way in: a small pool of connections to the master database, every wait of it bounded.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use deadpool_postgres::{
    Manager, ManagerConfig, Pool, PoolConfig, PoolError, QueueMode, RecyclingMethod, Runtime, TimeoutType,
    Timeouts, Transaction,
};
use pg::ConnectTarget;
use tokio_postgres::{NoTls, error::SqlState};

use crate::{RegistryError, sql};

/// A connection to the master database, on loan from the pool.
pub type RegistryClient = deadpool_postgres::Client;

/// A transaction on the master database.
pub type RegistryTransaction<'a> = Transaction<'a>;

/// Bounds of the registry's pool.
#[derive(Debug, Clone, Copy)]
pub struct RegistryOptions {
    /// The most connections to the master database.
    pub pool_max: usize,
    /// How long making one may take, log-in included.
    pub connect_timeout: Duration,
    /// How long a caller waits for one to be free.
    pub checkout_timeout: Duration,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            pool_max: 8,
            connect_timeout: Duration::from_secs(5),
            checkout_timeout: Duration::from_secs(5),
        }
    }
}

/// Limits that the server itself keeps on each of our sessions: statements here are short, and a session that
/// was forgotten inside a transaction must not hold a tenant's row for ever. And where it finds the
/// registry's tables, whatever path the role or the database has set.
const SESSION_LIMITS: &str = "-c search_path=public -c statement_timeout=15s -c lock_timeout=10s -c \
                              idle_in_transaction_session_timeout=60s";
/// How long the kernel resends to a peer that does not answer before it gives the connection up.
const TCP_UNANSWERED_MAX: Duration = Duration::from_secs(20);

/// How often a transaction is begun whose statements turn out to be outdated: the schema may change once more
/// meanwhile.
const ATTEMPTS_MAX: u32 = 3;

/// The master database. Clones share one pool.
#[derive(Clone)]
pub struct Registry {
    target: Arc<ConnectTarget>,
    options: RegistryOptions,
    pool: Pool,
    /// How many changes of the schema its connections' prepared statements are after.
    changes_seen: Arc<AtomicU64>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("target", &self.target)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// A registry behind `target`; nothing is connected yet.
    ///
    /// # Panics
    /// Never: the pool is refused only without a runtime for its timeouts, and it has one.
    #[must_use]
    pub fn new(target: &ConnectTarget, options: RegistryOptions) -> Self {
        let mut config = target.to_config("tenantry registry", options.connect_timeout);
        config
            .options(SESSION_LIMITS)
            .keepalives_idle(Duration::from_secs(30))
            .tcp_user_timeout(TCP_UNANSWERED_MAX);
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let pool = Pool::builder(Manager::from_config(config, NoTls, recycling))
            .config(PoolConfig {
                max_size: options.pool_max.max(1),
                timeouts: Timeouts {
                    wait: Some(options.checkout_timeout),
                    create: Some(options.connect_timeout),
                    recycle: Some(options.connect_timeout),
                },
                // Last in, first out: the connection used last has the warmest backend, and the rest may
                // idle.
                queue_mode: QueueMode::Lifo,
            })
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a pool with timeouts and a runtime can be built");
        Self {
            target: Arc::new(target.clone()),
            options,
            pool,
            changes_seen: Arc::new(AtomicU64::new(sql::changes_seen())),
        }
    }

    /// A connection from the pool.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] when none is free in time or the server cannot be reached.
    pub async fn client(&self) -> Result<RegistryClient, RegistryError> {
        let client = self.pool.get().await;
        let client = client.map_err(|error| RegistryError::Unavailable {
            reason: self.explain(&error),
        })?;
        let changes = sql::changes_seen();
        if self.changes_seen.swap(changes, Relaxed) != changes {
            self.pool.manager().statement_caches.clear();
        }
        Ok(client)
    }

    /// Runs `work` on a connection, for `limit` at most. Cut off in the middle, by the limit or because the
    /// caller went away, the connection is closed: back in the pool it would make its next borrower wait for
    /// an answer that nobody wants.
    ///
    /// # Errors
    /// What `work` fails with; [`RegistryError::Unavailable`] when the registry cannot be reached in time.
    pub async fn within<T>(
        &self,
        limit: Duration,
        work: impl AsyncFnOnce(&RegistryClient) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let running = async {
            let mut lent = Lent(Some(self.client().await?));
            let done = work(lent.client()).await;
            lent.give_back();
            done
        };
        let cut_off = |_elapsed| RegistryError::Unavailable {
            reason: format!("no answer from {} within {} ms", self.target, limit.as_millis()),
        };
        tokio::time::timeout(limit, running).await.map_err(cut_off)?
    }

    /// Runs `work` in a transaction and commits it, or rolls it back when `work` fails. It is run again from
    /// its beginning when it failed because a statement had been prepared before a change of the schema;
    /// nothing was kept of it then.
    ///
    /// # Errors
    /// What `work` fails with; [`RegistryError::Unavailable`] when the registry cannot be reached.
    pub async fn in_txn<T>(
        &self,
        work: impl AsyncFn(&Transaction<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let failed = |error| RegistryError::from_driver("changing the registry", error);
        let mut attempt = 1;
        loop {
            let mut client = self.client().await?;
            let txn = client.transaction().await.map_err(failed)?;
            match work(&txn).await {
                Ok(done) => {
                    txn.commit().await.map_err(failed)?;
                    return Ok(done);
                }
                Err(error) if attempt < ATTEMPTS_MAX && error.is_outdated() => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`Registry::in_txn`], but never run again: for work whose caller comes back to it by itself, and
    /// whose future has to be `Send`, which the compiler cannot see of a closure that may be run several
    /// times.
    ///
    /// # Errors
    /// As [`Registry::in_txn`].
    pub async fn in_txn_once<T>(
        &self,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let failed = |error| RegistryError::from_driver("changing the registry", error);
        let mut client = self.client().await?;
        let txn = client.transaction().await.map_err(failed)?;
        let done = work(&txn).await?;
        txn.commit().await.map_err(failed)?;
        Ok(done)
    }

    /// Whether the master database takes no writes at the moment: it is a standby, or its server is kept from
    /// writing.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] when the registry cannot be asked.
    pub async fn is_read_only(&self) -> Result<bool, RegistryError> {
        let client = self.client().await?;
        let sql = "SELECT current_setting('transaction_read_only')::boolean";
        let row = sql::row_one(&client, "asking whether the registry takes writes", sql, &[]).await?;
        Ok(row.get(0))
    }

    /// Where the master database is.
    #[must_use]
    pub fn target(&self) -> &ConnectTarget {
        &self.target
    }

    /// The bounds in force.
    #[must_use]
    pub fn options(&self) -> RegistryOptions {
        self.options
    }

    fn explain(&self, error: &PoolError) -> String {
        let (target, options) = (&self.target, self.options);
        match error {
            PoolError::Timeout(TimeoutType::Wait) => format!(
                "all {} connections to {target} were in use for {} ms",
                options.pool_max,
                options.checkout_timeout.as_millis()
            ),
            PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => format!(
                "no answer from {target} within {} ms; is the server up and reachable?",
                options.connect_timeout.as_millis()
            ),
            PoolError::Backend(source) if source.code() == Some(&SqlState::INVALID_CATALOG_NAME) => {
                format!("the server of {target} has no such database; `tenantctl up` creates it")
            }
            PoolError::Backend(source) => format!("cannot connect to {target}: {}", pg::describe(source)),
            other => format!("cannot connect to {target}: {other}"),
        }
    }
}

/// A connection with a statement under way; dropped with it, it does not go back.
struct Lent(Option<RegistryClient>);

impl Lent {
    fn client(&self) -> &RegistryClient {
        self.0.as_ref().expect("it is there until it is given back")
    }

    fn give_back(&mut self) {
        self.0 = None;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(RegistryClient::take(client));
        }
    }
}
