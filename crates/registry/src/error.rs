use std::fmt;

use model::{DbName, Email, IllegalTransition, OperationId, SchemaVersion, ServerName, Slug, TenantId};
use tokio_postgres::error::SqlState;

/// What the registry has rows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entity {
    /// A tenant.
    Laboratory,
    /// A tenant's administrator.
    Administrator,
    /// A person who runs the installation.
    Operator,
    /// An operation of the provisioner.
    Operation,
    /// An archive of a tenant's data.
    Archive,
    /// An address that events are sent to.
    Webhook,
    /// One event on its way to one webhook.
    Delivery,
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Laboratory => "laboratory",
            Self::Administrator => "administrator",
            Self::Operator => "operator",
            Self::Operation => "operation",
            Self::Archive => "archive",
            Self::Webhook => "webhook",
            Self::Delivery => "delivery",
        })
    }
}

/// Why the registry could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The master database cannot be reached, or is too busy; it may pass by itself.
    #[error("the registry cannot be reached: {reason}")]
    Unavailable {
        /// What was tried and what came of it.
        reason: String,
    },
    /// Another laboratory has this slug.
    #[error("the slug {slug} is taken; choose another")]
    SlugTaken {
        /// The slug that was wanted.
        slug: Slug,
    },
    /// Another laboratory has this database.
    #[error("the database {db_name} belongs to another laboratory")]
    DatabaseTaken {
        /// The database that was wanted.
        db_name: DbName,
    },
    /// The address is in use where it must be unique.
    #[error("{email} is registered already")]
    EmailTaken {
        /// The address.
        email: Email,
    },
    /// No server of this name is in the registry.
    #[error("no server is registered as {name}; `tenantctl up` registers the configured one")]
    UnknownServer {
        /// The name that was given.
        name: ServerName,
    },
    /// There is no such row.
    #[error("there is no {what} {id}")]
    NotFound {
        /// What was looked for.
        what: Entity,
        /// By which key.
        id: String,
    },
    /// A row holds what this code cannot read.
    #[error(
        "{table}.{column} of the row {id} cannot be read: {reason}; was it written by hand or by a newer \
         version?"
    )]
    CorruptRow {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's key.
        id: String,
        /// What is wrong with the value.
        reason: String,
    },
    /// The database that is to hold the registry holds something else, or is the server's own. Nothing was
    /// changed.
    #[error(
        "the database {database} cannot be the registry: {why}; name another one with MASTER_PGDATABASE \
         (registry.database), which `tenantctl up` creates. Nothing was changed"
    )]
    NotARegistry {
        /// The database.
        database: String,
        /// What it is.
        why: String,
    },
    /// The registry's schema is not the one this binary was built for.
    #[error("{}", version_mismatch(*.found, *.expected))]
    VersionMismatch {
        /// The version of the database.
        found: SchemaVersion,
        /// The version of this binary.
        expected: SchemaVersion,
    },
    /// The change does not fit the laboratory's state.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// Another operation on the laboratory has not ended yet.
    #[error("another operation on this laboratory is still under way; wait for it to end, then ask again")]
    OperationInProgress {
        /// The laboratory.
        tenant: TenantId,
    },
    /// An operation with this idempotency key exists; it is the answer to this request too.
    #[error("an operation with the idempotency key {key:?} exists already")]
    IdempotencyKeyUsed {
        /// The key.
        key: String,
    },
    /// The worker no longer holds the operation's lease: another may be running it.
    #[error("the lease on operation {operation} is lost; another worker goes on with it")]
    LeaseLost {
        /// The operation.
        operation: OperationId,
    },
    /// Only an operation that failed can be opened again.
    #[error("operation {operation} cannot be opened again: only one that has failed can")]
    NotReopenable {
        /// The operation.
        operation: OperationId,
    },
    /// The operation is too far, or over.
    #[error("operation {operation} cannot be cancelled: {why}")]
    NotCancellable {
        /// The operation.
        operation: OperationId,
        /// Why.
        why: &'static str,
    },
    /// The operation does not wait for a time to pass.
    #[error("operation {operation} does not wait for a time to pass: {does}")]
    NotWaiting {
        /// The operation.
        operation: OperationId,
        /// What it does instead.
        does: &'static str,
    },
    /// The master database takes no writes, which were needed. Nothing was changed.
    #[error(
        "the registry's database {database} takes no writes now (SQLSTATE 25006): it is a standby, as after \
         a failover, or default_transaction_read_only is on, as where a provider keeps a full disk from \
         filling further; name the primary (MASTER_PGHOST), give it room, or look who set it. Nothing was \
         changed"
    )]
    ReadOnly {
        /// Its database.
        database: String,
    },
    /// A migration of the registry itself failed.
    #[error("the registry's schema could not be brought up to date: {reason}")]
    Migrate {
        /// What failed.
        reason: String,
    },
    /// The database refused a statement.
    #[error("the registry refused {doing}: {}", pg::describe(.source))]
    Db {
        /// What was being done.
        doing: &'static str,
        /// What the driver says.
        source: tokio_postgres::Error,
    },
}

fn version_mismatch(found: SchemaVersion, expected: SchemaVersion) -> String {
    if found > expected {
        format!(
            "the registry's schema is at version {found} and newer than this binary, which knows {expected}; \
             run the newer binary"
        )
    } else {
        format!(
            "the registry's schema is at version {found} and older than this binary, which needs {expected}; \
             run `tenantctl up` to bring it up to date"
        )
    }
}

impl RegistryError {
    /// Sorts a driver's error: the server was not to be had, or it refused the statement.
    pub(crate) fn from_driver(doing: &'static str, source: tokio_postgres::Error) -> Self {
        if pg::is_unavailable(&source) {
            let reason = format!("while {doing}: {}", pg::describe(&source));
            return Self::Unavailable { reason };
        }
        Self::Db { doing, source }
    }

    /// Whether a statement failed that may have been prepared before a change of the schema.
    pub(crate) fn is_outdated(&self) -> bool {
        matches!(self, Self::Db { source, .. } if pg::is_outdated(source))
    }

    /// The constraint that a statement ran into, if that is what happened.
    pub(crate) fn violated(&self) -> Option<&str> {
        let Self::Db { source, .. } = self else {
            return None;
        };
        let db = source.as_db_error()?;
        [&SqlState::UNIQUE_VIOLATION, &SqlState::FOREIGN_KEY_VIOLATION]
            .contains(&db.code())
            .then(|| db.constraint())
            .flatten()
    }
}
