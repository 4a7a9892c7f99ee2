//! The feed of results, in the order in which they became visible.
//!
//! Its cursor misses no late commit, since the database draws its numbers at the very end of each
//! transaction, one transaction after the other. A restore gives numbers again that were given before, so a
//! cursor carries the laboratory's epoch, which a restore renews.

use jiff::Timestamp;
use model::SessionEpoch;

use crate::{
    LabError, Page, PageRequest, ResultStatus, Txn,
    paging::Cursor,
    result_view::{self, ResultView},
    rows::Reader,
};

/// One change of a released result.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultChange {
    /// Its place in the feed, ascending.
    pub seq: i64,
    /// What it became by this change.
    pub change: ResultStatus,
    /// Which of its values this was.
    pub change_rev: i32,
    /// When.
    pub changed_at: Timestamp,
    /// The result as it is now, which may be newer than this change.
    pub result: ResultView,
}

/// Changes after the page's cursor, oldest first. `epoch` is the laboratory's present one.
///
/// # Errors
/// [`LabError::Invalid`] for a bad page; [`LabError::Conflict`] `feed_restarted` for a cursor of another
/// epoch.
pub async fn page(
    txn: &Txn<'_>,
    epoch: SessionEpoch,
    page: &PageRequest,
) -> Result<Page<ResultChange>, LabError> {
    let after = match page.after_feed()? {
        None => 0,
        Some((Some(seen), _)) if seen != epoch.as_uuid() => return Err(restarted()),
        Some((Some(_), seq)) => seq,
        // Of an earlier version, without an epoch: only a number that was never given here betrays it.
        Some((None, seq)) => {
            let sql = "SELECT coalesce(max(seq), 0) FROM result_change";
            let last: i64 = txn.query_one(&txn.prepare_cached(sql).await?, &[]).await?.get(0);
            if seq > last {
                return Err(restarted());
            }
            seq
        }
    };
    let select = result_view::SELECT.replacen(
        "FROM result r",
        ", f.seq, f.status AS change, f.rev AS change_rev, f.changed_at FROM result_change f JOIN result r ON r.id = f.result_id",
        1,
    );
    let statement = txn
        .prepare_cached(&format!("{select} WHERE f.seq > $1 ORDER BY f.seq LIMIT $2"))
        .await?;
    let rows = txn.query(&statement, &[&after, &page.fetch()?]).await?;
    let mut changes = Vec::with_capacity(rows.len());
    for row in &rows {
        let result = result_view::view(row)?;
        let row = Reader::new("result_change", row);
        changes.push(ResultChange {
            seq: row.get("seq")?,
            change: row.get("change")?,
            change_rev: row.get("change_rev")?,
            changed_at: row.get("changed_at")?,
            result,
        });
    }
    page.page(changes, |change| Cursor::Feed(epoch.as_uuid(), change.seq))
}

fn restarted() -> LabError {
    LabError::conflict(
        "feed_restarted",
        "the laboratory was restored since this cursor was given, and its feed numbers results again; begin without a cursor",
    )
}
