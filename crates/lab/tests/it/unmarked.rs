//! In which ways can a critical value be released unmarked? Each answer is a test: through the crate's
//! functions here, and by SQL with the laboratory's own role in [`crate::unmarked_sql`].

use jiff::civil::{Date, date};
use lab::{
    Comparator, ImportFormat, LabError, Number, PatientId, ResultId, Sex, Txn, When,
    amendments::{self, AmendmentEntry},
    catalogue::{self, NewTest},
    imports, orders,
    patients::{self, Patient, PatientPatch},
    ranges::{self, NewRange},
    results::{self, ValueEntry},
    signoff, specimens,
};

use crate::support::{
    Lab, adult, conflict, items, new_order, new_patient, notice, received, released, value,
};

pub(crate) async fn person(txn: &Txn<'_>, lab: &Lab, sex: Sex, birth: Date) -> Patient {
    patients::create(txn, &lab.receptionist, &new_patient(sex, birth))
        .await
        .unwrap()
}

/// A value that was entered and verified, and waits for its release.
pub(crate) async fn verified(
    txn: &Txn<'_>,
    lab: &Lab,
    patient: &Patient,
    test: &str,
    entry: &ValueEntry,
) -> ResultId {
    let order = received(txn, lab, patient, &[test]).await;
    let id = order.results[0].id;
    results::enter(txn, &lab.technician, id, 1, entry).await.unwrap();
    signoff::verify(txn, &lab.supervisor, &items(txn, &[id]).await)
        .await
        .unwrap();
    id
}

/// What stands in the way of a release, or that nothing does.
pub(crate) async fn obstacle(txn: &Txn<'_>, lab: &Lab, id: ResultId) -> &'static str {
    match signoff::release(txn, &lab.supervisor, &items(txn, &[id]).await).await {
        Ok(_) => "released",
        Err(LabError::Items(problems)) => problems[0].code,
        Err(error) => panic!("{error:?}"),
    }
}

/// One field of a result, as the API shows it.
pub(crate) async fn shown(txn: &Txn<'_>, id: ResultId, field: &str) -> serde_json::Value {
    let view = results::get(txn, id).await.unwrap();
    serde_json::to_value(view).unwrap()[field].clone()
}

/// The result is flagged, and not released before its notice.
pub(crate) async fn is_held(txn: &Txn<'_>, lab: &Lab, id: ResultId, flag: &str) {
    assert_eq!(shown(txn, id, "flag").await, flag);
    assert_eq!(obstacle(txn, lab, id).await, "critical_notice");
    crate::support::told(txn, lab, id, &notice()).await.unwrap();
    assert_eq!(obstacle(txn, lab, id).await, "released");
    assert_eq!(shown(txn, id, "criticalNotified").await, true);
}

pub(crate) async fn changed(txn: &Txn<'_>, lab: &Lab, id: PatientId, patch: PatientPatch) {
    let version = patients::get(txn, id).await.unwrap().version;
    patients::update(txn, &lab.receptionist, id, version, &patch)
        .await
        .unwrap();
}

pub(crate) fn limits(crit_low: Option<&str>, crit_high: Option<&str>) -> NewRange {
    let number = |text: Option<&str>| text.map(|text| Number::parse(text).unwrap());
    NewRange {
        crit_low: number(crit_low),
        crit_high: number(crit_high),
        ..NewRange::default()
    }
}

pub(crate) fn own_test(code: &str) -> NewTest {
    NewTest {
        code: code.to_owned(),
        name: "A test of its own".to_owned(),
        loinc: None,
        section: "chemistry".to_owned(),
        specimen_type: "serum".to_owned(),
        value_type: lab::ValueType::Quantity,
        unit: Some("mmol/L".to_owned()),
        decimals: None,
        allowed_values: None,
        critical_values: None,
        members: None,
        delta_pct: None,
        delta_days: None,
        tat_minutes: None,
    }
}

#[tokio::test]
async fn a_person_of_unknown_or_other_sex_has_the_limits_of_either() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    for sex in [Sex::Unknown, Sex::Other] {
        let patient = person(&txn, &lab, sex, date(1980, 5, 1)).await;
        for (test, text, unit, flag) in [
            ("HGB", "3.0", "g/dL", "LL"),
            ("HGB", "20.1", "g/dL", "HH"),
            ("HCT", "19", "%", "LL"),
            ("CREA", "10.1", "mg/dL", "HH"),
        ] {
            let id = verified(&txn, &lab, &patient, test, &value(text, unit)).await;
            is_held(&txn, &lab, id, flag).await;
        }
        let mut above = value("15", "g/dL");
        above.comparator = Some(Comparator::More);
        let id = verified(&txn, &lab, &patient, "HGB", &above).await;
        assert_eq!(obstacle(&txn, &lab, id).await, "critical_notice");
        // What is usual differs by sex and nothing is said of it; why, is.
        let id = verified(&txn, &lab, &patient, "HGB", &value("12.5", "g/dL")).await;
        assert_eq!(shown(&txn, id, "flag").await, serde_json::Value::Null);
        assert_eq!(shown(&txn, id, "noRangeReason").await, "no-range-for-sex");
        assert_eq!(shown(&txn, id, "critLow").await, "7");
        assert_eq!(obstacle(&txn, &lab, id).await, "released");
        // What holds for everybody holds.
        let id = verified(&txn, &lab, &patient, "K", &value("6.6", "mmol/L")).await;
        assert_eq!(shown(&txn, id, "noRangeReason").await, serde_json::Value::Null);
        is_held(&txn, &lab, id, "HH").await;
    }
}

#[tokio::test]
async fn limits_that_differ_by_sex_hold_in_their_stricter_form() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    catalogue::create(&txn, &lab.admin, &own_test("OWN"))
        .await
        .unwrap();
    for (sex, low, high) in [("F", "2", "8"), ("M", "3", "9")] {
        let mut range = limits(Some(low), Some(high));
        range.sex = Some(sex.parse().unwrap());
        (range.low, range.high) = (Number::parse("4").ok(), Number::parse("6").ok());
        ranges::create(&txn, &lab.admin, "OWN", &range).await.unwrap();
    }
    let patient = person(&txn, &lab, Sex::Unknown, date(1980, 5, 1)).await;
    for (text, flag) in [("2.9", "LL"), ("8.1", "HH"), ("3.0", "L"), ("5", "N")] {
        let id = verified(&txn, &lab, &patient, "OWN", &value(text, "mmol/L")).await;
        assert_eq!(shown(&txn, id, "flag").await, flag, "{text}");
        assert_eq!(
            shown(&txn, id, "refLow").await,
            "4",
            "both sexes share what is usual"
        );
    }
}

#[tokio::test]
async fn a_range_for_one_sex_does_not_hide_the_limits_for_everybody() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let mut usual = limits(None, None);
    usual.sex = Some("F".parse().unwrap());
    (usual.low, usual.high) = (Number::parse("3.4").ok(), Number::parse("4.9").ok());
    ranges::create(&txn, &lab.admin, "K", &usual).await.unwrap();
    let patient = adult(&txn, &lab).await;
    let id = verified(&txn, &lab, &patient, "K", &value("9.9", "mmol/L")).await;
    assert_eq!(shown(&txn, id, "refHigh").await, "4.9");
    is_held(&txn, &lab, id, "HH").await;
    let unknown = person(&txn, &lab, Sex::Unknown, date(1980, 5, 1)).await;
    let id = verified(&txn, &lab, &unknown, "K", &value("2.4", "mmol/L")).await;
    is_held(&txn, &lab, id, "LL").await;
}

#[tokio::test]
async fn a_collection_time_that_cannot_be_or_is_unlikely_takes_no_range_away() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = orders::create(&txn, &lab.receptionist, &new_order(&patient, &["K"]))
        .await
        .unwrap();
    let barcode = &order.specimens[0].barcode;
    for at in [
        "1979-05-01T08:00:00Z",
        "2001-05-01T08:00:00Z",
        "1997-05-01T08:00:00Z",
    ] {
        let when = When {
            at: Some(at.parse().unwrap()),
            ..When::default()
        };
        let collected = specimens::collect(&txn, &lab.receptionist, barcode, &when).await;
        assert!(collected.is_err(), "collected at {at}");
        let received = specimens::receive(&txn, &lab.technician, barcode, &when).await;
        assert!(received.is_err(), "received at {at}");
    }
}

#[tokio::test]
async fn a_file_from_an_instrument_is_evaluated_as_a_person_would_be() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = person(&txn, &lab, Sex::Unknown, date(1980, 5, 1)).await;
    let order = received(&txn, &lab, &patient, &["HGB"]).await;
    let file = format!(
        "barcode,code,value,unit\n{},HGB,3.0,g/dL\n",
        order.specimens[0].barcode
    );
    imports::run(&txn, &lab.technician, ImportFormat::Csv, false, file.as_bytes())
        .await
        .unwrap();
    let id = order.results[0].id;
    signoff::verify(&txn, &lab.supervisor, &items(&txn, &[id]).await)
        .await
        .unwrap();
    is_held(&txn, &lab, id, "LL").await;
}

#[tokio::test]
async fn a_notice_before_the_value_is_none() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let id = verified(&txn, &lab, &patient, "K", &value("9.9", "mmol/L")).await;
    let mut early = notice();
    early.at = Some("2020-01-01T00:00:00Z".parse().unwrap());
    crate::support::is_invalid(crate::support::told(&txn, &lab, id, &early).await, "at");
    assert_eq!(obstacle(&txn, &lab, id).await, "critical_notice");
}

#[tokio::test]
async fn a_notice_that_was_not_read_back_is_recorded_and_does_not_serve() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let id = verified(&txn, &lab, &patient, "K", &value("9.9", "mmol/L")).await;
    let mut unread = notice();
    unread.read_back = false;
    let recorded = crate::support::told(&txn, &lab, id, &unread).await.unwrap();
    assert!(!recorded.read_back);
    assert_eq!(shown(&txn, id, "criticalNotified").await, false);
    assert_eq!(obstacle(&txn, &lab, id).await, "critical_notice");
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
    crate::support::told(&txn, &lab, result.id, &unread)
        .await
        .unwrap();
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
async fn what_is_not_covered_is_said_in_the_catalogue() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let test = |code: &'static str| {
        let txn = &txn;
        async move {
            serde_json::to_value(catalogue::get(txn, code).await.unwrap()).unwrap()["coveredAges"].clone()
        }
    };
    assert_eq!(
        test("K").await,
        serde_json::json!([{ "sex": null, "ageFrom": "P18Y", "ageTo": null, "critical": true }])
    );
    assert_eq!(
        test("ALP").await,
        serde_json::json!([
            { "sex": "F", "ageFrom": "P18Y", "ageTo": null, "critical": false },
            { "sex": "M", "ageFrom": "P18Y", "ageTo": null, "critical": false }
        ])
    );
    catalogue::create(&txn, &lab.admin, &own_test("OWN"))
        .await
        .unwrap();
    assert_eq!(test("OWN").await, serde_json::json!([]));
    let all = catalogue::list(&txn, None).await.unwrap();
    let of = |code: &str| {
        let test = all.iter().find(|test| test.code == code).unwrap();
        serde_json::to_value(test).unwrap()["coveredAges"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!((of("K"), of("ALP"), of("OWN")), (1, 2, 0));
}

#[tokio::test]
async fn nothing_is_drawn_or_taken_in_for_a_cancelled_order() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let order = orders::create(&txn, &lab.receptionist, &new_order(&patient, &["K"]))
        .await
        .unwrap();
    orders::cancel(
        &txn,
        &lab.receptionist,
        order.head.id,
        &crate::support::reason("by mistake"),
    )
    .await
    .unwrap();
    let barcode = &order.specimens[0].barcode;
    let collected = specimens::collect(&txn, &lab.receptionist, barcode, &When::default()).await;
    assert_eq!(conflict(collected), "order_closed");
    let received = specimens::receive(&txn, &lab.technician, barcode, &When::default()).await;
    assert_eq!(conflict(received), "order_closed");
}

#[tokio::test]
async fn nobody_is_born_tomorrow() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let today: Date = txn
        .query_one("SELECT (now() AT TIME ZONE 'Europe/Berlin')::date", &[])
        .await
        .unwrap()
        .get(0);
    let tomorrow = today.tomorrow().unwrap();
    let registered = patients::create(&txn, &lab.receptionist, &new_patient(Sex::Female, tomorrow)).await;
    crate::support::is_invalid(registered, "birthDate");
    let newborn = person(&txn, &lab, Sex::Female, today).await;
    let patch = PatientPatch {
        birth_date: Some(tomorrow),
        ..PatientPatch::default()
    };
    let moved = patients::update(&txn, &lab.receptionist, newborn.id, newborn.version, &patch).await;
    crate::support::is_invalid(moved, "birthDate");
}
