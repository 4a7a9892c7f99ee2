//! How one connection to a tenant's database is made, kept and ended.
//!
//! Each takes place on a task of its own, which holds the arbiter's slot from before the first byte until the server has
//! closed its end, and that it does only when the backend has exited. A caller that gives up waiting ends nothing.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use arbiter::{ConnectionGuard, FailureKind, Slot, Timestamp};
use deadpool_postgres::ClientWrapper;
use model::TenantId;
use pg::{ConnectTarget, Lent};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tokio_postgres::{Client, NoTls, error::SqlState};

use crate::{
    ResolverConfig,
    capacity::{Capacity, CapacityError},
    drive::{Driven, RuntimeGuard, SlotHolder},
    jitter::jitter,
    pool::TenantPool,
    wire::{WatchedStream, WireState},
};

/// How soon the server ends the statement of a client that is gone: also of one that was killed.
const CLIENT_CHECK_INTERVAL_MS: u64 = 500;
/// How often the backends of an earlier process are counted until they are gone.
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(250);
/// How long that goes on at most; a backend that is left then is somebody to look at.
const PREDECESSOR_CHECKS_MAX: u32 = 240;

/// A connection as the log-in leaves it.
struct LoggedIn {
    client: Client,
    connection: Driven,
    wire_state: Arc<WireState>,
    /// Connections that an earlier process of this instance still has on the server.
    predecessors: usize,
}

/// Bounds of connections, the same for all tenants.
#[derive(Debug, Clone)]
pub(crate) struct ConnectLimits {
    pub(crate) connect_timeout: Duration,
    pub(crate) statement_timeout: Duration,
    idle_timeout: Duration,
    lifetime_max: Duration,
    tenure: Duration,
    pub(crate) statements_max: usize,
    budget: usize,
    reserve: usize,
    /// Names this process among the server's sessions; the part before the last colon also its predecessors.
    application_name: String,
}

/// Why a connection was not made.
#[derive(Debug, Clone)]
pub(crate) enum ConnectFailure {
    /// The server did not finish the log-in in time.
    TimedOut { limit: Duration },
    /// The server could not be reached, or is starting or shutting down.
    Unavailable { reason: String },
    /// The server has no room for another connection.
    Full { reason: String },
    /// The server is there and refuses this log-in.
    Refused { reason: String },
    /// The budget does not fit the server.
    TooLarge(CapacityError),
    /// The password cannot be opened, or there is none.
    NoPassword(Box<crate::ResolveError>),
}

/// One connection with its statement cache.
pub(crate) struct Connection {
    client: ClientWrapper,
    pub(crate) wire_state: Arc<WireState>,
    pub(crate) guard: ConnectionGuard<TenantId>,
    pub(crate) tenure_ends: Timestamp,
    pub(crate) idle_since: Timestamp,
    /// The session's count of answers when this was last lent.
    answers: u32,
    idle_max: Duration,
    expires_at: Timestamp,
    /// Dropped with the handle: tells the task that drives the socket that nobody is left to ask anything.
    _handle: oneshot::Sender<()>,
}

impl ConnectLimits {
    pub(crate) fn new(config: &ResolverConfig) -> Self {
        Self {
            connect_timeout: config.connect_timeout,
            statement_timeout: config.statement_timeout,
            idle_timeout: config.idle_timeout,
            lifetime_max: config.lifetime_max,
            tenure: config.tenure,
            statements_max: config.statements_max,
            budget: config.budget,
            reserve: config.reserve,
            application_name: config.application_name(),
        }
    }
}

impl Connection {
    /// Whether it may be lent once more.
    pub(crate) fn is_fit(&self, now: Timestamp) -> bool {
        !self.client.is_closed() && now < self.expires_at
    }

    /// Whether it has been idle, or alive, for too long.
    pub(crate) fn is_stale(&self, now: Timestamp) -> bool {
        !self.is_fit(now) || now.since(self.idle_since) >= self.idle_max
    }

    /// Whether the server has answered anything since this was last asked.
    pub(crate) fn has_answered(&mut self) -> bool {
        let answers = self.wire_state.answers();
        std::mem::replace(&mut self.answers, answers) != answers
    }

    /// Forgets the prepared statements if one of them was found to be older than the schema.
    pub(crate) fn forget_outdated_statements(&self) {
        if self.wire_state.take_outdated() {
            self.client.statement_cache.clear();
        }
    }

    /// Keeps the cache of prepared statements within its bound. All go at once: who uses more different texts than that
    /// has no use for a cache.
    pub(crate) fn trim_statements(&self, max: usize) {
        if self.client.statement_cache.size() > max {
            self.client.statement_cache.clear();
        }
    }
}

/// What a connect begins with. Dropped in this order: another connect may begin as soon as the slot is free, and must not begin
/// where this one could not go on.
struct ConnectTask {
    runtime_guard: Option<RuntimeGuard>,
    holder: SlotHolder,
}

/// Connects for a pool and puts the connection into it. The slot is in good hands whatever happens to the pool.
pub(crate) fn begin(pool: Arc<TenantPool>, slot: Slot<TenantId>) {
    let caller_runtime = pool.caller_runtime();
    let task = ConnectTask {
        runtime_guard: caller_runtime
            .as_ref()
            .map(|runtime| RuntimeGuard::new(&pool, runtime)),
        holder: SlotHolder::new(pool.runtime(), slot, pool.count_connection()),
    };
    let runtime = caller_runtime.unwrap_or_else(|| pool.runtime().clone());
    runtime.spawn(connect(pool, task));
}

async fn connect(pool: Arc<TenantPool>, mut task: ConnectTask) {
    if pool.is_closed() {
        task.holder.slot().failed(FailureKind::NotTried);
        return;
    }
    let server = Arc::clone(pool.server());
    let made = log_in(&pool, &mut task.holder).await;
    let ConnectTask {
        runtime_guard,
        mut holder,
    } = task;
    if let Some(runtime_guard) = runtime_guard {
        runtime_guard.done();
    }
    let LoggedIn {
        client,
        connection,
        wire_state,
        predecessors,
    } = match made {
        Ok(made) => made,
        Err(failure) => {
            server.connect_errors.fetch_add(1, Relaxed);
            let kind = failure.kind();
            if kind == FailureKind::Full {
                server.connects_refused.fetch_add(1, Relaxed);
            }
            if failure.is_final() {
                pool.report_failure(failure);
            } else {
                server.note_failure(&failure.to_string());
                // It is tried again as long as somebody waits, or until the breaker opens.
                pool.errors_add();
            }
            holder.slot().failed(kind);
            // A backend may have begun. The slot is free when it is gone.
            return holder.end().await;
        }
    };
    server.connects.fetch_add(1, Relaxed);
    server.clear_failure();
    let (handle, handle_gone) = oneshot::channel();
    let (limits, clock) = (pool.limits(), pool.clock());
    let now = clock.now();
    let ready = Box::new(Connection {
        // The wrapper aborts the task it is given, which would cut the good-bye short: it gets an idle one.
        client: ClientWrapper::new(client, tokio::spawn(std::future::ready(()))),
        answers: wire_state.answers(),
        wire_state,
        guard: holder.slot().guard(),
        tenure_ends: now + limits.tenure,
        idle_since: now,
        idle_max: jittered(limits.idle_timeout),
        expires_at: now + jittered(limits.lifetime_max),
        _handle: handle,
    });
    holder.slot().connected();
    holder.connected(connection);
    tokio::spawn(holder.drive(handle_gone, limits.connect_timeout));
    if predecessors > 0 {
        wait_for_predecessors(&pool, &ready).await;
    }
    pool.add(ready);
}

/// The limit is over the whole: address, socket and log-in. The socket comes back to `holder` whatever becomes of the rest.
async fn log_in(pool: &TenantPool, holder: &mut SlotHolder) -> Result<LoggedIn, ConnectFailure> {
    let limits = pool.limits();
    let limit = limits.connect_timeout;
    let target = match pool.target() {
        Ok(target) => target,
        Err(error) => return Err(ConnectFailure::NoPassword(Box::new(error))),
    };
    timeout(limit, async {
        let socket = pg::dial(&target)
            .await
            .map_err(|error| ConnectFailure::Unavailable {
                reason: error.to_string(),
            })?;
        let (lent, returned) = Lent::new(socket);
        holder.dialled(returned);
        let (stream, wire_state) = WatchedStream::new(lent);
        let config = configure(&target, limits);
        let (client, mut connection) = config
            .connect_raw(stream, NoTls)
            .await
            .map_err(|error| refusal(&error))?;
        let predecessors = if pool.server().is_capacity_checked() {
            0
        } else {
            // Nobody drives the connection yet.
            tokio::select! {
                surveyed = check_capacity(pool, &client) => surveyed?,
                _ = &mut connection => {
                    let reason = "it closed the connection".to_owned();
                    return Err(ConnectFailure::Unavailable { reason });
                }
            }
        };
        Ok(LoggedIn {
            client,
            connection,
            wire_state,
            predecessors,
        })
    })
    .await
    .unwrap_or(Err(ConnectFailure::TimedOut { limit }))
}

fn configure(target: &ConnectTarget, limits: &ConnectLimits) -> tokio_postgres::Config {
    let mut config = target.to_config(&limits.application_name, limits.connect_timeout);
    let limit_ms = limits.statement_timeout.as_millis();
    config.options(format!(
        "-c statement_timeout={limit_ms} -c idle_in_transaction_session_timeout={limit_ms} \
         -c client_connection_check_interval={CLIENT_CHECK_INTERVAL_MS}"
    ));
    config
}

fn refusal(error: &tokio_postgres::Error) -> ConnectFailure {
    let reason = pg::describe(error);
    match error.code() {
        Some(code) if refuses_log_in(code) || is_own_limit(error) => ConnectFailure::Refused { reason },
        Some(&SqlState::TOO_MANY_CONNECTIONS) => ConnectFailure::Full { reason },
        _ => ConnectFailure::Unavailable { reason },
    }
}

/// The limit of this role or this database is reached, as by somebody else who has the role's password, or by a fence. PostgreSQL
/// has one code for that and for a server without room, and only the latter concerns other laboratories. The names of its
/// routines tell them apart; unlike its messages they are in no other language.
fn is_own_limit(error: &tokio_postgres::Error) -> bool {
    let refusal = error.as_db_error();
    let routine = refusal.and_then(|db| db.routine()).unwrap_or_default();
    error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS)
        && ["InitializeSessionUserId", "CheckMyDatabase"].contains(&routine)
}

/// The server is there and this log-in, database or privilege is not.
fn refuses_log_in(code: &SqlState) -> bool {
    [
        &SqlState::INVALID_PASSWORD,
        &SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        &SqlState::INVALID_CATALOG_NAME,
        &SqlState::INSUFFICIENT_PRIVILEGE,
        &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
    ]
    .contains(&code)
}

impl ConnectFailure {
    /// Whether another try would end no better: those who wait hear it at once.
    fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. } | Self::NoPassword(_) | Self::TooLarge(_)
        )
    }

    fn kind(&self) -> FailureKind {
        match self {
            Self::TimedOut { .. } => FailureKind::Silent,
            Self::Unavailable { .. } => FailureKind::Unreachable,
            Self::Full { .. } => FailureKind::Full,
            Self::Refused { .. } | Self::TooLarge(_) => FailureKind::Refused,
            Self::NoPassword(_) => FailureKind::NotTried,
        }
    }
}

impl std::fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut { limit } => write!(f, "no answer within {} ms", limit.as_millis()),
            Self::Unavailable { reason } | Self::Full { reason } | Self::Refused { reason } => {
                f.write_str(reason)
            }
            Self::TooLarge(error) => error.fmt(f),
            Self::NoPassword(error) => error.fmt(f),
        }
    }
}

/// Before the first connection to a server is lent: does the budget fit, and does an earlier process of ours still hold
/// connections? Says how many those are.
async fn check_capacity(pool: &TenantPool, client: &Client) -> Result<usize, ConnectFailure> {
    let limits = pool.limits();
    let capacity = Capacity::read(client).await.map_err(|error| refusal(&error))?;
    capacity
        .admit(limits.budget, limits.reserve)
        .map_err(ConnectFailure::TooLarge)?;
    let others = predecessors(client, &limits.application_name).await;
    pool.server().note_capacity(capacity, pool.budgets());
    others.map_err(|error| refusal(&error))
}

async fn predecessors(client: &Client, application_name: &str) -> Result<usize, tokio_postgres::Error> {
    let instance = application_name
        .rsplit_once(':')
        .map_or("", |(instance, _)| instance);
    let row = client
        .query_one(
            "SELECT count(*) FROM pg_stat_activity
              WHERE starts_with(application_name, $1 || ':') AND application_name <> $2",
            &[&instance, &application_name],
        )
        .await?;
    Ok(usize::try_from(row.get::<_, i64>(0)).unwrap_or(0))
}

/// Counts the backends of an earlier process as taken until they are gone. The connection that counts them is not lent
/// meanwhile.
async fn wait_for_predecessors(pool: &TenantPool, connection: &Connection) {
    let server = pool.server();
    for _ in 0..PREDECESSOR_CHECKS_MAX {
        let Ok(others) = predecessors(connection, &pool.limits().application_name).await else {
            break;
        };
        server.arbiter.set_predecessors(others);
        if others == 0 {
            server.clear_failure();
            return;
        }
        server.note_failure(&format!(
            "an earlier process of this instance still has {others} connections to it"
        ));
        tracing::info!(server = %server.name, connections = others, "an earlier process still has connections");
        sleep(PREDECESSOR_PAUSE).await;
    }
    tracing::warn!(server = %server.name, "the connections of an earlier process are no longer counted");
    server.arbiter.set_predecessors(0);
}

/// A tenth less or more at random, so that connections made together do not end together.
fn jittered(limit: Duration) -> Duration {
    (limit / 10_000).saturating_mul(9_000 + 2 * jitter())
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

impl AsRef<ConnectionGuard<TenantId>> for Connection {
    fn as_ref(&self) -> &ConnectionGuard<TenantId> {
        &self.guard
    }
}
