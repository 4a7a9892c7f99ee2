//! Laboratories that come back: under their own name, beside themselves, and in their own place.

use std::sync::Mutex;

use model::{Email, OperationStatus, SchemaVersion, Slug, StaffId, Step, TenantState};
use provisioner::{Progress, ProvisionError, RestoreAs};
use registry::{Admin, Tenant};
use secrecy::ExposeSecret as _;

use crate::{
    adopt::{Old, adopted},
    archive::{LEASE, change_one_byte, failure, files_in},
    crash::die_at,
    harness::{Harness, by, connect, lab},
};

fn beside(slug: &str) -> RestoreAs {
    RestoreAs {
        slug: Some(Slug::parse(slug).unwrap()),
        server: None,
    }
}

async fn admins(harness: &Harness, tenant: &Tenant) -> Vec<Admin> {
    let client = harness.registry.client().await.unwrap();
    registry::admins_of(&client, tenant.id).await.unwrap()
}

fn hash_of(admin: &Admin) -> Option<&str> {
    admin.password_hash.as_ref().map(|hash| hash.expose_secret())
}

async fn profile(harness: &Harness, tenant: &Tenant) -> (model::TenantId, String, i32) {
    let row = harness
        .inside(tenant)
        .await
        .query_one("SELECT tenant_id, name, version FROM lab_profile", &[])
        .await
        .unwrap();
    (row.get::<_, uuid::Uuid>(0).into(), row.get(1), row.get(2))
}

#[tokio::test]
async fn a_removed_laboratory_comes_back_under_its_id_with_its_people() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("phoenix").await;
    let (people, before) = (admins(&harness, &tenant).await, profile(&harness, &tenant).await);
    let archive = harness.removed(&tenant).await;
    let (back, operation) = harness
        .provisioner
        .request_restore(archive.id, RestoreAs::default(), by())
        .await
        .unwrap();
    assert_eq!(
        (back.id, &back.slug, back.status),
        (tenant.id, &tenant.slug, TenantState::Provisioning)
    );
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    let back = harness.tenant(tenant.id).await.unwrap();
    assert_eq!(
        (back.status, back.db_version),
        (TenantState::Active, migrator::latest())
    );
    assert!(back.generation > tenant.generation);
    assert_eq!((&back.name, &back.time_zone), (&tenant.name, &tenant.time_zone));
    assert!(harness.serves(back.id).await);
    assert_eq!(profile(&harness, &back).await, before);
    let again = admins(&harness, &back).await;
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].id, &again[0].email), (people[0].id, &people[0].email));
    assert_eq!(hash_of(&again[0]), hash_of(&people[0]));
    let living = harness
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
    harness.removed(&back).await;
    assert_eq!(harness.leftovers().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_copy_beside_is_another_laboratory_with_the_same_people() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("original").await;
    let archive = harness.backed_up(&tenant).await;
    let taken = harness
        .provisioner
        .request_restore(archive.id, beside("original"), by())
        .await;
    assert!(taken.unwrap_err().to_string().contains("original"));
    let (copy, operation) = harness
        .provisioner
        .request_restore(archive.id, beside("copy"), by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    let copy = harness.tenant(copy.id).await.unwrap();
    assert_ne!(copy.id, tenant.id);
    assert!(harness.serves(copy.id).await && harness.serves(tenant.id).await);
    let (ours, theirs) = (profile(&harness, &tenant).await, profile(&harness, &copy).await);
    assert_eq!(theirs, (copy.id, ours.1, ours.2));
    assert_eq!(
        admins(&harness, &copy).await[0].id,
        admins(&harness, &tenant).await[0].id
    );
    let guard = harness.inside(&copy).await;
    let changed = guard
        .batch_execute("UPDATE lab_profile SET tenant_id = gen_random_uuid()")
        .await;
    assert!(changed.is_err(), "the guard is on");
    harness.removed(&copy).await;
    assert_eq!(admins(&harness, &tenant).await.len(), 1);
    assert!(harness.serves(tenant.id).await);
}

#[tokio::test]
async fn an_archive_takes_the_place_of_what_the_laboratory_holds_which_is_archived_first() {
    let harness = Harness::new().await;
    for before in [TenantState::Active, TenantState::Suspended] {
        let tenant = harness.provisioned(&format!("place-{before}")).await;
        let archive = harness.backed_up(&tenant).await;
        let late = StaffId::generate();
        harness.inside(&tenant)
            .await
            .execute(
                "INSERT INTO staff (id, display_name, email, role) VALUES ($1, 'Late', 'late@example.org', 'lab_admin')",
                &[&late.as_uuid()],
            )
            .await
            .unwrap();
        let mut client = harness.registry.client().await.unwrap();
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
            harness.provisioner.suspend(tenant.id, by()).await.unwrap();
        }
        let (_, operation) = harness
            .provisioner
            .request_restore_in_place(archive.id, by())
            .await
            .unwrap();
        assert_eq!(
            harness.tenant(tenant.id).await.unwrap().status,
            before,
            "it serves until it is closed"
        );
        harness.provisioner.run(operation, |_| {}).await.unwrap();
        let now = harness.tenant(tenant.id).await.unwrap();
        assert_eq!((now.status, now.status_before), (before, None));
        assert_eq!(harness.serves(tenant.id).await, before == TenantState::Active);
        let staff = harness
            .inside(&tenant)
            .await
            .query("SELECT FROM staff", &[])
            .await
            .unwrap();
        assert_eq!(staff.len(), 1);
        assert_eq!(admins(&harness, &tenant).await.len(), 1);
        // What it held is there, with its people, to be put back in the same way.
        let client = harness.registry.client().await.unwrap();
        let held = registry::archive_by_operation(&client, operation)
            .await
            .unwrap()
            .unwrap();
        let (_, operation) = harness
            .provisioner
            .request_restore_in_place(held.id, by())
            .await
            .unwrap();
        harness.provisioner.run(operation, |_| {}).await.unwrap();
        assert_eq!(admins(&harness, &tenant).await.len(), 2);
    }
    let leftovers = harness.leftovers().await;
    assert!(
        leftovers.iter().all(|name| name.starts_with("tenant_place-")),
        "{leftovers:?}"
    );
}

#[tokio::test]
async fn a_restore_in_place_can_be_cancelled_until_the_exchange() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let tenant = harness.provisioned("undecided").await;
    let archive = harness.backed_up(&tenant).await;
    for point in ["restore_database/acted", "fence/acted", "verify/acted"] {
        let (_, operation) = harness
            .provisioner
            .request_restore_in_place(archive.id, by())
            .await
            .unwrap();
        die_at(&harness, operation, &format!("restore_in_place/{point}")).await;
        std::fs::remove_file(
            harness
                .space
                .dir()
                .join(format!("restore_in_place/{point}").replace('/', "-")),
        )
        .unwrap();
        harness.provisioner.cancel(operation, by()).await.unwrap();
        let ended = harness.provisioner.run(operation, |_| {}).await.unwrap_err();
        assert!(matches!(ended, ProvisionError::Cancelled { .. }), "{ended}");
        assert!(harness.serves(tenant.id).await, "{point}");
    }
    let (_, operation) = harness
        .provisioner
        .request_restore_in_place(archive.id, by())
        .await
        .unwrap();
    die_at(&harness, operation, "restore_in_place/swap_database/acted").await;
    let late = harness.provisioner.cancel(operation, by()).await.unwrap_err();
    assert!(late.to_string().contains("past the point"), "{late}");
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(harness.serves(tenant.id).await);
    let leftovers = harness.leftovers().await;
    assert!(
        leftovers.iter().all(|name| name == "tenant_undecided"),
        "{leftovers:?}"
    );
}

#[tokio::test]
async fn an_archive_that_cannot_be_trusted_makes_no_laboratory() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("rotten").await;
    let archive = harness.removed(&tenant).await;
    let directory = harness
        .provisioner
        .config()
        .archive_dir
        .join(tenant.id.to_string());
    change_one_byte(&files_in(&directory, ".dump")[0]);
    let (back, operation) = harness
        .provisioner
        .request_restore(archive.id, RestoreAs::default(), by())
        .await
        .unwrap();
    let error = failure(&harness, operation).await;
    assert!(error.contains("cannot be trusted"), "{error}");
    assert!(harness.tenant(back.id).await.is_none());
    assert_eq!(harness.leftovers().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_archive_of_a_newer_schema_or_of_an_earlier_form_is_refused() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("future").await;
    let archive = harness.removed(&tenant).await;
    let client = connect(&harness.space.registry).await;
    client
        .batch_execute("UPDATE archives SET db_version = 9999")
        .await
        .unwrap();
    let ask = || {
        harness
            .provisioner
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
    assert!(harness.tenant(tenant.id).await.is_none());
}

/// As behind a registry that was itself set back to a moment before the laboratory came back.
#[tokio::test]
async fn a_laboratory_that_is_there_though_the_registry_forgot_it_is_left_alone() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("forgotten").await;
    let archive = harness.removed(&tenant).await;
    let restore = || {
        harness
            .provisioner
            .request_restore(archive.id, RestoreAs::default(), by())
    };
    let (back, operation) = restore().await.unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    let newer = "INSERT INTO staff (id, display_name, email, role)
        VALUES (gen_random_uuid(), 'Newer', 'newer@example.org', 'technician')";
    harness.inside(&back).await.batch_execute(newer).await.unwrap();
    let own = harness.own(&harness.tenant(back.id).await.unwrap());
    let registry = harness.registry.client().await.unwrap();
    let forget = "DELETE FROM tenants WHERE id = $1";
    registry.execute(forget, &[&back.id.as_uuid()]).await.unwrap();

    let (_, operation) = restore().await.unwrap();
    let refused = harness
        .provisioner
        .run(operation, |_| {})
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("is there already"), "{refused}");
    assert!(harness.tenant(back.id).await.is_none());
    let rows = connect(&own).await.query("SELECT FROM staff", &[]).await.unwrap();
    assert_eq!(rows.len(), 2, "database, role and password are as they were");
}

/// Failed before the exchange and undone, then tried once more: it must end with the laboratory in service.
#[tokio::test]
async fn a_restore_in_place_that_failed_and_is_tried_again_opens_the_laboratory() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("twice").await;
    let archive = harness.backed_up(&tenant).await;
    let away = format!("{}.away", archive.location);
    std::fs::rename(&archive.location, &away).unwrap();
    let (_, operation) = harness
        .provisioner
        .request_restore_in_place(archive.id, by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap_err();
    assert!(harness.serves(tenant.id).await);
    std::fs::rename(&away, &archive.location).unwrap();
    harness.provisioner.reopen(operation, by()).await.unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    let now = harness.tenant(tenant.id).await.unwrap();
    assert_eq!((now.status, now.status_before), (TenantState::Active, None));
    assert!(harness.serves(tenant.id).await);
}

/// Owner, rights and settings, which are the database's and in no dump of it.
async fn belongings(harness: &Harness, name: &model::DbName) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', pg_get_userbyid(datdba), datconnlimit, datallowconn) FROM pg_database WHERE datname = $1
         UNION ALL
         SELECT concat_ws(' ', pg_get_userbyid(a.grantee), a.privilege_type, a.is_grantable)
           FROM pg_database d, aclexplode(d.datacl) a WHERE d.datname = $1
         UNION ALL
         SELECT concat_ws(' ', pg_get_userbyid(s.setrole), s.setconfig::text)
           FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = $1
         ORDER BY 1";
    let server = connect(&harness.space.server).await;
    let rows = server.query(sql, &[&name.as_str()]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn what_takes_a_databases_place_has_its_owner_its_rights_and_its_settings() {
    let harness = Harness::new().await;
    let old = Old::at(&harness, "heir", 5).await;
    let (tenant, _) = adopted(&harness, &old, "heir").await;
    let archive = harness.backed_up(&tenant).await;
    let (db, user) = (&old.name, &old.user);
    let sql = format!(
        "CREATE ROLE \"{user}_owner\";
         ALTER DATABASE {db} OWNER TO \"{user}_owner\";
         GRANT TEMPORARY ON DATABASE {db} TO \"{user}\" WITH GRANT OPTION;
         ALTER DATABASE {db} SET work_mem = '5MB';
         ALTER DATABASE {db} SET my.words = 'it''s, \"so\"';
         ALTER ROLE \"{user}\" IN DATABASE {db} SET search_path = \"$user\", public, \"a, b\""
    );
    connect(&harness.space.server)
        .await
        .batch_execute(&sql)
        .await
        .unwrap();
    let before = belongings(&harness, db).await;
    assert!(
        before
            .iter()
            .any(|line| line.ends_with("CONNECT f") && line.contains("user")),
        "{before:?}"
    );
    let (_, operation) = harness
        .provisioner
        .request_restore_in_place(archive.id, by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert_eq!(belongings(&harness, db).await, before);
    let own = old.as_user(&harness).await.unwrap();
    let row = own.query_one("SHOW search_path", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "\"$user\", public, \"a, b\"");
    assert!(harness.serves(tenant.id).await);
}

#[tokio::test]
async fn both_databases_are_closed_while_they_change_names_and_the_right_one_opens_again() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let tenant = harness.provisioned("between").await;
    let archive = harness.backed_up(&tenant).await;
    let (_, operation) = harness
        .provisioner
        .request_restore_in_place(archive.id, by())
        .await
        .unwrap();
    die_at(&harness, operation, "restore_in_place/swap_database/closed").await;
    let restored = harness.space.namespace.restored_database(operation);
    for name in [&tenant.db_name, &restored] {
        let target = harness.space.server.with_database(name.as_str());
        let entered = pg::connect(&target, "intruder", crate::harness::PATIENCE);
        assert!(entered.await.is_err(), "{name} is closed");
    }
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(harness.serves(tenant.id).await);
    let limit = &belongings(&harness, &tenant.db_name).await;
    assert!(limit.iter().any(|line| line.ends_with("-1 t")), "{limit:?}");
    assert_eq!(
        harness.leftovers().await,
        ["tenant_between".to_owned(), "tenant_between".to_owned()]
    );
}

/// Somebody changes the restored database at the very moment, so it cannot get its name: nothing was
/// exchanged, and the laboratory is opened again.
#[tokio::test]
async fn an_exchange_that_is_refused_can_be_taken_back() {
    let harness = Harness::with(|config| config.bounds.attempts_max = 1).await;
    let tenant = harness.provisioned("refused").await;
    let archive = harness.backed_up(&tenant).await;
    let (_, operation) = harness
        .provisioner
        .request_restore_in_place(archive.id, by())
        .await
        .unwrap();
    let restored = harness.space.namespace.restored_database(operation);
    let blocker = connect(&harness.space.server).await;
    let (begun, block) = tokio::sync::oneshot::channel();
    let (begun, blocker) = (Mutex::new(Some(begun)), &blocker);
    let (failed, release) = tokio::sync::oneshot::channel();
    let failed = Mutex::new(Some(failed));
    let tell = |to: &Mutex<Option<tokio::sync::oneshot::Sender<()>>>| {
        to.lock().unwrap().take().map(|sender| sender.send(()))
    };
    let running = harness.provisioner.run(operation, |progress| {
        match progress {
            Progress::StepBegan {
                step: Step::Fence, ..
            } => tell(&begun),
            Progress::StepFailed {
                step: Step::SwapDatabase,
                ..
            } => tell(&failed),
            _ => None,
        };
    });
    let blocking = async {
        block.await.unwrap();
        let sql = format!("BEGIN; ALTER DATABASE {restored} CONNECTION LIMIT 7");
        blocker.batch_execute(&sql).await.unwrap();
        release.await.unwrap();
        blocker.batch_execute("ROLLBACK").await.unwrap();
    };
    let (ended, ()) = tokio::join!(running, blocking);
    ended.unwrap_err();
    let client = harness.registry.client().await.unwrap();
    let now = registry::operation_by_id(&client, operation)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((now.status, now.irreversible), (OperationStatus::Failed, false));
    assert!(harness.serves(tenant.id).await, "{:?}", now.error);
    assert_eq!(
        harness.leftovers().await,
        ["tenant_refused".to_owned(), "tenant_refused".to_owned()]
    );
}

/// The laboratory as an earlier binary left it: its database at an earlier version of the schema, with a
/// patient in it.
async fn made_older(harness: &Harness, tenant: &Tenant, version: u32) {
    let (server, name) = (connect(&harness.space.server).await, &tenant.db_name);
    let sql = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1";
    let comment: String = server.query_one(sql, &[&name.as_str()]).await.unwrap().get(0);
    let admin = admins(harness, tenant).await.remove(0);
    for sql in [
        format!("DROP DATABASE {name} WITH (FORCE)"),
        format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'"),
        format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"),
        format!(
            "GRANT CONNECT ON DATABASE {name} TO \"{}\"",
            tenant.role_name.as_str()
        ),
        format!("COMMENT ON DATABASE {name} IS '{comment}'"),
    ] {
        server.batch_execute(&sql).await.unwrap();
    }
    let target = harness.space.server.with_database(name.as_str());
    let mut inside = connect(&target).await;
    migrator::migrate_scratch(&mut inside, &target, SchemaVersion::new(version))
        .await
        .unwrap();
    let sql = format!(
        "INSERT INTO lab_profile (tenant_id, name, tz) VALUES ('{}', 'Elder', 'UTC');
         INSERT INTO staff (id, display_name, email, role) VALUES ('{}', 'Ada', '{}', 'lab_admin');
         INSERT INTO patient (id, mrn, family_name, given_name, family_key, given_key, sex, birth_date)
             VALUES (gen_random_uuid(), 'P1', 'Jones', 'Zoë', 'jones', 'zoe', 'F', '1980-04-01')",
        tenant.id, admin.id, admin.email
    );
    inside.batch_execute(&sql).await.unwrap();
    let client = harness.registry.client().await.unwrap();
    let sql = "UPDATE tenants SET db_version = $2 WHERE id = $1";
    let version = i32::try_from(version).unwrap();
    client
        .execute(sql, &[&tenant.id.as_uuid(), &version])
        .await
        .unwrap();
}

async fn patients(harness: &Harness, tenant: &Tenant) -> Vec<String> {
    let client = pg::connect(&harness.own(tenant), "test", LEASE * 10)
        .await
        .unwrap();
    let sql = "SELECT given_name || ' ' || family_name FROM patient";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn an_archive_of_an_older_schema_is_restored_and_brought_to_this_codes_version() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("elder").await;
    made_older(&harness, &tenant, 5).await;
    let archive = harness.backed_up(&tenant).await;
    assert_eq!(archive.db_version, SchemaVersion::new(5));
    // Beside the one that lives, which stays as it is.
    let (copy, operation) = harness
        .provisioner
        .request_restore(archive.id, beside("younger"), by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    let copy = harness.tenant(copy.id).await.unwrap();
    assert_eq!(
        (copy.status, copy.db_version),
        (TenantState::Active, migrator::latest())
    );
    assert_eq!(patients(&harness, &copy).await, ["Zoë Jones"]);
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().db_version,
        SchemaVersion::new(5)
    );
    // In its place, when it has moved on; and what it held then, which is as old as this code, goes back too.
    let migrate = harness
        .provisioner
        .request_migrate(tenant.id, by())
        .await
        .unwrap();
    harness.provisioner.run(migrate, |_| {}).await.unwrap();
    let (_, operation) = harness
        .provisioner
        .request_restore_in_place(archive.id, by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    let now = harness.tenant(tenant.id).await.unwrap();
    assert_eq!(
        (now.status, now.db_version),
        (TenantState::Active, migrator::latest())
    );
    assert_eq!(patients(&harness, &now).await, ["Zoë Jones"]);
    // And when it is gone, from its removal's own archive.
    let removed = harness.removed(&now).await;
    assert_eq!(removed.db_version, migrator::latest());
    let (_, operation) = harness
        .provisioner
        .request_restore(archive.id, RestoreAs::default(), by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    let back = harness.tenant(tenant.id).await.unwrap();
    assert_eq!(
        (back.status, back.db_version),
        (TenantState::Active, migrator::latest())
    );
    assert_eq!(patients(&harness, &back).await, ["Zoë Jones"]);
}

#[tokio::test]
async fn an_admin_who_was_only_invited_comes_back_without_a_password_and_can_be_invited_again() {
    let harness = Harness::new().await;
    let mut new = lab("invited");
    new.admin.password_hash = None;
    let (asked, operation) = harness.provisioner.request_provision(new, by()).await.unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    let tenant = harness.tenant(asked.id).await.unwrap();
    let week = std::time::Duration::from_secs(604_800);
    let invited = harness
        .provisioner
        .invite_first(tenant.id, week, &by())
        .await
        .unwrap();
    let before = invited.unwrap();
    let archive = harness.removed(&tenant).await;
    let (back, operation) = harness
        .provisioner
        .request_restore(archive.id, RestoreAs::default(), by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    let people = admins(&harness, &harness.tenant(back.id).await.unwrap()).await;
    assert_eq!((people[0].id, hash_of(&people[0])), (before.admin, None));
    // The invitation went with the laboratory.
    let client = harness.registry.client().await.unwrap();
    let digest = identity::invitation_digest(&before.token);
    let found = registry::invitation_by_digest(&client, &digest).await.unwrap();
    assert!(found.is_none());
    let again = harness
        .provisioner
        .invite_first(back.id, week, &by())
        .await
        .unwrap();
    assert_eq!(again.unwrap().admin, before.admin);
}

/// Killed between its last word and the exchange, and then the archive is found wanting: nothing was
/// exchanged, so it is undone.
#[tokio::test]
async fn what_was_cut_off_before_the_exchange_can_be_taken_back() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let tenant = harness.provisioned("before").await;
    let archive = harness.backed_up(&tenant).await;
    let (_, operation) = harness
        .provisioner
        .request_restore_in_place(archive.id, by())
        .await
        .unwrap();
    die_at(&harness, operation, "restore_in_place/swap_database/closed").await;
    let client = harness.registry.client().await.unwrap();
    let made = registry::archive_by_operation(&client, operation).await;
    std::fs::remove_file(made.unwrap().unwrap().location).unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap_err();
    let now = harness.tenant(tenant.id).await.unwrap();
    assert_eq!((now.status, now.status_before), (TenantState::Active, None));
    assert!(harness.serves(tenant.id).await);
}
