//! The walls between laboratories: who may connect where, what a role may do to the server and to itself.

use std::sync::Arc;

use model::{ArchiveId, DbName, OperationStatus, Slug};
use provisioner::{FindingKind, Provisioner, RestoreAs};
use registry::Tenant;
use tokio_postgres::{Client, error::SqlState};

use crate::{
    adopt::{Old, adopted},
    harness::{Harness, by, connect},
};

impl Harness {
    pub(crate) async fn superuser(&self) -> Client {
        connect(&self.space.server).await
    }

    /// How a laboratory's role is received by any database of the server.
    async fn refusal(&self, tenant: &Tenant, database: &DbName) -> Option<SqlState> {
        let target = self.own(tenant).with_database(database.as_str());
        let outcome = pg::connect(&target, "intruder", crate::harness::PATIENCE).await;
        outcome.err().and_then(|error| error.code().cloned())
    }

    /// Whether the role, were it let in, could work in the other's database.
    async fn works_in(&self, tenant: &Tenant, database: &DbName) -> bool {
        let admin = self.superuser().await;
        let role = &tenant.role_name;
        let grant = format!("GRANT CONNECT ON DATABASE {database} TO {role}");
        admin.batch_execute(&grant).await.unwrap();
        let own = connect(&self.own(tenant).with_database(database.as_str())).await;
        let works = own.batch_execute("SELECT * FROM public.staff").await.is_ok();
        drop(own);
        let revoke = format!("REVOKE CONNECT ON DATABASE {database} FROM {role}");
        admin.batch_execute(&revoke).await.unwrap();
        works
    }
}

#[tokio::test]
async fn adopting_a_database_opens_it_to_no_other_laboratory() {
    let harness = Harness::new().await;
    let other = harness.provisioned("other").await;
    let old = Old::at(&harness, "shared", 5).await;
    let (tenant, _) = adopted(&harness, &old, "shared").await;
    assert_eq!(
        harness.refusal(&other, &tenant.db_name).await,
        Some(SqlState::INSUFFICIENT_PRIVILEGE)
    );
    harness.healthy().await;
}

#[tokio::test]
async fn a_role_that_is_let_into_another_laboratory_by_mistake_can_do_nothing_there() {
    let harness = Harness::new().await;
    let (other, made) = (
        harness.provisioned("other").await,
        harness.provisioned("made").await,
    );
    let old = Old::at(&harness, "walled", 5).await;
    let (taken, _) = adopted(&harness, &old, "walled").await;
    let archive = harness.backed_up(&made).await;
    let copy = restored(&harness, archive.id, Some("copy")).await;
    for database in [&made.db_name, &taken.db_name, &copy.db_name] {
        assert!(!harness.works_in(&other, database).await, "{database}");
    }
    // Not even the laboratory that the copy was made of.
    assert!(!harness.works_in(&made, &copy.db_name).await);
    assert!(harness.serves(copy.id).await && harness.serves(made.id).await && harness.serves(taken.id).await);
    harness.healthy().await;
}

#[tokio::test]
async fn an_undone_adoption_takes_back_every_right_that_it_gave() {
    let harness = Harness::new().await;
    harness.provisioned("other").await;
    let old = Old::at(&harness, "undone", 5).await;
    let before = acls(&harness, &old.name).await;
    let mut config = harness.provisioner.config().clone();
    config.seed = Arc::new(|_, _| Box::pin(async { Err("no seed today".into()) }));
    let broken = Provisioner::new(config);
    let (_, operation) = broken.request_adopt(old.adoption("undone"), by()).await.unwrap();
    broken.run(operation, |_| {}).await.unwrap_err();
    assert_eq!(acls(&harness, &old.name).await, before);
}

/// Every right on the database, its schema and its functions, as grantee and right. The default is written
/// out.
async fn acls(harness: &Harness, database: &DbName) -> Vec<String> {
    let inside = connect(&harness.space.server.with_database(database.as_str())).await;
    let rows = inside
        .query(
            "SELECT x.what || ' ' || x.grantee::regrole::text || ' ' || x.privilege_type FROM (
                SELECT 'database' AS what, a.grantee, a.privilege_type FROM pg_database d,
                       aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a WHERE d.datname = current_database()
                UNION ALL SELECT 'schema', a.grantee, a.privilege_type FROM pg_namespace n, aclexplode(n.nspacl) a
                 WHERE n.nspname = 'public'
                UNION ALL SELECT p.oid::regprocedure::text, a.grantee, a.privilege_type FROM pg_proc p,
                       aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                 WHERE p.proname IN ('own_answer', 'lo_create', 'lo_creat', 'lo_from_bytea', 'pg_logical_emit_message')) x
             ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn restored(harness: &Harness, archive: ArchiveId, slug: Option<&str>) -> Tenant {
    let restore_as = RestoreAs {
        slug: slug.map(|slug| Slug::parse(slug).unwrap()),
        server: None,
    };
    let asked = harness
        .provisioner
        .request_restore(archive, restore_as, by())
        .await;
    let (tenant, operation) = asked.unwrap();
    let ended = harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Succeeded);
    harness.tenant(tenant.id).await.unwrap()
}

#[tokio::test]
async fn a_laboratorys_role_cannot_exhaust_the_server() {
    let harness = Harness::new().await;
    let old = Old::at(&harness, "greedy", 5).await;
    let (adopted, _) = adopted(&harness, &old, "greedy").await;
    for tenant in [harness.provisioned("made").await, adopted] {
        let own = harness.own(&tenant);
        let first = connect(&own).await;
        for refused in [
            "SELECT lo_create(0)",
            "SELECT lo_creat(-1)",
            "SELECT lo_from_bytea(0, 'x')",
            "SELECT pg_logical_emit_message(false, 'x', 'x')",
            "SET temp_file_limit = -1",
            "CREATE TEMPORARY TABLE mine ()",
        ] {
            let error = first.batch_execute(refused).await.expect_err(refused);
            assert_eq!(
                error.code(),
                Some(&SqlState::INSUFFICIENT_PRIVILEGE),
                "{refused}: {error}"
            );
        }
        let row = first.query_one("SHOW temp_file_limit", &[]).await.unwrap();
        assert_ne!(row.get::<_, String>(0), "-1");
        let row = first
            .query_one(
                "SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user",
                &[],
            )
            .await
            .unwrap();
        let limit: i32 = row.get(0);
        assert!((1..=200).contains(&limit), "{limit}");
    }
    // The laboratory's own user keeps what it could do with large objects.
    let user = old.as_user(&harness).await.unwrap();
    user.batch_execute("SELECT lo_create(0)").await.unwrap();
    harness.healthy().await;
}

async fn changes_its_password(harness: &Harness, tenant: &Tenant) {
    let own = connect(&harness.own(tenant)).await;
    own.batch_execute("ALTER ROLE CURRENT_USER PASSWORD 'changed-by-itself'")
        .await
        .unwrap();
    drop(own);
    assert!(!harness.serves(tenant.id).await);
}

#[tokio::test]
async fn a_password_that_a_role_changed_is_found_by_logging_in_and_put_back() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("changed").await;
    changes_its_password(&harness, &tenant).await;
    let report = harness.provisioner.examine(true).await.unwrap();
    let found: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(found.len(), 1, "{:#?}", report.findings);
    assert_eq!(report.findings[0].subject, tenant.role_name.as_str());
    assert!(report.findings[0].fixable, "{:#?}", report.findings);
    harness.provisioner.fix(true, by()).await.unwrap();
    assert!(harness.serves(tenant.id).await);
    harness.healthy().await;
}

#[tokio::test]
async fn a_setting_with_which_a_role_shut_itself_out_is_found_and_taken_back() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("readonly").await;
    let own = connect(&harness.own(&tenant)).await;
    own.batch_execute(
        "ALTER ROLE CURRENT_USER SET default_transaction_read_only = on; ALTER ROLE CURRENT_USER SET search_path = 'nowhere'",
    )
    .await
    .unwrap();
    drop(own);
    let report = harness.provisioner.examine(true).await.unwrap();
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    harness.provisioner.fix(true, by()).await.unwrap();
    let own = connect(&harness.own(&tenant)).await;
    own.batch_execute("UPDATE lab_profile SET name = name")
        .await
        .unwrap();
    harness.healthy().await;
}

#[tokio::test]
async fn suspending_and_resuming_and_a_restore_in_place_put_a_changed_password_back() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("changed").await;
    let archive = harness.backed_up(&tenant).await;
    changes_its_password(&harness, &tenant).await;
    harness.provisioner.suspend(tenant.id, by()).await.unwrap();
    harness.provisioner.resume(tenant.id, by()).await.unwrap();
    assert!(harness.serves(tenant.id).await, "after resuming");

    changes_its_password(&harness, &tenant).await;
    let operation = harness
        .provisioner
        .request_restore_in_place(archive.id, by())
        .await
        .unwrap()
        .1;
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(harness.serves(tenant.id).await, "after a restore in place");

    changes_its_password(&harness, &tenant).await;
    let operation = harness
        .provisioner
        .request_migrate(tenant.id, by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(harness.serves(tenant.id).await, "after migrating");
    harness.healthy().await;
}

/// `CREATE DATABASE` lets everybody in: on a server that others use, too, there are always such databases.
#[tokio::test]
async fn a_database_of_somebody_else_that_is_open_to_everybody_does_not_keep_laboratories_from_being_made() {
    let harness = Harness::new().await;
    let foreign = harness.named("of_somebody_else");
    let admin = harness.superuser().await;
    admin
        .batch_execute(&format!("CREATE DATABASE {foreign}"))
        .await
        .unwrap();
    let tenant = harness.provisioned("neighbour").await;
    assert!(harness.serves(tenant.id).await);
}

#[tokio::test]
async fn a_database_that_was_renamed_by_hand_serves_again_when_it_is_renamed_back() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("renamed").await;
    let admin = harness.superuser().await;
    let aside = harness.named("renamed_by_hand");
    let name = &tenant.db_name;
    admin
        .batch_execute(&format!("ALTER DATABASE {name} RENAME TO {aside}"))
        .await
        .unwrap();
    let report = harness.provisioner.fix(true, by()).await.unwrap();
    let found: Vec<_> = report
        .findings
        .iter()
        .map(|finding| (finding.kind, finding.subject.as_str()))
        .collect();
    assert_eq!(
        found,
        [(FindingKind::MissingDatabase, name.as_str())],
        "{:#?}",
        report.findings
    );
    let advice = format!("{} {}", report.findings[0].seen, report.findings[0].advice);
    assert!(
        advice.contains(&format!("ALTER DATABASE \"{aside}\" RENAME TO {name}")),
        "{advice}"
    );
    admin
        .batch_execute(&format!("ALTER DATABASE {aside} RENAME TO {name}"))
        .await
        .unwrap();
    assert!(harness.serves(tenant.id).await);
    harness.healthy().await;
}

/// What `doctor --deep` holds every installation to after each kind of operation.
#[tokio::test]
async fn after_every_operation_that_changes_rights_the_doctor_finds_nothing() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("whole").await;
    harness.healthy().await;
    harness.provisioner.suspend(tenant.id, by()).await.unwrap();
    harness.healthy().await;
    harness.provisioner.resume(tenant.id, by()).await.unwrap();
    harness.healthy().await;
    let archive = harness.backed_up(&tenant).await;
    harness.healthy().await;
    let operation = harness
        .provisioner
        .request_restore_in_place(archive.id, by())
        .await
        .unwrap()
        .1;
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    harness.healthy().await;
    let operation = harness
        .provisioner
        .request_migrate(tenant.id, by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    harness.healthy().await;
}

#[tokio::test]
async fn after_a_removal_its_cancellation_and_the_way_back_the_doctor_finds_nothing() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("whole").await;
    let month = std::time::Duration::from_secs(30 * 86_400);
    let operation = harness
        .provisioner
        .request_offboard(tenant.id, month, by())
        .await
        .unwrap();
    let _waits = harness.provisioner.run(operation, |_| {}).await;
    harness.healthy().await;
    harness.provisioner.cancel(operation, by()).await.unwrap();
    let _undone = harness.provisioner.run(operation, |_| {}).await;
    harness.healthy().await;
    assert!(harness.serves(tenant.id).await);
    let removed = harness.removed(&tenant).await;
    harness.healthy().await;
    assert_eq!(harness.leftovers().await, Vec::<String>::new());
    // Its archive can still be verified, and comes back.
    let asked = harness.provisioner.request_verify_archive(removed.id, by()).await;
    harness.provisioner.run(asked.unwrap().1, |_| {}).await.unwrap();
    harness.healthy().await;
    assert_eq!(harness.leftovers().await, Vec::<String>::new());
    let back = restored(&harness, removed.id, None).await;
    assert!(harness.serves(back.id).await);
    harness.healthy().await;
}

/// As earlier versions left it: one group for all laboratories, and others let in by an adoption.
async fn as_before(harness: &Harness, tenant: &Tenant, others: &[&Tenant]) {
    let (admin, shared) = (harness.superuser().await, harness.space.namespace.shared_group());
    let (group, role) = (harness.space.namespace.tenant_group(tenant.id), &tenant.role_name);
    let database = &tenant.db_name;
    let rights = "SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public";
    let inside = harness.inside(tenant).await;
    migrator::group_ensure(&admin, &shared).await.unwrap();
    for sql in [
        format!("GRANT USAGE ON SCHEMA public TO {shared}; GRANT {rights} TO {shared}"),
        format!(
            "REVOKE ALL ON SCHEMA public FROM {group}; {}",
            migrator::rights_take(&group)
        ),
        format!("GRANT {shared} TO {role}; DROP ROLE {group}"),
        format!("ALTER ROLE {role} CONNECTION LIMIT -1; ALTER ROLE {role} RESET ALL"),
    ] {
        inside
            .batch_execute(&sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    for other in others {
        let role = &other.role_name;
        let sql =
            format!("GRANT CONNECT ON DATABASE {database} TO {role}; GRANT USAGE ON SCHEMA public TO {role}");
        inside.batch_execute(&sql).await.unwrap();
    }
}

#[tokio::test]
async fn an_installation_of_an_earlier_version_is_found_and_brought_behind_the_walls() {
    let harness = Harness::new().await;
    let (one, two) = (harness.provisioned("one").await, harness.provisioned("two").await);
    as_before(&harness, &one, &[&two]).await;
    as_before(&harness, &two, &[]).await;
    let report = harness.provisioner.examine(true).await.unwrap();
    let mut kinds: Vec<FindingKind> = report.findings.iter().map(|finding| finding.kind).collect();
    kinds.sort();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            FindingKind::RoleReachesElsewhere,
            FindingKind::RightsUnsettled,
            FindingKind::RoleUnbounded
        ],
        "{:#?}",
        report.findings
    );
    assert!(harness.serves(one.id).await && harness.serves(two.id).await);
    let fixed = harness.provisioner.fix(true, by()).await.unwrap();
    assert_eq!(fixed.left(), 0, "{:#?}", fixed.findings);
    assert!(harness.serves(one.id).await && harness.serves(two.id).await);
    assert!(!harness.works_in(&two, &one.db_name).await);
    harness.healthy().await;
}

#[tokio::test]
async fn an_archive_of_an_earlier_version_is_verified_and_restored_behind_the_walls() {
    let harness = Harness::new().await;
    let (old, other) = (
        harness.provisioned("old").await,
        harness.provisioned("other").await,
    );
    as_before(&harness, &old, &[]).await;
    let archive = harness.backed_up(&old).await;
    let operation = harness.provisioner.request_migrate(old.id, by()).await.unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    harness.provisioner.fix(true, by()).await.unwrap();
    harness.healthy().await;
    let copy = restored(&harness, archive.id, Some("copy")).await;
    assert!(harness.serves(copy.id).await);
    assert!(!harness.works_in(&other, &copy.db_name).await);
    harness.healthy().await;
}
