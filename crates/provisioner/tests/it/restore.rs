//! Laboratories that come back: under their own name, beside themselves, and in their own place.

use model::{Email, Slug, StaffId, TenantState};
use provisioner::{ProvisionError, RestoreAs};
use registry::{Admin, Tenant};
use secrecy::ExposeSecret as _;

use crate::{
    archive::{LEASE, change_one_byte, failure, files_in},
    crash::die_at,
    rig::{Rig, by},
};

fn beside(slug: &str) -> RestoreAs {
    RestoreAs {
        slug: Some(Slug::parse(slug).unwrap()),
        server: None,
    }
}

async fn admins(rig: &Rig, tenant: &Tenant) -> Vec<Admin> {
    let client = rig.registry.client().await.unwrap();
    registry::admins_of(&client, tenant.id).await.unwrap()
}

fn hash_of(admin: &Admin) -> Option<&str> {
    admin.password_hash.as_ref().map(|hash| hash.expose_secret())
}

async fn profile(rig: &Rig, tenant: &Tenant) -> (model::TenantId, String, i32) {
    let row = rig
        .inside(tenant)
        .await
        .query_one("SELECT tenant_id, name, version FROM lab_profile", &[])
        .await
        .unwrap();
    (row.get::<_, uuid::Uuid>(0).into(), row.get(1), row.get(2))
}

#[tokio::test]
async fn a_removed_laboratory_comes_back_under_its_id_with_its_people() {
    let rig = Rig::new().await;
    let tenant = rig.provisioned("phoenix").await;
    let (people, before) = (admins(&rig, &tenant).await, profile(&rig, &tenant).await);
    let archive = rig.removed(&tenant).await;
    let (back, operation) = rig
        .provisioner
        .request_restore(archive.id, RestoreAs::default(), by())
        .await
        .unwrap();
    assert_eq!(
        (back.id, &back.slug, back.status),
        (tenant.id, &tenant.slug, TenantState::Provisioning)
    );
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    let back = rig.tenant(tenant.id).await.unwrap();
    assert_eq!(
        (back.status, back.db_version),
        (TenantState::Active, migrator::latest())
    );
    assert!(back.generation > tenant.generation);
    assert_eq!((&back.name, &back.time_zone), (&tenant.name, &tenant.time_zone));
    assert!(rig.serves(back.id).await);
    assert_eq!(profile(&rig, &back).await, before);
    let again = admins(&rig, &back).await;
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].id, &again[0].email), (people[0].id, &people[0].email));
    assert_eq!(hash_of(&again[0]), hash_of(&people[0]));
    let living = rig
        .provisioner
        .request_restore(archive.id, RestoreAs::default(), by())
        .await;
    let living = living.unwrap_err().to_string();
    assert!(
        living.contains("--as") && living.contains("--in-place"),
        "{living}"
    );
    // It can be archived and removed again, and the manifest says nothing that nobody may read.
    let manifest = std::fs::read_to_string(archive.location.replace(".dump", ".manifest.json")).unwrap();
    assert!(!manifest.contains("c2FsdHNhbHQ") && !manifest.contains("ada@example.org"));
    rig.removed(&back).await;
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_copy_beside_is_another_laboratory_with_the_same_people() {
    let rig = Rig::new().await;
    let tenant = rig.provisioned("original").await;
    let archive = rig.backed_up(&tenant).await;
    let taken = rig
        .provisioner
        .request_restore(archive.id, beside("original"), by())
        .await;
    assert!(taken.unwrap_err().to_string().contains("original"));
    let (copy, operation) = rig
        .provisioner
        .request_restore(archive.id, beside("copy"), by())
        .await
        .unwrap();
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    let copy = rig.tenant(copy.id).await.unwrap();
    assert_ne!(copy.id, tenant.id);
    assert!(rig.serves(copy.id).await && rig.serves(tenant.id).await);
    let (ours, theirs) = (profile(&rig, &tenant).await, profile(&rig, &copy).await);
    assert_eq!(theirs, (copy.id, ours.1, ours.2));
    assert_eq!(admins(&rig, &copy).await[0].id, admins(&rig, &tenant).await[0].id);
    let guard = rig.inside(&copy).await;
    let changed = guard
        .batch_execute("UPDATE lab_profile SET tenant_id = gen_random_uuid()")
        .await;
    assert!(changed.is_err(), "the guard is on");
    rig.removed(&copy).await;
    assert_eq!(admins(&rig, &tenant).await.len(), 1);
    assert!(rig.serves(tenant.id).await);
}

#[tokio::test]
async fn an_archive_takes_the_place_of_what_the_laboratory_holds_which_is_archived_first() {
    let rig = Rig::new().await;
    for before in [TenantState::Active, TenantState::Suspended] {
        let tenant = rig.provisioned(&format!("place-{before}")).await;
        let archive = rig.backed_up(&tenant).await;
        let late = StaffId::generate();
        rig.inside(&tenant)
            .await
            .execute(
                "INSERT INTO staff (id, display_name, email, role) VALUES ($1, 'Late', 'late@example.org', 'lab_admin')",
                &[&late.as_uuid()],
            )
            .await
            .unwrap();
        let mut client = rig.registry.client().await.unwrap();
        let txn = client.transaction().await.unwrap();
        let new = registry::NewAdmin {
            id: late,
            tenant: tenant.id,
            email: Email::parse("late@example.org").unwrap(),
            display_name: "Late".to_owned(),
            password_hash: Some("$argon2id$late".to_owned().into()),
        };
        registry::admin_insert_in_txn(&txn, &new).await.unwrap();
        txn.commit().await.unwrap();
        if before == TenantState::Suspended {
            rig.provisioner.suspend(tenant.id, by()).await.unwrap();
        }
        let (_, operation) = rig
            .provisioner
            .request_restore_in_place(archive.id, by())
            .await
            .unwrap();
        assert_eq!(
            rig.tenant(tenant.id).await.unwrap().status,
            before,
            "it serves until it is closed"
        );
        rig.provisioner.run(operation, |_| {}).await.unwrap();
        let now = rig.tenant(tenant.id).await.unwrap();
        assert_eq!((now.status, now.status_before), (before, None));
        assert_eq!(rig.serves(tenant.id).await, before == TenantState::Active);
        let staff = rig
            .inside(&tenant)
            .await
            .query("SELECT FROM staff", &[])
            .await
            .unwrap();
        assert_eq!(staff.len(), 1);
        assert_eq!(admins(&rig, &tenant).await.len(), 1);
        // What it held is there, with its people, to be put back in the same way.
        let client = rig.registry.client().await.unwrap();
        let held = registry::archive_by_operation(&client, operation)
            .await
            .unwrap()
            .unwrap();
        let (_, operation) = rig
            .provisioner
            .request_restore_in_place(held.id, by())
            .await
            .unwrap();
        rig.provisioner.run(operation, |_| {}).await.unwrap();
        assert_eq!(admins(&rig, &tenant).await.len(), 2);
    }
    let leftovers = rig.leftovers().await;
    assert!(
        leftovers.iter().all(|name| name.starts_with("tenant_place-")),
        "{leftovers:?}"
    );
}

#[tokio::test]
async fn a_restore_in_place_can_be_called_off_until_the_exchange() {
    let rig = Rig::with(|config| config.lease = LEASE).await;
    let tenant = rig.provisioned("undecided").await;
    let archive = rig.backed_up(&tenant).await;
    for point in ["restore_database/acted", "fence/acted", "verify/acted"] {
        let (_, operation) = rig
            .provisioner
            .request_restore_in_place(archive.id, by())
            .await
            .unwrap();
        die_at(&rig, operation, &format!("restore_in_place/{point}")).await;
        std::fs::remove_file(
            rig.space
                .dir()
                .join(format!("restore_in_place/{point}").replace('/', "-")),
        )
        .unwrap();
        rig.provisioner.cancel(operation, by()).await.unwrap();
        let ended = rig.provisioner.run(operation, |_| {}).await.unwrap_err();
        assert!(matches!(ended, ProvisionError::CalledOff { .. }), "{ended}");
        assert!(rig.serves(tenant.id).await, "{point}");
    }
    let (_, operation) = rig
        .provisioner
        .request_restore_in_place(archive.id, by())
        .await
        .unwrap();
    die_at(&rig, operation, "restore_in_place/swap_database/acted").await;
    let late = rig.provisioner.cancel(operation, by()).await.unwrap_err();
    assert!(late.to_string().contains("past the point"), "{late}");
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(rig.serves(tenant.id).await);
    let leftovers = rig.leftovers().await;
    assert!(
        leftovers.iter().all(|name| name == "tenant_undecided"),
        "{leftovers:?}"
    );
}

#[tokio::test]
async fn an_archive_that_cannot_be_trusted_makes_no_laboratory() {
    let rig = Rig::new().await;
    let tenant = rig.provisioned("rotten").await;
    let archive = rig.removed(&tenant).await;
    let directory = rig.provisioner.config().archive_dir.join(tenant.id.to_string());
    change_one_byte(&files_in(&directory, ".dump")[0]);
    let (back, operation) = rig
        .provisioner
        .request_restore(archive.id, RestoreAs::default(), by())
        .await
        .unwrap();
    let error = failure(&rig, operation).await;
    assert!(error.contains("cannot be trusted"), "{error}");
    assert!(rig.tenant(back.id).await.is_none());
    assert_eq!(rig.leftovers().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_archive_of_a_newer_schema_or_of_an_earlier_form_is_refused() {
    let rig = Rig::new().await;
    let tenant = rig.provisioned("future").await;
    let archive = rig.removed(&tenant).await;
    let client = crate::rig::connect(&rig.space.registry).await;
    client
        .batch_execute("UPDATE archives SET db_version = 9999")
        .await
        .unwrap();
    let ask = || {
        rig.provisioner
            .request_restore(archive.id, RestoreAs::default(), by())
    };
    let error = ask().await.unwrap_err();
    assert!(matches!(error, ProvisionError::ArchiveTooNew { .. }), "{error}");
    assert!(error.to_string().contains("newer tenantctl"), "{error}");
    client
        .batch_execute("UPDATE archives SET db_version = 1, manifest = manifest || '{\"format\": 1}'")
        .await
        .unwrap();
    let error = ask().await.unwrap_err().to_string();
    assert!(
        error.contains("form 1") && error.contains("pg_restore"),
        "{error}"
    );
    client
        .batch_execute("UPDATE archives SET admins = NULL, manifest = manifest || '{\"format\": 2}'")
        .await
        .unwrap();
    let error = ask().await.unwrap_err().to_string();
    assert!(error.contains("administrators"), "{error}");
    assert!(rig.tenant(tenant.id).await.is_none());
}

/// As behind a registry that was itself set back to a moment before the laboratory came back.
#[tokio::test]
async fn a_laboratory_that_is_there_though_the_registry_forgot_it_is_left_alone() {
    let rig = Rig::new().await;
    let tenant = rig.provisioned("forgotten").await;
    let archive = rig.removed(&tenant).await;
    let restore = || {
        rig.provisioner
            .request_restore(archive.id, RestoreAs::default(), by())
    };
    let (back, operation) = restore().await.unwrap();
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    let newer = "INSERT INTO staff (id, display_name, email, role)
        VALUES (gen_random_uuid(), 'Newer', 'newer@example.org', 'technician')";
    rig.inside(&back).await.batch_execute(newer).await.unwrap();
    let own = rig.own(&rig.tenant(back.id).await.unwrap());
    let registry = rig.registry.client().await.unwrap();
    let forget = "DELETE FROM tenants WHERE id = $1";
    registry.execute(forget, &[&back.id.as_uuid()]).await.unwrap();

    let (_, operation) = restore().await.unwrap();
    let refused = rig
        .provisioner
        .run(operation, |_| {})
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("is there already"), "{refused}");
    assert!(rig.tenant(back.id).await.is_none());
    let rows = crate::rig::connect(&own)
        .await
        .query("SELECT FROM staff", &[])
        .await
        .unwrap();
    assert_eq!(rows.len(), 2, "database, role and password are as they were");
}

/// Failed before the exchange and undone, then tried once more: it must end with the laboratory in service.
#[tokio::test]
async fn a_restore_in_place_that_failed_and_is_tried_again_opens_the_laboratory() {
    let rig = Rig::new().await;
    let tenant = rig.provisioned("twice").await;
    let archive = rig.backed_up(&tenant).await;
    let away = format!("{}.away", archive.location);
    std::fs::rename(&archive.location, &away).unwrap();
    let (_, operation) = rig
        .provisioner
        .request_restore_in_place(archive.id, by())
        .await
        .unwrap();
    rig.provisioner.run(operation, |_| {}).await.unwrap_err();
    assert!(rig.serves(tenant.id).await);
    std::fs::rename(&away, &archive.location).unwrap();
    rig.provisioner.reopen(operation, by()).await.unwrap();
    rig.provisioner.run(operation, |_| {}).await.unwrap();
    let now = rig.tenant(tenant.id).await.unwrap();
    assert_eq!((now.status, now.status_before), (TenantState::Active, None));
    assert!(rig.serves(tenant.id).await);
}
