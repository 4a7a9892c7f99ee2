//! The worklist and its token.

use lab::{
    PageRequest, ResultStatus, When, orders, results,
    results::ValueEntry,
    specimens,
    worklist::{self, WorklistFilter},
};

use crate::support::{Lab, adult, is_invalid, new_order, reason, received, sign, value};

fn page() -> PageRequest {
    PageRequest::default()
}

#[tokio::test]
async fn the_worklist_shows_the_urgent_first_and_its_token_changes_with_it() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let routine = received(&txn, &lab, &patient, &["K"]).await;
    let mut stat = new_order(&patient, &["HGB"]);
    stat.priority = Some(lab::Priority::Stat);
    let stat = orders::create(&txn, &lab.receptionist, &stat).await.unwrap();
    let all = WorklistFilter::default();
    let list = worklist::list(&txn, &all, &page()).await.unwrap();
    let codes: Vec<&str> = list.items.iter().map(|i| i.result.code.as_str()).collect();
    assert_eq!(codes, ["HGB", "K"]);
    assert_eq!((list.items[0].family_name.as_str(), list.next), ("Byron", None));
    let chemistry = WorklistFilter {
        section: Some("chemistry".to_owned()),
        status: Some(ResultStatus::Pending),
    };
    assert_eq!(
        worklist::list(&txn, &chemistry, &page())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    let released = WorklistFilter {
        section: None,
        status: Some(ResultStatus::Released),
    };
    is_invalid(worklist::list(&txn, &released, &page()).await, "status");

    let (before, other) = (
        worklist::token(&txn, &chemistry).await.unwrap(),
        worklist::token(&txn, &all).await.unwrap(),
    );
    assert_eq!(worklist::token(&txn, &chemistry).await.unwrap(), before);
    specimens::collect(
        &txn,
        &lab.receptionist,
        &stat.specimens[0].barcode,
        &When::default(),
    )
    .await
    .unwrap();
    assert_eq!(
        worklist::token(&txn, &chemistry).await.unwrap(),
        before,
        "another section's work"
    );
    assert_ne!(worklist::token(&txn, &all).await.unwrap(), other);
    let entry: ValueEntry = value("4.0", "mmol/L");
    results::enter(&txn, &lab.technician, routine.results[0].id, 1, &entry)
        .await
        .unwrap();
    assert_ne!(worklist::token(&txn, &chemistry).await.unwrap(), before);
    sign(&txn, &lab, routine.results[0].id).await;
    assert_eq!(
        worklist::list(&txn, &all, &page()).await.unwrap().items.len(),
        1,
        "what is released is off the list"
    );
}

#[tokio::test]
async fn pages_of_the_worklist_meet_though_work_is_done_in_between() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    // All of one transaction, so that all were ordered at the same moment and only their ids tell them apart.
    for priority in [None, Some(lab::Priority::Stat), Some(lab::Priority::Urgent)] {
        let mut order = new_order(&patient, &["K", "NA", "HGB"]);
        order.priority = priority;
        orders::create(&txn, &lab.receptionist, &order).await.unwrap();
    }
    let all = WorklistFilter::default();
    let whole: Vec<_> = worklist::list(&txn, &all, &page()).await.unwrap().items;
    let whole: Vec<_> = whole.iter().map(|item| item.result.id).collect();
    let mut read = Vec::new();
    let mut after = None;
    loop {
        let request = PageRequest {
            limit: Some(2),
            after,
        };
        let part = worklist::list(&txn, &all, &request).await.unwrap();
        read.extend(part.items.iter().map(|item| item.result.id));
        // The line that the cursor points behind leaves the list.
        let gone = part.items.last().unwrap().result.id;
        results::cancel(&txn, &lab.technician, gone, 1, &reason("not wanted"))
            .await
            .unwrap();
        after = part.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(read, whole);
    for (limit, after, field) in [
        (Some(0), None, "limit"),
        (Some(1_001), None, "limit"),
        (None, Some("bjU".to_owned()), "after"),
    ] {
        let request = PageRequest { limit, after };
        is_invalid(worklist::list(&txn, &all, &request).await, field);
    }
}
