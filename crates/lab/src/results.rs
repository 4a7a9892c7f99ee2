//! Results at the bench: a value is entered, sent back, cancelled or, after release, withdrawn.

use crate::{
    Actor, Comparator, LabError, OrderId, ResultId, ResultStatus, SpecimenId, SpecimenStatus, Txn, audit,
    catalogue, entry,
    error::same_version,
    order_status,
    reason::Reason,
    result_view,
    rows::Reader,
    schema,
    text::{self, Problems, REASON_MAX},
};

pub use crate::result_view::{Delta, ResultView};

/// A value for a result.
#[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueEntry {
    /// A decimal string such as `5.0` for a quantity, kept to the digit; else a word or text.
    #[schema(value_type = schema::ValueText)]
    pub value: String,
    /// What the instrument put before it.
    pub comparator: Option<Comparator>,
    /// The test's UCUM unit, exactly; required for a quantity.
    #[schema(value_type = Option<schema::Unit>)]
    pub unit: Option<String>,
    /// Remark.
    #[schema(value_type = Option<schema::Note>)]
    pub comment: Option<String>,
    /// Why an entered value is replaced; required when there is one.
    #[schema(value_type = Option<schema::RequiredReason>)]
    pub reason: Option<String>,
}

/// One result.
///
/// # Errors
/// [`LabError::NotFound`].
pub async fn get(txn: &Txn<'_>, id: ResultId) -> Result<ResultView, LabError> {
    result_view::by_id(txn, id).await
}

/// Enters a value: it is evaluated by the range in force for the patient's sex and age on the day the
/// specimen was drawn, and compared with the patient's previous one.
///
/// # Errors
/// [`LabError::Version`]; [`LabError::Conflict`] `state` or `specimen`; [`LabError::Invalid`] for a wrong
/// unit or value, or a missing reason.
pub async fn enter(
    txn: &Txn<'_>,
    actor: &Actor,
    id: ResultId,
    version: i32,
    new: &ValueEntry,
) -> Result<ResultView, LabError> {
    let mut problems = Problems::default();
    problems.note("comment", new.comment.as_deref());
    let reason = problems.optional_line("reason", new.reason.as_deref(), REASON_MAX);
    problems.done()?;
    let bench = entry::bench(txn, &[id]).await?;
    let bench = bench.get(&id).ok_or_else(|| LabError::not_found("result", id))?;
    same_version("the result", bench.version, version)?;
    match bench.status {
        ResultStatus::Pending => {}
        ResultStatus::Entered if new.reason.is_some() => {}
        ResultStatus::Entered => {
            return Err(LabError::invalid(
                "reason",
                "there is a value already; say why it is replaced",
            ));
        }
        ResultStatus::Verified => return Err(state(bench.status, "send it back with repeat first")),
        status if status.is_published() => return Err(state(status, "it changes by amendment only")),
        status => return Err(state(status, "nothing changes it any more")),
    }
    if bench.specimen_status != SpecimenStatus::Received {
        let message = format!(
            "the specimen is {}; a value needs a received specimen",
            bench.specimen_status
        );
        return Err(LabError::conflict("specimen", message));
    }
    let test = catalogue::get(txn, &bench.test_code).await?;
    let value = entry::read(&test, &new.value, new.comparator, new.unit.as_deref())
        .map_err(|bad| LabError::invalid(bad.field, bad.message))?;
    let entry = entry::Entry {
        bench,
        value,
        comment: new.comment.as_deref(),
        instrument: None,
        resulted_at: None,
        // A reason given with the first value says nothing about a replacement.
        reason: reason
            .as_deref()
            .filter(|_| bench.status == ResultStatus::Entered),
    };
    entry::write(txn, actor, None, &[entry]).await?;
    get(txn, id).await
}

/// Sends an entered or verified value back to the bench. The value stays readable in the history.
///
/// # Errors
/// [`LabError::Version`]; [`LabError::Conflict`] `state`.
pub async fn repeat(
    txn: &Txn<'_>,
    actor: &Actor,
    id: ResultId,
    version: i32,
    reason: &Reason,
) -> Result<ResultView, LabError> {
    let (status, _) = locked(txn, id, version).await?;
    let reason = text::reason(&reason.reason)?;
    if !matches!(status, ResultStatus::Entered | ResultStatus::Verified) {
        return Err(state(status, "only an entered or verified value can be repeated"));
    }
    send_back(txn, actor, &[id], None, &reason).await?;
    get(txn, id).await
}

/// Gives up a result that was not released.
///
/// # Errors
/// [`LabError::Version`]; [`LabError::Conflict`] `state`.
pub async fn cancel(
    txn: &Txn<'_>,
    actor: &Actor,
    id: ResultId,
    version: i32,
    reason: &Reason,
) -> Result<ResultView, LabError> {
    let (status, order) = locked(txn, id, version).await?;
    let reason = text::reason(&reason.reason)?;
    if status.is_final() {
        return Err(state(
            status,
            "only a result that was not released can be cancelled",
        ));
    }
    cancel_many(txn, actor, &[id], &reason).await?;
    order_status::complete_finished(txn, actor, &[order]).await?;
    get(txn, id).await
}

/// Withdraws a released result. It stays readable, marked as voided.
///
/// # Errors
/// [`LabError::Version`]; [`LabError::Conflict`] `state`.
pub async fn void(
    txn: &Txn<'_>,
    actor: &Actor,
    id: ResultId,
    version: i32,
    reason: &Reason,
) -> Result<ResultView, LabError> {
    let (status, _) = locked(txn, id, version).await?;
    let reason = text::reason(&reason.reason)?;
    if !status.is_published() {
        return Err(state(status, "only a released result can be voided"));
    }
    // A proposal for a result that is no more would wait for ever.
    let sql = "UPDATE result_amendment SET status = 'withdrawn' WHERE result_id = $1 AND status = 'proposed'";
    txn.execute(&txn.prepare_cached(sql).await?, &[&id]).await?;
    close(txn, actor, &[id], ResultStatus::Voided, &reason).await?;
    get(txn, id).await
}

/// Back to pending with nothing kept, not even a comparator; possibly to another specimen. Pending ones only
/// move.
pub(crate) async fn send_back(
    txn: &Txn<'_>,
    actor: &Actor,
    ids: &[ResultId],
    specimen: Option<SpecimenId>,
    reason: &str,
) -> Result<(), LabError> {
    let statement = txn
        .prepare_cached(
            "UPDATE result SET status = 'pending', specimen_id = coalesce($2, specimen_id), change_reason = $3, changed_by = $4,
               value_num = NULL, comparator = NULL, value_text = NULL, unit = NULL, comment = NULL, instrument = NULL,
               resulted_at = NULL, import_id = NULL, delta_flag = false, delta_previous = NULL,
               entered_by = NULL, entered_at = NULL, verified_by = NULL, verified_at = NULL, self_verified = false
             WHERE id = ANY($1)",
        )
        .await?;
    txn.execute(&statement, &[&ids, &specimen, &reason, &actor.staff.as_uuid()])
        .await?;
    let texts: Vec<String> = ids.iter().map(ResultId::to_string).collect();
    let detail = serde_json::json!({ "reason": reason });
    audit::write_each(txn, actor, "result.sent_back", "result", &texts, Some(&detail)).await
}

pub(crate) async fn cancel_many(
    txn: &Txn<'_>,
    actor: &Actor,
    ids: &[ResultId],
    reason: &str,
) -> Result<(), LabError> {
    close(txn, actor, ids, ResultStatus::Cancelled, reason).await
}

async fn close(
    txn: &Txn<'_>,
    actor: &Actor,
    ids: &[ResultId],
    status: ResultStatus,
    reason: &str,
) -> Result<(), LabError> {
    let statement = txn
        .prepare_cached(
            "UPDATE result SET status = $2, closed_reason = $3, changed_by = $4 WHERE id = ANY($1)",
        )
        .await?;
    txn.execute(&statement, &[&ids, &status, &reason, &actor.staff.as_uuid()])
        .await?;
    let texts: Vec<String> = ids.iter().map(ResultId::to_string).collect();
    let detail = serde_json::json!({ "reason": reason });
    audit::write_each(
        txn,
        actor,
        &format!("result.{status}"),
        "result",
        &texts,
        Some(&detail),
    )
    .await
}

/// Locks a result that the caller has seen as it is.
pub(crate) async fn locked(
    txn: &Txn<'_>,
    id: ResultId,
    version: i32,
) -> Result<(ResultStatus, OrderId), LabError> {
    let statement = txn
        .prepare_cached("SELECT id, status, version, order_id FROM result WHERE id = $1 FOR NO KEY UPDATE")
        .await?;
    let row = txn.query_opt(&statement, &[&id]).await?;
    let row = row.ok_or_else(|| LabError::not_found("result", id))?;
    let row = Reader::new("result", &row);
    same_version("the result", row.get("version")?, version)?;
    Ok((row.get("status")?, row.get("order_id")?))
}

pub(crate) fn state(status: ResultStatus, advice: &str) -> LabError {
    LabError::conflict("state", format!("this result is {status}; {advice}"))
}
