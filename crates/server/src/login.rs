//! Log-in: who somebody is, and in which laboratory.
//!
//! First the registry's admins by e-mail, then the staff of one laboratory: the named one, else the configured default.
//! Whatever does not fit ends in the same 401 after the same work, so that nobody learns which addresses exist. That a
//! laboratory is not in service is told only to whoever has given a password of it.

use identity::Principal;
use lab::{LabError, staff::StaffLogin};
use model::{Email, Slug, StaffId, TenantId};
use registry::{
    Admin, RegistryClient, Tenant, admins_by_email, operator_by_email, tenant_by_db_name, tenant_by_id,
    tenant_by_slug,
};
use resolver::{ResolveError, TenantTransaction};
use secrecy::{ExposeSecret, SecretString};
use settings::DefaultTenantHint;

use crate::{
    problem::{Answer, Kind, Problem},
    state::AppState,
};

/// The most laboratories in which one address's password is tried: each costs a hash.
const CANDIDATES_MAX: usize = 8;

/// Whom a log-in concerned, as far as that was found out: for the audit of one that was refused.
#[derive(Debug, Default)]
pub struct Found {
    /// The laboratory that knows the address.
    pub tenant: Option<TenantId>,
}

/// Finds the person in a laboratory.
///
/// # Errors
/// 401 for whatever does not fit, 409 when several laboratories fit, the laboratory's own problem when it is not in
/// service.
pub async fn staff(
    state: &AppState,
    email: &Email,
    password: &SecretString,
    named: Option<&str>,
    found: &mut Found,
) -> Answer<Principal> {
    let client = state.registry_client().await?;
    let wanted = match named {
        None => None,
        Some(name) => match tenant_named(&client, name).await? {
            Some(tenant) => Some(tenant.id),
            None => return nobody(state, password).await,
        },
    };
    let admins = admins_by_email(&client, email).await?;
    let candidates: Vec<Admin> = admins
        .into_iter()
        .filter(|admin| wanted.is_none_or(|id| id == admin.tenant))
        .collect();
    let tenant = match (candidates.is_empty(), wanted) {
        (false, _) => {
            drop(client);
            if let [only] = candidates.as_slice() {
                found.tenant = Some(only.tenant);
            }
            return admin(state, &candidates, password).await;
        }
        (true, Some(id)) => id,
        (true, None) => match default_tenant(state, &client).await? {
            Some(tenant) => tenant.id,
            None => return nobody(state, password).await,
        },
    };
    drop(client);
    member(state, tenant, email, password, found).await
}

/// Finds an operator.
///
/// # Errors
/// 401 for whatever does not fit.
pub async fn operator(state: &AppState, email: &Email, password: &SecretString) -> Answer<Principal> {
    let client = state.registry_client().await?;
    let found = operator_by_email(&client, email)
        .await?
        .filter(|operator| operator.disabled_at.is_none());
    drop(client);
    let hash = found
        .as_ref()
        .map(|operator| operator.password_hash.expose_secret());
    match (state.passwords.verify(password, hash).await?, found) {
        (true, Some(operator)) => Ok(Principal::Operator {
            operator: operator.id,
        }),
        _ => Err(Problem::new(Kind::LoginFailed)),
    }
}

/// A laboratory by its slug or by its id.
async fn tenant_named(client: &RegistryClient, name: &str) -> Answer<Option<Tenant>> {
    if let Ok(id) = name.parse() {
        return Ok(tenant_by_id(client, id).await?);
    }
    match Slug::parse(name) {
        Ok(slug) => Ok(tenant_by_slug(client, &slug).await?),
        Err(_) => Ok(None),
    }
}

/// The laboratory of the settings' hint. What is wrong with the hint is for ops to read, in the log.
async fn default_tenant(state: &AppState, client: &RegistryClient) -> Answer<Option<Tenant>> {
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
            "the default laboratory's hint matches no laboratory of the registry; nobody can log in through it"
        );
    }
    Ok(found)
}

/// The same answer after the same work as for a wrong password.
async fn nobody(state: &AppState, password: &SecretString) -> Answer<Principal> {
    let _never = state.passwords.verify(password, None).await?;
    Err(Problem::new(Kind::LoginFailed))
}

/// Tries the password with each laboratory that has the address.
async fn admin(state: &AppState, candidates: &[Admin], password: &SecretString) -> Answer<Principal> {
    let mut fitting = Vec::new();
    for admin in candidates.iter().take(CANDIDATES_MAX) {
        // Who has not accepted an invitation yet has none: the same work, and nothing fits.
        let hash = admin.password_hash.as_ref().map(ExposeSecret::expose_secret);
        let fits = state.passwords.verify(password, hash).await?;
        if fits && admin.disabled_at.is_none() {
            fitting.push(admin);
        }
    }
    match fitting.as_slice() {
        [] => Err(Problem::new(Kind::LoginFailed)),
        [one] => enter(state, one.tenant, one.id).await,
        _ => Err(Problem::new(Kind::TenantAmbiguous)),
    }
}

/// An admin works under the role and the standing that the laboratory's own staff list gives.
async fn enter(state: &AppState, tenant: TenantId, id: StaffId) -> Answer<Principal> {
    let person = ask(state, tenant, async |txn| lab::staff::login_by_id(txn, id).await).await?;
    match person {
        Some(person) if person.active => Ok(Principal::Staff {
            staff: id,
            tenant,
            role: person.role,
        }),
        _ => Err(Problem::new(Kind::LoginFailed)),
    }
}

/// Looks into the laboratory's own staff list.
async fn member(
    state: &AppState,
    tenant: TenantId,
    email: &Email,
    password: &SecretString,
    found: &mut Found,
) -> Answer<Principal> {
    let asked = ask(state, tenant, async |txn| {
        lab::staff::login_by_email(txn, email).await
    });
    let person: Option<StaffLogin> = match asked.await {
        Err(Unanswered::Resolve(closed)) if keeps_shut(&closed) => {
            // Nobody has shown a password of this laboratory: its admins' wrong ones get the same answer.
            tracing::warn!(error = %closed, "a log-in at a laboratory that is not in service was refused");
            return nobody(state, password).await;
        }
        answered => answered?,
    };
    if person.is_some() {
        found.tenant = Some(tenant);
    }
    let hash = person.as_ref().and_then(|person| person.password_hash.as_deref());
    let fits = state.passwords.verify(password, hash).await?;
    match person {
        Some(person) if fits && person.active && person.password_hash.is_some() => Ok(Principal::Staff {
            staff: person.id,
            tenant,
            role: person.role,
        }),
        _ => Err(Problem::new(Kind::LoginFailed)),
    }
}

/// Whether it is the laboratory's own state that shuts it, and not the weather: that is told to everybody alike.
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

/// Asks the laboratory's database, on a connection that is given back before any password is hashed.
async fn ask<T>(
    state: &AppState,
    tenant: TenantId,
    question: impl AsyncFnOnce(&TenantTransaction<'_>) -> Result<T, LabError>,
) -> Result<T, Unanswered> {
    let mut client = state.resolver.checkout(tenant).await?;
    let txn = client.read_only_transaction().await?;
    let answered = question(&txn).await;
    let _settled = txn.rollback().await;
    answered.map_err(Unanswered::Lab)
}
