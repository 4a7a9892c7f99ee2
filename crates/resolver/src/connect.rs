//! Makes connections to tenants' databases.
//!
//! Each connect runs on a task of its own. The task holds the arbiter's slot from before the first byte until
//! the server has closed its end, which it does only when the backend has exited. A caller that gives up
//! waiting ends no connect.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use arbiter::{FailureKind, Slot};
use model::TenantId;
use pg::{BorrowedSocket, ConnectTarget};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{sleep, timeout},
};
use tokio_postgres::{Client, NoTls, error::SqlState};

use crate::{
    capacity::Capacity,
    connection::{ConnectFailure, ConnectLimits, Connection},
    drive::{Driven, SlotHolder},
    pool::TenantPool,
    wire::{WatchedStream, WireState},
};

/// How soon the server ends the statement of a client that is gone, also of a killed one.
const CLIENT_CHECK_INTERVAL_MS: u64 = 500;
/// The pause between two counts of an earlier process's backends.
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(250);
/// The most counts. An operator should look at a backend that is left then.
const PREDECESSOR_CHECKS_MAX: u32 = 240;

/// The parts of a connection after the log-in.
struct LoggedIn {
    client: Client,
    connection: Driven,
    wire_state: Arc<WireState>,
    /// Connections that an earlier process of this instance still has on the server.
    predecessors: usize,
}

/// A callers' runtime on which a connect runs. The runtime may end at any time, and the connect with it; then
/// the pool must know before another connect begins.
pub(crate) struct RuntimeGuard {
    pool: Arc<TenantPool>,
    runtime: Option<Handle>,
}

impl RuntimeGuard {
    pub(crate) fn new(pool: &Arc<TenantPool>, runtime: &Handle) -> Self {
        Self {
            pool: Arc::clone(pool),
            runtime: Some(runtime.clone()),
        }
    }

    /// The connect is done.
    pub(crate) fn done(mut self) {
        self.runtime = None;
    }
}

impl Drop for RuntimeGuard {
    fn drop(&mut self) {
        if let Some(runtime) = &self.runtime {
            self.pool.caller_runtime_ended(runtime);
        }
    }
}

/// What a connect holds. The fields are dropped in this order: another connect may begin as soon as the slot
/// is free, and it must not begin on a runtime that has ended.
struct ConnectTask {
    runtime_guard: Option<RuntimeGuard>,
    holder: SlotHolder,
}

/// Connects for a pool and adds the connection to it. The slot comes back whatever happens to the pool.
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
                // The arbiter tries again as long as callers wait, or until the breaker opens.
                pool.errors_add();
            }
            holder.slot().failed(kind);
            // A backend may have begun. The slot comes back when the backend is gone.
            return holder.end().await;
        }
    };
    server.connects.fetch_add(1, Relaxed);
    server.clear_failure();
    let (handle, handle_gone) = oneshot::channel();
    let (limits, clock) = (pool.limits(), pool.clock());
    let now = clock.now();
    let ready = Box::new(Connection::new(
        client,
        wire_state,
        holder.slot().guard(),
        now,
        limits,
        handle,
    ));
    holder.slot().connected();
    holder.connected(connection);
    tokio::spawn(holder.drive(handle_gone, limits.connect_timeout));
    if predecessors > 0 {
        wait_for_predecessors(&pool, &ready).await;
    }
    pool.add(ready);
}

/// One time limit covers the whole: address, socket and log-in. The socket comes back to `holder` whatever
/// happens to the rest.
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
        let (lent, returned) = BorrowedSocket::new(socket);
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
            // No task drives the connection yet, so it is polled here.
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

/// Whether this role or this database has reached its own connection limit: because another program uses the
/// role's password, or because of a fence. PostgreSQL reports this with the same code as a server without
/// room, which would concern all laboratories. The names of its routines tell the two apart, and unlike its
/// messages they are not translated.
fn is_own_limit(error: &tokio_postgres::Error) -> bool {
    let refusal = error.as_db_error();
    let routine = refusal.and_then(|db| db.routine()).unwrap_or_default();
    error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS)
        && ["InitializeSessionUserId", "CheckMyDatabase"].contains(&routine)
}

/// Whether the server answers and refuses this log-in, database or privilege.
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

/// Before the first connection to a server is used: checks that the budget fits the server, and returns how
/// many connections an earlier process of this instance still has there.
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

/// Counts the backends of an earlier process against the budget until they are gone. Callers cannot use the
/// connection that counts them meanwhile.
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
        tracing::info!(
            server = %server.name,
            connections = others,
            "an earlier process of this instance still has connections to the server"
        );
        sleep(PREDECESSOR_PAUSE).await;
    }
    tracing::warn!(
        server = %server.name,
        "the router stops counting connections of an earlier process that do not end"
    );
    server.arbiter.set_predecessors(0);
}
