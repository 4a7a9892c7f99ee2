use std::{io, path::PathBuf, time::Duration};

/// Why an archive could not be written, read or trusted.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The server cannot be reached.
    #[error(transparent)]
    Connect(#[from] pg::ConnectError),
    /// The server refused a statement.
    #[error("{doing} failed on {server}: {}", pg::describe(.source))]
    Db {
        /// What was being done.
        doing: &'static str,
        /// Where.
        server: String,
        /// What the driver says.
        source: tokio_postgres::Error,
    },
    /// `pg_dump` or `pg_restore` is not there, cannot be started, or says what the server does not
    /// understand.
    #[error(
        "{program} cannot be used: {why}; install PostgreSQL's client programs of the server's version or \
         set TENANTRY_PG_BIN to their directory"
    )]
    Program {
        /// Its path.
        program: PathBuf,
        /// Why.
        why: String,
    },
    /// `pg_dump` refuses servers newer than itself.
    #[error(
        "{program} is of PostgreSQL {have}, older than the server {server}, which is {need}; install \
         PostgreSQL {need}'s client programs or set TENANTRY_PG_BIN to their directory"
    )]
    ProgramTooOld {
        /// Its path.
        program: PathBuf,
        /// Its major version.
        have: u32,
        /// The server.
        server: String,
        /// The server's major version.
        need: u32,
    },
    /// `pg_dump` or `pg_restore` ended with an error.
    #[error("{program} failed for {database}: {said}")]
    ProgramFailed {
        /// Which of the two.
        program: &'static str,
        /// On which database.
        database: String,
        /// The end of what it wrote to its error output.
        said: String,
    },
    /// The disk under the archives is full.
    #[error("no space is left for {path}; make room there, then run the operation again: nothing was lost")]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error(
        "{doing} {path} failed: {source}; see to it that TENANTRY_ARCHIVE_DIR names a directory in which \
         this process may write, then run the operation again"
    )]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An object store refused or cannot be reached.
    #[error(
        "{doing} {location} failed: {why}; look at archive.url and at the store's credentials in the \
         environment"
    )]
    Store {
        /// What was being done.
        doing: &'static str,
        /// To what.
        location: String,
        /// What the store says.
        why: String,
        /// Whether the failure may pass by itself.
        passing: bool,
    },
    /// The configured location is not a path or a URL that this version knows.
    #[error(
        "{url:?} cannot hold archives: {why}; use a directory, file:///directory, s3://bucket/prefix, \
         gs://bucket/prefix or az://container/prefix"
    )]
    BadUrl {
        /// As configured or recorded.
        url: String,
        /// Why.
        why: String,
    },
    /// An encryption key is wrong, missing, or not the one.
    #[error("{what}: {why}")]
    Key {
        /// Which key, and what to do.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Something took longer than it may.
    #[error("{what} was not done within {} s and was stopped", .limit.as_secs())]
    TookTooLong {
        /// What.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// The archive is not what was recorded, or is not there.
    #[error(
        "the archive {location} cannot be trusted: {why}; nothing was dropped. A backup or removal that \
         runs again makes another dump; to restore, take another archive (`tenantctl archives list`)"
    )]
    Broken {
        /// The dump or its manifest.
        location: String,
        /// What is wrong.
        why: String,
    },
}

impl ArchiveError {
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

    /// A full disk has a sentence of its own.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.into();
            if matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ) {
                Self::DiskFull { path }
            } else {
                Self::Io { doing, path, source }
            }
        }
    }

    pub(crate) fn broken(location: impl ToString, why: impl ToString) -> Self {
        Self::Broken {
            location: location.to_string(),
            why: why.to_string(),
        }
    }
}
