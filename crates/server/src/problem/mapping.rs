//! The one place where errors of the other crates become problems.
//!
//! Every match is exhaustive: a new variant does not compile until somebody decides what a client is told.

use identity::{PasswordError, TokenError};
use lab::{FieldProblem, Guard, ItemProblem, LabError};
use model::{SlugError, TenantState};
use provisioner::ProvisionError;
use registry::RegistryError;
use resolver::ResolveError;
use tokio_postgres::error::SqlState;

use super::{ItemError, Kind, Problem};

impl From<ResolveError> for Problem {
    fn from(error: ResolveError) -> Self {
        use ResolveError as E;
        let kind = match &error {
            E::UnknownTenant { .. } => Kind::UnknownTenant,
            E::NotServing { state, .. } => return not_serving(*state),
            E::Behind { .. } => Kind::VersionBehind,
            E::Ahead { .. } => Kind::VersionAhead,
            E::RegistryUnavailable { .. } => Kind::RegistryUnavailable,
            E::ServerUnavailable { .. } => Kind::TenantServerUnavailable,
            E::PoolTimeout { .. }
            | E::PoolsBusy { .. }
            | E::QueueFull { .. }
            | E::StillInUse { .. }
            | E::Changing { .. } => Kind::PoolTimeout,
            E::Registry { .. } | E::Incomplete { .. } | E::LoginRefused { .. } | E::Unseal { .. } => {
                Kind::Internal
            }
        };
        Self::caused(kind, error)
    }
}

/// What a user is told whose laboratory is not in service.
fn not_serving(state: TenantState) -> Problem {
    match state {
        TenantState::Provisioning => Problem::new(Kind::TenantProvisioning),
        TenantState::Suspended => Problem::new(Kind::TenantSuspended),
        TenantState::Deleting => Problem::new(Kind::TenantDeleting),
        TenantState::Active => Problem::internal("an active laboratory was reported as not in service"),
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        use RegistryError as E;
        match &error {
            E::Unavailable { .. } => Self::caused(Kind::RegistryUnavailable, error),
            E::SlugTaken { .. } => Self::with(Kind::SlugTaken, error.to_string()),
            E::DatabaseTaken { .. } | E::EmailTaken { .. } => Self::with(Kind::Duplicate, error.to_string()),
            E::UnknownServer { .. } => Self::with(Kind::Invalid, error.to_string()),
            E::NotFound {
                what: "laboratory", ..
            } => Self::with(Kind::UnknownTenant, error.to_string()),
            E::NotFound { .. } => Self::with(Kind::NotFound, error.to_string()),
            E::Illegal(_) => Self::with(Kind::IllegalTransition, error.to_string()),
            E::OperationInProgress { .. } | E::NotReopenable { .. } => {
                Self::with(Kind::OperationInProgress, error.to_string())
            }
            E::IdempotencyKeyUsed { .. } => Self::with(Kind::IdempotencyKeyReused, error.to_string()),
            E::CorruptRow { .. }
            | E::VersionMismatch { .. }
            | E::LeaseLost { .. }
            | E::Migrate { .. }
            | E::Db { .. } => Self::internal(error),
        }
    }
}

impl From<SlugError> for Problem {
    fn from(error: SlugError) -> Self {
        Self::with(Kind::InvalidSlug, error.to_string())
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        use TokenError as E;
        let kind = match error {
            E::Expired => Kind::TokenExpired,
            E::Malformed | E::BadSignature | E::WrongIssuer | E::WrongAudience | E::NotYetValid => {
                Kind::TokenInvalid
            }
        };
        Self::new(kind)
    }
}

impl From<PasswordError> for Problem {
    fn from(error: PasswordError) -> Self {
        use PasswordError as E;
        match &error {
            E::Busy { .. } => Self::caused(Kind::Busy, error),
            E::Malformed { .. } | E::Failed { .. } => Self::internal(error),
        }
    }
}

impl From<ProvisionError> for Problem {
    fn from(error: ProvisionError) -> Self {
        use ProvisionError as E;
        match error {
            E::Registry(error) => error.into(),
            E::Connect(_) | E::StillConnected { .. } | E::TookTooLong { .. } => {
                Self::caused(Kind::TenantServerUnavailable, error)
            }
            E::Busy { .. } | E::Interrupted { .. } => Self::caused(Kind::Busy, error),
            E::Invalid { field, .. } => {
                let item = ItemError {
                    pointer: field.to_owned(),
                    detail: error.to_string(),
                    code: None,
                };
                Self::with(Kind::Invalid, error.to_string()).items(vec![item])
            }
            E::WhichServer { .. } => Self::with(Kind::Invalid, error.to_string()),
            E::IdempotencyMismatch { .. } => Self::with(Kind::IdempotencyKeyReused, error.to_string()),
            E::NotMigratable { .. } => Self::with(Kind::IllegalTransition, error.to_string()),
            E::TenantGone { .. } => Self::with(Kind::UnknownTenant, error.to_string()),
            E::Migrate(_)
            | E::Db { .. }
            | E::Sealed { .. }
            | E::NotOurs { .. }
            | E::Missing { .. }
            | E::Check { .. }
            | E::Seed { .. }
            | E::Program { .. }
            | E::ProgramTooOld { .. }
            | E::ProgramFailed { .. }
            | E::DiskFull { .. }
            | E::Io { .. }
            | E::Differs { .. }
            | E::ArchiveBroken { .. }
            | E::WasInService { .. }
            | E::Failed { .. }
            | E::CorruptStep { .. } => Self::internal(error),
        }
    }
}

impl From<LabError> for Problem {
    fn from(error: LabError) -> Self {
        use LabError as E;
        match error {
            E::NotFound { .. } => Self::with(Kind::NotFound, error.to_string()),
            E::Conflict {
                code: "duplicate",
                message,
            } => Self::with(Kind::Duplicate, message),
            E::Conflict { code, message } => {
                let item = ItemError {
                    pointer: String::new(),
                    detail: message.clone(),
                    code: Some(code.to_owned()),
                };
                Self::with(Kind::Conflict, message).items(vec![item])
            }
            E::Items(ref items) => Self::with(Kind::ItemsRefused, error.to_string())
                .items(items.iter().map(ItemError::from).collect()),
            E::Refused { guard, .. } => Self::with(refused(guard), error.to_string()),
            E::Version { .. } => Self::with(Kind::VersionMismatch, error.to_string()),
            E::Invalid(ref fields) => Self::with(Kind::Invalid, error.to_string())
                .items(fields.iter().map(ItemError::from).collect()),
            E::KeyReused => Self::with(Kind::IdempotencyKeyReused, error.to_string()),
            E::KeyInFlight => Self::with(Kind::IdempotencyInFlight, error.to_string()),
            E::CorruptRow { .. } => Self::internal(error),
            E::Db(source) => database(&source),
        }
    }
}

/// What the database's own rules mean to a client. All of them are conflicts with the state of things; the code above
/// them should have said so first.
fn refused(guard: Guard) -> Kind {
    match guard {
        Guard::Kept
        | Guard::Step
        | Guard::Silent
        | Guard::Reason
        | Guard::Moved
        | Guard::Amendment
        | Guard::Beginning
        | Guard::SelfVerification
        | Guard::CriticalNotice
        | Guard::Specimen
        | Guard::Missing => Kind::Conflict,
    }
}

fn database(error: &tokio_postgres::Error) -> Problem {
    let said = pg::describe(error);
    if pg::is_unavailable(error) {
        return Problem::caused(Kind::TenantServerUnavailable, said);
    }
    match error.code().map(SqlState::code) {
        // A text holds a character that the database cannot store, such as U+0000.
        Some("22021" | "22P05") => Problem::with(
            Kind::Invalid,
            "A text holds a character that cannot be stored, such as U+0000; take it out.",
        ),
        // Data exceptions: a date before all calendars, a number past the column's digits.
        Some(code) if code.starts_with("22") => {
            let mut problem = Problem::with(
                Kind::Invalid,
                "A value is out of the range that can be stored or compared.",
            );
            problem.0.cause = Some(said);
            problem
        }
        // Deadlock, serialization failure, lock or statement timeout: the same request may pass in a moment.
        Some("40P01" | "40001" | "55P03" | "57014") => Problem::caused(Kind::Busy, said),
        _ => Problem::internal(said),
    }
}

impl From<&ItemProblem> for ItemError {
    fn from(item: &ItemProblem) -> Self {
        Self {
            pointer: item.id.to_string(),
            detail: item.message.clone(),
            code: Some(item.code.to_owned()),
        }
    }
}

impl From<&FieldProblem> for ItemError {
    fn from(field: &FieldProblem) -> Self {
        Self {
            pointer: field.field.clone(),
            detail: field.message.clone(),
            code: None,
        }
    }
}
