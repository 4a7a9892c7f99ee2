use model::SchemaVersion;

/// Why a database could not be brought to this code's schema, or a server could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The server could not be reached.
    #[error(transparent)]
    Connect(#[from] pg::ConnectError),
    /// A newer binary has migrated the database; this one must not touch it.
    #[error(
        "database {database} is at schema version {have}, ahead of this binary's {code}; run a binary that \
         knows version {have}"
    )]
    Ahead {
        /// Which database.
        database: String,
        /// The version in its own history.
        have: SchemaVersion,
        /// The newest version that this binary knows.
        code: SchemaVersion,
    },
    /// The database's history holds a row that no migration run can have written.
    #[error(
        "row {row} of refinery_schema_history in database {database} cannot be read: {why}; fix or restore \
         that row before migrating"
    )]
    CorruptHistory {
        /// Which database.
        database: String,
        /// Which row, by its version where that can be read, else by its place.
        row: String,
        /// What is wrong with it.
        why: String,
    },
    /// A migration failed; it was rolled back, those before it stay.
    #[error(
        "migrating database {database} failed: {why}; the failed migration was rolled back (this binary \
         carries {carries})"
    )]
    Migration {
        /// Which database.
        database: String,
        /// refinery's error with its causes.
        why: String,
        /// The embedded migrations.
        carries: String,
        /// The error itself.
        source: Box<refinery::Error>,
    },
    /// The database has a history already, which says something else.
    #[error(
        "the history of database {database} says version {have}, not {wanted}; leave the baseline out to go \
         by it"
    )]
    Baselined {
        /// Which database.
        database: String,
        /// The version in its own history.
        have: SchemaVersion,
        /// The version that was to be written.
        wanted: SchemaVersion,
    },
    /// The run ended, but the history does not show the version that it should.
    #[error("after its migration database {database} shows version {have} in its history, not {code}")]
    NotReached {
        /// Which database.
        database: String,
        /// The version in its own history.
        have: SchemaVersion,
        /// The version that was to be reached.
        code: SchemaVersion,
    },
    /// Another process held the lock for longer than we wait.
    #[error(
        "another process has been {doing} on {place} for more than {waited_s} s; try again when it is done, \
         or look for it in pg_stat_activity"
    )]
    Busy {
        /// What the lock guards.
        doing: &'static str,
        /// Which server and database.
        place: String,
        /// How long we waited, in seconds.
        waited_s: u64,
    },
    /// A REVOKE had no effect, as when the role that runs it does not own the database.
    #[error(
        "every role can still {privileges} in database {database} of {place}; run as its owner {owner}: \
         REVOKE ALL ON DATABASE {database} FROM PUBLIC"
    )]
    StillPublic {
        /// Which database.
        database: String,
        /// Which server.
        place: String,
        /// What PUBLIC can still do.
        privileges: String,
        /// Who could take it away.
        owner: String,
    },
    /// A statement failed.
    #[error("{doing} failed on {place}: {}", pg::describe(.source))]
    Db {
        /// What was being done.
        doing: &'static str,
        /// Which server and database.
        place: String,
        /// What the server said.
        source: tokio_postgres::Error,
    },
}

impl MigrateError {
    /// For `map_err`: says what was being done and where.
    pub(crate) fn db(
        doing: &'static str,
        place: impl ToString,
    ) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Db {
            doing,
            place: place.to_string(),
            source,
        }
    }

    /// Whether the failure may pass by itself: a server out of reach, a lock held by someone else.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        use tokio_postgres::error::SqlState;
        match self {
            Self::Connect(error) => match error.code() {
                None => true,
                Some(code) => {
                    code != &SqlState::INVALID_PASSWORD
                        && code != &SqlState::INVALID_AUTHORIZATION_SPECIFICATION
                }
            },
            Self::Busy { .. } => true,
            Self::Db { source, .. } => is_passing(source),
            Self::Migration { source, .. } => std::error::Error::source(source)
                .and_then(|cause| cause.downcast_ref::<tokio_postgres::Error>())
                .is_some_and(is_passing),
            Self::Ahead { .. }
            | Self::CorruptHistory { .. }
            | Self::Baselined { .. }
            | Self::NotReached { .. }
            | Self::StillPublic { .. } => false,
        }
    }
}

fn is_passing(error: &tokio_postgres::Error) -> bool {
    use tokio_postgres::error::SqlState;
    pg::is_unavailable(error)
        || error.code().is_some_and(|code| {
            [
                &SqlState::LOCK_NOT_AVAILABLE,
                &SqlState::OBJECT_IN_USE,
                &SqlState::T_R_DEADLOCK_DETECTED,
                &SqlState::T_R_SERIALIZATION_FAILURE,
                &SqlState::UNDEFINED_DATABASE,
                &SqlState::DISK_FULL,
                &SqlState::QUERY_CANCELED,
            ]
            .contains(&code)
        })
        // Two at once on one catalogue row: an internal error with no code of its own.
        || error.as_db_error().is_some_and(|db| db.message().contains("tuple concurrently"))
}
