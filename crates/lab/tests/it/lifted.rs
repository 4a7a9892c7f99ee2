//! Whatever takes a critical mark from a value that did not change leaves it on record, and holds the value
//! back.

use jiff::civil::date;
use lab::{
    Number, PatientId, ResultId, ResultStatus, Sex, Txn,
    amendments::{self, AmendmentEntry, AmendmentVerification},
    catalogue,
    collection::CollectionCorrection,
    patients::{self, PatientMerge, PatientPatch},
    profile::{self, ProfilePatch},
    ranges, results, signoff, specimens,
};

use crate::{
    guards::Scene,
    support::{Lab, adult, conflict, items, notice, reason, released, told, value},
    unmarked::{changed, limits, own_test, person, verified},
};

async fn close_all(txn: &Txn<'_>, lab: &Lab, test: &str) {
    let close = ranges::CloseRange {
        without_limits: Some("of another method".to_owned()),
    };
    for range in ranges::list(txn, test).await.unwrap() {
        if range.valid_to.is_none() {
            ranges::close(txn, &lab.admin, range.id, &close).await.unwrap();
        }
    }
}

/// The mark is on record with its limit and why it went; the verification is taken back, and neither
/// verification nor release goes on.
async fn is_lifted(txn: &Txn<'_>, lab: &Lab, id: ResultId, why: &str) {
    let view = results::get(txn, id).await.unwrap();
    let mark = view
        .critical_lifted
        .as_ref()
        .unwrap_or_else(|| panic!("{why}: {view:?}"));
    assert_eq!(mark.flag.map(lab::Flag::as_str), Some("HH"), "{why}");
    assert!(mark.reason.contains(why) && mark.crit_high.is_some(), "{mark:?}");
    assert_eq!(
        (
            view.status,
            view.verified_by,
            view.notice_required,
            view.critical_notified
        ),
        (ResultStatus::Entered, None, true, false),
        "{why}"
    );
    let refused = signoff::verify(txn, &lab.supervisor, &items(txn, &[id]).await).await;
    assert!(
        matches!(&refused, Err(lab::LabError::Items(problems)) if problems[0].code == "critical_lifted"),
        "{why}: {refused:?}"
    );
}

async fn zone(txn: &Txn<'_>, lab: &Lab, name: &str) {
    let version = profile::get(txn).await.unwrap().version;
    let patch = ProfilePatch {
        time_zone: Some(name.to_owned()),
        ..ProfilePatch::default()
    };
    profile::update(txn, &lab.admin, version, &patch).await.unwrap();
}

async fn merged(txn: &Txn<'_>, lab: &Lab, id: PatientId, into: PatientId) {
    let merge = PatientMerge {
        into,
        reason: "registered twice".to_owned(),
    };
    patients::merge(txn, &lab.supervisor, id, &merge).await.unwrap();
}

#[tokio::test]
async fn every_cause_leaves_the_mark_on_record_and_holds_the_value_back() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let nine = value("9.9", "mmol/L");

    let woman = adult(&txn, &lab).await;
    let id = verified(&txn, &lab, &woman, "K", &nine).await;
    let child = person(&txn, &lab, Sex::Female, date(2015, 1, 1)).await;
    merged(&txn, &lab, woman.id, child.id).await;
    is_lifted(&txn, &lab, id, "merged").await;

    let child = person(&txn, &lab, Sex::Female, date(2015, 1, 1)).await;
    let id = verified(&txn, &lab, &child, "K", &nine).await;
    merged(&txn, &lab, child.id, adult(&txn, &lab).await.id).await;
    signoff::verify(&txn, &lab.supervisor, &items(&txn, &[id]).await)
        .await
        .unwrap_err();
    assert_eq!(
        results::get(&txn, id).await.unwrap().status,
        ResultStatus::Verified
    );
    patients::unmerge(&txn, &lab.supervisor, child.id, &reason("two people"))
        .await
        .unwrap();
    is_lifted(&txn, &lab, id, "parted").await;

    catalogue::create(&txn, &lab.admin, &own_test("OWN"))
        .await
        .unwrap();
    let mut women = limits(None, Some("8"));
    women.sex = Some("F".parse().unwrap());
    ranges::create(&txn, &lab.admin, "OWN", &women).await.unwrap();
    let patient = adult(&txn, &lab).await;
    let id = verified(&txn, &lab, &patient, "OWN", &nine).await;
    let patch = PatientPatch {
        sex: Some(Sex::Male),
        ..PatientPatch::default()
    };
    changed(&txn, &lab, patient.id, patch).await;
    is_lifted(&txn, &lab, id, "sex").await;

    let patient = adult(&txn, &lab).await;
    let id = verified(&txn, &lab, &patient, "K", &nine).await;
    let barcode = results::get(&txn, id).await.unwrap().barcode;
    let specimen = specimens::get(&txn, &barcode).await.unwrap();
    let correction = CollectionCorrection {
        collected_at: Some("1996-05-01T08:00:00Z".parse().unwrap()),
        received_at: None,
        reason: "misread".to_owned(),
        confirm_unlikely: true,
    };
    lab::collection::correct(&txn, &lab.technician, &barcode, specimen.version, &correction)
        .await
        .unwrap();
    is_lifted(&txn, &lab, id, "collected").await;

    zone(&txn, &lab, "Pacific/Kiritimati").await;
    let today: jiff::civil::Date = txn
        .query_one("SELECT (now() AT TIME ZONE 'Pacific/Kiritimati')::date", &[])
        .await
        .unwrap()
        .get(0);
    let birth = today.checked_sub(jiff::Span::new().years(18)).unwrap();
    let young = person(&txn, &lab, Sex::Female, birth).await;
    let id = verified(&txn, &lab, &young, "K", &nine).await;
    zone(&txn, &lab, "Pacific/Pago_Pago").await;
    is_lifted(&txn, &lab, id, "time zone").await;

    let patient = adult(&txn, &lab).await;
    let id = verified(&txn, &lab, &patient, "K", &nine).await;
    let mut higher = limits(Some("1"), Some("99"));
    higher.age_from = Some("P18Y".parse().unwrap());
    higher.replace = true;
    ranges::create(&txn, &lab.admin, "K", &higher).await.unwrap();
    is_lifted(&txn, &lab, id, "ranges").await;

    // A value that left the limit open, and does not any more.
    let mut more = value("98", "mmol/L");
    more.comparator = Some(lab::Comparator::More);
    let id = verified(&txn, &lab, &patient, "K", &more).await;
    close_all(&txn, &lab, "K").await;
    let mark = results::get(&txn, id).await.unwrap().critical_lifted.unwrap();
    assert_eq!((mark.flag, mark.crit_high), (None, Number::parse("99").ok()));
}

#[tokio::test]
async fn another_value_has_a_mark_of_its_own_and_the_same_one_typed_again_keeps_the_record() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let id = verified(&txn, &lab, &patient, "K", &value("9.9", "mmol/L")).await;
    close_all(&txn, &lab, "K").await;
    let enter = async |text: &str| {
        let mut entry = value(text, "mmol/L");
        entry.reason = Some("typed again".to_owned());
        let version = results::get(&txn, id).await.unwrap().version;
        results::enter(&txn, &lab.technician, id, version, &entry)
            .await
            .unwrap()
            .critical_lifted
    };
    for same in ["9.9", "9.90"] {
        assert!(
            enter(same).await.is_some(),
            "{same} is the value that was critical"
        );
    }
    assert!(enter("4.0").await.is_none());
}

#[tokio::test]
async fn a_proposed_value_that_loses_its_mark_waits_too() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let entry = AmendmentEntry {
        value: Some("9.9".to_owned()),
        comparator: None,
        comment: None,
        reason: "wrong tube".to_owned(),
    };
    for with_notice in [true, false] {
        let patient = adult(&txn, &lab).await;
        let result = released(&txn, &lab, &patient, "K", &value("4.0", "mmol/L")).await;
        let proposed = amendments::propose(&txn, &lab.supervisor, result.id, result.version, &entry)
            .await
            .unwrap()
            .amendment;
        assert_eq!((proposed.notice_required, proposed.version), (true, 1));
        let patch = PatientPatch {
            birth_date: Some(date(2015, 1, 1)),
            ..PatientPatch::default()
        };
        changed(&txn, &lab, patient.id, patch).await;
        let waiting = amendments::of_result(&txn, result.id).await.unwrap().remove(0);
        let mark = waiting.critical_lifted.as_ref().unwrap();
        assert_eq!(
            (waiting.version, waiting.flag, mark.flag.map(lab::Flag::as_str)),
            (2, None, Some("HH"))
        );
        assert!(mark.reason.contains("birth date"), "{mark:?}");
        let bare = AmendmentVerification::default();
        let unheard = amendments::verify(&txn, &lab.second_supervisor, proposed.id, &bare).await;
        assert_eq!(conflict(unheard), "critical_lifted");
        let how = if with_notice {
            told(&txn, &lab, result.id, &notice()).await.unwrap();
            bare
        } else {
            AmendmentVerification {
                version: Some(waiting.version),
                confirm_lifted: Some("she is a child".to_owned()),
                confirm_conflict: None,
            }
        };
        let done = amendments::verify(&txn, &lab.second_supervisor, proposed.id, &how)
            .await
            .unwrap()
            .result;
        let mark = done.critical_lifted.unwrap();
        assert_eq!(
            (done.status, done.critical_notified, mark.confirmation.is_some()),
            (ResultStatus::Corrected, with_notice, !with_notice)
        );
    }
}

#[tokio::test]
async fn of_a_released_value_that_would_be_critical_somebody_can_be_told_and_the_past_says_so() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let child = person(&txn, &lab, Sex::Female, date(2015, 1, 1)).await;
    let id = released(&txn, &lab, &child, "K", &value("9.9", "mmol/L"))
        .await
        .id;
    let patch = PatientPatch {
        birth_date: Some(date(1960, 1, 1)),
        ..PatientPatch::default()
    };
    txn.commit().await.unwrap();
    let txn = client.transaction().await.unwrap();
    changed(&txn, &lab, child.id, patch).await;
    let view = results::get(&txn, id).await.unwrap();
    assert_eq!(view.evaluation_outdated.unwrap().critical, Some(true));
    told(&txn, &lab, id, &notice()).await.unwrap();

    let entry = AmendmentEntry {
        value: Some("4.4".to_owned()),
        comparator: None,
        comment: None,
        reason: "wrong tube".to_owned(),
    };
    let proposed = amendments::propose(&txn, &lab.supervisor, id, view.version, &entry)
        .await
        .unwrap()
        .amendment;
    let how = AmendmentVerification::default();
    amendments::verify(&txn, &lab.second_supervisor, proposed.id, &how)
        .await
        .unwrap();
    let report = lab::report::of_order(&txn, view.order_id).await.unwrap();
    let past = &report.superseded[0];
    assert_eq!((past.value.as_deref(), past.flag), (Some("9.9"), None));
    assert!(past.evaluation_outdated.is_some(), "{past:?}");
}

#[tokio::test]
async fn a_value_that_does_not_fit_its_test_is_not_released_whoever_wrote_it() {
    let mut scene = Scene::new().await;
    let [_, _, verified, _] = scene.results().await;
    let lab = &scene.lab;
    // As a version before the guards could have stored it.
    let stored = format!(
        "ALTER TABLE result DISABLE TRIGGER USER;
         UPDATE result SET value_num = NULL, value_text = '9.9', unit = NULL, flag = NULL, ref_range_id = NULL, ref_low = NULL,
           ref_high = NULL, crit_low = NULL, crit_high = NULL, no_range = NULL WHERE id = '{verified}';
         ALTER TABLE result ENABLE TRIGGER USER;"
    );
    scene.owner.batch_execute(&stored).await.unwrap();
    let release = format!(
        "UPDATE result SET status = 'released', released_by = '{}' WHERE id = '{verified}'",
        lab.supervisor.staff
    );
    scene.refused(&release, "LAB15").await;
}
