//! The seed, the staff and the laboratory's settings.

use lab::{
    LabError, PageRequest, profile,
    profile::ProfilePatch,
    staff::{self, NewStaff, StaffPatch},
};
use model::{Email, Role, StaffId, TenantId};

use crate::support::{Lab, conflict, is_invalid, seed};

#[tokio::test]
async fn a_seed_sown_twice_is_sown_once_and_another_laboratorys_is_refused() {
    let lab = Lab::new().await;
    let mut owner = lab.owner().await;
    let txn = owner.transaction().await.unwrap();
    lab::seed(&txn, &seed(lab.tenant, lab.admin.staff)).await.unwrap();
    let count = txn
        .query_one("SELECT count(*) FROM staff WHERE role = 'lab_admin'", &[])
        .await
        .unwrap();
    assert_eq!(count.get::<_, i64>(0), 1);
    let foreign = lab::seed(&txn, &seed(TenantId::generate(), StaffId::generate())).await;
    assert_eq!(conflict(foreign), "other_laboratory");
}

/// The second is no zone and still a rule that PostgreSQL would take for one.
#[tokio::test]
async fn a_time_zone_is_one_that_postgresql_knows_by_that_name() {
    let lab = Lab::new().await;
    let mut owner = lab.owner().await;
    let mut sown = seed(lab.tenant, lab.admin.staff);
    for unknown in ["Mars/Olympus", "Europe/Berlin3", "europe/berlin", "FOO3", "CET"] {
        let txn = owner.transaction().await.unwrap();
        sown.time_zone = unknown.to_owned();
        is_invalid(lab::seed(&txn, &sown).await, "timeZone");
    }
    for known in [
        "America/Port-au-Prince",
        "America/Argentina/Rio_Gallegos",
        "Etc/GMT+3",
        "Japan",
        "UTC",
    ] {
        let txn = owner.transaction().await.unwrap();
        sown.time_zone = known.to_owned();
        lab::seed(&txn, &sown).await.unwrap();
    }
}

#[tokio::test]
async fn staff_log_in_by_email_without_regard_to_case() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let email = |text: &str| Email::parse(text).unwrap();
    let login = staff::login_by_email(&txn, &email("aDMIN@example.ORG"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (login.id, login.role, login.password_hash.as_deref()),
        (lab.admin.staff, Role::LabAdmin, None)
    );
    assert!(
        staff::login_by_email(&txn, &email("nobody@example.org"))
            .await
            .unwrap()
            .is_none()
    );
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g";
    let new = NewStaff {
        email: email("Eve@example.org"),
        display_name: "Eve".to_owned(),
        role: Role::Technician,
    };
    let eve = staff::create(&txn, &lab.admin, &new).await.unwrap();
    assert!(!eve.has_password);
    staff::password_set(&txn, &lab.admin, eve.id, hash).await.unwrap();
    let known = staff::login_by_id(&txn, eve.id).await.unwrap().unwrap();
    assert_eq!(known.password_hash.as_deref(), Some(hash));
    assert!(!format!("{known:?}").contains("argon2"), "a hash is not for logs");
    assert!(!serde_json::to_string(&eve).unwrap().contains("argon2"));
    let plain = txn
        .batch_execute("SAVEPOINT s; UPDATE staff SET password_hash = 'hunter2'")
        .await;
    assert!(plain.is_err(), "only a hash is stored");
    txn.batch_execute("ROLLBACK TO SAVEPOINT s").await.unwrap();
    let mut twin = new.clone();
    twin.email = email("eVE@EXAMPLE.org");
    assert_eq!(
        conflict(staff::create(&txn, &lab.admin, &twin).await),
        "duplicate"
    );
}

#[tokio::test]
async fn the_last_admin_cannot_lock_everybody_out() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let demote = StaffPatch {
        role: Some(Role::Technician),
        ..StaffPatch::default()
    };
    let close = StaffPatch {
        active: Some(false),
        ..StaffPatch::default()
    };
    txn.batch_execute("SAVEPOINT s").await.unwrap();
    for patch in [&demote, &close] {
        assert_eq!(
            conflict(staff::update(&txn, &lab.admin, lab.admin.staff, 1, patch).await),
            "last_admin"
        );
        txn.batch_execute("ROLLBACK TO SAVEPOINT s").await.unwrap();
    }
    let promote = StaffPatch {
        role: Some(Role::LabAdmin),
        ..StaffPatch::default()
    };
    let person = staff::get(&txn, lab.technician.staff).await.unwrap();
    let late = staff::update(&txn, &lab.admin, person.id, person.version + 1, &promote).await;
    assert!(matches!(late, Err(LabError::Version { .. })));
    staff::update(&txn, &lab.admin, person.id, person.version, &promote)
        .await
        .unwrap();
    let closed = staff::update(&txn, &lab.admin, lab.admin.staff, 1, &close)
        .await
        .unwrap();
    assert!(!closed.active);
    assert_eq!(
        staff::list(&txn, &PageRequest::default())
            .await
            .unwrap()
            .items
            .len(),
        5,
        "nobody is removed"
    );
}

#[tokio::test]
async fn settings_change_by_version_and_only_to_what_makes_sense() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patch = |prefix: &str, zone: &str| ProfilePatch {
        accession_prefix: Some(prefix.to_owned()),
        time_zone: Some(zone.to_owned()),
        ..ProfilePatch::default()
    };
    is_invalid(
        profile::update(&txn, &lab.admin, 1, &patch("qc-", "UTC")).await,
        "accessionPrefix",
    );
    is_invalid(
        profile::update(&txn, &lab.admin, 1, &patch("B", "nowhere")).await,
        "timeZone",
    );
    let changed = profile::update(&txn, &lab.admin, 1, &patch("B", "America/Lima"))
        .await
        .unwrap();
    assert_eq!(
        (
            changed.accession_prefix.as_str(),
            changed.version,
            changed.tenant_id
        ),
        ("B", 2, lab.tenant)
    );
    assert!(matches!(
        profile::update(&txn, &lab.admin, 1, &patch("C", "UTC")).await,
        Err(LabError::Version { .. })
    ));
}
