//! The status of an order follows from its specimens and results.

use crate::{Actor, LabError, OrderId, OrderStatus, Txn, audit};

/// Marks orders as begun: the first specimen was drawn.
pub(crate) async fn begin(txn: &Txn<'_>, id: OrderId) -> Result<(), LabError> {
    let sql = "UPDATE lab_order SET status = 'in_progress' WHERE id = $1 AND status = 'registered'";
    txn.execute(&txn.prepare_cached(sql).await?, &[&id]).await?;
    Ok(())
}

/// Completes those orders whose results are all final; one that had not begun, and of which nothing is left,
/// is cancelled.
///
/// The lock comes first, and the look after it in a statement of its own: of two transactions that each
/// finish one of the last two results, the second must see the first's.
pub(crate) async fn complete_finished(txn: &Txn<'_>, actor: &Actor, ids: &[OrderId]) -> Result<(), LabError> {
    lock(txn, ids).await?;
    let statement = txn
        .prepare_cached(
            "UPDATE lab_order o
             SET status = CASE o.status WHEN 'registered' THEN 'cancelled' ELSE 'completed' END,
                 cancel_reason = CASE o.status WHEN 'registered' THEN 'all its tests were cancelled' END
             WHERE o.id = ANY($1) AND o.status IN ('registered', 'in_progress')
               AND NOT EXISTS (SELECT FROM result r WHERE r.order_id = o.id AND r.open)
             RETURNING o.id, o.status",
        )
        .await?;
    let rows = txn.query(&statement, &[&ids]).await?;
    for status in [OrderStatus::Completed, OrderStatus::Cancelled] {
        let of_status = rows.iter().filter(|row| row.get::<_, &str>(1) == status.as_str());
        let done: Vec<String> = of_status
            .map(|row| row.get::<_, OrderId>(0).to_string())
            .collect();
        if !done.is_empty() {
            audit::write_each(txn, actor, &format!("order.{status}"), "order", &done, None).await?;
        }
    }
    Ok(())
}

/// Locks the orders, in the order of their ids.
pub(crate) async fn lock(txn: &Txn<'_>, ids: &[OrderId]) -> Result<(), LabError> {
    let statement = txn
        .prepare_cached("SELECT id FROM lab_order WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE")
        .await?;
    txn.query(&statement, &[&ids]).await?;
    Ok(())
}
