//! Who is first to take a key that only one row may have.
//!
//! A statement that runs into a unique constraint fails, and a server that we do not run may write the key
//! into its log. So keys that say something of a person are looked for first, under a lock of the key; the
//! constraint stays as the last word.

use crate::{LabError, Txn};

/// Waits until no other transaction is about to take this value of this kind, and keeps it from them until
/// the end of this one. What a statement after this finds is what will be there.
pub(crate) async fn claim(txn: &Txn<'_>, kind: &str, value: &str) -> Result<(), LabError> {
    let statement = txn
        .prepare_cached("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .await?;
    txn.query_one(&statement, &[&format!("{kind}\n{value}")]).await?;
    Ok(())
}
