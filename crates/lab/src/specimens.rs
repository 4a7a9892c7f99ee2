//! Specimens: drawn, received, and rejected with or without another attempt.
//!
//! Which times can be and how they are corrected: `collection`.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Actor, LabError, OrderId, SpecimenId, SpecimenStatus, Txn, audit,
    collection::{Times, confirmed, facts},
    moment::{When, moment},
    order_status,
    rows::Reader,
};

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
    order_status::begin(txn, before.order_id).await?;
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
    order_status::begin(txn, before.order_id).await?;
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
