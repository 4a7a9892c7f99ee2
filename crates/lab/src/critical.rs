//! Notices of critical values: whom the laboratory notified, when, and whether they read it back. Without one
//! the value is not released. A value of which a comparator leaves open whether it is critical counts as
//! critical.
//!
//! A notice speaks of one value only, and the caller says of which: by the version of the result, or by an
//! open amendment and its version. The database counts a notice for that revision or version and for no
//! other; times are checked for plausibility alone. What counted at a release is stored with it.
//!
//! A critical mark that an evaluation takes from a value that did not change is kept ([`LiftedMark`]), and
//! holds the value back until its notice is recorded, or until the person who verifies it accepts that with a
//! reason.

use jiff::Timestamp;
use model::time::Moment;
use uuid::Uuid;

use crate::{
    Actor, AmendmentId, AmendmentStatus, Flag, LabError, NoticeId, Number, ResultId, ResultStatus, Txn,
    amendments, audit,
    error::same_version,
    moment::moment,
    patch,
    result_view::{self, ResultView},
    rows::Reader,
    schema,
    text::{LINE_MAX, Problems},
};

/// Who was notified.
#[derive(Debug, Clone, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CriticalNoticeEntry {
    /// The person who was notified, such as "Dr. Osei, ward 3".
    #[schema(value_type = schema::Line)]
    pub notified_to: String,
    /// When; now when absent. Not in the future, and not before the value was there.
    #[serde(default, deserialize_with = "patch::optional::<Moment, _, _>")]
    pub at: Option<Timestamp>,
    /// Whether they read the value back. A notice that was not is recorded, and counts only where the
    /// laboratory's settings say so.
    pub read_back: bool,
    /// The open amendment whose value they were notified of; absent for the present value of the result.
    pub amendment_id: Option<AmendmentId>,
    /// The version of that amendment as it was read; with `amendmentId`.
    pub amendment_version: Option<i32>,
}

/// A critical mark that an evaluation took from a value that did not change.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiftedMark {
    /// What the mark was; absent where a comparator left open whether the value is critical.
    pub flag: Option<Flag>,
    /// The limit below which it was critical.
    #[schema(value_type = Option<String>)]
    pub crit_low: Option<Number>,
    /// The limit above which it was critical.
    #[schema(value_type = Option<String>)]
    pub crit_high: Option<Number>,
    /// Since when the value is not marked any more.
    pub since: Timestamp,
    /// What changed.
    pub reason: String,
    /// Who accepted that when verifying; absent before that. Then the value is not released without a
    /// notice.
    pub confirmation: Option<LiftConfirmation>,
}

/// The acceptance of a lifted mark.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LiftConfirmation {
    /// Who verified.
    pub by: Option<Uuid>,
    /// When.
    pub at: Option<Timestamp>,
    /// Why.
    pub reason: String,
}

/// Columns of the lifted mark of `x` (a result or an amendment), where `critical_lift` is joined as `lift`.
pub(crate) const LIFT_COLUMNS: &str = "lift.flag AS lift_flag, lift.crit_low AS lift_crit_low, lift.crit_high AS lift_crit_high, \
                                       lift.lifted_at, lift.reason AS lift_reason";

/// Reads the columns of [`LIFT_COLUMNS`], with the confirmation by the person who verified the row.
pub(crate) fn lifted_mark(row: &Reader<'_>) -> Result<Option<LiftedMark>, LabError> {
    let Some(since) = row.get("lifted_at")? else {
        return Ok(None);
    };
    let reason: Option<String> = row.get("lift_confirmation")?;
    let (by, at) = (row.get("verified_by")?, row.get("verified_at")?);
    Ok(Some(LiftedMark {
        flag: row.get("lift_flag")?,
        crit_low: row.get("lift_crit_low")?,
        crit_high: row.get("lift_crit_high")?,
        since,
        reason: row.get("lift_reason")?,
        confirmation: reason.map(|reason| LiftConfirmation { by, at, reason }),
    }))
}

/// A recorded notice.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CriticalNotice {
    /// Id.
    pub id: NoticeId,
    /// The result.
    pub result_id: ResultId,
    /// Which of its values.
    pub rev: i32,
    /// The amendment that brings this value, if one does.
    pub amendment_id: Option<AmendmentId>,
    /// The version of that amendment.
    pub amendment_version: Option<i32>,
    /// Whether it is certain of which value it speaks; only where earlier versions recorded it, it may not
    /// be, and then it does not count.
    pub value_stated: bool,
    /// The person who was told.
    pub notified_to: String,
    /// When.
    pub at: Timestamp,
    /// Whether they read the value back.
    pub read_back: bool,
    /// Who told them.
    pub notified_by: Uuid,
    /// When that was written down.
    pub recorded_at: Timestamp,
}

const COLUMNS: &str = "id, result_id, rev, amendment_id, amendment_version, value_stated, notified_to, notified_at, read_back, notified_by, recorded_at";

/// Whether the present value of `r` (result) is or may be critical.
pub(crate) const CRITICAL: &str =
    "may_be_critical(r.flag, r.value_num, r.comparator, r.crit_low, r.crit_high)";

/// Whether the critical mark of `r` (result) was lifted and no verifier has accepted that.
pub(crate) const LIFTED: &str = "(r.lift_id IS NOT NULL AND r.lift_confirmation IS NULL)";

/// Whether a notice that counts is recorded of the value of `r` (result), which is or was critical:
/// read back, unless the laboratory does without. For a result that is final, whether a notice counted when
/// it became so.
pub(crate) const NOTIFIED: &str = "CASE WHEN NOT r.open THEN r.notice_id IS NOT NULL \
     WHEN may_be_critical(r.flag, r.value_num, r.comparator, r.crit_low, r.crit_high) OR r.lift_id IS NOT NULL THEN counted_notice(r.id, NULL, \
       coalesce((SELECT l.rev FROM critical_lift l WHERE l.id = r.lift_id), r.rev), r.rev) IS NOT NULL \
     ELSE false END";

/// Records a notice of the value that the result has at `version`, or of the value that an open amendment
/// would bring.
///
/// # Errors
/// [`LabError::NotFound`]; [`LabError::Version`] when the result or the amendment is another one by now;
/// [`LabError::Conflict`] `not_critical`; [`LabError::Invalid`] for bad fields.
pub async fn record(
    txn: &Txn<'_>,
    actor: &Actor,
    id: ResultId,
    version: i32,
    entry: &CriticalNoticeEntry,
) -> Result<CriticalNotice, LabError> {
    // The lock first, so that the value cannot be replaced between the look and the record.
    txn.query_opt("SELECT 1 FROM result WHERE id = $1 FOR NO KEY UPDATE", &[&id])
        .await?;
    let result = result_view::by_id(txn, id).await?;
    same_version("the result", result.version, version)?;
    let mut problems = Problems::default();
    let notified_to = problems.line("notifiedTo", &entry.notified_to, LINE_MAX);
    if entry.amendment_id.is_some() != entry.amendment_version.is_some() {
        problems.add(
            "amendmentVersion",
            "amendmentId and amendmentVersion go together: the version of the amendment as it was read",
        );
    }
    problems.done()?;
    let at = moment(txn, "at", entry.at).await?;
    let of = match entry.amendment_id.zip(entry.amendment_version) {
        Some((amendment, version)) => of_amendment(txn, &result, amendment, version).await?,
        None => of_present(txn, &result).await?,
    };
    if of
        .since
        .is_some_and(|since| at.as_second().div_euclid(60) < since.as_second().div_euclid(60))
    {
        let message =
            "`at` lies before the value was entered; give the time at which the person was notified";
        return Err(LabError::invalid("at", message));
    }
    let notice = NoticeId::generate();
    let statement = txn
        .prepare_cached(
            "INSERT INTO critical_notice (id, result_id, rev, amendment_id, amendment_version, notified_to, notified_at, read_back, notified_by)
             SELECT $1, id, $3, coalesce($4, amendment_id), $5, $6, $7, $8, $9 FROM result WHERE id = $2",
        )
        .await?;
    txn.execute(
        &statement,
        &[
            &notice,
            &id,
            &of.rev,
            &entry.amendment_id,
            &entry.amendment_version,
            &notified_to,
            &at,
            &entry.read_back,
            &actor.staff.as_uuid(),
        ],
    )
    .await?;
    let detail = serde_json::json!({ "rev": of.rev, "amendment": entry.amendment_id });
    audit::write(txn, actor, "result.critical_notice", "result", id, Some(detail)).await?;
    let all = of_result(txn, id).await?;
    all.into_iter()
        .find(|n| n.id == notice)
        .ok_or_else(|| LabError::not_found("notice", notice))
}

/// The value that a notice speaks of.
struct Subject {
    rev: i32,
    since: Option<Timestamp>,
}

async fn of_present(txn: &Txn<'_>, result: &ResultView) -> Result<Subject, LabError> {
    let closed = matches!(result.status, ResultStatus::Cancelled | ResultStatus::Voided);
    let lifted = result.critical_lifted.is_some() && !result.status.is_final();
    let outdated = result
        .evaluation_outdated
        .as_ref()
        .is_some_and(|mark| mark.critical == Some(true));
    if closed || !(result.notice_required || lifted || outdated) {
        let waits = amendments::of_result(txn, result.id)
            .await?
            .into_iter()
            .any(|amendment| amendment.status == AmendmentStatus::Proposed && amendment.notice_required);
        return Err(LabError::conflict(
            "not_critical",
            if waits {
                "the present value of this result is not critical; for the value of its open amendment name amendmentId and amendmentVersion"
            } else {
                "this result has no value that is or may be critical"
            },
        ));
    }
    Ok(Subject {
        rev: result.rev,
        since: there_since(txn, result.id).await?,
    })
}

async fn of_amendment(
    txn: &Txn<'_>,
    result: &ResultView,
    id: AmendmentId,
    version: i32,
) -> Result<Subject, LabError> {
    let amendment = amendments::of_result(txn, result.id)
        .await?
        .into_iter()
        .find(|amendment| amendment.id == id)
        .ok_or_else(|| LabError::not_found("amendment", id))?;
    same_version("the amendment", amendment.version, version)?;
    if amendment.status != AmendmentStatus::Proposed {
        return Err(LabError::conflict(
            "state",
            format!(
                "this amendment is {}; a notice of the result's present value names no amendment",
                amendment.status
            ),
        ));
    }
    if !amendment.notice_required && amendment.critical_lifted.is_none() {
        return Err(LabError::conflict(
            "not_critical",
            "this amendment has no value that is or may be critical",
        ));
    }
    Ok(Subject {
        rev: result.rev + 1,
        since: Some(amendment.entered_at),
    })
}

/// Since when the present value of a result is there: it was entered, or an instrument had it before that.
/// The guard of notices has the same rule; people note the minute.
async fn there_since(txn: &Txn<'_>, id: ResultId) -> Result<Option<Timestamp>, LabError> {
    let statement = txn
        .prepare_cached(
            "SELECT CASE WHEN r.resulted_at IS NULL THEN r.entered_at
                         ELSE least(r.entered_at, greatest(r.resulted_at, s.collected_at, s.received_at)) END
             FROM result r JOIN specimen s ON s.id = r.specimen_id WHERE r.id = $1",
        )
        .await?;
    let row = txn.query_opt(&statement, &[&id]).await?;
    Ok(row.and_then(|row| row.get(0)))
}

/// All notices of a result, the newest first.
pub(crate) async fn of_result(txn: &Txn<'_>, id: ResultId) -> Result<Vec<CriticalNotice>, LabError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM critical_notice WHERE result_id = $1 ORDER BY recorded_at DESC, id DESC"
    );
    let statement = txn.prepare_cached(&sql).await?;
    let rows = txn.query(&statement, &[&id]).await?;
    rows.iter()
        .map(|row| {
            let row = Reader::new("critical_notice", row);
            Ok(CriticalNotice {
                id: row.get("id")?,
                result_id: row.get("result_id")?,
                rev: row.get("rev")?,
                amendment_id: row.get("amendment_id")?,
                amendment_version: row.get("amendment_version")?,
                value_stated: row.get("value_stated")?,
                notified_to: row.get("notified_to")?,
                at: row.get("notified_at")?,
                read_back: row.get("read_back")?,
                notified_by: row.get("notified_by")?,
                recorded_at: row.get("recorded_at")?,
            })
        })
        .collect()
}
