//! A database's tables as one archive of open formats, for the owner of the data: a ZIP of CSV files (RFC
//! 4180), described by a Data Package (Frictionless Data), with a manifest of rows and checksums. It can be
//! read without us.
//!
//! Everything is read in one snapshot. Rows are streamed from COPY through the compressor to whoever takes
//! the bytes, so memory is bounded by a few buffers whatever the database's size. The archive is whole only
//! with its last bytes: a reader refuses one that was cut off.
//!
//! It never reads what it is told to leave out, nor any column whose name says that it holds a secret. It
//! knows no tenancy and no HTTP: it works on a transaction of the caller's, with the rights of that
//! transaction's role.

mod archive;
mod document;
mod error;
mod plan;
mod records;
mod source;
mod tables;
mod values;
mod write;

pub use document::About;
pub use error::ExportError;
pub use plan::{LeftOut, Plan, plan};
pub use source::{Source, snapshot};
pub use write::{Summary, write};

/// How long one export may take. A caller ends one that takes longer.
pub const LIMIT: std::time::Duration = std::time::Duration::from_secs(60 * 60);

/// The media type of an export.
pub const MEDIA_TYPE: &str = "application/zip";
