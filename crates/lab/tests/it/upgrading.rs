//! What an earlier version of the schema holds is carried over.

use std::time::Duration;

use testkit::Space;
use tokio_postgres::Client;

use crate::support::numbered_migrations;

const LIMIT: Duration = Duration::from_secs(30);

/// A laboratory with two people, and a function that writes a result as earlier versions did.
const BEFORE: &str = "
    INSERT INTO lab_profile (tenant_id, name, tz) VALUES (gen_random_uuid(), 'x', 'Europe/Berlin');
    INSERT INTO staff (id, display_name, email, role) VALUES
      ('00000000-0000-0000-0000-00000000000a', 'a', 'a@example.org', 'technician'),
      ('00000000-0000-0000-0000-00000000000b', 'b', 'b@example.org', 'supervisor');
    CREATE FUNCTION pg_temp.result(name text, sex text, birth date, test text, number numeric, of_unit text, judged text, upto text) RETURNS void
    LANGUAGE plpgsql AS $$
    DECLARE
      p uuid := gen_random_uuid(); o uuid := gen_random_uuid(); s uuid := gen_random_uuid(); r uuid := gen_random_uuid();
      a uuid := '00000000-0000-0000-0000-00000000000a'; b uuid := '00000000-0000-0000-0000-00000000000b';
    BEGIN
      INSERT INTO patient (id, mrn, family_name, given_name, family_key, given_key, sex, birth_date)
      VALUES (p, name, name, name, name, name, sex, birth);
      INSERT INTO lab_order (id, accession_no, patient_id, created_by) VALUES (o, name, p, a);
      INSERT INTO specimen (id, order_id, seq, barcode, specimen_type) VALUES (s, o, 1, name, 'serum');
      UPDATE specimen SET status = 'received', received_at = now(), received_by = a WHERE id = s;
      INSERT INTO result (id, order_id, patient_id, specimen_id, test_code, changed_by) VALUES (r, o, p, s, test, a);
      UPDATE result SET status = 'entered', value_num = number, unit = of_unit, entered_by = a, flag = judged,
        (ref_range_id, ref_low, ref_high, crit_low, crit_high) =
          (SELECT g.id, g.low, g.high, g.crit_low, g.crit_high FROM ref_range g WHERE g.test_code = test AND judged IS NOT NULL)
       WHERE id = r;
      IF upto <> 'entered' THEN
        UPDATE result SET status = 'verified', verified_by = b WHERE id = r;
      END IF;
      IF upto IN ('released', 'proposed') THEN
        UPDATE result SET status = 'released', released_by = b WHERE id = r;
      END IF;
      IF upto = 'proposed' THEN
        INSERT INTO result_amendment (id, result_id, base_rev, kind, value_num, reason, entered_by)
        VALUES (gen_random_uuid(), r, 1, 'corrected', 2, 'typo', a);
      END IF;
    END $$;";

/// Somebody of unknown sex with a haemoglobin of 3, and a child with a potassium of 9.9, as earlier versions
/// wrote them; and an adult whose evaluation is right.
const PEOPLE: &str = "
    SELECT pg_temp.result('unknown-released', 'U', '1980-01-01', 'HGB', 3, 'g/dL', NULL, 'released');
    SELECT pg_temp.result('unknown-verified', 'U', '1980-01-01', 'HGB', 3, 'g/dL', NULL, 'verified');
    SELECT pg_temp.result('unknown-proposed', 'U', '1980-01-01', 'HGB', 13, 'g/dL', NULL, 'proposed');
    SELECT pg_temp.result('child-entered', 'F', '2015-01-01', 'K', 9.9, 'mmol/L', NULL, 'entered');
    SELECT pg_temp.result('adult-entered', 'F', '1980-01-01', 'K', 4.0, 'mmol/L', 'N', 'entered');
    SELECT pg_temp.result('adult-released', 'F', '1980-01-01', 'K', 4.0, 'mmol/L', 'N', 'released');";

/// A laboratory with these rows of before the migration that says `since`, brought to the latest version.
async fn upgraded(space: &Space, since: &str, rows: &str) -> Client {
    let client = pg::connect(&space.registry, "lab test", LIMIT).await.unwrap();
    let migrations = numbered_migrations();
    let at = migrations
        .iter()
        .position(|(_, sql)| sql.contains(since))
        .unwrap();
    let (before, after) = migrations.split_at(at);
    let before = before.iter().map(|(_, sql)| sql.as_str());
    let after = after.iter().map(|(_, sql)| sql.as_str());
    for sql in before.chain([BEFORE, rows]).chain(after) {
        client.batch_execute(sql).await.unwrap();
    }
    client
}

#[tokio::test]
async fn open_work_is_evaluated_and_what_was_released_unflagged_is_marked() {
    let space = Space::new().await;
    let client = upgraded(&space, "CREATE FUNCTION evaluation(", PEOPLE).await;
    let rows = client
        .query(
            "SELECT p.mrn, coalesce(r.flag, '-'), coalesce(r.crit_low::text, '-'), coalesce(r.no_range, '-'), r.rev, r.outdated_since IS NOT NULL,
                    coalesce((SELECT a.flag FROM result_amendment a WHERE a.result_id = r.id), '-')
             FROM result r JOIN patient p ON p.id = r.patient_id ORDER BY p.mrn",
            &[],
        )
        .await
        .unwrap();
    let expected = [
        ("adult-entered", "N", "2.5", "-", 1, false, "-"),
        ("adult-released", "N", "2.5", "-", 1, false, "-"),
        ("child-entered", "-", "-", "no-range-for-age", 2, false, "-"),
        ("unknown-proposed", "-", "-", "-", 1, false, "LL"),
        ("unknown-released", "-", "-", "-", 1, true, "-"),
        ("unknown-verified", "LL", "7", "no-range-for-sex", 2, false, "-"),
    ];
    let text = |row: &tokio_postgres::Row, n: usize| row.get::<_, String>(n);
    let found: Vec<_> = rows
        .iter()
        .map(|row| {
            let words = [0, 1, 2, 3, 6].map(|n| text(row, n));
            (words, row.get::<_, i32>(4), row.get::<_, bool>(5))
        })
        .collect();
    let expected =
        expected.map(|(a, b, c, d, rev, marked, e)| ([a, b, c, d, e].map(str::to_owned), rev, marked));
    assert_eq!(found, expected);
}

/// A waiting value whose former one was notified of, within the minute or after it; a released one whose
/// notice was not read back; one whose mark was lifted; and one that was released unmarked by an earlier
/// version.
const MARKS: &str = "
    SELECT pg_temp.result('replaced-same-minute', 'F', '1980-01-01', 'K', 6.9, 'mmol/L', NULL, 'entered');
    UPDATE result SET value_num = 9.9, change_reason = 'misread' WHERE status = 'entered';
    UPDATE lab_profile SET accept_notice_without_read_back = true;
    INSERT INTO critical_notice (id, result_id, rev, notified_to, notified_at, read_back, notified_by)
    SELECT gen_random_uuid(), id, 2, 'x', date_trunc('minute', entered_at), true, entered_by FROM result;
    SELECT pg_temp.result('only-value', 'F', '1980-01-01', 'K', 9.9, 'mmol/L', NULL, 'entered');
    INSERT INTO critical_notice (id, result_id, rev, notified_to, notified_at, read_back, notified_by)
    SELECT gen_random_uuid(), r.id, 1, 'x', date_trunc('minute', r.entered_at), true, r.entered_by
      FROM result r JOIN patient p ON p.id = r.patient_id WHERE p.mrn = 'only-value';
    SELECT pg_temp.result('released-unread', 'F', '1980-01-01', 'K', 9.9, 'mmol/L', NULL, 'verified');
    INSERT INTO critical_notice (id, result_id, rev, notified_to, notified_at, read_back, notified_by)
    SELECT gen_random_uuid(), r.id, 1, 'x', now(), false, r.entered_by FROM result r WHERE r.status = 'verified';
    UPDATE result SET status = 'released', released_by = verified_by WHERE status = 'verified';
    UPDATE lab_profile SET accept_notice_without_read_back = false;
    SELECT pg_temp.result('lifted', 'F', '1980-01-01', 'NA', 199, 'mmol/L', NULL, 'verified');
    UPDATE ref_range SET valid_to = now() WHERE test_code = 'NA';
    UPDATE result SET change_reason = 'the ranges changed' WHERE status = 'verified';
    SELECT pg_temp.result('unmarked', 'F', '1980-01-01', 'K', 4, 'mmol/L', NULL, 'released');
    SET CONSTRAINTS ALL IMMEDIATE;
    ALTER TABLE result DISABLE TRIGGER USER;
    UPDATE result SET value_num = 9.9, flag = 'H', crit_high = NULL
     WHERE patient_id = (SELECT id FROM patient WHERE mrn = 'unmarked');
    ALTER TABLE result ENABLE TRIGGER USER;";

#[tokio::test]
async fn notices_count_where_they_are_certain_and_lifted_and_missing_marks_are_found() {
    let space = Space::new().await;
    let client = upgraded(&space, "CREATE TABLE critical_lift", MARKS).await;
    let rows = client
        .query(
            "SELECT p.mrn, r.status, coalesce(r.flag, '-'), coalesce(l.flag, '-'), r.notice_id IS NOT NULL,
                    counted_notice(r.id, NULL, r.rev, r.rev) IS NOT NULL, r.outdated_since IS NOT NULL
             FROM result r JOIN patient p ON p.id = r.patient_id LEFT JOIN critical_lift l ON l.id = r.lift_id ORDER BY p.mrn",
            &[],
        )
        .await
        .unwrap();
    let found: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                [0, 1, 2, 3].map(|n| row.get::<_, String>(n)),
                [4, 5, 6].map(|n| row.get::<_, bool>(n)),
            )
        })
        .collect();
    let expected = [
        (["lifted", "entered", "-", "HH"], [false, false, false]),
        (["only-value", "entered", "HH", "-"], [false, true, false]),
        (["released-unread", "released", "HH", "-"], [true, false, false]),
        (
            ["replaced-same-minute", "entered", "HH", "-"],
            [false, false, false],
        ),
        (["unmarked", "released", "H", "-"], [false, false, true]),
    ];
    assert_eq!(
        found,
        expected.map(|(words, marks)| (words.map(str::to_owned), marks))
    );
}

/// Released as not critical, and critical by what the database knows now, each for another cause; and two
/// that are not.
const RELEASED_BARE: &str = "
    SELECT pg_temp.result('unknown-below', 'U', '1980-01-01', 'HGB', 10, 'g/dL', NULL, 'entered');
    UPDATE result SET comparator = '<', change_reason = 'measured again' WHERE status = 'entered';
    UPDATE result SET status = 'verified', verified_by = '00000000-0000-0000-0000-00000000000b' WHERE status = 'entered';
    UPDATE result SET status = 'released', released_by = '00000000-0000-0000-0000-00000000000b' WHERE status = 'verified';
    SELECT pg_temp.result('born-earlier', 'F', '2015-01-01', 'K', 9.9, 'mmol/L', NULL, 'released');
    UPDATE patient SET birth_date = '1960-01-01' WHERE mrn = 'born-earlier';
    SELECT pg_temp.result('child', 'F', '2015-01-01', 'K', 9.9, 'mmol/L', NULL, 'released');
    SELECT pg_temp.result('usual', 'F', '1980-01-01', 'K', 4.0, 'mmol/L', 'N', 'released');
    INSERT INTO ref_range (id, test_code, sex, age_from, low, high) VALUES (gen_random_uuid(), 'K', 'F', 'P18Y', 3.4, 4.9);
    SELECT pg_temp.result('hidden-limit', 'F', '1980-01-01', 'K', 9.9, 'mmol/L', NULL, 'released');";

#[tokio::test]
async fn what_was_released_as_not_critical_and_is_critical_is_marked() {
    let space = Space::new().await;
    let client = upgraded(&space, "CREATE FUNCTION evaluation(", RELEASED_BARE).await;
    let sql = "SELECT p.mrn FROM result r JOIN patient p ON p.id = r.patient_id
                WHERE r.outdated_since IS NOT NULL ORDER BY p.mrn";
    let rows = client.query(sql, &[]).await.unwrap();
    let marked: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(marked, ["born-earlier", "hidden-limit", "unknown-below"]);
}

#[tokio::test]
async fn a_gap_of_days_and_an_abbreviated_time_zone_are_put_right() {
    let space = Space::new().await;
    let before = "
        INSERT INTO ref_range (id, test_code, age_to, crit_high) VALUES (gen_random_uuid(), 'K', 'P1M', 6.5);
        INSERT INTO ref_range (id, test_code, age_from, age_to, crit_high) VALUES (gen_random_uuid(), 'K', 'P31D', 'P18Y', 6.4);
        UPDATE lab_profile SET tz = 'CET';";
    let client = upgraded(&space, "CREATE FUNCTION evaluation(", before).await;
    let sql = "SELECT string_agg(concat_ws('-', age_from, age_to, crit_high), ' ' ORDER BY crit_high), (SELECT tz FROM lab_profile)
                 FROM ref_range WHERE test_code = 'K' AND valid_to IS NULL AND age_to IS NOT NULL";
    let row = client.query_one(sql, &[]).await.unwrap();
    let found: (String, String) = (row.get(0), row.get(1));
    assert_eq!(
        found,
        (
            "P1M-P18Y-6.4 P0D-P1M-6.5".to_owned(),
            "Europe/Brussels".to_owned()
        )
    );
}
