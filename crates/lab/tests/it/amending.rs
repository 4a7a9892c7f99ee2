//! What changes after release, and how.

use lab::{
    AmendmentStatus, Comparator, Flag, OrderStatus, ResultStatus,
    amendments::{self, AmendmentEntry},
    catalogue, history,
    orders::{self, AddTests},
    report, results,
};

use crate::judging::lead;
use crate::support::{Lab, adult, conflict, is_invalid, notice, reason, received, released, sign, value};

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
    let own = amendments::verify(
        &txn,
        &lab.supervisor,
        proposed.amendment.id,
        &amendments::AmendmentVerification::default(),
    )
    .await;
    assert_eq!(conflict(own), "self_verification");
    let done = amendments::verify(
        &txn,
        &lab.second_supervisor,
        proposed.amendment.id,
        &amendments::AmendmentVerification::default(),
    )
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
        conflict(
            amendments::verify(
                &txn,
                &lab.second_supervisor,
                proposed.amendment.id,
                &amendments::AmendmentVerification::default()
            )
            .await
        ),
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
    let amended = amendments::verify(
        &txn,
        &lab.supervisor,
        third.amendment.id,
        &amendments::AmendmentVerification::default(),
    )
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
    let early = amendments::verify(
        &txn,
        &lab.second_supervisor,
        worse.amendment.id,
        &amendments::AmendmentVerification::default(),
    )
    .await;
    assert_eq!(conflict(early), "critical_notice");
    crate::support::told(&txn, &lab, result.id, &notice())
        .await
        .unwrap();
    amendments::verify(
        &txn,
        &lab.second_supervisor,
        worse.amendment.id,
        &amendments::AmendmentVerification::default(),
    )
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
async fn a_notice_of_a_withdrawn_amendment_does_not_serve_the_next() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let result = released(&txn, &lab, &patient, "K", &value("4.0", "mmol/L")).await;
    let amend = async |value: &str| {
        let entry = AmendmentEntry {
            value: Some(value.to_owned()),
            comparator: None,
            comment: None,
            reason: "wrong tube".to_owned(),
        };
        amendments::propose(&txn, &lab.supervisor, result.id, result.version, &entry)
            .await
            .unwrap()
            .amendment
            .id
    };
    let high = amend("7.5").await;
    crate::support::told(&txn, &lab, result.id, &notice())
        .await
        .unwrap();
    amendments::withdraw(&txn, &lab.supervisor, high).await.unwrap();
    let low = amend("1.5").await;
    let unheard = amendments::verify(
        &txn,
        &lab.second_supervisor,
        low,
        &amendments::AmendmentVerification::default(),
    )
    .await;
    assert_eq!(conflict(unheard), "critical_notice", "they were told of 7.5");
    crate::support::told(&txn, &lab, result.id, &notice())
        .await
        .unwrap();
    let done = amendments::verify(
        &txn,
        &lab.second_supervisor,
        low,
        &amendments::AmendmentVerification::default(),
    )
    .await
    .unwrap()
    .result;
    assert_eq!(
        (done.flag, done.critical_notified),
        (Some(Flag::CriticalLow), true)
    );
    let past = history::of_result(&txn, result.id).await.unwrap();
    assert_eq!(past.notices.len(), 2);
}

#[tokio::test]
async fn an_amended_value_is_compared_with_the_previous_one_anew() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    catalogue::create(&txn, &lab.admin, &lead()).await.unwrap();
    let patient = adult(&txn, &lab).await;
    released(&txn, &lab, &patient, "LEAD", &value("2.00", "ug/dL")).await;
    let wrong = released(&txn, &lab, &patient, "LEAD", &value("9.0", "ug/dL")).await;
    assert!(wrong.delta.as_ref().unwrap().exceeded);
    let amend = async |version: i32, value: Option<&str>, comparator: Option<Comparator>| {
        let entry = AmendmentEntry {
            value: value.map(str::to_owned),
            comparator,
            comment: value.is_none().then(|| "looked at again".to_owned()),
            reason: "decimal point".to_owned(),
        };
        let proposed = amendments::propose(&txn, &lab.supervisor, wrong.id, version, &entry)
            .await
            .unwrap();
        amendments::verify(
            &txn,
            &lab.second_supervisor,
            proposed.amendment.id,
            &amendments::AmendmentVerification::default(),
        )
        .await
        .unwrap()
        .result
    };
    let right = amend(wrong.version, Some("2.1"), None).await;
    let delta = right.delta.unwrap();
    assert_eq!(
        (
            delta.previous.to_string(),
            delta.change_pct.as_deref(),
            delta.exceeded
        ),
        ("2.00".into(), Some("5.0"), false)
    );
    let noted = amend(right.version, None, None).await;
    assert!(!noted.delta.unwrap().exceeded, "a remark changes no delta");
    let jump = amend(noted.version, Some("3.1"), None).await;
    assert!(jump.delta.unwrap().exceeded);
    let bounded = amend(jump.version, Some("3.1"), Some(Comparator::Less)).await;
    assert!(
        bounded.delta.is_none(),
        "what is no number is compared with nothing"
    );
}
