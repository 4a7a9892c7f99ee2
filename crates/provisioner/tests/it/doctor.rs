//! The doctor: every kind of fault is planted and found, what is healthy is not named, and fixing leaves
//! nothing to find and drops no data.

use model::{OperationId, SchemaVersion, TenantEvent, TenantId};
use provisioner::{Finding, FindingKind, Report};
use registry::{Actor, Change, Tenant};
use tokio_postgres::Client;

use crate::harness::{Harness, NOW, by, connect, register_server};

/// What was found, as kind and subject, in order.
fn reported(report: &Report) -> Vec<(FindingKind, String)> {
    let reported = report.findings.iter().map(|f| (f.kind, f.subject.clone()));
    let mut reported: Vec<_> = reported.collect();
    reported.sort();
    reported
}

fn of_kind(report: &Report, kind: FindingKind) -> &Finding {
    let found: Vec<&Finding> = report.findings.iter().filter(|f| f.kind == kind).collect();
    match found[..] {
        [one] => one,
        _ => panic!("{} times {}: {:#?}", found.len(), kind.as_str(), report.findings),
    }
}

impl Harness {
    async fn examined(&self) -> Report {
        self.provisioner.examine(true).await.unwrap()
    }

    async fn admin(&self) -> Client {
        connect(&self.space.server).await
    }

    async fn registry_runs(&self, sql: &str) {
        let client = self.registry.client().await.unwrap();
        client.batch_execute(sql).await.unwrap();
    }

    pub(crate) fn named(&self, rest: &str) -> String {
        format!("{}_{rest}", self.space.namespace.as_str())
    }

    /// Fixes, and sees that everything is fixed that can be and that a second run finds the rest only.
    async fn fixed(&self) -> Report {
        let report = self.provisioner.fix(true, by()).await.unwrap();
        for finding in &report.findings {
            assert_eq!(finding.fixed, finding.fixable, "{finding:#?}");
        }
        let left = report.findings.iter().filter(|f| !f.fixed);
        let mut left: Vec<_> = left.map(|f| (f.kind, f.subject.clone())).collect();
        left.sort();
        assert_eq!(reported(&self.examined().await), left);
        report
    }
}

async fn run(client: &Client, sql: &str) {
    client
        .batch_execute(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {}", pg::describe(&error)));
}

#[tokio::test]
async fn a_healthy_fleet_in_every_state_has_nothing_wrong_with_it() {
    let harness = Harness::new().await;
    assert_eq!(reported(&harness.examined().await), [], "an empty fleet");
    let (active, suspended, waiting, gone) = (
        harness.provisioned("active").await,
        harness.provisioned("suspended").await,
        harness.provisioned("waiting").await,
        harness.provisioned("gone").await,
    );
    harness.provisioner.suspend(suspended.id, by()).await.unwrap();
    // In its grace period, archived.
    let month = std::time::Duration::from_secs(30 * 86_400);
    let operation = harness
        .provisioner
        .request_offboard(waiting.id, month, by())
        .await
        .unwrap();
    let _waits = harness.provisioner.run(operation, |_| {}).await;
    let operation = harness
        .provisioner
        .request_offboard(gone.id, NOW, by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    // Asked for, and nobody has begun.
    let (asked, _) = harness.ask("asked").await;
    // The same cluster under a second name is still one cluster.
    register_server(
        &harness.registry,
        &harness.provisioner.config().sealer,
        &harness.space.server,
        "second",
    )
    .await;
    let report = harness.examined().await;
    assert_eq!(reported(&report), []);
    assert_eq!(report.examined.laboratories, 4);
    assert_eq!(report.examined.archives, 2);
    assert_eq!(
        report.examined.histories, 2,
        "the active one and the suspended one"
    );
    assert!(harness.tenant(asked.id).await.is_some() && harness.tenant(active.id).await.is_some());
}

#[tokio::test]
async fn nothing_healthy_is_named_while_laboratories_come_and_go() {
    let harness = Harness::new().await;
    harness.provisioned("steady").await;
    let story = async {
        for round in 0..3 {
            let tenant = harness.provisioned(&format!("round-{round}")).await;
            harness.provisioner.suspend(tenant.id, by()).await.unwrap();
            harness.provisioner.resume(tenant.id, by()).await.unwrap();
            let operation = harness
                .provisioner
                .request_offboard(tenant.id, NOW, by())
                .await
                .unwrap();
            harness.provisioner.run(operation, |_| {}).await.unwrap();
        }
    };
    tokio::pin!(story);
    let mut looks = 0;
    loop {
        tokio::select! {
            () = &mut story => break,
            report = harness.examined() => {
                looks += 1;
                assert_eq!(reported(&report), [], "{:#?}", report.findings);
            }
        }
    }
    assert!(looks > 3, "the doctor looked {looks} times meanwhile");
}

#[tokio::test]
async fn what_an_operation_or_a_suspension_under_way_explains_is_not_named() {
    let harness = Harness::new().await;
    let closing = harness.provisioned("closing").await;
    // A clone that is being made, as a worker leaves it between two statements.
    let (asked, _) = harness.ask("asked").await;
    let making = harness.space.namespace.database_in_the_making(asked.id);
    let admin = harness.admin().await;
    run(
        &admin,
        &format!("CREATE DATABASE {making} TEMPLATE template0 ALLOW_CONNECTIONS false"),
    )
    .await;
    // Suspended in the registry, and its server is not told yet.
    let actor = Actor::Terminal("tester".to_owned());
    let change = Change::by(&actor);
    harness
        .registry
        .in_txn(async |txn| {
            registry::tenant_transition_in_txn(txn, closing.id, TenantEvent::Suspend, &change).await
        })
        .await
        .unwrap();
    assert_eq!(reported(&harness.examined().await), []);

    // Whoever suspended it has given up on the server; and of the other one nobody knows an operation any
    // more.
    harness
        .registry_runs(&format!(
        "INSERT INTO tenant_events (tenant_id, kind, actor) VALUES ('{}', 'fence_missing', 'terminal:tester');
         DELETE FROM operations WHERE tenant_id = '{}'",
        closing.id, asked.id
    ))
        .await;
    assert_eq!(
        reported(&harness.examined().await),
        [
            (FindingKind::RoleCanLogIn, closing.role_name.as_str().to_owned()),
            (FindingKind::MakingLeft, making.as_str().to_owned()),
            (FindingKind::ProvisioningWithoutOperation, asked.slug.to_string()),
        ]
    );
}

#[tokio::test]
async fn lacks_and_foreign_things_are_named() {
    let harness = Harness::new().await;
    let (no_database, no_role, foreign) = (
        harness.provisioned("no-database").await,
        harness.provisioned("no-role").await,
        harness.provisioned("foreign").await,
    );
    harness.provisioned("whole").await;
    let admin = harness.admin().await;
    run(&admin, &format!("DROP DATABASE {}", no_database.db_name)).await;
    let role = &no_role.role_name;
    run(&admin, &format!("DROP OWNED BY {role}")).await;
    run(
        &admin,
        &format!("REVOKE ALL ON DATABASE {} FROM {role}", no_role.db_name),
    )
    .await;
    run(&admin, &format!("DROP ROLE {role}")).await;
    run(
        &admin,
        &format!("COMMENT ON DATABASE {} IS 'somebody else''s'", foreign.db_name),
    )
    .await;
    run(&admin, &format!("COMMENT ON ROLE {} IS NULL", foreign.role_name)).await;

    let report = harness.examined().await;
    let name = |tenant: &Tenant| tenant.db_name.as_str().to_owned();
    assert_eq!(
        reported(&report),
        [
            (FindingKind::MissingDatabase, name(&no_database)),
            (FindingKind::MissingRole, name(&no_role)),
            (FindingKind::NotOurs, name(&foreign)),
            (FindingKind::NotOurs, name(&foreign)),
        ]
    );
    assert!(
        of_kind(&report, FindingKind::MissingDatabase)
            .advice
            .contains("archives list")
    );
    // Only the role can be made again, with the password that is stored: the laboratory can log in as before.
    let fixed = harness.fixed().await;
    assert!(of_kind(&fixed, FindingKind::MissingRole).fixed);
    connect(&harness.own(&no_role))
        .await
        .batch_execute("SELECT * FROM lab_profile")
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_open_and_what_is_closed_by_mistake_is_found_and_fixed() {
    let harness = Harness::new().await;
    let (open, closed, unreachable, public, far) = (
        harness.provisioned("open").await,
        harness.provisioned("closed").await,
        harness.provisioned("unreachable").await,
        harness.provisioned("public").await,
        harness.provisioned("far").await,
    );
    harness.provisioner.suspend(open.id, by()).await.unwrap();
    let admin = harness.admin().await;
    run(&admin, &format!("ALTER ROLE {} LOGIN", open.role_name)).await;
    run(&admin, &format!("ALTER ROLE {} NOLOGIN", closed.role_name)).await;
    let (database, role) = (&unreachable.db_name, &unreachable.role_name);
    run(
        &admin,
        &format!("REVOKE CONNECT ON DATABASE {database} FROM {role}"),
    )
    .await;
    run(
        &admin,
        &format!("GRANT CONNECT ON DATABASE {} TO PUBLIC", public.db_name),
    )
    .await;
    run(
        &admin,
        &format!(
            "GRANT CONNECT ON DATABASE {} TO {}",
            public.db_name, far.role_name
        ),
    )
    .await;

    let report = harness.examined().await;
    let name = |tenant: &Tenant| tenant.role_name.as_str().to_owned();
    assert_eq!(
        reported(&report),
        [
            (FindingKind::RoleCanLogIn, name(&open)),
            (FindingKind::RoleCannotLogIn, name(&closed)),
            (FindingKind::RoleCannotLogIn, name(&unreachable)),
            (
                FindingKind::RoleReachesElsewhere,
                format!("{} in {}", name(&far), public.db_name.as_str())
            ),
            (FindingKind::OpenToPublic, name(&public)),
        ]
    );
    harness.fixed().await;
    assert!(
        pg::connect(&harness.own(&open), "suspended", crate::harness::PATIENCE)
            .await
            .is_err()
    );
    for tenant in [&closed, &unreachable, &public, &far] {
        connect(&harness.own(tenant)).await;
    }
    let elsewhere = harness.own(&far).with_database(public.db_name.as_str());
    assert!(
        pg::connect(&elsewhere, "intruder", crate::harness::PATIENCE)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_role_that_reaches_others_through_a_group_or_as_a_superuser_is_named() {
    let harness = Harness::new().await;
    let (one, two, three) = (
        harness.provisioned("one").await,
        harness.provisioned("two").await,
        harness.provisioned("three").await,
    );
    let admin = harness.admin().await;
    let group = model::quote_ident(&harness.named("readers"));
    run(
        &admin,
        &format!(
            "CREATE ROLE {group}; GRANT CONNECT ON DATABASE {} TO {group}",
            two.db_name
        ),
    )
    .await;
    run(&admin, &format!("GRANT {group} TO {}", one.role_name)).await;
    run(&admin, &format!("ALTER ROLE {} SUPERUSER", three.role_name)).await;
    let report = harness.examined().await;
    let readers = harness.named("readers");
    let member = format!("{} in {readers}", one.role_name.as_str());
    let let_in = format!("{readers} in {}", two.db_name.as_str());
    assert_eq!(
        reported(&report),
        [
            (FindingKind::RoleAttributes, three.role_name.as_str().to_owned()),
            (FindingKind::RoleMembership, member),
            (FindingKind::RightsOfOthers, let_in),
        ]
    );
    let decided = |kind| of_kind(&report, kind).fixable;
    assert!(
        !decided(FindingKind::RoleMembership) && !decided(FindingKind::RightsOfOthers),
        "a person has to decide"
    );
    run(&admin, &format!("ALTER ROLE {} NOSUPERUSER", three.role_name)).await;
}

#[tokio::test]
async fn orphans_are_named_and_only_what_holds_no_laboratory_is_dropped() {
    let harness = Harness::new().await;
    let kept = harness.provisioned("kept").await;
    let admin = harness.admin().await;
    let make = async |name: &str, template: &str| {
        let name = model::quote_ident(name);
        run(
            &admin,
            &format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log ALLOW_CONNECTIONS false"),
        )
        .await;
    };
    let template = harness
        .space
        .namespace
        .template_database(migrator::latest(), migrator::fingerprint())
        .to_string();
    let orphan = harness.named("tenant_forgotten");
    make(&orphan, "template0").await;
    let stranger = harness.named("somebodys");
    make(&stranger, "template0").await;
    let making = harness
        .space
        .namespace
        .database_in_the_making(TenantId::generate());
    make(making.as_str(), &template).await;
    // A making that holds a laboratory after all: a clone of one, renamed by hand.
    let inhabited = harness
        .space
        .namespace
        .database_in_the_making(TenantId::generate());
    make(inhabited.as_str(), &kept.db_name.to_string()).await;
    let scratch = harness.space.namespace.scratch_database(OperationId::generate());
    make(scratch.as_str(), &kept.db_name.to_string()).await;
    let stale = harness
        .space
        .namespace
        .template_database(SchemaVersion::new(1), "0123456789ab");
    make(stale.as_str(), "template0").await;
    let building = harness.space.namespace.template_under_construction();
    make(building.as_str(), "template0").await;
    let spare = harness.named("spare_ffffffffffff_0000000000000001");
    make(&spare, &template).await;
    // One that fits, but that somebody has opened.
    let opened = migrator::spare_name(&harness.space.namespace, 1);
    make(opened.as_str(), &template).await;
    run(
        &admin,
        &format!(
            "REVOKE ALL ON DATABASE {opened} FROM PUBLIC; ALTER DATABASE {opened} ALLOW_CONNECTIONS true"
        ),
    )
    .await;
    // And one of the newer template, which another binary may take.
    make(&harness.named("spare_0123456789ab_0000000000000001"), &template).await;
    let fitting = migrator::spare_name(&harness.space.namespace, 2);
    make(fitting.as_str(), &template).await;
    let newer = harness
        .space
        .namespace
        .template_database(SchemaVersion::new(9999), "0123456789ab");
    make(newer.as_str(), "template0").await;
    // Roles: one that may go, one that owns something, one of which nobody knows whose it was.
    let (free, owner, unmarked) = (
        harness.named("tenant_free"),
        harness.named("tenant_owner"),
        harness.named("tenant_unmarked"),
    );
    for role in [&free, &owner, &unmarked] {
        run(&admin, &format!("CREATE ROLE {}", model::quote_ident(role))).await;
    }
    for role in [&free, &owner] {
        let role = model::quote_ident(role);
        let comment = format!("tenantry laboratory {}", TenantId::generate());
        run(&admin, &format!("COMMENT ON ROLE {role} IS '{comment}'")).await;
    }
    let (database, role) = (model::quote_ident(&orphan), model::quote_ident(&owner));
    run(&admin, &format!("ALTER DATABASE {database} OWNER TO {role}")).await;

    let report = harness.examined().await;
    let mut expected = vec![
        (FindingKind::OrphanDatabase, orphan.clone()),
        (FindingKind::OrphanDatabase, stranger.clone()),
        (FindingKind::OrphanRole, free.clone()),
        (FindingKind::OrphanRole, owner.clone()),
        (FindingKind::OrphanRole, unmarked.clone()),
        (FindingKind::ScratchLeft, scratch.as_str().to_owned()),
        (FindingKind::MakingLeft, making.as_str().to_owned()),
        (FindingKind::MakingLeft, inhabited.as_str().to_owned()),
        (FindingKind::StaleTemplate, stale.as_str().to_owned()),
        (FindingKind::StaleTemplate, building.as_str().to_owned()),
        (FindingKind::StaleSpare, spare.clone()),
        (FindingKind::StaleSpare, opened.as_str().to_owned()),
    ];
    expected.sort();
    assert_eq!(reported(&report), expected);

    let fixed = harness.provisioner.fix(false, by()).await.unwrap();
    let held = fixed
        .findings
        .iter()
        .find(|f| f.subject == inhabited.as_str())
        .unwrap();
    assert!(
        held.not_fixed.as_ref().unwrap().contains("holds a laboratory"),
        "{held:#?}"
    );
    let mut left = vec![
        (FindingKind::OrphanDatabase, orphan),
        (FindingKind::OrphanDatabase, stranger),
        (FindingKind::OrphanRole, owner),
        (FindingKind::OrphanRole, unmarked),
        (FindingKind::MakingLeft, inhabited.as_str().to_owned()),
    ];
    left.sort();
    assert_eq!(reported(&harness.examined().await), left, "{:#?}", fixed.findings);
    let (databases, _) = harness.space.contents().await;
    assert!(
        [&newer, &inhabited, &fitting]
            .iter()
            .all(|name| databases.contains(name))
    );
    // Each thing that was fixed stands in the audit.
    let client = harness.registry.client().await.unwrap();
    let filter = registry::AuditFilter {
        action: Some("doctor.mended".to_owned()),
        ..registry::AuditFilter::default()
    };
    let written = registry::audit_list(&client, &filter, None, 100).await.unwrap();
    assert_eq!(written.len(), fixed.findings.iter().filter(|f| f.fixed).count());
}

#[tokio::test]
async fn a_template_that_somebody_builds_is_no_left_over() {
    let harness = Harness::new().await;
    let admin = harness.admin().await;
    let building = harness.space.namespace.template_under_construction();
    run(
        &admin,
        &format!("CREATE DATABASE {building} TEMPLATE template0 ALLOW_CONNECTIONS false"),
    )
    .await;
    let seen = [(FindingKind::StaleTemplate, building.as_str().to_owned())];
    assert_eq!(reported(&harness.examined().await), seen);
    // The builder's lock, as the migrator takes it.
    let name = format!("tenantry template {}", harness.space.namespace.as_str());
    let digest: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(name).into();
    let key = i64::from_be_bytes(digest[..8].try_into().unwrap());
    run(&admin, &format!("SELECT pg_advisory_lock({key})")).await;
    assert_eq!(reported(&harness.examined().await), []);
}

#[tokio::test]
async fn operations_that_nobody_works_on_are_found_and_woken() {
    let harness = Harness::new().await;
    let (_, forgotten) = harness.ask("forgotten").await;
    let (_, dead) = harness.ask("dead").await;
    harness.ask("young").await;
    let uuid = |id: OperationId| id.as_uuid();
    harness.registry_runs(&format!(
        "UPDATE operations SET not_before = now() - interval '1 hour' WHERE id = '{}';
         UPDATE operations SET status = 'running', lease_owner = 'gone:1', lease_until = now() - interval '1 hour'
          WHERE id = '{}'",
        uuid(forgotten),
        uuid(dead)
    ))
    .await;
    let report = harness.examined().await;
    let mut expected = vec![
        (FindingKind::StuckOperation, forgotten.to_string()),
        (FindingKind::StuckOperation, dead.to_string()),
    ];
    expected.sort();
    assert_eq!(reported(&report), expected);
    harness.fixed().await;
    harness.provisioner.run(dead, |_| {}).await.unwrap();
}

#[tokio::test]
async fn laboratories_that_no_operation_moves_on_are_named() {
    let harness = Harness::new().await;
    let (being_made, operation) = harness.ask("being-made").await;
    let (leaving, coming_back) = (
        harness.provisioned("leaving").await,
        harness.provisioned("coming-back").await,
    );
    let actor = Actor::Terminal("tester".to_owned());
    for (tenant, event) in [
        (leaving.id, TenantEvent::Offboard),
        (coming_back.id, TenantEvent::RestoreInPlace),
    ] {
        harness
            .registry
            .in_txn(async |txn| {
                registry::tenant_transition_in_txn(txn, tenant, event, &Change::by(&actor)).await
            })
            .await
            .unwrap();
    }
    harness
        .registry_runs(&format!(
            "DELETE FROM operations WHERE id = '{}'",
            operation.as_uuid()
        ))
        .await;
    let report = harness.examined().await;
    let states: Vec<_> = reported(&report)
        .into_iter()
        .filter(|(kind, _)| *kind != FindingKind::RoleCanLogIn)
        .collect();
    assert_eq!(
        states,
        [
            (
                FindingKind::ProvisioningWithoutOperation,
                being_made.slug.to_string()
            ),
            (FindingKind::DeletingWithoutOperation, leaving.slug.to_string()),
            (
                FindingKind::RestoringWithoutOperation,
                coming_back.slug.to_string()
            ),
        ]
    );
}

#[tokio::test]
async fn a_version_that_is_recorded_too_low_is_raised_and_one_too_high_is_only_told() {
    let harness = Harness::new().await;
    let (behind, ahead, broken) = (
        harness.provisioned("behind").await,
        harness.provisioned("ahead").await,
        harness.provisioned("broken").await,
    );
    harness.registry_runs(&format!(
        "UPDATE tenants SET db_version = 1 WHERE id = '{}'; UPDATE tenants SET db_version = 9999 WHERE id = '{}'",
        behind.id, ahead.id
    ))
    .await;
    let inside = harness.inside(&broken).await;
    run(
        &inside,
        "UPDATE refinery_schema_history SET checksum = 'x' WHERE version = 1",
    )
    .await;
    drop(inside);
    assert_eq!(
        reported(&harness.provisioner.examine(false).await.unwrap()),
        [],
        "only a look inside shows it"
    );
    let report = harness.fixed().await;
    assert_eq!(
        reported(&report),
        [
            (FindingKind::VersionDiffers, ahead.db_name.as_str().to_owned()),
            (FindingKind::VersionDiffers, behind.db_name.as_str().to_owned()),
            (
                FindingKind::UnreadableDatabase,
                broken.db_name.as_str().to_owned()
            ),
        ]
    );
    assert_eq!(
        harness.tenant(behind.id).await.unwrap().db_version,
        migrator::latest()
    );
    assert_eq!(harness.tenant(ahead.id).await.unwrap().db_version.number(), 9999);
}

#[tokio::test]
async fn archives_that_are_not_as_they_were_verified_are_named() {
    let harness = Harness::new().await;
    let mut dumps = Vec::new();
    for slug in ["lost", "cut", "sound"] {
        let tenant = harness.provisioned(slug).await;
        let operation = harness
            .provisioner
            .request_offboard(tenant.id, NOW, by())
            .await
            .unwrap();
        harness.provisioner.run(operation, |_| {}).await.unwrap();
        let client = harness.registry.client().await.unwrap();
        let archive = registry::archive_by_operation(&client, operation)
            .await
            .unwrap()
            .unwrap();
        dumps.push(std::path::PathBuf::from(archive.location));
    }
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    std::fs::remove_file(&dumps[0]).unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&dumps[1])
        .unwrap()
        .set_len(10)
        .unwrap();
    std::fs::remove_file(dumps[1].with_extension("manifest.json")).unwrap();
    let unknown = dumps[2].with_file_name(format!("{}.dump.part", OperationId::generate()));
    std::fs::write(&unknown, "half a dump").unwrap();
    let report = harness.examined().await;
    let mut expected = vec![
        (FindingKind::ArchiveMissing, text(&dumps[0])),
        (
            FindingKind::ArchiveMissing,
            text(&dumps[1].with_extension("manifest.json")),
        ),
        (FindingKind::ArchiveSizeDiffers, text(&dumps[1])),
        (FindingKind::ArchiveUnrecorded, text(&unknown)),
    ];
    expected.sort();
    assert_eq!(reported(&report), expected);
    assert!(report.findings.iter().all(|f| !f.fixable));
}

#[tokio::test]
async fn a_server_that_does_not_answer_and_secrets_that_do_not_open_are_named() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("sealed").await;
    let sealer = &harness.provisioner.config().sealer;
    let mut away = harness.space.server.clone();
    away.port = 1;
    register_server(&harness.registry, sealer, &away, "away").await;
    register_server(&harness.registry, sealer, &harness.space.server, "odd").await;
    harness
        .registry_runs("UPDATE servers SET admin_secret = '\\x00' WHERE name = 'odd'")
        .await;
    harness
        .registry_runs(&format!(
            "UPDATE tenants SET role_secret = '\\x01' WHERE id = '{}'",
            tenant.id
        ))
        .await;
    let report = harness.examined().await;
    let mut expected = vec![
        (FindingKind::ServerUnreachable, format!("{}:1", away.host)),
        (FindingKind::UndecryptableSecret, "server:odd".to_owned()),
        (
            FindingKind::UndecryptableSecret,
            format!("tenant:{}:role", tenant.id),
        ),
    ];
    expected.sort();
    assert_eq!(reported(&report), expected);
}
