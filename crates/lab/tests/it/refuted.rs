//! In which ways could a critical value be released unmarked? What a reviewer tried and could not do, in
//! tables.

use lab::{
    Reason, ResultStatus,
    amendments::{self, AmendmentEntry, AmendmentVerification},
    results, signoff,
};

use crate::{
    guards::{Scene, state},
    support::{Lab, adult, conflict, items, notice, received, told, value},
    unmarked::{obstacle, shown, verified},
};

#[tokio::test]
async fn a_value_at_its_limit_is_inside_it_to_the_last_digit() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let id = received(&txn, &lab, &patient, &["K"]).await.results[0].id;
    for (text, flag) in [
        ("6.5", "H"),
        ("6.500000000", "H"),
        ("6.500000001", "HH"),
        ("2.5", "L"),
        ("2.500000000", "L"),
        ("2.499999999", "LL"),
        ("-1", "LL"),
        ("999999999999999.999999999", "HH"),
        ("5.0", "N"),
        ("5.000000001", "H"),
    ] {
        let mut entry = value(text, "mmol/L");
        entry.reason = Some("again".to_owned());
        let version = results::get(&txn, id).await.unwrap().version;
        let view = results::enter(&txn, &lab.technician, id, version, &entry)
            .await
            .unwrap();
        assert_eq!(
            (view.flag.unwrap().as_str(), view.value.as_deref()),
            (flag, Some(text)),
            "{text}"
        );
    }
}

#[tokio::test]
async fn adulthood_begins_on_the_eighteenth_birthday_of_everybody() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    // Every birth date of five years, a leap year among them: the day before, and the day.
    let sql = "
        SELECT count(*) FILTER (WHERE eve.flag IS NULL AND eve.no_range = 'no-range-for-age' AND day.flag = 'HH'), count(*)
          FROM (SELECT date '1999-01-01' + n AS born FROM generate_series(0, 5 * 365) AS n) AS b
         CROSS JOIN LATERAL (SELECT (b.born + interval '18 years')::date AS adult) AS a
         CROSS JOIN LATERAL evaluation('K', 'F', b.born, a.adult - 1, NULL, 9.9, NULL) AS eve
         CROSS JOIN LATERAL evaluation('K', 'F', b.born, a.adult, NULL, 9.9, NULL) AS day";
    let row = txn.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), row.get::<_, i64>(1));
}

#[tokio::test]
async fn settings_of_the_session_and_tables_in_front_of_the_true_ones_change_nothing() {
    let mut scene = Scene::new().await;
    let lab = &scene.lab;
    let txn = scene.role.transaction().await.unwrap();
    let patient = adult(&txn, lab).await;
    let id = verified(&txn, lab, &patient, "K", &value("9.9", "mmol/L")).await;
    txn.commit().await.unwrap();
    let release = format!(
        "UPDATE result SET status = 'released', released_by = '{}' WHERE id = '{id}';",
        lab.supervisor.staff
    );
    for before in [
        "",
        "SET LOCAL IntervalStyle = sql_standard;",
        "SET LOCAL DateStyle = 'SQL, DMY';",
        "SET LOCAL TimeZone = '-14';",
        "SET LOCAL transform_null_equals = on;",
        "SET LOCAL search_path = pg_temp, public;",
        "CREATE TEMPORARY TABLE critical_notice (LIKE public.critical_notice) ON COMMIT DROP; SET LOCAL search_path = pg_temp, public;",
        "CREATE TEMPORARY TABLE ref_range (LIKE public.ref_range) ON COMMIT DROP; SET LOCAL search_path = pg_temp, public;",
        "CREATE TEMPORARY TABLE lab_profile (LIKE public.lab_profile) ON COMMIT DROP; SET LOCAL search_path = pg_temp, public;",
        "CREATE TEMPORARY TABLE patient (LIKE public.patient) ON COMMIT DROP; SET LOCAL search_path = pg_temp, public;",
        "CREATE TEMPORARY TABLE critical_lift (LIKE public.critical_lift) ON COMMIT DROP; SET LOCAL search_path = pg_temp, public;",
    ] {
        let sql = before.to_owned() + &release;
        let got = state(&scene.role, &sql).await;
        assert!(
            matches!(got.as_deref(), Some("LAB09" | "42501")),
            "{before}: {got:?}"
        );
        if !before.starts_with("CREATE") {
            assert_eq!(got.as_deref(), Some("LAB09"), "{before}");
        }
    }
}

#[tokio::test]
async fn a_notice_serves_neither_the_same_value_measured_again_nor_a_remark_on_it() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let id = verified(&txn, &lab, &patient, "K", &value("7.0", "mmol/L")).await;
    told(&txn, &lab, id, &notice()).await.unwrap();
    let version = results::get(&txn, id).await.unwrap().version;
    let again = Reason {
        reason: "haemolysed?".to_owned(),
    };
    let back = results::repeat(&txn, &lab.technician, id, version, &again)
        .await
        .unwrap();
    results::enter(&txn, &lab.technician, id, back.version, &value("7.0", "mmol/L"))
        .await
        .unwrap();
    signoff::verify(&txn, &lab.supervisor, &items(&txn, &[id]).await)
        .await
        .unwrap();
    assert_eq!(obstacle(&txn, &lab, id).await, "critical_notice");
    told(&txn, &lab, id, &notice()).await.unwrap();
    assert_eq!(obstacle(&txn, &lab, id).await, "released");

    let version = results::get(&txn, id).await.unwrap().version;
    let remark = AmendmentEntry {
        value: None,
        comparator: None,
        comment: Some("not haemolysed".to_owned()),
        reason: "asked for".to_owned(),
    };
    let proposed = amendments::propose(&txn, &lab.supervisor, id, version, &remark)
        .await
        .unwrap()
        .amendment;
    let how = AmendmentVerification::default();
    let unheard = amendments::verify(&txn, &lab.second_supervisor, proposed.id, &how).await;
    assert_eq!(conflict(unheard), "critical_notice");
    let stale = AmendmentVerification {
        version: Some(proposed.version + 1),
        ..how
    };
    let stale = amendments::verify(&txn, &lab.second_supervisor, proposed.id, &stale).await;
    assert!(matches!(stale, Err(lab::LabError::Version { .. })), "{stale:?}");
}

#[tokio::test]
async fn what_was_withdrawn_is_on_no_report() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let id = verified(&txn, &lab, &patient, "K", &value("7.0", "mmol/L")).await;
    told(&txn, &lab, id, &notice()).await.unwrap();
    assert_eq!(obstacle(&txn, &lab, id).await, "released");
    let before = results::get(&txn, id).await.unwrap();
    let wrong = Reason {
        reason: "another person's".to_owned(),
    };
    let voided = results::void(&txn, &lab.supervisor, id, before.version, &wrong)
        .await
        .unwrap();
    assert_eq!(
        (voided.status, voided.critical_notified),
        (ResultStatus::Voided, true)
    );
    let report = lab::report::of_order(&txn, before.order_id).await.unwrap();
    assert_eq!((&report.results[0].value, report.results[0].flag), (&None, None));
    assert_eq!(shown(&txn, id, "closedReason").await, "another person's");
}
