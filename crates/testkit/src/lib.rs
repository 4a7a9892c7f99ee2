//! The harness of every integration test: a real PostgreSQL, databases of a test's own in it, the real
//! `tenantd` as a process, and bounded polling.
//!
//! Invariant: a test that ends, also by a panic, leaves no database, role or directory behind; one that
//! cannot clean up fails. Nothing here is a stand-in for the real thing, and nothing here is used outside
//! tests.

mod api;
mod eventually;
mod hba;
mod postgres;
mod space;
mod tenantd;

pub use api::{Answer, Api};
pub use eventually::eventually;
pub use hba::HbaLine;
pub use postgres::{pg_bin, postgres};
pub use reqwest::Method;
pub use space::Space;
pub use tenantd::Tenantd;
