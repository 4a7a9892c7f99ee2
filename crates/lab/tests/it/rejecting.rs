//! Specimens that cannot be used.

use lab::{
    OrderStatus, ResultStatus, SpecimenStatus, When, history, orders, rejection::Rejection, results,
    specimens,
};

use crate::support::{Lab, adult, conflict, is_missing, received, released, value};

#[tokio::test]
async fn a_rejected_specimen_is_drawn_again_or_its_tests_are_given_up() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = received(&txn, &lab, &patient, &["K", "NA"]).await;
    let id = order.results[0].id;
    results::enter(&txn, &lab.technician, id, 1, &value("4.0", "mmol/L"))
        .await
        .unwrap();
    let barcode = order.specimens[0].barcode.clone();
    let rejection = |recollect| Rejection {
        reason: "haemolysed".to_owned(),
        recollect,
    };
    let rejected = lab::rejection::reject(&txn, &lab.technician, &barcode, &rejection(true))
        .await
        .unwrap();
    assert_eq!(rejected.specimen.status, SpecimenStatus::Rejected);
    let new = rejected.replacement.unwrap();
    assert_eq!(
        (new.status, new.replaces, new.tests.len()),
        (SpecimenStatus::Expected, Some(rejected.specimen.id), 2)
    );
    let back = results::get(&txn, id).await.unwrap();
    assert_eq!(
        (back.status, back.barcode.as_str()),
        (ResultStatus::Pending, new.barcode.as_str())
    );
    assert_eq!(
        history::of_result(&txn, id).await.unwrap().revisions[0]
            .value
            .as_deref(),
        Some("4.0")
    );
    assert_eq!(
        conflict(specimens::receive(&txn, &lab.technician, &barcode, &When::default()).await),
        "state"
    );

    specimens::receive(&txn, &lab.technician, &new.barcode, &When::default())
        .await
        .unwrap();
    let gone = lab::rejection::reject(&txn, &lab.technician, &new.barcode, &rejection(false))
        .await
        .unwrap();
    assert!(gone.replacement.is_none());
    let order = orders::get(&txn, order.head.id).await.unwrap();
    assert!(order.results.iter().all(|r| r.status == ResultStatus::Cancelled));
    assert_eq!(order.head.status, OrderStatus::Completed, "nothing is left to do");

    let other = released(&txn, &lab, &patient, "K", &value("4.0", "mmol/L")).await;
    let kept = lab::rejection::reject(&txn, &lab.technician, &other.barcode, &rejection(true)).await;
    assert_eq!(conflict(kept), "released");
    let done = specimens::dispose(&txn, &lab.technician, &other.barcode)
        .await
        .unwrap();
    assert_eq!(done.status, SpecimenStatus::Disposed);
    is_missing(specimens::collect(&txn, &lab.technician, "nothing", &When::default()).await);
}
