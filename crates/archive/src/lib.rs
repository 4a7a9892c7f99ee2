//! Archives of laboratories: where they lie, how they are written and read back, and how they are verified.
//!
//! An archive is a dump in `pg_dump`'s custom format and a [`Manifest`] beside it. The manifest says what the
//! database held, read in the very snapshot that the dump was taken from; so a dump is verified by restoring
//! it anywhere and looking whether the copy holds the same, also when the laboratory went on working or is
//! long gone.
//!
//! Invariants:
//!
//! - Nothing stands under its final name before it is whole.
//! - What is written here is for this account alone (0600, directories 0700), and in the clear
//!   nowhere but there when a recipient is configured.
//! - No message holds a value of a row: values are patients' data. Passwords never reach a program's
//!   arguments.
//!
//! This crate knows neither the registry nor operations.

mod contents;
mod crypt;
mod dump;
mod error;
mod files;
mod inventory;
mod location;
mod manifest;
mod programs;
mod restore;
mod rights;
mod snapshot;
mod store_id;
mod upload;

pub use contents::{Contents, Missing, SequenceDigest, TableDigest};
pub use crypt::Keys;
pub use dump::{Compression, Dump, OnProgress, Written};
pub use error::ArchiveError;
pub use inventory::{Inventory, LOCALE, LeftOut, Locale, Owned};
pub use location::{Location, Store};
pub use manifest::{FORMAT, Manifest};
pub use programs::Programs;
pub use snapshot::{SHAPE, Snapshot};
