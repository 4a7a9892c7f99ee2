//! A specimen that cannot be used: its open results are cancelled, or wait for a replacement.

use crate::{
    Actor, LabError, ResultStatus, SpecimenStatus, Txn, audit, order_status, orders, results,
    rows::Reader,
    schema,
    specimens::{self, Specimen},
    text,
};

/// Why a specimen cannot be used, and whether another is drawn.
#[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rejection {
    /// Why, such as "haemolysed".
    #[schema(value_type = schema::RequiredReason)]
    pub reason: String,
    /// Draw another: a replacement specimen is expected, and open results wait for it. Otherwise they are
    /// cancelled.
    #[serde(default)]
    pub recollect: bool,
}

/// A rejected specimen and what comes after it.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// The rejected one.
    pub specimen: Specimen,
    /// The one to draw instead.
    pub replacement: Option<Specimen>,
}

/// Rejects a specimen. Values that were taken from it go back to the bench (recollect) or are cancelled;
/// nothing of them is lost. Released results must be voided or amended first.
///
/// # Errors
/// [`LabError::NotFound`]; [`LabError::Conflict`] `state`, `released`, or `nothing_to_recollect`.
pub async fn reject(
    txn: &Txn<'_>,
    actor: &Actor,
    barcode: &str,
    rejection: &Rejection,
) -> Result<Rejected, LabError> {
    let reason = text::reason(&rejection.reason)?;
    let before = specimens::locked(
        txn,
        barcode,
        &[SpecimenStatus::Collected, SpecimenStatus::Received],
    )
    .await?;
    let statement = txn
        .prepare_cached("SELECT id, status FROM result WHERE specimen_id = $1 ORDER BY id FOR NO KEY UPDATE")
        .await?;
    let rows = txn.query(&statement, &[&before.id]).await?;
    let mut open = Vec::new();
    for row in &rows {
        let row = Reader::new("result", row);
        let status: ResultStatus = row.get("status")?;
        if status.is_published() {
            return Err(LabError::conflict(
                "released",
                "results from this specimen were released; void or amend them first",
            ));
        }
        if !status.is_final() {
            open.push(row.get("id")?);
        }
    }
    let mut replacement = None;
    if rejection.recollect {
        if open.is_empty() {
            return Err(LabError::conflict(
                "nothing_to_recollect",
                "no open result waits for this specimen",
            ));
        }
        let order = orders::get(txn, before.order_id).await?;
        let seq = order.specimens.iter().map(|s| s.seq).max().unwrap_or(0) + 1;
        let number = &order.head.accession_no;
        let id = specimens::expect(
            txn,
            before.order_id,
            number,
            seq,
            &before.specimen_type,
            Some(before.id),
        )
        .await?;
        results::send_back(txn, actor, &open, Some(id), &reason).await?;
        replacement = Some(id);
    } else {
        results::cancel_many(txn, actor, &open, &reason).await?;
    }
    let statement = txn
        .prepare_cached(
            "UPDATE specimen SET status = 'rejected', reject_reason = $2, rejected_by = $3 WHERE id = $1",
        )
        .await?;
    txn.execute(&statement, &[&before.id, &reason, &actor.staff.as_uuid()])
        .await?;
    let detail = serde_json::json!({ "reason": reason, "recollect": rejection.recollect });
    audit::write(
        txn,
        actor,
        "specimen.rejected",
        "specimen",
        before.id,
        Some(detail),
    )
    .await?;
    order_status::complete_finished(txn, actor, &[before.order_id]).await?;
    let all = specimens::of_order(txn, before.order_id).await?;
    Ok(Rejected {
        specimen: specimens::get(txn, barcode).await?,
        replacement: all.into_iter().find(|s| Some(s.id) == replacement),
    })
}
