use std::sync::Mutex;

use model::{OperationStatus, Step, TenantState};
use provisioner::{Progress, ProvisionError};
use registry::RegistryError;
use serde_json::Value;

use crate::harness::{Harness, NOW, by, connect, lab};

#[tokio::test]
async fn a_laboratory_is_made_suspended_resumed_migrated_and_offboarded_with_its_archive_kept() {
    let harness = Harness::new().await;
    let (asked, operation) = harness.ask("acme-lab").await;
    assert_eq!(asked.status, TenantState::Provisioning);
    let reported = Mutex::new(Vec::new());
    let ended = harness
        .provisioner
        .run(operation, |progress| reported.lock().unwrap().push(progress))
        .await
        .unwrap();
    assert_eq!(ended.status, OperationStatus::Succeeded);
    let done = |progress: &Progress| matches!(progress, Progress::StepDone { .. });
    assert_eq!(reported.lock().unwrap().iter().filter(|p| done(p)).count(), 7);

    let tenant = harness.tenant(asked.id).await.unwrap();
    assert_eq!(tenant.status, TenantState::Active);
    assert_eq!(tenant.db_version, migrator::latest());
    assert_eq!(
        tenant.db_name.as_str(),
        format!("{}_tenant_acme-lab", harness.space.namespace.as_str())
    );
    let row = connect(&harness.own(&tenant))
        .await
        .query_one("SELECT p.name, s.email, s.role FROM lab_profile p, staff s", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, String>(0), lab("acme-lab").name);
    assert_eq!((row.get(1), row.get(2)), ("ada@example.org", "lab_admin"));

    assert_eq!(
        harness.provisioner.suspend(tenant.id, by()).await.unwrap().status,
        TenantState::Suspended
    );
    let migration = harness
        .provisioner
        .request_migrate(tenant.id, by())
        .await
        .unwrap();
    harness.provisioner.run(migration, |_| {}).await.unwrap();
    assert_eq!(
        harness.provisioner.resume(tenant.id, by()).await.unwrap().status,
        TenantState::Active
    );

    let offboard = harness
        .provisioner
        .request_offboard(tenant.id, NOW, by())
        .await
        .unwrap();
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Deleting
    );
    harness.provisioner.run(offboard, |_| {}).await.unwrap();
    assert!(harness.tenant(tenant.id).await.is_none());
    assert_eq!(harness.leftovers().await, Vec::<String>::new());

    let client = harness.registry.client().await.unwrap();
    let archive = registry::archive_by_operation(&client, offboard)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(archive.tenant, tenant.id);
    assert!(std::path::Path::new(&archive.location).is_file());
    let manifest = archive.location.replace(".dump", ".manifest.json");
    let manifest: Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
    let mut recorded = manifest.clone();
    recorded.as_object_mut().unwrap().remove("shape");
    assert_eq!(recorded, archive.manifest, "all but the shape's lines");
    assert_eq!(manifest["slug"], "acme-lab");
    assert_eq!(manifest["sha256"], archive.sha256);
    assert_eq!(manifest["requestedBy"], "terminal:tester");
    let staff = manifest["tables"].as_array().unwrap();
    let staff = staff.iter().find(|t| t["name"] == "public.staff").unwrap();
    assert_eq!(staff["rows"], 1);

    let audit = registry::audit_list(
        &client,
        &registry::AuditFilter {
            tenant: Some(tenant.id),
            ..Default::default()
        },
        None,
        100,
    )
    .await
    .unwrap();
    let actions: Vec<_> = audit.iter().rev().map(|a| a.action.as_str()).collect();
    assert_eq!(
        actions,
        [
            "tenant.created",
            "tenant.activated",
            "operation.succeeded",
            "tenant.suspended",
            "tenant.migrate_requested",
            "operation.succeeded",
            "tenant.resumed",
            "tenant.offboard_requested",
            "tenant.removed",
            "operation.succeeded",
        ]
    );
}

#[tokio::test]
async fn a_slug_can_be_used_again_and_sees_nothing_of_the_one_before() {
    let harness = Harness::new().await;
    let first = harness.provisioned("phoenix").await;
    let inside = harness.inside(&first).await;
    inside
        .batch_execute("UPDATE lab_profile SET name = 'The first'")
        .await
        .unwrap();
    drop(inside);
    let offboard = harness
        .provisioner
        .request_offboard(first.id, NOW, by())
        .await
        .unwrap();
    harness.provisioner.run(offboard, |_| {}).await.unwrap();
    let second = harness.provisioned("phoenix").await;
    assert_ne!(first.id, second.id);
    let row = harness
        .inside(&second)
        .await
        .query_one("SELECT name FROM lab_profile", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, String>(0), lab("phoenix").name);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_changes_nothing() {
    let harness = Harness::new().await;
    let (tenant, operation) = harness.ask("busy").await;
    let refused = harness
        .provisioner
        .request_provision(lab("busy"), by())
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ProvisionError::Registry(RegistryError::SlugTaken { .. })),
        "{refused}"
    );
    for refused in [
        harness
            .provisioner
            .request_offboard(tenant.id, NOW, by())
            .await
            .unwrap_err(),
        harness.provisioner.suspend(tenant.id, by()).await.unwrap_err(),
        harness.provisioner.resume(tenant.id, by()).await.unwrap_err(),
    ] {
        assert!(
            matches!(refused, ProvisionError::Registry(RegistryError::Illegal(_))),
            "{refused}"
        );
    }
    let refused = harness
        .provisioner
        .request_migrate(tenant.id, by())
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ProvisionError::NotMigratable { .. }),
        "{refused}"
    );
    harness.provisioner.run(operation, |_| {}).await.unwrap();

    harness
        .provisioner
        .request_migrate(tenant.id, by())
        .await
        .unwrap();
    for refused in [
        harness
            .provisioner
            .request_migrate(tenant.id, by())
            .await
            .unwrap_err(),
        harness
            .provisioner
            .request_offboard(tenant.id, NOW, by())
            .await
            .unwrap_err(),
    ] {
        assert!(
            matches!(
                refused,
                ProvisionError::Registry(RegistryError::OperationInProgress { .. })
            ),
            "{refused}"
        );
    }
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Active
    );

    let mut odd = lab("odd");
    odd.time_zone = "Mars/Olympus".to_owned();
    let refused = harness
        .provisioner
        .request_provision(odd, by())
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            ProvisionError::Invalid {
                field: "timeZone",
                ..
            }
        ),
        "{refused}"
    );
    let mut odd = lab("odd");
    odd.name = " ".to_owned();
    let refused = harness
        .provisioner
        .request_provision(odd, by())
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ProvisionError::Invalid { field: "name", .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn the_same_request_sent_twice_is_one_laboratory() {
    let harness = Harness::new().await;
    let keyed = || provisioner::RequestedBy {
        idempotency_key: Some("k-1".to_owned()),
        ..by()
    };
    let (once, again) = tokio::join!(
        harness.provisioner.request_provision(lab("twice"), keyed()),
        harness.provisioner.request_provision(lab("twice"), keyed())
    );
    let (once, again) = (once.unwrap(), again.unwrap());
    assert_eq!((once.0.id, once.1), (again.0.id, again.1));
    let other = harness
        .provisioner
        .request_provision(lab("other"), keyed())
        .await
        .unwrap_err();
    assert!(
        matches!(other, ProvisionError::IdempotencyMismatch { .. }),
        "{other}"
    );
}

#[tokio::test]
async fn a_laboratory_behind_is_migrated_and_one_ahead_is_refused_and_stays_in_service() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("steps").await;
    let inside = harness.inside(&tenant).await;
    inside
        .batch_execute(
            "INSERT INTO refinery_schema_history VALUES (9000, 'future', '2031-01-01T00:00:00Z', '1')",
        )
        .await
        .unwrap();
    let operation = harness
        .provisioner
        .request_migrate(tenant.id, by())
        .await
        .unwrap();
    let failed = harness.provisioner.run(operation, |_| {}).await.unwrap_err();
    let ProvisionError::Failed { error, .. } = failed else {
        panic!("{failed}");
    };
    assert!(
        error.contains(Step::EnsureSchema.as_str()) && error.contains("ahead"),
        "{error}"
    );
    let after = harness.tenant(tenant.id).await.unwrap();
    assert_eq!(
        (after.status, after.db_version),
        (TenantState::Active, migrator::latest())
    );

    inside
        .batch_execute("DELETE FROM refinery_schema_history WHERE version = 9000")
        .await
        .unwrap();
    harness.provisioner.reopen(operation, by()).await.unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
}
