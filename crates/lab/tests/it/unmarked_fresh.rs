//! In which ways could a critical value be released unmarked? What a reviewer found who had not written the
//! guards.

use jiff::civil::date;
use lab::{
    Age, LabError, Number, Sex, When,
    amendments::{self, AmendmentEntry},
    patients::{self, PatientPatch},
    profile::{self, ProfilePatch},
    ranges::{self, CloseRange, NewRange},
    results, signoff, specimens,
};

use crate::{
    guards::{Scene, state},
    support::{Lab, adult, conflict, items, new_order, received, released, value},
    unmarked::{is_held, limits, own_test, person, shown, verified},
};

fn aged(mut range: NewRange, from: Option<&str>, to: Option<&str>) -> NewRange {
    range.age_from = from.map(|age| Age::parse(age).unwrap());
    range.age_to = to.map(|age| Age::parse(age).unwrap());
    range
}

async fn close_all(txn: &lab::Txn<'_>, lab: &Lab, test: &str) {
    for range in ranges::list(txn, test).await.unwrap() {
        if range.valid_to.is_none() {
            let close = CloseRange {
                without_limits: Some("not measured any more".to_owned()),
            };
            ranges::close(txn, &lab.admin, range.id, &close).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_range_that_replaces_part_of_another_leaves_the_rest_of_it() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let mut old_age = aged(limits(Some("2.5"), Some("6.0")), Some("P60Y"), Some("P80Y"));
    (old_age.low, old_age.high) = (Number::parse("3.5").ok(), Number::parse("5.3").ok());
    old_age.replace = true;
    ranges::create(&txn, &lab.admin, "K", &old_age).await.unwrap();
    for (born, text, crit_high) in [(1990, "9.9", "6.5"), (1955, "6.2", "6.0"), (1930, "9.9", "6.5")] {
        let patient = person(&txn, &lab, Sex::Female, date(born, 1, 1)).await;
        let id = verified(&txn, &lab, &patient, "K", &value(text, "mmol/L")).await;
        assert_eq!(shown(&txn, id, "critHigh").await, crit_high, "born {born}");
        is_held(&txn, &lab, id, "HH").await;
    }
    let in_force: Vec<(String, Option<String>)> = ranges::list(&txn, "K")
        .await
        .unwrap()
        .iter()
        .filter(|range| range.valid_to.is_none())
        .map(|range| {
            (
                range.age_from.to_string(),
                range.age_to.map(|age| age.to_string()),
            )
        })
        .collect();
    assert_eq!(in_force.len(), 3, "{in_force:?}");
}

#[tokio::test]
async fn ages_that_meet_for_some_people_and_leave_a_gap_for_others_are_refused() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let first = aged(limits(None, Some("7")), None, Some("P1M"));
    ranges::create(&txn, &lab.admin, "K", &first).await.unwrap();
    for (from, to) in [
        ("P31D", "P1Y"),
        ("P30D", "P1Y"),
        ("P1M", "P6574D"),
        ("P28D", "P1Y"),
    ] {
        let next = aged(limits(None, Some("7")), Some(from), Some(to));
        let refused = ranges::create(&txn, &lab.admin, "K", &next).await;
        assert!(
            matches!(&refused, Err(LabError::Invalid(problems)) if problems[0].field.starts_with("age"))
                || conflict_code(&refused) == Some("overlap"),
            "{from} to {to}: {refused:?}"
        );
    }
    for (from, to) in [("P1M", "P365D"), ("P400D", "P12Y"), ("P144M", "P18Y")] {
        let next = aged(limits(None, Some("7")), Some(from), Some(to));
        ranges::create(&txn, &lab.admin, "K", &next).await.unwrap();
    }
}

fn conflict_code<T>(outcome: &Result<T, LabError>) -> Option<&'static str> {
    match outcome {
        Err(LabError::Conflict { code, .. }) => Some(*code),
        _ => None,
    }
}

#[tokio::test]
async fn a_correction_has_the_limits_of_the_release_where_none_is_in_force_any_more() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let result = released(&txn, &lab, &patient, "K", &value("4.0", "mmol/L")).await;
    txn.commit().await.unwrap();
    let txn = client.transaction().await.unwrap();
    close_all(&txn, &lab, "K").await;
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
    assert_eq!(
        (proposed.flag.map(lab::Flag::as_str), proposed.notice_required),
        (Some("HH"), true)
    );
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
async fn a_corrected_time_zone_marks_what_was_released_by_another_day() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let zone = async |txn: &lab::Txn<'_>, name: &str| {
        let version = profile::get(txn).await.unwrap().version;
        let patch = ProfilePatch {
            time_zone: Some(name.to_owned()),
            ..ProfilePatch::default()
        };
        profile::update(txn, &lab.admin, version, &patch).await
    };
    zone(&txn, "Pacific/Pago_Pago").await.unwrap();
    let today: jiff::civil::Date = txn
        .query_one("SELECT (now() AT TIME ZONE 'Pacific/Kiritimati')::date", &[])
        .await
        .unwrap()
        .get(0);
    let birth = today.checked_sub(jiff::Span::new().years(18)).unwrap();
    let patient = person(&txn, &lab, Sex::Female, birth).await;
    let id = released(&txn, &lab, &patient, "K", &value("9.9", "mmol/L"))
        .await
        .id;
    let grown = adult(&txn, &lab).await;
    let other = released(&txn, &lab, &grown, "K", &value("4.0", "mmol/L"))
        .await
        .id;
    txn.commit().await.unwrap();
    let txn = client.transaction().await.unwrap();
    zone(&txn, "Pacific/Kiritimati").await.unwrap();
    let mark = shown(&txn, id, "evaluationOutdated").await;
    assert!(
        mark["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("time zone")),
        "{mark}"
    );
    assert!(shown(&txn, other, "evaluationOutdated").await.is_null());
    // PostgreSQL takes these for abbreviations: without daylight saving time.
    for abbreviation in ["CET", "EET", "MET", "WET", "EST", "MST", "HST"] {
        crate::support::is_invalid(zone(&txn, abbreviation).await, "timeZone");
    }
    for known in ["UTC", "Etc/GMT+3", "America/Argentina/Buenos_Aires"] {
        zone(&txn, known).await.unwrap();
    }
}

/// Ordered, entered and released while the correction of the birth date waits for an older result of the same
/// person.
#[tokio::test]
async fn a_result_that_comes_and_goes_while_the_birth_date_is_corrected_is_not_missed() {
    let lab = Lab::new().await;
    let (mut holding, mut correcting, mut working) =
        (lab.client().await, lab.client().await, lab.client().await);
    let setup = holding.transaction().await.unwrap();
    let child = person(&setup, &lab, Sex::Female, date(2015, 1, 1)).await;
    let older = received(&setup, &lab, &child, &["NA"]).await.results[0].id;
    setup.commit().await.unwrap();

    let holder = holding.transaction().await.unwrap();
    holder
        .execute("SELECT 1 FROM result WHERE id = $1 FOR UPDATE", &[&older])
        .await
        .unwrap();
    let grown = PatientPatch {
        birth_date: Some(date(1960, 1, 1)),
        ..PatientPatch::default()
    };
    let correction = correcting.transaction().await.unwrap();
    let correct = patients::update(&correction, &lab.receptionist, child.id, 1, &grown);
    let work = async {
        crate::races::somebody_waits(&lab).await;
        let txn = working.transaction().await.unwrap();
        let limit = "SET LOCAL lock_timeout = '2s'";
        txn.batch_execute(limit).await.unwrap();
        let done = async {
            let order = lab::orders::create(&txn, &lab.receptionist, &new_order(&child, &["K"])).await?;
            let barcode = &order.specimens[0].barcode;
            specimens::collect(&txn, &lab.receptionist, barcode, &When::default()).await?;
            specimens::receive(&txn, &lab.technician, barcode, &When::default()).await?;
            let id = order.results[0].id;
            results::enter(&txn, &lab.technician, id, 1, &value("9.9", "mmol/L")).await?;
            signoff::verify(&txn, &lab.supervisor, &items(&txn, &[id]).await).await?;
            signoff::release(&txn, &lab.supervisor, &items(&txn, &[id]).await).await?;
            Ok::<_, LabError>(id)
        };
        // It may have to wait for the correction, which waits for the holder: then it is not done before.
        let id = match done.await {
            Ok(id) => {
                txn.commit().await.unwrap();
                Some(id)
            }
            Err(_) => {
                txn.rollback().await.unwrap();
                None
            }
        };
        holder.commit().await.unwrap();
        id
    };
    let (corrected, id) = tokio::join!(correct, work);
    corrected.unwrap();
    correction.commit().await.unwrap();
    if let Some(id) = id {
        let txn = holding.transaction().await.unwrap();
        let view = results::get(&txn, id).await.unwrap();
        assert!(view.evaluation_outdated.is_some(), "{view:?}");
    }
}

#[tokio::test]
async fn sql_of_the_laboratorys_role_takes_no_mark_away_behind_the_guards() {
    let mut scene = Scene::new().await;
    let lab = &scene.lab;
    let txn = scene.role.transaction().await.unwrap();
    lab::catalogue::create(&txn, &lab.admin, &own_test("OWN"))
        .await
        .unwrap();
    let child = person(&txn, lab, Sex::Female, date(2015, 1, 1)).await;
    let (near, far) = (adult(&txn, lab).await.id, adult(&txn, lab).await.id);
    let waiting = verified(&txn, lab, &child, "K", &value("9.9", "mmol/L")).await;
    let patient = adult(&txn, lab).await;
    let result = released(&txn, lab, &patient, "K", &value("4.0", "mmol/L")).await;
    txn.commit().await.unwrap();
    let (first, second) = (lab.supervisor.staff, lab.second_supervisor.staff);

    // Whoever lives on is found however many steps lead there.
    let chain = format!(
        "UPDATE patient SET merged_into = '{near}', merge_reason = 'x' WHERE id = '{child}';
         UPDATE patient SET birth_date = '2015-01-01' WHERE id = '{near}';
         UPDATE patient SET merged_into = '{far}', merge_reason = 'x' WHERE id = '{near}';
         UPDATE result SET status = 'released', released_by = '{first}' WHERE id = '{waiting}';",
        child = child.id
    );
    scene.refused(&chain, "LAB14").await;

    // An amendment that was verified by other data is not applied.
    let verified = format!(
        "UPDATE patient SET birth_date = '2015-01-01' WHERE id = '{patient}';
         INSERT INTO result_amendment (id, result_id, base_rev, kind, reason, entered_by, value_num)
         VALUES ('00000000-0000-7000-8000-000000000001', '{id}', 1, 'corrected', 'wrong tube', '{first}', 9.9);
         UPDATE result_amendment SET status = 'verified', verified_by = '{second}' WHERE result_id = '{id}';
         UPDATE patient SET birth_date = '1980-01-01' WHERE id = '{patient}';
         UPDATE result SET status = 'corrected', amendment_id = '00000000-0000-7000-8000-000000000001', changed_by = '{second}'
          WHERE id = '{id}';",
        id = result.id,
        patient = patient.id
    );
    scene.refused(&verified, "LAB14").await;

    // A range ends now, whatever is written.
    for end in ["now() + interval '1 year'", "valid_from"] {
        scene.role.batch_execute("BEGIN").await.unwrap();
        let close =
            format!("UPDATE ref_range SET valid_to = {end} WHERE test_code = 'NA' AND valid_to IS NULL");
        scene.role.batch_execute(&close).await.unwrap();
        let ended: bool = scene
            .role
            .query_one(
                "SELECT bool_and(valid_to = greatest(now(), valid_from)) FROM ref_range WHERE test_code = 'NA'",
                &[],
            )
            .await
            .unwrap()
            .get(0);
        assert!(ended, "{end}");
        scene.role.batch_execute("ROLLBACK").await.unwrap();
    }

    // A transaction that does not see what others have changed meanwhile writes no evaluation.
    for sql in [
        format!("UPDATE result SET status = 'released', released_by = '{first}' WHERE id = '{waiting}'"),
        "INSERT INTO ref_range (id, test_code, crit_high) VALUES (gen_random_uuid(), 'OWN', 6)".to_owned(),
        format!(
            "UPDATE patient SET birth_date = '1960-01-01' WHERE id = '{}'",
            child.id
        ),
    ] {
        scene
            .role
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            .await
            .unwrap();
        let refused = scene.role.batch_execute(&sql).await.unwrap_err();
        scene.role.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(refused.code().map(|code| code.code()), Some("LAB14"), "{sql}");
    }

    // Two ranges at once: the second waits for the first, and sees it.
    let mut other = lab.client().await;
    let own = |n: u8| {
        format!("INSERT INTO ref_range (id, test_code, crit_high) VALUES (gen_random_uuid(), 'OWN', {n})")
    };
    let one = scene.role.transaction().await.unwrap();
    one.batch_execute(&own(6)).await.unwrap();
    let two = other.transaction().await.unwrap();
    let sql = own(60);
    let (late, ()) = tokio::join!(two.batch_execute(&sql), async {
        crate::races::somebody_waits(lab).await;
        one.commit().await.unwrap();
    });
    assert_eq!(
        late.err()
            .and_then(|error| error.code().map(|code| code.code().to_owned()))
            .as_deref(),
        Some("LAB16")
    );
}

#[tokio::test]
async fn what_sql_changes_of_a_person_or_specimen_after_the_release_is_marked_too() {
    let mut scene = Scene::new().await;
    let lab = &scene.lab;
    let txn = scene.role.transaction().await.unwrap();
    let child = person(&txn, lab, Sex::Female, date(2015, 1, 1)).await;
    let gone = released(&txn, lab, &child, "K", &value("9.9", "mmol/L")).await;
    let woman = adult(&txn, lab).await;
    let hers = released(&txn, lab, &woman, "HGB", &value("12.5", "g/dL")).await;
    txn.commit().await.unwrap();
    let staff = lab.technician.staff;
    for (sql, id) in [
        (
            format!("UPDATE patient SET birth_date = '1960-01-01' WHERE id = '{}'", child.id),
            gone.id,
        ),
        (
            format!("UPDATE patient SET sex = 'M' WHERE id = '{}'", woman.id),
            hers.id,
        ),
        (
            format!(
                "UPDATE patient SET merged_into = '{}', merge_reason = 'x' WHERE id = '{}'",
                woman.id, child.id
            ),
            gone.id,
        ),
        (
            format!(
                "UPDATE specimen SET collected_at = collected_at - interval '30 years', change_reason = 'typo', changed_by = '{staff}'
                  WHERE id = '{}'",
                hers.specimen_id
            ),
            hers.id,
        ),
    ] {
        scene.role.batch_execute("BEGIN").await.unwrap();
        scene.role.batch_execute(&sql).await.unwrap();
        scene.role.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await.unwrap();
        let marked: bool = scene
            .role
            .query_one("SELECT outdated_since IS NOT NULL FROM result WHERE id = $1", &[&id])
            .await
            .unwrap()
            .get(0);
        scene.role.batch_execute("ROLLBACK").await.unwrap();
        assert!(marked, "{sql}");
    }
    assert_eq!(
        state(&scene.role, "UPDATE patient SET family_name = 'Other'").await,
        None
    );
}
