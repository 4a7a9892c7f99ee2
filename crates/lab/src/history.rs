//! Everything a result ever said, who said it, and why it was replaced.

use std::sync::LazyLock;

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Comparator, Flag, LabError, NoRange, Number, OrderId, OutdatedEvaluation, ResultId, ResultStatus, Txn,
    amendments::{self, Amendment},
    critical::{self, CriticalNotice, LIFT_COLUMNS, LiftedMark},
    result_view::{self, ResultView},
    rows::Reader,
};

/// A result with its past.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// As it is now.
    pub current: ResultView,
    /// As it was, the newest first.
    pub revisions: Vec<Revision>,
    /// Amendments, open and done, the newest first.
    pub amendments: Vec<Amendment>,
    /// Notices of critical values, the newest first.
    pub notices: Vec<CriticalNotice>,
}

/// A value that was replaced.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// The result.
    pub result_id: ResultId,
    /// Which of its values, from 1.
    pub rev: i32,
    /// How far it had come.
    pub status: ResultStatus,
    /// The value, to the digit.
    pub value: Option<String>,
    /// What stood before it.
    pub comparator: Option<Comparator>,
    /// UCUM unit.
    pub unit: Option<String>,
    /// Remark.
    pub comment: Option<String>,
    /// Its flag.
    pub flag: Option<Flag>,
    /// Why there was no range.
    pub no_range_reason: Option<NoRange>,
    /// Set when an evaluation had taken a critical mark from it.
    pub critical_lifted: Option<LiftedMark>,
    /// Of a released value, whether a notice counted when it was released.
    pub critical_notified: bool,
    /// Lowest usual value.
    #[schema(value_type = Option<String>)]
    pub ref_low: Option<Number>,
    /// Highest usual value.
    #[schema(value_type = Option<String>)]
    pub ref_high: Option<Number>,
    /// A value below it was critical.
    #[schema(value_type = Option<String>)]
    pub crit_low: Option<Number>,
    /// A value above it was critical.
    #[schema(value_type = Option<String>)]
    pub crit_high: Option<Number>,
    /// Whether it was or may have been critical.
    pub notice_required: bool,
    /// Set when it was known, before it was replaced, that it would be evaluated otherwise.
    pub evaluation_outdated: Option<OutdatedEvaluation>,
    /// Who entered it.
    pub entered_by: Option<Uuid>,
    /// When.
    pub entered_at: Option<Timestamp>,
    /// Who verified it.
    pub verified_by: Option<Uuid>,
    /// When.
    pub verified_at: Option<Timestamp>,
    /// Who released it.
    pub released_by: Option<Uuid>,
    /// When.
    pub released_at: Option<Timestamp>,
    /// Who replaced it.
    pub superseded_by: Uuid,
    /// When.
    pub superseded_at: Timestamp,
    /// Why.
    pub reason: String,
}

static SELECT: LazyLock<String> = LazyLock::new(|| {
    format!("
    SELECT v.result_id, v.rev, v.status, v.value_num, v.value_text, v.comparator, v.unit, v.comment, v.flag, v.no_range, v.ref_low, v.ref_high,
           v.entered_by, v.entered_at, v.verified_by, v.verified_at, v.released_by, v.released_at,
           v.superseded_by, v.superseded_at, v.reason, v.notice_id IS NOT NULL AS notified, v.crit_low, v.crit_high,
           may_be_critical(v.flag, v.value_num, v.comparator, v.crit_low, v.crit_high) AS critical, v.outdated_since, v.outdated_reason, v.lift_confirmation, {LIFT_COLUMNS}
    FROM result_revision v LEFT JOIN critical_lift lift ON lift.id = v.lift_id")
});

/// A result with its past.
///
/// # Errors
/// [`LabError::NotFound`].
pub async fn of_result(txn: &Txn<'_>, id: ResultId) -> Result<History, LabError> {
    let current = result_view::by_id(txn, id).await?;
    let statement = txn
        .prepare_cached(&format!("{} WHERE v.result_id = $1 ORDER BY v.rev DESC", *SELECT))
        .await?;
    let rows = txn.query(&statement, &[&id]).await?;
    Ok(History {
        current,
        revisions: rows.iter().map(revision).collect::<Result<_, _>>()?,
        amendments: amendments::of_result(txn, id).await?,
        notices: critical::of_result(txn, id).await?,
    })
}

/// The released values of an order that were replaced since: a report must say so.
pub(crate) async fn published_of_order(txn: &Txn<'_>, order: OrderId) -> Result<Vec<Revision>, LabError> {
    let statement = txn
        .prepare_cached(&format!(
            "{} JOIN result r ON r.id = v.result_id
             WHERE r.order_id = $1 AND v.status IN ('released', 'corrected', 'amended') ORDER BY v.result_id, v.rev DESC",
            *SELECT
        ))
        .await?;
    txn.query(&statement, &[&order])
        .await?
        .iter()
        .map(revision)
        .collect()
}

fn revision(row: &Row) -> Result<Revision, LabError> {
    let row = Reader::new("result_revision", row);
    let number: Option<Number> = row.get("value_num")?;
    let text: Option<String> = row.get("value_text")?;
    Ok(Revision {
        result_id: row.get("result_id")?,
        rev: row.get("rev")?,
        status: row.get("status")?,
        value: number.map(|n| n.to_string()).or(text),
        comparator: row.get("comparator")?,
        unit: row.get("unit")?,
        comment: row.get("comment")?,
        flag: row.get("flag")?,
        no_range_reason: row.get("no_range")?,
        critical_lifted: critical::lifted_mark(&row)?,
        critical_notified: row.get("notified")?,
        crit_low: row.get("crit_low")?,
        crit_high: row.get("crit_high")?,
        notice_required: row.get("critical")?,
        evaluation_outdated: OutdatedEvaluation::of(&row, None)?,
        ref_low: row.get("ref_low")?,
        ref_high: row.get("ref_high")?,
        entered_by: row.get("entered_by")?,
        entered_at: row.get("entered_at")?,
        verified_by: row.get("verified_by")?,
        verified_at: row.get("verified_at")?,
        released_by: row.get("released_by")?,
        released_at: row.get("released_at")?,
        superseded_by: row.get("superseded_by")?,
        superseded_at: row.get("superseded_at")?,
        reason: row.get("reason")?,
    })
}
