//! The tenant schema: the migrations that make it, the sealed template that laboratories are cloned from, and
//! the one way to bring an existing database up to date.
//!
//! Invariants:
//!
//! - A template under its final name is whole and sealed; whatever is half built has another name.
//! - A database's history is read and judged before a migration touches it: one that is ahead of this code,
//!   or has a row that makes no sense, is refused.
//! - Two migrations never run on one database at once, whichever processes they come from.
//!
//! The migrator knows schemas and not laboratories: it never reads the registry, and what it learns about a
//! version is the caller's to record.

mod baseline;
mod clone;
mod error;
mod granted;
mod group;
mod history;
mod lock;
mod run;
mod secure;
mod server;
mod source;
mod spare;
mod template;
mod untrusted_tables;

pub use baseline::{baseline_write, migrate_scratch};
pub use clone::{CREATES_AT_ONCE_MAX, CloneStrategy, create_database, create_turn};
pub use error::MigrateError;
pub use granted::{Granted, granted};
pub use group::{group_ensure, group_make, rights_settle, rights_take};
pub use history::history_version;
pub use lock::{MAINTENANCE_DATABASE, comparing_begin, comparing_is_under_way};
pub use run::migrate_database;
pub use secure::{close_to_public, secure_server, would_close};
pub use server::{
    Marked, OWNERSHIP_COMMENT, OpenDatabase, SHARED_DATABASES, ServerState, StaysOpen, server_look,
    server_state, stays_open,
};
pub use source::{CLOSED_FUNCTIONS, fingerprint, latest, window};
pub use spare::{
    Spares, clone_template, spare_drop, spare_groups_tidy, spare_make, spare_name, spares_are_being_made,
    spares_list, spares_lock,
};
pub use template::{template_ensure, template_find, template_is_being_built};
pub use untrusted_tables::{UntrustedTableError, untrusted_table_rows};
