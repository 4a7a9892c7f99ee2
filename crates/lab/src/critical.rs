//! Notices of critical values: whom the laboratory told, when, and whether they read it back. Without one the value is not
//! released. A value of which a comparator leaves open whether it is critical counts as critical. A notice speaks of one value only: of one revision, and of the amendment that brings it if one does.

use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    Actor, AmendmentId, AmendmentStatus, LabError, NoticeId, ResultId, ResultStatus, Txn, amendments, audit,
    error::same_version,
    result_view,
    rows::Reader,
    specimens::moment,
    text::{LINE_MAX, Problems},
};

/// Who was told.
#[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CriticalNoticeEntry {
    /// The person who was told, such as "Dr. Osei, ward 3".
    pub notified_to: String,
    /// When; now when absent. Not in the future, and not before the value was there.
    pub at: Option<Timestamp>,
    /// Whether they read the value back. A notice that was not is recorded, and counts only where the laboratory's settings say so.
    pub read_back: bool,
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

const COLUMNS: &str =
    "id, result_id, rev, amendment_id, notified_to, notified_at, read_back, notified_by, recorded_at";

/// Whether the present value of `r` (result) is or may be critical.
pub(crate) const CRITICAL: &str =
    "may_be_critical(r.flag, r.value_num, r.comparator, r.crit_low, r.crit_high)";

/// Whether the present value of `r` (result) is or may be critical and somebody was told of it in a way that counts: read back,
/// unless the laboratory does without.
pub(crate) const NOTIFIED: &str = "CASE WHEN may_be_critical(r.flag, r.value_num, r.comparator, r.crit_low, r.crit_high) \
                                   THEN is_notified(r.id, r.rev, r.amendment_id) ELSE false END";

/// Records a notice of the present critical value, or of the one that an open amendment would bring. With a version it is a
/// notice of what was read at that version.
///
/// # Errors
/// [`LabError::NotFound`]; [`LabError::Version`]; [`LabError::Conflict`] `not_critical`; [`LabError::Invalid`] for bad fields.
pub async fn record(
    txn: &Txn<'_>,
    actor: &Actor,
    id: ResultId,
    version: Option<i32>,
    entry: &CriticalNoticeEntry,
) -> Result<CriticalNotice, LabError> {
    // The lock first, so that the value cannot be replaced between the look and the record.
    txn.query_opt("SELECT 1 FROM result WHERE id = $1 FOR NO KEY UPDATE", &[&id])
        .await?;
    let result = result_view::by_id(txn, id).await?;
    if let Some(version) = version {
        same_version("the result", result.version, version)?;
    }
    let mut problems = Problems::default();
    let notified_to = problems.line("notifiedTo", &entry.notified_to, LINE_MAX);
    problems.done()?;
    let at = moment(txn, "at", entry.at).await?;
    let proposed = amendments::of_result(txn, id)
        .await?
        .into_iter()
        .find(|a| a.status == AmendmentStatus::Proposed && a.notice_required);
    let since = match &proposed {
        Some(amendment) => Some(amendment.entered_at),
        None => there_since(txn, id).await?,
    };
    let proposed = proposed.map(|a| a.id);
    if since.is_some_and(|since| at.as_second().div_euclid(60) < since.as_second().div_euclid(60)) {
        let message = "nobody can have been told before the value was there; look at the time";
        return Err(LabError::invalid("at", message));
    }
    let rev = if proposed.is_some() {
        result.rev + 1
    } else if result.notice_required
        && !matches!(result.status, ResultStatus::Cancelled | ResultStatus::Voided)
    {
        result.rev
    } else {
        return Err(LabError::conflict(
            "not_critical",
            "this result has no value that is or may be critical",
        ));
    };
    let notice = NoticeId::generate();
    let statement = txn
        .prepare_cached(
            "INSERT INTO critical_notice (id, result_id, rev, amendment_id, notified_to, notified_at, read_back, notified_by)
             SELECT $1, id, $3, coalesce($4, amendment_id), $5, $6, $7, $8 FROM result WHERE id = $2",
        )
        .await?;
    txn.execute(
        &statement,
        &[
            &notice,
            &id,
            &rev,
            &proposed,
            &notified_to,
            &at,
            &entry.read_back,
            &actor.staff.as_uuid(),
        ],
    )
    .await?;
    audit::write(
        txn,
        actor,
        "result.critical_notice",
        "result",
        id,
        Some(serde_json::json!({ "rev": rev, "amendment": proposed })),
    )
    .await?;
    let all = of_result(txn, id).await?;
    all.into_iter()
        .find(|n| n.id == notice)
        .ok_or_else(|| LabError::not_found("notice", notice))
}

/// Since when the present value of a result is there: it was entered, or an instrument had it before that. The guard of notices
/// has the same rule; people note the minute.
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
                notified_to: row.get("notified_to")?,
                at: row.get("notified_at")?,
                read_back: row.get("read_back")?,
                notified_by: row.get("notified_by")?,
                recorded_at: row.get("recorded_at")?,
            })
        })
        .collect()
}
