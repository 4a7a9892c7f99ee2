//! The form of texts that are compared, as the database itself keeps it, and what becomes of rows from
//! before.

use testkit::Space;

use crate::{
    guards::Scene,
    support::{LIMIT, numbered_migrations},
};

#[tokio::test]
async fn the_database_refuses_every_other_form() {
    let scene = Scene::new().await;
    let patient = |number: &str, family: &str| {
        format!(
            "INSERT INTO patient (id, mrn, national_id, family_name, given_name, family_key, given_key, sex, birth_date)
             VALUES (gen_random_uuid(), 'M1', '{number}', '{family}', 'x', 'x', 'x', 'F', '1980-01-01')"
        )
    };
    for form in [
        "Z1 ",
        " Z1",
        "Z  1",
        "Z1\u{a0}",
        "\u{200b}Z1",
        "Z\u{200b}1",
        "\u{202e}Z1",
        "E\u{301}1",
        "Z\u{1}1",
    ] {
        scene.refused(&patient(form, "x"), "LAB12").await;
        scene.refused(&patient("Z1", form), "LAB12").await;
    }
    let owner = scene.lab.owner().await;
    for form in ["Z1", "É 1", "می\u{200c}نا", "O''Neil", "李 小龙"] {
        let refused = crate::guards::state(&owner, &patient(form, form)).await;
        assert_eq!(refused, None, "{form}");
    }
    for table in [
        "UPDATE staff SET display_name = 'Ada ' WHERE role = 'lab_admin'",
        "UPDATE test_def SET section = ' s' WHERE code = 'K'",
        "UPDATE lab_profile SET name = E'a\\u200bb'",
    ] {
        scene.refused(table, "LAB12").await;
    }
    // A number of a merged record stays its person's, whoever writes.
    let rows = patient("Z1", "One").replace("'M1'", "'M8'")
        + ";"
        + &patient("Z2", "Two").replace("'M1'", "'M9'")
        + "; UPDATE patient SET merged_into = (SELECT id FROM patient WHERE mrn = 'M9'), merge_reason = 'r' WHERE mrn = 'M8';";
    scene
        .refused(&format!("{rows}{}", patient("Z1", "x")), "23505")
        .await;
    let own = format!("{rows} UPDATE patient SET national_id = 'Z1' WHERE mrn = 'M9'");
    assert_eq!(crate::guards::state(&owner, &own).await, None);
}

#[tokio::test]
async fn rows_from_before_are_brought_into_form_and_two_records_of_one_number_are_named() {
    let space = Space::new().await;
    let client = pg::connect(&space.registry, "lab test", LIMIT).await.unwrap();
    let (before, form): (Vec<_>, Vec<_>) = numbered_migrations()
        .into_iter()
        .partition(|(_, sql)| !sql.contains("CREATE FUNCTION refuse_other_forms"));
    let at = form[0].0;
    for (number, sql) in before.iter().filter(|(number, _)| *number < at) {
        client
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("V{number}: {}", pg::describe(&error)));
    }
    client
        .batch_execute(
            "INSERT INTO lab_profile (tenant_id, name) VALUES (gen_random_uuid(), E' St.\\u00a0Mary ');
             INSERT INTO staff (id, display_name, email, role) VALUES ('00000000-0000-7000-8000-00000000000a', ' Ada ', 'a@b', 'lab_admin');
             INSERT INTO test_def (code, name, section, specimen_type, value_type, unit) VALUES ('PB', 'Lead', 's', 't ', 'quantity', 'ug/dL ');
             INSERT INTO patient (id, mrn, national_id, family_name, given_name, family_key, given_key, sex, birth_date) VALUES
               ('00000000-0000-7000-8000-000000000001', 'M1', 'Z1 ', E'Jose\\u0301 ', 'x', 'jose', 'x', 'F', '1980-01-01'),
               ('00000000-0000-7000-8000-000000000002', 'M2', 'Z1', 'x', 'x', 'x', 'x', 'F', '1980-01-01'),
               ('00000000-0000-7000-8000-000000000003', 'M3', E'\\u00a0Z1', 'x', 'x', 'x', 'x', 'F', '1980-01-01'),
               ('00000000-0000-7000-8000-000000000004', 'M4', ' Z4', 'x', 'x', 'x', 'x', 'F', '1980-01-01');
             INSERT INTO lab_order (id, accession_no, patient_id, requester, placer_order_no, created_by) VALUES
               (gen_random_uuid(), 'A1', '00000000-0000-7000-8000-000000000001', 'Dr', 'P1', '00000000-0000-7000-8000-00000000000a'),
               (gen_random_uuid(), 'A2', '00000000-0000-7000-8000-000000000001', 'Dr ', 'P1', '00000000-0000-7000-8000-00000000000a'),
               (gen_random_uuid(), 'A3', '00000000-0000-7000-8000-000000000001', 'Dr ', 'P3', '00000000-0000-7000-8000-00000000000a');",
        )
        .await
        .unwrap();
    client
        .batch_execute(&format!("BEGIN; {} COMMIT;", form[0].1))
        .await
        .unwrap();

    let column = async |sql: &str| -> Vec<String> {
        let rows = client.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(column("SELECT name FROM lab_profile").await, ["St. Mary"]);
    assert_eq!(column("SELECT display_name FROM staff").await, ["Ada"]);
    assert_eq!(
        column("SELECT specimen_type || '|' || unit FROM test_def WHERE code = 'PB'").await,
        ["t|ug/dL"]
    );
    assert_eq!(
        column("SELECT family_name FROM patient WHERE mrn = 'M1'").await,
        ["José"]
    );
    // Whose number was in form keeps it; the others are for a person to merge.
    assert_eq!(
        column("SELECT national_id FROM patient ORDER BY mrn").await,
        ["Z1 ", "Z1", "\u{a0}Z1", "Z4"]
    );
    let named = "SELECT entity_id || ' ' || (detail ->> 'sameNationalIdAs') FROM audit_event WHERE action = 'patient.possible_duplicate' ORDER BY 1";
    let second = "00000000-0000-7000-8000-000000000002";
    assert_eq!(
        column(named).await,
        [
            format!("00000000-0000-7000-8000-000000000001 {second}"),
            format!("00000000-0000-7000-8000-000000000003 {second}")
        ]
    );
    assert_eq!(
        column("SELECT requester FROM lab_order ORDER BY accession_no").await,
        ["Dr", "Dr ", "Dr"]
    );
    // What stayed as it was does not stand in the way of other changes.
    client
        .batch_execute("UPDATE patient SET sex = 'M' WHERE mrn = 'M1'; UPDATE lab_order SET priority = 'stat' WHERE accession_no = 'A2'")
        .await
        .unwrap();
}

#[tokio::test]
async fn merges_and_imports_from_before_are_carried_over() {
    let space = Space::new().await;
    let client = pg::connect(&space.registry, "lab test", LIMIT).await.unwrap();
    let migrations = numbered_migrations();
    let at = migrations
        .iter()
        .position(|(_, sql)| sql.contains("CREATE TABLE import_run"))
        .unwrap();
    for (number, sql) in &migrations[..at] {
        let applied = client.batch_execute(sql).await;
        applied.unwrap_or_else(|error| panic!("V{number}: {}", pg::describe(&error)));
    }
    client
        .batch_execute(
            "INSERT INTO lab_profile (tenant_id, name) VALUES (gen_random_uuid(), 'Lab');
             INSERT INTO staff (id, display_name, email, role) VALUES ('00000000-0000-7000-8000-00000000000a', 'Ada', 'a@b', 'lab_admin');
             INSERT INTO patient (id, mrn, family_name, given_name, family_key, given_key, sex, birth_date) VALUES
               ('00000000-0000-7000-8000-000000000001', 'M1', 'x', 'x', 'x', 'x', 'F', '1980-01-01'),
               ('00000000-0000-7000-8000-000000000002', 'M2', 'x', 'x', 'x', 'x', 'F', '1980-01-01');
             UPDATE patient SET merged_into = '00000000-0000-7000-8000-000000000002', merge_reason = 'r' WHERE mrn = 'M1';
             INSERT INTO import_batch (id, format, dry_run, file_sha256, rows_total, rows_ok, rows_rejected, created_by)
             VALUES ('00000000-0000-7000-8000-00000000000b', 'csv', false, sha256('x'), 3, 2, 1, '00000000-0000-7000-8000-00000000000a');
             INSERT INTO import_error (batch_id, line, raw, code, reason) VALUES ('00000000-0000-7000-8000-00000000000b', 4, 'raw', 'bad_row', 'r');",
        )
        .await
        .unwrap();
    client
        .batch_execute(&format!("BEGIN; {} COMMIT;", migrations[at].1))
        .await
        .unwrap();
    let column = async |sql: &str| -> Vec<String> {
        let rows = client.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let merged =
        "SELECT merged_directly::text FROM patient WHERE merged_into IS NOT NULL AND merged_at = updated_at";
    assert_eq!(column(merged).await, ["00000000-0000-7000-8000-000000000002"]);
    let runs = "SELECT concat_ws('/', run, kind, rows_ok, rows_unchanged, rows_not_done, rows_rejected) FROM import_run";
    assert_eq!(column(runs).await, ["1/delivery/2/0/0/1"]);
    assert_eq!(
        column("SELECT run || ' ' || line FROM import_error").await,
        ["1 4"]
    );
    client
        .batch_execute("UPDATE patient SET merged_into = NULL WHERE mrn = 'M1'")
        .await
        .unwrap();
    assert!(column(merged).await.is_empty());
}
