//! Databases that lived before us: taken over as they are, refused by name, given back whole.

use std::sync::Arc;

use model::{
    DbName, Email, OperationId, OperationKind, OperationStatus, SchemaVersion, Slug, Step, TenantId,
    TenantState,
};
use provisioner::{AdminEntry, Adoption, ProvisionError, Provisioner};
use registry::{RegistryError, Tenant};
use secrecy::SecretString;
use serde_json::Value;
use tokio_postgres::Client;

use crate::{
    crash::{LEASE, die_at, points_of},
    harness::{Harness, NOW, by, connect},
};

const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$b3du";

/// A laboratory that was run without us: a database, a user of its own, people, a table that we know nothing
/// of.
pub(crate) struct Old {
    pub(crate) name: DbName,
    pub(crate) user: String,
    pub(crate) tenant: TenantId,
}

impl Old {
    pub(crate) async fn at(harness: &Harness, name: &str, version: u32) -> Self {
        Self::made_with(harness, name, version, "").await
    }

    /// With other options of `CREATE DATABASE` too.
    pub(crate) async fn made_with(harness: &Harness, name: &str, version: u32, options: &str) -> Self {
        let namespace = harness.space.namespace.as_str();
        let old = Self {
            name: DbName::from_catalog(format!("{namespace}_old_{name}")).unwrap(),
            user: format!("{namespace}_old_{name}_user"),
            tenant: TenantId::generate(),
        };
        let (db, user) = (&old.name, &old.user);
        let server = connect(&harness.space.server).await;
        for sql in [
            format!("CREATE ROLE \"{user}\" LOGIN PASSWORD 'own'"),
            format!("CREATE DATABASE {db} TEMPLATE template0 ENCODING 'UTF8' {options}"),
            format!("COMMENT ON DATABASE {db} IS 'it''s the old one'"),
        ] {
            server.batch_execute(&sql).await.unwrap();
        }
        let target = harness.space.server.with_database(db.as_str());
        let mut client = connect(&target).await;
        migrator::migrate_scratch(&mut client, &target, SchemaVersion::new(version))
            .await
            .unwrap();
        let sql = format!(
            "DROP TABLE refinery_schema_history;
             CREATE FUNCTION own_answer() RETURNS int LANGUAGE sql AS 'SELECT 42';
             CREATE TABLE own_notes (id int PRIMARY KEY, note text CHECK (note <> ''));
             INSERT INTO own_notes VALUES (1, 'kept');
             ALTER TABLE own_notes OWNER TO \"{user}\";
             GRANT SELECT ON staff TO \"{user}\";
             ALTER TABLE staff ADD COLUMN own_locker int;
             INSERT INTO lab_profile (tenant_id, name, tz) VALUES ('{}', 'The old laboratory', 'Europe/Vienna');
             INSERT INTO staff (id, display_name, email, role, password_hash, created_at) VALUES
                 (gen_random_uuid(), 'Ada Old', 'Ada@old.example', 'lab_admin', '{HASH}', '2020-01-01'),
                 (gen_random_uuid(), 'Tom Old', 'tom@old.example', 'technician', '{HASH}', '2020-01-02')",
            old.tenant
        );
        client.batch_execute(&sql).await.unwrap();
        old
    }

    pub(crate) fn adoption(&self, slug: &str) -> Adoption {
        Adoption {
            database: self.name.clone(),
            slug: Slug::parse(slug).unwrap(),
            server: None,
            baseline: None,
            name: None,
            time_zone: None,
            admin_email: None,
            admin_name: None,
            admin_entry: AdminEntry::Refused,
        }
    }

    async fn inside(&self, harness: &Harness) -> Client {
        connect(&harness.space.server.with_database(self.name.as_str())).await
    }

    /// As its own user logs in.
    pub(crate) async fn as_user(&self, harness: &Harness) -> Result<Client, pg::ConnectError> {
        let password = SecretString::from("own".to_owned());
        let target = harness.space.server.with_user(&self.user, password);
        let target = target.with_database(self.name.as_str());
        pg::connect(&target, "own", std::time::Duration::from_secs(10)).await
    }

    /// Its rows and owners, which nothing may change.
    pub(crate) async fn belongings(&self, harness: &Harness) -> Vec<String> {
        let client = self.inside(harness).await;
        let mut all = Vec::new();
        for sql in [
            // Without the columns that migrations add.
            "SELECT (to_jsonb(s) - 'session_epoch')::text FROM staff s ORDER BY id",
            "SELECT (to_jsonb(p) - 'accept_notice_without_read_back')::text FROM lab_profile p",
            "SELECT n::text FROM own_notes n",
            "SELECT relname || ' ' || pg_get_userbyid(relowner) FROM pg_class
              WHERE relname IN ('staff', 'own_notes', 'lab_profile') ORDER BY 1",
        ] {
            let rows = client.query(sql, &[]).await.unwrap();
            all.extend(rows.iter().map(|row| row.get::<_, String>(0)));
        }
        all
    }

    /// What everybody and the roles we make can do in it, and its comment.
    async fn rights(&self, harness: &Harness) -> Vec<String> {
        let sql = "SELECT 'db ' || a.privilege_type FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
              WHERE d.datname = current_database() AND a.grantee = 0
             UNION ALL SELECT 'schema ' || a.privilege_type FROM pg_namespace n, aclexplode(n.nspacl) a
              WHERE n.nspname = 'public' AND a.grantee = 0
             UNION ALL SELECT 'function ' || p.oid::regprocedure FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
              WHERE p.proname = 'own_answer' AND a.grantee = 0
             UNION ALL SELECT 'group ' || c.relname FROM pg_class c, aclexplode(c.relacl) a
              WHERE pg_get_userbyid(a.grantee) LIKE '%\\_dml%'
             UNION ALL SELECT 'comment ' || shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()
             ORDER BY 1";
        let rows = self.inside(harness).await.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

async fn saw(harness: &Harness, operation: OperationId, step: Step) -> Value {
    let client = harness.registry.client().await.unwrap();
    let steps = registry::steps_of(&client, operation).await.unwrap();
    let row = steps.into_iter().find(|row| row.step == step).unwrap();
    row.saw.unwrap()
}

pub(crate) async fn adopted(harness: &Harness, old: &Old, slug: &str) -> (Tenant, OperationId) {
    let (asked, operation) = harness
        .provisioner
        .request_adopt(old.adoption(slug), by())
        .await
        .unwrap();
    let ended = harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Succeeded);
    (harness.tenant(asked.id).await.unwrap(), operation)
}

#[tokio::test]
async fn an_old_laboratory_becomes_a_tenant_and_keeps_its_people_rows_and_users() {
    let harness = Harness::new().await;
    let old = Old::at(&harness, "demo", 5).await;
    let stranger = format!("{}_old_stranger", harness.space.namespace.as_str());
    let sql = format!("CREATE ROLE \"{stranger}\" LOGIN PASSWORD 'own'");
    connect(&harness.space.server)
        .await
        .batch_execute(&sql)
        .await
        .unwrap();
    let before = old.belongings(&harness).await;
    let (tenant, operation) = adopted(&harness, &old, "demo").await;

    assert_eq!(tenant.id, old.tenant, "the id in its own profile");
    assert_eq!(
        (tenant.status, tenant.db_name.clone()),
        (TenantState::Active, old.name.clone())
    );
    assert_eq!(tenant.db_version, migrator::latest());
    assert_eq!(
        (tenant.name.as_str(), tenant.time_zone.as_str()),
        ("The old laboratory", "Europe/Vienna")
    );
    assert_eq!(old.belongings(&harness).await, before);
    assert_eq!(saw(&harness, operation, Step::Baseline).await["version"], 5);
    let secured = saw(&harness, operation, Step::SecureDatabase).await;
    assert_eq!(secured["kept_open_to"], serde_json::json!([old.user]));

    // The admin logs in through the registry from now on: with the same id and the same password.
    let client = harness.registry.client().await.unwrap();
    let admins = registry::admins_of(&client, tenant.id).await.unwrap();
    let [admin] = admins.as_slice() else {
        panic!("{admins:?}")
    };
    let known = old.inside(&harness).await;
    let known = known
        .query_one(
            "SELECT id, password_hash FROM staff WHERE role = 'lab_admin'",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(admin.id.as_uuid(), known.get::<_, uuid::Uuid>(0));
    let hash = admin.password_hash.as_ref().unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(hash), HASH);

    // Its own user works on; a stranger does not get in any more.
    let user = old.as_user(&harness).await.unwrap();
    user.batch_execute(
        "SELECT * FROM staff; UPDATE own_notes SET note = note; SELECT own_answer(); CREATE TEMP TABLE t ()",
    )
    .await
    .unwrap();
    let shut = Old {
        name: old.name.clone(),
        user: stranger,
        tenant: old.tenant,
    };
    let refused = shut.as_user(&harness).await.unwrap_err();
    assert_eq!(
        refused.code(),
        Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE)
    );

    // The history is the one that a run would have written: another run takes it for its own and has nothing
    // to do.
    let target = harness.space.server.with_database(old.name.as_str());
    migrator::migrate_database(&target, &harness.space.namespace.tenant_group(tenant.id))
        .await
        .unwrap();
    let again = harness.provisioned("made").await;
    let history = "SELECT version, name, checksum FROM refinery_schema_history ORDER BY version";
    let rows = async |client: Client| -> Vec<(i32, String, String)> {
        let rows = client.query(history, &[]).await.unwrap();
        rows.iter()
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect()
    };
    assert_eq!(
        rows(old.inside(&harness).await).await,
        rows(harness.inside(&again).await).await
    );

    // And it goes the way of any other.
    drop(user);
    harness.provisioner.suspend(tenant.id, by()).await.unwrap();
    harness.provisioner.resume(tenant.id, by()).await.unwrap();
    let offboard = harness
        .provisioner
        .request_offboard(tenant.id, NOW, by())
        .await
        .unwrap();
    harness.provisioner.run(offboard, |_| {}).await.unwrap();
    assert!(harness.tenant(tenant.id).await.is_none());
}

#[tokio::test]
async fn each_version_is_told_by_what_is_there() {
    let harness = Harness::new().await;
    for version in 1..=migrator::latest().number() {
        let old = Old::at(&harness, &format!("v{version}"), version).await;
        let before = old.belongings(&harness).await;
        let (_, operation) = adopted(&harness, &old, &format!("lab-v{version}")).await;
        let found = saw(&harness, operation, Step::Baseline).await;
        assert_eq!(found["version"], version, "{found}");
        assert_eq!(old.belongings(&harness).await, before, "V{version}");
    }
    let left = harness.leftovers().await;
    assert!(left.iter().all(|name| !name.contains("scratch")), "{left:?}");
}

async fn refused(harness: &Harness, wanted: Adoption) -> String {
    match harness.provisioner.request_adopt(wanted, by()).await {
        Err(ProvisionError::Invalid { field, why }) => format!("{field}: {why}"),
        Err(error @ (ProvisionError::NotAdoptable { .. } | ProvisionError::NoSuchDatabase { .. })) => {
            format!("database: {error}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_adopted_is_refused_at_once_with_the_reason() {
    let harness = Harness::new().await;
    let old = waiting(&harness, "odd").await;
    let of = |name: &str| Adoption {
        database: DbName::from_catalog(name).unwrap(),
        ..old.adoption("odd")
    };
    let template = harness.provisioned("other").await;
    let namespace = harness.space.namespace.as_str();
    for (name, why) in [
        ("postgres", "Tenantry's own"),
        ("template1", "template"),
        (harness.space.registry.database.as_str(), "it is the registry"),
        (&format!("{namespace}_nothing"), "has no database"),
    ] {
        let said = refused(&harness, of(name)).await;
        assert!(said.starts_with("database: ") && said.contains(why), "{said}");
    }
    let taken = harness
        .provisioner
        .request_adopt(of(template.db_name.as_str()), by())
        .await;
    assert!(matches!(
        taken,
        Err(ProvisionError::Registry(RegistryError::DatabaseTaken { .. }))
    ));
    let stranger = Adoption {
        admin_email: Some(Email::parse("eve@old.example").unwrap()),
        ..old.adoption("odd")
    };
    assert!(refused(&harness, stranger).await.starts_with("admin.password: "));
    let technician = Adoption {
        admin_email: Some(Email::parse("tom@old.example").unwrap()),
        ..old.adoption("odd")
    };
    assert!(refused(&harness, technician).await.starts_with("admin.email: "));
    let sql = format!(
        "COMMENT ON DATABASE {} IS 'tenantry laboratory {}'",
        old.name,
        TenantId::generate()
    );
    old.inside(&harness).await.batch_execute(&sql).await.unwrap();
    let said = refused(&harness, old.adoption("odd")).await;
    assert!(said.contains("marked as another's"), "{said}");
}

/// Asks for an adoption that is refused before anything is made, and gives the reason.
async fn refusal(harness: &Harness, wanted: Adoption) -> String {
    let error = harness.provisioner.request_adopt(wanted, by()).await.unwrap_err();
    let client = harness.registry.client().await.unwrap();
    let all = registry::OperationFilter::default();
    let operations = registry::operations_list(&client, &all, None, 10).await.unwrap();
    assert!(operations.is_empty(), "{error}: {operations:?}");
    let left = harness.leftovers().await;
    assert!(left.iter().all(|name| name.starts_with("old_")), "{left:?}");
    error.to_string()
}

#[tokio::test]
async fn a_half_present_version_and_a_wrong_baseline_are_named_and_nothing_is_changed() {
    let harness = Harness::new().await;
    let old = Old::at(&harness, "half", 5).await;
    let (before, rights) = (old.belongings(&harness).await, old.rights(&harness).await);
    let wrong = |baseline: u32| Adoption {
        baseline: Some(SchemaVersion::new(baseline)),
        ..old.adoption("half")
    };
    let said = refusal(&harness, wrong(4)).await;
    assert!(said.contains("version 5 is half there"), "{said}");
    let said = refusal(&harness, wrong(6)).await;
    assert!(said.contains("not at version 6"), "{said}");
    old.inside(&harness)
        .await
        .batch_execute("CREATE TABLE result (id uuid PRIMARY KEY)")
        .await
        .unwrap();
    let said = refusal(&harness, old.adoption("half")).await;
    assert!(
        said.contains("version 6 is half there") && said.contains("result"),
        "{said}"
    );
    assert_eq!(old.belongings(&harness).await, before);
    assert_eq!(old.rights(&harness).await, rights);
    old.as_user(&harness).await.unwrap();
    old.inside(&harness)
        .await
        .batch_execute("DROP TABLE result")
        .await
        .unwrap();
    adopted(&harness, &old, "half").await;
}

#[tokio::test]
async fn an_adoption_that_fails_late_gives_the_database_back() {
    let harness = Harness::new().await;
    let old = Old::at(&harness, "late", 5).await;
    let (before, rights) = (old.belongings(&harness).await, old.rights(&harness).await);
    let mut config = harness.provisioner.config().clone();
    config.seed = Arc::new(|_, _| Box::pin(async { Err("no seed today".into()) }));
    let broken = Provisioner::new(config);
    let (tenant, operation) = broken.request_adopt(old.adoption("late"), by()).await.unwrap();
    let error = broken.run(operation, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("no seed today"), "{error}");
    assert!(harness.tenant(tenant.id).await.is_none());
    assert_eq!(old.belongings(&harness).await, before);
    assert_eq!(old.rights(&harness).await, rights);
    let left = harness.leftovers().await;
    assert!(left.iter().all(|name| name.starts_with("old_")), "{left:?}");
    // Once more: now it has a history of its own.
    let (_, operation) = adopted(&harness, &old, "late").await;
    assert_eq!(
        saw(&harness, operation, Step::Baseline).await["by"],
        "its own history"
    );
}

/// Waits to be adopted in nobody's way: a database that is open to everybody fails the check of others.
pub(crate) async fn waiting(harness: &Harness, name: &str) -> Old {
    let old = Old::at(harness, name, 7).await;
    let sql = format!(
        "REVOKE ALL ON DATABASE {0} FROM PUBLIC; GRANT CONNECT ON DATABASE {0} TO \"{1}\"",
        old.name, old.user
    );
    old.inside(harness).await.batch_execute(&sql).await.unwrap();
    old
}

#[tokio::test]
async fn adopting_ends_well_wherever_its_worker_died() {
    let harness = Harness::with(|config| config.lease = LEASE).await;
    let mut asked = Vec::new();
    for (at, (step, moment)) in points_of(provisioner::steps(OperationKind::Adopt)).enumerate() {
        let old = waiting(&harness, &format!("lab{at}")).await;
        let before = old.belongings(&harness).await;
        let (_, operation) = harness
            .provisioner
            .request_adopt(old.adoption(&format!("lab-{at}")), by())
            .await
            .unwrap();
        die_at(&harness, operation, &format!("adopt/{step}/{moment}")).await;
        asked.push((step, moment, old, before, operation));
    }
    for (step, moment, old, before, operation) in asked {
        let ended = harness.provisioner.run(operation, |_| {}).await.unwrap();
        assert_eq!(ended.status, OperationStatus::Succeeded, "{step} {moment}");
        let tenant = harness.tenant(old.tenant).await.unwrap();
        assert_eq!(tenant.db_version, migrator::latest(), "{step} {moment}");
        assert_eq!(
            saw(&harness, operation, Step::Baseline).await["version"],
            7,
            "{step} {moment}"
        );
        assert_eq!(old.belongings(&harness).await, before, "{step} {moment}");
        let user = old.as_user(&harness).await.unwrap();
        user.batch_execute("SELECT * FROM own_notes; SELECT own_answer()")
            .await
            .unwrap();
    }
    let left = harness.leftovers().await;
    assert!(left.iter().all(|name| !name.contains("scratch")), "{left:?}");
}

#[tokio::test]
async fn giving_back_ends_well_wherever_its_worker_died() {
    let harness = Harness::with(|config| {
        config.lease = LEASE;
        config.seed = Arc::new(|_, _| Box::pin(async { Err("no seed today".into()) }));
    })
    .await;
    let mut asked = Vec::new();
    for (at, (step, moment)) in points_of(provisioner::undo_steps(OperationKind::Adopt)).enumerate() {
        let old = waiting(&harness, &format!("lab{at}")).await;
        let (before, rights) = (old.belongings(&harness).await, old.rights(&harness).await);
        let (_, operation) = harness
            .provisioner
            .request_adopt(old.adoption(&format!("lab-{at}")), by())
            .await
            .unwrap();
        die_at(&harness, operation, &format!("adopt/undo/{step}/{moment}")).await;
        asked.push((step, moment, old, before, rights, operation));
    }
    for (step, moment, old, before, rights, operation) in asked {
        let error = harness
            .provisioner
            .run(operation, |_| {})
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("no seed today"), "{error}");
        assert!(harness.tenant(old.tenant).await.is_none(), "{step} {moment}");
        assert_eq!(old.belongings(&harness).await, before, "{step} {moment}");
        assert_eq!(old.rights(&harness).await, rights, "{step} {moment}");
        old.as_user(&harness).await.unwrap();
    }
    let left = harness.leftovers().await;
    assert!(left.iter().all(|name| name.starts_with("old_")), "{left:?}");
}

/// The owner's functions and operators, in front of the server's own wherever the database's own path is
/// followed. Each writes down who ran it.
const TRAP: &str = "CREATE SCHEMA trap;
    CREATE TABLE trap.caught (who text, what text);
    GRANT ALL ON SCHEMA trap TO PUBLIC;
    GRANT ALL ON trap.caught TO PUBLIC;
    CREATE FUNCTION trap.lower(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO trap.caught VALUES (current_user, 'lower'); RETURN pg_catalog.lower($1); END $$;
    CREATE FUNCTION trap.to_regclass(text) RETURNS regclass LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO trap.caught VALUES (current_user, 'to_regclass'); RETURN pg_catalog.to_regclass($1); END $$;
    CREATE FUNCTION trap.has_schema_privilege(text, text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO trap.caught VALUES (current_user, 'has_schema_privilege'); RETURN false; END $$;
    CREATE FUNCTION trap.to_regnamespace(text) RETURNS regnamespace LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO trap.caught VALUES (current_user, 'to_regnamespace'); RETURN pg_catalog.to_regnamespace($1); END $$;
    CREATE FUNCTION trap.same(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO trap.caught VALUES (current_user, '='); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
    CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.same)";

#[tokio::test]
async fn functions_of_the_databases_owner_stand_for_none_of_the_servers_own() {
    let harness = Harness::new().await;
    let old = Old::at(&harness, "trapped", 5).await;
    let inside = old.inside(&harness).await;
    inside.batch_execute(TRAP).await.unwrap();
    let path = format!(
        "ALTER DATABASE {} SET search_path = trap, pg_catalog, public",
        old.name
    );
    inside.batch_execute(&path).await.unwrap();
    // The trap is set: whoever follows the database's path walks into it.
    let victim = old.inside(&harness).await;
    victim.batch_execute("SELECT lower('A')").await.unwrap();
    let caught = async || -> Vec<String> {
        let sql = "SELECT what FROM trap.caught WHERE who OPERATOR(pg_catalog.=) $1";
        let rows = inside.query(sql, &[&harness.space.server.user]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(caught().await, ["lower"]);
    inside.batch_execute("TRUNCATE trap.caught").await.unwrap();

    let by_address = Adoption {
        admin_email: Some(Email::parse("ada@old.example").unwrap()),
        ..old.adoption("trapped")
    };
    let (asked, operation) = harness.provisioner.request_adopt(by_address, by()).await.unwrap();
    assert_eq!(caught().await, [] as [&str; 0], "when it was asked for");
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert_eq!(caught().await, [] as [&str; 0], "while it was adopted");
    let tenant = harness.tenant(asked.id).await.unwrap();
    assert_eq!(tenant.db_version, migrator::latest());
    // And as any laboratory's afterwards.
    let backup = harness.provisioner.request_backup(tenant.id, by()).await.unwrap();
    harness.provisioner.run(backup, |_| {}).await.unwrap();
    let migrate = harness
        .provisioner
        .request_migrate(tenant.id, by())
        .await
        .unwrap();
    harness.provisioner.run(migrate, |_| {}).await.unwrap();
    harness.provisioner.examine(true).await.unwrap();
    assert_eq!(caught().await, [] as [&str; 0], "afterwards");
}

#[tokio::test]
async fn what_would_run_something_of_its_owners_when_it_is_read_is_refused_unread() {
    let harness = Harness::new().await;
    for (name, table, made, why) in [
        (
            "view",
            "staff",
            "CREATE FUNCTION caught() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'it was read'; END $$;
             ALTER TABLE staff RENAME TO own_staff;
             CREATE VIEW staff AS SELECT * FROM own_staff WHERE caught()",
            "it is no table",
        ),
        (
            "cast",
            "lab_profile",
            "CREATE TYPE own_name AS (text text);
             CREATE FUNCTION caught(own_name) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'it was read'; END $$;
             CREATE CAST (own_name AS text) WITH FUNCTION caught(own_name) AS IMPLICIT;
             ALTER TABLE lab_profile RENAME TO own_profile;
             CREATE TABLE lab_profile (tenant_id uuid, name own_name, tz text)",
            "its column name has a type that is not the server's own",
        ),
    ] {
        let old = Old::at(&harness, name, 5).await;
        old.inside(&harness).await.batch_execute(made).await.unwrap();
        let said = refused(&harness, old.adoption(name)).await;
        assert!(said.contains(table) && said.contains(why), "{said}");
    }
    // A history that is none is refused as well.
    let old = Old::at(&harness, "history", 5).await;
    let made = "CREATE FUNCTION caught() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE 'it was read'; END $$;
         CREATE VIEW refinery_schema_history AS SELECT caught() AS version, '' AS name, '' AS applied_on, '' AS checksum";
    old.inside(&harness).await.batch_execute(made).await.unwrap();
    let said = refusal(&harness, old.adoption("history")).await;
    assert!(
        said.contains("is no table") && !said.contains("it was read"),
        "{said}"
    );
}

#[tokio::test]
async fn functions_in_indexes_are_not_run_by_looking_at_a_database() {
    let harness = Harness::new().await;
    // Planning a SELECT would run it; making the index does, too, so it is armed afterwards.
    let trap = "CREATE FUNCTION caught() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
            IF pg_catalog.to_regclass('public.armed') IS NOT NULL THEN RAISE 'it was read'; END IF; RETURN true; END $$;
         CREATE INDEX ON lab_profile (tenant_id) WHERE public.caught();
         CREATE INDEX ON staff (id) WHERE public.caught();
         CREATE INDEX ON test_def ((code || public.caught()::text))";
    let history = "CREATE TABLE refinery_schema_history (version int4 PRIMARY KEY, name varchar(255), applied_on varchar(255), checksum varchar(255));
         INSERT INTO refinery_schema_history VALUES (5, 'own', '2025-01-01T00:00:00Z', '1');
         CREATE INDEX ON refinery_schema_history (name) WHERE public.caught()";
    for (name, more, why) in [
        ("unversioned", "", "version 5 is half there"),
        ("versioned", history, "history says version 5, not 4"),
    ] {
        let old = Old::at(&harness, name, 5).await;
        let made = format!("{trap}; {more}; CREATE TABLE armed ()");
        let inside = old.inside(&harness).await;
        inside.batch_execute(&made).await.unwrap();
        let set = inside.batch_execute("SELECT name FROM lab_profile").await;
        assert!(set.is_err_and(|error| pg::describe(&error).contains("it was read")));
        let wanted = Adoption {
            baseline: Some(SchemaVersion::new(4)),
            ..old.adoption(name)
        };
        let said = refusal(&harness, wanted).await;
        assert!(said.contains(why), "{said}");
    }
}

#[tokio::test]
async fn an_administrator_without_a_password_is_invited_where_that_is_wished() {
    let harness = Harness::new().await;
    let old = Old::at(&harness, "invited", 5).await;
    let sql = "UPDATE staff SET password_hash = NULL WHERE role = 'lab_admin'";
    old.inside(&harness).await.batch_execute(sql).await.unwrap();
    let said = refused(&harness, old.adoption("invited")).await;
    assert!(
        said.starts_with("admin.password: ") && said.contains("invite"),
        "{said}"
    );
    let wanted = Adoption {
        admin_entry: AdminEntry::Invited,
        ..old.adoption("invited")
    };
    let (tenant, operation) = harness.provisioner.request_adopt(wanted, by()).await.unwrap();
    let week = std::time::Duration::from_secs(604_800);
    let invited = harness
        .provisioner
        .invite_first(tenant.id, week, &by())
        .await
        .unwrap();
    assert_eq!(invited.unwrap().email.as_str(), "Ada@old.example");
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    let client = harness.registry.client().await.unwrap();
    let admins = registry::admins_of(&client, tenant.id).await.unwrap();
    assert!(admins[0].password_hash.is_none());

    // Whoever has a password keeps it, and nobody is invited.
    let old = Old::at(&harness, "kept", 5).await;
    let wanted = Adoption {
        admin_entry: AdminEntry::Invited,
        ..old.adoption("kept")
    };
    let (tenant, operation) = harness.provisioner.request_adopt(wanted, by()).await.unwrap();
    assert!(
        harness
            .provisioner
            .invite_first(tenant.id, week, &by())
            .await
            .unwrap()
            .is_none()
    );
    harness.provisioner.run(operation, |_| {}).await.unwrap();
}
