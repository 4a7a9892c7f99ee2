use std::sync::Mutex;

use model::{OperationStatus, Step, TenantState};
use provisioner::{Progress, ProvisionError};
use registry::RegistryError;
use serde_json::Value;

use crate::rig::{NOW, Rig, by, connect, lab};

#[tokio::test]
async fn a_laboratory_is_made_suspended_resumed_migrated_and_offboarded_with_its_archive_kept() {
    let rig = Rig::new().await;
    let (asked, operation) = rig.ask("acme-lab").await;
    assert_eq!(asked.status, TenantState::Provisioning);
    let told = Mutex::new(Vec::new());
    let ended = rig
        .provisioner
        .run(operation, |progress| told.lock().unwrap().push(progress))
        .await
        .unwrap();
    assert_eq!(ended.status, OperationStatus::Succeeded);
    let done = |progress: &Progress| matches!(progress, Progress::StepDone { .. });
    assert_eq!(told.lock().unwrap().iter().filter(|p| done(p)).count(), 7);

    let tenant = rig.tenant(asked.id).await.unwrap();
    assert_eq!(tenant.status, TenantState::Active);
    assert_eq!(tenant.db_version, migrator::latest());
    assert_eq!(
        tenant.db_name.as_str(),
        format!("{}_tenant_acme-lab", rig.space.namespace.as_str())
    );
    let row = connect(&rig.own(&tenant))
        .await
        .query_one("SELECT p.name, s.email, s.role FROM lab_profile p, staff s", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, String>(0), lab("acme-lab").name);
    assert_eq!((row.get(1), row.get(2)), ("ada@example.org", "lab_admin"));

    assert_eq!(
        rig.provisioner.suspend(tenant.id, by()).await.unwrap().status,
        TenantState::Suspended
    );
    let migration = rig.provisioner.request_migrate(tenant.id, by()).await.unwrap();
    rig.provisioner.run(migration, |_| {}).await.unwrap();
    assert_eq!(
        rig.provisioner.resume(tenant.id, by()).await.unwrap().status,
        TenantState::Active
    );

    let offboard = rig
        .provisioner
        .request_offboard(tenant.id, NOW, by())
        .await
        .unwrap();
    assert_eq!(rig.tenant(tenant.id).await.unwrap().status, TenantState::Deleting);
    rig.provisioner.run(offboard, |_| {}).await.unwrap();
    assert!(rig.tenant(tenant.id).await.is_none());
    assert_eq!(rig.leftovers().await, Vec::<String>::new());

    let client = rig.registry.client().await.unwrap();
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
    let rig = Rig::new().await;
    let first = rig.provisioned("phoenix").await;
    let inside = rig.inside(&first).await;
    inside
        .batch_execute("UPDATE lab_profile SET name = 'The first'")
        .await
        .unwrap();
    drop(inside);
    let offboard = rig
        .provisioner
        .request_offboard(first.id, NOW, by())
        .await
        .unwrap();
    rig.provisioner.run(offboard, |_| {}).await.unwrap();
    let second = rig.provisioned("phoenix").await;
    assert_ne!(first.id, second.id);
    let row = rig
        .inside(&second)
        .await
        .query_one("SELECT name FROM lab_profile", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, String>(0), lab("phoenix").name);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_changes_nothing() {
    let rig = Rig::new().await;
    let (tenant, operation) = rig.ask("busy").await;
    let refused = rig
        .provisioner
        .request_provision(lab("busy"), by())
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ProvisionError::Registry(RegistryError::SlugTaken { .. })),
        "{refused}"
    );
    for refused in [
        rig.provisioner
            .request_offboard(tenant.id, NOW, by())
            .await
            .unwrap_err(),
        rig.provisioner.suspend(tenant.id, by()).await.unwrap_err(),
        rig.provisioner.resume(tenant.id, by()).await.unwrap_err(),
    ] {
        assert!(
            matches!(refused, ProvisionError::Registry(RegistryError::Illegal(_))),
            "{refused}"
        );
    }
    let refused = rig
        .provisioner
        .request_migrate(tenant.id, by())
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ProvisionError::NotMigratable { .. }),
        "{refused}"
    );
    rig.provisioner.run(operation, |_| {}).await.unwrap();

    rig.provisioner.request_migrate(tenant.id, by()).await.unwrap();
    for refused in [
        rig.provisioner
            .request_migrate(tenant.id, by())
            .await
            .unwrap_err(),
        rig.provisioner
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
    assert_eq!(rig.tenant(tenant.id).await.unwrap().status, TenantState::Active);

    let mut odd = lab("odd");
    odd.time_zone = "Mars/Olympus".to_owned();
    let refused = rig.provisioner.request_provision(odd, by()).await.unwrap_err();
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
    let refused = rig.provisioner.request_provision(odd, by()).await.unwrap_err();
    assert!(
        matches!(refused, ProvisionError::Invalid { field: "name", .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn the_same_request_sent_twice_is_one_laboratory() {
    let rig = Rig::new().await;
    let keyed = || provisioner::RequestedBy {
        idempotency_key: Some("k-1".to_owned()),
        ..by()
    };
    let (once, again) = tokio::join!(
        rig.provisioner.request_provision(lab("twice"), keyed()),
        rig.provisioner.request_provision(lab("twice"), keyed())
    );
    let (once, again) = (once.unwrap(), again.unwrap());
    assert_eq!((once.0.id, once.1), (again.0.id, again.1));
    let other = rig
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
    let rig = Rig::new().await;
    let tenant = rig.provisioned("steps").await;
    let inside = rig.inside(&tenant).await;
    inside
        .batch_execute(
            "INSERT INTO refinery_schema_history VALUES (9000, 'future', '2031-01-01T00:00:00Z', '1')",
        )
        .await
        .unwrap();
    let operation = rig.provisioner.request_migrate(tenant.id, by()).await.unwrap();
    let failed = rig.provisioner.run(operation, |_| {}).await.unwrap_err();
    let ProvisionError::Failed { error, .. } = failed else {
        panic!("{failed}");
    };
    assert!(
        error.contains(Step::EnsureSchema.as_str()) && error.contains("ahead"),
        "{error}"
    );
    let after = rig.tenant(tenant.id).await.unwrap();
    assert_eq!(
        (after.status, after.db_version),
        (TenantState::Active, migrator::latest())
    );

    inside
        .batch_execute("DELETE FROM refinery_schema_history WHERE version = 9000")
        .await
        .unwrap();
    rig.provisioner.reopen(operation, by()).await.unwrap();
    rig.provisioner.run(operation, |_| {}).await.unwrap();
}
