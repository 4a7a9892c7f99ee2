//! A private PostgreSQL cluster in one directory, for a first run without a database administrator and for
//! tests.
//!
//! Why: a new user types one command, and no service, package default or socket of the machine is touched.
//! The server runs as an unprivileged account even when root starts it, listens on 127.0.0.1 only and asks
//! everybody for a password.
//!
//! Invariants:
//! - One process owns the cluster, the holder of `owner.lock`; others that start on the same directory are
//!   guests.
//! - The server ends with its owner, also when the owner is killed: its supervisor holds the read end of a
//!   pipe from the owner and shuts the server down when that pipe closes.
//! - `server.lock` is inherited by every process that works on the data (initdb, supervisor, postgres and its
//!   backends). When it is free none is left, and a new owner starts only then, however its predecessor
//!   ended.
//! - The data directory appears whole, by a rename, or not at all.
//!
//! It refuses to reach beyond its directory: it does not touch other clusters, changes no settings of the
//! machine, and does not upgrade data from one major version to the next.

mod account;
mod cluster;
mod error;
mod initdb;
mod layout;
mod predecessor;
mod programs;
mod scratch;
mod server;

pub use cluster::{Cluster, ClusterOptions, ThrowawayOptions};
pub use error::EmbeddedError;
pub use programs::PgBin;
