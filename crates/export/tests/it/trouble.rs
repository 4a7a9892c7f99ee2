use std::io;

use export::ExportError;
use testkit::{Space, eventually};

use crate::reading::{LIMIT, about, client, source};

const BIG: &str = "CREATE TABLE big AS SELECT i, md5(i::text) || md5((i * 7)::text) AS note FROM generate_series(1, 200000) i";

#[tokio::test]
async fn whoever_takes_no_more_ends_the_export_and_what_came_is_no_archive() {
    let space = Space::new().await;
    client(&space).await.batch_execute(BIG).await.unwrap();
    let mut source = source(&space).await;
    let txn = source.begin().await.unwrap();
    let plan = export::plan(&txn, &[]).await.unwrap();
    let mut came = Vec::new();
    let out = async |piece: bytes::Bytes| {
        if came.len() > 300_000 {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "gone"));
        }
        came.extend_from_slice(&piece);
        Ok(())
    };
    let ended = export::write(&txn, &plan, &about(), out, |_, _| {}).await;
    assert!(matches!(ended, Err(ExportError::Receiver(_))), "{ended:?}");
    assert!(zip::ZipArchive::new(io::Cursor::new(&came)).is_err());
}

#[tokio::test]
async fn an_export_that_is_dropped_ends_its_statement_on_the_server() {
    let space = Space::new().await;
    let client = client(&space).await;
    client.batch_execute(BIG).await.unwrap();
    let (first, mut begun) = tokio::sync::mpsc::channel(1);
    let stalled = async {
        let mut source = source(&space).await;
        let txn = source.begin().await.unwrap();
        let plan = export::plan(&txn, &[]).await.unwrap();
        let out = async |_piece| {
            first.send(()).await.unwrap();
            // Nobody takes the next one.
            std::future::pending().await
        };
        export::write(&txn, &plan, &about(), out, |_, _| {}).await
    };
    tokio::select! {
        _ = stalled => panic!("it cannot end"),
        first = begun.recv() => assert!(first.is_some()),
    }
    eventually("the statement's end", LIMIT, async || {
        let row = client
            .query_one(
                "SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = 'tenantry export'",
                &[],
            )
            .await
            .unwrap();
        row.get::<_, i64>(0) == 0
    })
    .await;
}

#[tokio::test]
async fn a_role_exports_what_it_may_read_and_is_told_what_it_may_not() {
    let space = Space::new().await;
    let client = client(&space).await;
    let role = model::quote_ident(&format!("{}_reader", space.namespace.as_str()));
    client
        .batch_execute(&format!(
            "CREATE TABLE mixed (id int PRIMARY KEY, open text, closed text); INSERT INTO mixed VALUES (1, 'a', 'b');
             CREATE TABLE hidden (id int); CREATE ROLE {role};
             GRANT USAGE ON SCHEMA public TO {role}; GRANT SELECT (id, open) ON mixed TO {role}"
        ))
        .await
        .unwrap();
    let mut other = crate::reading::client(&space).await;
    let txn = other.transaction().await.unwrap();
    export::snapshot(&txn).await.unwrap();
    txn.batch_execute(&format!("SET LOCAL ROLE {role}"))
        .await
        .unwrap();
    let plan = export::plan(&txn, &[]).await.unwrap();
    let told: Vec<_> = plan
        .left_out()
        .iter()
        .map(|one| (one.table.as_str(), one.column.as_deref()))
        .collect();
    assert_eq!(told, [("hidden", Some("id")), ("mixed", Some("closed"))]);
    let summary = export::write(&txn, &plan, &about(), async |_| Ok(()), |_, _| {})
        .await
        .unwrap();
    assert_eq!((summary.tables, summary.rows), (1, 1));
}
