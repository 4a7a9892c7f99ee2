use std::io;

/// Why a database could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The server could not be reached.
    #[error(transparent)]
    Connect(#[from] pg::ConnectError),
    /// The server refused a statement, or the connection broke.
    #[error("{doing} failed: {}", pg::describe(.source))]
    Db {
        /// What was being done.
        doing: String,
        /// What the driver says.
        source: tokio_postgres::Error,
    },
    /// The reader of the archive has gone.
    #[error("the export could not be written: {0}")]
    Receiver(#[source] io::Error),
    /// The archive could not be made.
    #[error("the archive could not be made: {0}")]
    Archive(#[from] zip::result::ZipError),
    /// No text is left that could stand for an absent value.
    #[error(
        "the table {table} cannot be exported: it holds the text \\N999999999, so no text is left that means an absent value"
    )]
    NoMarker {
        /// The table.
        table: String,
    },
    /// It was not done in time.
    #[error("the export was not done within {} s and was stopped", .limit.as_secs())]
    TookTooLong {
        /// The limit.
        limit: std::time::Duration,
    },
}

impl ExportError {
    pub(crate) fn db(doing: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Db {
            doing: doing.into(),
            source,
        }
    }
}
