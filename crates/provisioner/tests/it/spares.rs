//! Databases kept ready, and laboratories made of them.

use std::{collections::BTreeSet, time::Duration};

use model::{OperationKind, TenantState};
use testkit::eventually;

use crate::harness::{Harness, PATIENCE, connect};

async fn spares(harness: &Harness) -> Vec<String> {
    let leftovers = harness.leftovers().await;
    let mut found: Vec<String> = leftovers
        .into_iter()
        .filter(|name| name.starts_with("spare_"))
        .collect();
    found.sort();
    found
}

async fn stocked(count: usize) -> Harness {
    Harness::with(|config| {
        config.bounds.spares = count;
        config.lease = Duration::from_secs(1);
    })
    .await
}

#[tokio::test]
async fn a_laboratory_takes_a_spare_and_the_shelf_is_filled_again() {
    let harness = stocked(2).await;
    let done = harness.provisioner.stock().await.unwrap();
    assert_eq!((done.made, done.ready), (2, 2));
    assert_eq!(harness.provisioner.stock().await.unwrap().made, 0);
    let before = spares(&harness).await;

    let tenant = harness.provisioned("warm").await;
    assert_eq!(tenant.status, TenantState::Active);
    let after = spares(&harness).await;
    assert_eq!(after.len(), 1, "{after:?}");
    assert!(before.contains(&after[0]));
    // Nobody but its own role gets in.
    let open = connect(&harness.space.server)
        .await
        .query_one(
            "SELECT datallowconn, array_to_string(datacl, ' ') FROM pg_database WHERE datname = $1",
            &[&tenant.db_name.as_str()],
        )
        .await
        .unwrap();
    let acl: String = open.get(1);
    assert!(
        open.get::<_, bool>(0) && !acl.split(' ').any(|item| item.starts_with('=')),
        "{acl}"
    );

    let done = harness.provisioner.stock().await.unwrap();
    assert_eq!((done.made, done.ready), (1, 2));
}

#[tokio::test]
async fn many_at_once_never_share_a_spare_and_the_last_ones_do_without() {
    let harness = stocked(3).await;
    harness.provisioner.stock().await.unwrap();
    let mut asked = Vec::new();
    for at in 0..6 {
        asked.push(harness.ask(&format!("crowd-{at}")).await);
    }
    let running = asked
        .iter()
        .map(|(_, operation)| harness.provisioner.run(*operation, |_| {}));
    for ended in futures_util::future::join_all(running).await {
        ended.unwrap();
    }
    let client = harness.registry.client().await.unwrap();
    let mut taken = Vec::new();
    for (_, operation) in &asked {
        for row in registry::steps_of(&client, *operation).await.unwrap() {
            taken.extend(row.saw.and_then(|saw| saw["spare"].as_str().map(str::to_owned)));
        }
    }
    let distinct: BTreeSet<_> = taken.iter().collect();
    assert_eq!((taken.len(), distinct.len()), (3, 3), "{taken:?}");
    assert!(spares(&harness).await.is_empty());
}

/// A worker keeps the shelf full by itself: at its start, and when something was taken.
#[tokio::test]
async fn a_worker_stocks_by_itself() {
    let harness = stocked(1).await;
    let worker = harness.provisioner.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        worker
            .worker(async {
                let _ = stopped.await;
            })
            .await;
    });
    eventually("a spare", PATIENCE, async || spares(&harness).await.len() == 1).await;
    let first = spares(&harness).await;
    harness.provisioned("taker").await;
    eventually("another spare", PATIENCE, async || {
        let now = spares(&harness).await;
        now.len() == 1 && now != first
    })
    .await;
    stop.send(()).unwrap();
    running.await.unwrap();
}

/// Those of a schema without a template go; those of a template that is still there belong to a binary that
/// still runs.
#[tokio::test]
async fn spares_of_a_schema_that_is_past_are_dropped() {
    let harness = stocked(1).await;
    harness.provisioner.stock().await.unwrap();
    let server = connect(&harness.space.server).await;
    let namespace = harness.space.namespace.as_str();
    for sql in [
        format!(
            "CREATE DATABASE \"{namespace}_spare_past00000000_0000000000000001\" ALLOW_CONNECTIONS false"
        ),
        format!(
            "CREATE DATABASE \"{namespace}_spare_other0000000_0000000000000002\" ALLOW_CONNECTIONS false"
        ),
        format!(
            "CREATE DATABASE \"{namespace}_template_v9999_other0000000\" ALLOW_CONNECTIONS false IS_TEMPLATE true"
        ),
    ] {
        server.batch_execute(&sql).await.unwrap();
    }
    let done = harness.provisioner.stock().await.unwrap();
    assert_eq!((done.made, done.dropped, done.ready), (0, 1, 1));
    let left = spares(&harness).await;
    assert!(left.iter().any(|name| name.contains("other0000000")), "{left:?}");
    assert_eq!(left.len(), 2, "{left:?}");
}

/// Killed wherever it may be while it takes one, a laboratory comes out whole, and no spare is lost or
/// doubled.
#[tokio::test]
async fn a_claim_ends_well_wherever_its_worker_died() {
    let harness = stocked(2).await;
    let mut asked = Vec::new();
    for step in provisioner::steps(OperationKind::Provision) {
        for moment in ["begun", "acted"] {
            harness.provisioner.stock().await.unwrap();
            let (tenant, operation) = harness.ask(&format!("{step}-{moment}").replace('_', "-")).await;
            crate::crash::die_at(&harness, operation, &format!("provision/{step}/{moment}")).await;
            asked.push((tenant.id, operation));
        }
    }
    for (tenant, operation) in &asked {
        harness.provisioner.run(*operation, |_| {}).await.unwrap();
        assert_eq!(harness.tenant(*tenant).await.unwrap().status, TenantState::Active);
    }
    harness.provisioner.stock().await.unwrap();
    let leftovers = harness.leftovers().await;
    let laboratories = leftovers
        .iter()
        .filter(|name| name.starts_with("tenant_"))
        .count();
    // A database and a role each.
    assert_eq!(
        (laboratories, spares(&harness).await.len()),
        (2 * asked.len(), 2),
        "{leftovers:?}"
    );
    assert_eq!(leftovers.len(), 2 * asked.len() + 2, "{leftovers:?}");
}

/// What a maker that was killed has left, open or closed, is taken away; a spare that a person has opened is
/// not.
#[tokio::test]
async fn a_spare_that_was_never_finished_is_made_anew() {
    let harness = stocked(1).await;
    harness.provisioner.stock().await.unwrap();
    let ready = spares(&harness).await;
    let server = connect(&harness.space.server).await;
    let namespace = &harness.space.namespace;
    let opened = migrator::spare_name(namespace, 2);
    for (name, open) in [
        (namespace.spare_in_the_making(1), true),
        (namespace.spare_in_the_making(2), false),
        (opened.clone(), true),
    ] {
        let sql = format!("CREATE DATABASE {name} ALLOW_CONNECTIONS {open}");
        server.batch_execute(&sql).await.unwrap();
        let sql = format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC");
        server.batch_execute(&sql).await.unwrap();
    }
    let lab = harness.provisioned("taker").await;
    assert_eq!(lab.status, TenantState::Active);
    let done = harness.provisioner.stock().await.unwrap();
    assert_eq!((done.made, done.dropped, done.ready), (1, 2, 1));
    let left = spares(&harness).await;
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(
        !left.contains(&ready[0]),
        "the one that was ready is taken: {left:?}"
    );
    assert!(
        left.iter().any(|name| opened.as_str().ends_with(name)),
        "{left:?}"
    );
}

/// Somebody sits in the one that would be taken: the next one is.
#[tokio::test]
async fn a_spare_with_somebody_in_it_is_passed_over() {
    let harness = stocked(2).await;
    harness.provisioner.stock().await.unwrap();
    let server = connect(&harness.space.server).await;
    let first = model::DbName::from_catalog(harness.named(&spares(&harness).await[0])).unwrap();
    let open = |open| format!("ALTER DATABASE {first} ALLOW_CONNECTIONS {open}");
    server.batch_execute(&open(true)).await.unwrap();
    let guest = connect(&harness.space.server.with_database(first.as_str())).await;
    server.batch_execute(&open(false)).await.unwrap();
    let lab = harness.provisioned("patient").await;
    assert_eq!(lab.status, TenantState::Active);
    assert_eq!(
        spares(&harness).await,
        [first.as_str().split_once('_').unwrap().1]
    );
    drop(guest);
}
