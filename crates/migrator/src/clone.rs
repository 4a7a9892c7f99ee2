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
    ///
    /// A copy through the log takes this share of the time of one by files, at the median, on two busy processors and ext4, and
    /// `scripts/bench lifecycle --scenario clone --pg-bin DIR` measures it again, with a template of this schema:
    ///
    /// | PostgreSQL | in quiet | while somebody writes |
    /// |---|---|---|
    /// | 15.18 | 0.38 | 0.17 |
    /// | 16.14 | 0.40 | 0.47 |
    /// | 17.10 | 0.17 | 0.18 |
    /// | 18.4 | 0.20 | 0.37 |
    ///
    /// A writer's commit takes 1.6 to 4.1 times as long at the median while a copy goes through the log, but that is over in that
    /// share of the time. `file_copy_method = clone` of version 18 is no quicker on ext4 (1.2 to 1.3 times the other copy
    /// by files), which cannot share blocks and does not refuse either; on a file system that can it is untried, and it is a
    /// setting of the server's owner. So there is one answer for every version so far, and an unknown one gets it too.
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
