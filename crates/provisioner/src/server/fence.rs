//! Keeping a laboratory that does not serve closed, whatever routers do.
//!
//! Routers are waited for, and the server is told. Waiting makes it orderly: each router that is registered
//! and alive acknowledges the generation when it holds no connection any more. The server makes it right: the
//! role may not log in and its sessions are ended, so a router that is cut off from the registry, and goes on
//! with what it remembers, is out all the same. The wait is bounded; the server is told in every case.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use model::DbName;
use registry::{RegistryError, Tenant, TenantFence};
use serde::Serialize;

use crate::{
    Inner, ProvisionError,
    server::{AdminSession, limits, log_in, require_own, role_is_there},
};

/// The first pause between two questions to the registry; each later one doubles it. Routers answer in
/// milliseconds.
const ASK_PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest such pause.
const ASK_PAUSE_MAX: Duration = Duration::from_millis(100);
/// How long a log-in that passed the check before its role was locked out may take to show among the
/// sessions. It is no more than the end of the log-in, a few milliseconds.
const LATE_LOG_IN: Duration = Duration::from_millis(50);
/// How long to wait between two looks at sessions that are ending.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Which routers were waited for.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Waited {
    /// Those that had not let go at the first question, by name.
    pub(crate) waited_for: Vec<String>,
    /// Those that had not at the last: dead for less than a registration lives, cut off, or held up by a
    /// connection that is not given back.
    pub(crate) silent: Vec<String>,
    pub(crate) waited_ms: u64,
}

/// Waits until every router that is alive has let go of the laboratory as it is in the registry, for
/// `routers_grace` at most.
pub(crate) async fn wait_for_routers(inner: &Inner, tenant: &Tenant) -> Result<Waited, RegistryError> {
    let fence = TenantFence {
        tenant: tenant.id,
        generation: tenant.generation,
    };
    let began = Instant::now();
    let mut pause = ASK_PAUSE_MIN;
    let mut waited_for = None;
    loop {
        let client = inner.config.registry.client().await?;
        let outstanding = registry::routers_outstanding(&client, fence).await?;
        drop(client);
        let silent: Vec<String> = outstanding.into_iter().map(|router| router.name).collect();
        let first = waited_for.get_or_insert_with(|| silent.clone());
        let waited = began.elapsed();
        if silent.is_empty() || waited >= inner.config.bounds.routers_grace {
            return Ok(Waited {
                waited_for: std::mem::take(first),
                silent,
                waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ASK_PAUSE_MAX);
    }
}

/// Keeps the laboratory's role from logging in. `false`: there is no such role.
pub(crate) async fn lock_out(
    inner: &Inner,
    session: &AdminSession,
    tenant: &Tenant,
) -> Result<bool, ProvisionError> {
    let there = role_is_there(session, tenant).await?;
    if there {
        let role = &tenant.role_name;
        let sql = format!("ALTER ROLE {role} NOLOGIN; {}", limits(inner, role));
        session.run("locking the role out", &sql).await?;
    }
    Ok(there)
}

/// Takes back all that any fence does: the role may log in, with the password that the registry has for it,
/// and connect to its database, and nobody else may.
pub(crate) async fn let_in(
    inner: &Inner,
    session: &AdminSession,
    tenant: &Tenant,
) -> Result<(), ProvisionError> {
    require_own(session, tenant).await?;
    let (database, role) = (&tenant.db_name, &tenant.role_name);
    if !role_is_there(session, tenant).await? {
        return Err(ProvisionError::Missing {
            what: "role",
            name: role.as_str().to_owned(),
            server: session.target.to_string(),
        });
    }
    let limit = connection_limit(session, database).await?;
    // One transaction: at no moment is it open to others than its own role.
    let log_in = log_in(inner, tenant)?;
    let sql = format!(
        "{log_in};
         REVOKE ALL ON DATABASE {database} FROM PUBLIC;
         GRANT CONNECT ON DATABASE {database} TO {role};
         ALTER DATABASE {database} WITH ALLOW_CONNECTIONS true CONNECTION LIMIT {limit};
         ALTER DATABASE {database} RESET {KEPT_LIMIT}"
    );
    session.run("letting the role in", &sql).await
}

/// The setting in which a closed database keeps its own connection limit: it is the database's, lives as long
/// as the limit of a fence, and goes over with the other settings when another database takes its place.
const KEPT_LIMIT: &str = "tenantry.connection_limit";

/// How many connections a database takes when it is open: what it kept, or what it has where no fence closed
/// it.
pub(crate) async fn connection_limit(
    session: &AdminSession,
    database: &DbName,
) -> Result<i32, ProvisionError> {
    let row = session
        .client
        .query_opt(
            "SELECT coalesce((SELECT split_part(kept, '=', 2) FROM pg_db_role_setting s, unnest(s.setconfig) AS kept
                               WHERE s.setdatabase = d.oid AND s.setrole = 0 AND starts_with(kept, $2 || '='))::int,
                             CASE datconnlimit WHEN 0 THEN -1 ELSE datconnlimit END)
               FROM pg_database d WHERE datname = $1::text",
            &[&database.as_str(), &KEPT_LIMIT],
        )
        .await
        .map_err(ProvisionError::db("reading a database's connection limit", &session.target))?;
    Ok(row.map_or(-1, |row| row.get(0)))
}

/// Closes a database. Roles that were let in by name, as an adopted laboratory's own people are, are kept out
/// by the limit; superusers, who dump and compare, are not.
pub(crate) async fn close_database(session: &AdminSession, database: &DbName) -> Result<(), ProvisionError> {
    let limit = connection_limit(session, database).await?;
    let sql = format!(
        "REVOKE ALL ON DATABASE {database} FROM PUBLIC;
         ALTER DATABASE {database} SET {KEPT_LIMIT} = '{limit}';
         ALTER DATABASE {database} WITH CONNECTION LIMIT 0"
    );
    session.run("closing the database", &sql).await
}

/// Opens a database as it was before a fence, to those who are let in by name.
pub(crate) async fn open_again(session: &AdminSession, database: &DbName) -> Result<(), ProvisionError> {
    let limit = connection_limit(session, database).await?;
    let sql = format!(
        "ALTER DATABASE {database} WITH ALLOW_CONNECTIONS true CONNECTION LIMIT {limit};
         ALTER DATABASE {database} RESET {KEPT_LIMIT}"
    );
    session.run("opening the database", &sql).await
}

/// Ends the sessions of the laboratory's role, and says how many there were. Those of administrators stay: a
/// dump or a migration may be under way. The role must be locked out before.
pub(crate) async fn end_role_sessions(
    inner: &Inner,
    session: &AdminSession,
    tenant: &Tenant,
) -> Result<usize, ProvisionError> {
    let (began, limit) = (Instant::now(), inner.config.bounds.sessions_end_limit);
    let mut ended = BTreeSet::new();
    loop {
        let rows = session
            .client
            .query(
                // In the list and not in the condition, where it might be asked of every session first.
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1",
                &[&tenant.role_name.as_str()],
            )
            .await
            .map_err(ProvisionError::db("ending sessions", &session.target))?;
        ended.extend(rows.iter().map(|row| row.get::<_, i32>(0)));
        let waited = began.elapsed();
        if rows.is_empty() && waited >= LATE_LOG_IN {
            return Ok(ended.len());
        }
        if waited >= limit {
            return Err(ProvisionError::StillConnected {
                database: tenant.db_name.as_str().to_owned(),
                server: session.target.to_string(),
                count: i64::try_from(rows.len()).unwrap_or(i64::MAX),
                waited,
            });
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
