//! How a server copies a database to make another: the one place that decides it.

use tokio_postgres::GenericClient;

/// The way in which `CREATE DATABASE … TEMPLATE` copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloneStrategy {
    /// Block by block, through the write-ahead log.
    WalLog,
    /// File by file, between two checkpoints of the whole server.
    FileCopy,
}

impl CloneStrategy {
    /// Every way there is.
    pub const ALL: [Self; 2] = [Self::WalLog, Self::FileCopy];

    /// The quicker one on servers of this major version, for databases as small as a template is.
    #[must_use]
    pub fn for_major(_major: u32) -> Self {
        Self::WalLog
    }

    /// The word that stands behind `STRATEGY`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::WalLog => "wal_log",
            Self::FileCopy => "file_copy",
        }
    }
}

/// The way to copy on the server that `client` is connected to.
///
/// # Errors
/// The driver's, when the server cannot be asked.
pub async fn clone_strategy(client: &impl GenericClient) -> Result<CloneStrategy, tokio_postgres::Error> {
    let sql = "SELECT current_setting('server_version_num')::int / 10000";
    let major: i32 = client.query_one(sql, &[]).await?.get(0);
    Ok(CloneStrategy::for_major(major.unsigned_abs()))
}
