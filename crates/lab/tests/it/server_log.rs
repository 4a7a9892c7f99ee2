//! Nothing personal reaches the log of PostgreSQL: not through what is refused in normal use, whatever the
//! server is set to, and on our own server not through any failed statement.

use std::{os::unix::fs::PermissionsExt, path::Path};

use embedded::{Cluster, ClusterOptions};
use jiff::civil::date;
use lab::{
    Sex, catalogue, orders,
    patients::{self, PatientPatch},
    staff::{self, NewStaff, StaffPatch},
};
use model::{Email, Role};
use testkit::Space;

use crate::support::{Lab, adult, conflict, new_order, new_patient};

const SECRETS: [&str; 5] = [
    "NATIONAL-4711",
    "placer-4711",
    "Grey-4711",
    "somebody-4711@example.org",
    "Byron-4711",
];

async fn cluster(dir: &Path) -> Cluster {
    let options = ClusterOptions {
        dir: dir.to_owned(),
        bin: testkit::pg_bin(),
        parameters: vec![("shared_buffers".into(), "16MB".into())],
    };
    Cluster::start_or_attach(options).await.unwrap()
}

/// Everything that people do and that meets a unique constraint over personal data.
async fn provoke(lab: &Lab) {
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let mut known = new_patient(Sex::Female, date(1980, 4, 1));
    known.national_id = Some(SECRETS[0].to_owned());
    known.family_name = SECRETS[4].to_owned();
    let patient = patients::create(&txn, &lab.receptionist, &known).await.unwrap();
    let other = adult(&txn, lab).await;
    let mut order = new_order(&patient, &["K"]);
    order.requester = Some(SECRETS[2].to_owned());
    order.placer_order_no = Some(SECRETS[1].to_owned());
    orders::create(&txn, &lab.receptionist, &order).await.unwrap();
    let person = NewStaff {
        email: Email::parse(SECRETS[3]).unwrap(),
        display_name: "Somebody".to_owned(),
        role: Role::Technician,
    };
    staff::create(&txn, &lab.admin, &person).await.unwrap();
    txn.commit().await.unwrap();

    let txn = client.transaction().await.unwrap();
    assert_eq!(
        conflict(patients::create(&txn, &lab.receptionist, &known).await),
        "duplicate"
    );
    txn.rollback().await.unwrap();
    let txn = client.transaction().await.unwrap();
    let patch = PatientPatch {
        national_id: Some(Some(SECRETS[0].to_owned())),
        ..PatientPatch::default()
    };
    let taken = patients::update(&txn, &lab.receptionist, other.id, other.version, &patch).await;
    assert_eq!(conflict(taken), "duplicate");
    txn.rollback().await.unwrap();
    let txn = client.transaction().await.unwrap();
    assert_eq!(
        conflict(orders::create(&txn, &lab.receptionist, &order).await),
        "duplicate"
    );
    txn.rollback().await.unwrap();
    let txn = client.transaction().await.unwrap();
    assert_eq!(
        conflict(staff::create(&txn, &lab.admin, &person).await),
        "duplicate"
    );
    txn.rollback().await.unwrap();
    let txn = client.transaction().await.unwrap();
    let second = staff::get(&txn, lab.technician.staff).await.unwrap();
    let patch = StaffPatch {
        email: Some(Email::parse(SECRETS[3]).unwrap()),
        ..StaffPatch::default()
    };
    let taken = staff::update(&txn, &lab.admin, second.id, second.version, &patch).await;
    assert_eq!(conflict(taken), "duplicate");
    txn.rollback().await.unwrap();
    let txn = client.transaction().await.unwrap();
    let test = serde_json::json!({ "code": "K", "name": SECRETS[4], "section": "s", "specimenType": "t", "valueType": "text" });
    let test: catalogue::NewTest = serde_json::from_value(test).unwrap();
    assert_eq!(
        conflict(catalogue::create(&txn, &lab.admin, &test).await),
        "duplicate"
    );
}

#[tokio::test]
async fn what_is_refused_in_normal_use_is_no_failed_statement() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let cluster = cluster(dir.path()).await;
    let lab = Lab::on(Space::on(cluster.target().clone()).await).await;
    // A server that somebody else runs may log all that it can.
    let owner = lab.owner().await;
    owner
        .batch_execute(
            "DO $$ BEGIN
               EXECUTE format('ALTER DATABASE %I SET log_error_verbosity = verbose', current_database());
               EXECUTE format('ALTER DATABASE %I SET log_parameter_max_length_on_error = -1', current_database());
             END $$",
        )
        .await
        .unwrap();
    provoke(&lab).await;
    let log = std::fs::read_to_string(cluster.log()).unwrap();
    for secret in SECRETS {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(secret)).collect();
        assert!(lines.is_empty(), "{lines:?}");
    }
    drop(lab);
}

#[tokio::test]
async fn our_own_server_logs_no_values_of_a_failed_statement() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let cluster = cluster(dir.path()).await;
    let lab = Lab::on(Space::on(cluster.target().clone()).await).await;
    let owner = lab.owner().await;
    let insert = owner
        .prepare(
            "INSERT INTO patient (id, mrn, national_id, family_name, given_name, family_key, given_key, sex, birth_date)
             VALUES (gen_random_uuid(), $1, $2, $3, 'x', 'x', 'x', $4, '1980-01-01')",
        )
        .await
        .unwrap();
    let (number, name) = (SECRETS[0], SECRETS[4]);
    owner
        .execute(&insert, &[&number, &"other 1", &name, &"F"])
        .await
        .unwrap();
    // A unique key, and a check, whose detail is the whole row.
    owner
        .execute(&insert, &[&number, &"other 2", &name, &"F"])
        .await
        .unwrap_err();
    owner
        .execute(&insert, &[&"M3", &number, &name, &"X"])
        .await
        .unwrap_err();
    let log = std::fs::read_to_string(cluster.log()).unwrap();
    assert!(
        log.contains("patient_mrn_key") && log.contains("patient_sex_check"),
        "{log}"
    );
    assert!(!log.contains(number) && !log.contains(name), "{log}");
    drop(lab);
}
