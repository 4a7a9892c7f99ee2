//! Laboratories: their rows, their states, what goes with them and what stays.

use model::{
    ArchiveId, DbName, OperationKind, SchemaVersion, ServerName, Slug, TenantEvent, TenantId, TenantState,
};
use registry::{
    AuditFilter, NewArchive, OperationFilter, RegistryError, TenantFilter, archive_insert, archives_list,
    audit_list, events_of, operations_list, server_by_name, servers_list, tenant_by_db_name, tenant_by_id,
    tenant_by_slug, tenant_delete_in_txn, tenant_insert_in_txn, tenant_set_db_version,
    tenant_set_role_secret, tenant_transition_in_txn, tenants_list,
};
use serde_json::json;

use crate::harness::{Harness, new_tenant};

async fn transition(
    harness: &Harness,
    id: TenantId,
    event: TenantEvent,
) -> Result<registry::Tenant, RegistryError> {
    let mut client = harness.client().await;
    let txn = client.transaction().await.unwrap();
    let tenant = tenant_transition_in_txn(&txn, id, event, &harness.change()).await?;
    txn.commit().await.unwrap();
    Ok(tenant)
}

#[tokio::test]
async fn a_laboratory_is_found_by_each_of_its_names() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme-lab").await;
    let client = harness.client().await;
    assert_eq!(tenant.status, TenantState::Provisioning);
    assert_eq!(
        tenant_by_id(&client, tenant.id).await.unwrap(),
        Some(tenant.clone())
    );
    assert_eq!(
        tenant_by_slug(&client, &tenant.slug).await.unwrap(),
        Some(tenant.clone())
    );
    assert_eq!(
        tenant_by_db_name(&client, &tenant.db_name).await.unwrap(),
        Some(tenant)
    );
    assert_eq!(tenant_by_id(&client, TenantId::generate()).await.unwrap(), None);
    let stranger = DbName::from_catalog("postgres").unwrap();
    assert_eq!(tenant_by_db_name(&client, &stranger).await.unwrap(), None);
}

#[tokio::test]
async fn a_slug_is_taken_once_whatever_its_case() {
    let harness = Harness::new().await;
    harness.tenant("acme").await;
    let error = harness.try_tenant("acme").await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::SlugTaken { slug } if slug.as_str() == "acme"),
        "{error:?}"
    );
    let client = harness.client().await;
    // Even with the rule about its shape out of the way, citext holds the two to be one.
    client
        .batch_execute("ALTER TABLE tenants DROP CONSTRAINT tenants_slug_check")
        .await
        .unwrap();
    let shouted = "INSERT INTO tenants (id, slug, name, time_zone, server, db_name, role_name)
         VALUES (gen_random_uuid(), 'ACME', 'x', 'UTC', 'main', 'x', 'x')";
    let refused = client.batch_execute(shouted).await.unwrap_err();
    assert_eq!(
        refused.as_db_error().and_then(|e| e.constraint()),
        Some("tenants_slug_key")
    );
    // And one that was written so by hand is found, but not trusted.
    client
        .batch_execute("UPDATE tenants SET slug = 'Acme'")
        .await
        .unwrap();
    let error = tenant_by_slug(&client, &Slug::parse("acme").unwrap())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::CorruptRow {
                table: "tenants",
                column: "slug",
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_database_belongs_to_one_laboratory_on_a_known_server() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    let mut client = harness.client().await;
    let mut new = new_tenant("other");
    new.db_name = tenant.db_name.clone();
    let txn = client.transaction().await.unwrap();
    let error = tenant_insert_in_txn(&txn, &new, &harness.change())
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::DatabaseTaken { .. }), "{error:?}");
    txn.rollback().await.unwrap();
    let mut new = new_tenant("other");
    new.server = ServerName::parse("nowhere").unwrap();
    let txn = client.transaction().await.unwrap();
    let error = tenant_insert_in_txn(&txn, &new, &harness.change())
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::UnknownServer { .. }), "{error:?}");
}

#[tokio::test]
async fn a_life_from_provisioning_to_suspended_and_back_leaves_events_and_audit() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    let mut generation = tenant.generation;
    for (event, state) in [
        (TenantEvent::Provisioned, TenantState::Active),
        (TenantEvent::Suspend, TenantState::Suspended),
        (TenantEvent::Resume, TenantState::Active),
    ] {
        let now = transition(&harness, tenant.id, event).await.unwrap();
        assert_eq!((now.status, now.status_before), (state, None));
        assert!(now.generation > generation && now.activated_at.is_some());
        generation = now.generation;
    }
    let client = harness.client().await;
    let events = events_of(&client, tenant.id, None, 100).await.unwrap();
    let kinds: Vec<_> = events.iter().map(|e| e.kind.as_str()).collect();
    assert_eq!(kinds, ["resumed", "suspended", "activated", "created"]);
    let older = events_of(&client, tenant.id, Some(events[1].id), 1)
        .await
        .unwrap();
    assert_eq!(older[0].kind, "activated");
    let audit = audit_list(&client, &AuditFilter::default(), None, 100)
        .await
        .unwrap();
    assert_eq!(audit.len(), 4);
    assert!(
        audit
            .iter()
            .all(|line| line.actor == harness.actor && line.detail["slug"] == "acme")
    );
}

#[tokio::test]
async fn an_event_that_does_not_fit_changes_nothing() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    for event in [
        TenantEvent::Suspend,
        TenantEvent::Offboard,
        TenantEvent::OffboardFinished,
    ] {
        let error = transition(&harness, tenant.id, event).await.unwrap_err();
        assert!(matches!(error, RegistryError::Illegal(_)), "{error:?}");
    }
    let client = harness.client().await;
    assert_eq!(tenant_by_id(&client, tenant.id).await.unwrap(), Some(tenant));
    let error = transition(&harness, TenantId::generate(), TenantEvent::Suspend)
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn a_removal_that_is_cancelled_leads_back_to_the_state_before() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    transition(&harness, tenant.id, TenantEvent::Provisioned)
        .await
        .unwrap();
    transition(&harness, tenant.id, TenantEvent::Suspend)
        .await
        .unwrap();
    let deleting = transition(&harness, tenant.id, TenantEvent::Offboard)
        .await
        .unwrap();
    assert_eq!(deleting.status_before, Some(TenantState::Suspended));
    let wrong = TenantEvent::CancelOffboard {
        before: TenantState::Active,
    };
    assert!(matches!(
        transition(&harness, tenant.id, wrong).await,
        Err(RegistryError::Illegal(_))
    ));
    let right = TenantEvent::CancelOffboard {
        before: TenantState::Suspended,
    };
    let back = transition(&harness, tenant.id, right).await.unwrap();
    assert_eq!((back.status, back.status_before), (TenantState::Suspended, None));
}

#[tokio::test]
async fn a_removed_laboratory_takes_its_events_along_and_leaves_the_rest() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    let operation = harness.operation(&tenant, OperationKind::Offboard).await;
    transition(&harness, tenant.id, TenantEvent::Provisioned)
        .await
        .unwrap();
    transition(&harness, tenant.id, TenantEvent::Offboard)
        .await
        .unwrap();
    let mut client = harness.client().await;
    let archive = NewArchive {
        id: ArchiveId::generate(),
        tenant: tenant.id,
        tenant_slug: tenant.slug.clone(),
        tenant_name: tenant.name.clone(),
        operation: Some(operation.id),
        location: "/archives/acme.dump".to_owned(),
        host: None,
        imported_from: None,
        bytes: 12,
        sha256: "a".repeat(64),
        db_version: SchemaVersion::new(1),
        manifest: json!({ "tables": 3 }),
        made_for: model::OperationKind::Offboard,
        admins: b"sealed".to_vec(),
        created_by: harness.actor.clone(),
    };
    let first = archive_insert(&client, &archive).await.unwrap();
    // The step is run again after a crash: one archive, the newer verification.
    let again = NewArchive {
        id: ArchiveId::generate(),
        bytes: 13,
        ..archive
    };
    let second = archive_insert(&client, &again).await.unwrap();
    assert_eq!((second.id, second.bytes), (first.id, 13));
    for (gone_before, expected) in [(false, true), (true, false)] {
        let txn = client.transaction().await.unwrap();
        let change = harness.change().in_operation(operation.id);
        let deleted = tenant_delete_in_txn(&txn, tenant.id, TenantEvent::OffboardFinished, &change);
        assert_eq!(deleted.await.unwrap(), expected, "gone before: {gone_before}");
        txn.commit().await.unwrap();
    }
    assert_eq!(tenant_by_id(&client, tenant.id).await.unwrap(), None);
    assert!(events_of(&client, tenant.id, None, 10).await.unwrap().is_empty());
    let filter = OperationFilter {
        tenant: Some(tenant.id),
        ..OperationFilter::default()
    };
    assert_eq!(
        operations_list(&client, &filter, None, 10).await.unwrap().len(),
        1
    );
    assert_eq!(
        archives_list(&client, Some(tenant.id), None, 10)
            .await
            .unwrap()
            .len(),
        1
    );
    let filter = AuditFilter {
        tenant: Some(tenant.id),
        action: Some("tenant.removed".to_owned()),
    };
    let audit = audit_list(&client, &filter, None, 10).await.unwrap();
    assert_eq!(audit[0].detail["operation"], operation.id.to_string());
}

#[tokio::test]
async fn a_recorded_version_never_falls_and_an_equal_one_disturbs_nobody() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    let client = harness.client().await;
    for (read, recorded) in [(3, 3), (2, 3), (3, 3), (5, 5)] {
        let now = tenant_set_db_version(&client, tenant.id, SchemaVersion::new(read))
            .await
            .unwrap();
        assert_eq!(now, SchemaVersion::new(recorded));
    }
    let after = tenant_by_id(&client, tenant.id).await.unwrap().unwrap();
    assert_eq!(after.db_version, SchemaVersion::new(5));
    tenant_set_db_version(&client, tenant.id, SchemaVersion::new(5))
        .await
        .unwrap();
    assert_eq!(tenant_by_id(&client, tenant.id).await.unwrap(), Some(after));
    let error = tenant_set_db_version(&client, TenantId::generate(), SchemaVersion::new(1))
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn lists_go_page_by_page_and_filter() {
    let harness = Harness::new().await;
    for slug in ["delta", "alpha", "charlie", "bravo"] {
        harness.tenant(slug).await;
    }
    let client = harness.client().await;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = tenants_list(&client, &TenantFilter::default(), after.as_ref(), 3)
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.slug.clone());
        seen.extend(page.iter().map(|t| t.slug.to_string()));
    }
    assert_eq!(seen, ["alpha", "bravo", "charlie", "delta"]);
    let bravo = tenant_by_slug(&client, &Slug::parse("bravo").unwrap())
        .await
        .unwrap()
        .unwrap();
    tenant_set_db_version(&client, bravo.id, SchemaVersion::new(4))
        .await
        .unwrap();
    transition(&harness, bravo.id, TenantEvent::Provisioned)
        .await
        .unwrap();
    let list = async |filter: TenantFilter| tenants_list(&client, &filter, None, 10).await.unwrap().len();
    let (status, server, behind) = (
        Some(TenantState::Active),
        Some(bravo.server),
        Some(SchemaVersion::new(4)),
    );
    assert_eq!(
        list(TenantFilter {
            status,
            ..Default::default()
        })
        .await,
        1
    );
    assert_eq!(
        list(TenantFilter {
            server,
            ..Default::default()
        })
        .await,
        4
    );
    assert_eq!(
        list(TenantFilter {
            behind,
            ..Default::default()
        })
        .await,
        3
    );
}

#[tokio::test]
async fn a_row_that_cannot_be_read_names_itself() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    let client = harness.client().await;
    let by_hand =
        "ALTER TABLE tenants DROP CONSTRAINT tenants_status_check; UPDATE tenants SET status = 'asleep'";
    client.batch_execute(by_hand).await.unwrap();
    let error = tenant_by_id(&client, tenant.id).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::CorruptRow { table: "tenants", column: "status", id, .. }
            if *id == tenant.id.to_string()),
        "{error:?}"
    );
    assert!(error.to_string().contains("provisioning, active"), "{error}");
}

#[tokio::test]
async fn servers_are_registered_once_and_show_no_secret() {
    let harness = Harness::new().await;
    let client = harness.client().await;
    let mut changed = harness.server("main");
    changed.port = 1;
    let before = server_by_name(&client, &changed.name).await.unwrap().unwrap();
    let after = registry::server_upsert(&client, &changed).await.unwrap();
    assert!(after.port == 1 && after.generation > before.generation);
    assert_eq!(servers_list(&client).await.unwrap(), std::slice::from_ref(&after));
    assert!(!format!("{after:?} {changed:?}").contains("[1, 2, 3]"));
    let tenant = harness.tenant("acme").await;
    tenant_set_role_secret(&client, tenant.id, &[9, 9, 9])
        .await
        .unwrap();
    let tenant = tenant_by_id(&client, tenant.id).await.unwrap().unwrap();
    assert_eq!(tenant.role_secret.as_deref(), Some([9, 9, 9].as_slice()));
    assert!(!format!("{tenant:?}").contains("[9, 9, 9]"));
}
