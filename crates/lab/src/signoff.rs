//! Verification and release, up to a thousand results a call, all or nothing.
//!
//! Everything is checked before anything is written, so the answer lists every item that stands in the way at
//! once. The database checks the same rules again.

use std::collections::{BTreeSet, HashMap};

use model::StaffId;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Actor, ItemProblem, LabError, Number, OrderId, ResultId, ResultStatus, Txn, audit,
    critical::{CRITICAL, LIFTED, NOTIFIED},
    delta::{self, Compared},
    locks, order_status, profile,
    rows::Reader,
    schema,
    text::{Line, Problems, REASON_MAX},
};

/// Most items of one call.
pub const ITEMS_MAX: usize = 1_000;
// The description of `Items` says so.
const _: () = assert!(ITEMS_MAX == 1_000);

/// Results as the caller has seen them.
#[derive(Debug, Clone, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Items {
    /// 1 to 1,000 different results.
    #[schema(min_items = 1, max_items = 1_000)]
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
    /// Only when verifying a value whose critical mark was lifted (`criticalLifted`): why it is right that it
    /// is not marked any more.
    #[schema(value_type = Option<schema::RequiredReason>)]
    pub confirm_lifted: Option<String>,
    /// Only when releasing a value that a file contradicts (`contradictedBy`): why it is the right one all
    /// the same.
    #[schema(value_type = Option<schema::RequiredReason>)]
    pub confirm_conflict: Option<String>,
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
/// [`LabError::NotFound`] when an id is unknown here; [`LabError::Items`] with every item that cannot be
/// verified (`version`, `state`, `self_verification`, `critical_lifted`): then nothing was.
pub async fn verify(txn: &Txn<'_>, actor: &Actor, items: &Items) -> Result<Signed, LabError> {
    if let Some(n) = items
        .items
        .iter()
        .position(|item| item.confirm_conflict.is_some())
    {
        let message = "it goes with a release: the person who releases has seen what contradicts the value";
        return Err(LabError::invalid(format!("items[{n}].confirmConflict"), message));
    }
    let confirmations = confirmations(items, "confirmLifted", |item| item.confirm_lifted.as_deref())?;
    let mut rows = lock(txn, items).await?;
    let self_allowed = profile::get(txn).await?.allow_self_verify;
    let mut problems = Vec::new();
    for (index, item) in items.items.iter().enumerate() {
        let row = &rows[&item.id];
        if let Some(problem) = stale(index, item, row, ResultStatus::Entered) {
            problems.push(problem);
        } else if row.entered_by == Some(actor.staff) && !self_allowed {
            problems.push(problem(
                index,
                item.id,
                "self_verification",
                "you entered this value; another person must verify it",
            ));
        } else if row.lifted && !row.notified && item.confirm_lifted.is_none() {
            problems.push(problem(index, item.id, "critical_lifted", LIFTED_ADVICE));
        }
    }
    if !problems.is_empty() {
        return Err(LabError::Items(problems));
    }
    let ids: Vec<ResultId> = items.items.iter().map(|item| item.id).collect();
    let deltas = Deltas::measure(txn, &ids, &mut rows, &[]).await?;
    let sql = "UPDATE result r SET status = 'verified', verified_by = $2, changed_by = $2, lift_confirmation = u.confirmation,
                 delta_flag = u.delta_flag, delta_previous = u.delta_previous
               FROM unnest($1::uuid[], $3::text[], $4::bool[], $5::numeric[])
                 AS u (id, confirmation, delta_flag, delta_previous) WHERE r.id = u.id
               RETURNING r.id, r.version, r.status, r.lift_confirmation";
    let statement = txn.prepare_cached(sql).await?;
    let rows = txn
        .query(
            &statement,
            &[
                &ids,
                &actor.staff.as_uuid(),
                &confirmations,
                &deltas.exceeded,
                &deltas.previous,
            ],
        )
        .await?;
    confirmed(
        txn,
        actor,
        &rows,
        "lift_confirmation",
        "result.critical_lift_confirmed",
    )
    .await?;
    signed(txn, actor, items, &rows, "result.verified").await
}

const LIFTED_ADVICE: &str = "its critical mark was lifted since it was entered (criticalLifted says when and why); record whom you \
                             notified (critical-notice), or verify it with confirmLifted and the reason";

const CONTRADICTED_ADVICE: &str = "a file has another value for this result (contradictedBy says where); repeat it, replace it by \
                                   that value, or release it with confirmConflict and the reason";

/// Writes down which items were confirmed, and why.
async fn confirmed(
    txn: &Txn<'_>,
    actor: &Actor,
    rows: &[Row],
    column: &'static str,
    action: &str,
) -> Result<(), LabError> {
    for row in rows {
        let row = Reader::new("result", row);
        if let Some(reason) = row.get::<Option<String>>(column)? {
            let id: ResultId = row.get("id")?;
            let detail = serde_json::json!({ "reason": reason });
            audit::write(txn, actor, action, "result", id, Some(detail)).await?;
        }
    }
    Ok(())
}

/// The reasons given for a confirmation, one for each item.
fn confirmations<'a>(
    items: &'a Items,
    field: &str,
    given: impl Fn(&'a Item) -> Option<&'a str>,
) -> Result<Vec<Option<Line>>, LabError> {
    let mut problems = Problems::default();
    let of = |(n, item): (usize, &'a Item)| {
        let field = format!("items[{n}].{field}");
        problems.optional_line(&field, given(item), REASON_MAX)
    };
    let confirmations = items.items.iter().take(ITEMS_MAX).enumerate().map(of).collect();
    problems.done()?;
    Ok(confirmations)
}

/// Releases verified results; orders whose results are all final complete by themselves.
///
/// # Errors
/// [`LabError::NotFound`] when an id is unknown here; [`LabError::Items`] with every item that cannot be
/// released (`version`, `state`, `critical_notice`, `critical_lifted`, `contradicted`): then nothing was.
/// [`LabError::Invalid`] for a confirmation, which goes with a verification.
pub async fn release(txn: &Txn<'_>, actor: &Actor, items: &Items) -> Result<Signed, LabError> {
    if let Some(n) = items.items.iter().position(|item| item.confirm_lifted.is_some()) {
        let message = "it goes with a verification: the person who verifies accepts a lifted mark";
        return Err(LabError::invalid(format!("items[{n}].confirmLifted"), message));
    }
    let confirmations = confirmations(items, "confirmConflict", |item| item.confirm_conflict.as_deref())?;
    let mut rows = lock(txn, items).await?;
    let mut problems = Vec::new();
    for (index, item) in items.items.iter().enumerate() {
        let row = &rows[&item.id];
        if let Some(problem) = stale(index, item, row, ResultStatus::Verified) {
            problems.push(problem);
        } else if row.critical && !row.notified {
            let message = "the value is or may be critical; record whom you notified and that it was read back (critical-notice) first";
            problems.push(problem(index, item.id, "critical_notice", message));
        } else if row.lifted && !row.notified {
            problems.push(problem(index, item.id, "critical_lifted", LIFTED_ADVICE));
        } else if row.contradicted && item.confirm_conflict.is_none() {
            problems.push(problem(index, item.id, "contradicted", CONTRADICTED_ADVICE));
        }
    }
    if !problems.is_empty() {
        return Err(LabError::Items(problems));
    }
    let ids: Vec<ResultId> = items.items.iter().map(|item| item.id).collect();
    let deltas = Deltas::measure(txn, &ids, &mut rows, &ids).await?;
    let sql = "UPDATE result r SET status = 'released', released_by = $2, changed_by = $2, conflict_confirmation = u.confirmation,
                 delta_flag = u.delta_flag, delta_previous = u.delta_previous
               FROM unnest($1::uuid[], $3::text[], $4::bool[], $5::numeric[])
                 AS u (id, confirmation, delta_flag, delta_previous) WHERE r.id = u.id
               RETURNING r.id, r.version, r.status, r.conflict_confirmation";
    let statement = txn.prepare_cached(sql).await?;
    let released = txn
        .query(
            &statement,
            &[
                &ids,
                &actor.staff.as_uuid(),
                &confirmations,
                &deltas.exceeded,
                &deltas.previous,
            ],
        )
        .await?;
    confirmed(
        txn,
        actor,
        &released,
        "conflict_confirmation",
        "result.conflict_confirmed",
    )
    .await?;
    let signed = signed(txn, actor, items, &released, "result.released").await?;
    let orders: BTreeSet<OrderId> = rows.values().map(|row| row.order).collect();
    order_status::complete_finished(txn, actor, &orders.into_iter().collect::<Vec<_>>()).await?;
    Ok(signed)
}

struct Locked {
    order: OrderId,
    version: i32,
    status: ResultStatus,
    entered_by: Option<StaffId>,
    critical: bool,
    lifted: bool,
    notified: bool,
    /// Whether a file has another value for it.
    contradicted: bool,
    /// What a delta check compares, if its test has one.
    compared: Option<Compared>,
}

/// The deltas of the items, as columns in the order of the ids.
struct Deltas {
    exceeded: Vec<bool>,
    previous: Vec<Option<Number>>,
}

impl Deltas {
    async fn measure(
        txn: &Txn<'_>,
        ids: &[ResultId],
        rows: &mut HashMap<ResultId, Locked>,
        releasing: &[ResultId],
    ) -> Result<Self, LabError> {
        let compared: Vec<Compared> = rows.values_mut().filter_map(|row| row.compared.take()).collect();
        let measured = delta::measure(txn, &compared, releasing).await?;
        let of = |id| measured.get(id);
        Ok(Self {
            exceeded: ids
                .iter()
                .map(|id| of(id).is_some_and(|delta| delta.exceeded))
                .collect(),
            previous: ids.iter().map(|id| of(id).map(|delta| delta.previous)).collect(),
        })
    }
}

/// Locks all items in the order of their ids. An id that is not there is not this laboratory's: the whole
/// call is refused without a word about the others.
async fn lock(txn: &Txn<'_>, items: &Items) -> Result<HashMap<ResultId, Locked>, LabError> {
    let ids: Vec<ResultId> = items.items.iter().map(|item| item.id).collect();
    if !(1..=ITEMS_MAX).contains(&ids.len()) {
        return Err(LabError::invalid(
            "items",
            format!("name 1 to {ITEMS_MAX} results"),
        ));
    }
    let mut distinct = BTreeSet::new();
    if let Some(index) = ids.iter().position(|id| !distinct.insert(*id)) {
        let message = "this result is named twice; name each once";
        return Err(LabError::invalid(format!("items[{index}].id"), message));
    }
    locks::share_people(txn, &ids).await?;
    let statement = txn
        .prepare_cached(&format!(
            "SELECT r.id, r.order_id, r.version, r.status, r.entered_by,
                    t.delta_pct, CASE WHEN r.comparator IS NULL THEN r.value_num END AS compared,
                    {CRITICAL} AS critical, {LIFTED} AS lifted, {NOTIFIED} AS notified,
                    EXISTS (SELECT FROM contradictions(r.id, r.value_num, r.comparator, r.value_text)) AS contradicted
             FROM result r JOIN test_def t ON t.code = r.test_code
             WHERE r.id = ANY($1) ORDER BY r.id FOR NO KEY UPDATE OF r",
        ))
        .await?;
    let mut found = HashMap::with_capacity(ids.len());
    for row in &txn.query(&statement, &[&ids]).await? {
        let row = Reader::new("result", row);
        let id = row.get("id")?;
        let compared = row
            .get::<Option<Number>>("compared")?
            .zip(row.get::<Option<Number>>("delta_pct")?);
        let locked = Locked {
            order: row.get("order_id")?,
            version: row.get("version")?,
            status: row.get("status")?,
            entered_by: row.get::<Option<Uuid>>("entered_by")?.map(StaffId::from),
            critical: row.get("critical")?,
            lifted: row.get("lifted")?,
            notified: row.get("notified")?,
            contradicted: row.get("contradicted")?,
            compared: compared.map(|(value, allowed_pct)| Compared {
                result: id,
                value,
                allowed_pct,
            }),
        };
        found.insert(id, locked);
    }
    match ids.iter().position(|id| !found.contains_key(id)) {
        Some(index) => Err(LabError::not_found("result", ids[index]).at(format!("items[{index}].id"))),
        None => Ok(found),
    }
}

fn stale(index: usize, item: &Item, row: &Locked, wanted: ResultStatus) -> Option<ItemProblem> {
    if row.version != item.version {
        let message = format!(
            "it is at version {} now, not {}; look at it again",
            row.version, item.version
        );
        return Some(problem(index, item.id, "version", message));
    }
    (row.status != wanted).then(|| {
        let message = format!("it is {}, not {wanted}", row.status);
        problem(index, item.id, "state", message)
    })
}

fn problem(index: usize, id: ResultId, code: &'static str, message: impl Into<String>) -> ItemProblem {
    ItemProblem {
        index,
        id,
        code,
        message: message.into(),
    }
}

/// Writes down who signed, and gives the items back in their order.
async fn signed(
    txn: &Txn<'_>,
    actor: &Actor,
    items: &Items,
    rows: &[Row],
    action: &str,
) -> Result<Signed, LabError> {
    let mut signed = HashMap::with_capacity(rows.len());
    for row in rows {
        let row = Reader::new("result", row);
        let item = SignedItem {
            id: row.get("id")?,
            version: row.get("version")?,
            status: row.get("status")?,
        };
        signed.insert(item.id, item);
    }
    let texts: Vec<String> = items.items.iter().map(|item| item.id.to_string()).collect();
    audit::write_each(txn, actor, action, "result", &texts, None).await?;
    Ok(Signed {
        items: items
            .items
            .iter()
            .filter_map(|item| signed.remove(&item.id))
            .collect(),
    })
}
