//! The laboratory's part in an export of all its data: what is left out, and the audit event.

use crate::{Actor, LabError, Txn, audit};

/// What an export of everything leaves out: table, column (or the whole table), and why. It is no data of the
/// laboratory's, or it is secret.
pub const LEFT_OUT: [(&str, Option<&str>, &str); 5] = [
    ("staff", Some("password_hash"), "it is a secret of that person"),
    (
        "staff",
        Some("session_epoch"),
        "which access tokens are valid; no record of the laboratory",
    ),
    (
        "staff_invitation",
        None,
        "links by which people set a password; no record of the laboratory",
    ),
    (
        "idempotency_key",
        None,
        "answers kept for a day, so that a repeated request is not carried out twice; no record of the laboratory",
    ),
    (
        "refinery_schema_history",
        None,
        "which migrations the database has had; the manifest says the version",
    ),
];

/// Writes the audit event of an export of everything.
///
/// # Errors
/// [`LabError::Db`].
pub async fn record_archive(txn: &Txn<'_>, actor: &Actor) -> Result<(), LabError> {
    audit::write(txn, actor, "export.archive", "laboratory", "all", None).await
}
