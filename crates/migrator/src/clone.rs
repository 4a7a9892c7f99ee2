//! How a server copies a database to make another: the one place that decides it, and how many copies there
//! are at once.
//!
//! A copy keeps a processor and the log busy: more of them at the same time make each slower and none sooner
//! ready, and whoever works in a laboratory feels it. So a copy waits for its turn, which is an advisory lock
//! on the server itself: the bound holds for all processes and for all namespaces together, and a process
//! that dies gives its turn back.

use std::time::{Duration, Instant};

use model::DbName;
use tokio_postgres::{Client, GenericClient, types::Type};

use crate::MigrateError;

/// The most databases that are made on one server at once, whoever makes them: as many as one worker runs
/// operations by default, so that several workers together weigh no more on the server than one.
pub const CREATES_AT_ONCE_MAX: i32 = 4;
/// The first half of the locks' keys: "tncr" as four bytes.
const TURNS: i32 = i32::from_be_bytes(*b"tncr");
/// How long to wait for a turn; a copy takes a fraction of a second.
const TURN_WAIT: Duration = Duration::from_secs(120);
/// How long to wait between two looks for a free turn.
const TURN_PAUSE: Duration = Duration::from_millis(20);

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
    /// A copy through the log takes this share of the time of one by files, at the median, on two busy
    /// processors and ext4, and `scripts/bench lifecycle --scenario clone --pg-bin DIR` measures it again,
    /// with a template of this schema:
    ///
    /// | PostgreSQL | in quiet | while somebody writes |
    /// |---|---|---|
    /// | 15.18 | 0.38 | 0.17 |
    /// | 16.14 | 0.40 | 0.47 |
    /// | 17.10 | 0.17 | 0.18 |
    /// | 18.4 | 0.20 | 0.37 |
    ///
    /// A writer's commit takes 1.6 to 4.1 times as long at the median while a copy goes through the log, but
    /// that is over in that share of the time. `file_copy_method = clone` of version 18 is no quicker on ext4
    /// (1.2 to 1.3 times the other copy by files), which cannot share blocks and does not refuse either; on a
    /// file system that can it is untried, and it is a setting of the server's owner. So there is one answer
    /// for every version so far, and an unknown one gets it too.
    #[must_use]
    pub fn for_major(_major: u32) -> Self {
        Self::WalLog
    }

    /// The word that follows `STRATEGY`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::WalLog => "wal_log",
            Self::FileCopy => "file_copy",
        }
    }
}

/// The way to copy on the server that `client` is connected to.
async fn clone_strategy(client: &impl GenericClient) -> Result<CloneStrategy, tokio_postgres::Error> {
    let sql = "SELECT current_setting('server_version_num')::int / 10000";
    let major: i32 = client.query_typed_one(sql, &[]).await?.get(0);
    Ok(CloneStrategy::for_major(major.unsigned_abs()))
}

/// Makes a database as a copy of another, in its turn, and closed to everybody. `like` and `options` are
/// written into the statement as they are.
///
/// # Errors
/// [`MigrateError::Db`]; [`MigrateError::Busy`] when no turn comes.
pub async fn create_database(
    client: &Client,
    name: &DbName,
    like: &str,
    options: &str,
) -> Result<(), MigrateError> {
    let failed = || MigrateError::db("making a database", "the server");
    let strategy = clone_strategy(client).await.map_err(failed())?.word();
    let turn = create_turn(client).await?;
    let sql = format!(
        "CREATE DATABASE {name} TEMPLATE {like} {options} STRATEGY {strategy} ALLOW_CONNECTIONS false"
    );
    let made = client.batch_execute(&sql).await;
    // Where the connection broke the server has taken it back already.
    let given_back = client
        .query_typed(
            "SELECT pg_advisory_unlock($1, $2)",
            &[(&TURNS, Type::INT4), (&turn, Type::INT4)],
        )
        .await;
    made.and(given_back.map(drop)).map_err(failed())
}

/// Waits for a turn to make a database on the server and says which. It lasts until it is unlocked or the
/// session ends.
///
/// # Errors
/// As [`create_database`].
pub async fn create_turn(client: &Client) -> Result<i32, MigrateError> {
    // LIMIT ends the look at the first one that is free, so no session takes more than one by it.
    let sql = "SELECT n FROM generate_series(1, $2) AS n WHERE pg_try_advisory_lock($1, n) LIMIT 1";
    let began = Instant::now();
    loop {
        let taken = client
            .query_typed_opt(sql, &[(&TURNS, Type::INT4), (&CREATES_AT_ONCE_MAX, Type::INT4)])
            .await
            .map_err(MigrateError::db(
                "waiting for a turn to make a database",
                "the server",
            ))?;
        if let Some(row) = taken {
            return Ok(row.get(0));
        }
        if began.elapsed() >= TURN_WAIT {
            return Err(MigrateError::Busy {
                doing: "making a database",
                place: "the server".to_owned(),
                waited_s: TURN_WAIT.as_secs(),
            });
        }
        tokio::time::sleep(TURN_PAUSE).await;
    }
}
