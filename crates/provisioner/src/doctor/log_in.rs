//! What only a log-in as the laboratory's own role can show: whether the password that the registry has for
//! it is the one that the server has, and which databases the server itself says that the role can connect
//! to.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use identity::SealContext;
use model::{ServerName, Slug, TenantState};
use pg::ConnectTarget;
use registry::Tenant;
use tokio::time::sleep;
use tokio_postgres::{Client, error::SqlState};

use super::{
    deep::as_before,
    finding::{Finding, FindingKind, Remedy},
    hba,
    registry_state::{RegistryState, UnderWay},
};
use crate::{Inner, ProvisionError, server::reachable};

/// How many roles log in at once, over all servers.
const PARALLEL_MAX: usize = 8;
/// How long log-ins wait for room, all of them together, and between two attempts.
const ROOM_LIMIT: Duration = Duration::from_secs(3);
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// What was found without a log-in, and is not reported again.
pub(super) struct FoundBefore<'a> {
    /// The subjects: a role that is missing or locked out among them.
    pub(super) named: &'a BTreeSet<String>,
    /// Laboratories whose role is a member of another one, through which it may get in elsewhere.
    pub(super) members: &'a BTreeSet<Slug>,
}

/// Logs in as the role of each laboratory that serves. `open` says whether everybody may connect to a
/// database, which is told of the database.
pub(super) async fn findings(
    inner: &Inner,
    servers: &HashMap<ServerName, ConnectTarget>,
    registry_state: &RegistryState,
    under_way: &UnderWay,
    before: &FoundBefore<'_>,
    open: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    let serving = registry_state.tenants.iter().filter(|tenant| {
        tenant.status == TenantState::Active
            && !under_way.changes(tenant.id)
            && !before.named.contains(tenant.role_name.as_str())
            && !before.named.contains(tenant.db_name.as_str())
            && servers.contains_key(&tenant.server)
    });
    let room_due = Instant::now() + ROOM_LIMIT;
    let looks = stream::iter(serving)
        .map(|tenant| async move {
            (
                tenant,
                log_in(inner, &servers[&tenant.server], tenant, room_due).await,
            )
        })
        .buffer_unordered(PARALLEL_MAX);
    let mut looks = std::pin::pin!(looks);
    let mut found = Vec::new();
    while let Some((tenant, outcome)) = looks.next().await {
        let suspected = match outcome {
            Ok(reached) => reached
                .into_iter()
                .filter(|database| registry_state.by_database(database).is_some() && !open(database))
                .map(|database| elsewhere(tenant, &database))
                .filter(|finding| {
                    !before.named.contains(&finding.subject) && !before.members.contains(&tenant.slug)
                })
                .collect(),
            Err(error) => refused(inner, &servers[&tenant.server], tenant, &error)
                .await
                .into_iter()
                .collect::<Vec<_>>(),
        };
        // What was seen may have been in the middle of a change that has begun, or ended, since.
        if !suspected.is_empty() && as_before(inner, tenant).await.unwrap_or(false) {
            let suspected = suspected.into_iter();
            found.extend(suspected.map(|finding| match finding.kind {
                FindingKind::ServerUnreachable => finding.on(&tenant.server),
                _ => finding.on(&tenant.server).of(&tenant.slug),
            }));
        }
    }
    // A full server is told once and not for each laboratory.
    let mut keys = BTreeSet::new();
    found.retain(|finding| keys.insert(finding.owned_key()));
    found
}

async fn log_in(
    inner: &Inner,
    admin: &ConnectTarget,
    tenant: &Tenant,
    room_due: Instant,
) -> Result<Vec<String>, ProvisionError> {
    let Some(sealed) = &tenant.role_secret else {
        // Reported as a secret that is missing.
        return Ok(Vec::new());
    };
    let password = match inner.open(&SealContext::TenantRole(tenant.id), sealed) {
        Ok(password) => password,
        Err(_told) => return Ok(Vec::new()),
    };
    let target = admin
        .with_user(tenant.role_name.as_str(), password)
        .with_database(tenant.db_name.as_str());
    let client = connect_when_there_is_room(inner, &target, room_due).await?;
    let asked = reachable(&client).await;
    asked.map_err(ProvisionError::db("asking what the role can reach", &target))
}

/// Waits a little for room: the sessions with which the doctor has just looked into a laboratory's database
/// count against its limit until the server has ended them.
async fn connect_when_there_is_room(
    inner: &Inner,
    target: &ConnectTarget,
    due: Instant,
) -> Result<Client, ProvisionError> {
    loop {
        match inner.connect(target).await {
            Err(ProvisionError::Connect(refusal))
                if refusal.code() == Some(&SqlState::TOO_MANY_CONNECTIONS) && Instant::now() < due =>
            {
                sleep(ROOM_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

fn elsewhere(tenant: &Tenant, database: &str) -> Finding {
    Finding::new(
        FindingKind::RoleReachesElsewhere,
        format!("{} in {database}", tenant.role_name.as_str()),
        format!(
            "the server lets the role of {} connect to {database}, which is another laboratory's",
            tenant.slug
        ),
        format!(
            "look through what it has that right: \\l {database} and \\drg {} in psql show it",
            tenant.role_name.as_str()
        ),
    )
}

async fn rejecting(
    inner: &Inner,
    admin: &ConnectTarget,
    tenant: &Tenant,
) -> Result<Vec<String>, ProvisionError> {
    let session = inner.session(admin.clone()).await?;
    let lines = hba::rejecting(&session, tenant.role_name.as_str(), tenant.db_name.as_str()).await?;
    inner.put_back(session);
    Ok(lines)
}

/// Whether the role or its database has as many sessions as it may have: then it is not the server that is
/// full.
async fn is_at_its_limit(
    inner: &Inner,
    admin: &ConnectTarget,
    tenant: &Tenant,
) -> Result<bool, ProvisionError> {
    let session = inner.session(admin.clone()).await?;
    let row = session
        .client
        .query_one(
            "SELECT coalesce(bool_or(have >= may), false) FROM (
                 SELECT r.rolconnlimit AS may, (SELECT count(*) FROM pg_stat_activity WHERE usesysid = r.oid) AS have
                   FROM pg_roles r WHERE r.rolname = $1
                 UNION ALL SELECT d.datconnlimit, (SELECT count(*) FROM pg_stat_activity WHERE datid = d.oid)
                   FROM pg_database d WHERE d.datname = $2) AS limits WHERE may >= 0",
            &[&tenant.role_name.as_str(), &tenant.db_name.as_str()],
        )
        .await
        .map_err(ProvisionError::db("counting sessions", &session.target))?;
    inner.put_back(session);
    Ok(row.get(0))
}

/// No room for another session, of the laboratory or of the whole server.
async fn no_room(inner: &Inner, admin: &ConnectTarget, tenant: &Tenant, seen: String) -> Finding {
    let sessions = |of: String| {
        format!(
            "`SELECT pid, datname, usename, application_name, state, state_change FROM pg_stat_activity{of} \
             ORDER BY state_change` shows who has them"
        )
    };
    // A server that does not answer that question either is full, or on its way out.
    if is_at_its_limit(inner, admin, tenant).await.unwrap_or(false) {
        let of = format!(
            " WHERE usename = '{}' OR datname = '{}'",
            tenant.role_name.as_str(),
            tenant.db_name.as_str()
        );
        let advice = format!("{}; roles.connections_max bounds them", sessions(of));
        return Finding::new(
            FindingKind::RoleCannotLogIn,
            tenant.role_name.as_str(),
            seen,
            advice,
        )
        .of(&tenant.slug);
    }
    let subject = format!("{}:{}", admin.host, admin.port);
    let advice = format!(
        "{}; lower router.budget (TENANTRY_ROUTER_BUDGET), or raise max_connections and restart the server",
        sessions(String::new())
    );
    Finding::new(FindingKind::ServerUnreachable, subject, seen, advice)
}

/// A server that is away says nothing of the role.
async fn refused(
    inner: &Inner,
    admin: &ConnectTarget,
    tenant: &Tenant,
    error: &ProvisionError,
) -> Option<Finding> {
    let ProvisionError::Connect(refusal) = error else {
        return None;
    };
    let finding = |seen: String, advice: String| {
        Finding::new(
            FindingKind::RoleCannotLogIn,
            tenant.role_name.as_str(),
            seen,
            advice,
        )
    };
    match refusal.code()? {
        code if *code == SqlState::TOO_MANY_CONNECTIONS => {
            let seen = format!(
                "{} is active, and there is no room for another session of its role: {refusal} (SQLSTATE \
                 53300)",
                tenant.slug
            );
            Some(no_room(inner, admin, tenant, seen).await)
        }
        code if *code == SqlState::INVALID_PASSWORD => {
            let seen = format!(
                "{} is active, and the server does not take the password that the registry has for its role: \
                 it was changed there, which a role can do itself",
                tenant.slug
            );
            let advice =
                "`tenantctl doctor --deep --fix` puts the stored password back; look who had the old one"
                    .to_owned();
            Some(finding(seen, advice).fixed_by(Remedy::Align(tenant.id)))
        }
        code if [
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            SqlState::INSUFFICIENT_PRIVILEGE,
            SqlState::INVALID_CATALOG_NAME,
        ]
        .contains(code) =>
        {
            let seen = format!("{} is active, and its role is refused: {refusal}", tenant.slug);
            let lines = rejecting(inner, admin, tenant).await.unwrap_or_default();
            let advice = match lines.as_slice() {
                [] => "see to what the server says, such as a line of its pg_hba.conf".to_owned(),
                lines => format!(
                    "take the line away that rejects it, or write one above it that lets it in: {}; then run \
                     `SELECT pg_reload_conf()`",
                    lines.join(", ")
                ),
            };
            Some(finding(seen, advice))
        }
        _ => None,
    }
}
