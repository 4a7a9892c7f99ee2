//! The way of an order through the laboratory, told from its front door.

use jiff::Timestamp;
use lab::{
    AmendmentStatus, Comparator, Flag, LabError, OrderStatus, PageRequest, ResultId, ResultStatus,
    SpecimenStatus,
    amendments::{self, AmendmentEntry},
    audit, critical,
    critical::CriticalNoticeEntry,
    history,
    orders::{self, AddTests, Reason},
    report, results,
    results::ValueEntry,
    signoff::{self, Item, Items},
    specimens::{self, Rejection, When},
    worklist::{self, WorklistFilter},
};

use crate::support::{
    Lab, adult, conflict, is_invalid, is_missing, items, new_order, received, released, sign, value,
};

fn reason(text: &str) -> Reason {
    Reason {
        reason: text.to_owned(),
    }
}

fn notice() -> CriticalNoticeEntry {
    CriticalNoticeEntry {
        notified_to: "Dr. Osei, ward 3".to_owned(),
        at: None,
        read_back: true,
    }
}

#[tokio::test]
async fn an_order_goes_from_the_desk_to_the_report() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = orders::create(&txn, &lab.receptionist, &new_order(&patient, &["K", "NA", "HGB"]))
        .await
        .unwrap();
    assert!(
        order.head.accession_no.ends_with("-0001"),
        "{}",
        order.head.accession_no
    );
    assert_eq!(order.head.status, OrderStatus::Registered);
    let tubes: Vec<(&str, usize)> = order
        .specimens
        .iter()
        .map(|s| (s.specimen_type.as_str(), s.tests.len()))
        .collect();
    assert_eq!(
        tubes,
        [("EDTA blood", 1), ("serum", 2)],
        "one specimen for each kind"
    );

    let serum = order.specimens[1].barcode.clone();
    specimens::collect(&txn, &lab.receptionist, &serum, &When::default())
        .await
        .unwrap();
    let begun = orders::get(&txn, order.head.id).await.unwrap();
    assert_eq!(begun.head.status, OrderStatus::InProgress);
    specimens::receive(&txn, &lab.technician, &serum, &When::default())
        .await
        .unwrap();

    let by_code = |code: &str| order.results.iter().find(|r| r.code == code).unwrap().id;
    let (k, na, hgb) = (by_code("K"), by_code("NA"), by_code("HGB"));
    let early = results::enter(&txn, &lab.technician, hgb, 1, &value("14.0", "g/dL")).await;
    assert_eq!(conflict(early), "specimen", "its tube was not received");
    is_invalid(
        results::enter(&txn, &lab.technician, k, 1, &value("4.0", "mEq/L")).await,
        "unit",
    );
    is_invalid(
        results::enter(&txn, &lab.technician, k, 1, &value("4,0", "mmol/L")).await,
        "value",
    );
    let stale = results::enter(&txn, &lab.technician, k, 7, &value("4.0", "mmol/L")).await;
    assert!(
        matches!(
            stale,
            Err(LabError::Version {
                have: 1,
                given: 7,
                ..
            })
        ),
        "{stale:?}"
    );
    let entered = results::enter(&txn, &lab.technician, k, 1, &value("5.0", "mmol/L"))
        .await
        .unwrap();
    assert_eq!(
        (entered.value.as_deref(), entered.flag, entered.version),
        (Some("5.0"), Some(Flag::Normal), 2)
    );
    results::enter(&txn, &lab.technician, na, 1, &value("150", "mmol/L"))
        .await
        .unwrap();

    // A report shows nothing that was not released.
    let before = report::of_order(&txn, order.head.id).await.unwrap();
    assert!(
        !before.complete
            && before
                .results
                .iter()
                .all(|r| r.value.is_none() && r.flag.is_none())
    );

    let both = items(&txn, &[k, na]).await;
    signoff::verify(&txn, &lab.supervisor, &both).await.unwrap();
    let signed = signoff::release(&txn, &lab.supervisor, &items(&txn, &[k, na]).await)
        .await
        .unwrap();
    assert_eq!(
        signed.items.iter().map(|i| i.id).collect::<Vec<_>>(),
        [k, na],
        "answered in the order of the call"
    );
    assert_eq!(
        orders::get(&txn, order.head.id).await.unwrap().head.status,
        OrderStatus::InProgress
    );

    let blood = &order.specimens[0].barcode;
    specimens::receive(&txn, &lab.technician, blood, &When::default())
        .await
        .unwrap();
    results::enter(&txn, &lab.technician, hgb, 1, &value("11.9", "g/dL"))
        .await
        .unwrap();
    sign(&txn, &lab, hgb).await;
    assert_eq!(
        orders::get(&txn, order.head.id).await.unwrap().head.status,
        OrderStatus::Completed,
        "by itself"
    );

    let report = report::of_order(&txn, order.head.id).await.unwrap();
    assert!(report.complete && report.superseded.is_empty());
    let line = report.results.iter().find(|r| r.id == hgb).unwrap();
    assert_eq!(
        (line.value.as_deref(), line.flag.map(Flag::as_str)),
        (Some("11.9"), Some("L"))
    );
    assert_eq!(line.ref_low.unwrap().to_string(), "12");
    assert_eq!(report.signers[&lab.supervisor.staff.to_string()], "Person 2");

    let late = orders::add_tests(
        &txn,
        &lab.receptionist,
        order.head.id,
        &AddTests {
            tests: vec!["CA".into()],
        },
    )
    .await;
    assert_eq!(conflict(late), "order_closed");
    let trail = audit::list(&txn, Some(&hgb.to_string()), &PageRequest::default())
        .await
        .unwrap();
    let actions: Vec<&str> = trail.items.iter().map(|e| e.action.as_str()).collect();
    assert_eq!(actions, ["result.released", "result.verified", "result.entered"]);
    let first = &trail.items[2];
    assert_eq!(first.actor, Some(lab.technician.staff.as_uuid()));
    assert_eq!(
        (first.actor_role.as_deref(), first.request_id.as_deref()),
        (Some("technician"), Some("req-1"))
    );
    assert_eq!(first.client_ip.as_deref(), Some("192.0.2.7"));
}

#[tokio::test]
async fn verification_is_all_or_nothing_and_lists_every_item_in_the_way() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = received(&txn, &lab, &patient, &["K", "NA", "CL", "CA"]).await;
    let ids: Vec<ResultId> = order.results.iter().map(|r| r.id).collect();
    for (code, text, unit) in [
        ("K", "4.0", "mmol/L"),
        ("CL", "100", "mmol/L"),
        ("CA", "9.0", "mg/dL"),
    ] {
        let id = order.results.iter().find(|r| r.code == code).unwrap().id;
        results::enter(&txn, &lab.technician, id, 1, &value(text, unit))
            .await
            .unwrap();
    }
    let mut all = items(&txn, &ids).await;
    all.items[0].version += 5;
    let Err(LabError::Items(problems)) = signoff::verify(&txn, &lab.supervisor, &all).await else {
        panic!("a stale version and a pending result must stop it")
    };
    let codes: Vec<&str> = problems.iter().map(|p| p.code).collect();
    assert_eq!(codes.len(), 2);
    assert!(
        codes.contains(&"version") && codes.contains(&"state"),
        "{codes:?}"
    );
    let none = results::get(&txn, ids[2]).await.unwrap();
    assert!(
        matches!(none.status, ResultStatus::Pending | ResultStatus::Entered),
        "nothing was verified"
    );

    let mut foreign = items(&txn, &ids).await;
    foreign.items.push(Item {
        id: ResultId::generate(),
        version: 1,
    });
    is_missing(signoff::verify(&txn, &lab.supervisor, &foreign).await);
    is_invalid(
        signoff::verify(&txn, &lab.supervisor, &Items { items: Vec::new() }).await,
        "items",
    );
    let twice = Items {
        items: vec![
            Item {
                id: ids[0],
                version: 1,
            },
            Item {
                id: ids[0],
                version: 1,
            },
        ],
    };
    is_invalid(signoff::verify(&txn, &lab.supervisor, &twice).await, "items");

    let own = items(&txn, &[order.results.iter().find(|r| r.code == "K").unwrap().id]).await;
    let Err(LabError::Items(problems)) = signoff::verify(&txn, &lab.technician, &own).await else {
        panic!()
    };
    assert_eq!(problems[0].code, "self_verification");
}

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
        conflict(critical::record(&txn, &lab.technician, na, &notice()).await),
        "not_critical"
    );
    let mut future = notice();
    future.at = Some("2999-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
    is_invalid(critical::record(&txn, &lab.technician, k, &future).await, "at");
    critical::record(&txn, &lab.technician, k, &notice())
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
    critical::record(&txn, &lab.technician, id, &notice())
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
async fn an_entered_value_is_replaced_only_with_a_reason() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = received(&txn, &lab, &patient, &["K"]).await;
    let id = order.results[0].id;
    let mut entry = value("4.0", "mmol/L");
    entry.comment = Some("two\nlines; DROP TABLE result;-- \u{65}\u{301}".to_owned());
    let first = results::enter(&txn, &lab.technician, id, 1, &entry)
        .await
        .unwrap();
    assert_eq!(first.comment, entry.comment, "kept as typed");
    is_invalid(
        results::enter(&txn, &lab.technician, id, 2, &value("4.1", "mmol/L")).await,
        "reason",
    );
    let mut with_nul = value("4.1", "mmol/L");
    with_nul.comment = Some("a\0b".to_owned());
    is_invalid(
        results::enter(&txn, &lab.technician, id, 2, &with_nul).await,
        "comment",
    );
    let mut better = value("4.1", "mmol/L");
    better.reason = Some("typo".to_owned());
    let second = results::enter(&txn, &lab.technician, id, 2, &better)
        .await
        .unwrap();
    assert_eq!(
        (second.rev, second.value.as_deref(), second.comment),
        (2, Some("4.1"), None)
    );
    sign(&txn, &lab, id).await;
    let version = results::get(&txn, id).await.unwrap().version;
    assert_eq!(
        conflict(results::enter(&txn, &lab.technician, id, version, &better).await),
        "state"
    );
    assert_eq!(
        conflict(results::repeat(&txn, &lab.technician, id, version, &reason("x")).await),
        "state"
    );
}

#[tokio::test]
async fn an_amendment_is_entered_by_one_and_verified_by_another() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let result = released(&txn, &lab, &patient, "K", &value("4.0", "mmol/L")).await;
    let amend = |value: &str| AmendmentEntry {
        value: Some(value.to_owned()),
        comparator: None,
        comment: None,
        reason: "wrong tube".to_owned(),
    };
    is_invalid(
        amendments::propose(&txn, &lab.supervisor, result.id, result.version, &amend("4.0")).await,
        "value",
    );
    let proposed = amendments::propose(&txn, &lab.supervisor, result.id, result.version, &amend("5.9"))
        .await
        .unwrap();
    assert_eq!(proposed.amendment.status, AmendmentStatus::Proposed);
    assert_eq!(
        proposed.result.value.as_deref(),
        Some("4.0"),
        "nothing changes before it is verified"
    );
    let second = amendments::propose(&txn, &lab.supervisor, result.id, result.version, &amend("5.8")).await;
    assert_eq!(conflict(second), "open_amendment");
    let own = amendments::verify(&txn, &lab.supervisor, proposed.amendment.id).await;
    assert_eq!(conflict(own), "self_verification");
    let done = amendments::verify(&txn, &lab.second_supervisor, proposed.amendment.id)
        .await
        .unwrap();
    let now = &done.result;
    assert_eq!(
        (now.status, now.value.as_deref(), now.flag),
        (ResultStatus::Corrected, Some("5.9"), Some(Flag::High))
    );
    assert_eq!(now.entered_by, Some(lab.supervisor.staff.as_uuid()));
    assert_eq!(now.verified_by, Some(lab.second_supervisor.staff.as_uuid()));
    assert_eq!(
        conflict(amendments::verify(&txn, &lab.second_supervisor, proposed.amendment.id).await),
        "state"
    );

    // Again, and this time only the comment; then a critical value, which waits for a notice of its own.
    let remark = AmendmentEntry {
        value: None,
        comparator: None,
        comment: Some("slightly lipaemic".to_owned()),
        reason: "remark".to_owned(),
    };
    let third = amendments::propose(&txn, &lab.second_supervisor, result.id, now.version, &remark)
        .await
        .unwrap();
    let amended = amendments::verify(&txn, &lab.supervisor, third.amendment.id)
        .await
        .unwrap()
        .result;
    assert_eq!(
        (amended.status, amended.value.as_deref()),
        (ResultStatus::Amended, Some("5.9"))
    );
    let worse = amendments::propose(&txn, &lab.supervisor, result.id, amended.version, &amend("8.0"))
        .await
        .unwrap();
    let early = amendments::verify(&txn, &lab.second_supervisor, worse.amendment.id).await;
    assert_eq!(conflict(early), "critical_notice");
    critical::record(&txn, &lab.technician, result.id, &notice())
        .await
        .unwrap();
    amendments::verify(&txn, &lab.second_supervisor, worse.amendment.id)
        .await
        .unwrap();

    let past = history::of_result(&txn, result.id).await.unwrap();
    let values: Vec<_> = past
        .revisions
        .iter()
        .map(|r| (r.value.clone().unwrap(), r.status.as_str()))
        .collect();
    assert_eq!(
        values,
        [
            ("5.9".to_owned(), "amended"),
            ("5.9".to_owned(), "corrected"),
            ("4.0".to_owned(), "released")
        ]
    );
    let report = report::of_order(&txn, result.order_id).await.unwrap();
    assert_eq!(
        (report.superseded.len(), report.results[0].value.as_deref()),
        (3, Some("8.0"))
    );
}

#[tokio::test]
async fn where_one_person_may_do_both_it_is_marked() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    txn.batch_execute("UPDATE lab_profile SET allow_self_verify = true")
        .await
        .unwrap();
    let patient = adult(&txn, &lab).await;
    let order = received(&txn, &lab, &patient, &["K"]).await;
    let id = order.results[0].id;
    results::enter(&txn, &lab.supervisor, id, 1, &value("4.0", "mmol/L"))
        .await
        .unwrap();
    sign(&txn, &lab, id).await;
    let result = results::get(&txn, id).await.unwrap();
    assert!(result.self_verified);
    let entry = AmendmentEntry {
        value: Some("4.4".to_owned()),
        comparator: None,
        comment: None,
        reason: "typo".to_owned(),
    };
    let amended = amendments::propose(&txn, &lab.supervisor, id, result.version, &entry)
        .await
        .unwrap();
    assert_eq!(amended.amendment.status, AmendmentStatus::Verified, "at once");
    assert!(amended.amendment.self_verified && amended.result.self_verified);
    assert_eq!(amended.result.value.as_deref(), Some("4.4"));
}

#[tokio::test]
async fn a_voided_result_stays_readable_and_does_not_block_completion() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = received(&txn, &lab, &patient, &["K", "NA"]).await;
    let (k, na) = (order.results[0].id, order.results[1].id);
    results::enter(&txn, &lab.technician, k, 1, &value("4.0", "mmol/L"))
        .await
        .unwrap();
    sign(&txn, &lab, k).await;
    let version = results::get(&txn, k).await.unwrap().version;
    let voided = results::void(&txn, &lab.supervisor, k, version, &reason("mislabelled"))
        .await
        .unwrap();
    assert_eq!(
        (voided.status, voided.value.as_deref()),
        (ResultStatus::Voided, Some("4.0"))
    );
    assert_eq!(
        conflict(results::void(&txn, &lab.supervisor, k, voided.version, &reason("x")).await),
        "state"
    );
    let again = orders::add_tests(
        &txn,
        &lab.receptionist,
        order.head.id,
        &AddTests {
            tests: vec!["K".into()],
        },
    )
    .await
    .unwrap();
    assert_eq!(
        again.results.iter().filter(|r| r.code == "K").count(),
        2,
        "the test can be ordered again"
    );
    let redo = again.results.iter().find(|r| r.code == "K" && r.id != k).unwrap();
    results::cancel(&txn, &lab.technician, redo.id, 1, &reason("not wanted"))
        .await
        .unwrap();
    results::enter(&txn, &lab.technician, na, 1, &value("140", "mmol/L"))
        .await
        .unwrap();
    sign(&txn, &lab, na).await;
    assert_eq!(
        orders::get(&txn, order.head.id).await.unwrap().head.status,
        OrderStatus::Completed
    );
    let report = report::of_order(&txn, order.head.id).await.unwrap();
    assert_eq!(
        report.results.iter().find(|r| r.id == k).unwrap().value,
        None,
        "a withdrawn value is not reported"
    );
}

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
    let rejected = specimens::reject(&txn, &lab.technician, &barcode, &rejection(true))
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
    let gone = specimens::reject(&txn, &lab.technician, &new.barcode, &rejection(false))
        .await
        .unwrap();
    assert!(gone.replacement.is_none());
    let order = orders::get(&txn, order.head.id).await.unwrap();
    assert!(order.results.iter().all(|r| r.status == ResultStatus::Cancelled));
    assert_eq!(order.head.status, OrderStatus::Completed, "nothing is left to do");

    let other = released(&txn, &lab, &patient, "K", &value("4.0", "mmol/L")).await;
    let kept = specimens::reject(&txn, &lab.technician, &other.barcode, &rejection(true)).await;
    assert_eq!(conflict(kept), "released");
    let done = specimens::dispose(&txn, &lab.technician, &other.barcode)
        .await
        .unwrap();
    assert_eq!(done.status, SpecimenStatus::Disposed);
    is_missing(specimens::collect(&txn, &lab.technician, "nothing", &When::default()).await);
}

#[tokio::test]
async fn a_cancelled_order_takes_its_open_results_along_and_a_released_one_stays() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = received(&txn, &lab, &patient, &["K", "NA"]).await;
    let cancelled = orders::cancel(&txn, &lab.receptionist, order.head.id, &reason("not needed"))
        .await
        .unwrap();
    assert_eq!(cancelled.head.status, OrderStatus::Cancelled);
    assert!(
        cancelled
            .results
            .iter()
            .all(|r| r.status == ResultStatus::Cancelled)
    );
    assert_eq!(
        conflict(orders::cancel(&txn, &lab.receptionist, order.head.id, &reason("x")).await),
        "order_closed"
    );
    is_invalid(
        orders::cancel(&txn, &lab.receptionist, order.head.id, &reason(" ")).await,
        "reason",
    );

    let order = received(&txn, &lab, &patient, &["K", "NA"]).await;
    results::enter(
        &txn,
        &lab.technician,
        order.results[0].id,
        1,
        &value("4.0", "mmol/L"),
    )
    .await
    .unwrap();
    sign(&txn, &lab, order.results[0].id).await;
    assert_eq!(
        conflict(orders::cancel(&txn, &lab.receptionist, order.head.id, &reason("x")).await),
        "released"
    );
}

#[tokio::test]
async fn an_order_whose_tests_are_all_given_up_before_it_began_is_cancelled() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = orders::create(&txn, &lab.receptionist, &new_order(&patient, &["K", "NA"]))
        .await
        .unwrap();
    for result in &order.results {
        results::cancel(&txn, &lab.technician, result.id, 1, &reason("not wanted"))
            .await
            .unwrap();
    }
    let after = orders::get(&txn, order.head.id).await.unwrap().head;
    assert_eq!(after.status, OrderStatus::Cancelled);
    assert_eq!(
        after.cancel_reason.as_deref(),
        Some("all its tests were cancelled")
    );
}

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

#[tokio::test]
async fn an_order_checks_its_patient_and_tests() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    is_invalid(
        orders::create(&txn, &lab.receptionist, &new_order(&patient, &["K", "NOPE"])).await,
        "tests[1]",
    );
    is_invalid(
        orders::create(&txn, &lab.receptionist, &new_order(&patient, &[])).await,
        "tests",
    );
    let mut stranger = new_order(&patient, &["K"]);
    stranger.patient_id = lab::PatientId::generate();
    is_missing(orders::create(&txn, &lab.receptionist, &stranger).await);
    let twice = orders::create(&txn, &lab.receptionist, &new_order(&patient, &["K", "K"]))
        .await
        .unwrap();
    assert_eq!(twice.results.len(), 1);
    let more = orders::add_tests(
        &txn,
        &lab.receptionist,
        twice.head.id,
        &AddTests {
            tests: vec!["NA".into(), "HGB".into()],
        },
    )
    .await
    .unwrap();
    assert_eq!(
        (more.results.len(), more.specimens.len()),
        (3, 2),
        "sodium shares the tube"
    );
    assert!(more.head.version > twice.head.version);
    let again = orders::add_tests(
        &txn,
        &lab.receptionist,
        twice.head.id,
        &AddTests {
            tests: vec!["K".into()],
        },
    )
    .await;
    assert_eq!(conflict(again), "duplicate");
}

#[tokio::test]
async fn accession_numbers_count_on_the_laboratorys_own_calendar() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    txn.batch_execute("UPDATE lab_profile SET acc_prefix = 'B'")
        .await
        .unwrap();
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    // Berlin is an hour ahead of UTC in winter: its day begins at 23:00Z.
    let mut numbers = Vec::new();
    for moment in [
        "2026-01-31T22:59:59Z",
        "2026-01-31T23:00:00Z",
        "2026-02-01T22:59:00Z",
        "2026-01-31T12:00:00Z",
    ] {
        numbers.push(lab::accession_at(&txn, at(moment)).await.unwrap());
    }
    assert_eq!(
        numbers,
        ["B260131-0001", "B260201-0001", "B260201-0002", "B260131-0002"]
    );
    txn.batch_execute("UPDATE accession_counter SET last = 9999")
        .await
        .unwrap();
    assert_eq!(
        lab::accession_at(&txn, at("2026-01-31T12:00:00Z")).await.unwrap(),
        "B260131-10000"
    );
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
