//! From [`Settings`](settings::Settings) to the parts that work together: the way that both binaries start.
//!
//! Why a crate of its own: `tenantd` and `tenantctl` must reach the same registry with the same keys, run the
//! same operations and seed a laboratory alike. Were this written twice, a laboratory made from the terminal
//! would differ from one made through the API some day.
//!
//! Invariants: opening changes nothing on a server that somebody else runs; only [`Platform::prepare`]
//! creates or migrates. Errors at this level are for ops: what failed, and what to do.
//!
//! The platform holds no SQL, serves nothing and decides nothing about a laboratory.

mod attend;
mod budget;
mod cluster;
mod error;
mod exit;
mod exports;
mod invitations;
mod open;
mod prepare;
mod register;
mod restarts;
mod seed;

pub use attend::Attending;
pub use error::PlatformError;
pub use exit::{Exit, error_text};
pub use exports::{about_laboratory, left_out};
pub use invitations::{invitation_link, invitation_path};
pub use lab::catalogue::COVERAGE_NOTE;
pub use migrator::StaysOpen;
pub use open::Platform;
pub use prepare::{Prepare, Prepared};
pub use seed::seed_hook;

/// The name under which the configured tenant server stands in the registry.
pub const MAIN_SERVER: &str = "main";
