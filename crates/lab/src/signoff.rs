//! Verification and release, up to a thousand results a call, all or nothing.
//!
//! Everything is checked before anything is written, so the answer lists every item that stands in the way at once. The
//! database checks the same rules again.

use std::collections::{BTreeSet, HashMap};

use model::StaffId;
use uuid::Uuid;

use crate::{
    Actor, ItemProblem, LabError, OrderId, ResultId, ResultStatus, Txn, audit,
    critical::{CRITICAL, NOTIFIED},
    orders, profile,
    rows::Reader,
};

/// Most items of one call.
pub const ITEMS_MAX: usize = 1_000;

/// Results as the caller has seen them.
#[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Items {
    /// 1 to 1,000 different results.
    pub items: Vec<Item>,
}

/// One result as the caller has seen it.
#[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Item {
    /// The result.
    pub id: ResultId,
    /// The version that was looked at.
    pub version: i32,
}

/// What became of the items, in their order.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Signed {
    /// The items.
    pub items: Vec<SignedItem>,
}

/// One result after it was signed.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignedItem {
    /// The result.
    pub id: ResultId,
    /// Its version now.
    pub version: i32,
    /// Where it stands now.
    pub status: ResultStatus,
}

/// Verifies entered results.
///
/// # Errors
/// [`LabError::NotFound`] when an id is unknown here; [`LabError::Items`] with every item that cannot be verified (`version`,
/// `state`, `self_verification`): then nothing was.
pub async fn verify(txn: &Txn<'_>, actor: &Actor, items: &Items) -> Result<Signed, LabError> {
    let rows = lock(txn, items).await?;
    let self_allowed = profile::get(txn).await?.allow_self_verify;
    let mut problems = Vec::new();
    for item in &items.items {
        let row = &rows[&item.id];
        if let Some(problem) = stale(item, row, ResultStatus::Entered) {
            problems.push(problem);
        } else if row.entered_by == Some(actor.staff) && !self_allowed {
            problems.push(problem(
                item.id,
                "self_verification",
                "you entered this value; another person must verify it",
            ));
        }
    }
    if !problems.is_empty() {
        return Err(LabError::Items(problems));
    }
    sign(txn, actor, items, "UPDATE result SET status = 'verified', verified_by = $2, changed_by = $2 WHERE id = ANY($1) RETURNING id, version, status", "result.verified").await
}

/// Releases verified results; orders whose results are all final complete by themselves.
///
/// # Errors
/// [`LabError::NotFound`] when an id is unknown here; [`LabError::Items`] with every item that cannot be released (`version`,
/// `state`, `critical_notice`): then nothing was.
pub async fn release(txn: &Txn<'_>, actor: &Actor, items: &Items) -> Result<Signed, LabError> {
    let rows = lock(txn, items).await?;
    let mut problems = Vec::new();
    for item in &items.items {
        let row = &rows[&item.id];
        if let Some(problem) = stale(item, row, ResultStatus::Verified) {
            problems.push(problem);
        } else if row.critical && !row.notified {
            let message = "the value is or may be critical; record whom you notified and that it was read back (critical-notice) first";
            problems.push(problem(item.id, "critical_notice", message));
        }
    }
    if !problems.is_empty() {
        return Err(LabError::Items(problems));
    }
    let signed = sign(txn, actor, items, "UPDATE result SET status = 'released', released_by = $2, changed_by = $2 WHERE id = ANY($1) RETURNING id, version, status", "result.released").await?;
    let orders: BTreeSet<OrderId> = rows.values().map(|row| row.order).collect();
    orders::settle(txn, actor, &orders.into_iter().collect::<Vec<_>>()).await?;
    Ok(signed)
}

struct Locked {
    order: OrderId,
    version: i32,
    status: ResultStatus,
    entered_by: Option<StaffId>,
    critical: bool,
    notified: bool,
}

/// Locks all items in the order of their ids. An id that is not there is not this laboratory's: the whole call is refused
/// without a word about the others.
async fn lock(txn: &Txn<'_>, items: &Items) -> Result<HashMap<ResultId, Locked>, LabError> {
    let ids: Vec<ResultId> = items.items.iter().map(|item| item.id).collect();
    if !(1..=ITEMS_MAX).contains(&ids.len()) {
        return Err(LabError::invalid(
            "items",
            format!("name 1 to {ITEMS_MAX} results"),
        ));
    }
    let distinct: BTreeSet<ResultId> = ids.iter().copied().collect();
    if distinct.len() != ids.len() {
        return Err(LabError::invalid("items", "each result may be named once"));
    }
    let statement = txn
        .prepare_cached(&format!(
            "SELECT r.id, r.order_id, r.version, r.status, r.entered_by,
                    {CRITICAL} AS critical, {NOTIFIED} AS notified
             FROM result r WHERE r.id = ANY($1) ORDER BY r.id FOR NO KEY UPDATE OF r",
        ))
        .await?;
    let mut found = HashMap::with_capacity(ids.len());
    for row in &txn.query(&statement, &[&ids]).await? {
        let row = Reader::new("result", row);
        let locked = Locked {
            order: row.get("order_id")?,
            version: row.get("version")?,
            status: row.get("status")?,
            entered_by: row.get::<Option<Uuid>>("entered_by")?.map(StaffId::from),
            critical: row.get("critical")?,
            notified: row.get("notified")?,
        };
        found.insert(row.get("id")?, locked);
    }
    match ids.iter().find(|id| !found.contains_key(*id)) {
        Some(missing) => Err(LabError::not_found("result", missing)),
        None => Ok(found),
    }
}

fn stale(item: &Item, row: &Locked, wanted: ResultStatus) -> Option<ItemProblem> {
    if row.version != item.version {
        let message = format!(
            "it is at version {} now, not {}; look at it again",
            row.version, item.version
        );
        return Some(problem(item.id, "version", message));
    }
    (row.status != wanted).then(|| problem(item.id, "state", format!("it is {}, not {wanted}", row.status)))
}

fn problem(id: ResultId, code: &'static str, message: impl Into<String>) -> ItemProblem {
    ItemProblem {
        id,
        code,
        message: message.into(),
    }
}

async fn sign(
    txn: &Txn<'_>,
    actor: &Actor,
    items: &Items,
    sql: &str,
    action: &str,
) -> Result<Signed, LabError> {
    let ids: Vec<ResultId> = items.items.iter().map(|item| item.id).collect();
    let statement = txn.prepare_cached(sql).await?;
    let mut signed = HashMap::with_capacity(ids.len());
    for row in &txn.query(&statement, &[&ids, &actor.staff.as_uuid()]).await? {
        let row = Reader::new("result", row);
        let item = SignedItem {
            id: row.get("id")?,
            version: row.get("version")?,
            status: row.get("status")?,
        };
        signed.insert(item.id, item);
    }
    let texts: Vec<String> = ids.iter().map(ResultId::to_string).collect();
    audit::write_each(txn, actor, action, "result", &texts, None).await?;
    Ok(Signed {
        items: ids.iter().filter_map(|id| signed.remove(id)).collect(),
    })
}
