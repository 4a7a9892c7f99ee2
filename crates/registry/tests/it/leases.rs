//! Leases: who may run an operation, and what happens to one that slept.

use std::{collections::HashSet, time::Duration};

use model::{OperationId, OperationKind, OperationStatus, Step, StepStatus, UndoReason};
use registry::{
    Actor, Claimable, Lease, Operation, Outcome, RegistryClient, RegistryError, operation_by_id,
    operation_claim, operation_finish, operation_give_back, operation_make_irreversible, operation_note_drop,
    operation_progress, operation_release_for_retry, operation_renew, operation_request_cancel_in_txn,
    operation_set_undoing, operation_wait, step_begin, step_done, step_failed, steps_of,
};
use serde_json::json;

use crate::harness::Harness;

const LEASE: Duration = Duration::from_secs(60);
const ANY: Claimable<'static> = Claimable::Kinds(OperationKind::ALL);

async fn claim(client: &RegistryClient, owner: &str, which: Claimable<'_>) -> Option<(Operation, Lease)> {
    operation_claim(client, owner, LEASE, which).await.unwrap()
}

/// Ends a lease as time would, without waiting for it.
async fn expire(client: &RegistryClient, id: OperationId) {
    let statement = "UPDATE operations SET lease_until = clock_timestamp() - interval '1 ms' WHERE id = $1";
    assert_eq!(client.execute(statement, &[&id.as_uuid()]).await.unwrap(), 1);
}

fn lost<T: std::fmt::Debug>(result: Result<T, RegistryError>) {
    assert!(
        matches!(result, Err(RegistryError::LeaseLost { .. })),
        "{result:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_workers_share_the_work_and_no_two_get_the_same() {
    let harness = Harness::new().await;
    let mut asked = HashSet::new();
    for n in 0..12 {
        let tenant = harness.tenant(&format!("lab-{n}")).await;
        asked.insert(harness.operation(&tenant, OperationKind::Migrate).await.id);
    }
    let workers: Vec<_> = (0..6)
        .map(|n| {
            let registry = harness.registry.clone();
            tokio::spawn(async move {
                let client = registry.client().await.unwrap();
                let mut mine = Vec::new();
                while let Some((operation, _)) = claim(&client, &format!("worker-{n}"), ANY).await {
                    mine.push(operation.id);
                }
                mine
            })
        })
        .collect();
    let mut claimed = Vec::new();
    for worker in workers {
        claimed.extend(worker.await.unwrap());
    }
    assert_eq!(claimed.len(), 12, "none twice");
    assert_eq!(
        claimed.into_iter().collect::<HashSet<_>>(),
        asked,
        "and all of them"
    );
}

#[tokio::test]
async fn a_claim_passes_by_what_another_has_locked() {
    let harness = Harness::new().await;
    let (one, two) = (harness.tenant("one").await, harness.tenant("two").await);
    harness.operation(&one, OperationKind::Migrate).await;
    let second = harness.operation(&two, OperationKind::Migrate).await;
    let mut holder = harness.client().await;
    let txn = holder.transaction().await.unwrap();
    operation_claim(&txn, "a", LEASE, ANY)
        .await
        .unwrap()
        .expect("the first");
    let client = harness.client().await;
    let (operation, _) = claim(&client, "b", ANY)
        .await
        .expect("the second, without waiting");
    assert_eq!(operation.id, second.id);
    assert!(claim(&client, "b", ANY).await.is_none());
    txn.rollback().await.unwrap();
    assert!(
        claim(&client, "b", ANY).await.is_some(),
        "what was given back is there again"
    );
}

#[tokio::test]
async fn a_claim_can_name_kinds_or_one_operation() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    let operation = harness.operation(&tenant, OperationKind::Migrate).await;
    let client = harness.client().await;
    assert!(claim(&client, "w", Claimable::Kinds(&[])).await.is_none());
    assert!(
        claim(&client, "w", Claimable::Kinds(&[OperationKind::Offboard]))
            .await
            .is_none()
    );
    assert!(
        claim(&client, "w", Claimable::Operation(OperationId::generate()))
            .await
            .is_none()
    );
    let (claimed, lease) = claim(&client, "w", Claimable::Operation(operation.id))
        .await
        .unwrap();
    assert_eq!((claimed.status, claimed.attempts), (OperationStatus::Running, 1));
    assert_eq!(claimed.lease_owner.as_deref(), Some("w"));
    assert_eq!(lease.operation, operation.id);
    assert!(
        claim(&client, "w", Claimable::Operation(operation.id))
            .await
            .is_none(),
        "it is held"
    );
}

#[tokio::test]
async fn a_lease_is_renewed_by_its_holder_until_it_ends() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    let operation = harness.operation(&tenant, OperationKind::Migrate).await;
    let client = harness.client().await;
    let (before, lease) = claim(&client, "w", ANY).await.unwrap();
    operation_renew(&client, &lease, LEASE * 2).await.unwrap();
    let after = operation_by_id(&client, operation.id).await.unwrap().unwrap();
    assert!(after.lease_until > before.lease_until);
    assert_eq!(after.updated_at, before.updated_at, "renewing is no news");
    let stranger = Lease {
        owner: "x".to_owned(),
        ..lease.clone()
    };
    lost(operation_renew(&client, &stranger, LEASE).await);
    expire(&client, operation.id).await;
    lost(operation_renew(&client, &lease, LEASE).await);
}

/// Tries everything that a worker can write.
async fn every_write_is_lost(client: &RegistryClient, slept: &Lease) {
    lost(operation_renew(client, slept, LEASE).await);
    lost(operation_progress(client, slept, &json!(1)).await);
    lost(operation_release_for_retry(client, slept, LEASE, "late").await);
    lost(operation_give_back(client, slept, "late").await);
    lost(operation_note_drop(client, slept, "somewhere").await);
    lost(operation_set_undoing(client, slept, UndoReason::Failed, "late").await);
    lost(operation_wait(client, slept, Duration::ZERO).await);
    lost(operation_make_irreversible(client, slept).await.map(|_| ()));
    lost(operation_finish(client, slept, Outcome::Succeeded).await);
    lost(step_begin(client, slept, None, Step::RecordVersion).await);
    lost(step_done(client, slept, Step::EnsureSchema, &json!("late")).await);
    lost(step_failed(client, slept, Step::EnsureSchema, "late").await);
}

#[tokio::test]
async fn a_worker_that_slept_through_its_lease_can_write_nothing() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    let operation = harness.operation(&tenant, OperationKind::Migrate).await;
    let client = harness.client().await;
    let (_, slept) = claim(&client, "w", ANY).await.unwrap();
    step_begin(&client, &slept, None, Step::EnsureSchema)
        .await
        .unwrap();
    expire(&client, operation.id).await;
    every_write_is_lost(&client, &slept).await;
    // The same owner claims again, as another task of the same process would: the old claim is over all the
    // same.
    let (again, lease) = claim(&client, "w", ANY).await.unwrap();
    assert_eq!((again.status, again.attempts), (OperationStatus::Running, 2));
    every_write_is_lost(&client, &slept).await;
    assert_eq!(
        step_begin(&client, &lease, None, Step::EnsureSchema)
            .await
            .unwrap(),
        2
    );
    step_done(&client, &lease, Step::EnsureSchema, &json!("in time"))
        .await
        .unwrap();
    let steps = steps_of(&client, operation.id).await.unwrap();
    assert_eq!(steps.len(), 1);
    assert_eq!(
        (steps[0].status, steps[0].saw.clone()),
        (StepStatus::Done, Some(json!("in time")))
    );
}

#[tokio::test]
async fn a_retry_comes_when_it_is_due_and_not_before() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    let operation = harness.operation(&tenant, OperationKind::Migrate).await;
    let client = harness.client().await;
    let (_, lease) = claim(&client, "w", ANY).await.unwrap();
    operation_release_for_retry(&client, &lease, LEASE, "the server is away")
        .await
        .unwrap();
    let waiting = operation_by_id(&client, operation.id).await.unwrap().unwrap();
    assert_eq!(waiting.status, OperationStatus::Pending);
    assert_eq!(waiting.error.as_deref(), Some("the server is away"));
    assert!(claim(&client, "w", ANY).await.is_none());
    client
        .batch_execute("UPDATE operations SET not_before = now()")
        .await
        .unwrap();
    let (again, _) = claim(&client, "w", ANY).await.unwrap();
    assert_eq!((again.attempts, again.failures), (2, 1));
}

#[tokio::test]
async fn a_try_that_is_given_back_counts_neither_as_a_try_nor_as_a_failure() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    let operation = harness.operation(&tenant, OperationKind::Provision).await;
    let client = harness.client().await;
    let (_, lease) = claim(&client, "w", ANY).await.unwrap();
    operation_give_back(&client, &lease, "shut down").await.unwrap();
    let waiting = operation_by_id(&client, operation.id).await.unwrap().unwrap();
    assert_eq!(waiting.status, OperationStatus::Pending);
    assert_eq!(waiting.error.as_deref(), Some("shut down"));
    let (again, lease) = claim(&client, "w", ANY).await.unwrap();
    assert_eq!((again.attempts, again.failures), (1, 0));

    operation_set_undoing(&client, &lease, UndoReason::Failed, "no such template")
        .await
        .unwrap();
    operation_give_back(&client, &lease, "shut down").await.unwrap();
    let undone = operation_by_id(&client, operation.id).await.unwrap().unwrap();
    assert_eq!(undone.status, OperationStatus::Undoing);
    assert_eq!(undone.error.as_deref(), Some("no such template"));
}

#[tokio::test]
async fn an_undo_goes_on_as_an_undo_whoever_takes_it_over() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    let operation = harness.operation(&tenant, OperationKind::Provision).await;
    let client = harness.client().await;
    let (_, lease) = claim(&client, "a", ANY).await.unwrap();
    operation_set_undoing(&client, &lease, UndoReason::Failed, "no such template")
        .await
        .unwrap();
    operation_renew(&client, &lease, LEASE).await.unwrap();
    expire(&client, operation.id).await;
    let (taken, lease) = claim(&client, "b", ANY).await.unwrap();
    assert_eq!((taken.status, taken.attempts), (OperationStatus::Undoing, 2));
    operation_release_for_retry(&client, &lease, Duration::ZERO, "again")
        .await
        .unwrap();
    let (taken, lease) = claim(&client, "c", ANY).await.unwrap();
    assert_eq!(taken.status, OperationStatus::Undoing);
    assert_eq!(taken.undo_reason, Some(UndoReason::Failed));
    assert_eq!(taken.error.as_deref(), Some("no such template"));
    assert_eq!(taken.undo_error.as_deref(), Some("again"));
    assert_eq!(
        taken.error_text().as_deref(),
        Some("no such template (undoing it: again)")
    );
    operation_finish(&client, &lease, Outcome::Failed("no such template"))
        .await
        .unwrap();
    assert!(claim(&client, "d", ANY).await.is_none());
}

/// Called off between the worker's last look and its wait: it must not wait, and a second request finds it
/// due as well.
#[tokio::test]
async fn what_was_cancelled_neither_waits_nor_backs_off() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    let operation = harness.operation(&tenant, OperationKind::Offboard).await;
    let (mut other, client) = (harness.client().await, harness.client().await);
    let day = Duration::from_secs(86_400);
    let (_, lease) = claim(&client, "w", ANY).await.unwrap();
    let txn = other.transaction().await.unwrap();
    let by = Actor::Terminal("ops".to_owned());
    operation_request_cancel_in_txn(&txn, operation.id, &by)
        .await
        .unwrap();
    txn.commit().await.unwrap();
    operation_wait(&client, &lease, day).await.unwrap();
    let (_, lease) = claim(&client, "w", ANY).await.expect("it is due at once");
    operation_release_for_retry(&client, &lease, day, "refused")
        .await
        .unwrap();
    let (again, _) = claim(&client, "w", ANY).await.expect("it is due at once");
    assert!(again.cancel_requested_at.is_some());
}

#[tokio::test]
async fn steps_tell_who_when_and_what_in_their_order() {
    let harness = Harness::new().await;
    let tenant = harness.tenant("acme").await;
    let operation = harness.operation(&tenant, OperationKind::Provision).await;
    let client = harness.client().await;
    let (_, lease) = claim(&client, "w", ANY).await.unwrap();
    // The first is ended for itself, the second together with the begin of the third.
    let saw = json!({ "found": false });
    let begin = async |done, step| step_begin(&client, &lease, done, step).await.unwrap();
    assert_eq!(begin(None, Step::EnsureRole).await, 1);
    step_done(&client, &lease, Step::EnsureRole, &saw).await.unwrap();
    assert_eq!(begin(None, Step::EnsureDatabase).await, 1);
    assert_eq!(
        begin(Some((Step::EnsureDatabase, &saw)), Step::SecureDatabase).await,
        1
    );
    step_failed(&client, &lease, Step::SecureDatabase, "refused")
        .await
        .unwrap();
    operation_progress(&client, &lease, &json!({ "bytes": 7 }))
        .await
        .unwrap();
    assert_eq!(
        operation_by_id(&client, operation.id)
            .await
            .unwrap()
            .unwrap()
            .progress,
        Some(json!({ "bytes": 7 }))
    );
    assert_eq!(
        step_begin(&client, &lease, None, Step::SecureDatabase)
            .await
            .unwrap(),
        2
    );
    let steps = steps_of(&client, operation.id).await.unwrap();
    let shown: Vec<_> = steps.iter().map(|s| (s.step, s.status, s.attempts)).collect();
    assert_eq!(
        shown,
        [
            (Step::EnsureRole, StepStatus::Done, 1),
            (Step::EnsureDatabase, StepStatus::Done, 1),
            (Step::SecureDatabase, StepStatus::Running, 2),
        ]
    );
    assert!(steps.iter().all(|step| step.worker == "w"));
    assert!(steps[0].ended_at >= Some(steps[0].began_at));
    assert_eq!((steps[2].ended_at, steps[2].error.as_deref()), (None, None));
    lost(step_done(&client, &lease, Step::Seed, &json!(null)).await);
}
