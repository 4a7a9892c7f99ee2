//! The doctor: compares the registry, the servers and the archives, and names what does not fit together.
//!
//! It takes no input and keeps no notes: it acts on what it observes. Laboratories change while it looks, so
//! it reads the registry before and after the servers, and a server on which something seems wrong once more;
//! what one of these readings does not show, or an operation under way explains, is not reported. A server
//! costs a few questions however many databases it has; only the deep examination opens a connection to each.
//!
//! Fixing never drops what may hold a laboratory's data, and never lowers a recorded version.

mod ability;
mod archives;
mod checks;
mod deep;
mod finding;
mod fix;
mod grants;
mod hba;
mod judge;
mod log_in;
mod names;
mod observed_server;
mod processes;
mod registry_checks;
mod registry_state;
mod roles;
mod schedules;

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use futures_util::{StreamExt, stream};
use migrator::ServerState;
use model::{ServerName, Slug, TenantId, TenantState};
use pg::ConnectTarget;
use registry::{Server, Tenant};

pub use self::finding::{Examined, Finding, FindingKind, Reachable, Report, RoleCreator, Severity};
use self::{
    checks::Laboratory,
    finding::{OwnedKey, Remedy},
    fix::Fixer,
    judge::Judge,
    observed_server::ObservedServer,
    registry_state::{RegistryState, UnderWay},
};
use crate::{
    Inner, ProvisionError, Provisioner, RequestedBy,
    server::{AdminSession, ownership_comment},
};

/// How many servers are asked at once.
const SERVERS_PARALLEL_MAX: usize = 8;
/// How many of a laboratory's latest events are looked through for the end of its closing.
const EVENTS_MAX: u32 = 20;

impl Provisioner {
    /// Looks at the whole fleet and says what is not as it should be. `deep`: also opens each laboratory's
    /// database and reads its own migration history.
    ///
    /// # Errors
    /// When the registry or the archives cannot be read, and as [`Provisioner::require_namespace`]. A server
    /// that cannot be reached is a finding.
    pub async fn examine(&self, deep: bool) -> Result<Report, ProvisionError> {
        let began = Instant::now();
        let mut report = examine(&self.inner, deep).await?;
        report.took_ms = millis(began);
        Ok(report)
    }

    /// Examines, then fixes what is safe to fix, and says of each finding what came of it.
    ///
    /// # Errors
    /// As [`Provisioner::examine`]; what cannot be fixed stands in its finding.
    pub async fn fix(&self, deep: bool, by: RequestedBy) -> Result<Report, ProvisionError> {
        let began = Instant::now();
        let mut fixer = Fixer::new(&self.inner, &by);
        let mut report = examine(&self.inner, deep).await?;
        fix_all(&mut fixer, &mut report.findings).await;
        for _ in 1..LOOKS_MAX {
            if report.fixed() == 0 {
                break;
            }
            // Only a further look shows what came of it, and what was hidden behind it.
            let again = examine(&self.inner, deep).await?;
            let (known, mut fresh) = split(&report.findings, again.findings);
            for finding in &mut report.findings {
                let is_there = known.contains(&finding.owned_key());
                if finding.fixed && is_there {
                    finding.not_fixed = Some("it was found again right after it was fixed".to_owned());
                } else if !is_there {
                    // It went with what was fixed.
                    finding.not_fixed = None;
                }
                finding.fixed = !is_there;
            }
            fix_all(&mut fixer, &mut fresh).await;
            let done = fresh.iter().all(|finding| !finding.fixed);
            report.findings.extend(fresh);
            (report.reachable, report.role_creators) = (again.reachable, again.role_creators);
            if done {
                break;
            }
        }
        report.findings.sort_by(by_severity);
        report.took_ms = millis(began);
        Ok(report)
    }
}

/// How often `--fix` looks at most: at first, after it has fixed what it found, and after what that brought
/// to light.
const LOOKS_MAX: usize = 3;

async fn fix_all(fixer: &mut Fixer<'_>, findings: &mut [Finding]) {
    for finding in findings {
        fixer.fix(finding).await;
    }
}

/// The keys of the findings that were there before, and the findings that were not.
fn split(before: &[Finding], now: Vec<Finding>) -> (BTreeSet<OwnedKey>, Vec<Finding>) {
    let before: BTreeSet<OwnedKey> = before.iter().map(Finding::owned_key).collect();
    let (known, fresh): (Vec<_>, Vec<_>) = now
        .into_iter()
        .partition(|finding| before.contains(&finding.owned_key()));
    (known.iter().map(Finding::owned_key).collect(), fresh)
}

fn by_severity(a: &Finding, b: &Finding) -> std::cmp::Ordering {
    (a.severity, a.key()).cmp(&(b.severity, b.key()))
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A cluster that answered, under all names that the registry has for it.
struct Visit {
    server: ServerName,
    names: BTreeSet<ServerName>,
    session: AdminSession,
    observed: ObservedServer,
    state: ServerState,
    /// The registry knows none of the laboratories whose ownership comments are on the server.
    of_another: bool,
}

async fn examine(inner: &Inner, deep: bool) -> Result<Report, ProvisionError> {
    inner.require_namespace().await?;
    let registry = &inner.config.registry;
    let before = RegistryState::read(registry).await?;
    let servers = registry::servers_list(&registry.client().await?).await?;
    let (visits, mut findings) = visit_all(inner, &servers).await;
    let after = RegistryState::read(registry).await?;
    let under_way = UnderWay::of(&[&before, &after]);
    let mut examined = Examined {
        servers: visits.len(),
        laboratories: after.tenants.len(),
        operations: after.operations.len(),
        ..Examined::default()
    };

    findings.extend(registry_checks::unopened(inner, &servers, &after));
    if registry.is_read_only().await? {
        findings.push(registry_checks::read_only(&registry.target().database));
    }
    findings.extend(in_both(
        registry_checks::stuck(&before),
        registry_checks::stuck(&after),
    ));
    findings.extend(in_both(
        registry_checks::abandoned(&before, &under_way),
        registry_checks::abandoned(&after, &under_way),
    ));
    findings.extend(ability::findings(inner, &visits).await);
    for visit in &visits {
        examined.databases += visit.observed.databases.len();
        examined.roles += visit.observed.roles.len();
        findings.extend(judge(inner, visit, [&before, &after], &under_way).await?);
        findings.extend(rights(inner, visit, &after, &under_way).await?);
        findings.extend(unfit(inner, visit));
    }
    findings.extend(schedules::findings(inner).await?);
    findings.extend(processes::findings(inner).await?);
    let (archived, recorded) = archives::findings(inner, &under_way).await?;
    findings.extend(archived);
    examined.archives = recorded;
    if deep {
        let reached = targets(&visits);
        let (differing, histories) =
            deep::findings(inner, &reached, &after, &under_way, &strangers(&visits, &after)).await;
        let named: BTreeSet<String> = findings.iter().map(|finding| finding.subject.clone()).collect();
        let open = |database: &str| {
            let of_all = visits
                .iter()
                .filter_map(|visit| visit.observed.databases.get(database));
            of_all.into_iter().any(|database| database.public.is_some())
        };
        let members: BTreeSet<Slug> = findings
            .iter()
            .filter(|finding| finding.kind == FindingKind::RoleMembership)
            .filter_map(|finding| finding.slug.clone())
            .collect();
        let found_before = log_in::FoundBefore {
            named: &named,
            members: &members,
        };
        findings.extend(log_in::findings(inner, &reached, &after, &under_way, &found_before, open).await);
        // A database that is not there, or is somebody else's, was named already.
        let missing: BTreeSet<String> = findings
            .iter()
            .filter(|finding| finding.kind == FindingKind::MissingDatabase)
            .map(|finding| finding.subject.clone())
            .collect();
        // Without its group a laboratory lacks every right, which was named, too.
        let unsettled: BTreeSet<Option<Slug>> = findings
            .iter()
            .filter(|finding| finding.kind == FindingKind::RightsUnsettled)
            .map(|finding| finding.slug.clone())
            .collect();
        let is_known = |finding: &Finding| {
            missing.contains(&finding.subject)
                || (finding.kind == FindingKind::RightsUnsettled && unsettled.contains(&finding.slug))
        };
        findings.extend(differing.into_iter().filter(|finding| !is_known(finding)));

        examined.histories = histories;
    }
    findings.sort_by(by_severity);
    let reachable = visits.iter().flat_map(|visit| {
        let is_reported = |name: &str| {
            let mut found = findings.iter();
            found.any(|finding| {
                finding.kind == FindingKind::OpenToPublic
                    && finding.subject == name
                    && finding.server.as_ref() == Some(&visit.server)
            })
        };
        let open = visit
            .state
            .open
            .iter()
            .filter(|open| !is_reported(&open.database));
        let open: Vec<_> = open.collect();
        open.into_iter().map(|open| Reachable {
            server: visit.server.clone(),
            open: open.clone(),
        })
    });
    let role_creators = visits.iter().flat_map(|visit| {
        let roles = visit.state.role_creators.iter();
        roles.map(|role| RoleCreator {
            server: visit.server.clone(),
            role: role.clone(),
        })
    });
    let reachable: Vec<Reachable> = reachable.collect();
    Ok(Report {
        findings,
        examined,
        reachable,
        role_creators: role_creators.collect(),
        took_ms: 0,
    })
}

/// Asks every server, several at once. Entries of the registry that name the same cluster become one visit.
async fn visit_all(inner: &Inner, servers: &[Server]) -> (Vec<Visit>, Vec<Finding>) {
    let asked = stream::iter(servers).map(|server| async move { (server, visit(inner, server).await) });
    let mut asked = std::pin::pin!(asked.buffered(SERVERS_PARALLEL_MAX));
    let (mut visits, mut findings): (Vec<Visit>, Vec<Finding>) = (Vec::new(), Vec::new());
    while let Some((server, outcome)) = asked.next().await {
        match outcome {
            Ok((session, observed, state, of_another)) => {
                match visits
                    .iter_mut()
                    .find(|v| v.observed.identifier == observed.identifier)
                {
                    Some(same) => drop(same.names.insert(server.name.clone())),
                    None => visits.push(Visit {
                        server: server.name.clone(),
                        names: BTreeSet::from([server.name.clone()]),
                        session,
                        observed,
                        state,
                        of_another,
                    }),
                }
            }
            // Told as a secret that cannot be opened.
            Err(ProvisionError::Sealed { .. }) => {}
            Err(error) => {
                let subject = format!("{}:{}", server.host, server.port);
                let is_wrong_password =
                    matches!(&error, ProvisionError::Connect(refusal) if refusal.is_wrong_password());
                let advice = if is_wrong_password {
                    "the registry keeps the administrator's password as it was when it was stored: set the \
                     one that the server has now (TENANT_PGPASSWORD or the file that TENANT_PGPASSWORD_FILE \
                     names, else the registry's), then `tenantctl up --no-serve` stores it; what is on the \
                     server was not examined"
                } else {
                    "start the server, or see to the network; what is on it was not examined"
                };
                let finding =
                    Finding::new(FindingKind::ServerUnreachable, subject, error.to_string(), advice);
                findings.push(finding.on(&server.name));
            }
        }
    }
    (visits, findings)
}

async fn visit(
    inner: &Inner,
    server: &Server,
) -> Result<(AdminSession, ObservedServer, ServerState, bool), ProvisionError> {
    let session = inner.session(inner.admin_of(server.clone())?).await?;
    let observed = ObservedServer::read(&session, &inner.config.namespace).await?;
    let state = inner.server_state(&session).await?;
    let of_another = inner.is_of_another_registry(&state).await?;
    Ok((session, observed, state, of_another))
}

fn unfit(inner: &Inner, visit: &Visit) -> Option<Finding> {
    // An open registry is named as such, and closed.
    let state = ServerState {
        registry_open: false,
        ..visit.state.clone()
    };
    let unmet = inner.unfit(&state);
    let seen = unmet.join("; ");
    let advice = "see to what is named; until then no laboratory is made on this server";
    let subject = visit.session.target.host.clone();
    (!unmet.is_empty())
        .then(|| Finding::new(FindingKind::ServerUnfit, subject, seen, advice).on(&visit.server))
}

/// The laboratories under whose name a database lies that does not carry their ownership comment: what is in
/// it is not theirs.
fn strangers(visits: &[Visit], registry_state: &RegistryState) -> BTreeSet<TenantId> {
    let displaced = registry_state.tenants.iter().filter(|tenant| {
        let comment = ownership_comment(tenant);
        let mut here = visits.iter().filter(|visit| visit.names.contains(&tenant.server));
        here.any(|visit| {
            let named = visit.observed.databases.get(tenant.db_name.as_str());
            named.is_some_and(|named| named.comment.as_deref() != Some(&comment))
        })
    });
    displaced.map(|tenant| tenant.id).collect()
}

fn targets(visits: &[Visit]) -> HashMap<ServerName, ConnectTarget> {
    let named = visits.iter().flat_map(|visit| {
        visit
            .names
            .iter()
            .map(|name| (name.clone(), visit.session.target.clone()))
    });
    named.collect()
}

/// What is wrong on one server by the registry before and after it was read, and by a second look at it.
async fn judge(
    inner: &Inner,
    visit: &Visit,
    [before, after]: [&RegistryState; 2],
    under_way: &UnderWay,
) -> Result<Vec<Finding>, ProvisionError> {
    let by = |registry_state: &RegistryState, observed: &ObservedServer| {
        let judge = Judge {
            namespace: &inner.config.namespace,
            registry_database: &inner.config.registry.target().database,
            registry_state,
            under_way,
            server: &visit.server,
            names: &visit.names,
            observed,
            marked: visit.of_another.then_some(&visit.state.marked),
            roles: &inner.config.roles,
        };
        judge.findings()
    };
    let suspected = in_both(by(before, &visit.observed), by(after, &visit.observed));
    if suspected.is_empty() {
        return Ok(suspected);
    }
    let again = ObservedServer::read(&visit.session, &inner.config.namespace).await?;
    let mut found = Vec::new();
    for finding in in_both(suspected, by(after, &again)) {
        if stands(inner, after, &finding).await? {
            found.push(finding);
        }
    }
    if !found.iter().any(is_of_log_in) {
        return Ok(found);
    }
    // A suspension that ended between the look and the question whether one is under way has closed the
    // server since.
    let last = ObservedServer::read(&visit.session, &inner.config.namespace).await?;
    Ok(in_both(found, by(after, &last)))
}

/// What is wrong with rights and settings on one server: what two looks show, of laboratories that nobody
/// changes.
async fn rights(
    inner: &Inner,
    visit: &Visit,
    registry_state: &RegistryState,
    under_way: &UnderWay,
) -> Result<Vec<Finding>, ProvisionError> {
    let namespace = &inner.config.namespace;
    let here = registry_state.tenants.iter().filter(|tenant| {
        visit.names.contains(&tenant.server)
            && !under_way.changes(tenant.id)
            && visit.observed.roles.contains_key(tenant.role_name.as_str())
    });
    let here: Vec<Laboratory> = here
        .map(|tenant| laboratory(inner, registry_state, tenant))
        .collect();
    let mut found = hba::trusting(&visit.session, &here).await?;
    for finding in &mut found {
        finding.server = Some(visit.server.clone());
    }
    let first = checks::on_server(&visit.session, namespace, &inner.config.roles, &here).await?;
    if first.is_empty() {
        return Ok(found);
    }
    let as_findings = |sightings: Vec<checks::Sighting>| {
        let found = sightings.into_iter().filter_map(|sighting| {
            let of = here.iter().find(|l| l.role.as_str() == sighting.role)?;
            Some((of.id, sighting.into_finding(of).on(&visit.server)))
        });
        found.collect::<Vec<_>>()
    };
    let first: BTreeSet<OwnedKey> = as_findings(first).iter().map(|(_, f)| f.owned_key()).collect();
    for (id, finding) in
        as_findings(checks::on_server(&visit.session, namespace, &inner.config.roles, &here).await?)
    {
        let tenant = registry_state.by_id(id);
        if first.contains(&finding.owned_key())
            && let Some(tenant) = tenant
            && deep::as_before(inner, tenant).await?
        {
            found.push(finding);
        }
    }
    Ok(found)
}

fn laboratory(inner: &Inner, registry_state: &RegistryState, tenant: &Tenant) -> Laboratory {
    Laboratory {
        id: tenant.id,
        slug: tenant.slug.clone(),
        role: tenant.role_name.clone(),
        group: inner.config.namespace.tenant_group(tenant.id),
        database: tenant.db_name.clone(),
        server: tenant.server.clone(),
        has_people: registry_state.with_people.contains(&tenant.id),
    }
}

/// The second one's findings that the first one has too.
fn in_both(first: Vec<Finding>, second: Vec<Finding>) -> Vec<Finding> {
    let keys: BTreeSet<_> = first.iter().map(Finding::key).collect();
    second
        .into_iter()
        .filter(|finding| keys.contains(&finding.key()))
        .collect()
}

fn is_of_log_in(finding: &Finding) -> bool {
    matches!(finding.remedy, Some(Remedy::Align(_)))
}

/// Whether what was seen of a log-in is not merely a suspension or a resumption that is under way: those
/// change the server under the lock of the laboratory's row, and are no operations.
async fn stands(inner: &Inner, after: &RegistryState, finding: &Finding) -> Result<bool, ProvisionError> {
    let Some(Remedy::Align(id)) = finding.remedy else {
        return Ok(true);
    };
    let known = after.by_id(id).map(|tenant| tenant.generation);
    let now = inner
        .config
        .registry
        .in_txn(async |txn| registry::tenant_lock_in_txn(txn, id).await)
        .await?;
    match now {
        Some(now) if Some(now.generation) == known => {
            Ok(now.status == TenantState::Active || !is_closing(inner, after, &now).await?)
        }
        _ => Ok(false),
    }
}

/// Whether a suspension was committed a moment ago and its server has not been told yet.
async fn is_closing(inner: &Inner, after: &RegistryState, tenant: &Tenant) -> Result<bool, ProvisionError> {
    let bounds = &inner.config.bounds;
    let limit = bounds.routers_grace + bounds.connect_timeout + bounds.sessions_end_limit;
    if after.now.duration_since(tenant.updated_at).unsigned_abs() > limit {
        return Ok(false);
    }
    let client = inner.config.registry.client().await?;
    let events = registry::events_of(&client, tenant.id, None, EVENTS_MAX).await?;
    let latest = events
        .iter()
        .find(|event| ["suspended", "fenced", "fence_missing"].contains(&event.kind.as_str()));
    Ok(latest.is_some_and(|event| event.kind == "suspended"))
}
