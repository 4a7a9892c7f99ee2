//! Row locks that several parts of the laboratory take in the same order.

use crate::{LabError, ResultId, Txn};

/// Keeps the data of the people whose results these are as they are, before the results themselves are
/// locked: a change of them waits, or is waited for, and misses no value. The guards hold each person too.
pub(crate) async fn share_people(txn: &Txn<'_>, results: &[ResultId]) -> Result<(), LabError> {
    let statement = txn
        .prepare_cached(
            "SELECT p.id FROM patient p WHERE p.id IN (
               SELECT x FROM result r JOIN patient own ON own.id = r.patient_id CROSS JOIN unnest(ARRAY[own.id, own.merged_into]) AS x
                WHERE r.id = ANY($1))
             ORDER BY p.id FOR SHARE",
        )
        .await?;
    txn.query(&statement, &[&results]).await?;
    Ok(())
}
