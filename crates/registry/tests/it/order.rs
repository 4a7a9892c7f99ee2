//! Lists are ordered by the registry's clock. Ids are made by whoever asks, whose clock may be months off.

use model::{ArchiveId, OperationId, OperationKind, SchemaVersion};
use registry::{NewArchive, NewOperation, OperationFilter, archive_insert, archives_list, operations_list};
use serde_json::json;
use uuid::{NoContext, Timestamp, Uuid};

use crate::harness::Harness;

/// As a machine makes ids whose clock shows the year 2096.
fn id_of_a_clock_ahead() -> Uuid {
    Uuid::new_v7(Timestamp::from_unix(NoContext, 4_000_000_000, 0))
}

fn archive(harness: &Harness, tenant: &registry::Tenant, id: Uuid) -> NewArchive {
    NewArchive {
        id: ArchiveId::from(id),
        tenant: tenant.id,
        tenant_slug: tenant.slug.clone(),
        tenant_name: tenant.name.clone(),
        operation: None,
        location: format!("/archives/{id}.dump"),
        host: None,
        imported_from: None,
        bytes: 1,
        sha256: "0".repeat(64),
        db_version: SchemaVersion::new(1),
        manifest: json!({}),
        made_for: OperationKind::Backup,
        admins: Vec::new(),
        created_by: harness.actor.clone(),
    }
}

#[tokio::test]
async fn archives_and_operations_are_listed_newest_first_whatever_clock_made_their_ids() {
    let harness = Harness::new().await;
    let mut client = harness.client().await;
    let (mut archives, mut operations) = (Vec::new(), Vec::new());
    for ahead in [true, false, true, false] {
        let tenant = harness.tenant(&format!("lab-{}", archives.len())).await;
        let id = if ahead {
            id_of_a_clock_ahead()
        } else {
            Uuid::now_v7()
        };
        archive_insert(&client, &archive(&harness, &tenant, id))
            .await
            .unwrap();
        archives.push(ArchiveId::from(id));
        let new = NewOperation {
            id: OperationId::from(id),
            kind: OperationKind::Migrate,
            tenant: tenant.id,
            tenant_slug: tenant.slug.clone(),
            params: json!({}),
            created_by: harness.actor.clone(),
            idempotency_key: None,
        };
        let txn = client.transaction().await.unwrap();
        registry::operation_insert_in_txn(&txn, &new).await.unwrap();
        txn.commit().await.unwrap();
        operations.push(new.id);
    }
    archives.reverse();
    operations.reverse();
    let listed = archives_list(&client, None, None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|a| a.id).collect::<Vec<_>>(), archives);
    // Page by page it is the same list.
    let mut paged = Vec::new();
    let mut after = None;
    while let Some(archive) = archives_list(&client, None, after, 1).await.unwrap().pop() {
        paged.push(archive.id);
        after = Some(archive.position());
    }
    assert_eq!(paged, archives);
    let all = OperationFilter::default();
    let listed = operations_list(&client, &all, None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|o| o.id).collect::<Vec<_>>(), operations);
}
