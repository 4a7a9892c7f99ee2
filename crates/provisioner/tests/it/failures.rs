use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use model::{OperationStatus, TenantState};
use provisioner::{Progress, ProvisionError};

use crate::harness::{Harness, by, connect, register_server};

async fn failure(harness: &Harness, operation: model::OperationId) -> String {
    match harness.provisioner.run(operation, |_| {}).await.unwrap_err() {
        ProvisionError::Failed { error, .. } => error,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_server_out_of_reach_is_tried_again_a_few_times_and_the_laboratory_can_still_be_made_later() {
    let harness = Harness::with(|config| config.bounds.connect_timeout = Duration::from_secs(2)).await;
    let mut nowhere = harness.space.server.clone();
    nowhere.port = 1;
    let sealer = &harness.provisioner.config().sealer;
    register_server(&harness.registry, sealer, &nowhere, "main").await;
    let (tenant, operation) = harness.ask("nowhere").await;
    let error = failure(&harness, operation).await;
    assert!(
        error.contains("gave up after 3 tries") && error.contains(":1/postgres"),
        "{error}"
    );
    // What cannot be reached cannot be cleaned either: the row stays, so that nothing is forgotten.
    assert!(error.contains("undoing it"), "{error}");
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Provisioning
    );

    register_server(&harness.registry, sealer, &harness.space.server, "main").await;
    harness.provisioner.reopen(operation, by()).await.unwrap();
    let ended = harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Succeeded);
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Active
    );
}

#[tokio::test]
async fn a_failure_that_passes_is_tried_again_and_leaves_no_trace() {
    let tries = Arc::new(AtomicU32::new(0));
    let counted = tries.clone();
    let harness = Harness::with(|config| {
        let seed = config.seed.clone();
        config.seed = Arc::new(move |txn, what| {
            let (seed, counted) = (seed.clone(), counted.clone());
            Box::pin(async move {
                if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                    // As if the server were shut down in the middle.
                    txn.batch_execute("SELECT pg_terminate_backend(pg_backend_pid())")
                        .await?;
                }
                seed(txn, what).await
            })
        });
    })
    .await;
    let tenant = harness.provisioned("again").await;
    assert_eq!(tenant.status, TenantState::Active);
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_failure_for_good_leaves_neither_database_nor_role_nor_row_and_the_audit_tells_why() {
    let harness = Harness::with(|config| {
        config.seed = Arc::new(|txn, _| {
            Box::pin(async move {
                txn.batch_execute("SELECT 1 / 0").await?;
                Ok(())
            })
        });
    })
    .await;
    let (tenant, operation) = harness.ask("doomed").await;
    let error = failure(&harness, operation).await;
    assert!(
        error.contains("seed") && error.contains("division by zero"),
        "{error}"
    );
    assert!(harness.tenant(tenant.id).await.is_none());
    assert_eq!(harness.leftovers().await, Vec::<String>::new());
    let client = harness.registry.client().await.unwrap();
    let filter = registry::AuditFilter {
        tenant: Some(tenant.id),
        ..Default::default()
    };
    let audit = registry::audit_list(&client, &filter, None, 10).await.unwrap();
    assert!(
        audit
            .iter()
            .any(|a| a.action == "operation.failed" && a.detail["error"] == error.as_str())
    );
    let refused = harness.provisioner.reopen(operation, by()).await.unwrap_err();
    assert!(matches!(refused, ProvisionError::TenantGone { .. }), "{refused}");
    assert!(
        harness
            .provisioner
            .request_provision(crate::harness::lab("doomed"), by())
            .await
            .is_ok()
    );
}

/// The undoing stopped half way: the database is gone, the row is not. Opened again, what was done counts no
/// more.
#[tokio::test]
async fn an_operation_opened_again_behind_half_an_undoing_makes_everything_anew() {
    let broken = Arc::new(AtomicBool::new(true));
    let seen = broken.clone();
    let harness = Harness::with(|config| {
        let seed = config.seed.clone();
        config.seed = Arc::new(move |txn, what| {
            if seen.load(Ordering::SeqCst) {
                Box::pin(async { Err("no seed today".into()) })
            } else {
                seed(txn, what)
            }
        });
    })
    .await;
    let (tenant, operation) = harness.ask("halfway").await;
    let role = harness.space.namespace.tenant_role(&tenant.slug);
    let server = connect(&harness.space.server).await;
    // A role that owns something elsewhere, in a database that the undoing does not look into, cannot be
    // dropped.
    let elsewhere = format!("{}_elsewhere", harness.space.namespace.as_str());
    server
        .batch_execute(&format!(
            "CREATE DATABASE \"{elsewhere}\" TEMPLATE template0 ALLOW_CONNECTIONS false"
        ))
        .await
        .unwrap();
    let file = harness.space.dir().join("reached");
    let stopping = harness
        .provisioner
        .clone()
        .with_faults(provisioner::Faults::stop_at("provision/seed/begun", &file));
    let stop =
        async { testkit::eventually("the seed", crate::harness::PATIENCE, async || file.exists()).await };
    let interrupted = stopping.run_until(operation, |_| {}, stop).await.unwrap_err();
    assert!(
        matches!(interrupted, ProvisionError::Interrupted { .. }),
        "{interrupted}"
    );
    server
        .batch_execute(&format!("ALTER DATABASE \"{elsewhere}\" OWNER TO {role}"))
        .await
        .unwrap();

    let error = failure(&harness, operation).await;
    assert!(
        error.contains("no seed today") && error.contains("undoing it: drop_role"),
        "{error}"
    );
    assert_eq!(
        harness.leftovers().await,
        ["elsewhere", "tenant_halfway"],
        "the role only"
    );
    broken.store(false, Ordering::SeqCst);
    server
        .batch_execute(&format!("ALTER DATABASE \"{elsewhere}\" OWNER TO CURRENT_USER"))
        .await
        .unwrap();
    server
        .batch_execute(&format!("DROP DATABASE \"{elsewhere}\""))
        .await
        .unwrap();
    harness.provisioner.reopen(operation, by()).await.unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Active
    );
}

#[tokio::test]
async fn what_has_the_name_and_is_not_ours_is_left_alone() {
    let harness = Harness::new().await;
    let slug = model::Slug::parse("taken").unwrap();
    let server = connect(&harness.space.server).await;
    let database = harness.space.namespace.tenant_database(&slug);
    server
        .batch_execute(&format!("CREATE DATABASE {database} TEMPLATE template0"))
        .await
        .unwrap();
    let (_, operation) = harness.ask("taken").await;
    let error = failure(&harness, operation).await;
    assert!(
        error.contains("database") && error.contains("not made for this laboratory"),
        "{error}"
    );
    assert_eq!(
        harness.leftovers().await,
        ["tenant_taken"],
        "the database stays, our role does not"
    );

    server
        .batch_execute(&format!("DROP DATABASE {database}"))
        .await
        .unwrap();
    let role = harness.space.namespace.tenant_role(&slug);
    server
        .batch_execute(&format!("CREATE ROLE {role}"))
        .await
        .unwrap();
    let (_, operation) = harness.ask("taken").await;
    let error = failure(&harness, operation).await;
    assert!(
        error.contains("role") && error.contains("not made for this laboratory"),
        "{error}"
    );
    assert_eq!(
        harness.leftovers().await,
        ["tenant_taken"],
        "the role stays, our database does not"
    );
}

/// Also one that carries the namespace's prefix, and whatever PUBLIC may do in it.
#[tokio::test]
async fn a_strangers_open_database_neither_delays_a_laboratory_nor_undoes_it() {
    let harness = Harness::new().await;
    let server = connect(&harness.space.server).await;
    let open = format!("{}_somebodys", harness.space.namespace.as_str());
    server
        .batch_execute(&format!("CREATE DATABASE \"{open}\" TEMPLATE template0"))
        .await
        .unwrap();
    let (tenant, operation) = harness.ask("patient").await;
    let failed = std::sync::atomic::AtomicU32::new(0);
    let ended = harness
        .provisioner
        .run(operation, |progress| {
            if let Progress::StepFailed { .. } = progress {
                failed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        })
        .await;
    assert_eq!(ended.unwrap().status, OperationStatus::Succeeded);
    assert_eq!(failed.into_inner(), 0);
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Active
    );
}

#[tokio::test]
async fn a_request_that_names_no_server_is_refused_while_there_is_a_choice() {
    let harness = Harness::new().await;
    let sealer = &harness.provisioner.config().sealer;
    register_server(&harness.registry, sealer, &harness.space.server, "second").await;
    let refused = harness
        .provisioner
        .request_provision(crate::harness::lab("where"), by())
        .await
        .unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("main") && text.contains("second"), "{text}");
}
