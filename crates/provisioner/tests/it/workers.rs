use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::{OperationStatus, TenantState};
use provisioner::{Faults, ProvisionError};
use testkit::{Space, eventually};
use tokio::sync::oneshot;

use crate::{
    harness::{Harness, NOW, PATIENCE, by, connect},
    killed_server::server,
};

#[tokio::test]
async fn two_workers_share_the_work_and_do_nothing_twice() {
    let harness = Harness::new().await;
    let (stop_a, stopped_a) = oneshot::channel::<()>();
    let (stop_b, stopped_b) = oneshot::channel::<()>();
    let spawn = |stopped: oneshot::Receiver<()>| {
        // Each has a name of its own, as two processes would.
        let worker = harness.provisioner.clone().with_faults(Faults::default());
        tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            worker.worker(stopped).await;
        })
    };
    let workers = [spawn(stopped_a), spawn(stopped_b)];
    let mut tenants = Vec::new();
    for number in 0..6 {
        tenants.push(harness.ask(&format!("lab-{number}")).await.0.id);
    }
    for &tenant in &tenants {
        eventually("the laboratory to be active", PATIENCE, async || {
            harness.tenant(tenant).await.unwrap().status == TenantState::Active
        })
        .await;
    }
    for tenant in tenants.drain(..3) {
        let operation = harness
            .provisioner
            .request_offboard(tenant, NOW, by())
            .await
            .unwrap();
        // The foreground watches what a worker has, or runs what none has yet.
        harness.provisioner.run(operation, |_| {}).await.unwrap();
        assert!(harness.tenant(tenant).await.is_none());
    }
    stop_a.send(()).unwrap();
    stop_b.send(()).unwrap();
    for worker in workers {
        tokio::time::timeout(PATIENCE, worker).await.unwrap().unwrap();
    }
    let client = harness.registry.client().await.unwrap();
    let operations = registry::operations_list(&client, &registry::OperationFilter::default(), None, 100)
        .await
        .unwrap();
    assert_eq!(operations.len(), 9);
    for operation in operations {
        assert_eq!(operation.attempts, 1, "{operation:?}");
        for step in registry::steps_of(&client, operation.id).await.unwrap() {
            assert_eq!(step.attempts, 1, "{step:?}");
        }
    }
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_gives_back_what_it_cannot_finish() {
    let harness = Harness::with(|config| config.bounds.shutdown_grace = Duration::from_millis(50)).await;
    let (tenant, operation) = harness.ask("handover").await;
    let file = harness.space.dir().join("reached");
    let stuck = harness
        .provisioner
        .clone()
        .with_faults(Faults::stop_at("provision/seed/begun", &file));
    let (stop, stopped) = oneshot::channel::<()>();
    let working = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        stuck.worker(stopped).await;
    });
    eventually("the fault point", PATIENCE, async || file.exists()).await;
    stop.send(()).unwrap();
    tokio::time::timeout(PATIENCE, working).await.unwrap().unwrap();
    // The lease of 30 s was given back, so this does not wait for its end.
    tokio::time::timeout(
        Duration::from_secs(20),
        harness.provisioner.run(operation, |_| {}),
    )
    .await
    .unwrap()
    .unwrap();
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Active
    );
}

#[tokio::test]
async fn an_undoing_that_is_interrupted_still_says_what_it_is_for() {
    let harness = Harness::with(|config| {
        config.seed = Arc::new(|_, _| Box::pin(async { Err("no seed today".into()) }));
    })
    .await;
    let (tenant, operation) = harness.ask("reasons").await;
    let file = harness.space.dir().join("reached");
    let point = "provision/undo/drop_role/begun";
    let stuck = harness
        .provisioner
        .clone()
        .with_faults(Faults::stop_at(point, &file));
    let stop = async { eventually(point, PATIENCE, async || file.exists()).await };
    let interrupted = stuck.run_until(operation, |_| {}, stop).await.unwrap_err();
    assert!(
        matches!(interrupted, ProvisionError::Interrupted { .. }),
        "{interrupted}"
    );
    let error = harness
        .provisioner
        .run(operation, |_| {})
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no seed today") && !error.contains("interrupted"),
        "{error}"
    );
    assert!(harness.tenant(tenant.id).await.is_none());
}

/// A fleet that is restarted often while one server is away must not run out of tries for it.
#[tokio::test]
async fn restarts_use_up_no_try() {
    let broken = Arc::new(AtomicBool::new(true));
    let seen = broken.clone();
    let harness = Harness::with(|config| {
        config.lease = Duration::from_millis(1500);
        config.bounds.attempts_max = 2;
        let seed = config.seed.clone();
        config.seed = Arc::new(move |txn, what| {
            let (seed, fails) = (seed.clone(), seen.swap(false, Ordering::SeqCst));
            Box::pin(async move {
                if fails {
                    txn.batch_execute("SELECT pg_terminate_backend(pg_backend_pid())")
                        .await?;
                }
                seed(txn, what).await
            })
        });
    })
    .await;
    let (tenant, operation) = harness.ask("restarted").await;
    let point = "provision/ensure_role/begun";
    for restart in 0..3 {
        let file = harness.space.dir().join(format!("reached-{restart}"));
        let stuck = harness
            .provisioner
            .clone()
            .with_faults(Faults::stop_at(point, &file));
        let stop = async { eventually(point, PATIENCE, async || file.exists()).await };
        stuck.run_until(operation, |_| {}, stop).await.unwrap_err();
    }
    crate::crash::die_at(&harness, operation, point).await;
    // One failure, behind four tries that came to nothing for want of a process.
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert!(!broken.load(Ordering::SeqCst));
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Active
    );
}

/// Over all processes: each session here is one.
#[tokio::test]
async fn so_many_databases_are_made_on_a_server_at_once_and_no_more() {
    let cluster = server().await;
    {
        let harness = Harness::within(Space::on(cluster.target().clone()).await, |_| {}).await;
        let mut others = Vec::new();
        for turn in 1..=migrator::CREATES_AT_ONCE_MAX {
            let client = connect(&harness.space.server).await;
            assert_eq!(migrator::create_turn(&client).await.unwrap(), turn);
            others.push(client);
        }
        let (_, operation) = harness.ask("patient").await;
        let provisioner = harness.provisioner.clone();
        let making = tokio::spawn(async move { provisioner.run(operation, |_| {}).await });
        let looks_for_a_turn =
            "SELECT FROM pg_stat_activity WHERE query LIKE '%generate_series%pg_try_advisory_lock%'
              AND application_name IN ('tenantry provisioner', 'tenantry migrator')";
        let looking = connect(&harness.space.server).await;
        eventually("it waits for its turn", PATIENCE, async || {
            !looking.query(looks_for_a_turn, &[]).await.unwrap().is_empty()
        })
        .await;
        assert_eq!(harness.leftovers().await, Vec::<String>::new());
        others.pop();
        let ended = making.await.unwrap().unwrap();
        assert_eq!(ended.status, OperationStatus::Succeeded);
    }
    cluster.stop().await.unwrap();
}
