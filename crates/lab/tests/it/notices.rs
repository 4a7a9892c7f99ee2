//! Critical values and the notices without which they are not released.

use jiff::Timestamp;
use lab::{
    Comparator, Flag, LabError, ResultStatus, critical, history, results,
    signoff::{self},
};

use crate::support::{Lab, adult, conflict, is_invalid, items, notice, reason, received, value};

#[tokio::test]
async fn a_critical_potassium_waits_for_its_notice() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = received(&txn, &lab, &patient, &["K", "NA"]).await;
    let by_code = |code: &str| order.results.iter().find(|r| r.code == code).unwrap().id;
    let (k, na) = (by_code("K"), by_code("NA"));
    let entered = results::enter(&txn, &lab.technician, k, 1, &value("7.1", "mmol/L"))
        .await
        .unwrap();
    assert_eq!(entered.flag, Some(Flag::CriticalHigh));
    results::enter(&txn, &lab.technician, na, 1, &value("140", "mmol/L"))
        .await
        .unwrap();
    signoff::verify(&txn, &lab.supervisor, &items(&txn, &[k, na]).await)
        .await
        .unwrap();
    let Err(LabError::Items(problems)) =
        signoff::release(&txn, &lab.supervisor, &items(&txn, &[k, na]).await).await
    else {
        panic!("it must wait")
    };
    assert_eq!(
        (problems.len(), problems[0].id, problems[0].code),
        (1, k, "critical_notice")
    );
    assert_eq!(
        conflict(critical::record(&txn, &lab.technician, na, None, &notice()).await),
        "not_critical"
    );
    let mut future = notice();
    future.at = Some("2999-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
    is_invalid(
        critical::record(&txn, &lab.technician, k, None, &future).await,
        "at",
    );
    critical::record(&txn, &lab.technician, k, None, &notice())
        .await
        .unwrap();
    signoff::release(&txn, &lab.supervisor, &items(&txn, &[k, na]).await)
        .await
        .unwrap();
    assert!(results::get(&txn, k).await.unwrap().critical_notified);
}

#[tokio::test]
async fn a_repeated_critical_value_needs_a_notice_again_and_loses_its_comparator() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = received(&txn, &lab, &patient, &["K"]).await;
    let id = order.results[0].id;
    let mut first = value("7.0", "mmol/L");
    first.comparator = Some(Comparator::More);
    results::enter(&txn, &lab.technician, id, 1, &first)
        .await
        .unwrap();
    critical::record(&txn, &lab.technician, id, None, &notice())
        .await
        .unwrap();
    let version = results::get(&txn, id).await.unwrap().version;
    let back = results::repeat(&txn, &lab.technician, id, version, &reason("haemolysed?"))
        .await
        .unwrap();
    assert_eq!(
        (back.status, back.value.as_deref(), back.comparator, back.rev),
        (ResultStatus::Pending, None, None, 2)
    );
    let again = results::enter(&txn, &lab.technician, id, back.version, &value("7.2", "mmol/L"))
        .await
        .unwrap();
    assert_eq!((again.comparator, again.critical_notified), (None, false));
    signoff::verify(&txn, &lab.supervisor, &items(&txn, &[id]).await)
        .await
        .unwrap();
    assert!(
        signoff::release(&txn, &lab.supervisor, &items(&txn, &[id]).await)
            .await
            .is_err()
    );
    let past = history::of_result(&txn, id).await.unwrap();
    assert_eq!(past.revisions.len(), 1);
    assert_eq!(
        (past.revisions[0].value.as_deref(), past.revisions[0].comparator),
        (Some("7.0"), Some(Comparator::More))
    );
    assert_eq!(
        (past.revisions[0].reason.as_str(), past.notices.len()),
        ("haemolysed?", 1)
    );
}

#[tokio::test]
async fn a_notice_of_a_value_that_was_replaced_meanwhile_is_refused() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = received(&txn, &lab, &patient, &["K"]).await;
    let id = order.results[0].id;
    let seen = results::enter(&txn, &lab.technician, id, 1, &value("7.0", "mmol/L"))
        .await
        .unwrap();
    let mut other = value("1.5", "mmol/L");
    other.reason = Some("wrong tube".to_owned());
    let now = results::enter(&txn, &lab.technician, id, seen.version, &other)
        .await
        .unwrap();
    let stale = critical::record(&txn, &lab.technician, id, Some(seen.version), &notice()).await;
    assert!(
        matches!(stale, Err(LabError::Version { have, given, .. }) if (have, given) == (now.version, seen.version)),
        "{stale:?}"
    );
    let told = critical::record(&txn, &lab.technician, id, Some(now.version), &notice()).await;
    assert_eq!(told.unwrap().rev, now.rev);
}
