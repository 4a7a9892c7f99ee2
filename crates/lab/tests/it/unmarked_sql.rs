//! In which ways can a critical value be released unmarked by whoever speaks SQL with the laboratory's own
//! role? The database's guards are the last wall: each of these goes around the code above them.

use lab::{ResultId, Sex, When, orders, results, signoff, specimens};

use crate::{
    guards::{Scene, state},
    support::{LIMIT, Lab, adult, items, new_order, received, released, value},
    unmarked::{person, verified},
};

/// A pending potassium of an adult.
async fn pending(scene: &mut Scene) -> ResultId {
    let lab = &scene.lab;
    let txn = scene.role.transaction().await.unwrap();
    let patient = adult(&txn, lab).await;
    let id = received(&txn, lab, &patient, &["K"]).await.results[0].id;
    txn.commit().await.unwrap();
    id
}

impl Scene {
    fn entry(&self, id: ResultId, sets: &str) -> String {
        format!(
            "UPDATE result SET status = 'entered', entered_by = '{}', {sets} WHERE id = '{id}';",
            self.lab.technician.staff
        )
    }

    fn release(&self, id: ResultId) -> String {
        format!(
            "UPDATE result SET status = 'verified', verified_by = '{by}' WHERE id = '{id}' AND status = 'entered';
             UPDATE result SET status = 'released', released_by = '{by}' WHERE id = '{id}';",
            by = self.lab.supervisor.staff
        )
    }
}

#[tokio::test]
async fn a_value_is_evaluated_whatever_its_writer_claims_and_must_fit_its_test() {
    let mut scene = Scene::new().await;
    let id = pending(&mut scene).await;
    let honest = "value_num = 9.9, unit = 'mmol/L'";
    assert_eq!(state(&scene.role, &scene.entry(id, honest)).await, None);
    for (sets, code) in [
        ("", "LAB09"),
        (", flag = 'N'", "LAB09"),
        (", ref_range_id = NULL, flag = NULL", "LAB09"),
        (", crit_high = 65, flag = 'H'", "LAB09"),
        (", no_range = 'no-range-for-age'", "LAB09"),
        (", comparator = '>'", "LAB09"),
        (", comparator = '>', flag = 'N'", "LAB09"),
        (", comparator = '<'", "LAB09"),
        (", unit = 'umol/L'", "LAB15"),
        (", unit = NULL", "LAB15"),
    ] {
        let honest = if sets.contains("unit") {
            "value_num = 9.9"
        } else {
            honest
        };
        let sql = scene.entry(id, &format!("{honest}{sets}")) + &scene.release(id);
        scene.refused(&sql, code).await;
    }
    let text = scene.entry(id, "value_text = '9.9'") + &scene.release(id);
    scene.refused(&text, "LAB15").await;
    for number in ["'NaN'", "'Infinity'", "'-Infinity'"] {
        scene
            .refused(&scene.entry(id, &honest.replace("9.9", number)), "23514")
            .await;
    }
}

#[tokio::test]
async fn the_flag_follows_from_the_value_and_its_range_whatever_the_caller_writes() {
    let mut scene = Scene::new().await;
    let [_, entered, ..] = scene.results().await;
    let change =
        |set: &str| format!("UPDATE result SET {set}, change_reason = 'typo' WHERE id = '{entered}';");
    for column in [
        "flag",
        "ref_range_id",
        "ref_low",
        "ref_high",
        "crit_low",
        "crit_high",
        "no_range",
    ] {
        let code = state(&scene.role, &change(&format!("{column} = NULL"))).await;
        assert_eq!(code.as_deref(), Some("42501"), "{column}");
    }
    for (set, flag) in [
        ("value_num = 5.1, flag = 'N'", "H"),
        ("value_num = 5.0, flag = 'H', crit_high = 4", "N"),
        (
            "value_num = 9.9, flag = NULL, ref_range_id = NULL, crit_high = NULL",
            "HH",
        ),
        ("value_num = 9.9, comparator = '<', flag = 'N'", "none"),
    ] {
        scene.owner.batch_execute("BEGIN").await.unwrap();
        scene.owner.batch_execute(&change(set)).await.unwrap();
        let row = scene
            .owner
            .query_one(
                "SELECT coalesce(flag, 'none'), crit_high::text FROM result WHERE id = $1",
                &[&entered],
            )
            .await
            .unwrap();
        assert_eq!(
            (row.get::<_, String>(0), row.get::<_, String>(1)),
            (flag.to_owned(), "6.5".to_owned()),
            "{set}"
        );
        scene.owner.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[tokio::test]
async fn a_person_who_was_changed_by_sql_holds_what_waits_back() {
    let mut scene = Scene::new().await;
    let lab = &scene.lab;
    let txn = scene.role.transaction().await.unwrap();
    let child = person(&txn, lab, Sex::Female, jiff::civil::date(2015, 1, 1)).await;
    let id = verified(&txn, lab, &child, "K", &value("9.9", "mmol/L")).await;
    let older = adult(&txn, lab).await.id;
    txn.commit().await.unwrap();
    let child = child.id;
    for change in [
        format!("UPDATE patient SET birth_date = '1960-01-01' WHERE id = '{child}';"),
        format!("UPDATE patient SET merged_into = '{older}', merge_reason = 'x' WHERE id = '{child}';"),
        "INSERT INTO ref_range (id, test_code, age_to, crit_high) VALUES (gen_random_uuid(), 'K', 'P18Y', 6);".to_owned(),
    ] {
        scene.refused(&(change + &scene.release(id)), "LAB14").await;
    }
    assert_eq!(
        state(&scene.role, &scene.release(id)).await,
        None,
        "as it is, there is no range for a child, and the result says so"
    );
}

#[tokio::test]
async fn a_range_that_overlaps_another_is_not_slipped_in_above_it() {
    let mut scene = Scene::new().await;
    for (columns, values) in [
        ("low, high", "3, 12"),
        ("age_from, high", "'P30Y', 12"),
        ("age_from, age_to, high", "'P30Y', 'P40Y', 12"),
    ] {
        let sql = format!(
            "INSERT INTO ref_range (id, test_code, {columns}) VALUES (gen_random_uuid(), 'K', {values})"
        );
        scene.refused(&sql, "LAB16").await;
    }
    let later = "INSERT INTO ref_range (id, test_code, age_to, high, valid_from) VALUES (gen_random_uuid(), 'K', 'P18Y', 6, now() + interval '1 day')";
    scene.refused(later, "LAB16").await;
    let child =
        "INSERT INTO ref_range (id, test_code, age_to, high) VALUES (gen_random_uuid(), 'K', 'P18Y', 6)";
    assert_eq!(state(&scene.role, child).await, None);
    let _ = pending(&mut scene).await;
}

#[tokio::test]
async fn an_amendment_is_evaluated_whatever_it_claims() {
    let mut scene = Scene::new().await;
    let lab = &scene.lab;
    let txn = scene.role.transaction().await.unwrap();
    let patient = adult(&txn, lab).await;
    let id = released(&txn, lab, &patient, "K", &value("4.0", "mmol/L"))
        .await
        .id;
    txn.commit().await.unwrap();
    let (first, second) = (lab.supervisor.staff, lab.second_supervisor.staff);
    let propose = |kind: &str, columns: &str, values: &str| {
        format!(
            "INSERT INTO result_amendment (id, result_id, base_rev, kind, reason, entered_by{columns})
             VALUES ('00000000-0000-7000-8000-000000000001', '{id}', 1, '{kind}', 'wrong tube', '{first}'{values});"
        )
    };
    let apply = |kind: &str| {
        format!(
            "UPDATE result_amendment SET status = 'verified', verified_by = '{second}' WHERE result_id = '{id}';
             UPDATE result SET status = '{kind}', amendment_id = '00000000-0000-7000-8000-000000000001', changed_by = '{second}'
              WHERE id = '{id}';"
        )
    };
    for (kind, columns, values, code) in [
        ("corrected", ", value_num", ", 9.9", "LAB09"),
        ("corrected", ", value_num, flag", ", 9.9, 'N'", "LAB09"),
        ("corrected", ", value_num, comparator", ", 6.0, '>'", "LAB09"),
        ("corrected", ", value_text", ", '9.9'", "LAB15"),
        ("amended", ", value_num, flag", ", 9.9, 'N'", "LAB15"),
    ] {
        let sql = propose(kind, columns, values) + &apply(kind);
        scene.refused(&sql, code).await;
    }
    let stale = propose("corrected", ", value_num", ", 9.9")
        + "UPDATE patient SET birth_date = '2015-01-01';"
        + &apply("corrected");
    scene.refused(&stale, "LAB14").await;
}

#[tokio::test]
async fn a_notice_must_follow_the_value_and_have_been_read_back() {
    let mut scene = Scene::new().await;
    let lab = &scene.lab;
    let txn = scene.role.transaction().await.unwrap();
    let patient = adult(&txn, lab).await;
    let id = verified(&txn, lab, &patient, "K", &value("9.9", "mmol/L")).await;
    txn.commit().await.unwrap();
    let notice = |at: &str, read_back: bool| {
        format!(
            "INSERT INTO critical_notice (id, result_id, rev, notified_to, notified_at, read_back, notified_by)
             VALUES (gen_random_uuid(), '{id}', 1, 'Dr. Osei', {at}, {read_back}, '{}');",
            scene.lab.technician.staff
        )
    };
    scene
        .refused(&notice("now() - interval '1 day'", true), "LAB13")
        .await;
    scene
        .refused(&notice("now() + interval '1 day'", true), "LAB13")
        .await;
    scene
        .refused(&(notice("now()", false) + &scene.release(id)), "LAB09")
        .await;
    let both = notice("now()", false) + &notice("now()", true) + &scene.release(id);
    assert_eq!(state(&scene.role, &both).await, None);
    let setting = "UPDATE lab_profile SET accept_notice_without_read_back = true;";
    let allowed = setting.to_owned() + &notice("now()", false) + &scene.release(id);
    assert_eq!(state(&scene.role, &allowed).await, None);
}

#[tokio::test]
async fn times_that_cannot_be_are_not_recorded() {
    let mut scene = Scene::new().await;
    let lab = &scene.lab;
    let txn = scene.role.transaction().await.unwrap();
    let patient = adult(&txn, lab).await;
    let order = orders::create(&txn, &lab.receptionist, &new_order(&patient, &["K"]))
        .await
        .unwrap();
    let cancelled = orders::create(&txn, &lab.receptionist, &new_order(&patient, &["K"]))
        .await
        .unwrap();
    orders::cancel(
        &txn,
        &lab.receptionist,
        cancelled.head.id,
        &crate::support::reason("by mistake"),
    )
    .await
    .unwrap();
    txn.commit().await.unwrap();
    let staff = lab.technician.staff;
    let collect = |id: lab::SpecimenId, at: &str| {
        format!(
            "UPDATE specimen SET status = 'collected', collected_at = {at}, collected_by = '{staff}' WHERE id = '{id}';"
        )
    };
    let receive = |id: lab::SpecimenId, at: &str| {
        format!(
            "UPDATE specimen SET status = 'received', received_at = {at}, received_by = '{staff}' WHERE id = '{id}';"
        )
    };
    let (open, closed) = (order.specimens[0].id, cancelled.specimens[0].id);
    for at in ["'1979-01-01Z'::timestamptz", "now() + interval '1 day'"] {
        scene.refused(&collect(open, at), "LAB13").await;
        scene.refused(&receive(open, at), "LAB13").await;
    }
    assert_eq!(
        state(&scene.role, &(collect(open, "now()") + &receive(open, "now()"))).await,
        None
    );
    scene.refused(&collect(closed, "now()"), "LAB02").await;
    scene.refused(&receive(closed, "now()"), "LAB02").await;
    let born = |day: &str| {
        format!(
            "UPDATE patient SET birth_date = {day} WHERE id = '{}';",
            patient.id
        )
    };
    scene.refused(&born("current_date + 2"), "LAB13").await;
    let born_later = collect(open, "now() - interval '1 hour'") + &born("current_date - 1");
    assert_eq!(state(&scene.role, &born_later).await, None);
    let after = collect(open, "now() - interval '10 days'") + &born("current_date - 3");
    scene.refused(&after, "LAB13").await;
    let insert =
        "INSERT INTO patient (id, mrn, family_name, given_name, family_key, given_key, sex, birth_date)
                  VALUES (gen_random_uuid(), 'X', 'x', 'x', 'x', 'x', 'F', current_date + 2)";
    scene.refused(insert, "LAB13").await;
}

#[tokio::test]
async fn a_collection_is_not_changed_without_a_reason_and_what_it_decided_is_evaluated_again() {
    let mut scene = Scene::new().await;
    let lab = &scene.lab;
    let txn = scene.role.transaction().await.unwrap();
    let patient = person(&txn, lab, Sex::Female, jiff::civil::date(2015, 1, 1)).await;
    let order = orders::create(&txn, &lab.receptionist, &new_order(&patient, &["K"]))
        .await
        .unwrap();
    let specimen = &order.specimens[0];
    specimens::collect(&txn, &lab.receptionist, &specimen.barcode, &When::default())
        .await
        .unwrap();
    specimens::receive(&txn, &lab.technician, &specimen.barcode, &When::default())
        .await
        .unwrap();
    let id = order.results[0].id;
    results::enter(&txn, &lab.technician, id, 1, &value("9.9", "mmol/L"))
        .await
        .unwrap();
    signoff::verify(&txn, &lab.supervisor, &items(&txn, &[id]).await)
        .await
        .unwrap();
    txn.commit().await.unwrap();
    let set = |what: &str| format!("UPDATE specimen SET {what} WHERE id = '{}';", specimen.id);
    scene
        .refused(&set("collected_at = collected_at - interval '1 hour'"), "LAB04")
        .await;
    let staff = scene.lab.technician.staff;
    let reasoned = set(&format!(
        "collected_at = collected_at - interval '1 hour', change_reason = 'typo', changed_by = '{staff}'"
    ));
    assert_eq!(state(&scene.role, &reasoned).await, None);
    let range =
        "INSERT INTO ref_range (id, test_code, age_to, crit_high) VALUES (gen_random_uuid(), 'K', 'P5Y', 6);";
    let moved = set(&format!(
        "collected_at = '2016-01-01Z', change_reason = 'typo', changed_by = '{staff}'"
    ));
    scene
        .refused(&(range.to_owned() + &moved + &scene.release(id)), "LAB14")
        .await;
    let rewritten = set("change_reason = 'typo', barcode = 'X'");
    scene.refused(&rewritten, "LAB05").await;
}

#[tokio::test]
async fn critical_words_are_found_in_any_case_whatever_the_locale() {
    let lab = Lab::new().await;
    let owner = lab.owner().await;
    let definition = "SELECT pg_get_functiondef('plain_words(text)'::regprocedure)";
    let definition: String = owner.query_one(definition, &[]).await.unwrap().get(0);
    let name = format!("{}_locale", lab.target().database);
    for locale in ["LOCALE 'C'", "LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR' LOCALE 'C'"] {
        owner
            .batch_execute(&format!(
                "CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' {locale}"
            ))
            .await
            .unwrap();
        let there = pg::connect(&lab.target().with_database(&name), "lab test", LIMIT)
            .await
            .unwrap();
        there.batch_execute(&definition).await.unwrap();
        for (word, written) in [
            ("Ärger", "ärger"),
            ("лейкоз", "ЛЕЙКОЗ"),
            ("gram negative", "GRAM NEGATIVE"),
            ("pozitif", "POZİTİF"),
            ("ΘΕΤΙΚΟΣ", "θετικος"),
            ("θετικός αβγ", "ΘΕΤΙΚΌΣ ΑΒΓ"),
            ("Straße", "STRASSE"),
        ] {
            let same: bool = there
                .query_one("SELECT plain_words($1) = plain_words($2)", &[&word, &written])
                .await
                .unwrap()
                .get(0);
            assert!(same, "{word} and {written} with {locale}");
        }
        drop(there);
        owner
            .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
            .await
            .unwrap();
    }
}
