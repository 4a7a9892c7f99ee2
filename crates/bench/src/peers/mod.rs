//! The ways to reach a laboratory's database that are compared: each gets a tenant's number and a piece of work.

mod bouncer;
mod direct;
mod naive;
mod ours;
mod pgbouncer;

use std::sync::Arc;

use anyhow::bail;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio_postgres::error::SqlState;

pub(crate) use self::{
    bouncer::Bouncer,
    direct::once,
    naive::bare as bare_pool,
    ours::{Ours, config as ours_config},
};
use crate::fleet::{Fleet, Host};

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
    rand::random_range(1..=crate::tenants::ITEMS)
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

/// The sides by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Ours,
    PgBouncer,
    Naive,
    Direct,
}

/// Fails early with what to install.
pub(crate) fn check_installed() -> anyhow::Result<()> {
    bouncer::program().map(drop)
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
    /// Requests under way at once. Without a bound, pools are evicted while they are in use, and what they have on loan
    /// comes on top.
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

impl Side {
    pub(crate) const ALL: [Self; 4] = [Self::Ours, Self::PgBouncer, Self::Naive, Self::Direct];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::PgBouncer => "pgbouncer",
            Self::Naive => "naive",
            Self::Direct => "direct",
        }
    }

    /// The side ready for `tenants` of the host's laboratories, with its configuration.
    pub(crate) async fn open(
        self,
        fleet: &Fleet,
        host: &Host,
        tenants: usize,
        tuning: Tuning,
    ) -> anyhow::Result<(Arc<dyn Peer>, Value)> {
        let Some(tenants) = host.tenants.get(..tenants) else {
            bail!("{} has only {} laboratories", host.name, host.tenants.len());
        };
        Ok(match self {
            Self::Ours => ours::open(fleet, host, tenants).await?,
            Self::Naive => naive::open(tenants, tuning),
            Self::Direct => direct::open(host, tenants),
            Self::PgBouncer => pgbouncer::open(host, tenants, tuning).await?,
        })
    }
}
