//! Databases kept ready, and laboratories made of them.

use std::{collections::BTreeSet, time::Duration};

use model::{OperationKind, TenantState};
use testkit::eventually;

use crate::rig::{PATIENCE, Rig, connect};

async fn spares(rig: &Rig) -> Vec<String> {
    let leftovers = rig.leftovers().await;
    let mut found: Vec<String> = leftovers
        .into_iter()
        .filter(|name| name.starts_with("spare_"))
        .collect();
    found.sort();
    found
}

async fn stocked(count: usize) -> Rig {
    Rig::with(|config| {
        config.bounds.spares = count;
        config.lease = Duration::from_secs(1);
    })
    .await
}

#[tokio::test]
async fn a_laboratory_takes_a_spare_and_the_shelf_is_filled_again() {
    let rig = stocked(2).await;
    let done = rig.provisioner.stock().await.unwrap();
    assert_eq!((done.made, done.ready), (2, 2));
    assert_eq!(rig.provisioner.stock().await.unwrap().made, 0);
    let before = spares(&rig).await;

    let tenant = rig.provisioned("warm").await;
    assert_eq!(tenant.status, TenantState::Active);
    let after = spares(&rig).await;
    assert_eq!(after.len(), 1, "{after:?}");
    assert!(before.contains(&after[0]));
    // Nobody but its own role gets in.
    let open = connect(&rig.space.server)
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

    let done = rig.provisioner.stock().await.unwrap();
    assert_eq!((done.made, done.ready), (1, 2));
}

#[tokio::test]
async fn many_at_once_never_share_a_spare_and_the_last_ones_do_without() {
    let rig = stocked(3).await;
    rig.provisioner.stock().await.unwrap();
    let mut asked = Vec::new();
    for at in 0..6 {
        asked.push(rig.ask(&format!("crowd-{at}")).await);
    }
    let running = asked
        .iter()
        .map(|(_, operation)| rig.provisioner.run(*operation, |_| {}));
    for ended in futures_util::future::join_all(running).await {
        ended.unwrap();
    }
    let client = rig.registry.client().await.unwrap();
    let mut taken = Vec::new();
    for (_, operation) in &asked {
        for row in registry::steps_of(&client, *operation).await.unwrap() {
            taken.extend(row.saw.and_then(|saw| saw["spare"].as_str().map(str::to_owned)));
        }
    }
    let distinct: BTreeSet<_> = taken.iter().collect();
    assert_eq!((taken.len(), distinct.len()), (3, 3), "{taken:?}");
    assert!(spares(&rig).await.is_empty());
}

/// A worker keeps the shelf full by itself: at its start, and when something was taken.
#[tokio::test]
async fn a_worker_stocks_by_itself() {
    let rig = stocked(1).await;
    let worker = rig.provisioner.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        worker
            .worker(async {
                let _ = stopped.await;
            })
            .await;
    });
    eventually("a spare", PATIENCE, async || spares(&rig).await.len() == 1).await;
    let first = spares(&rig).await;
    rig.provisioned("taker").await;
    eventually("another spare", PATIENCE, async || {
        let now = spares(&rig).await;
        now.len() == 1 && now != first
    })
    .await;
    stop.send(()).unwrap();
    running.await.unwrap();
}

/// Those of a schema without a template go; those of a template that is still there belong to a binary that still runs.
#[tokio::test]
async fn spares_of_a_schema_that_is_past_are_dropped() {
    let rig = stocked(1).await;
    rig.provisioner.stock().await.unwrap();
    let server = connect(&rig.space.server).await;
    let namespace = rig.space.namespace.as_str();
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
    let done = rig.provisioner.stock().await.unwrap();
    assert_eq!((done.made, done.dropped, done.ready), (0, 1, 1));
    let left = spares(&rig).await;
    assert!(left.iter().any(|name| name.contains("other0000000")), "{left:?}");
    assert_eq!(left.len(), 2, "{left:?}");
}

/// Killed wherever it may be while it takes one, a laboratory comes out whole, and no spare is lost or doubled.
#[tokio::test]
async fn a_claim_ends_well_wherever_its_worker_died() {
    let rig = stocked(2).await;
    let mut asked = Vec::new();
    for step in provisioner::steps(OperationKind::Provision) {
        for moment in ["begun", "acted"] {
            rig.provisioner.stock().await.unwrap();
            let (tenant, operation) = rig.ask(&format!("{step}-{moment}").replace('_', "-")).await;
            crate::crash::die_at(&rig, operation, &format!("provision/{step}/{moment}")).await;
            asked.push((tenant.id, operation));
        }
    }
    for (tenant, operation) in &asked {
        rig.provisioner.run(*operation, |_| {}).await.unwrap();
        assert_eq!(rig.tenant(*tenant).await.unwrap().status, TenantState::Active);
    }
    rig.provisioner.stock().await.unwrap();
    let leftovers = rig.leftovers().await;
    let laboratories = leftovers
        .iter()
        .filter(|name| name.starts_with("tenant_"))
        .count();
    // A database and a role each.
    assert_eq!(
        (laboratories, spares(&rig).await.len()),
        (2 * asked.len(), 2),
        "{leftovers:?}"
    );
    assert_eq!(leftovers.len(), 2 * asked.len() + 2, "{leftovers:?}");
}

/// What a maker that was killed has left, open or closed, is taken away; a spare that a person has opened is not.
#[tokio::test]
async fn a_spare_that_was_never_finished_is_made_anew() {
    let rig = stocked(1).await;
    rig.provisioner.stock().await.unwrap();
    let ready = spares(&rig).await;
    let server = connect(&rig.space.server).await;
    let namespace = &rig.space.namespace;
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
    let lab = rig.provisioned("taker").await;
    assert_eq!(lab.status, TenantState::Active);
    let done = rig.provisioner.stock().await.unwrap();
    assert_eq!((done.made, done.dropped, done.ready), (1, 2, 1));
    let left = spares(&rig).await;
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
    let rig = stocked(2).await;
    rig.provisioner.stock().await.unwrap();
    let server = connect(&rig.space.server).await;
    let first = model::DbName::from_catalog(rig.named(&spares(&rig).await[0])).unwrap();
    let open = |open| format!("ALTER DATABASE {first} ALLOW_CONNECTIONS {open}");
    server.batch_execute(&open(true)).await.unwrap();
    let guest = connect(&rig.space.server.with_database(first.as_str())).await;
    server.batch_execute(&open(false)).await.unwrap();
    let lab = rig.provisioned("patient").await;
    assert_eq!(lab.status, TenantState::Active);
    assert_eq!(spares(&rig).await, [first.as_str().split_once('_').unwrap().1]);
    drop(guest);
}
