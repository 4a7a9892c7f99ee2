//! The export feed: a reader that follows its cursor misses nothing, also when an early transaction commits
//! late.

use std::time::Duration;

use lab::{
    PageRequest, Reason, ResultStatus, result_feed, results,
    signoff::{self},
};

use crate::support::{Lab, adult, items, received, released, value};

#[tokio::test]
async fn an_early_transaction_that_commits_late_is_not_missed() {
    let lab = Lab::new().await;
    let (mut one, mut two, mut reader) = (lab.client().await, lab.client().await, lab.client().await);
    let setup = one.transaction().await.unwrap();
    let patient = adult(&setup, &lab).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let order = received(&setup, &lab, &patient, &["K"]).await;
        let id = order.results[0].id;
        results::enter(&setup, &lab.technician, id, 1, &value("4.0", "mmol/L"))
            .await
            .unwrap();
        signoff::verify(&setup, &lab.supervisor, &items(&setup, &[id]).await)
            .await
            .unwrap();
        ids.push(id);
    }
    setup.commit().await.unwrap();

    // The first begins and releases before the second, and commits after it.
    let early = one.transaction().await.unwrap();
    let early_items = items(&early, &ids[..1]).await;
    signoff::release(&early, &lab.supervisor, &early_items)
        .await
        .unwrap();
    let late = two.transaction().await.unwrap();
    let late_items = items(&late, &ids[1..]).await;
    signoff::release(&late, &lab.supervisor, &late_items)
        .await
        .unwrap();
    late.commit().await.unwrap();

    let txn = reader.transaction().await.unwrap();
    let first = result_feed::page(
        &txn,
        crate::support::epoch(),
        &PageRequest {
            limit: Some(1),
            after: None,
        },
    )
    .await
    .unwrap();
    assert_eq!(
        first.items.iter().map(|c| c.result.id).collect::<Vec<_>>(),
        [ids[1]]
    );
    txn.rollback().await.unwrap();
    early.commit().await.unwrap();

    let txn = reader.transaction().await.unwrap();
    let all = result_feed::page(&txn, crate::support::epoch(), &PageRequest::default())
        .await
        .unwrap();
    assert_eq!(
        all.items.iter().map(|c| c.result.id).collect::<Vec<_>>(),
        [ids[1], ids[0]],
        "in the order of commits"
    );
    let page = result_feed::page(
        &txn,
        crate::support::epoch(),
        &PageRequest {
            limit: Some(1),
            after: None,
        },
    )
    .await
    .unwrap();
    let next = result_feed::page(
        &txn,
        crate::support::epoch(),
        &PageRequest {
            limit: Some(1),
            after: page.next,
        },
    )
    .await
    .unwrap();
    assert_eq!(
        next.items[0].result.id, ids[0],
        "behind the cursor there is nothing new, before it everything"
    );
    txn.rollback().await.unwrap();

    let txn = one.transaction().await.unwrap();
    let version = results::get(&txn, ids[0]).await.unwrap().version;
    results::void(
        &txn,
        &lab.supervisor,
        ids[0],
        version,
        &Reason {
            reason: "mislabelled".to_owned(),
        },
    )
    .await
    .unwrap();
    txn.commit().await.unwrap();
    let txn = reader.transaction().await.unwrap();
    let all = result_feed::page(&txn, crate::support::epoch(), &PageRequest::default())
        .await
        .unwrap();
    assert_eq!(all.items.last().unwrap().change, ResultStatus::Voided);
}

#[tokio::test]
async fn of_two_commits_at_once_the_second_waits_to_draw_its_number() {
    let lab = Lab::new().await;
    let (mut one, mut two) = (lab.client().await, lab.client().await);
    let watcher = lab.owner().await;
    let setup = one.transaction().await.unwrap();
    let patient = adult(&setup, &lab).await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let order = received(&setup, &lab, &patient, &["K"]).await;
        let id = order.results[0].id;
        results::enter(&setup, &lab.technician, id, 1, &value("4.0", "mmol/L"))
            .await
            .unwrap();
        signoff::verify(&setup, &lab.supervisor, &items(&setup, &[id]).await)
            .await
            .unwrap();
        ids.push(id);
    }
    setup.commit().await.unwrap();
    let first = one.transaction().await.unwrap();
    let mine = items(&first, &ids[..1]).await;
    signoff::release(&first, &lab.supervisor, &mine).await.unwrap();
    // As a commit does it, and then held open: the number is drawn, the commit not yet visible.
    first
        .batch_execute("SET CONSTRAINTS ALL IMMEDIATE")
        .await
        .unwrap();
    let second = two.transaction().await.unwrap();
    let yours = items(&second, &ids[1..]).await;
    signoff::release(&second, &lab.supervisor, &yours).await.unwrap();
    let release_first = async {
        testkit::eventually(
            "the second to wait for the feed's lock",
            Duration::from_secs(30),
            async || {
                let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
                watcher.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
            },
        )
        .await;
        first.commit().await.unwrap();
    };
    let (committed, ()) = tokio::join!(second.commit(), release_first);
    committed.unwrap();
    let feed = watcher
        .query("SELECT result_id FROM result_change ORDER BY seq", &[])
        .await
        .unwrap();
    assert_eq!(
        feed.iter()
            .map(|row| row.get::<_, lab::ResultId>(0))
            .collect::<Vec<_>>(),
        ids
    );
}

#[tokio::test]
async fn a_cursor_from_before_a_restore_is_refused() {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    let lab = Lab::new().await;
    let mut client = lab.client().await;
    let txn = client.transaction().await.unwrap();
    let patient = adult(&txn, &lab).await;
    for _ in 0..2 {
        released(&txn, &lab, &patient, "K", &value("4.0", "mmol/L")).await;
    }
    txn.commit().await.unwrap();
    let txn = client.transaction().await.unwrap();
    let after = |after: Option<String>| PageRequest {
        limit: Some(1),
        after,
    };
    let before = crate::support::epoch();
    let first = result_feed::page(&txn, before, &after(None)).await.unwrap();
    let next = first.next.unwrap();
    assert_eq!(
        result_feed::page(&txn, before, &after(Some(next.clone())))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    let restored = uuid::Uuid::now_v7().into();
    let refused = result_feed::page(&txn, restored, &after(Some(next))).await;
    assert_eq!(crate::support::conflict(refused), "feed_restarted");
    // A cursor of an earlier version has no epoch. It is taken, unless it names a number that was never given
    // here.
    let old = |seq: i64| Some(URL_SAFE_NO_PAD.encode(format!("n{seq}")));
    assert_eq!(
        result_feed::page(&txn, restored, &after(old(1)))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    let refused = result_feed::page(&txn, restored, &after(old(7))).await;
    assert_eq!(crate::support::conflict(refused), "feed_restarted");
}
