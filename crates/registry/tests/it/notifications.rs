//! What the database tells routers and workers.

use std::time::Duration;

use model::{OperationKind, SchemaVersion, TenantEvent};
use registry::{
    Claimable, Event, Listener, ListenerOptions, RowChange, operation_claim, operation_renew, server_upsert,
    tenant_delete_in_txn, tenant_insert_in_txn, tenant_set_db_version,
};

use crate::harness::{Harness, new_tenant};

const BOUND: Duration = Duration::from_secs(30);

/// A listener that has begun to listen.
pub(crate) async fn listening(harness: &Harness) -> Listener {
    let mut listener = Listener::start(&harness.space.registry, ListenerOptions::default());
    assert_eq!(
        next(&mut listener).await,
        Event::Lost,
        "nothing is known at first"
    );
    listener
}

pub(crate) async fn next(listener: &mut Listener) -> Event {
    let event = tokio::time::timeout(BOUND, listener.next()).await;
    event.expect("an event comes").expect("the listener lives")
}

#[tokio::test]
async fn every_change_of_a_laboratory_is_told_with_a_rising_generation() {
    let harness = Harness::new().await;
    let mut listener = listening(&harness).await;
    let new = new_tenant("acme");
    let mut last = 0;
    let mut reported = async |expected: RowChange| match next(&mut listener).await {
        Event::TenantChanged { id, generation, op } => {
            assert_eq!((id, op), (new.id, expected));
            assert!(generation > last, "{generation} after {last}");
            last = generation;
        }
        other => panic!("{other:?}"),
    };
    let mut client = harness.client().await;
    for _ in 0..2 {
        // The second time under the same id, as a restore makes it: the generation goes on rising.
        let txn = client.transaction().await.unwrap();
        tenant_insert_in_txn(&txn, &new, &harness.change()).await.unwrap();
        txn.commit().await.unwrap();
        reported(RowChange::Insert).await;
        tenant_set_db_version(&client, new.id, SchemaVersion::new(1))
            .await
            .unwrap();
        reported(RowChange::Update).await;
        let txn = client.transaction().await.unwrap();
        tenant_delete_in_txn(&txn, new.id, TenantEvent::ProvisionUndone, &harness.change())
            .await
            .unwrap();
        txn.commit().await.unwrap();
        reported(RowChange::Delete).await;
    }
    // Also what is done by hand; a generation can be raised so and never lowered.
    let txn = client.transaction().await.unwrap();
    tenant_insert_in_txn(&txn, &new, &harness.change()).await.unwrap();
    txn.commit().await.unwrap();
    reported(RowChange::Insert).await;
    client
        .batch_execute("UPDATE tenants SET generation = 0")
        .await
        .unwrap();
    reported(RowChange::Update).await;
}

#[tokio::test]
async fn what_is_rolled_back_is_not_told() {
    let harness = Harness::new().await;
    let mut listener = listening(&harness).await;
    let mut client = harness.client().await;
    let txn = client.transaction().await.unwrap();
    tenant_insert_in_txn(&txn, &new_tenant("ghost"), &harness.change())
        .await
        .unwrap();
    txn.rollback().await.unwrap();
    let tenant = harness.tenant("acme").await;
    assert!(matches!(next(&mut listener).await, Event::TenantChanged { id, .. } if id == tenant.id));
}

#[tokio::test]
async fn a_changed_server_is_told() {
    let harness = Harness::new().await;
    let mut listener = listening(&harness).await;
    let new = harness.server("second");
    let server = server_upsert(&harness.client().await, &new).await.unwrap();
    let expected = Event::ServerChanged {
        name: new.name,
        generation: server.generation,
        op: RowChange::Insert,
    };
    assert_eq!(next(&mut listener).await, expected);
}

#[tokio::test]
async fn operations_are_told_but_not_the_renewing_of_their_leases() {
    let harness = Harness::new().await;
    let (one, two) = (harness.tenant("one").await, harness.tenant("two").await);
    let mut listener = listening(&harness).await;
    let client = harness.client().await;
    let first = harness.operation(&one, OperationKind::Migrate).await.id;
    assert_eq!(next(&mut listener).await, Event::OperationChanged { id: first });
    let lease = Duration::from_secs(60);
    let claimed = operation_claim(&client, "w", lease, Claimable::Operation(first))
        .await
        .unwrap();
    assert_eq!(next(&mut listener).await, Event::OperationChanged { id: first });
    operation_renew(&client, &claimed.unwrap().1, lease)
        .await
        .unwrap();
    let second = harness.operation(&two, OperationKind::Migrate).await.id;
    assert_eq!(next(&mut listener).await, Event::OperationChanged { id: second });
}
