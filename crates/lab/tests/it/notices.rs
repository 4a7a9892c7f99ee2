//! Critical values and the notices without which they are not released.

use jiff::Timestamp;
use lab::{
    Comparator, Flag, LabError, ResultStatus,
    amendments::{self, AmendmentEntry},
    critical, history, results,
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
        conflict(crate::support::told(&txn, &lab, na, &notice()).await),
        "not_critical"
    );
    let mut future = notice();
    future.at = Some("2999-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
    is_invalid(crate::support::told(&txn, &lab, k, &future).await, "at");
    crate::support::told(&txn, &lab, k, &notice()).await.unwrap();
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
    crate::support::told(&txn, &lab, id, &notice()).await.unwrap();
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
    let stale = critical::record(&txn, &lab.technician, id, seen.version, &notice()).await;
    assert!(
        matches!(stale, Err(LabError::Version { have, given, .. }) if (have, given) == (now.version, seen.version)),
        "{stale:?}"
    );
    let told = critical::record(&txn, &lab.technician, id, now.version, &notice()).await;
    assert_eq!(told.unwrap().rev, now.rev);
}

#[tokio::test]
async fn a_value_that_may_be_critical_waits_for_its_notice_too() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = received(&txn, &lab, &patient, &["K"]).await;
    let id = order.results[0].id;
    let mut more = value("6.0", "mmol/L");
    more.comparator = Some(Comparator::More);
    let view = results::enter(&txn, &lab.technician, id, 1, &more).await.unwrap();
    assert_eq!((view.flag, view.notice_required), (Some(Flag::High), true));
    signoff::verify(&txn, &lab.supervisor, &items(&txn, &[id]).await)
        .await
        .unwrap();
    let early = signoff::release(&txn, &lab.supervisor, &items(&txn, &[id]).await).await;
    assert!(
        matches!(&early, Err(LabError::Items(problems)) if problems[0].code == "critical_notice"),
        "{early:?}"
    );
    crate::support::told(&txn, &lab, id, &notice()).await.unwrap();
    signoff::release(&txn, &lab.supervisor, &items(&txn, &[id]).await)
        .await
        .unwrap();
    let out = results::get(&txn, id).await.unwrap();
    assert_eq!(
        (out.status, out.critical_notified),
        (ResultStatus::Released, true)
    );

    let mut less = more.clone();
    less.value = "7.0".to_owned();
    less.comparator = Some(Comparator::Less);
    let entry = AmendmentEntry {
        value: Some(less.value),
        comparator: less.comparator,
        comment: None,
        reason: "misread".to_owned(),
    };
    let proposed = amendments::propose(&txn, &lab.supervisor, id, out.version, &entry)
        .await
        .unwrap()
        .amendment;
    assert_eq!((proposed.flag, proposed.notice_required), (None, true));
    let unheard = amendments::verify(
        &txn,
        &lab.second_supervisor,
        proposed.id,
        &amendments::AmendmentVerification::default(),
    )
    .await;
    assert_eq!(conflict(unheard), "critical_notice");
}

/// The database's rule against the flags of every single number that a comparator allows.
#[tokio::test]
async fn what_may_be_critical_is_what_some_allowed_value_would_be() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    // Values in halves from far below to far above the limits; a limit of a comparator is a whole number.
    let sql = "
        SELECT format('%s%s with %s to %s', c, v, crit_low, crit_high) AS what, may_be_critical(NULL, v, c, crit_low, crit_high) AS said,
               EXISTS (SELECT FROM generate_series(-20, 40) AS half, LATERAL (SELECT half / 2.0 AS x) AS one
                       WHERE CASE c WHEN '<' THEN x < v WHEN '<=' THEN x <= v WHEN '>=' THEN x >= v WHEN '>' THEN x > v ELSE x = v END
                         AND (coalesce(x < crit_low, false) OR coalesce(x > crit_high, false))) AS is
        FROM unnest(ARRAY['<', '<=', '>=', '>', NULL]) AS c, generate_series(0, 10) AS v,
             unnest(ARRAY[NULL, 2, 5]::numeric[]) AS crit_low, unnest(ARRAY[NULL, 5, 8]::numeric[]) AS crit_high";
    let rows = txn.query(sql, &[]).await.unwrap();
    assert_eq!(rows.len(), 5 * 11 * 3 * 3);
    for row in rows {
        assert_eq!(
            row.get::<_, bool>("said"),
            row.get::<_, bool>("is"),
            "{}",
            row.get::<_, String>("what")
        );
    }
    let flagged =
        "SELECT may_be_critical('HH', 7, NULL, NULL, 6) AND NOT may_be_critical('H', 6, NULL, NULL, 6)";
    assert!(txn.query_one(flagged, &[]).await.unwrap().get::<_, bool>(0));
}
