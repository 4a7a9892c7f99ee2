//! Specimens: drawn, received, and rejected with or without another attempt.
//!
//! Which times can be and how they are corrected: `collection`.

use jiff::Timestamp;
use model::time::Moment;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Actor, LabError, OrderId, ResultStatus, SpecimenId, SpecimenStatus, Txn, audit,
    collection::{Times, confirmed, facts},
    orders, patch, results,
    rows::Reader,
    schema, text,
};

pub use crate::collection::{CollectionCorrection, correct};

/// When something was done.
#[derive(Debug, Clone, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct When {
    /// The moment; now when absent. Not in the future, and not before the patient's birth.
    #[serde(default, deserialize_with = "patch::optional::<Moment, _, _>")]
    pub at: Option<Timestamp>,
    /// Take a time that is unlikely: collected more than three days away from the order, or more than three
    /// days on the way. Without it such a time is answered with 409 `unlikely_time`.
    #[serde(default)]
    pub confirm_unlikely: bool,
}

/// When a specimen was said to be collected and received before that was corrected.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpecimenRevision {
    /// When it was drawn.
    pub collected_at: Option<Timestamp>,
    /// By whom.
    pub collected_by: Option<Uuid>,
    /// When it came in.
    pub received_at: Option<Timestamp>,
    /// Who took it in.
    pub received_by: Option<Uuid>,
    /// Who corrected it.
    pub superseded_by: Uuid,
    /// When.
    pub superseded_at: Timestamp,
    /// Why.
    pub reason: String,
}

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

/// A specimen.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Specimen {
    /// Id.
    pub id: SpecimenId,
    /// The order it belongs to.
    pub order_id: OrderId,
    /// Its number within the order.
    pub seq: i16,
    /// What its label says.
    pub barcode: String,
    /// What it is.
    pub specimen_type: String,
    /// Where it stands.
    pub status: SpecimenStatus,
    /// Codes of the tests that are done from it.
    pub tests: Vec<String>,
    /// When it was drawn.
    pub collected_at: Option<Timestamp>,
    /// By whom.
    pub collected_by: Option<Uuid>,
    /// When it came in.
    pub received_at: Option<Timestamp>,
    /// Who took it in.
    pub received_by: Option<Uuid>,
    /// Why it was rejected.
    pub reject_reason: Option<String>,
    /// The rejected one that it replaces.
    pub replaces: Option<SpecimenId>,
    /// What was recorded of its collection and receipt before it was corrected, the newest first.
    pub revisions: Vec<SpecimenRevision>,
    /// Raised by every change; the ETag.
    pub version: i32,
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

const SELECT: &str = "
    SELECT s.id, s.order_id, s.seq, s.barcode, s.specimen_type, s.status, s.collected_at, s.collected_by, s.received_at, s.received_by,
           s.reject_reason, s.replaces, s.version,
           ARRAY(SELECT r.test_code FROM result r WHERE r.specimen_id = s.id AND r.live ORDER BY r.test_code) AS tests,
           (SELECT coalesce(jsonb_agg(jsonb_build_object('collectedAt', v.collected_at, 'collectedBy', v.collected_by,
              'receivedAt', v.received_at, 'receivedBy', v.received_by, 'supersededBy', v.superseded_by,
              'supersededAt', v.superseded_at, 'reason', v.reason) ORDER BY v.version DESC), '[]')
            FROM specimen_revision v WHERE v.specimen_id = s.id) AS revisions
    FROM specimen s";

/// One specimen by its barcode.
///
/// # Errors
/// [`LabError::NotFound`].
pub async fn get(txn: &Txn<'_>, barcode: &str) -> Result<Specimen, LabError> {
    let statement = txn
        .prepare_cached(&format!("{SELECT} WHERE s.barcode = $1"))
        .await?;
    let row = txn.query_opt(&statement, &[&barcode]).await?;
    specimen(&row.ok_or_else(|| LabError::not_found("specimen", barcode))?)
}

pub(crate) async fn of_order(txn: &Txn<'_>, order: OrderId) -> Result<Vec<Specimen>, LabError> {
    let statement = txn
        .prepare_cached(&format!("{SELECT} WHERE s.order_id = $1 ORDER BY s.seq"))
        .await?;
    txn.query(&statement, &[&order])
        .await?
        .iter()
        .map(specimen)
        .collect()
}

/// Records that a specimen was drawn; the order begins.
///
/// # Errors
/// [`LabError::NotFound`]; [`LabError::Conflict`] `state` when it is not expected, `order_closed`, or
/// `unlikely_time`; [`LabError::Invalid`] for a time that cannot be.
pub async fn collect(txn: &Txn<'_>, actor: &Actor, barcode: &str, when: &When) -> Result<Specimen, LabError> {
    let before = locked(txn, barcode, &[SpecimenStatus::Expected]).await?;
    let facts = facts(txn, &before).await?;
    facts.order_open()?;
    let at = moment(txn, "at", when.at).await?;
    let times = Times {
        collected: Some(at),
        received: None,
        stated: when.at.is_some(),
    };
    facts.possible(txn, "at", at).await?;
    facts.likely(&times, when.confirm_unlikely)?;
    let statement = txn
        .prepare_cached(
            "UPDATE specimen SET status = 'collected', collected_at = $2, collected_by = $3 WHERE id = $1",
        )
        .await?;
    txn.execute(&statement, &[&before.id, &at, &actor.staff.as_uuid()])
        .await?;
    orders::begin(txn, before.order_id).await?;
    audit::write(
        txn,
        actor,
        "specimen.collected",
        "specimen",
        before.id,
        confirmed(when),
    )
    .await?;
    get(txn, barcode).await
}

/// Records that a specimen came in; from now on its tests can have values.
///
/// # Errors
/// [`LabError::NotFound`]; [`LabError::Conflict`] `state`, `order_closed` when it was not collected before
/// the order was closed, or `unlikely_time`; [`LabError::Invalid`] when that is before it was drawn or the
/// patient was born.
pub async fn receive(txn: &Txn<'_>, actor: &Actor, barcode: &str, when: &When) -> Result<Specimen, LabError> {
    let before = locked(
        txn,
        barcode,
        &[SpecimenStatus::Expected, SpecimenStatus::Collected],
    )
    .await?;
    let facts = facts(txn, &before).await?;
    if before.status == SpecimenStatus::Expected {
        facts.order_open()?;
    }
    let at = moment(txn, "at", when.at).await?;
    // Without a time of its own it came in now, and a collection noted by a clock slightly ahead of ours was
    // not later.
    let at = if when.at.is_none() {
        before.collected_at.map_or(at, |drawn| drawn.max(at))
    } else {
        at
    };
    if before.collected_at.is_some_and(|drawn| at < drawn) {
        return Err(LabError::invalid(
            "at",
            "the specimen was collected after this; it cannot have been received before",
        ));
    }
    facts.possible(txn, "at", at).await?;
    // Without a collection the day of receipt decides the age.
    let times = Times {
        collected: before.collected_at.or(Some(at)),
        received: Some(at),
        stated: before.collected_at.is_none() && when.at.is_some(),
    };
    facts.likely(&times, when.confirm_unlikely)?;
    let statement = txn
        .prepare_cached(
            "UPDATE specimen SET status = 'received', received_at = $2, received_by = $3 WHERE id = $1",
        )
        .await?;
    txn.execute(&statement, &[&before.id, &at, &actor.staff.as_uuid()])
        .await?;
    orders::begin(txn, before.order_id).await?;
    audit::write(
        txn,
        actor,
        "specimen.received",
        "specimen",
        before.id,
        confirmed(when),
    )
    .await?;
    get(txn, barcode).await
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
    let before = locked(
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
        let id = expect(
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
    orders::complete_finished(txn, actor, &[before.order_id]).await?;
    let all = of_order(txn, before.order_id).await?;
    Ok(Rejected {
        specimen: get(txn, barcode).await?,
        replacement: all.into_iter().find(|s| Some(s.id) == replacement),
    })
}

/// Records that a specimen was thrown away.
///
/// # Errors
/// [`LabError::NotFound`]; [`LabError::Conflict`] `state`, or `open_results` while a test still needs it.
pub async fn dispose(txn: &Txn<'_>, actor: &Actor, barcode: &str) -> Result<Specimen, LabError> {
    let before = locked(txn, barcode, &[SpecimenStatus::Received]).await?;
    let statement = txn
        .prepare_cached("SELECT EXISTS (SELECT FROM result WHERE specimen_id = $1 AND open)")
        .await?;
    if txn.query_one(&statement, &[&before.id]).await?.get(0) {
        return Err(LabError::conflict(
            "open_results",
            "tests from this specimen are still open",
        ));
    }
    txn.execute(
        "UPDATE specimen SET status = 'disposed' WHERE id = $1",
        &[&before.id],
    )
    .await?;
    audit::write(txn, actor, "specimen.disposed", "specimen", before.id, None).await?;
    get(txn, barcode).await
}

/// Expects one more specimen of an order.
pub(crate) async fn expect(
    txn: &Txn<'_>,
    order: OrderId,
    accession_no: &str,
    seq: i16,
    specimen_type: &str,
    replaces: Option<SpecimenId>,
) -> Result<SpecimenId, LabError> {
    let id = SpecimenId::generate();
    let statement = txn
        .prepare_cached(
            "INSERT INTO specimen (id, order_id, seq, barcode, specimen_type, replaces) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .await?;
    let barcode = format!("{accession_no}-{seq}");
    txn.execute(
        &statement,
        &[&id, &order, &seq, &barcode, &specimen_type, &replaces],
    )
    .await?;
    Ok(id)
}

/// A moment that a person or an instrument states: now when absent, and never in the future. Clocks may
/// differ by minutes.
pub(crate) async fn moment(txn: &Txn<'_>, field: &str, at: Option<Timestamp>) -> Result<Timestamp, LabError> {
    let now: Timestamp = txn.query_one("SELECT clock_timestamp()", &[]).await?.get(0);
    let at = at.unwrap_or(now);
    plausible(at, now).map_err(|message| LabError::invalid(field, message))?;
    Ok(at)
}

/// Whether a stated moment can be meant.
pub(crate) fn plausible(at: Timestamp, now: Timestamp) -> Result<(), &'static str> {
    const CLOCKS_DIFFER_MAX: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);
    const YEAR_1950: i64 = -631_152_000;
    if at > now.saturating_add(CLOCKS_DIFFER_MAX).unwrap_or(now) {
        Err("it lies in the future; look at the clock and the zone")
    } else if at.as_second() < YEAR_1950 {
        Err("it lies before 1950; look at the year")
    } else {
        Ok(())
    }
}

/// Locks all specimens of an order, before its results and itself. Who adds a specimen or a result to an
/// order holds one of its specimens already, so from here on there are no more than these.
pub(crate) async fn lock_all(txn: &Txn<'_>, order: OrderId) -> Result<(), LabError> {
    // A statement that had to wait does not see what was added meanwhile: look again until it sees no more.
    // Each round more needs a replacement drawn and rejected within the wait; past these the guards and the
    // deadlock check still hold.
    const ROUNDS_MAX: usize = 8;
    let sql = "SELECT id FROM specimen WHERE order_id = $1 ORDER BY id FOR NO KEY UPDATE";
    let statement = txn.prepare_cached(sql).await?;
    let mut seen = None;
    for _ in 0..ROUNDS_MAX {
        let now = txn.query(&statement, &[&order]).await?.len();
        if seen.replace(now) == Some(now) {
            break;
        }
    }
    Ok(())
}

pub(crate) async fn locked(
    txn: &Txn<'_>,
    barcode: &str,
    allowed: &[SpecimenStatus],
) -> Result<Specimen, LabError> {
    let statement = txn
        .prepare_cached("SELECT 1 FROM specimen WHERE barcode = $1 FOR NO KEY UPDATE")
        .await?;
    txn.query_opt(&statement, &[&barcode]).await?;
    let specimen = get(txn, barcode).await?;
    if allowed.contains(&specimen.status) {
        return Ok(specimen);
    }
    let words: Vec<&str> = allowed.iter().map(|s| s.as_str()).collect();
    Err(LabError::conflict(
        "state",
        format!(
            "specimen {barcode} is {}; it would have to be {}",
            specimen.status,
            words.join(" or ")
        ),
    ))
}

fn revisions(row: &Reader<'_>) -> Result<Vec<SpecimenRevision>, LabError> {
    let revisions: serde_json::Value = row.get("revisions")?;
    serde_json::from_value(revisions).map_err(|_| row.corrupt("revisions"))
}

fn specimen(row: &Row) -> Result<Specimen, LabError> {
    let row = Reader::new("specimen", row);
    Ok(Specimen {
        id: row.get("id")?,
        order_id: row.get("order_id")?,
        seq: row.get("seq")?,
        barcode: row.get("barcode")?,
        specimen_type: row.get("specimen_type")?,
        status: row.get("status")?,
        tests: row.get("tests")?,
        collected_at: row.get("collected_at")?,
        collected_by: row.get("collected_by")?,
        received_at: row.get("received_at")?,
        received_by: row.get("received_by")?,
        reject_reason: row.get("reject_reason")?,
        replaces: row.get("replaces")?,
        revisions: revisions(&row)?,
        version: row.get("version")?,
    })
}
