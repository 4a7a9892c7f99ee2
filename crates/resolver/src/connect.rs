//! How one connection to a tenant's database is made, kept and ended.
//!
//! A connection ends in its own time: when its handle goes, the statement under way is waited for (bounded), then
//! the server is told good-bye. Until the socket is closed it is counted ([`crate::census`]), so a drain knows.

use std::{
    hash::{BuildHasher, RandomState},
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use deadpool_postgres::ClientWrapper;
use model::TenantId;
use pg::ConnectTarget;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};
use tokio_postgres::{NoTls, Socket, tls::NoTlsStream};

use crate::{ResolverConfig, census::Census, census::Counted, stats::Counters};

/// Bounds of connections, the same for all tenants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectLimits {
    pub(crate) connect_timeout: Duration,
    statement_timeout: Duration,
    lifetime_max: Duration,
}

impl From<&ResolverConfig> for ConnectLimits {
    fn from(config: &ResolverConfig) -> Self {
        Self {
            connect_timeout: config.connect_timeout,
            statement_timeout: config.statement_timeout,
            lifetime_max: config.lifetime_max,
        }
    }
}

/// deadpool's manager of one tenant's connections.
pub(crate) struct Connector {
    tenant: TenantId,
    config: tokio_postgres::Config,
    limits: ConnectLimits,
    census: Arc<Census>,
    counters: Arc<Counters>,
    retired: AtomicBool,
}

/// Why a connection was not made.
#[derive(Debug)]
pub(crate) enum ConnectFailure {
    /// The pool is closed; whoever holds it must ask for the tenant again.
    Retired,
    /// The server did not finish the log-in in time.
    TimedOut,
    /// The server could not be reached or refused.
    Refused(tokio_postgres::Error),
}

/// One connection with its statement cache.
pub(crate) struct Connection {
    client: ClientWrapper,
    expires_at: Instant,
    /// Dropped with the handle: tells the task that drives the socket that nobody is left to ask anything.
    _handle: oneshot::Sender<()>,
}

impl Connector {
    pub(crate) fn new(
        tenant: TenantId,
        target: &ConnectTarget,
        limits: ConnectLimits,
        census: Arc<Census>,
        counters: Arc<Counters>,
    ) -> Self {
        let mut config = target.to_config("tenantry", limits.connect_timeout);
        let limit_ms = limits.statement_timeout.as_millis();
        config.options(format!(
            "-c statement_timeout={limit_ms} -c idle_in_transaction_session_timeout={limit_ms}"
        ));
        Self {
            tenant,
            config,
            limits,
            census,
            counters,
            retired: AtomicBool::new(false),
        }
    }

    /// No connection begins after this: one that has begun is in the census already.
    pub(crate) fn retire(&self) {
        self.retired.store(true, SeqCst);
    }

    async fn connect(&self) -> Result<Connection, ConnectFailure> {
        // Counted first, then looked at: a drain retires first, then counts. One of the two sees the other.
        let counted = self.census.count_in(self.tenant);
        if self.retired.load(SeqCst) {
            return Err(ConnectFailure::Retired);
        }
        let (client, connection) = timeout(self.limits.connect_timeout, self.config.connect(NoTls))
            .await
            .map_err(|_elapsed| ConnectFailure::TimedOut)?
            .map_err(ConnectFailure::Refused)?;
        let (handle, handle_gone) = oneshot::channel();
        tokio::spawn(drive(
            connection,
            handle_gone,
            self.limits.connect_timeout,
            counted,
        ));
        Ok(Connection {
            // The wrapper aborts the task it is given, which would cut the good-bye short: it gets an idle one.
            client: ClientWrapper::new(client, tokio::spawn(std::future::ready(()))),
            expires_at: Instant::now() + jittered(self.limits.lifetime_max),
            _handle: handle,
        })
    }
}

impl Manager for Connector {
    type Type = Connection;
    type Error = ConnectFailure;

    async fn create(&self) -> Result<Connection, ConnectFailure> {
        let made = self.connect().await;
        let counter = match &made {
            Ok(_) => Some(&self.counters.connects),
            Err(ConnectFailure::Retired) => None,
            Err(ConnectFailure::TimedOut | ConnectFailure::Refused(_)) => Some(&self.counters.connect_errors),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
        made
    }

    /// No round trip: whether a connection is clean is known when it is given back, not when it is lent.
    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<ConnectFailure> {
        if connection.client.is_closed() {
            return Err(RecycleError::message("the server closed it"));
        }
        if Instant::now() >= connection.expires_at {
            return Err(RecycleError::message("it has reached its age"));
        }
        Ok(())
    }
}

/// A tenth less or more at random, so that connections made together do not end together.
fn jittered(lifetime: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8) % 2_001;
    lifetime.mul_f64(0.9 + 0.0001 * f64::from(u32::try_from(random).unwrap_or(0)))
}

async fn drive(
    mut connection: tokio_postgres::Connection<Socket, NoTlsStream>,
    handle_gone: oneshot::Receiver<()>,
    goodbye_timeout: Duration,
    counted: Counted,
) {
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        _ = handle_gone => timeout(goodbye_timeout, &mut connection).await.ok(),
    };
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(error = pg::describe(&error), "a connection broke"),
        None => tracing::warn!(
            waited_ms = goodbye_timeout.as_millis(),
            "a connection was cut: its statement had not ended"
        ),
    }
    drop(connection);
    drop(counted);
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
