//! The HTTP side: who asks, which laboratory, what is answered.
//!
//! One request: trace and deadline ([`observe`]) → bearer token → the laboratory that it names → the
//! resolver's snapshot and gate → a connection of that laboratory's pool → `lab` in a transaction → commit.
//! No step looks back.
//!
//! Invariant: a laboratory is named by the token and by nothing else. A handler gets an [`extract::Tenant`],
//! from which no other laboratory can be reached. Every refusal is a problem detail ([`problem`]); a 5xx
//! tells the client a constant sentence and a trace id. This crate holds no SQL and runs no migration.

pub mod admins;
pub mod app;
pub mod attempts;
pub mod bodies;
pub mod export_permits;
pub mod extract;
pub mod fallback;
pub mod input;
pub mod instance;
pub mod invitations;
pub mod lifecycle;
pub mod logging;
pub mod login;
pub mod metrics;
pub mod observe;
pub mod openapi;
pub mod problem;
pub mod proxies;
pub mod response;
pub mod routes;
pub mod scrape;
mod service_manager;
pub mod staff_invitations;
pub mod startup;
pub mod state;
pub mod trace;
