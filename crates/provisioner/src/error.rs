use std::time::Duration;

use archive::ArchiveError;

use model::{ArchiveId, OperationId, OperationKind, SchemaVersion, Slug, Step, TenantState};
use registry::RegistryError;
use tokio_postgres::error::SqlState;

/// Any error of a hook that the binaries pass in.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a laboratory could not be changed as asked.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The registry refused or cannot be reached.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Template, migration or rights.
    #[error(transparent)]
    Migrate(#[from] migrator::MigrateError),
    /// A server cannot be reached.
    #[error(transparent)]
    Connect(#[from] pg::ConnectError),
    /// A server refused a statement.
    #[error("{doing} failed on {server}: {}", pg::describe(.source))]
    Db {
        /// What was being done.
        doing: &'static str,
        /// Where.
        server: String,
        /// What the driver says.
        source: tokio_postgres::Error,
    },
    /// A stored password cannot be read with the key that this process has.
    #[error("the stored password of {of} cannot be read: {why}")]
    Sealed {
        /// Whose password.
        of: String,
        /// What the sealer says; it names keys by their ids.
        why: String,
    },
    /// What was asked for cannot be.
    #[error("{why}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// The server has no database of the name that is to be adopted.
    #[error("the server {server} has no database {database}")]
    NoSuchDatabase {
        /// The name.
        database: String,
        /// The server's host.
        server: String,
    },
    /// The database that is to be adopted cannot become a laboratory's as it is.
    #[error("the database {database} cannot be adopted: {why}")]
    NotAdoptable {
        /// The database.
        database: String,
        /// What is in the way, and what to do.
        why: String,
    },
    /// More than one server is registered, or none, and the request names none.
    #[error("{}", which_server(.known))]
    WhichServer {
        /// Those that are registered.
        known: Vec<String>,
    },
    /// The same idempotency key came before with other content.
    #[error("the idempotency key {key:?} was used before for another request")]
    IdempotencyMismatch {
        /// The key.
        key: String,
    },
    /// Only a laboratory in service or suspended has a schema to migrate.
    #[error("{slug} is {state}: only an active or suspended laboratory can be migrated")]
    NotMigratable {
        /// The laboratory.
        slug: Slug,
        /// Where it stands.
        state: TenantState,
    },
    /// Something of the needed name exists and was not made for this laboratory.
    #[error(
        "the {what} {name} on {server} was not made for this laboratory: it lacks the ownership comment \
         `tenantry laboratory <id>`, so it is left alone; `tenantctl doctor` says how to put the comment \
         back if it is the laboratory's own after all; if it is another's, rename it"
    )]
    NotOurs {
        /// Database or role.
        what: &'static str,
        /// Its name.
        name: String,
        /// On which server.
        server: String,
    },
    /// Something that an earlier step made is not there any more.
    #[error("the {what} {name} is missing on {server}; was it removed by hand?")]
    Missing {
        /// Database, role, password.
        what: &'static str,
        /// Its name.
        name: String,
        /// On which server.
        server: String,
    },
    /// Sessions that should be gone are still there.
    #[error("{count} sessions of database {database} on {server} did not end within {} ms", .waited.as_millis())]
    StillConnected {
        /// Which database.
        database: String,
        /// On which server.
        server: String,
        /// How many.
        count: i64,
        /// How long we waited.
        waited: Duration,
    },
    /// A predecessor's session holds this laboratory's lock and does not end.
    #[error("another process still works on this laboratory on {server}; waited {} ms for it", .waited.as_millis())]
    Busy {
        /// On which server.
        server: String,
        /// How long we waited.
        waited: Duration,
    },
    /// The last look before a laboratory goes into service found something wrong.
    #[error("the check before going into service failed: {why}")]
    Check {
        /// What was found.
        why: String,
    },
    /// The laboratory's first rows could not be written.
    #[error("writing the laboratory's first rows failed: {why}")]
    Seed {
        /// The hook's error with its causes.
        why: String,
        /// Whether the failure lay in reaching the server.
        passing: bool,
    },
    /// An archive could not be written, read or trusted.
    #[error(transparent)]
    Archive(#[from] archive::ArchiveError),
    /// The restored copy does not hold what the laboratory held.
    #[error("the restored dump differs from the laboratory: {why}; nothing was dropped")]
    Differs {
        /// The first difference.
        why: String,
    },
    /// A closed laboratory is not any more what its archive holds.
    #[error(
        "the laboratory was changed since it was archived: {why}; nothing was dropped, and a new dump is made"
    )]
    Changed {
        /// The first difference.
        why: String,
    },
    /// The archive is of a newer schema than this code's.
    #[error(
        "archive {archive} is of schema version {have}, newer than this version's {code}; restore it with a \
         newer tenantctl"
    )]
    ArchiveTooNew {
        /// Which.
        archive: ArchiveId,
        /// Its version.
        have: SchemaVersion,
        /// This code's.
        code: SchemaVersion,
    },
    /// An archive cannot be restored as asked, or a laboratory not be backed up.
    #[error("{why}")]
    Refused {
        /// Why, and what can be done instead.
        why: String,
    },
    /// Something that the operation needs is not there. It was looked at before anything was changed.
    #[error("{kind} cannot begin, and nothing was changed: {}", .why.join("; "))]
    Unmet {
        /// Which operation.
        kind: OperationKind,
        /// What is missing, and what to do about it.
        why: Vec<String>,
    },
    /// Something keeps a database from being dropped.
    #[error("{}; the database stays, and is open to superusers", .why.join("; "))]
    Held {
        /// What, and how to end it.
        why: Vec<String>,
    },
    /// What is needed lies in a directory of another host.
    #[error(
        "{location} lies on host {host} and cannot be read on {here}; a tenantd on {host}, or on a host that \
         shares its archives, can go on with it"
    )]
    Elsewhere {
        /// What.
        location: String,
        /// The host that has it.
        host: String,
        /// This host.
        here: String,
    },
    /// A database that was in service is dropped only once a verified archive of it exists.
    #[error("{slug} has been in service: its database is not dropped without a verified archive")]
    WasInService {
        /// The laboratory.
        slug: Slug,
    },
    /// The laboratory's row is gone, so there is nothing to work on.
    #[error("the laboratory {slug} is gone from the registry; ask for it anew")]
    TenantGone {
        /// Its slug.
        slug: Slug,
    },
    /// The operation ended without success.
    #[error("{kind} of {slug} failed: {error}")]
    Failed {
        /// Which operation.
        operation: OperationId,
        /// What it was to do.
        kind: OperationKind,
        /// To whom.
        slug: Slug,
        /// Why it failed.
        error: String,
    },
    /// The operation was cancelled before it was done.
    #[error("{kind} of {slug} was cancelled: {why}")]
    Cancelled {
        /// Which operation.
        operation: OperationId,
        /// What it was to do.
        kind: OperationKind,
        /// To whom.
        slug: Slug,
        /// By whom.
        why: String,
    },
    /// The work was interrupted from outside; the operation can be taken up again.
    #[error("operation {operation} was interrupted; a worker goes on with it, or run it again")]
    Interrupted {
        /// Which operation.
        operation: OperationId,
    },
    /// A row of an earlier step does not read back.
    #[error("what step {step} of operation {operation} noted cannot be read: {why}")]
    CorruptStep {
        /// Which operation.
        operation: OperationId,
        /// Which step.
        step: Step,
        /// What is wrong.
        why: String,
    },
}

fn which_server(known: &[String]) -> String {
    if known.is_empty() {
        "no server is registered yet; `tenantctl up` registers the configured one".to_owned()
    } else {
        format!(
            "name the server that is to host the laboratory: {}",
            known.join(", ")
        )
    }
}

impl ProvisionError {
    /// For `map_err`: says what was being done and where.
    pub(crate) fn db(
        doing: &'static str,
        server: impl ToString,
    ) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Db {
            doing,
            server: server.to_string(),
            source,
        }
    }

    /// Whether the failure may pass by itself, so that another try is worth while.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Registry(RegistryError::Unavailable { .. }) => true,
            Self::Registry(RegistryError::Db { source, .. }) | Self::Db { source, .. } => is_passing(source),
            Self::Migrate(error) => error.is_transient(),
            Self::Archive(error) => archive_is_transient(error),
            Self::Connect(error) => connect_is_transient(error),
            Self::Seed { passing, .. } => *passing,
            Self::StillConnected { .. } | Self::Busy { .. } | Self::Changed { .. } => true,
            _ => false,
        }
    }

    /// Which steps that are done must be done again before this failure can be fixed.
    pub(crate) fn invalidates(&self, during: Step) -> &'static [Step] {
        match (self, during) {
            (
                Self::Archive(ArchiveError::Broken { .. }) | Self::Changed { .. },
                Step::DropDatabase | Step::SwapDatabase,
            ) => &[Step::Dump, Step::Verify],
            (
                Self::Archive(ArchiveError::Broken { .. } | ArchiveError::ProgramFailed { .. })
                | Self::Differs { .. },
                Step::Verify,
            ) => &[Step::Dump],
            _ => &[],
        }
    }
}

fn connect_is_transient(error: &pg::ConnectError) -> bool {
    error.code().is_none_or(|code| {
        ![
            &SqlState::INVALID_PASSWORD,
            &SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            &SqlState::INVALID_CATALOG_NAME,
            &SqlState::INSUFFICIENT_PRIVILEGE,
        ]
        .contains(&code)
    })
}

fn archive_is_transient(error: &ArchiveError) -> bool {
    match error {
        ArchiveError::Connect(error) => connect_is_transient(error),
        ArchiveError::Db { source, .. } => is_passing(source),
        ArchiveError::TookTooLong { .. } => true,
        ArchiveError::Store { passing, .. } => *passing,
        // A broken connection; a dump that the program itself refuses stays refused.
        ArchiveError::ProgramFailed { said, .. } => [
            "could not connect",
            "connection to server",
            "terminating connection",
            "server closed the connection",
        ]
        .iter()
        .any(|sign| said.contains(sign)),
        _ => false,
    }
}

pub(crate) fn is_passing(error: &tokio_postgres::Error) -> bool {
    pg::is_unavailable(error)
        || error.code().is_some_and(|code| {
            [
                &SqlState::LOCK_NOT_AVAILABLE,
                &SqlState::OBJECT_IN_USE,
                &SqlState::T_R_DEADLOCK_DETECTED,
                &SqlState::T_R_SERIALIZATION_FAILURE,
                // The template was replaced by a newer one between looking and cloning.
                &SqlState::INVALID_CATALOG_NAME,
                &SqlState::DISK_FULL,
                &SqlState::QUERY_CANCELED,
                // Of statements that went out together with one that failed.
                &SqlState::IN_FAILED_SQL_TRANSACTION,
            ]
            .contains(&code)
        })
        // Two at once on one catalogue row: an internal error with no code of its own.
        || error.as_db_error().is_some_and(|db| db.message().contains("tuple concurrently"))
}

/// A step's failure: worth another try, or not.
#[derive(Debug)]
pub(crate) struct StepError {
    pub(crate) error: ProvisionError,
    pub(crate) retry: bool,
}

impl StepError {
    /// It may pass by itself.
    pub(crate) fn retry(error: impl Into<ProvisionError>) -> Self {
        Self {
            error: error.into(),
            retry: true,
        }
    }

    /// Trying again would change nothing.
    pub(crate) fn fatal(error: impl Into<ProvisionError>) -> Self {
        Self {
            error: error.into(),
            retry: false,
        }
    }
}

/// The error itself knows, unless the step knows better.
impl<E: Into<ProvisionError>> From<E> for StepError {
    fn from(error: E) -> Self {
        let error = error.into();
        if error.is_transient() {
            Self::retry(error)
        } else {
            Self::fatal(error)
        }
    }
}
