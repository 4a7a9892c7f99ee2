//! Two people at once: each test holds one transaction open and waits until the database says that the other waits for it.

use lab::{
    OrderStatus, ResultId,
    orders::{self},
    results,
    signoff::{self},
};

use crate::support::{Lab, adult, items, received, value};

#[tokio::test]
async fn two_who_finish_the_last_two_results_at_once_complete_the_order() {
    let lab = Lab::new().await;
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    let setup = one.transaction().await.unwrap();
    let patient = adult(&setup, &lab).await;
    let order = received(&setup, &lab, &patient, &["K", "NA"]).await;
    for result in &order.results {
        let text = if result.code == "K" { "4.0" } else { "140" };
        results::enter(&setup, &lab.technician, result.id, 1, &value(text, "mmol/L"))
            .await
            .unwrap();
    }
    let ids: Vec<ResultId> = order.results.iter().map(|r| r.id).collect();
    signoff::verify(&setup, &lab.supervisor, &items(&setup, &ids).await)
        .await
        .unwrap();
    let (first_items, second_items) = (items(&setup, &ids[..1]).await, items(&setup, &ids[1..]).await);
    setup.commit().await.unwrap();

    let first = one.transaction().await.unwrap();
    signoff::release(&first, &lab.supervisor, &first_items)
        .await
        .unwrap();
    let second = two.transaction().await.unwrap();
    let release = signoff::release(&second, &lab.second_supervisor, &second_items);
    // The second waits for the order's row, so it can only end after the first has committed.
    let (outcome, ()) = tokio::join!(release, async { first.commit().await.unwrap() });
    outcome.unwrap();
    second.commit().await.unwrap();
    let txn = one.transaction().await.unwrap();
    assert_eq!(
        orders::get(&txn, order.head.id).await.unwrap().head.status,
        OrderStatus::Completed
    );
}
