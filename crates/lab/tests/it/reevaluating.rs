//! When an input of an evaluation changes, what waits is evaluated again and what was released is marked:
//! otherwise a critical value would go out unmarked.

use jiff::civil::{Date, date};
use lab::{
    LabError, ResultId, Sex, Txn,
    amendments::{self, AmendmentEntry},
    catalogue,
    patients::{self, PatientPatch},
    profile::{self, ProfilePatch},
    ranges, results,
};

use crate::{
    support::{Lab, adult, conflict, notice, received, released, value},
    unmarked::{changed, is_held, limits, own_test, person, shown, verified},
};

async fn corrected(txn: &Txn<'_>, lab: &Lab, id: ResultId, value: &str) -> Result<&'static str, LabError> {
    let entry = AmendmentEntry {
        value: Some(value.to_owned()),
        comparator: None,
        comment: None,
        reason: "wrong tube".to_owned(),
    };
    let version = results::get(txn, id).await.unwrap().version;
    let proposed = amendments::propose(txn, &lab.supervisor, id, version, &entry).await?;
    amendments::verify(
        txn,
        &lab.second_supervisor,
        proposed.amendment.id,
        &amendments::AmendmentVerification::default(),
    )
    .await?;
    Ok("applied")
}

#[tokio::test]
async fn a_corrected_birth_date_evaluates_what_waits_again() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = person(&txn, &lab, Sex::Female, date(2015, 1, 1)).await;
    let order = received(&txn, &lab, &patient, &["K"]).await;
    let entered = order.results[0].id;
    results::enter(&txn, &lab.technician, entered, 1, &value("9.8", "mmol/L"))
        .await
        .unwrap();
    let id = verified(&txn, &lab, &patient, "K", &value("9.9", "mmol/L")).await;
    assert_eq!(shown(&txn, id, "noRangeReason").await, "no-range-for-age");
    let patch = PatientPatch {
        birth_date: Some(date(1960, 1, 1)),
        ..PatientPatch::default()
    };
    changed(&txn, &lab, patient.id, patch).await;
    is_held(&txn, &lab, id, "HH").await;
    assert_eq!(shown(&txn, entered, "flag").await, "HH");
    let past = lab::history::of_result(&txn, id).await.unwrap();
    assert_eq!(past.revisions.len(), 1, "what it was evaluated as stays readable");
    assert!(
        past.revisions[0].reason.contains("birth date"),
        "{:?}",
        past.revisions
    );
}

#[tokio::test]
async fn a_corrected_sex_evaluates_what_waits_again() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    catalogue::create(&txn, &lab.admin, &own_test("OWN"))
        .await
        .unwrap();
    let mut range = limits(None, Some("8"));
    range.sex = Some("F".parse().unwrap());
    ranges::create(&txn, &lab.admin, "OWN", &range).await.unwrap();
    let patient = person(&txn, &lab, Sex::Male, date(1980, 1, 1)).await;
    let id = verified(&txn, &lab, &patient, "OWN", &value("9", "mmol/L")).await;
    assert_eq!(shown(&txn, id, "noRangeReason").await, "no-range-for-sex");
    let patch = PatientPatch {
        sex: Some(Sex::Female),
        ..PatientPatch::default()
    };
    changed(&txn, &lab, patient.id, patch).await;
    is_held(&txn, &lab, id, "HH").await;
}

#[tokio::test]
async fn a_notice_of_the_former_evaluation_does_not_serve_the_new_one() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    catalogue::create(&txn, &lab.admin, &own_test("OWN"))
        .await
        .unwrap();
    for (sex, low, high) in [("F", None, Some("8")), ("M", Some("10"), None)] {
        let mut range = limits(low, high);
        range.sex = Some(sex.parse().unwrap());
        ranges::create(&txn, &lab.admin, "OWN", &range).await.unwrap();
    }
    let patient = person(&txn, &lab, Sex::Female, date(1980, 1, 1)).await;
    let id = verified(&txn, &lab, &patient, "OWN", &value("9", "mmol/L")).await;
    crate::support::told(&txn, &lab, id, &notice()).await.unwrap();
    let patch = PatientPatch {
        sex: Some(Sex::Male),
        ..PatientPatch::default()
    };
    changed(&txn, &lab, patient.id, patch).await;
    is_held(&txn, &lab, id, "LL").await;
}

#[tokio::test]
async fn a_merge_evaluates_by_the_data_of_the_person_who_lives_on() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let child = person(&txn, &lab, Sex::Female, date(2015, 1, 1)).await;
    let id = verified(&txn, &lab, &child, "K", &value("9.9", "mmol/L")).await;
    let true_one = adult(&txn, &lab).await;
    let merge = patients::PatientMerge {
        into: true_one.id,
        reason: "registered twice".to_owned(),
    };
    patients::merge(&txn, &lab.supervisor, child.id, &merge)
        .await
        .unwrap();
    is_held(&txn, &lab, id, "HH").await;
}

#[tokio::test]
async fn a_limit_that_is_added_while_a_value_waits_holds_for_it() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    catalogue::create(&txn, &lab.admin, &own_test("OWN"))
        .await
        .unwrap();
    txn.commit().await.unwrap();
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let id = verified(&txn, &lab, &patient, "OWN", &value("9", "mmol/L")).await;
    assert_eq!(shown(&txn, id, "noRangeReason").await, "no-range-for-test");
    let gone = released(&txn, &lab, &patient, "OWN", &value("9", "mmol/L"))
        .await
        .id;
    txn.commit().await.unwrap();
    let txn = client.transaction().await.unwrap();
    ranges::create(&txn, &lab.admin, "OWN", &limits(None, Some("8")))
        .await
        .unwrap();
    is_held(&txn, &lab, id, "HH").await;
    assert_eq!(
        shown(&txn, gone, "flag").await,
        serde_json::Value::Null,
        "what was released keeps what it was evaluated by"
    );
}

#[tokio::test]
async fn an_amendment_has_the_evaluation_of_its_own_and_does_not_inherit_a_missing_range() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = person(&txn, &lab, Sex::Female, date(2015, 1, 1)).await;
    let id = released(&txn, &lab, &patient, "K", &value("4.0", "mmol/L"))
        .await
        .id;
    let patch = PatientPatch {
        birth_date: Some(date(1960, 1, 1)),
        ..PatientPatch::default()
    };
    changed(&txn, &lab, patient.id, patch).await;
    assert_eq!(
        conflict(corrected(&txn, &lab, id, "9.9").await),
        "critical_notice",
        "the amended value is critical for the person as known now"
    );
    crate::support::told(&txn, &lab, id, &notice()).await.unwrap();
    let amendment = amendments::of_result(&txn, id).await.unwrap().remove(0).id;
    let done = amendments::verify(
        &txn,
        &lab.second_supervisor,
        amendment,
        &amendments::AmendmentVerification::default(),
    )
    .await
    .unwrap()
    .result;
    assert_eq!(
        (
            done.flag.map(lab::Flag::as_str),
            done.ref_high.map(|n| n.to_string())
        ),
        (Some("HH"), Some("5.0".to_owned()))
    );
}

#[tokio::test]
async fn a_waiting_amendment_is_evaluated_again_too() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = person(&txn, &lab, Sex::Female, date(2015, 1, 1)).await;
    let result = released(&txn, &lab, &patient, "K", &value("4.0", "mmol/L")).await;
    let entry = AmendmentEntry {
        value: Some("9.9".to_owned()),
        comparator: None,
        comment: None,
        reason: "wrong tube".to_owned(),
    };
    let proposed = amendments::propose(&txn, &lab.supervisor, result.id, result.version, &entry)
        .await
        .unwrap()
        .amendment;
    assert!(!proposed.notice_required);
    let patch = PatientPatch {
        birth_date: Some(date(1960, 1, 1)),
        ..PatientPatch::default()
    };
    changed(&txn, &lab, patient.id, patch).await;
    let unheard = amendments::verify(
        &txn,
        &lab.second_supervisor,
        proposed.id,
        &amendments::AmendmentVerification::default(),
    )
    .await;
    assert_eq!(conflict(unheard), "critical_notice");
}

#[tokio::test]
async fn another_time_zone_moves_the_day_of_collection_and_evaluates_what_waits_again() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let zone = async |name: &str| {
        let version = profile::get(&txn).await.unwrap().version;
        let patch = ProfilePatch {
            time_zone: Some(name.to_owned()),
            ..ProfilePatch::default()
        };
        profile::update(&txn, &lab.admin, version, &patch).await.unwrap();
    };
    // Of full age since today in the westernmost zone, and yet not born for 18 years in none further east of
    // it: the day of collection is one earlier there than in the easternmost.
    zone("Pacific/Pago_Pago").await;
    let today: Date = txn
        .query_one("SELECT (now() AT TIME ZONE 'Pacific/Kiritimati')::date", &[])
        .await
        .unwrap()
        .get(0);
    let birth = today.checked_sub(jiff::Span::new().years(18)).unwrap();
    let patient = person(&txn, &lab, Sex::Female, birth).await;
    let id = verified(&txn, &lab, &patient, "K", &value("9.9", "mmol/L")).await;
    assert_eq!(shown(&txn, id, "noRangeReason").await, "no-range-for-age");
    zone("Pacific/Kiritimati").await;
    is_held(&txn, &lab, id, "HH").await;
}

#[tokio::test]
async fn a_released_value_that_turns_out_to_be_evaluated_with_other_data_says_so() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = person(&txn, &lab, Sex::Female, date(2015, 1, 1)).await;
    let id = released(&txn, &lab, &patient, "K", &value("9.9", "mmol/L"))
        .await
        .id;
    txn.commit().await.unwrap();
    let txn = client.transaction().await.unwrap();
    let birth = |year: i16| PatientPatch {
        birth_date: Some(date(year, 1, 1)),
        ..PatientPatch::default()
    };
    changed(&txn, &lab, patient.id, birth(1960)).await;
    txn.commit().await.unwrap();
    let txn = client.transaction().await.unwrap();
    let view = results::get(&txn, id).await.unwrap();
    assert_eq!(
        (view.flag, view.rev),
        (None, 1),
        "what left the laboratory does not change silently"
    );
    let marked =
        |value: &serde_json::Value| value["evaluationOutdated"]["reason"].as_str().map(str::to_owned);
    let mark = marked(&serde_json::to_value(&view).unwrap());
    assert!(
        mark.as_deref().is_some_and(|mark| mark.contains("birth date")),
        "{mark:?}"
    );
    let report = lab::report::of_order(&txn, view.order_id).await.unwrap();
    assert_eq!(
        marked(&serde_json::to_value(&report.results[0]).unwrap()),
        mark,
        "on the report"
    );
    let feed = lab::result_feed::page(&txn, crate::support::epoch(), &lab::PageRequest::default())
        .await
        .unwrap();
    let told = serde_json::to_value(feed.items.last().unwrap()).unwrap();
    assert_eq!(
        (feed.items.len(), marked(&told["result"])),
        (2, mark),
        "in the feed"
    );
    // The evaluation itself is put right by two people, as any change of a released result is; without
    // another value.
    let entry = AmendmentEntry {
        value: None,
        comparator: None,
        comment: None,
        reason: "evaluated for her true age".to_owned(),
    };
    let proposed = amendments::propose(&txn, &lab.supervisor, id, view.version, &entry)
        .await
        .unwrap()
        .amendment;
    assert_eq!(
        (proposed.flag.map(lab::Flag::as_str), proposed.notice_required),
        (Some("HH"), true)
    );
    crate::support::told(&txn, &lab, id, &notice()).await.unwrap();
    let done = amendments::verify(
        &txn,
        &lab.second_supervisor,
        proposed.id,
        &amendments::AmendmentVerification::default(),
    )
    .await
    .unwrap()
    .result;
    assert_eq!(done.flag.map(lab::Flag::as_str), Some("HH"));
    assert_eq!(marked(&serde_json::to_value(&done).unwrap()), None);
    // A second mistake, taken back: the mark goes with it.
    changed(&txn, &lab, patient.id, birth(2015)).await;
    assert!(shown(&txn, id, "evaluationOutdated").await.is_object());
    changed(&txn, &lab, patient.id, birth(1960)).await;
    assert!(shown(&txn, id, "evaluationOutdated").await.is_null());
}
