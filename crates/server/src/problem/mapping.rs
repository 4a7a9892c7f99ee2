//! The one place where errors of the other crates become problems.
//!
//! Every match is exhaustive: a new variant does not compile until its author decides what the client gets.

use std::time::Duration;

use export::ExportError;
use identity::{PasswordError, TokenError};
use lab::{FieldProblem, Guard, ItemProblem, LabError};
use model::{SlugError, TenantState};
use outbox::OutboxError;
use provisioner::ProvisionError;
use registry::RegistryError;
use resolver::ResolveError;
use tokio_postgres::error::SqlState;

use super::{ItemError, Kind, Problem};

impl From<ResolveError> for Problem {
    fn from(error: ResolveError) -> Self {
        use ResolveError as E;
        let kind = match &error {
            E::UnknownTenant { .. } | E::UnknownSlug { .. } => Kind::UnknownTenant,
            E::SlugLookup { source, .. } if matches!(**source, RegistryError::Unavailable { .. }) => {
                Kind::RegistryUnavailable
            }
            E::SlugLookup { .. } => Kind::Internal,
            E::NotServing { state, .. } => return not_serving(*state),
            E::Behind { .. } => Kind::VersionBehind,
            E::Ahead { .. } => Kind::VersionAhead,
            E::RegistryUnavailable { .. } => Kind::RegistryUnavailable,
            E::ServerUnavailable { .. } | E::BudgetTooLarge { .. } => Kind::TenantServerUnavailable,
            // Most often the server's own fence, put up before we heard why. Where it stays, the server
            // answers all the same: the role's password or its right to connect was changed there.
            E::LoginRefused { .. } => Kind::TenantLoginRefused,
            E::ServerDown { retry_after, .. } => {
                let after_s = whole_seconds(*retry_after);
                return Self::caused(Kind::TenantServerUnavailable, error).retry_after_s(after_s);
            }
            E::BudgetBusy { .. } => Kind::ServerBusy,
            E::PoolTimeout { .. }
            | E::PoolsBusy { .. }
            | E::QueueFull { .. }
            | E::StillInUse { .. }
            | E::Changing { .. } => Kind::PoolTimeout,
            E::Registry { .. } | E::Incomplete { .. } | E::Unseal { .. } => Kind::Internal,
        };
        Self::caused(kind, error)
    }
}

/// For `Retry-After`: rounded up, so that whoever waits that long does not come too early, and at least 1.
fn whole_seconds(time: Duration) -> u32 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
}

/// The problem for a user whose laboratory is not in service.
fn not_serving(state: TenantState) -> Problem {
    match state {
        TenantState::Provisioning => Problem::new(Kind::TenantProvisioning),
        TenantState::Suspended => Problem::new(Kind::TenantSuspended),
        TenantState::Deleting => Problem::new(Kind::TenantDeleting),
        TenantState::Restoring => Problem::new(Kind::TenantRestoring),
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
            E::UnknownServer { .. } => Self::field(Kind::Invalid, "server", error.to_string()),
            E::NotFound {
                what: registry::Entity::Laboratory,
                ..
            } => Self::with(Kind::UnknownTenant, error.to_string()),
            E::NotFound { .. } => Self::with(Kind::NotFound, error.to_string()),
            E::Illegal(_) => Self::with(Kind::IllegalTransition, error.to_string()),
            E::OperationInProgress { .. } => Self::with(Kind::OperationInProgress, error.to_string()),
            E::NotReopenable { .. } | E::NotCancellable { .. } | E::NotWaiting { .. } => {
                Self::with(Kind::Conflict, error.to_string())
            }
            E::IdempotencyKeyUsed { .. } => Self::with(Kind::IdempotencyKeyReused, error.to_string()),
            E::Db { source, .. } if unstorable(source) => Self::with(Kind::Invalid, UNSTORABLE),
            E::ReadOnly { .. } => Self::caused(Kind::DatabaseReadOnly, error),
            E::Db { source, .. } if pg::is_read_only(source) => Self::caused(Kind::DatabaseReadOnly, error),
            E::CorruptRow { .. }
            | E::VersionMismatch { .. }
            | E::NotARegistry { .. }
            | E::LeaseLost { .. }
            | E::Migrate { .. }
            | E::Db { .. } => Self::internal(error),
        }
    }
}

impl From<ExportError> for Problem {
    fn from(error: ExportError) -> Self {
        use ExportError as E;
        match &error {
            E::Connect(_) => Self::caused(Kind::TenantServerUnavailable, error),
            E::Db { source, .. } if pg::is_unavailable(source) => {
                Self::caused(Kind::TenantServerUnavailable, error)
            }
            E::Db { .. } | E::Receiver(_) | E::Archive(_) | E::NoMarker { .. } | E::TookTooLong { .. } => {
                Self::internal(error)
            }
        }
    }
}

impl From<SlugError> for Problem {
    fn from(error: SlugError) -> Self {
        Self::field(Kind::InvalidSlug, "slug", error.to_string())
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
            E::ClientBusy => Self::new(Kind::TooManyAtOnce),
            E::Malformed { .. } | E::Failed { .. } => Self::internal(error),
        }
    }
}

impl From<ProvisionError> for Problem {
    fn from(error: ProvisionError) -> Self {
        use ProvisionError as E;
        match error {
            E::Registry(error) => error.into(),
            E::Connect(_) | E::StillConnected { .. } => Self::caused(Kind::TenantServerUnavailable, error),
            E::Busy { .. } | E::Interrupted { .. } => Self::caused(Kind::Busy, error),
            E::Invalid { field, .. } => Self::field(Kind::Invalid, field, error.to_string()),
            E::NoSuchDatabase { .. } | E::NotAdoptable { .. } => {
                Self::field(Kind::Invalid, "database", error.to_string())
            }
            E::WhichServer { .. } => Self::field(Kind::Invalid, "server", error.to_string()),
            E::IdempotencyMismatch { .. } => Self::with(Kind::IdempotencyKeyReused, error.to_string()),
            E::NotMigratable { .. } | E::Refused { .. } | E::ArchiveTooNew { .. } => {
                Self::with(Kind::IllegalTransition, error.to_string())
            }
            E::Unmet { .. } | E::NotOurs { .. } => Self::with(Kind::PreconditionUnmet, error.to_string()),
            E::Cancelled { .. } => Self::with(Kind::Conflict, error.to_string()),
            E::TenantGone { .. } => Self::with(Kind::UnknownTenant, error.to_string()),
            E::Db { ref source, .. } if pg::is_read_only(source) => {
                Self::caused(Kind::DatabaseReadOnly, error)
            }
            E::Migrate(_)
            | E::Db { .. }
            | E::Sealed { .. }
            | E::Missing { .. }
            | E::Check { .. }
            | E::Seed { .. }
            | E::Archive(_)
            | E::Differs { .. }
            | E::Changed { .. }
            | E::Elsewhere { .. }
            | E::WasInService { .. }
            | E::Held { .. }
            | E::Failed { .. }
            | E::CorruptStep { .. } => Self::internal(error),
        }
    }
}

impl From<OutboxError> for Problem {
    fn from(error: OutboxError) -> Self {
        use OutboxError as E;
        match error {
            E::Registry(error) => error.into(),
            E::Invalid { field, .. } => Self::field(Kind::Invalid, field, error.to_string()),
            E::Sealed { .. } | E::Tls { .. } => Self::internal(error),
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
                    id: None,
                };
                Self::with(Kind::Conflict, message).items(vec![item])
            }
            E::At { field, source } => Self::from(*source).blaming(&field),
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

/// What the database's own rules mean to a client. All of them are conflicts with the state of things; the
/// code above them should have said so first.
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
        | Guard::Missing
        | Guard::Form
        | Guard::Time
        | Guard::Evaluation
        | Guard::Fit
        | Guard::Overlap
        | Guard::Lifted
        | Guard::LimitsLost
        | Guard::Contradicted => Kind::Conflict,
    }
}

const UNSTORABLE: &str = "A text holds a character that cannot be stored, such as U+0000; take it out.";

/// Whether a text holds a character that PostgreSQL cannot store, in a column of text or of jsonb.
fn unstorable(error: &tokio_postgres::Error) -> bool {
    matches!(error.code().map(SqlState::code), Some("22021" | "22P05"))
}

fn database(error: &tokio_postgres::Error) -> Problem {
    let said = pg::describe(error);
    if pg::is_unavailable(error) {
        return Problem::caused(Kind::TenantServerUnavailable, said);
    }
    if unstorable(error) {
        return Problem::with(Kind::Invalid, UNSTORABLE);
    }
    match error.code().map(SqlState::code) {
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
        _ if pg::is_read_only(error) => Problem::caused(Kind::DatabaseReadOnly, said),
        _ => Problem::internal(said),
    }
}

impl From<&ItemProblem> for ItemError {
    fn from(item: &ItemProblem) -> Self {
        Self {
            pointer: format!("items[{}]", item.index),
            detail: item.message.clone(),
            code: Some(item.code.to_owned()),
            id: Some(item.id.as_uuid()),
        }
    }
}

impl From<&FieldProblem> for ItemError {
    fn from(field: &FieldProblem) -> Self {
        Self {
            pointer: field.field.clone(),
            detail: field.message.clone(),
            code: None,
            id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::{ResponseError as _, body::to_bytes, http::header};
    use model::{ServerName, TenantId};
    use resolver::Capacity;

    use super::*;

    fn response_to(error: ResolveError) -> (u16, String, String, String) {
        let cause = error.to_string();
        let problem = Problem::from(error);
        assert_eq!(problem.cause(), Some(cause.as_str()), "the log has the figures");
        let response = problem.error_response();
        let after = response
            .headers()
            .get(header::RETRY_AFTER)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let status = response.status().as_u16();
        let body = futures_util::future::FutureExt::now_or_never(to_bytes(response.into_body()));
        let body = String::from_utf8(body.unwrap().unwrap().to_vec()).unwrap();
        (status, problem.kind().code().to_owned(), after, body)
    }

    #[test]
    fn a_server_that_is_down_or_full_is_a_503_that_says_when_and_nothing_more() {
        let (tenant, server) = (TenantId::generate(), ServerName::parse("west-7").unwrap());
        let down = |retry_after| ResolveError::ServerDown {
            tenant,
            server: server.clone(),
            reason: "no answer within 3000 ms".to_owned(),
            retry_after,
        };
        let busy = ResolveError::BudgetBusy {
            tenant,
            server: server.clone(),
            budget: 64,
            waited: Duration::from_secs(5),
        };
        let capacity = Capacity {
            max_connections: 100,
            reserved: 3,
        };
        let too_large = ResolveError::BudgetTooLarge {
            tenant,
            server: server.clone(),
            source: capacity.admit(500, 16).unwrap_err(),
        };
        let cases = [
            (down(Duration::ZERO), "tenant-server-unavailable", "1"),
            (
                down(Duration::from_millis(1_001)),
                "tenant-server-unavailable",
                "2",
            ),
            (down(Duration::from_secs(30)), "tenant-server-unavailable", "30"),
            (busy, "server-busy", "1"),
            (too_large, "tenant-server-unavailable", "2"),
        ];
        for (error, code, after) in cases {
            let (status, got_code, got_after, body) = response_to(error);
            assert_eq!(
                (status, got_code.as_str(), got_after.as_str()),
                (503, code, after)
            );
            for figure in ["west-7", "64", "500", "100", "3000", &tenant.to_string()] {
                assert!(!body.contains(figure), "{figure}: {body}");
            }
        }
    }
}
