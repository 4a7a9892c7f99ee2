//! A request that is sent twice is done once.

use std::collections::BTreeMap;

use lab::{
    LabError, Txn,
    idempotency::{self, Begin, StoredAnswer, Ticket},
};

use crate::support::Lab;

const ROUTE: &str = "POST /api/v1/orders";

async fn first(txn: &Txn<'_>, lab: &Lab, key: &str) -> Ticket {
    match idempotency::begin(txn, &lab.receptionist, ROUTE, key, b"body")
        .await
        .unwrap()
    {
        Begin::First(ticket) => ticket,
        Begin::Replay(answer) => panic!("there was {answer:?}"),
    }
}

fn answer() -> StoredAnswer {
    StoredAnswer {
        status: 201,
        headers: BTreeMap::from([("location".to_owned(), "/api/v1/orders/1".to_owned())]),
        body: b"{\"a\":1}\0\xff".to_vec(),
    }
}

#[tokio::test]
async fn the_first_answer_is_given_again_and_only_to_the_same_request() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let ticket = first(&txn, &lab, "k1").await;
    idempotency::finish(&txn, &lab.receptionist, ticket, &answer())
        .await
        .unwrap();
    txn.commit().await.unwrap();

    let txn = client.transaction().await.unwrap();
    let again = idempotency::begin(&txn, &lab.receptionist, ROUTE, "k1", b"body")
        .await
        .unwrap();
    assert!(matches!(again, Begin::Replay(stored) if stored == answer()));
    let other = idempotency::begin(&txn, &lab.receptionist, ROUTE, "k1", b"other").await;
    assert!(matches!(other, Err(LabError::KeyReused)), "{other:?}");
    // Another person's key, another route's and another key are other requests.
    for (actor, route, key) in [
        (&lab.technician, ROUTE, "k1"),
        (&lab.receptionist, "POST /x", "k1"),
        (&lab.receptionist, ROUTE, "k2"),
    ] {
        let begin = idempotency::begin(&txn, actor, route, key, b"other")
            .await
            .unwrap();
        assert!(matches!(begin, Begin::First(_)));
    }
    for bad in ["", "a\nb", &"k".repeat(256)] {
        assert!(matches!(
            idempotency::begin(&txn, &lab.receptionist, ROUTE, bad, b"").await,
            Err(LabError::Invalid(_))
        ));
    }
}

#[tokio::test]
async fn who_repeats_while_the_first_is_worked_on_is_told_at_once() {
    let lab = Lab::new().await;
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    let busy = one.transaction().await.unwrap();
    let ticket = first(&busy, &lab, "k1").await;
    let txn = two.transaction().await.unwrap();
    let second = idempotency::begin(&txn, &lab.receptionist, ROUTE, "k1", b"body").await;
    assert!(matches!(second, Err(LabError::KeyInFlight)), "{second:?}");
    idempotency::finish(&busy, &lab.receptionist, ticket, &answer())
        .await
        .unwrap();
    busy.rollback().await.unwrap();
    first(&txn, &lab, "k1").await; // what was rolled back was never answered
}

#[tokio::test]
async fn old_answers_are_swept_and_young_ones_stay() {
    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    for key in ["old", "young"] {
        let ticket = first(&txn, &lab, key).await;
        idempotency::finish(&txn, &lab.receptionist, ticket, &answer())
            .await
            .unwrap();
    }
    txn.commit().await.unwrap();
    let owner = lab.owner().await;
    owner
        .batch_execute(
            "UPDATE idempotency_key SET created_at = now() - interval '25 hours' WHERE key = 'old'",
        )
        .await
        .unwrap();
    let txn = client.transaction().await.unwrap();
    assert_eq!(idempotency::sweep(&txn).await.unwrap(), 1);
    assert_eq!(idempotency::sweep(&txn).await.unwrap(), 0);
}
