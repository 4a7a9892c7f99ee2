//! A database of somebody else's that lies under a laboratory's name: it has not the laboratory's ownership
//! comment, so nothing is written to it, nothing of it is handed out as the laboratory's, and nobody's rights
//! in it change.

use model::{TenantId, TenantState};
use provisioner::{FindingKind, ProvisionError};
use registry::{Archive, OperationFilter, Tenant};

use crate::harness::{Harness, NOW, by, connect};

/// A laboratory whose own database was renamed, and another one made in its place.
struct Displaced {
    harness: Harness,
    tenant: Tenant,
    archive: Archive,
    elsewhere: String,
}

impl Displaced {
    async fn new() -> Self {
        let harness = Harness::new().await;
        let tenant = harness.provisioned("displaced").await;
        let archive = harness.backed_up(&tenant).await;
        let elsewhere = harness.named("renamed_by_hand");
        let displaced = Self {
            harness,
            tenant,
            archive,
            elsewhere,
        };
        displaced.harness.healthy().await;
        displaced
    }

    /// The stranger's database is open to every role, as `CREATE DATABASE` leaves it.
    async fn displace(&self) {
        let (name, quoted) = (&self.tenant.db_name, model::quote_ident(&self.elsewhere));
        let admin = connect(&self.harness.space.server).await;
        for sql in [
            format!("ALTER DATABASE {name} RENAME TO {quoted}"),
            format!("CREATE DATABASE {name} TEMPLATE template0"),
        ] {
            admin.batch_execute(&sql).await.unwrap();
        }
        let stranger = self.harness.inside(&self.tenant).await;
        let table = "CREATE TABLE customers AS SELECT generate_series(1, 10) AS id";
        stranger.batch_execute(table).await.unwrap();
    }

    /// What the stranger's database has, and who may do what with it.
    async fn strangers(&self) -> (Vec<String>, Option<String>) {
        let client = self.harness.inside(&self.tenant).await;
        let tables =
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1";
        let tables = client.query(tables, &[]).await.unwrap();
        let rights = "SELECT datacl::text FROM pg_database WHERE datname = current_database()";
        let rights = client.query_one(rights, &[]).await.unwrap();
        (tables.iter().map(|row| row.get(0)).collect(), rights.get(0))
    }

    async fn is_untouched(&self) {
        assert_eq!(self.strangers().await, (vec!["customers".to_owned()], None));
        let tenant = self.harness.tenant(self.tenant.id).await.unwrap();
        assert_eq!(tenant.status, TenantState::Active);
    }

    async fn live_operations(&self, tenant: TenantId) -> usize {
        let live = OperationFilter {
            tenant: Some(tenant),
            live: true,
            ..OperationFilter::default()
        };
        let client = self.harness.registry.client().await.unwrap();
        let operations = registry::operations_list(&client, &live, None, 10).await;
        operations.unwrap().len()
    }
}

fn is_refused(outcome: Result<impl std::fmt::Debug, ProvisionError>) {
    match outcome {
        Err(error @ (ProvisionError::Unmet { .. } | ProvisionError::Refused { .. })) => {
            let message = error.to_string();
            assert!(message.contains("was not made for this laboratory"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn no_operation_and_no_export_begins_on_a_database_that_is_not_the_laboratorys() {
    let displaced = Displaced::new().await;
    displaced.displace().await;
    let (provisioner, id) = (&displaced.harness.provisioner, displaced.tenant.id);
    is_refused(provisioner.request_migrate(id, by()).await);
    is_refused(provisioner.open_for_export(&displaced.tenant, &by()).await);
    is_refused(provisioner.request_backup(id, by()).await);
    is_refused(provisioner.request_offboard(id, NOW, by()).await);
    is_refused(
        provisioner
            .request_restore_in_place(displaced.archive.id, by())
            .await,
    );
    assert_eq!(displaced.live_operations(id).await, 0);
    displaced.is_untouched().await;
}

#[tokio::test]
async fn a_migration_that_was_asked_for_before_writes_nothing_to_a_database_that_is_not_the_laboratorys() {
    let displaced = Displaced::new().await;
    let provisioner = &displaced.harness.provisioner;
    let operation = provisioner
        .request_migrate(displaced.tenant.id, by())
        .await
        .unwrap();
    displaced.displace().await;
    let failed = provisioner.run(operation, |_| {}).await.unwrap_err().to_string();
    assert!(failed.contains("was not made for this laboratory"), "{failed}");
    displaced.is_untouched().await;
}

#[tokio::test]
async fn the_doctor_tells_whose_a_database_is_not_and_nothing_else_of_it() {
    let displaced = Displaced::new().await;
    displaced.displace().await;
    let provisioner = &displaced.harness.provisioner;
    for report in [
        provisioner.examine(true).await.unwrap(),
        provisioner.fix(true, by()).await.unwrap(),
    ] {
        let reported: Vec<_> = report.findings.iter().map(|f| f.kind.as_str()).collect();
        assert_eq!(reported, ["not_ours"], "{:#?}", report.findings);
        let advice = &report.findings[0].advice;
        assert!(
            advice.contains(&displaced.elsewhere) && advice.contains("RENAME TO"),
            "{advice}"
        );
    }
    displaced.is_untouched().await;
}

#[tokio::test]
async fn a_laboratory_without_database_and_archive_is_forgotten_when_its_data_are_given_up() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("lost").await;
    let admin = connect(&harness.space.server).await;
    let drop = format!("DROP DATABASE {} WITH (FORCE)", tenant.db_name);
    admin.batch_execute(&drop).await.unwrap();
    let report = harness.provisioner.examine(true).await.unwrap();
    let missing = report
        .findings
        .iter()
        .find(|f| f.kind == FindingKind::MissingDatabase);
    let option = "--without-archive";
    assert!(missing.unwrap().advice.contains(option), "{:#?}", report.findings);
    let refused = harness
        .provisioner
        .forget(tenant.id, false, by())
        .await
        .unwrap_err();
    assert!(refused.to_string().contains(option), "{refused}");
    assert!(harness.tenant(tenant.id).await.is_some());
    harness.provisioner.forget(tenant.id, true, by()).await.unwrap();
    assert!(harness.tenant(tenant.id).await.is_none());
}
