//! A result as all readers see it: in an order, on the worklist, in a report, after a change.

use std::sync::LazyLock;

use jiff::Timestamp;
use tokio_postgres::{Row, types::Json};
use uuid::Uuid;

use crate::{
    Comparator, Flag, ImportId, LabError, NoRange, Number, OrderId, OutdatedEvaluation, PatientId, RangeId,
    ResultId, ResultStatus, SpecimenId, Txn, change_pct,
    critical::{self, CRITICAL, LIFT_COLUMNS, LIFTED, LiftedMark, NOTIFIED},
    rows::Reader,
};

/// How a value differs from the patient's previous one, when the test has a delta check and there was one.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delta {
    /// The previous released value.
    #[schema(value_type = String)]
    pub previous: Number,
    /// The difference in percent of the previous value, rounded to a tenth; absent when that was zero.
    pub change_pct: Option<String>,
    /// Whether it is more than the test allows.
    pub exceeded: bool,
}

impl Delta {
    pub(crate) fn of(previous: Option<Number>, now: Option<Number>, exceeded: bool) -> Option<Self> {
        previous.zip(now).map(|(previous, now)| Self {
            previous,
            change_pct: change_pct(previous, now).map(|pct| pct.round_dp(1).to_string()),
            exceeded,
        })
    }
}

/// A row of an imported file that has another value than the result. The import's errors show the whole row.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Contradiction {
    /// The import.
    pub import_id: ImportId,
    /// The line of its file.
    pub line: i32,
    /// The row's value, in the unit of the result; absent when the row cannot be read or has another unit.
    pub value: Option<String>,
    /// What stands before that value.
    pub comparator: Option<Comparator>,
}

/// One result.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultView {
    /// Id.
    pub id: ResultId,
    /// Raised by every change; the ETag.
    pub version: i32,
    /// The order.
    pub order_id: OrderId,
    /// The patient.
    pub patient_id: PatientId,
    /// The specimen.
    pub specimen_id: SpecimenId,
    /// Its barcode.
    pub barcode: String,
    /// The test's code.
    pub code: String,
    /// The test's name.
    pub name: String,
    /// The test's LOINC code.
    pub loinc: Option<String>,
    /// The section that does it.
    pub section: String,
    /// Where it stands.
    pub status: ResultStatus,
    /// The value, to the digit: a decimal number, or text for tests that are no quantity.
    pub value: Option<String>,
    /// What the instrument put before it.
    pub comparator: Option<Comparator>,
    /// UCUM unit of the value; while there is none, the unit to give one in.
    pub unit: Option<String>,
    /// Remark.
    pub comment: Option<String>,
    /// How the value lies to the range; absent when there is no range or it is not certain.
    pub flag: Option<Flag>,
    /// Why there is no range; absent when there is one, and for values released by versions that did not
    /// record it.
    pub no_range_reason: Option<NoRange>,
    /// Set when the value was released and would be evaluated otherwise by what is known now.
    pub evaluation_outdated: Option<OutdatedEvaluation>,
    /// The range it was evaluated by; absent also where limits of more than one range were combined.
    pub range_id: Option<RangeId>,
    /// Lowest usual value.
    #[schema(value_type = Option<String>)]
    pub ref_low: Option<Number>,
    /// Highest usual value.
    #[schema(value_type = Option<String>)]
    pub ref_high: Option<Number>,
    /// A value below it is critical: its notice must be recorded.
    #[schema(value_type = Option<String>)]
    pub crit_low: Option<Number>,
    /// A value above it is critical: its notice must be recorded.
    #[schema(value_type = Option<String>)]
    pub crit_high: Option<Number>,
    /// The delta check, as of the entry, the verification or the release: whichever was last.
    pub delta: Option<Delta>,
    /// Whether the value is critical, or may be by its comparator, or its critical mark was lifted and no
    /// verifier has accepted that: then it is not released before its notice is recorded.
    pub notice_required: bool,
    /// Whether a notice of this value is recorded that counts; of a result that was released, whether one
    /// counted then.
    pub critical_notified: bool,
    /// Set when the value was critical, and an evaluation took that mark away although the value is the same.
    pub critical_lifted: Option<LiftedMark>,
    /// Rows of imported files that have another value for this measurement than the one that is there, or one
    /// that cannot be read. Before such a value is released a person has to decide which is right.
    pub contradicted_by: Vec<Contradiction>,
    /// Why it was released although a file contradicts it.
    pub conflict_confirmation: Option<String>,
    /// The instrument.
    pub instrument: Option<String>,
    /// When the instrument had it.
    pub resulted_at: Option<Timestamp>,
    /// Who entered the value.
    pub entered_by: Option<Uuid>,
    /// When.
    pub entered_at: Option<Timestamp>,
    /// Who verified it.
    pub verified_by: Option<Uuid>,
    /// When.
    pub verified_at: Option<Timestamp>,
    /// Whether one person did both.
    pub self_verified: bool,
    /// Who released it.
    pub released_by: Option<Uuid>,
    /// When.
    pub released_at: Option<Timestamp>,
    /// Why it was cancelled or voided.
    pub closed_reason: Option<String>,
    /// Whether an amendment of this released value waits for another person's verification.
    pub amendment_pending: bool,
    /// Which value this is: 1 for the first, raised whenever one is replaced.
    pub rev: i32,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Rows `c` of `contradictions` as a list of [`Contradiction`].
pub(crate) const CONTRADICTION_LIST: &str = "coalesce(jsonb_agg(DISTINCT jsonb_build_object(
    'importId', c.batch_id, 'line', c.line, 'value', coalesce(c.value_num::text, c.value_text), 'comparator', c.comparator)), '[]')";

/// `SELECT` of everything a [`ResultView`] needs; append conditions on `r` (result), `t` (test_def) or `s`
/// (specimen).
pub(crate) static SELECT: LazyLock<String> = LazyLock::new(|| {
    format!("
    SELECT r.id, r.version, r.order_id, r.patient_id, r.specimen_id, s.barcode, r.test_code, t.name, t.loinc, t.section, r.status,
           r.value_num, r.comparator, r.value_text, coalesce(r.unit, t.unit) AS unit, r.comment, r.flag, r.ref_range_id, r.no_range, r.outdated_since, r.outdated_reason,
           r.ref_low, r.ref_high, r.crit_low, r.crit_high, r.delta_flag, r.delta_previous, r.instrument, r.resulted_at,
           r.entered_by, r.entered_at, r.verified_by, r.verified_at, r.self_verified, r.released_by, r.released_at,
           r.closed_reason, r.rev, r.updated_at,
           {CRITICAL} OR {LIFTED} AS critical, {NOTIFIED} AS notified,
           CASE WHEN r.outdated_since IS NOT NULL THEN would_be_critical(r.id) END AS outdated_critical, r.lift_confirmation, {LIFT_COLUMNS},
           r.conflict_confirmation, (SELECT {CONTRADICTION_LIST}
              FROM contradictions(r.id, r.value_num, r.comparator, r.value_text) AS c) AS contradicted_by,
           EXISTS (SELECT FROM result_amendment a WHERE a.result_id = r.id AND a.status = 'proposed') AS amendment_pending
    FROM result r JOIN test_def t ON t.code = r.test_code JOIN specimen s ON s.id = r.specimen_id
    LEFT JOIN critical_lift lift ON lift.id = r.lift_id")
});

pub(crate) async fn by_id(txn: &Txn<'_>, id: ResultId) -> Result<ResultView, LabError> {
    let statement = txn
        .prepare_cached(&format!("{} WHERE r.id = $1", *SELECT))
        .await?;
    let row = txn.query_opt(&statement, &[&id]).await?;
    view(&row.ok_or_else(|| LabError::not_found("result", id))?)
}

pub(crate) async fn by_ids(txn: &Txn<'_>, ids: &[ResultId]) -> Result<Vec<ResultView>, LabError> {
    let statement = txn
        .prepare_cached(&format!("{} WHERE r.id = ANY($1)", *SELECT))
        .await?;
    txn.query(&statement, &[&ids]).await?.iter().map(view).collect()
}

pub(crate) async fn of_order(txn: &Txn<'_>, order: OrderId) -> Result<Vec<ResultView>, LabError> {
    let statement = txn
        .prepare_cached(&format!(
            "{} WHERE r.order_id = $1 ORDER BY t.code, r.id",
            *SELECT
        ))
        .await?;
    txn.query(&statement, &[&order]).await?.iter().map(view).collect()
}

pub(crate) fn view(row: &Row) -> Result<ResultView, LabError> {
    let row = Reader::new("result", row);
    let number: Option<Number> = row.get("value_num")?;
    let text: Option<String> = row.get("value_text")?;
    let critical: bool = row.get("critical")?;
    Ok(ResultView {
        id: row.get("id")?,
        version: row.get("version")?,
        order_id: row.get("order_id")?,
        patient_id: row.get("patient_id")?,
        specimen_id: row.get("specimen_id")?,
        barcode: row.get("barcode")?,
        code: row.get("test_code")?,
        name: row.get("name")?,
        loinc: row.get("loinc")?,
        section: row.get("section")?,
        status: row.get("status")?,
        value: number.map(|n| n.to_string()).or(text),
        comparator: row.get("comparator")?,
        unit: row.get("unit")?,
        comment: row.get("comment")?,
        flag: row.get("flag")?,
        no_range_reason: row.get("no_range")?,
        evaluation_outdated: OutdatedEvaluation::of(&row, row.get("outdated_critical")?)?,
        range_id: row.get("ref_range_id")?,
        ref_low: row.get("ref_low")?,
        ref_high: row.get("ref_high")?,
        crit_low: row.get("crit_low")?,
        crit_high: row.get("crit_high")?,
        delta: Delta::of(row.get("delta_previous")?, number, row.get("delta_flag")?),
        notice_required: critical,
        critical_notified: row.get("notified")?,
        critical_lifted: critical::lifted_mark(&row)?,
        contradicted_by: row.get::<Json<_>>("contradicted_by")?.0,
        conflict_confirmation: row.get("conflict_confirmation")?,
        instrument: row.get("instrument")?,
        resulted_at: row.get("resulted_at")?,
        entered_by: row.get("entered_by")?,
        entered_at: row.get("entered_at")?,
        verified_by: row.get("verified_by")?,
        verified_at: row.get("verified_at")?,
        self_verified: row.get("self_verified")?,
        released_by: row.get("released_by")?,
        released_at: row.get("released_at")?,
        closed_reason: row.get("closed_reason")?,
        amendment_pending: row.get("amendment_pending")?,
        rev: row.get("rev")?,
        updated_at: row.get("updated_at")?,
    })
}
