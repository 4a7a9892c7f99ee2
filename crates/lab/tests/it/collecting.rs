//! When specimens were collected and received: what cannot be is refused, what is unlikely is confirmed, what
//! is wrong is corrected.

use jiff::{SignedDuration, Timestamp, civil::date};
use lab::{
    LabError, PatientId, Sex, Txn, When, audit,
    collection::CollectionCorrection,
    orders::{self, Order},
    patients::{self, PatientPatch},
    profile::{self, ProfilePatch},
    results, signoff, specimens,
};

use crate::{
    support::{Lab, adult, conflict, is_invalid, items, new_order, notice, received, released, value},
    unmarked::{changed, obstacle, person, shown, verified},
};

async fn ordered(txn: &Txn<'_>, lab: &Lab, patient: &patients::Patient) -> Order {
    orders::create(txn, &lab.receptionist, &new_order(patient, &["K"]))
        .await
        .unwrap()
}

async fn ago(txn: &Txn<'_>, hours: i64) -> Timestamp {
    let now: Timestamp = txn.query_one("SELECT now()", &[]).await.unwrap().get(0);
    now - SignedDuration::from_hours(hours)
}

fn at(at: Timestamp, confirm_unlikely: bool) -> When {
    When {
        at: Some(at),
        confirm_unlikely,
    }
}

fn correction(collected_at: Option<Timestamp>, received_at: Option<Timestamp>) -> CollectionCorrection {
    CollectionCorrection {
        collected_at,
        received_at,
        reason: "mistyped".to_owned(),
        confirm_unlikely: false,
    }
}

#[tokio::test]
async fn an_unlikely_time_is_taken_when_it_is_confirmed() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = ordered(&txn, &lab, &patient).await;
    let barcode = &order.specimens[0].barcode;
    let days_before = ago(&txn, 5 * 24).await;
    let asked = specimens::collect(&txn, &lab.receptionist, barcode, &at(days_before, false)).await;
    assert_eq!(conflict(asked), "unlikely_time");
    let collected = specimens::collect(&txn, &lab.receptionist, barcode, &at(days_before, true))
        .await
        .unwrap();
    assert_eq!(collected.collected_at, Some(days_before));
    let on_the_way = specimens::receive(&txn, &lab.technician, barcode, &When::default()).await;
    assert_eq!(conflict(on_the_way), "unlikely_time", "five days in transit");
    let early = specimens::receive(&txn, &lab.technician, barcode, &at(ago(&txn, 6 * 24).await, true)).await;
    is_invalid(early, "at");
    let when = When {
        at: None,
        confirm_unlikely: true,
    };
    specimens::receive(&txn, &lab.technician, barcode, &when)
        .await
        .unwrap();
    let id = collected.id.to_string();
    let trail = audit::list(&txn, Some(&id), &lab::PageRequest::default())
        .await
        .unwrap();
    let confirmed = |event: &audit::AuditEvent| {
        event
            .detail
            .as_ref()
            .is_some_and(|detail| detail["confirmedUnlikely"] == true)
    };
    assert_eq!(trail.items.iter().filter(|event| confirmed(event)).count(), 2);
    // A day before the order, and now, need no confirmation.
    let order = ordered(&txn, &lab, &patient).await;
    let barcode = &order.specimens[0].barcode;
    specimens::collect(&txn, &lab.receptionist, barcode, &at(ago(&txn, 24).await, false))
        .await
        .unwrap();
    specimens::receive(&txn, &lab.technician, barcode, &When::default())
        .await
        .unwrap();
    // A specimen that was received without a collection has its day from the receipt.
    let order = ordered(&txn, &lab, &patient).await;
    let barcode = &order.specimens[0].barcode;
    let asked = specimens::receive(&txn, &lab.technician, barcode, &at(days_before, false)).await;
    assert_eq!(conflict(asked), "unlikely_time");
}

#[tokio::test]
async fn before_the_birth_nothing_is_collected_and_nobody_is_born_after_it() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = ordered(&txn, &lab, &patient).await;
    let barcode = &order.specimens[0].barcode;
    let before = at("1979-12-31T12:00:00Z".parse().unwrap(), true);
    is_invalid(
        specimens::collect(&txn, &lab.receptionist, barcode, &before).await,
        "at",
    );
    is_invalid(
        specimens::receive(&txn, &lab.technician, barcode, &before).await,
        "at",
    );
    specimens::collect(&txn, &lab.receptionist, barcode, &at(ago(&txn, 48).await, false))
        .await
        .unwrap();
    let today: jiff::civil::Date = txn.query_one("SELECT lab_day(now())", &[]).await.unwrap().get(0);
    let born_today = PatientPatch {
        birth_date: Some(today),
        ..PatientPatch::default()
    };
    let version = patients::get(&txn, patient.id).await.unwrap().version;
    is_invalid(
        patients::update(&txn, &lab.receptionist, patient.id, version, &born_today).await,
        "birthDate",
    );
    let newborn = person(&txn, &lab, Sex::Female, today).await;
    let merge = patients::PatientMerge {
        into: newborn.id,
        reason: "registered twice".to_owned(),
    };
    is_invalid(
        patients::merge(&txn, &lab.supervisor, patient.id, &merge).await,
        "into",
    );
}

/// Somebody of 35 years whose specimen was said, and confirmed, to be drawn twenty years ago: by mistake.
async fn drawn_twenty_years_ago(txn: &Txn<'_>, lab: &Lab) -> (PatientId, Order) {
    let patient = person(txn, lab, Sex::Female, date(1991, 1, 1)).await;
    let order = ordered(txn, lab, &patient).await;
    let barcode = &order.specimens[0].barcode;
    let wrong = at("2006-06-01T12:00:00Z".parse().unwrap(), true);
    specimens::collect(txn, &lab.receptionist, barcode, &wrong)
        .await
        .unwrap();
    let now = When {
        at: None,
        confirm_unlikely: true,
    };
    specimens::receive(txn, &lab.technician, barcode, &now)
        .await
        .unwrap();
    (patient.id, order)
}

#[tokio::test]
async fn a_corrected_collection_evaluates_what_waits_again_and_marks_what_left() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let (patient, order) = drawn_twenty_years_ago(&txn, &lab).await;
    let id = order.results[0].id;
    results::enter(&txn, &lab.technician, id, 1, &value("9.9", "mmol/L"))
        .await
        .unwrap();
    signoff::verify(&txn, &lab.supervisor, &items(&txn, &[id]).await)
        .await
        .unwrap();
    assert_eq!(shown(&txn, id, "noRangeReason").await, "no-range-for-age");
    let (_, left) = drawn_twenty_years_ago(&txn, &lab).await;
    let gone = left.results[0].id;
    results::enter(&txn, &lab.technician, gone, 1, &value("9.9", "mmol/L"))
        .await
        .unwrap();
    crate::support::sign(&txn, &lab, gone).await;

    let barcode = &order.specimens[0].barcode;
    let version = specimens::get(&txn, barcode).await.unwrap().version;
    let right = ago(&txn, 2).await;
    let stale =
        lab::collection::correct(&txn, &lab.technician, barcode, 1, &correction(Some(right), None)).await;
    assert!(matches!(stale, Err(LabError::Version { .. })), "{stale:?}");
    for (wrong, field) in [
        (correction(None, None), "collectedAt"),
        (
            correction(Some("1990-01-01T00:00:00Z".parse().unwrap()), None),
            "collectedAt",
        ),
        (
            correction(Some("2999-01-01T00:00:00Z".parse().unwrap()), None),
            "collectedAt",
        ),
        (
            correction(Some(right), Some(right - SignedDuration::from_hours(1))),
            "collectedAt",
        ),
    ] {
        is_invalid(
            lab::collection::correct(&txn, &lab.technician, barcode, version, &wrong).await,
            field,
        );
    }
    let mut unreasoned = correction(Some(right), None);
    unreasoned.reason = " ".to_owned();
    is_invalid(
        lab::collection::correct(&txn, &lab.technician, barcode, version, &unreasoned).await,
        "reason",
    );
    let unlikely = correction(Some(ago(&txn, 24 * 30).await), None);
    assert_eq!(
        conflict(lab::collection::correct(&txn, &lab.technician, barcode, version, &unlikely).await),
        "unlikely_time"
    );
    let corrected = lab::collection::correct(
        &txn,
        &lab.technician,
        barcode,
        version,
        &correction(Some(right), None),
    )
    .await
    .unwrap();
    assert_eq!(corrected.collected_at, Some(right));
    assert_eq!(
        (corrected.revisions.len(), corrected.revisions[0].reason.as_str()),
        (1, "mistyped")
    );
    assert_eq!(
        corrected.revisions[0].collected_at,
        Some("2006-06-01T12:00:00Z".parse().unwrap())
    );
    assert_eq!(shown(&txn, id, "flag").await, "HH");
    assert_eq!(obstacle(&txn, &lab, id).await, "critical_notice");
    assert_eq!(patients::get(&txn, patient).await.unwrap().version, 1);

    let barcode = &left.specimens[0].barcode;
    let version = specimens::get(&txn, barcode).await.unwrap().version;
    lab::collection::correct(
        &txn,
        &lab.supervisor,
        barcode,
        version,
        &correction(Some(right), None),
    )
    .await
    .unwrap();
    assert!(shown(&txn, gone, "flag").await.is_null());
    assert!(shown(&txn, gone, "evaluationOutdated").await["reason"].is_string());
}

#[tokio::test]
async fn a_collection_that_was_not_noted_is_noted_later() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = ordered(&txn, &lab, &patient).await;
    let barcode = &order.specimens[0].barcode;
    let expected = lab::collection::correct(
        &txn,
        &lab.technician,
        barcode,
        1,
        &correction(Some(ago(&txn, 1).await), None),
    )
    .await;
    assert_eq!(conflict(expected), "state");
    let received = specimens::receive(&txn, &lab.technician, barcode, &When::default())
        .await
        .unwrap();
    assert_eq!(received.collected_by, None);
    let drawn = ago(&txn, 1).await;
    let noted = lab::collection::correct(
        &txn,
        &lab.technician,
        barcode,
        received.version,
        &correction(Some(drawn), None),
    )
    .await
    .unwrap();
    assert_eq!(
        (noted.collected_at, noted.collected_by),
        (Some(drawn), Some(lab.technician.staff.as_uuid()))
    );
}

#[tokio::test]
async fn a_laboratory_may_do_without_the_reading_back() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let before = profile::get(&txn).await.unwrap();
    assert!(!before.accept_notice_without_read_back, "not unless it says so");
    let patch = ProfilePatch {
        accept_notice_without_read_back: Some(true),
        ..ProfilePatch::default()
    };
    let after = profile::update(&txn, &lab.admin, before.version, &patch)
        .await
        .unwrap();
    assert!(after.accept_notice_without_read_back);
    let patient = adult(&txn, &lab).await;
    let id = verified(&txn, &lab, &patient, "K", &value("9.9", "mmol/L")).await;
    let mut unread = notice();
    unread.read_back = false;
    crate::support::told(&txn, &lab, id, &unread).await.unwrap();
    assert_eq!(obstacle(&txn, &lab, id).await, "released");
}

#[tokio::test]
async fn a_change_that_changes_no_evaluation_leaves_everything_as_it_is() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = received(&txn, &lab, &patient, &["K"]).await;
    let id = order.results[0].id;
    results::enter(&txn, &lab.technician, id, 1, &value("9.9", "mmol/L"))
        .await
        .unwrap();
    let gone = released(&txn, &lab, &patient, "K", &value("4.0", "mmol/L")).await;
    let before = results::get(&txn, id).await.unwrap();
    let patch = PatientPatch {
        birth_date: Some(date(1980, 5, 2)),
        ..PatientPatch::default()
    };
    changed(&txn, &lab, patient.id, patch).await;
    let after = results::get(&txn, id).await.unwrap();
    assert_eq!((before.version, before.rev), (after.version, after.rev));
    let kept = results::get(&txn, gone.id).await.unwrap();
    assert_eq!(kept.version, gone.version);
    assert!(kept.evaluation_outdated.is_none());
}
