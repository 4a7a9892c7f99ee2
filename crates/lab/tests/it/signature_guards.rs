//! What the database itself demands of signatures, notices and amendments; tried as in [`crate::guards`].

use lab::{ResultId, results, signoff};

use crate::{
    guards::{Scene, state},
    support::{items, value},
};

#[tokio::test]
async fn verifying_and_releasing_change_no_value_range_flag_or_signature() {
    let mut scene = Scene::new().await;
    let [_, entered, verified, released] = scene.results().await;
    let (technician, supervisor) = (scene.lab.technician.staff, scene.lab.supervisor.staff);
    let verify = |more: &str| {
        format!(
            "UPDATE result SET status = 'verified', verified_by = '{supervisor}'{more} WHERE id = '{entered}'"
        )
    };
    let release = |more: &str| {
        format!(
            "UPDATE result SET status = 'released', released_by = '{supervisor}'{more} WHERE id = '{verified}'"
        )
    };
    assert_eq!(state(&scene.role, &verify("")).await, None);
    assert_eq!(state(&scene.role, &release("")).await, None);
    for change in [
        ", value_num = 4.1",
        ", value_num = 4.00", // equal as a number, not the same statement
        ", comparator = '<'",
        ", value_num = NULL, value_text = 'x'",
        ", unit = 'mg/dL'",
        ", comment = 'x'",
        ", ref_low = 3.6",
        ", ref_range_id = NULL, flag = NULL",
        ", ref_high = 3, flag = 'H'",
        &format!(", entered_by = '{}'", scene.lab.admin.staff),
    ] {
        scene.refused(&verify(change), "LAB03").await;
        scene.refused(&release(change), "LAB03").await;
    }
    // The delta is measured again until the release, and never after it.
    assert_eq!(state(&scene.role, &verify(", delta_flag = true")).await, None);
    assert_eq!(state(&scene.role, &release(", delta_flag = true")).await, None);
    scene
        .refused(
            &format!("UPDATE result SET delta_flag = true WHERE id = '{released}'"),
            "LAB03",
        )
        .await;
    scene
        .refused(
            &release(&format!(", verified_by = '{technician}', self_verified = true")),
            "LAB03",
        )
        .await;
    scene
        .refused(
            &format!("UPDATE result SET status = 'verified' WHERE id = '{entered}'"),
            "LAB11",
        )
        .await;
    scene
        .refused(
            &format!("UPDATE result SET status = 'released' WHERE id = '{verified}'"),
            "LAB11",
        )
        .await;
    scene
        .refused(
            &format!("UPDATE result SET comment = 'x' WHERE id = '{entered}'"),
            "LAB04",
        )
        .await;
}

#[tokio::test]
async fn an_amendment_needs_an_entry_and_a_verification_of_its_own() {
    let mut scene = Scene::new().await;
    let [.., released] = scene.results().await;
    let (first, second) = (scene.lab.supervisor.staff, scene.lab.second_supervisor.staff);
    // The old draft's hole: a new value under the old reason and verifier, even with a fresh verified_at.
    for set in [
        "status = 'corrected', value_num = 4.4".to_owned(),
        "status = 'corrected', value_num = 4.4, change_reason = 'typo'".to_owned(),
        format!("status = 'amended', comment = 'x', change_reason = 'typo', verified_by = '{second}'"),
    ] {
        scene
            .refused(
                &format!("UPDATE result SET {set} WHERE id = '{released}'"),
                "LAB06",
            )
            .await;
    }
    let sql = format!(
        "UPDATE result SET status = 'corrected', value_num = 4.4, change_reason = 'typo', verified_at = now(), entered_at = now()
         WHERE id = '{released}'"
    );
    scene.refused(&sql, "LAB06").await;

    let propose = |columns: &str, values: &str| {
        format!(
            "INSERT INTO result_amendment (id, result_id, base_rev, kind, value_num, flag, reason, entered_by{columns})
             VALUES ('00000000-0000-7000-8000-000000000001', '{released}', 1, 'corrected', 4.4, 'N', 'wrong tube', '{first}'{values});"
        )
    };
    let verified = |by| {
        format!(
            "UPDATE result_amendment SET status = 'verified', verified_by = '{by}' WHERE result_id = '{released}';"
        )
    };
    let apply = |kind: &str| {
        format!(
            "UPDATE result SET status = '{kind}', amendment_id = '00000000-0000-7000-8000-000000000001', changed_by = '{second}'
             WHERE id = '{released}';"
        )
    };
    let good = propose("", "") + &verified(second) + &apply("corrected");
    assert_eq!(state(&scene.role, &good).await, None);
    scene
        .refused(
            &propose(
                ", status, verified_by, verified_at",
                &format!(", 'verified', '{second}', now()"),
            ),
            "LAB07",
        )
        .await;
    scene
        .refused(&(propose("", "") + &apply("corrected")), "LAB06")
        .await;
    scene
        .refused(&(propose("", "") + &verified(first)), "LAB08")
        .await;
    scene
        .refused(
            &(propose("", "") + &verified(second) + &apply("amended")),
            "LAB06",
        )
        .await;
    scene
        .refused(&(good.clone() + &apply("corrected")), "LAB06")
        .await;
    let edit = "UPDATE result_amendment SET value_num = 9 WHERE status = 'proposed';";
    scene.refused(&(propose("", "") + edit), "LAB02").await;
    scene
        .refused(
            &(propose("", "") + &verified(second) + "UPDATE result_amendment SET status = 'withdrawn'"),
            "LAB02",
        )
        .await;
    let swap = format!(
        "UPDATE result_amendment SET status = 'verified', verified_by = '{second}', value_num = 9 WHERE result_id = '{released}'"
    );
    scene.refused(&(propose("", "") + &swap), "LAB03").await;
}

#[tokio::test]
async fn an_applied_amendment_is_what_was_verified_whatever_the_caller_writes() {
    let mut scene = Scene::new().await;
    let [.., released] = scene.results().await;
    let (first, second) = (scene.lab.supervisor.staff, scene.lab.second_supervisor.staff);
    scene
        .role
        .batch_execute(&format!(
            "INSERT INTO result_amendment (id, result_id, base_rev, kind, value_num, flag, reason, entered_by)
             VALUES ('00000000-0000-7000-8000-000000000001', '{released}', 1, 'corrected', 4.40, 'N', 'wrong tube', '{first}');
             UPDATE result_amendment SET status = 'verified', verified_by = '{second}' WHERE result_id = '{released}';
             UPDATE result SET status = 'corrected', amendment_id = '00000000-0000-7000-8000-000000000001', value_num = 9.9,
               delta_flag = true, verified_by = '{first}', unit = 'x' WHERE id = '{released}';"
        ))
        .await
        .unwrap();
    let row = scene
        .role
        .query_one(
            "SELECT value_num::text, flag, ref_low::text, verified_by::text, unit, rev,
                    (SELECT value_num::text || ' ' || reason FROM result_revision v WHERE v.result_id = r.id), delta_flag FROM result r WHERE id = $1",
            &[&released],
        )
        .await
        .unwrap();
    let text = |n: usize| row.get::<_, String>(n);
    assert_eq!(
        [text(0), text(1), text(2), text(3), text(4)],
        ["4.40", "N", "3.5", &second.to_string(), "mmol/L"]
    );
    assert_eq!((row.get::<_, i32>(5), text(6)), (2, "4.0 wrong tube".to_owned()));
    assert!(!row.get::<_, bool>(7));
}

#[tokio::test]
async fn the_same_person_does_not_enter_and_verify_unless_the_laboratory_allows_it() {
    let mut scene = Scene::new().await;
    let [_, entered, ..] = scene.results().await;
    let technician = scene.lab.technician.staff;
    let verify =
        format!("UPDATE result SET status = 'verified', verified_by = '{technician}' WHERE id = '{entered}'");
    scene.refused(&verify, "LAB08").await;
    let marked = format!(
        "UPDATE result SET status = 'verified', verified_by = '{technician}', self_verified = true WHERE id = '{entered}'"
    );
    scene.refused(&marked, "LAB08").await;
    // A temporary table must not stand in for the profile.
    let shadow = "CREATE TEMP TABLE lab_profile AS SELECT true AS allow_self_verify;";
    let code = state(&scene.role, &format!("{shadow} {verify}")).await;
    assert!(matches!(code.as_deref(), Some("LAB08" | "42501")), "{code:?}");
    assert_eq!(
        state(&scene.owner, &format!("{shadow} {verify}"))
            .await
            .as_deref(),
        Some("LAB08")
    );
    scene
        .role
        .batch_execute("UPDATE lab_profile SET allow_self_verify = true")
        .await
        .unwrap();
    scene.role.batch_execute(&verify).await.unwrap();
    let row = scene
        .role
        .query_one("SELECT self_verified FROM result WHERE id = $1", &[&entered])
        .await
        .unwrap();
    assert!(row.get::<_, bool>(0), "and then it is marked");
}

#[tokio::test]
async fn a_critical_value_is_not_released_before_its_own_notice() {
    let mut scene = Scene::new().await;
    let [pending, normal, ..] = scene.results().await;
    let (technician, supervisor) = (scene.lab.technician.staff, scene.lab.supervisor.staff);
    let txn = scene.role.transaction().await.unwrap();
    results::enter(&txn, &scene.lab.technician, pending, 1, &value("7.1", "mmol/L"))
        .await
        .unwrap();
    signoff::verify(&txn, &scene.lab.supervisor, &items(&txn, &[pending]).await)
        .await
        .unwrap();
    txn.commit().await.unwrap();
    let release = format!(
        "UPDATE result SET status = 'released', released_by = '{supervisor}' WHERE id = '{pending}';"
    );
    let notice = |id: ResultId, rev: i32| {
        format!(
            "INSERT INTO critical_notice (id, result_id, rev, notified_to, notified_at, read_back, notified_by)
             VALUES (gen_random_uuid(), '{id}', {rev}, 'Dr. Osei', now(), true, '{technician}');"
        )
    };
    scene.refused(&release, "LAB09").await;
    scene.refused(&notice(pending, 2), "LAB02").await;
    scene.refused(&notice(normal, 1), "LAB02").await;
    assert_eq!(state(&scene.role, &(notice(pending, 1) + &release)).await, None);
}

#[tokio::test]
async fn a_notice_of_one_amendment_serves_no_other() {
    let mut scene = Scene::new().await;
    let [.., released] = scene.results().await;
    let (first, second) = (scene.lab.supervisor.staff, scene.lab.second_supervisor.staff);
    let id = |n: u8| format!("'00000000-0000-7000-8000-00000000000{n}'");
    let propose = |n: u8, number: &str, flag: &str| {
        format!(
            "INSERT INTO result_amendment (id, result_id, base_rev, kind, value_num, flag, reason, entered_by)
             VALUES ({}, '{released}', 1, 'corrected', {number}, '{flag}', 'wrong tube', '{first}');",
            id(n)
        )
    };
    let notice = |amendment: &str| {
        format!(
            "INSERT INTO critical_notice (id, result_id, rev, amendment_id, amendment_version, notified_to, notified_at, read_back, notified_by)
             VALUES (gen_random_uuid(), '{released}', 2, {amendment}, 1, 'Dr. Osei', now(), true, '{first}');"
        )
    };
    let withdraw = "UPDATE result_amendment SET status = 'withdrawn' WHERE status = 'proposed';";
    let apply = format!(
        "UPDATE result_amendment SET status = 'verified', verified_by = '{second}' WHERE id = {two};
         UPDATE result SET status = 'corrected', amendment_id = {two}, changed_by = '{second}' WHERE id = '{released}';",
        two = id(2)
    );
    let unheard = propose(1, "7.5", "HH") + &notice(&id(1)) + withdraw + &propose(2, "1.5", "LL");
    scene.refused(&(unheard.clone() + &apply), "LAB09").await;
    assert_eq!(
        state(&scene.role, &(unheard.clone() + &notice(&id(2)) + &apply)).await,
        None
    );
    scene
        .refused(&(propose(1, "7.5", "HH") + &notice("NULL")), "LAB02")
        .await;
    scene.refused(&(unheard + &notice(&id(1))), "LAB02").await;
}

#[tokio::test]
async fn a_repeat_keeps_nothing_and_gives_its_reason_anew() {
    let mut scene = Scene::new().await;
    let [_, entered, ..] = scene.results().await;
    let cleared = "value_num = NULL, unit = NULL, entered_by = NULL, entered_at = NULL";
    let back =
        |more: &str| format!("UPDATE result SET status = 'pending', {cleared}{more} WHERE id = '{entered}';");
    assert_eq!(state(&scene.role, &back(", change_reason = 'clot'")).await, None);
    scene.refused(&back(""), "LAB04").await;
    scene
        .refused(&back(", comparator = '<', change_reason = 'clot'"), "LAB03")
        .await;
    let replace = |value: &str, more: &str| {
        format!("UPDATE result SET value_num = {value}{more} WHERE id = '{entered}';")
    };
    let twice = replace("4.2", ", change_reason = 'typo'") + &replace("4.3", "");
    scene.refused(&twice, "LAB04").await;
}
