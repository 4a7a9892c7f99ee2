//! The way of an order through the laboratory, told from its front door.

use jiff::Timestamp;
use lab::{
    Flag, LabError, OrderStatus, PageRequest, ResultId, ResultStatus, When, audit,
    orders::{self, AddTests},
    report, results,
    signoff::{self, Item, Items},
    specimens,
};

use crate::support::{
    Lab, adult, conflict, is_invalid, is_missing, items, new_order, reason, received, sign, value,
};

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
        confirm_lifted: None,
        confirm_conflict: None,
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
                confirm_lifted: None,
                confirm_conflict: None,
            },
            Item {
                id: ids[0],
                version: 1,
                confirm_lifted: None,
                confirm_conflict: None,
            },
        ],
    };
    is_invalid(
        signoff::verify(&txn, &lab.supervisor, &twice).await,
        "items[1].id",
    );

    let own = items(&txn, &[order.results.iter().find(|r| r.code == "K").unwrap().id]).await;
    let Err(LabError::Items(problems)) = signoff::verify(&txn, &lab.technician, &own).await else {
        panic!()
    };
    assert_eq!(problems[0].code, "self_verification");
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
