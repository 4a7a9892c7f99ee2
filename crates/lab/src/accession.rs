//! Accession numbers: prefix, the day on the laboratory's own calendar, and a count from 1, such as
//! `A261121-0001`.

use jiff::Timestamp;

use crate::{LabError, Txn};

/// Draws the next number for the day that `at` (the transaction's own time when absent) falls on in the
/// laboratory.
///
/// The upsert's row lock makes orders of one laboratory take their numbers one after another until they
/// commit.
pub(crate) async fn next(txn: &Txn<'_>, at: Option<Timestamp>) -> Result<String, LabError> {
    let statement = txn
        .prepare_cached(
            "WITH today AS (SELECT (coalesce($1, now()) AT TIME ZONE tz)::date AS day, acc_prefix FROM lab_profile),
                  drawn AS (INSERT INTO accession_counter (day, last) SELECT day, 1 FROM today
                            ON CONFLICT (day) DO UPDATE SET last = accession_counter.last + 1 RETURNING last::text AS n)
             SELECT acc_prefix || to_char(day, 'YYMMDD') || '-' || lpad(n, greatest(4, length(n)), '0') FROM today, drawn",
        )
        .await?;
    let row = txn.query_opt(&statement, &[&at]).await?;
    let row = row.ok_or_else(|| LabError::not_found("profile", "of its own"))?;
    Ok(row.get(0))
}

/// The accession number that an order at `at` would get; draws it. For tests of the laboratory's calendar.
///
/// # Errors
/// Only the database's own.
#[doc(hidden)]
pub async fn accession_at(txn: &Txn<'_>, at: Timestamp) -> Result<String, LabError> {
    next(txn, Some(at)).await
}
