//! Evaluation of values: which range and limits hold, and which flag follows.
//!
//! The database evaluates (function `evaluation`, called by the guards of results and amendments): a value
//! cannot be written without, whoever writes it, and a release is refused when the evaluation no longer
//! follows from the data. Here stands what starts it again when one of its inputs changed: the person's sex
//! or birth date, a merge, the time of collection, the ranges, or the laboratory's time zone. What is not
//! released is evaluated again, with its former evaluation in the history; what is released never changes
//! silently and is marked instead. The database marks it too, at the end of a transaction that did not
//! (`patient_marks` and its like), whoever changed the data. A critical mark that goes although the value is
//! the same is kept beside the result ([`crate::critical::LiftedMark`]).

use jiff::Timestamp;

use crate::{Actor, AmendmentId, LabError, PatientId, ResultId, SpecimenId, Txn, audit, locks, rows::Reader};

/// A released value whose evaluation would be another one by what is known now. The evaluation that was
/// released stays as it is until an amendment puts it right.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutdatedEvaluation {
    /// Since when that is known.
    pub since: Timestamp,
    /// What changed.
    pub reason: String,
    /// Whether the value is or may be critical by what is known now: then a clinician should be notified, and
    /// a notice can be recorded. Of a value that was replaced, absent.
    pub critical: Option<bool>,
}

impl OutdatedEvaluation {
    /// Of a row with the columns of the mark.
    pub(crate) fn of(row: &Reader<'_>, critical: Option<bool>) -> Result<Option<Self>, LabError> {
        let since: Option<Timestamp> = row.get("outdated_since")?;
        let reason: Option<String> = row.get("outdated_reason")?;
        Ok(since.zip(reason).map(|(since, reason)| Self {
            since,
            reason,
            critical,
        }))
    }
}

/// Whose evaluations have to be looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Affected<'a> {
    /// The person's, and those of every duplicate that was merged into them. Released ones are marked.
    Person(PatientId),
    /// Those from one specimen. Released ones are marked.
    Specimen(SpecimenId),
    /// Open work of one test. What was released keeps the range that it was evaluated by.
    Test(&'a str),
    /// Open work of the whole laboratory; and what was released from specimens that were drawn on another day
    /// by the time zone named here, the former one. Released ones are marked.
    TimeZone(&'a str),
}

impl Affected<'_> {
    fn condition(self) -> &'static str {
        match self {
            Self::Person(_) => {
                "r.live AND r.patient_id IN (
                   WITH RECURSIVE person AS (
                     SELECT $1::text::uuid AS id UNION SELECT p.id FROM patient p JOIN person ON p.merged_into = person.id)
                   SELECT id FROM person)"
            }
            Self::Specimen(_) => "r.live AND r.specimen_id = $1::text::uuid",
            Self::Test(_) => {
                "r.test_code = $1::text AND (r.open OR r.id IN (SELECT a.result_id FROM result_amendment a WHERE a.status = 'proposed'))"
            }
            Self::TimeZone(_) => {
                "r.open OR r.id IN (SELECT a.result_id FROM result_amendment a WHERE a.status = 'proposed')
                 OR r.id IN (SELECT drawn_on_another_day($1::text, (SELECT tz FROM lab_profile)))"
            }
        }
    }

    fn key(self) -> String {
        match self {
            Self::Person(id) => id.to_string(),
            Self::Specimen(id) => id.to_string(),
            Self::Test(code) => code.to_owned(),
            Self::TimeZone(former) => former.to_owned(),
        }
    }

    const fn marks_released(self) -> bool {
        matches!(self, Self::Person(_) | Self::Specimen(_) | Self::TimeZone(_))
    }
}

/// A row `x` whose stored evaluation is not the present one (`e`).
const DIFFERS: &str = "(x.ref_range_id, x.ref_low, x.ref_high, x.crit_low, x.crit_high, x.flag) \
                       IS DISTINCT FROM (e.ref_range_id, e.ref_low, e.ref_high, e.crit_low, e.crit_high, e.flag)";

/// Evaluates again what is affected by a change that was just written, and marks what is released.
///
/// The results are locked after that change, pending ones too: whoever enters a value at this moment holds
/// its result and is waited for, or waits and then reads the changed data.
pub(crate) async fn again(
    txn: &Txn<'_>,
    actor: &Actor,
    affected: Affected<'_>,
    reason: &str,
) -> Result<(), LabError> {
    let found = format!(
        "SELECT r.id FROM result r WHERE {} ORDER BY r.id",
        affected.condition()
    );
    if !matches!(affected, Affected::Person(_)) {
        let statement = txn.prepare_cached(&found).await?;
        let rows = txn.query(&statement, &[&affected.key()]).await?;
        let ids: Vec<ResultId> = rows.iter().map(|row| row.get(0)).collect();
        locks::share_people(txn, &ids).await?;
    }
    let statement = txn.prepare_cached(&format!("{found} FOR NO KEY UPDATE")).await?;
    let rows = txn.query(&statement, &[&affected.key()]).await?;
    let ids: Vec<ResultId> = rows.iter().map(|row| row.get(0)).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let staff = actor.staff.as_uuid();
    let sql = format!(
        "UPDATE result r SET change_reason = $2, changed_by = $3
         FROM (SELECT x.id, x.lift_id FROM result x CROSS JOIN LATERAL evaluation_subject(x.patient_id, x.specimen_id) AS s
                CROSS JOIN LATERAL evaluation(x.test_code, s.sex, s.born, s.drawn, NULL, x.value_num, x.comparator, x.value_text) AS e
                WHERE x.id = ANY($1) AND x.status IN ('entered', 'verified') AND ({DIFFERS} OR x.no_range IS DISTINCT FROM e.no_range)) AS d
         WHERE r.id = d.id AND r.status IN ('entered', 'verified')
         RETURNING r.id, coalesce(r.lift_id <> d.lift_id, r.lift_id IS NOT NULL) AS lifted"
    );
    let statement = txn.prepare_cached(&sql).await?;
    let changed = txn.query(&statement, &[&ids, &reason, &staff]).await?;
    record(txn, actor, "result.evaluated_again", &changed, reason).await?;
    let lifted: Vec<_> = changed.into_iter().filter(|row| row.get(1)).collect();
    record(txn, actor, "result.critical_lifted", &lifted, reason).await?;
    let sql = format!(
        "UPDATE result_amendment SET evaluated_at = now(), change_reason = $2 WHERE status = 'proposed' AND id IN (
           SELECT x.id FROM result_amendment x
            CROSS JOIN LATERAL correction_evaluation(x.result_id, x.value_num, x.comparator, x.value_text) AS e
            WHERE x.result_id = ANY($1) AND x.status = 'proposed' AND x.kind = 'corrected'
              AND ({DIFFERS} OR x.no_range IS DISTINCT FROM e.no_range))
         RETURNING result_id, id"
    );
    let statement = txn.prepare_cached(&sql).await?;
    for row in &txn.query(&statement, &[&ids, &reason]).await? {
        let (result, amendment): (ResultId, AmendmentId) = (row.get(0), row.get(1));
        let detail = serde_json::json!({ "amendment": amendment, "reason": reason });
        audit::write(
            txn,
            actor,
            "amendment.evaluated_again",
            "result",
            result,
            Some(detail),
        )
        .await?;
    }
    if affected.marks_released() {
        mark(txn, actor, &ids, reason).await?;
    }
    Ok(())
}

/// Marks released values whose evaluation would be another one, by the ranges in force when they were
/// evaluated; and takes the mark from those whose evaluation is right after all.
async fn mark(txn: &Txn<'_>, actor: &Actor, ids: &[ResultId], reason: &str) -> Result<(), LabError> {
    let sql = format!(
        "UPDATE result r SET outdated_since = CASE WHEN d.differs THEN now() END, outdated_reason = CASE WHEN d.differs THEN $2::text END,
           changed_by = $3
         FROM (SELECT x.id, {DIFFERS} AS differs FROM result x
                CROSS JOIN LATERAL evaluation_subject(x.patient_id, x.specimen_id) AS s
                CROSS JOIN LATERAL evaluation(x.test_code, s.sex, s.born, s.drawn, coalesce(x.evaluated_at, x.entered_at), x.value_num, x.comparator) AS e
                WHERE x.id = ANY($1) AND x.status IN ('released', 'corrected', 'amended') AND x.value_num IS NOT NULL) AS d
         WHERE r.id = d.id AND d.differs <> (r.outdated_since IS NOT NULL)
         RETURNING r.id, d.differs"
    );
    let statement = txn.prepare_cached(&sql).await?;
    let rows = txn
        .query(&statement, &[&ids, &reason, &actor.staff.as_uuid()])
        .await?;
    let (marked, cleared): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.get(1));
    record(txn, actor, "result.evaluation_outdated", &marked, reason).await?;
    record(txn, actor, "result.evaluation_restored", &cleared, reason).await
}

async fn record(
    txn: &Txn<'_>,
    actor: &Actor,
    action: &str,
    rows: &[tokio_postgres::Row],
    reason: &str,
) -> Result<(), LabError> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = rows
        .iter()
        .map(|row| row.get::<_, ResultId>(0).to_string())
        .collect();
    let detail = serde_json::json!({ "reason": reason });
    audit::write_each(txn, actor, action, "result", &ids, Some(&detail)).await
}
