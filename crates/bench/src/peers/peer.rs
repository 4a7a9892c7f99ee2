//! What every side offers, and what a scenario says to it.

use futures_util::future::BoxFuture;
use tokio_postgres::error::SqlState;

use crate::tenants::ITEMS;

/// What a caller wants done on its laboratory's database.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// One row by its key.
    Point,
    /// A statement that takes 20 ms and no processor.
    Sleep,
}

pub(crate) const POINT: &str = "SELECT body FROM items WHERE id = $1";
pub(crate) const SLEEP: &str = "SELECT pg_sleep(0.02)";

/// Any row will do, but not always the same.
pub(crate) fn item() -> i32 {
    rand::random_range(1..=ITEMS)
}

/// Why a request was not answered.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// SQLSTATE or a word.
    pub(crate) kind: String,
    /// Whether the server refused a connection because it was full (53300).
    pub(crate) refused: bool,
}

impl Failure {
    pub(crate) fn new(kind: impl Into<String>) -> Self {
        let kind = kind.into();
        Self {
            refused: kind.contains(SqlState::TOO_MANY_CONNECTIONS.code()),
            kind,
        }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) if db.code() == &SqlState::PROTOCOL_VIOLATION => {
                // PgBouncer gives everything this code; its words tell more.
                Self::new(format!("{}: {}", db.code().code(), db.message()))
            }
            Some(db) => Self::new(db.code().code()),
            None if error.is_closed() => Self::new("connection closed"),
            None => Self::new(error.to_string()),
        }
    }
}

/// One side of a comparison.
pub(crate) trait Peer: Send + Sync {
    /// One request for the tenant of this number: a connection, the work, and the connection given back.
    fn request(&self, tenant: usize, work: Work) -> BoxFuture<'_, Result<(), Failure>>;

    /// What it counts itself, such as connects.
    fn connects(&self) -> Option<u64> {
        None
    }

    /// Lets go of every connection to the server.
    fn rest(&self) -> BoxFuture<'_, anyhow::Result<()>>;
}

/// What depends on the scenario; the rest of a side's tuning is its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    pub(crate) naive: NaiveTuning,
    /// PgBouncer's `default_pool_size`.
    pub(crate) bouncer_pool: usize,
    /// The most clients that one tenant has at once.
    pub(crate) clients: usize,
}

/// How large a map of pools is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NaiveTuning {
    pub(crate) pools: usize,
    /// Connections of each.
    pub(crate) size: usize,
    /// Requests under way at once. Without a bound, pools would be evicted while they are in use, and their
    /// checked-out connections would come on top.
    pub(crate) places: usize,
}

impl NaiveTuning {
    /// What did best with many tenants: a connection each for as many as fit, and fewer requests at once.
    pub(crate) fn many(budget: usize) -> Self {
        Self {
            pools: budget,
            size: 1,
            places: budget * 2 / 3,
        }
    }
}
