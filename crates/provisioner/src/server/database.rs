//! Looking at, closing and dropping a database.

use std::time::{Duration, Instant};

use model::{DbName, Step};
use registry::Tenant;
use tokio_postgres::types::Type;

use crate::{
    Inner, ProvisionError,
    engine::{Context, fault::Moment},
    error::StepError,
    server::{AdminSession, ownership_comment},
};

/// How long to wait between two looks at sessions that are ending.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// A database as the server's catalogue has it.
pub(crate) struct Found {
    comment: Option<String>,
}

impl Found {
    pub(crate) fn has_comment(&self, comment: &str) -> bool {
        self.comment.as_deref() == Some(comment)
    }
}

pub(crate) async fn look(session: &AdminSession, name: &DbName) -> Result<Option<Found>, ProvisionError> {
    let row = session
        .client
        .query_typed_opt(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1",
            &[(&name.as_str(), Type::NAME)],
        )
        .await
        .map_err(ProvisionError::db("looking for the database", &session.target))?;
    Ok(row.map(|row| Found { comment: row.get(0) }))
}

/// Looks for the laboratory's database. One of its name that is not marked as this laboratory's is an error:
/// its data are somebody else's, perhaps of an earlier laboratory that had the same slug.
pub(crate) async fn look_for_own(
    session: &AdminSession,
    tenant: &Tenant,
) -> Result<Option<Found>, ProvisionError> {
    match look(session, &tenant.db_name).await? {
        Some(found) if found.comment.as_deref() != Some(&ownership_comment(tenant)) => {
            Err(ProvisionError::NotOurs {
                what: "database",
                name: tenant.db_name.as_str().to_owned(),
                server: session.target.to_string(),
            })
        }
        found => Ok(found),
    }
}

/// As [`look_for_own`], where it must be there.
pub(crate) async fn require_own(session: &AdminSession, tenant: &Tenant) -> Result<Found, ProvisionError> {
    let found = look_for_own(session, tenant).await?;
    found.ok_or_else(|| ProvisionError::Missing {
        what: "database",
        name: tenant.db_name.as_str().to_owned(),
        server: session.target.to_string(),
    })
}

/// Lets the administrator in and nobody else. One transaction: at no moment is it open to everybody.
pub(crate) async fn open_to_nobody_else(session: &AdminSession, name: &DbName) -> Result<(), ProvisionError> {
    let sql = format!(
        "REVOKE ALL ON DATABASE {name} FROM PUBLIC; ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"
    );
    session
        .run("opening the database to its administrator", &sql)
        .await
}

/// Ends the subscriptions of a copy without asking their publishers: with one a database cannot be dropped,
/// and the copy would replicate. Versions before this one restored them.
pub(crate) async fn end_subscriptions(
    inner: &Inner,
    session: &AdminSession,
    copy: &DbName,
) -> Result<(), ProvisionError> {
    let rows = session
        .client
        .query(
            "SELECT quote_ident(s.subname) FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = $1",
            &[&copy.as_str()],
        )
        .await
        .map_err(ProvisionError::db("looking for subscriptions", &session.target))?;
    if rows.is_empty() {
        return Ok(());
    }
    open_to_nobody_else(session, copy).await?;
    let target = session.target.with_database(copy.as_str());
    let inside = inner.connect_inside(&target).await?;
    for row in rows {
        let name: String = row.get(0);
        for action in [
            format!("ALTER SUBSCRIPTION {name} DISABLE"),
            format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"),
            format!("DROP SUBSCRIPTION {name}"),
        ] {
            let done = inside.batch_execute(&action).await;
            done.map_err(ProvisionError::db("ending a copy's subscription", &target))?;
        }
    }
    Ok(())
}

/// How many clients are connected to a database.
async fn sessions(session: &AdminSession, name: &DbName) -> Result<i64, ProvisionError> {
    let row = session
        .client
        .query_one(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'",
            &[&name.as_str()],
        )
        .await
        .map_err(ProvisionError::db("counting sessions", &session.target))?;
    Ok(row.get(0))
}

/// Waits until no client is connected; says how many there are still.
pub(crate) async fn await_empty(
    session: &AdminSession,
    name: &DbName,
    limit: Duration,
) -> Result<i64, ProvisionError> {
    let began = Instant::now();
    loop {
        let count = sessions(session, name).await?;
        if count == 0 || began.elapsed() >= limit {
            return Ok(count);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Ends every client's session of a database and waits until they are gone.
pub(crate) async fn end_sessions(
    cx: &Context<'_>,
    session: &AdminSession,
    name: &DbName,
) -> Result<u64, StepError> {
    let ended = session
        .client
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE datname = $1 AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
            &[&name.as_str()],
        )
        .await
        .map_err(ProvisionError::db("ending sessions", &session.target))?;
    let waited = cx.inner.config.bounds.sessions_end_limit;
    match await_empty(session, name, waited).await? {
        0 => Ok(ended),
        count => Err(StepError::retry(ProvisionError::StillConnected {
            database: name.as_str().to_owned(),
            server: session.target.to_string(),
            count,
            waited,
        })),
    }
}

/// Drops a database that may be dropped. It is closed first: otherwise a pool that reconnects between ending
/// the sessions and dropping would keep it alive. Without FORCE: whoever is still in there then is somebody
/// to look at.
///
/// What holds it, a transaction that was prepared say, can be ended from inside only: so it is looked for
/// before the database is closed to everybody, and where the server refuses all the same, administrators are
/// let in again.
pub(crate) async fn close_and_drop(
    cx: &Context<'_>,
    session: &AdminSession,
    name: &DbName,
) -> Result<(), StepError> {
    let why = holds(session, name, false).await?;
    if !why.is_empty() {
        return Err(StepError::fatal(ProvisionError::Held { why }));
    }
    let dropped = close_then_drop(cx, session, name).await;
    if dropped.is_err() && matches!(look(session, name).await, Ok(Some(_))) {
        open_to_nobody_else(session, name).await?;
    }
    dropped
}

async fn close_then_drop(cx: &Context<'_>, session: &AdminSession, name: &DbName) -> Result<(), StepError> {
    session
        .run(
            "closing the database",
            // PostgreSQL drops no template, which somebody may have made of it by hand.
            &format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false IS_TEMPLATE false"),
        )
        .await?;
    cx.reach(Step::DropDatabase, Moment::Closed).await;
    end_sessions(cx, session, name).await?;
    session
        .run(
            "dropping the database",
            &format!("DROP DATABASE IF EXISTS {name}"),
        )
        .await?;
    Ok(())
}

/// What keeps a database from being dropped, with the statements that end it. `slots`: also replication slots
/// that nobody reads at the moment, which are lost with the database.
pub(crate) async fn holds(
    session: &AdminSession,
    database: &DbName,
    slots: bool,
) -> Result<Vec<String>, ProvisionError> {
    let rows = session
        .client
        .query(
            "SELECT format('the transaction %s was prepared by %s %s s ago and is neither committed nor rolled back: connected to this \
                            database, run COMMIT PREPARED %1$s or ROLLBACK PREPARED %1$s as that role or as a superuser',
                           quote_literal(gid), quote_ident(owner), extract(epoch FROM clock_timestamp() - prepared)::bigint)
               FROM pg_prepared_xacts WHERE database = $1::text
             UNION ALL
             SELECT format('it has the subscription %1$s: connected to this database, run DROP SUBSCRIPTION %1$s, or where its publisher \
                            cannot be reached, ALTER SUBSCRIPTION %1$s DISABLE; ALTER SUBSCRIPTION %1$s SET (slot_name = NONE); DROP \
                            SUBSCRIPTION %1$s', quote_ident(s.subname))
               FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = $1::text
             UNION ALL
             SELECT format('it has the replication slot %s%s: end what reads it, then run SELECT pg_drop_replication_slot(%1$s)',
                           quote_literal(slot_name), CASE WHEN active THEN ', which is being read' ELSE '' END)
               FROM pg_replication_slots WHERE database = $1::text AND (active OR $2) AND NOT temporary",
            &[&database.as_str(), &slots],
        )
        .await
        .map_err(ProvisionError::db("looking for what holds the database", &session.target))?;
    let holds = rows.iter().map(|row| {
        format!(
            "the database {} cannot be dropped: {}",
            database.as_str(),
            row.get::<_, String>(0)
        )
    });
    Ok(holds.collect())
}
