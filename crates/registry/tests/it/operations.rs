//! Operations as rows: what may be written, and how they are found.

use std::time::Duration;

use model::{OperationId, OperationKind, OperationStatus};
use registry::{
    Claimable, OperationFilter, Outcome, RegistryError, operation_by_id, operation_by_idempotency_key,
    operation_claim, operation_finish, operation_reopen, operations_list,
};

use crate::harness::Harness;

const LEASE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_laboratory_has_one_live_operation_at_a_time() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    let first = harness.operation(&tenant, OperationKind::Provision).await;
    let error = harness
        .try_operation(&tenant, OperationKind::Migrate, None)
        .await
        .unwrap_err();
    assert!(
        matches!(error, RegistryError::OperationInProgress { tenant: t } if t == tenant.id),
        "{error:?}"
    );
    let client = harness.client().await;
    let (_, lease) = operation_claim(&client, "w", LEASE, Claimable::Operation(first.id))
        .await
        .unwrap()
        .unwrap();
    operation_finish(&client, &lease, Outcome::Succeeded)
        .await
        .unwrap();
    harness.operation(&tenant, OperationKind::Migrate).await;
}

#[tokio::test]
async fn the_same_request_twice_is_one_operation() {
    let harness = Harness::new().await;
    let (one, two) = (harness.tenant("one").await, harness.tenant("two").await);
    let kind = OperationKind::Migrate;
    let first = harness.try_operation(&one, kind, Some("key-1")).await.unwrap();
    let error = harness
        .try_operation(&two, kind, Some("key-1"))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, RegistryError::IdempotencyKeyUsed { key } if key == "key-1"),
        "{error:?}"
    );
    let client = harness.client().await;
    let found = operation_by_idempotency_key(&client, "key-1")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.id, found.created_by), (first.id, harness.actor.clone()));
}

#[tokio::test]
async fn a_failed_operation_can_be_opened_again_and_no_other() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    let operation = harness.operation(&tenant, OperationKind::Migrate).await;
    let client = harness.client().await;
    let error = operation_reopen(&client, operation.id).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotReopenable { .. }), "{error:?}");
    let error = operation_reopen(&client, OperationId::generate())
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");

    let which = Claimable::Operation(operation.id);
    let (_, lease) = operation_claim(&client, "w", LEASE, which)
        .await
        .unwrap()
        .unwrap();
    operation_finish(&client, &lease, Outcome::Failed("disk full"))
        .await
        .unwrap();
    let failed = operation_by_id(&client, operation.id).await.unwrap().unwrap();
    assert_eq!(failed.error.as_deref(), Some("disk full"));
    assert!(failed.finished_at.is_some() && failed.lease_owner.is_none());

    // Not while another one runs on the same laboratory.
    let other = harness.operation(&tenant, OperationKind::Migrate).await;
    let error = operation_reopen(&client, operation.id).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::OperationInProgress { .. }),
        "{error:?}"
    );
    let (_, lease) = operation_claim(&client, "w", LEASE, Claimable::Operation(other.id))
        .await
        .unwrap()
        .unwrap();
    operation_finish(&client, &lease, Outcome::Succeeded)
        .await
        .unwrap();

    let reopened = operation_reopen(&client, operation.id).await.unwrap();
    assert_eq!(
        (reopened.status, reopened.attempts),
        (OperationStatus::Pending, 0)
    );
    assert!(
        operation_claim(&client, "w", LEASE, which)
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn lists_show_the_newest_first_and_filter() {
    let harness = Harness::new().await;
    let (one, two) = (harness.tenant("one").await, harness.tenant("two").await);
    let older = harness.operation(&one, OperationKind::Migrate).await;
    let newer = harness.operation(&two, OperationKind::Offboard).await;
    let client = harness.client().await;
    let (_, lease) = operation_claim(&client, "w", LEASE, Claimable::Operation(older.id))
        .await
        .unwrap()
        .unwrap();
    operation_finish(&client, &lease, Outcome::Succeeded)
        .await
        .unwrap();
    let list = async |filter: OperationFilter, before| -> Vec<OperationId> {
        let page = operations_list(&client, &filter, before, 10).await.unwrap();
        page.iter().map(|operation| operation.id).collect()
    };
    let all = OperationFilter::default;
    assert_eq!(list(all(), None).await, [newer.id, older.id]);
    assert_eq!(list(all(), Some(newer.position())).await, [older.id]);
    assert_eq!(
        list(OperationFilter { live: true, ..all() }, None).await,
        [newer.id]
    );
    let (tenant, kind) = (Some(one.id), Some(OperationKind::Offboard));
    assert_eq!(list(OperationFilter { tenant, ..all() }, None).await, [older.id]);
    assert_eq!(list(OperationFilter { kind, ..all() }, None).await, [newer.id]);
    let status = Some(OperationStatus::Succeeded);
    assert_eq!(list(OperationFilter { status, ..all() }, None).await, [older.id]);
}
