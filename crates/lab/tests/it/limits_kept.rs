//! A critical limit ends only by an explicit request: by no range that is closed or replaced, and no two
//! meanings of a time zone.

use jiff::civil::date;
use lab::{
    Age, Number, Sex,
    profile::{self, ProfilePatch},
    ranges::{self, CloseRange, NewRange, RangeView},
    results,
};

use crate::{
    guards::Scene,
    support::{LIMIT, Lab, conflict, is_invalid, released, value},
    unmarked::{is_held, limits, own_test, person, shown, verified},
};

fn age(text: &str) -> Option<Age> {
    Some(Age::parse(text).unwrap())
}

fn number(text: &str) -> Option<Number> {
    Some(Number::parse(text).unwrap())
}

/// What the standard catalogue says of sodium, for the old alone.
fn sodium_of_the_old() -> NewRange {
    NewRange {
        age_from: age("P60Y"),
        low: number("136"),
        high: number("145"),
        crit_low: number("120"),
        crit_high: number("160"),
        replace: true,
        ..NewRange::default()
    }
}

fn because(reason: &str) -> CloseRange {
    CloseRange {
        without_limits: Some(reason.to_owned()),
    }
}

async fn in_force(txn: &lab::Txn<'_>, test: &str) -> Vec<RangeView> {
    let mut all = ranges::list(txn, test).await.unwrap();
    all.retain(|range| range.valid_to.is_none());
    all
}

#[tokio::test]
async fn a_range_for_some_ages_leaves_the_others_their_limits() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    ranges::create(&txn, &lab.admin, "NA", &sodium_of_the_old())
        .await
        .unwrap();
    let patient = person(&txn, &lab, Sex::Female, date(1986, 1, 1)).await;
    let id = verified(&txn, &lab, &patient, "NA", &value("105", "mmol/L")).await;
    is_held(&txn, &lab, id, "LL").await;
    // Out of the middle, too: on both sides the bounds stay.
    let middle = NewRange {
        age_from: age("P30Y"),
        age_to: age("P40Y"),
        ..sodium_of_the_old()
    };
    ranges::create(&txn, &lab.admin, "NA", &middle).await.unwrap();
    let mut ages: Vec<_> = in_force(&txn, "NA")
        .await
        .into_iter()
        .map(|range| {
            let to = range.age_to.map(|age| age.to_string()).unwrap_or_default();
            (range.age_from.to_string(), to)
        })
        .collect();
    ages.sort();
    let expected = [("P18Y", "P30Y"), ("P30Y", "P40Y"), ("P40Y", "P60Y"), ("P60Y", "")];
    assert_eq!(ages, expected.map(|(from, to)| (from.to_owned(), to.to_owned())));
}

#[tokio::test]
async fn nobody_loses_a_limit_unless_somebody_says_why() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let glucose = NewRange {
        low: number("70"),
        high: number("99"),
        replace: true,
        ..NewRange::default()
    };
    let refused = ranges::create(&txn, &lab.admin, "GLU", &glucose).await;
    assert_eq!(conflict(refused), "limits_lost");
    txn.rollback().await.unwrap();

    let txn = client.transaction().await.unwrap();
    let [sodium] = &in_force(&txn, "NA").await[..] else {
        panic!("one range for everybody")
    };
    let silent = ranges::close(&txn, &lab.admin, sodium.id, &CloseRange::default()).await;
    assert_eq!(conflict(silent), "limits_lost");
    txn.rollback().await.unwrap();

    let txn = client.transaction().await.unwrap();
    is_invalid(
        ranges::close(&txn, &lab.admin, sodium.id, &because(&"x".repeat(501))).await,
        "withoutLimits",
    );
    let closed = ranges::close(
        &txn,
        &lab.admin,
        sodium.id,
        &because("sodium is not measured here any more"),
    )
    .await
    .unwrap();
    assert_eq!(
        closed.without_limits.as_deref(),
        Some("sodium is not measured here any more")
    );
    txn.commit().await.unwrap();

    // The limits of one sex are not those of the other; a range for everybody has them for both.
    let txn = client.transaction().await.unwrap();
    txn.batch_execute("SAVEPOINT before").await.unwrap();
    for range in in_force(&txn, "HGB").await {
        let alone = ranges::close(&txn, &lab.admin, range.id, &CloseRange::default()).await;
        assert_eq!(conflict(alone), "limits_lost");
        txn.batch_execute("ROLLBACK TO before").await.unwrap();
    }
    let mut everybody = limits(Some("7"), Some("20"));
    everybody.age_from = age("P10Y");
    ranges::create(&txn, &lab.admin, "HGB", &everybody).await.unwrap();
    for range in in_force(&txn, "HGB").await {
        if range.sex.is_some() {
            ranges::close(&txn, &lab.admin, range.id, &CloseRange::default())
                .await
                .unwrap();
        }
    }
    txn.commit().await.unwrap();
}

#[tokio::test]
async fn a_range_with_a_limit_alone_hides_no_usual_bounds() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let mut women = limits(Some("2.8"), None);
    women.sex = Some("F".parse().unwrap());
    ranges::create(&txn, &lab.admin, "K", &women).await.unwrap();
    let patient = person(&txn, &lab, Sex::Female, date(1980, 1, 1)).await;
    let high = verified(&txn, &lab, &patient, "K", &value("5.9", "mmol/L")).await;
    assert_eq!(shown(&txn, high, "flag").await, "H");
    let low = verified(&txn, &lab, &patient, "K", &value("2.7", "mmol/L")).await;
    is_held(&txn, &lab, low, "LL").await;
}

#[tokio::test]
async fn a_range_is_written_in_the_unit_of_its_test() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    lab::catalogue::create(&txn, &lab.admin, &own_test("OWN"))
        .await
        .unwrap();
    let mut range = limits(None, Some("400"));
    range.unit = Some("mg/dL".to_owned());
    is_invalid(ranges::create(&txn, &lab.admin, "OWN", &range).await, "unit");
    range.unit = Some("mmol/L".to_owned());
    ranges::create(&txn, &lab.admin, "OWN", &range).await.unwrap();
}

#[tokio::test]
async fn a_time_zone_has_one_meaning_and_a_corrected_one_marks_what_was_released() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let zone = async |name: &str| {
        let version = profile::get(&txn).await.unwrap().version;
        let patch = ProfilePatch {
            time_zone: Some(name.to_owned()),
            ..ProfilePatch::default()
        };
        profile::update(&txn, &lab.admin, version, &patch).await
    };
    for abbreviation in ["CET", "EET", "WET", "EST"] {
        is_invalid(zone(abbreviation).await, "timeZone");
    }
    zone("UTC").await.unwrap();
    zone("Pacific/Pago_Pago").await.unwrap();
    let sql = "SELECT (now() AT TIME ZONE 'Pacific/Kiritimati')::date";
    let today: jiff::civil::Date = txn.query_one(sql, &[]).await.unwrap().get(0);
    let birth = today.checked_sub(jiff::Span::new().years(18)).unwrap();
    let patient = person(&txn, &lab, Sex::Female, birth).await;
    let bare = released(&txn, &lab, &patient, "K", &value("9.9", "mmol/L")).await;
    assert_eq!(bare.flag, None);
    zone("Pacific/Kiritimati").await.unwrap();
    let marked = shown(&txn, bare.id, "evaluationOutdated").await;
    assert!(
        marked["reason"].as_str().unwrap().contains("time zone"),
        "{marked}"
    );
    zone("Pacific/Pago_Pago").await.unwrap();
    assert_eq!(
        results::get(&txn, bare.id).await.unwrap().rev,
        bare.rev,
        "what left the laboratory does not change"
    );
    let cleared = shown(&txn, bare.id, "evaluationOutdated").await;
    assert!(cleared.is_null(), "{cleared}");
}

#[tokio::test]
async fn with_sql_no_limit_ends_in_silence_in_advance_or_in_the_past() {
    let mut scene = Scene::new().await;
    let close = "UPDATE ref_range SET valid_to = now() WHERE test_code = 'K'";
    let closed = scene.role.batch_execute(close).await.unwrap_err();
    assert_eq!(closed.code().unwrap().code(), "LAB18");
    scene.refused("UPDATE lab_profile SET tz = 'CET'", "LAB13").await;
    // The guard says when it is closed, whatever the caller writes.
    let txn = scene.role.transaction().await.unwrap();
    for (test, when) in [("K", "'2099-01-01'"), ("NA", "'2000-01-02'")] {
        let sql = format!(
            "UPDATE ref_range SET valid_to = {when}, limits_withdrawn = 'not measured' WHERE test_code = '{test}'
             RETURNING valid_to = now()"
        );
        assert!(
            txn.query_one(&sql, &[]).await.unwrap().get::<_, bool>(0),
            "{when}"
        );
    }
    txn.rollback().await.unwrap();
}

#[tokio::test]
async fn of_two_ranges_that_are_added_at_once_the_second_sees_the_first() {
    let mut scene = Scene::new().await;
    let mut other = scene.lab.client().await;
    let add = |high: &str| {
        format!(
            "INSERT INTO ref_range (id, test_code, age_to, high, crit_high) VALUES (gen_random_uuid(), 'K', 'P18Y', {high})"
        )
    };
    let first = scene.role.transaction().await.unwrap();
    first.batch_execute(&add("5, 6.5")).await.unwrap();
    let second = other.transaction().await.unwrap();
    let sql = add("12, NULL");
    let owner = scene.lab.owner().await;
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')";
    let (refused, ()) = tokio::join!(second.batch_execute(&sql), async {
        testkit::eventually("the second to wait for the first", LIMIT, async || {
            owner.query_one(waits, &[]).await.unwrap().get::<_, bool>(0)
        })
        .await;
        first.commit().await.unwrap();
    });
    assert_eq!(refused.unwrap_err().code().unwrap().code(), "LAB16");
}
