//! What the database refuses by itself, whatever code runs on it: tried as the laboratory's own role, and
//! where it must hold for everybody, as the tables' owner (a superuser here).

use deadpool_postgres::Object;
use lab::{
    Guard, ResultId, results,
    signoff::{self},
};
use tokio_postgres::Client;

use crate::support::{Lab, adult, items, new_order, received, released, value};

/// Tries one statement and takes it back: the SQLSTATE of its refusal, or nothing when it went through.
pub(crate) async fn state(client: &Client, sql: &str) -> Option<String> {
    client.batch_execute("BEGIN").await.unwrap();
    let mut outcome = client.batch_execute(sql).await;
    if outcome.is_ok() {
        outcome = client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await;
    }
    client.batch_execute("ROLLBACK").await.unwrap();
    outcome.err().map(|error| {
        error
            .code()
            .map_or_else(|| error.to_string(), |code| code.code().to_owned())
    })
}

/// Refused to the laboratory's role (by a guard, a constraint or for want of the privilege), and to the owner
/// by `code`.
async fn refused(role: &Client, owner: &Client, sql: &str, code: &str) {
    assert_eq!(state(owner, sql).await.as_deref(), Some(code), "as owner: {sql}");
    let got = state(role, sql)
        .await
        .unwrap_or_else(|| panic!("the laboratory's role could do: {sql}"));
    assert!(
        got == code || got == "42501",
        "as the laboratory's role, {got}: {sql}"
    );
}

pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) role: Object,
    pub(crate) owner: Client,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let lab = Lab::new().await;
        Self {
            role: lab.client().await,
            owner: lab.owner().await,
            lab,
        }
    }

    pub(crate) async fn refused(&self, sql: &str, code: &str) {
        refused(&self.role, &self.owner, sql, code).await;
    }

    /// A potassium result in each state: pending, entered, verified, released.
    pub(crate) async fn results(&mut self) -> [ResultId; 4] {
        let lab = &self.lab;
        let txn = self.role.transaction().await.unwrap();
        let patient = adult(&txn, lab).await;
        let mut ids = Vec::new();
        for steps in 0..3 {
            let order = received(&txn, lab, &patient, &["K"]).await;
            let id = order.results[0].id;
            if steps > 0 {
                results::enter(&txn, &lab.technician, id, 1, &value("4.0", "mmol/L"))
                    .await
                    .unwrap();
            }
            if steps > 1 {
                signoff::verify(&txn, &lab.supervisor, &items(&txn, &[id]).await)
                    .await
                    .unwrap();
            }
            ids.push(id);
        }
        ids.push(
            released(&txn, lab, &patient, "K", &value("4.0", "mmol/L"))
                .await
                .id,
        );
        txn.commit().await.unwrap();
        ids.try_into().unwrap()
    }
}

#[tokio::test]
async fn a_result_is_not_inserted_as_released_nor_with_a_value() {
    let mut scene = Scene::new().await;
    let [pending, ..] = scene.results().await;
    let staff = scene.lab.technician.staff;
    let copy = |columns: &str, values: &str| {
        format!(
            "INSERT INTO result (id, order_id, patient_id, specimen_id, test_code, changed_by{columns})
             SELECT gen_random_uuid(), order_id, patient_id, specimen_id, 'NA', '{staff}'{values} FROM result WHERE id = '{pending}'"
        )
    };
    assert_eq!(
        state(&scene.role, &copy("", "")).await,
        None,
        "the honest insert goes through"
    );
    let released = ", status, value_num, unit, entered_by, entered_at, verified_by, verified_at, released_by, released_at";
    let signed = format!(
        ", 'released', 4.0, 'mmol/L', '{staff}', now(), '{}', now(), '{staff}', now()",
        scene.lab.supervisor.staff
    );
    scene.refused(&copy(released, &signed), "LAB07").await;
    scene.refused(&copy(", value_num", ", 4.0"), "LAB07").await;
    scene.refused(&copy(", status", ", 'entered'"), "LAB07").await;
    scene
        .refused(&copy(", verified_by", &format!(", '{staff}'")), "LAB07")
        .await;
}

#[tokio::test]
async fn a_released_result_is_rewritten_in_nothing() {
    let mut scene = Scene::new().await;
    let [.., released] = scene.results().await;
    let other = scene.lab.second_supervisor.staff;
    for set in [
        "value_num = 4.1".to_owned(),
        "value_num = 4.00".to_owned(),
        "flag = 'H', ref_high = 3".to_owned(),
        "ref_low = 1".to_owned(),
        format!("verified_by = '{other}'"),
        format!("released_by = '{other}'"),
        "comment = 'x', change_reason = 'y'".to_owned(),
        "instrument = 'x'".to_owned(),
        "status = 'released'".to_owned(),
    ] {
        scene
            .refused(
                &format!("UPDATE result SET {set} WHERE id = '{released}'"),
                "LAB03",
            )
            .await;
    }
    for set in [
        "verified_at = now()",
        "entered_at = now()",
        "released_at = now()",
        "rev = 9",
        "version = 9",
    ] {
        let sql = format!("UPDATE result SET {set} WHERE id = '{released}'");
        scene.refused(&sql, "LAB03").await;
    }
}

#[tokio::test]
async fn states_are_not_skipped_and_final_ones_stay() {
    let mut scene = Scene::new().await;
    let [pending, entered, verified, released] = scene.results().await;
    let supervisor = scene.lab.supervisor.staff;
    for (id, to) in [
        (pending, "verified"),
        (pending, "released"),
        (entered, "released"),
        (released, "verified"),
        (released, "pending"),
        (released, "cancelled"),
        (verified, "entered"),
        (verified, "voided"),
        (entered, "corrected"),
    ] {
        let sql = format!(
            "UPDATE result SET status = '{to}', verified_by = '{supervisor}', released_by = '{supervisor}', closed_reason = NULL, change_reason = 'x'
             WHERE id = '{id}'"
        );
        let code = state(&scene.role, &sql)
            .await
            .unwrap_or_else(|| panic!("{id} could become {to}"));
        assert!(code.starts_with("LAB0"), "{to}: {code}");
        assert!(state(&scene.owner, &sql).await.is_some());
    }
    let close = format!("UPDATE result SET status = 'cancelled', closed_reason = 'x' WHERE id = '{pending}'");
    scene.role.batch_execute(&close).await.unwrap();
    scene
        .refused(
            &format!("UPDATE result SET status = 'pending', closed_reason = NULL WHERE id = '{pending}'"),
            "LAB02",
        )
        .await;
    scene
        .refused(
            &format!("UPDATE result SET status = 'cancelled' WHERE id = '{entered}'"),
            "LAB04",
        )
        .await;
    scene
        .refused(
            &format!("UPDATE result SET status = 'voided' WHERE id = '{released}'"),
            "LAB04",
        )
        .await;
    let kept = format!(
        "UPDATE result SET status = 'voided', closed_reason = 'x', value_num = NULL WHERE id = '{released}'"
    );
    scene.refused(&kept, "LAB03").await;
}

#[tokio::test]
async fn a_result_moves_to_no_other_patient_order_test_or_specimen() {
    let mut scene = Scene::new().await;
    let [pending, entered, ..] = scene.results().await;
    let other = format!("FROM result o WHERE o.id = '{entered}' AND r.id = '{pending}'");
    scene
        .refused(
            &format!("UPDATE result r SET patient_id = gen_random_uuid() WHERE r.id = '{pending}'"),
            "LAB05",
        )
        .await;
    scene
        .refused(
            &format!("UPDATE result r SET order_id = o.order_id {other}"),
            "LAB05",
        )
        .await;
    scene
        .refused(
            &format!("UPDATE result r SET test_code = 'NA' WHERE r.id = '{entered}'"),
            "LAB05",
        )
        .await;
    scene
        .refused(
            &format!("UPDATE result r SET specimen_id = gen_random_uuid() WHERE r.id = '{entered}'"),
            "LAB05",
        )
        .await;
    // A pending result may move to a replacement, which must be of the same order.
    let foreign = state(
        &scene.owner,
        &format!("UPDATE result r SET specimen_id = o.specimen_id {other}"),
    )
    .await;
    assert_eq!(foreign.as_deref(), Some("23503"));
    scene
        .refused("UPDATE lab_order SET patient_id = gen_random_uuid()", "LAB05")
        .await;
    scene
        .refused("UPDATE specimen SET barcode = barcode || 'x'", "LAB05")
        .await;
    scene
        .refused("UPDATE lab_profile SET tenant_id = gen_random_uuid()", "LAB05")
        .await;
}

#[tokio::test]
async fn nothing_is_deleted_truncated_or_rewritten_in_the_trail() {
    let mut scene = Scene::new().await;
    scene.results().await;
    let tables = scene
        .owner
        .query("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1", &[])
        .await
        .unwrap();
    let tables: Vec<String> = tables.iter().map(|row| row.get(0)).collect();
    assert!(tables.len() >= 17, "{tables:?}");
    // None of these records anything of the laboratory: a counter, answers that are kept for a day, links
    // that are used once.
    for table in tables.iter().filter(|t| {
        !matches!(
            t.as_str(),
            "accession_counter" | "idempotency_key" | "staff_invitation"
        )
    }) {
        scene.refused(&format!("DELETE FROM {table}"), "LAB01").await;
        scene.refused(&format!("TRUNCATE {table} CASCADE"), "LAB01").await;
    }
    for table in [
        "audit_event",
        "result_revision",
        "result_change",
        "critical_lift",
        "critical_notice",
        "import_batch",
        "import_run",
        "import_error",
        "import_conflict",
        "specimen_revision",
    ] {
        let column = scene
            .owner
            .query_one(
                "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum = 2",
                &[&table],
            )
            .await
            .unwrap()
            .get::<_, String>(0);
        scene
            .refused(&format!("UPDATE {table} SET {column} = {column}"), "LAB01")
            .await;
    }
    scene.refused("UPDATE test_def SET unit = 'x'", "LAB05").await;
    for sql in [
        "INSERT INTO result_revision SELECT * FROM result_revision",
        "INSERT INTO result_change (result_id, rev, status, changed_at) SELECT id, 1, 'released', now() FROM result",
        "INSERT INTO lab_profile (one, tenant_id, name) VALUES (true, gen_random_uuid(), 'x')",
        "TRUNCATE accession_counter",
        "CREATE TABLE x ()",
        "CREATE FUNCTION x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE result DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "DROP TABLE result_revision",
        "UPDATE patient SET mrn = 'x'",
        "UPDATE test_def SET specimen_type = 'x'",
        "UPDATE ref_range SET low = 0",
        "UPDATE result SET flag = NULL",
        "INSERT INTO specimen_revision SELECT * FROM specimen_revision",
        "UPDATE staff SET id = gen_random_uuid()",
        "SELECT setval('patient_mrn_seq', 1)",
    ] {
        assert_eq!(state(&scene.role, sql).await.as_deref(), Some("42501"), "{sql}");
    }
}

#[tokio::test]
async fn a_value_needs_a_received_specimen_and_keeps_it_from_rejection() {
    let mut scene = Scene::new().await;
    let [pending, entered, ..] = scene.results().await;
    let staff = scene.lab.technician.staff;
    let reject = |id: ResultId| {
        format!(
            "UPDATE specimen SET status = 'rejected', reject_reason = 'clot', rejected_by = '{staff}'
             WHERE id = (SELECT specimen_id FROM result WHERE id = '{id}');"
        )
    };
    let enter = format!(
        "UPDATE result SET status = 'entered', value_num = 4, unit = 'mmol/L', entered_by = '{staff}' WHERE id = '{pending}'"
    );
    assert_eq!(state(&scene.role, &enter).await, None);
    scene.refused(&(reject(pending) + &enter), "LAB10").await;
    scene.refused(&reject(entered), "LAB10").await;
    let add = format!(
        "INSERT INTO result (id, order_id, patient_id, specimen_id, test_code, changed_by)
         SELECT gen_random_uuid(), order_id, patient_id, specimen_id, 'NA', '{staff}' FROM result WHERE id = '{pending}'"
    );
    scene.refused(&(reject(pending) + &add), "LAB10").await;
    scene
        .refused("UPDATE specimen SET status = 'expected'", "LAB02")
        .await;
    scene
        .refused(
            "UPDATE specimen SET status = 'disposed', received_by = collected_by",
            "LAB03",
        )
        .await;
}

#[tokio::test]
async fn an_order_does_not_go_back_nor_close_over_open_results() {
    let mut scene = Scene::new().await;
    let [pending, .., released] = scene.results().await;
    let of = |id: ResultId| format!("WHERE id = (SELECT order_id FROM result WHERE id = '{id}')");
    let done = scene
        .role
        .query_one(&format!("SELECT status FROM lab_order {}", of(released)), &[])
        .await
        .unwrap();
    assert_eq!(done.get::<_, String>(0), "completed");
    for to in ["registered", "in_progress", "completed"] {
        scene
            .refused(
                &format!("UPDATE lab_order SET status = '{to}' {}", of(released)),
                "LAB02",
            )
            .await;
    }
    scene
        .refused(
            &format!(
                "UPDATE lab_order SET status = 'cancelled', cancel_reason = 'x' {}",
                of(released)
            ),
            "LAB02",
        )
        .await;
    scene
        .refused(
            &format!("UPDATE lab_order SET status = 'registered' {}", of(pending)),
            "LAB02",
        )
        .await;
    scene
        .refused(
            &format!("UPDATE lab_order SET status = 'completed' {}", of(pending)),
            "LAB02",
        )
        .await;
    scene
        .refused(
            &format!(
                "UPDATE lab_order SET status = 'cancelled', cancel_reason = 'x' {}",
                of(pending)
            ),
            "LAB02",
        )
        .await;
    let insert = "INSERT INTO lab_order (id, accession_no, patient_id, status, created_by)
                  SELECT gen_random_uuid(), 'X', patient_id, 'completed', created_by FROM lab_order LIMIT 1";
    scene.refused(insert, "LAB07").await;
}

#[tokio::test]
async fn one_placer_number_means_one_order_also_without_a_requester() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    let mut order = new_order(&patient, &["K"]);
    order.requester = None;
    order.placer_order_no = Some("4711".to_owned());
    lab::orders::create(&txn, &lab.receptionist, &order)
        .await
        .unwrap();
    let again = lab::orders::create(&txn, &lab.receptionist, &order).await;
    assert_eq!(crate::support::conflict(again), "duplicate");
}

#[tokio::test]
async fn entering_and_verifying_are_hot_updates() {
    let mut scene = Scene::new().await;
    let [pending, ..] = scene.results().await;
    let txn = scene.role.transaction().await.unwrap();
    // The counters begin with what this connection did and has not reported yet.
    let counters = async || {
        let sql = "SELECT pg_stat_get_xact_tuples_hot_updated('result'::regclass), pg_stat_get_xact_tuples_updated('result'::regclass)";
        let row = txn.query_one(sql, &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    let start = counters().await;
    let since = async || {
        let now = counters().await;
        (now.0 - start.0, now.1 - start.1)
    };
    results::enter(&txn, &scene.lab.technician, pending, 1, &value("4.0", "mmol/L"))
        .await
        .unwrap();
    assert_eq!(since().await, (1, 1));
    signoff::verify(&txn, &scene.lab.supervisor, &items(&txn, &[pending]).await)
        .await
        .unwrap();
    assert_eq!(since().await, (2, 2));
    signoff::release(&txn, &scene.lab.supervisor, &items(&txn, &[pending]).await)
        .await
        .unwrap();
    assert_eq!(
        since().await,
        (2, 3),
        "closing leaves the index of open work, so it cannot be HOT"
    );
}

#[test]
fn the_codes_in_the_migrations_are_the_codes_in_the_guard_list() {
    let sql = crate::support::migrations("g");
    let mut documented: Vec<&str> = sql
        .lines()
        .filter_map(|line| line.strip_prefix("--   LAB"))
        .map(|rest| &rest[..2])
        .collect();
    documented.sort_unstable();
    let known: Vec<&str> = Guard::ALL.iter().map(|guard| &guard.sqlstate()[3..]).collect();
    assert_eq!(documented, known);
    for raised in sql.split("ERRCODE = 'LAB").skip(1).map(|rest| &rest[..2]) {
        assert!(
            known.contains(&raised),
            "LAB{raised} is raised and not documented"
        );
    }
    for guard in Guard::ALL {
        assert!(
            sql.contains(&format!("ERRCODE = '{}'", guard.sqlstate())),
            "{guard:?} is never raised"
        );
        assert_eq!(Guard::of(guard.sqlstate()), Some(*guard));
    }
}
