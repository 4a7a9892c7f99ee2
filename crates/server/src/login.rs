//! Log-in: who a person is, and in which laboratory.
//!
//! One rule for all: a log-in means one account, and costs the verification of one password. The
//! laboratory is the named one; without a name the only one whose admin has the address, else the configured
//! default. Who is an admin of several names one: nothing is tried out, so neither the answer nor its time
//! tells in how many laboratories an address is known, or that one password fits several.
//!
//! Whatever does not fit ends in the same 401 after the same work, and no sooner than `REFUSED_AFTER`, so
//! that the few milliseconds by which the ways there differ do not show. That a laboratory is not in service
//! is given only to a caller who has sent a password of it.

use std::time::{Duration, Instant};

use identity::{Lane, Passwords, Principal, Requester};
use lab::{LabError, staff::StaffLogin};
use model::{ClientNetwork, Email, SessionEpoch, Slug, TenantId};
use registry::{
    Admin, RegistryClient, Tenant, admin_by_id, admins_by_email, client_has_logged_in, operator_by_email,
    tenant_by_db_name, tenant_by_id, tenant_by_slug,
};
use resolver::{ResolveError, TenantTransaction};
use secrecy::{ExposeSecret, SecretString};
use settings::DefaultTenantHint;

use crate::{
    attempts::{Account, Attempt, Audience},
    problem::{ApiResult, Kind, Problem},
    state::AppState,
};

/// The least time after which a refusal is answered: well above what one takes on an idle machine.
const REFUSED_AFTER: Duration = Duration::from_millis(250);

/// What a person logs in with.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// Who they say they are.
    pub email: &'a Email,
    /// Their password.
    pub password: &'a SecretString,
    /// From where.
    pub client: Option<ClientNetwork>,
}

/// Whom a log-in concerned, as far as that was found out: for the audit of one that was refused.
#[derive(Debug, Default)]
pub struct Found {
    /// The laboratory that was meant.
    pub tenant: Option<TenantId>,
}

/// Finds the person in a laboratory.
///
/// # Errors
/// 401 for whatever does not fit, 429 after too many failures, the laboratory's own problem when it is not in
/// service.
pub async fn staff(
    state: &AppState,
    given: &Credentials<'_>,
    named: Option<&str>,
    found: &mut Found,
) -> ApiResult<Principal> {
    let started = Instant::now();
    let registry = state.registry_client().await?;
    let place = place(state, &registry, given.email, named).await?;
    found.tenant = place.tenant;
    let account = Account {
        audience: Audience::Lab,
        tenant: place.tenant,
        email: given.email,
    };
    let (attempt, passwords) = begin(state, registry, &account, given.client).await?;
    let outcome = enter(state, &passwords, &place, given).await;
    settle(attempt, outcome, started).await
}

/// Finds an operator.
///
/// # Errors
/// 401 for whatever does not fit, 429 after too many failures.
pub async fn operator(state: &AppState, given: &Credentials<'_>) -> ApiResult<Principal> {
    let started = Instant::now();
    let registry = state.registry_client().await?;
    let found = operator_by_email(&registry, given.email).await?;
    let account = Account {
        audience: Audience::Operator,
        tenant: None,
        email: given.email,
    };
    let (attempt, passwords) = begin(state, registry, &account, given.client).await?;
    let found = found.filter(|operator| operator.disabled_at.is_none());
    let hash = found
        .as_ref()
        .map(|operator| operator.password_hash.expose_secret());
    let verified = passwords.verify(given.password, hash).await;
    let outcome = match (verified, found) {
        (Err(error), _) => Err(error.into()),
        (Ok(true), Some(operator)) => Ok(Principal::Operator {
            operator: operator.id,
            epoch: operator.session_epoch,
        }),
        (Ok(_), _) => Err(Problem::new(Kind::LoginFailed)),
    };
    settle(attempt, outcome, started).await
}

/// Begins a try at the account, and gives the hashing in whose queue it waits.
async fn begin(
    state: &AppState,
    registry: RegistryClient,
    account: &Account<'_>,
    client: Option<ClientNetwork>,
) -> ApiResult<(Attempt, Passwords)> {
    let mut known = state.attempts.remembers(account, client);
    if let (false, Some(client)) = (known, client) {
        let (audience, tenant) = (account.audience.as_str(), account.tenant);
        known = client_has_logged_in(&registry, audience, tenant, account.email, client).await?;
    }
    // Given back before anything is waited for.
    drop(registry);
    let attempt = state.attempts.begin(account, client, known).await?;
    let requester = Requester {
        lane: match (account.audience, known) {
            (Audience::Lab, false) => Lane::Staff,
            (Audience::Lab, true) => Lane::KnownStaff,
            (Audience::Operator, false) => Lane::Operator,
            (Audience::Operator, true) => Lane::KnownOperator,
        },
        client: state.attempts.client_key(client),
    };
    Ok((attempt, state.passwords.on_behalf_of(requester)))
}

/// Counts a try by how it ended. What failed on our side says nothing about the password.
async fn settle(attempt: Attempt, outcome: ApiResult<Principal>, started: Instant) -> ApiResult<Principal> {
    match &outcome {
        Ok(_) => attempt.succeeded(),
        Err(problem) if problem.kind() == Kind::LoginFailed => {
            attempt.failed();
            tokio::time::sleep(REFUSED_AFTER.saturating_sub(started.elapsed())).await;
        }
        Err(_) => drop(attempt),
    }
    outcome
}

/// The one account that a log-in means.
struct Place {
    tenant: Option<TenantId>,
    /// The person among the laboratory's admins in the registry; who is none is looked for on its staff list.
    admin: Option<Admin>,
}

async fn place(
    state: &AppState,
    registry: &RegistryClient,
    email: &Email,
    named: Option<&str>,
) -> ApiResult<Place> {
    let admins = admins_by_email(registry, email).await?;
    let tenant = match named {
        Some(name) => tenant_named(registry, name).await?.map(|tenant| tenant.id),
        // Who may not log in, or has not accepted an invitation yet, does not make anybody else's address
        // ambiguous.
        None => {
            let mut able = admins
                .iter()
                .filter(|admin| admin.disabled_at.is_none() && admin.password_hash.is_some())
                .map(|admin| admin.tenant);
            match (able.next(), able.next()) {
                (Some(only), None) => Some(only),
                _ => default_tenant(state, registry).await?.map(|tenant| tenant.id),
            }
        }
    };
    Ok(Place {
        tenant,
        admin: admins.into_iter().find(|admin| Some(admin.tenant) == tenant),
    })
}

/// A laboratory by its slug or by its id.
async fn tenant_named(client: &RegistryClient, name: &str) -> ApiResult<Option<Tenant>> {
    if let Ok(id) = name.parse() {
        return Ok(tenant_by_id(client, id).await?);
    }
    match Slug::parse(name) {
        Ok(slug) => Ok(tenant_by_slug(client, &slug).await?),
        Err(_) => Ok(None),
    }
}

/// The laboratory of the settings' hint. What is wrong with the hint is for ops to read, in the log.
async fn default_tenant(state: &AppState, client: &RegistryClient) -> ApiResult<Option<Tenant>> {
    let Some(hint) = &state.default_tenant.hint else {
        tracing::warn!(
            "a log-in named no laboratory, is no admin's, and no default laboratory is configured: set DEFAULT_TENANT_ID, \
             SINGLE_TENANT_SLUG or DEFAULT_TENANT_DB if its staff should log in without naming it"
        );
        return Ok(None);
    };
    let (found, shown) = match hint {
        DefaultTenantHint::Id(id) => (tenant_by_id(client, *id).await?, id.to_string()),
        DefaultTenantHint::Slug(slug) => (tenant_by_slug(client, slug).await?, slug.to_string()),
        DefaultTenantHint::Database(name) => {
            (tenant_by_db_name(client, name).await?, name.as_str().to_owned())
        }
    };
    if found.is_none() {
        let source = state.default_tenant.source.as_deref().unwrap_or("the settings");
        tracing::error!(
            hint = shown,
            source,
            "the default laboratory's hint matches no laboratory of the registry, so no log-in uses it"
        );
    }
    Ok(found)
}

/// The same answer after the same work as for a wrong password.
async fn refuse_unknown_account(passwords: &Passwords, password: &SecretString) -> ApiResult<Principal> {
    let _never = passwords.verify(password, None).await?;
    Err(Problem::new(Kind::LoginFailed))
}

/// Verifies the one password, and gives whom it lets in. The role and the right to work are those of the
/// laboratory's own staff list, also for an admin, whose password is the registry's.
///
/// The session's epoch is read before the password is verified, in the row that has its hash. An admin's hash
/// is the registry's, where a change is committed first: when it still is the same after the epoch was read,
/// a change that is under way has yet to be committed in the laboratory, and its new epoch ends the session
/// that begins here.
async fn enter(
    state: &AppState,
    passwords: &Passwords,
    place: &Place,
    given: &Credentials<'_>,
) -> ApiResult<Principal> {
    let Some(tenant) = place.tenant else {
        return refuse_unknown_account(passwords, given.password).await;
    };
    let asked = ask(state, tenant, async |txn| match &place.admin {
        Some(admin) => lab::staff::login_by_id(txn, admin.id).await,
        None => lab::staff::login_by_email(txn, given.email).await,
    });
    let asked: Result<(SessionEpoch, Option<StaffLogin>), ResolveError> = match asked.await {
        Ok(person) => Ok(person),
        Err(Unanswered::Resolve(closed)) if keeps_shut(&closed) => Err(closed),
        Err(other) => return Err(other.into()),
    };
    let hash = match (&place.admin, &asked) {
        (Some(admin), _) if admin.disabled_at.is_some() => None,
        // Who has not accepted an invitation yet has none.
        (Some(admin), _) => admin.password_hash.as_ref().map(ExposeSecret::expose_secret),
        (None, Ok((_, person))) => person.as_ref().and_then(|person| person.password_hash.as_deref()),
        (None, Err(closed)) => {
            // The caller has not shown a password of this laboratory: its admins' wrong ones get the same
            // answer.
            tracing::warn!(error = %closed, "a log-in at a laboratory that is not in service was refused");
            None
        }
    };
    if !passwords.verify(given.password, hash).await? {
        return Err(Problem::new(Kind::LoginFailed));
    }
    let (tenant_epoch, person) = asked?;
    if let Some(admin) = &place.admin {
        unchanged(state, admin).await?;
    }
    match person {
        Some(person) if person.active => Ok(Principal::Staff {
            staff: person.id,
            tenant,
            role: person.role,
            epoch: person.session_epoch,
            tenant_epoch,
        }),
        _ => Err(Problem::new(Kind::LoginFailed)),
    }
}

/// Refuses when the admin's password or state has changed since it was read.
async fn unchanged(state: &AppState, admin: &Admin) -> ApiResult<()> {
    let client = state.registry_client().await?;
    let now = admin_by_id(&client, admin.tenant, admin.id).await?;
    let hash = |hash: Option<&SecretString>| hash.map(|hash| hash.expose_secret().to_owned());
    let was = hash(admin.password_hash.as_ref());
    match now {
        Some(now) if now.disabled_at.is_none() && hash(now.password_hash.as_ref()) == was => Ok(()),
        _ => Err(Problem::new(Kind::LoginFailed)),
    }
}

/// Whether it is the laboratory's own state that shuts it, and not an outage: every caller gets that
/// alike.
fn keeps_shut(error: &ResolveError) -> bool {
    matches!(
        error,
        ResolveError::NotServing { .. }
            | ResolveError::Behind { .. }
            | ResolveError::Ahead { .. }
            | ResolveError::UnknownTenant { .. }
    )
}

/// Why a laboratory's database gave no answer.
enum Unanswered {
    Resolve(ResolveError),
    Lab(LabError),
}

impl From<ResolveError> for Unanswered {
    fn from(error: ResolveError) -> Self {
        Self::Resolve(error)
    }
}

impl From<Unanswered> for Problem {
    fn from(error: Unanswered) -> Self {
        match error {
            Unanswered::Resolve(error) => error.into(),
            Unanswered::Lab(error) => error.into(),
        }
    }
}

/// Asks the laboratory's database, on a connection that is given back before any password is hashed. The
/// laboratory's session epoch is read first: what is read under one that has ended since gives a token that
/// has ended, too.
async fn ask<T>(
    state: &AppState,
    tenant: TenantId,
    question: impl AsyncFn(&TenantTransaction<'_>) -> Result<T, LabError>,
) -> Result<(SessionEpoch, T), Unanswered> {
    let tenant_epoch = state.resolver.snapshot(tenant).await?.session_epoch;
    let mut client = state.resolver.checkout(tenant).await?;
    let asked = async |txn: &TenantTransaction<'_>| question(txn).await.map_err(Unanswered::Lab);
    Ok((tenant_epoch, client.read(asked).await?))
}
