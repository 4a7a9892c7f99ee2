//! Amendments: the only way in which a released result changes.
//!
//! An amendment is entered by one supervisor and verified by another, on its own; it is applied in the same
//! transaction as its verification. A corrected value has an evaluation of its own, by what is known now; a
//! remark leaves the evaluation as it is. Only where the laboratory allows one person both is it applied at
//! once, and marked. The value that it replaces, with all its signatures, stays readable for ever.

use std::{collections::HashMap, sync::LazyLock};

use jiff::Timestamp;
use tokio_postgres::{Row, types::Json};
use uuid::Uuid;

use crate::{
    Actor, AmendmentId, AmendmentKind, AmendmentStatus, Comparator, Flag, LabError, NoRange, Number, Page,
    PageRequest, ResultId, Txn, audit,
    catalogue::{self, Test},
    critical::{self, LIFT_COLUMNS, LiftedMark},
    delta::{self, Compared},
    entry,
    error::same_version,
    locks,
    paging::Cursor,
    profile, result_view,
    result_view::{CONTRADICTION_LIST, Contradiction, Delta, ResultView},
    results,
    rows::Reader,
    schema,
    text::{Line, Problems, REASON_MAX},
};

/// A change to a released result.
#[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AmendmentEntry {
    /// The right value, in the unit of the result; absent when only the comment changes.
    #[schema(value_type = Option<schema::ValueText>)]
    pub value: Option<String>,
    /// What stands before the new value; only with `value`.
    pub comparator: Option<Comparator>,
    /// The new comment; the present one stays when absent.
    #[schema(value_type = Option<schema::Note>)]
    pub comment: Option<String>,
    /// Why.
    #[schema(value_type = schema::RequiredReason)]
    pub reason: String,
}

/// An amendment.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Amendment {
    /// Id.
    pub id: AmendmentId,
    /// The result that it changes.
    pub result_id: ResultId,
    /// Whether the value was wrong, or only the comment changes.
    pub kind: AmendmentKind,
    /// `proposed` until another person verifies it.
    pub status: AmendmentStatus,
    /// The new value.
    pub value: String,
    /// What stands before it.
    pub comparator: Option<Comparator>,
    /// The new comment.
    pub comment: Option<String>,
    /// The new flag.
    pub flag: Option<Flag>,
    /// Why there is no range.
    pub no_range_reason: Option<NoRange>,
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
    /// Whether the new value is or may be critical, or its critical mark was lifted and nobody has accepted
    /// that: then its notice must be recorded before it is verified.
    pub notice_required: bool,
    /// Whether a notice of this value is recorded that counts; of an amendment that is verified or withdrawn,
    /// whether one counted then.
    pub critical_notified: bool,
    /// Set when the proposed value was critical, and an evaluation took that mark away.
    pub critical_lifted: Option<LiftedMark>,
    /// While it waits: rows of imported files that have another value for this measurement than the proposed
    /// one, or one that cannot be read.
    pub contradicted_by: Vec<Contradiction>,
    /// Why it was verified although a file contradicts it.
    pub conflict_confirmation: Option<String>,
    /// Raised whenever the proposed value is evaluated otherwise; a notice names it.
    pub version: i32,
    /// The delta check of the new value, against the previous one as it is now.
    pub delta: Option<Delta>,
    /// Why.
    pub reason: String,
    /// Who entered it.
    pub entered_by: Uuid,
    /// When.
    pub entered_at: Timestamp,
    /// Who verified it.
    pub verified_by: Option<Uuid>,
    /// When.
    pub verified_at: Option<Timestamp>,
    /// Whether one person did both.
    pub self_verified: bool,
}

/// An amendment and the result as it is now.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Amended {
    /// The amendment; `proposed` means that another supervisor must verify it.
    pub amendment: Amendment,
    /// The result; unchanged while the amendment is a proposal.
    pub result: ResultView,
}

/// `SELECT` of everything an [`Amendment`] needs; append conditions on `a` (result_amendment).
static SELECT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT a.id, may_be_critical(a.flag, a.value_num, a.comparator, a.crit_low, a.crit_high)
                  OR a.lift_id IS NOT NULL AND a.lift_confirmation IS NULL AS critical,
                CASE WHEN a.status <> 'proposed' THEN a.notice_id IS NOT NULL ELSE counted_notice(a.result_id, a.id,
                  coalesce((SELECT l.rev FROM critical_lift l WHERE l.id = a.lift_id AND l.amendment_id = a.id), a.version), a.version)
                  IS NOT NULL END AS notified,
                a.result_id, a.kind, a.status, a.value_num, a.value_text, a.comparator,
                a.comment, a.flag, a.no_range, a.ref_low, a.ref_high, a.crit_low, a.crit_high, a.delta_flag, a.delta_previous,
                a.reason, a.entered_by, a.entered_at, a.verified_by, a.verified_at, a.self_verified, a.version,
                a.lift_confirmation, a.conflict_confirmation, {LIFT_COLUMNS},
                (SELECT {CONTRADICTION_LIST}
                 FROM contradictions(a.result_id, a.value_num, a.comparator, a.value_text) AS c
                 WHERE a.status = 'proposed') AS contradicted_by
         FROM result_amendment a LEFT JOIN critical_lift lift ON lift.id = a.lift_id"
    )
});

/// Enters an amendment. Where the laboratory allows one person to enter and verify, it is applied at once,
/// unless its value is critical or a file contradicts it: then the notice or the confirmation comes first,
/// and verification after it.
///
/// # Errors
/// [`LabError::Version`]; [`LabError::Conflict`] `state`, or `open_amendment` when another one waits;
/// [`LabError::Invalid`] for a bad value, or one that changes nothing.
pub async fn propose(
    txn: &Txn<'_>,
    actor: &Actor,
    id: ResultId,
    version: i32,
    new: &AmendmentEntry,
) -> Result<Amended, LabError> {
    locks::share_people(txn, &[id]).await?;
    let (status, _) = results::locked(txn, id, version).await?;
    let mut problems = Problems::default();
    let reason = problems.line("reason", &new.reason, REASON_MAX);
    problems.note("comment", new.comment.as_deref());
    if new.comparator.is_some() && new.value.is_none() {
        problems.add("comparator", "it goes with a value");
    }
    problems.done()?;
    if !status.is_published() {
        return Err(results::state(status, "only a released result can be amended"));
    }
    if of_result(txn, id)
        .await?
        .iter()
        .any(|a| a.status == AmendmentStatus::Proposed)
    {
        return Err(LabError::conflict(
            "open_amendment",
            "another amendment of this result waits; verify or withdraw it first",
        ));
    }
    let before = result_view::by_id(txn, id).await?;
    let amendment = insert(txn, actor, &before, new, &reason).await?;
    audit::write(
        txn,
        actor,
        "amendment.proposed",
        "result",
        id,
        Some(serde_json::json!({ "amendment": amendment })),
    )
    .await?;
    let entered = get(txn, amendment).await?;
    if profile::get(txn).await?.allow_self_verify
        && !entered.notice_required
        && entered.contradicted_by.is_empty()
    {
        return apply(txn, actor, amendment, id, None, None).await;
    }
    amended(txn, amendment, id).await
}

/// How an amendment is verified.
#[derive(Debug, Clone, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AmendmentVerification {
    /// The version of the amendment that was looked at; refused when it was evaluated otherwise since.
    pub version: Option<i32>,
    /// Only of a value whose critical mark was lifted (`criticalLifted`): why it is right that it is not
    /// marked any more.
    #[schema(value_type = Option<schema::RequiredReason>)]
    pub confirm_lifted: Option<String>,
    /// Only of a value that a file contradicts (`contradictedBy`): why it is the right one all the same.
    #[schema(value_type = Option<schema::RequiredReason>)]
    pub confirm_conflict: Option<String>,
}

/// Verifies an amendment that another person entered, and applies it.
///
/// # Errors
/// [`LabError::NotFound`]; [`LabError::Conflict`] `state`, `self_verification`, `critical_notice`,
/// `critical_lifted` or `contradicted`.
pub async fn verify(
    txn: &Txn<'_>,
    actor: &Actor,
    id: AmendmentId,
    how: &AmendmentVerification,
) -> Result<Amended, LabError> {
    let mut problems = Problems::default();
    let confirmation = problems.optional_line("confirmLifted", how.confirm_lifted.as_deref(), REASON_MAX);
    let conflict = problems.optional_line("confirmConflict", how.confirm_conflict.as_deref(), REASON_MAX);
    problems.done()?;
    let amendment = locked(txn, id).await?;
    if let Some(version) = how.version {
        same_version("the amendment", amendment.version, version)?;
    }
    if amendment.entered_by == actor.staff.as_uuid() && !profile::get(txn).await?.allow_self_verify {
        return Err(LabError::conflict(
            "self_verification",
            "you entered this amendment; another person must verify it",
        ));
    }
    let lifted = amendment
        .critical_lifted
        .as_ref()
        .is_some_and(|mark| mark.confirmation.is_none());
    if lifted && !amendment.critical_notified && confirmation.is_none() {
        let message = "the critical mark of the amended value was lifted (criticalLifted says when and why); record whom you notified \
                       (critical-notice), or verify it with confirmLifted and the reason";
        return Err(LabError::conflict("critical_lifted", message));
    }
    if amendment.notice_required && !lifted && !amendment.critical_notified {
        let message = "the amended value is or may be critical; record whom you notified and that it was read back \
                       (critical-notice) first";
        return Err(LabError::conflict("critical_notice", message));
    }
    let contradicted = !amendment.contradicted_by.is_empty();
    if contradicted && conflict.is_none() {
        let message = "a file has another value for this result (contradictedBy says where); amend it to that value, or verify this \
                       one with confirmConflict and the reason";
        return Err(LabError::conflict("contradicted", message));
    }
    let confirmation = confirmation.filter(|_| lifted);
    let conflict = conflict.filter(|_| contradicted);
    apply(
        txn,
        actor,
        id,
        amendment.result_id,
        confirmation.as_ref(),
        conflict.as_ref(),
    )
    .await
}

/// Takes a proposal back; it stays readable.
///
/// # Errors
/// [`LabError::NotFound`]; [`LabError::Conflict`] `state`.
pub async fn withdraw(txn: &Txn<'_>, actor: &Actor, id: AmendmentId) -> Result<Amended, LabError> {
    let amendment = locked(txn, id).await?;
    let statement = txn
        .prepare_cached("UPDATE result_amendment SET status = 'withdrawn' WHERE id = $1")
        .await?;
    txn.execute(&statement, &[&id]).await?;
    let detail = serde_json::json!({ "amendment": id });
    audit::write(
        txn,
        actor,
        "amendment.withdrawn",
        "result",
        amendment.result_id,
        Some(detail),
    )
    .await?;
    amended(txn, id, amendment.result_id).await
}

/// All amendments of a result, the newest first.
///
/// # Errors
/// Only the database's own.
pub async fn of_result(txn: &Txn<'_>, id: ResultId) -> Result<Vec<Amendment>, LabError> {
    let statement = txn
        .prepare_cached(&format!(
            "{} WHERE a.result_id = $1 ORDER BY a.entered_at DESC, a.id DESC",
            *SELECT
        ))
        .await?;
    txn.query(&statement, &[&id])
        .await?
        .iter()
        .map(amendment)
        .collect()
}

/// An amendment that waits for another person, with the result that it would change.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitingAmendment {
    /// The amendment.
    #[serde(flatten)]
    pub amendment: Amendment,
    /// The result as it is now.
    pub result: ResultView,
    /// The number of its order.
    pub accession_no: String,
    /// The patient's record number.
    pub mrn: String,
    /// The patient's family name.
    pub family_name: String,
    /// The patient's given name.
    pub given_name: String,
}

/// The amendments that wait for a second person, the longest waiting first.
///
/// # Errors
/// [`LabError::Invalid`] for a bad page.
pub async fn waiting(txn: &Txn<'_>, page: &PageRequest) -> Result<Page<WaitingAmendment>, LabError> {
    let statement = txn
        .prepare_cached(&format!(
            "{} WHERE a.status = 'proposed' AND ($1::timestamptz IS NULL OR (a.entered_at, a.id) > ($1, $2::uuid))
             ORDER BY a.entered_at, a.id LIMIT $3",
            *SELECT
        ))
        .await?;
    let (since, after) = page
        .after_row(txn, "SELECT entered_at FROM result_amendment WHERE id = $1")
        .await?
        .unzip();
    let rows = txn.query(&statement, &[&since, &after, &page.fetch()?]).await?;
    let found = rows.iter().map(amendment).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<ResultId> = found.iter().map(|amendment| amendment.result_id).collect();
    let mut results: HashMap<ResultId, ResultView> = result_view::by_ids(txn, &ids)
        .await?
        .into_iter()
        .map(|result| (result.id, result))
        .collect();
    let statement = txn
        .prepare_cached(
            "SELECT r.id, o.accession_no, p.mrn, p.family_name, p.given_name
             FROM result r JOIN lab_order o ON o.id = r.order_id JOIN patient own ON own.id = r.patient_id
             JOIN patient p ON p.id = coalesce(own.merged_into, own.id) WHERE r.id = ANY($1)",
        )
        .await?;
    let mut waiting = Vec::with_capacity(found.len());
    let whose = txn.query(&statement, &[&ids]).await?;
    for amendment in found {
        let row = whose
            .iter()
            .find(|row| row.get::<_, ResultId>(0) == amendment.result_id);
        let (Some(row), Some(result)) = (row, results.remove(&amendment.result_id)) else {
            return Err(LabError::not_found("result", amendment.result_id));
        };
        let row = Reader::new("result", row);
        waiting.push(WaitingAmendment {
            amendment,
            result,
            accession_no: row.get("accession_no")?,
            mrn: row.get("mrn")?,
            family_name: row.get("family_name")?,
            given_name: row.get("given_name")?,
        });
    }
    page.page(waiting, |waiting| {
        Cursor::Moment(waiting.amendment.entered_at, waiting.amendment.id.as_uuid())
    })
}

/// Writes a proposal; the database evaluates it.
async fn insert(
    txn: &Txn<'_>,
    actor: &Actor,
    before: &ResultView,
    new: &AmendmentEntry,
    reason: &Line,
) -> Result<AmendmentId, LabError> {
    let test = catalogue::get(txn, &before.code).await?;
    let (value, kind) = new_value(&test, before, new)?;
    let (number, comparator, text) = match value {
        entry::Value::Number(number, comparator) => (Some(number), comparator, None),
        entry::Value::Text(text) => (None, None, Some(text)),
    };
    let (exceeded, previous) = if kind == AmendmentKind::Amended {
        let delta = before.delta.as_ref();
        (delta.is_some_and(|d| d.exceeded), delta.map(|d| d.previous))
    } else {
        new_delta(txn, &test, before.id, number.filter(|_| comparator.is_none())).await?
    };
    let amendment = AmendmentId::generate();
    let statement = txn
        .prepare_cached(
            "INSERT INTO result_amendment (id, result_id, base_rev, kind, value_num, comparator, value_text, comment,
               delta_flag, delta_previous, reason, entered_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        )
        .await?;
    txn.execute(
        &statement,
        &[
            &amendment,
            &before.id,
            &before.rev,
            &kind,
            &number,
            &comparator,
            &text,
            &new.comment.as_ref().or(before.comment.as_ref()),
            &exceeded,
            &previous,
            &reason,
            &actor.staff.as_uuid(),
        ],
    )
    .await?;
    Ok(amendment)
}

/// Measures the delta of a corrected number: what was said of the wrong one says nothing of it, and the
/// previous value may have been corrected, too.
async fn new_delta(
    txn: &Txn<'_>,
    test: &Test,
    id: ResultId,
    number: Option<Number>,
) -> Result<(bool, Option<Number>), LabError> {
    let Some((number, allowed)) = number.zip(test.delta_pct) else {
        return Ok((false, None));
    };
    let compared = Compared {
        result: id,
        value: number,
        allowed_pct: allowed,
    };
    let delta = delta::measure(txn, &[compared], &[]).await?.remove(&id);
    Ok((
        delta.is_some_and(|delta| delta.exceeded),
        delta.map(|delta| delta.previous),
    ))
}

fn new_value(
    test: &Test,
    before: &ResultView,
    new: &AmendmentEntry,
) -> Result<(entry::Value, AmendmentKind), LabError> {
    let present = before.value.as_deref().unwrap_or_default();
    let (text, comparator) = match &new.value {
        Some(value) => (value.as_str(), new.comparator),
        None => (present, before.comparator),
    };
    let value = entry::read(test, text, comparator, before.unit.as_deref())
        .map_err(|bad| LabError::invalid(bad.field, bad.message))?;
    let form = match &value {
        entry::Value::Number(number, _) => number.to_string(),
        entry::Value::Text(text) => text.clone(),
    };
    let same_value = new.value.is_none() || form == present && comparator == before.comparator;
    // With the same value an outdated evaluation is put right.
    let outdated = before.evaluation_outdated.is_some();
    if same_value
        && !outdated
        && new
            .comment
            .as_ref()
            .is_none_or(|comment| Some(comment) == before.comment.as_ref())
    {
        return Err(LabError::invalid(
            "value",
            "this amendment changes neither value nor comment",
        ));
    }
    let kind = if same_value && !outdated {
        AmendmentKind::Amended
    } else {
        AmendmentKind::Corrected
    };
    Ok((value, kind))
}

/// Locks the result before its amendment, as all callers do.
async fn locked(txn: &Txn<'_>, id: AmendmentId) -> Result<Amendment, LabError> {
    let statement = txn
        .prepare_cached(
            "SELECT r.id FROM result r JOIN result_amendment a ON a.result_id = r.id WHERE a.id = $1",
        )
        .await?;
    let result: Option<ResultId> = txn.query_opt(&statement, &[&id]).await?.map(|row| row.get(0));
    locks::share_people(txn, result.as_slice()).await?;
    let statement = txn
        .prepare_cached("SELECT 1 FROM result WHERE id = $1 FOR NO KEY UPDATE")
        .await?;
    txn.query_opt(&statement, &[&result]).await?;
    let amendment = get(txn, id).await?;
    match amendment.status {
        AmendmentStatus::Proposed => Ok(amendment),
        status => Err(LabError::conflict(
            "state",
            format!("this amendment is {status} already"),
        )),
    }
}

async fn apply(
    txn: &Txn<'_>,
    actor: &Actor,
    id: AmendmentId,
    result: ResultId,
    confirmation: Option<&Line>,
    conflict: Option<&Line>,
) -> Result<Amended, LabError> {
    let statement = txn
        .prepare_cached(
            "UPDATE result_amendment SET status = 'verified', verified_by = $2, lift_confirmation = coalesce($3, lift_confirmation),
               conflict_confirmation = $4
             WHERE id = $1",
        )
        .await?;
    txn.execute(
        &statement,
        &[&id, &actor.staff.as_uuid(), &confirmation, &conflict],
    )
    .await?;
    // The guard copies everything from the amendment itself.
    let statement = txn
        .prepare_cached(
            "UPDATE result r SET status = a.kind, amendment_id = a.id, changed_by = $2 FROM result_amendment a
             WHERE a.id = $1 AND r.id = a.result_id",
        )
        .await?;
    txn.execute(&statement, &[&id, &actor.staff.as_uuid()]).await?;
    audit::write(
        txn,
        actor,
        "amendment.verified",
        "result",
        result,
        Some(serde_json::json!({ "amendment": id, "confirmLifted": confirmation, "confirmConflict": conflict })),
    )
    .await?;
    amended(txn, id, result).await
}

async fn amended(txn: &Txn<'_>, id: AmendmentId, result: ResultId) -> Result<Amended, LabError> {
    Ok(Amended {
        amendment: get(txn, id).await?,
        result: result_view::by_id(txn, result).await?,
    })
}

async fn get(txn: &Txn<'_>, id: AmendmentId) -> Result<Amendment, LabError> {
    let statement = txn
        .prepare_cached(&format!("{} WHERE a.id = $1", *SELECT))
        .await?;
    let row = txn.query_opt(&statement, &[&id]).await?;
    amendment(&row.ok_or_else(|| LabError::not_found("amendment", id))?)
}

fn amendment(row: &Row) -> Result<Amendment, LabError> {
    let row = Reader::new("result_amendment", row);
    let number: Option<Number> = row.get("value_num")?;
    let text: Option<String> = row.get("value_text")?;
    Ok(Amendment {
        id: row.get("id")?,
        result_id: row.get("result_id")?,
        kind: row.get("kind")?,
        status: row.get("status")?,
        value: number.map(|n| n.to_string()).or(text).unwrap_or_default(),
        comparator: row.get("comparator")?,
        comment: row.get("comment")?,
        flag: row.get("flag")?,
        no_range_reason: row.get("no_range")?,
        ref_low: row.get("ref_low")?,
        ref_high: row.get("ref_high")?,
        crit_low: row.get("crit_low")?,
        crit_high: row.get("crit_high")?,
        notice_required: row.get("critical")?,
        critical_notified: row.get("notified")?,
        critical_lifted: critical::lifted_mark(&row)?,
        contradicted_by: row.get::<Json<_>>("contradicted_by")?.0,
        conflict_confirmation: row.get("conflict_confirmation")?,
        version: row.get("version")?,
        delta: Delta::of(row.get("delta_previous")?, number, row.get("delta_flag")?),
        reason: row.get("reason")?,
        entered_by: row.get("entered_by")?,
        entered_at: row.get("entered_at")?,
        verified_by: row.get("verified_by")?,
        verified_at: row.get("verified_at")?,
        self_verified: row.get("self_verified")?,
    })
}
