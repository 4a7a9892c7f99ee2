//! The worklist and its token.

use lab::{
    ResultStatus,
    orders::{self},
    results,
    results::ValueEntry,
    specimens::{self, When},
    worklist::{self, WorklistFilter},
};

use crate::support::{Lab, adult, is_invalid, new_order, received, sign, value};

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
    let list = worklist::list(&txn, &all).await.unwrap();
    let codes: Vec<&str> = list.items.iter().map(|i| i.result.code.as_str()).collect();
    assert_eq!(codes, ["HGB", "K"]);
    assert_eq!(
        (list.items[0].family_name.as_str(), list.truncated),
        ("Byron", false)
    );
    let chemistry = WorklistFilter {
        section: Some("chemistry".to_owned()),
        status: Some(ResultStatus::Pending),
    };
    assert_eq!(worklist::list(&txn, &chemistry).await.unwrap().items.len(), 1);
    let released = WorklistFilter {
        section: None,
        status: Some(ResultStatus::Released),
    };
    is_invalid(worklist::list(&txn, &released).await, "status");

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
        worklist::list(&txn, &all).await.unwrap().items.len(),
        1,
        "what is released is off the list"
    );
}
