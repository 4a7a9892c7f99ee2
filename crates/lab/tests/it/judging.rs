//! Ranges, flags and deltas as they arrive with a value.

use jiff::civil::{Date, date};
use lab::{
    Age, Comparator, Flag, Number, Sex, Txn, When,
    catalogue::{self, NewTest, TestPatch},
    orders, patients,
    ranges::{self, CloseRange, NewRange},
    results::{self, ResultView},
    signoff, specimens,
};

use crate::support::{
    Lab, conflict, is_invalid, items, new_order, new_patient, received, released, sign, value,
};

fn n(text: &str) -> Option<Number> {
    Some(Number::parse(text).unwrap())
}

async fn haemoglobin(txn: &Txn<'_>, lab: &Lab, sex: Sex, birth: Date, drawn: &str) -> ResultView {
    let patient = patients::create(txn, &lab.receptionist, &new_patient(sex, birth))
        .await
        .unwrap();
    let order = drawn_at(txn, lab, &patient, "HGB", drawn).await;
    results::enter(
        txn,
        &lab.technician,
        order.results[0].id,
        1,
        &value("12.9", "g/dL"),
    )
    .await
    .unwrap()
}

#[tokio::test]
async fn under_eighteen_there_is_no_range_and_so_no_flag() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let birth = date(2004, 2, 29);
    // The day counts on the laboratory's calendar: 23:30Z on the 27th is the 28th in Berlin.
    let minor = haemoglobin(&txn, &lab, Sex::Male, birth, "2022-02-27T22:30:00Z").await;
    assert_eq!((minor.flag, minor.range_id, minor.ref_low), (None, None, None));
    let adult = haemoglobin(&txn, &lab, Sex::Male, birth, "2022-02-27T23:30:00Z").await;
    assert_eq!((adult.flag, adult.ref_low), (Some(Flag::Low), n("13.5")));
    let woman = haemoglobin(&txn, &lab, Sex::Female, birth, "2022-03-01T12:00:00Z").await;
    assert_eq!((woman.flag, woman.ref_low), (Some(Flag::Normal), n("12")));
    let other = haemoglobin(&txn, &lab, Sex::Other, birth, "2022-03-01T12:00:00Z").await;
    assert_eq!(
        (other.flag, other.ref_low, other.crit_low),
        (None, None, n("7")),
        "what is usual differs by sex; what is critical does not"
    );
    let newborn = haemoglobin(&txn, &lab, Sex::Female, date(2022, 3, 1), "2022-03-01T12:00:00Z").await;
    assert_eq!(newborn.flag, None);
}

#[tokio::test]
async fn values_come_back_to_the_digit() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = crate::support::adult(&txn, &lab).await;
    for text in [
        "5.0",
        "5.00",
        "0",
        "0.00",
        "0.070",
        "-1.50",
        "999999999999999.999999999",
        "10",
        "100000",
    ] {
        let order = received(&txn, &lab, &patient, &["CRP"]).await;
        let view = results::enter(
            &txn,
            &lab.technician,
            order.results[0].id,
            1,
            &value(text, "mg/L"),
        )
        .await
        .unwrap();
        assert_eq!(view.value.as_deref(), Some(text));
        assert_eq!(
            results::get(&txn, view.id).await.unwrap().value.as_deref(),
            Some(text)
        );
        assert_eq!(
            serde_json::to_value(&view).unwrap()["value"],
            text,
            "a string in JSON"
        );
    }
}

#[tokio::test]
async fn a_comparator_is_flagged_only_where_it_is_certain() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = crate::support::adult(&txn, &lab).await;
    for (test, unit, comparator, text, expected) in [
        ("CRP", "mg/L", Comparator::Less, "0.07", Some(Flag::Normal)),
        ("K", "mmol/L", Comparator::Less, "4.0", None),
        ("K", "mmol/L", Comparator::More, "7", Some(Flag::CriticalHigh)),
        ("PLT", "10*3/uL", Comparator::Less, "30", Some(Flag::Low)),
    ] {
        let order = received(&txn, &lab, &patient, &[test]).await;
        let mut entry = value(text, unit);
        entry.comparator = Some(comparator);
        let view = results::enter(&txn, &lab.technician, order.results[0].id, 1, &entry)
            .await
            .unwrap();
        assert_eq!(
            (view.flag, view.comparator),
            (expected, Some(comparator)),
            "{test} {comparator}{text}"
        );
        assert!(
            view.range_id.is_some(),
            "the range stays with the value even where no flag is certain"
        );
    }
}

pub(crate) fn lead() -> NewTest {
    NewTest {
        code: "LEAD".to_owned(),
        name: "Lead in blood".to_owned(),
        loinc: Some("5671-3".to_owned()),
        section: "toxicology".to_owned(),
        specimen_type: "EDTA blood".to_owned(),
        value_type: lab::ValueType::Quantity,
        unit: Some("ug/dL".to_owned()),
        decimals: Some(2),
        allowed_values: None,
        critical_values: None,
        members: None,
        delta_pct: n("50"),
        delta_days: Some(90),
        tat_minutes: None,
    }
}

fn range(age_from: &str, age_to: Option<&str>, high: &str) -> NewRange {
    NewRange {
        age_from: Some(Age::parse(age_from).unwrap()),
        age_to: age_to.map(|age| Age::parse(age).unwrap()),
        high: n(high),
        ..NewRange::default()
    }
}

#[tokio::test]
async fn a_new_range_judges_from_now_on_and_old_results_keep_theirs() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    // A transaction for each step: a range holds from the time of its own transaction on.
    let txn = client.transaction().await.unwrap();
    catalogue::create(&txn, &lab.admin, &lead()).await.unwrap();
    ranges::create(&txn, &lab.admin, "LEAD", &range("P18Y", None, "5"))
        .await
        .unwrap();
    let overlap = ranges::create(&txn, &lab.admin, "LEAD", &range("P6M", Some("P19Y"), "3.5")).await;
    assert_eq!(conflict(overlap), "overlap");
    ranges::create(&txn, &lab.admin, "LEAD", &range("P6M", Some("P18Y"), "3.5"))
        .await
        .unwrap();
    is_invalid(
        ranges::create(&txn, &lab.admin, "LEAD", &range("P2Y", Some("P2Y"), "1")).await,
        "ageTo",
    );
    let patient = crate::support::adult(&txn, &lab).await;
    let old = released(&txn, &lab, &patient, "LEAD", &value("4.0", "ug/dL")).await;
    assert_eq!(old.flag, Some(Flag::Normal));
    txn.commit().await.unwrap();

    let txn = client.transaction().await.unwrap();
    let mut lower = range("P18Y", None, "3.5");
    lower.replace = true;
    ranges::create(&txn, &lab.admin, "LEAD", &lower).await.unwrap();
    txn.commit().await.unwrap();

    let txn = client.transaction().await.unwrap();
    let new = released(&txn, &lab, &patient, "LEAD", &value("4.0", "ug/dL")).await;
    assert_eq!((new.flag, new.ref_high), (Some(Flag::High), n("3.5")));
    let kept = results::get(&txn, old.id).await.unwrap();
    assert_eq!((kept.flag, kept.ref_high), (Some(Flag::Normal), n("5")));
    let all = ranges::list(&txn, "LEAD").await.unwrap();
    assert_eq!(
        all.iter().filter(|r| r.valid_to.is_some()).count(),
        1,
        "closed, not gone"
    );
    let open = all.iter().find(|r| r.valid_to.is_none()).unwrap().id;
    let close = async || ranges::close(&txn, &lab.admin, open, &CloseRange::default()).await;
    close().await.unwrap();
    assert_eq!(conflict(close().await), "closed");
}

#[tokio::test]
async fn a_jump_from_the_previous_released_value_is_marked() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    catalogue::create(&txn, &lab.admin, &lead()).await.unwrap();
    let patient = crate::support::adult(&txn, &lab).await;
    let first = released(&txn, &lab, &patient, "LEAD", &value("2.00", "ug/dL")).await;
    assert!(first.delta.is_none(), "there was nothing before");
    let second = released(&txn, &lab, &patient, "LEAD", &value("3.0", "ug/dL")).await;
    let delta = second.delta.unwrap();
    assert_eq!(
        (
            delta.previous.to_string(),
            delta.change_pct.as_deref(),
            delta.exceeded
        ),
        ("2.00".into(), Some("50.0"), false)
    );
    let third = released(&txn, &lab, &patient, "LEAD", &value("9.0", "ug/dL")).await;
    assert!(third.delta.unwrap().exceeded);
    let patch = TestPatch {
        delta_pct: Some(n("500")),
        delta_days: Some(Some(90)),
        ..TestPatch::default()
    };
    catalogue::update(&txn, &lab.admin, "LEAD", 1, &patch)
        .await
        .unwrap();
    // A duplicate of the same person, merged, carries her past along.
    let twin = crate::support::adult(&txn, &lab).await;
    let merge = patients::PatientMerge {
        into: twin.id,
        reason: "registered twice".to_owned(),
    };
    patients::merge(&txn, &lab.supervisor, patient.id, &merge)
        .await
        .unwrap();
    let fourth = released(&txn, &lab, &twin, "LEAD", &value("10.0", "ug/dL")).await;
    let delta = fourth.delta.unwrap();
    assert_eq!(
        (delta.previous.to_string(), delta.exceeded),
        ("9.0".into(), false)
    );
}

#[tokio::test]
async fn the_delta_is_measured_again_when_a_value_is_verified_and_released() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    catalogue::create(&txn, &lab.admin, &lead()).await.unwrap();
    let patient = crate::support::adult(&txn, &lab).await;
    let mut ids = Vec::new();
    for (drawn, number) in [
        ("2026-03-02T08:00:00Z", "2.00"),
        ("2026-03-03T08:00:00Z", "3.0"),
        ("2026-03-04T08:00:00Z", "9.0"),
    ] {
        let order = drawn_at(&txn, &lab, &patient, "LEAD", drawn).await;
        let result = &order.results[0];
        results::enter(
            &txn,
            &lab.technician,
            result.id,
            result.version,
            &value(number, "ug/dL"),
        )
        .await
        .unwrap();
        ids.push(result.id);
    }
    let delta = async |id| {
        let delta = results::get(&txn, id).await.unwrap().delta;
        delta.map(|delta| (delta.previous.to_string(), delta.exceeded))
    };
    for id in &ids {
        assert_eq!(
            delta(*id).await,
            None,
            "nothing was released before it was entered"
        );
    }
    sign(&txn, &lab, ids[0]).await;
    signoff::verify(&txn, &lab.supervisor, &items(&txn, &ids[1..]).await)
        .await
        .unwrap();
    assert_eq!(delta(ids[1]).await, Some(("2.00".to_owned(), false)));
    assert_eq!(delta(ids[2]).await, Some(("2.00".to_owned(), true)));
    signoff::release(&txn, &lab.supervisor, &items(&txn, &ids[1..]).await)
        .await
        .unwrap();
    assert_eq!(delta(ids[1]).await, Some(("2.00".to_owned(), false)));
    assert_eq!(
        delta(ids[2]).await,
        Some(("3.0".to_owned(), true)),
        "its previous value was released in the same call"
    );
}

/// An order of one test whose specimen was drawn at that time, and received now.
async fn drawn_at(
    txn: &Txn<'_>,
    lab: &Lab,
    patient: &patients::Patient,
    test: &str,
    drawn: &str,
) -> orders::Order {
    let order = orders::create(txn, &lab.receptionist, &new_order(patient, &[test]))
        .await
        .unwrap();
    let barcode = &order.specimens[0].barcode;
    let at = When {
        at: Some(drawn.parse().unwrap()),
        confirm_unlikely: true,
    };
    specimens::collect(txn, &lab.receptionist, barcode, &at)
        .await
        .unwrap();
    let now = When {
        at: None,
        confirm_unlikely: true,
    };
    specimens::receive(txn, &lab.technician, barcode, &now)
        .await
        .unwrap();
    orders::get(txn, order.head.id).await.unwrap()
}
