//! What keeps a laboratory closed: routers that let go, and its server.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{RouterId, TenantEvent, TenantId, TenantState};
use provisioner::ProvisionError;
use registry::{Actor, AuditFilter, Change, RegistryError, Tenant, TenantFence};
use serde_json::{Value, json};
use testkit::eventually;
use tokio::sync::oneshot;
use tokio_postgres::Client;

use crate::{
    crash::die_at,
    harness::{Harness, NOW, PATIENCE, by, connect, register_server},
};

/// A grace that no test waits for.
const NEVER: Duration = Duration::from_secs(3600);
const TTL: Duration = Duration::from_secs(600);

impl Harness {
    async fn router(&self, name: &str) -> RouterId {
        let id = RouterId::generate();
        let client = self.registry.client().await.unwrap();
        let router = registry::NewRouter {
            id,
            name,
            instance: None,
            budget: 1,
            reserve: 0,
        };
        registry::router_register(&client, &router, TTL).await.unwrap();
        id
    }

    /// Acknowledges what is not acknowledged yet, as a router does that holds nothing.
    async fn let_go(&self, router: RouterId) {
        let client = self.registry.client().await.unwrap();
        let fences = registry::fences_unacknowledged(&client, router).await.unwrap();
        assert!(
            registry::router_acknowledge(&client, router, &fences)
                .await
                .unwrap()
        );
    }

    /// What the laboratory's latest event of this kind says.
    async fn event(&self, tenant: TenantId, kind: &str) -> Option<Value> {
        let client = self.registry.client().await.unwrap();
        let events = registry::events_of(&client, tenant, None, 100).await.unwrap();
        events
            .into_iter()
            .find(|event| event.kind == kind)
            .map(|event| event.detail)
    }

    async fn can_log_in(&self, tenant: &Tenant) -> bool {
        let row = connect(&self.space.server)
            .await
            .query_one(
                "SELECT rolcanlogin FROM pg_roles WHERE rolname = $1",
                &[&tenant.role_name.as_str()],
            )
            .await
            .unwrap();
        row.get(0)
    }

    /// Changes the state in the registry and tells nobody else: what is left of a process that died right
    /// behind it.
    async fn registry_only(&self, tenant: TenantId, event: TenantEvent) {
        let actor = Actor::Terminal("tester".to_owned());
        self.registry
            .in_txn(async |txn| {
                registry::tenant_transition_in_txn(txn, tenant, event, &Change::by(&actor)).await
            })
            .await
            .unwrap();
    }

    /// Runs a worker beside `story`.
    async fn with_worker(&self, story: impl Future<Output = ()>) {
        let (stop, stopped) = oneshot::channel::<()>();
        let worker = self.provisioner.clone();
        let working = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            worker.worker(stopped).await;
        });
        story.await;
        stop.send(()).unwrap();
        working.await.unwrap();
    }
}

async fn ended(session: &Client) {
    eventually("the session's end", PATIENCE, async || {
        session.batch_execute("").await.is_err()
    })
    .await;
}

#[tokio::test]
async fn a_suspended_laboratory_is_closed_on_its_server_too_and_opened_again() {
    let harness = Harness::new().await;
    let (tenant, other) = (
        harness.provisioned("acme").await,
        harness.provisioned("other").await,
    );
    let (own, others) = (
        connect(&harness.own(&tenant)).await,
        connect(&harness.own(&other)).await,
    );
    let admin = harness.inside(&tenant).await;

    harness.provisioner.suspend(tenant.id, by()).await.unwrap();
    ended(&own).await;
    assert!(!harness.can_log_in(&tenant).await);
    let refused = pg::connect(&harness.own(&tenant), "a router that knows nothing", PATIENCE).await;
    assert!(refused.is_err());
    let seen = harness.event(tenant.id, "fenced").await.unwrap();
    assert_eq!(
        seen,
        json!({
            "routers": { "waited_for": [], "silent": [], "waited_ms": seen["routers"]["waited_ms"] },
            "sessions_ended": 1,
        })
    );
    // A dump or a migration may be under way, and nobody else's laboratory is touched.
    admin.batch_execute("SELECT 1").await.unwrap();
    others.batch_execute("SELECT 1").await.unwrap();

    harness.provisioner.resume(tenant.id, by()).await.unwrap();
    connect(&harness.own(&tenant))
        .await
        .batch_execute("SELECT * FROM lab_profile")
        .await
        .unwrap();
}

#[tokio::test]
async fn routers_that_let_go_are_waited_for_and_their_work_is_not_cut_off() {
    let harness = Harness::with(|config| config.bounds.routers_grace = NEVER).await;
    let tenant = harness.provisioned("acme").await;
    let (quick, slow) = (harness.router("host:1").await, harness.router("host:2").await);
    // One that died: it is not waited for once its registration has run out.
    let dead = harness.router("host:3").await;
    let client = harness.registry.client().await.unwrap();
    client
        .execute(
            "UPDATE routers SET expires_at = clock_timestamp() - interval '1 ms' WHERE id = $1",
            &[&dead.as_uuid()],
        )
        .await
        .unwrap();
    drop(client);
    let at_work = connect(&harness.own(&tenant)).await;

    let worker = harness.provisioner.clone();
    let suspending = tokio::spawn(async move { worker.suspend(tenant.id, by()).await });
    eventually("the suspension", PATIENCE, async || {
        harness.tenant(tenant.id).await.unwrap().status == TenantState::Suspended
    })
    .await;
    harness.let_go(quick).await;
    at_work.batch_execute("SELECT 1").await.unwrap();
    assert!(!suspending.is_finished());
    harness.let_go(slow).await;
    let suspended = tokio::time::timeout(PATIENCE, suspending).await;
    let suspended = suspended.unwrap().unwrap().unwrap();
    let client = harness.registry.client().await.unwrap();
    let fence = TenantFence {
        tenant: suspended.id,
        generation: suspended.generation,
    };
    assert_eq!(registry::routers_outstanding(&client, fence).await.unwrap(), []);
    drop(client);

    let seen = harness.event(tenant.id, "fenced").await.unwrap();
    let waited_for = seen["routers"]["waited_for"].as_array().unwrap();
    assert!(waited_for.contains(&json!("host:2")) && !waited_for.contains(&json!("host:3")));
    assert_eq!(seen["routers"]["silent"], json!([]));
    ended(&at_work).await;
}

#[tokio::test]
async fn a_router_that_does_not_answer_is_put_out_by_the_server() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("acme").await;
    harness.router("host:1").await;
    let warm = connect(&harness.own(&tenant)).await;
    harness.provisioner.suspend(tenant.id, by()).await.unwrap();
    let seen = harness.event(tenant.id, "fenced").await.unwrap();
    assert_eq!(seen["routers"]["silent"], json!(["host:1"]));
    assert_eq!(seen["sessions_ended"], 1);
    ended(&warm).await;
    assert!(!harness.can_log_in(&tenant).await);

    // A removal is no different, and says in its step what it saw.
    harness.provisioner.resume(tenant.id, by()).await.unwrap();
    let warm = connect(&harness.own(&tenant)).await;
    let operation = harness
        .provisioner
        .request_offboard(tenant.id, NOW, by())
        .await
        .unwrap();
    harness.provisioner.run(operation, |_| {}).await.unwrap();
    ended(&warm).await;
    assert_eq!(
        fence_saw(&harness, operation).await["routers"]["silent"],
        json!(["host:1"])
    );
    assert_eq!(harness.leftovers().await, Vec::<String>::new());
}

async fn fence_saw(harness: &Harness, operation: model::OperationId) -> Value {
    let client = harness.registry.client().await.unwrap();
    let steps = registry::steps_of(&client, operation).await.unwrap();
    let fence = steps.into_iter().find(|row| row.step == model::Step::Fence);
    fence.unwrap().saw.unwrap()
}

#[tokio::test]
async fn a_removal_goes_on_as_soon_as_every_router_has_let_go() {
    let harness = Harness::with(|config| config.bounds.routers_grace = NEVER).await;
    let tenant = harness.provisioned("acme").await;
    let router = harness.router("host:1").await;
    let operation = harness
        .provisioner
        .request_offboard(tenant.id, NOW, by())
        .await
        .unwrap();
    let answering = async {
        loop {
            harness.let_go(router).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let removing = tokio::time::timeout(PATIENCE * 2, harness.provisioner.run(operation, |_| {}));
    tokio::select! {
        removed = removing => { removed.unwrap().unwrap(); }
        () = answering => {}
    }
    assert_eq!(
        fence_saw(&harness, operation).await["routers"]["silent"],
        json!([])
    );
    assert!(harness.tenant(tenant.id).await.is_none());
}

#[tokio::test]
async fn a_suspension_stands_when_its_server_is_away_and_a_worker_closes_it_there_later() {
    let harness = Harness::with(|config| config.bounds.fences_every = Duration::from_millis(100)).await;
    let tenant = harness.provisioned("acme").await;
    let warm = connect(&harness.own(&tenant)).await;
    let sealer = harness.provisioner.config().sealer.clone();
    let mut away = harness.space.server.clone();
    // Nobody answers there.
    (away.host, away.port) = ("127.0.0.1".to_owned(), 1);
    register_server(&harness.registry, &sealer, &away, "main").await;

    let suspended = harness.provisioner.suspend(tenant.id, by()).await.unwrap();
    assert_eq!(suspended.status, TenantState::Suspended);
    let missing = harness.event(tenant.id, "fence_missing").await.unwrap();
    assert!(
        missing["remedy"].as_str().unwrap().contains("tenantd"),
        "{missing}"
    );
    assert_eq!(missing["server"], "main");
    let filter = AuditFilter {
        tenant: Some(tenant.id),
        ..AuditFilter::default()
    };
    let client = harness.registry.client().await.unwrap();
    let audit = registry::audit_list(&client, &filter, None, 10).await.unwrap();
    drop(client);
    assert_eq!(audit[0].action, "tenant.fence_missing");
    // It cannot be opened either, and stays as it is.
    let refused = harness.provisioner.resume(tenant.id, by()).await.unwrap_err();
    assert!(matches!(refused, ProvisionError::Connect(_)), "{refused}");
    assert_eq!(
        harness.tenant(tenant.id).await.unwrap().status,
        TenantState::Suspended
    );

    harness
        .with_worker(async {
            register_server(&harness.registry, &sealer, &harness.space.server, "main").await;
            ended(&warm).await;
            eventually("the server to agree", PATIENCE, async || {
                !harness.can_log_in(&tenant).await
            })
            .await;
        })
        .await;
    harness.provisioner.resume(tenant.id, by()).await.unwrap();
    connect(&harness.own(&tenant)).await;
}

#[tokio::test]
async fn a_suspension_whose_process_died_is_completed_by_the_next_worker() {
    let harness = Harness::new().await;
    let (tenant, other) = (
        harness.provisioned("acme").await,
        harness.provisioned("other").await,
    );
    let warm = connect(&harness.own(&tenant)).await;
    harness.registry_only(tenant.id, TenantEvent::Suspend).await;
    warm.batch_execute("SELECT 1").await.unwrap();
    harness
        .with_worker(async {
            eventually("the fence", PATIENCE, async || {
                harness.event(tenant.id, "fenced").await.is_some()
            })
            .await;
        })
        .await;
    assert!(!harness.can_log_in(&tenant).await);
    ended(&warm).await;
    assert!(harness.can_log_in(&other).await);
}

/// What a worker has warned of while the test ran.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Warnings {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Warnings {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let own = self.clone();
        tracing::subscriber::set_default(
            tracing_subscriber::fmt()
                .with_max_level(tracing::Level::WARN)
                .with_writer(move || own.clone())
                .finish(),
        )
    }

    fn of_an_open_laboratory(&self) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.matches("was open on its server").count()
    }
}

#[tokio::test]
async fn a_worker_warns_of_an_open_laboratory_only_when_nobody_is_closing_it() {
    let harness = Harness::new().await;
    let tenant = harness.provisioned("acme").await;
    let warnings = Warnings::default();
    let _listening = warnings.listen();
    // As whoever suspends it leaves it for a moment, between the registry and the server.
    harness.registry_only(tenant.id, TenantEvent::Suspend).await;
    harness
        .with_worker(async {
            eventually("the fence", PATIENCE, async || {
                harness.event(tenant.id, "fenced").await.is_some()
            })
            .await;
        })
        .await;
    assert!(!harness.can_log_in(&tenant).await);
    assert_eq!(warnings.of_an_open_laboratory(), 0);

    // Suspended long ago, and open: by a server that was restored from a backup, say.
    let registry = connect(&harness.space.registry).await;
    let long_ago = format!(
        "SET session_replication_role = replica; UPDATE tenants SET updated_at = now() - interval '1 day' WHERE id = '{}'",
        tenant.id
    );
    registry.batch_execute(&long_ago).await.unwrap();
    let admin = connect(&harness.space.server).await;
    let open = format!("ALTER ROLE {} LOGIN", tenant.role_name);
    admin.batch_execute(&open).await.unwrap();
    harness
        .with_worker(async {
            eventually("the warning", PATIENCE, async || {
                warnings.of_an_open_laboratory() == 1
            })
            .await;
        })
        .await;
    assert!(!harness.can_log_in(&tenant).await);
}

/// Whoever has the last word in the registry has it on the server too.
#[tokio::test(flavor = "multi_thread")]
async fn registry_and_server_agree_however_suspending_and_resuming_cross() {
    let harness = Harness::with(|config| config.bounds.routers_grace = Duration::ZERO).await;
    let tenant = harness.provisioned("acme").await;
    for round in 0..12 {
        let (one, two) = tokio::join!(
            harness.provisioner.suspend(tenant.id, by()),
            harness.provisioner.resume(tenant.id, by())
        );
        for outcome in [one, two] {
            let refused = outcome.err();
            assert!(
                refused
                    .as_ref()
                    .is_none_or(|e| matches!(e, ProvisionError::Registry(RegistryError::Illegal(_)))),
                "{round}: {refused:?}"
            );
        }
        let serves = harness.tenant(tenant.id).await.unwrap().status.serves();
        assert_eq!(harness.can_log_in(&tenant).await, serves, "{round}");
        if round % 3 == 0 && !serves {
            harness.provisioner.resume(tenant.id, by()).await.unwrap();
        }
    }
}

/// A suspension that comes late to the server finds a resumption under way, which has told the server and not
/// committed.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_told_under_the_lock_of_the_laboratorys_row() {
    let harness = Harness::with(|config| config.bounds.routers_grace = NEVER).await;
    let tenant = harness.provisioned("acme").await;
    let router = harness.router("host:1").await;
    let late = harness.provisioner.clone();
    let suspending = tokio::spawn(async move { late.suspend(tenant.id, by()).await });
    eventually("the suspension", PATIENCE, async || {
        harness.tenant(tenant.id).await.unwrap().status == TenantState::Suspended
    })
    .await;
    let mut client = harness.registry.client().await.unwrap();
    let resuming = client.transaction().await.unwrap();
    let actor = Actor::Terminal("tester".to_owned());
    let change = Change::by(&actor);
    registry::tenant_transition_in_txn(&resuming, tenant.id, TenantEvent::Resume, &change)
        .await
        .unwrap();
    harness.let_go(router).await;
    let server = connect(&harness.space.server).await;
    let waiting = "SELECT FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'";
    eventually("the late one to wait for the lock", PATIENCE, async || {
        let rows = server
            .query(waiting, &[&harness.space.registry.database])
            .await
            .unwrap();
        !rows.is_empty() || suspending.is_finished()
    })
    .await;
    assert!(harness.can_log_in(&tenant).await, "it had to wait");
    resuming.commit().await.unwrap();
    tokio::time::timeout(PATIENCE, suspending)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(harness.can_log_in(&tenant).await, "and found the laboratory open");
}

/// A removal that is cancelled leaves a database that its own role may not enter: opening it gives back all
/// of it.
#[tokio::test]
async fn a_removal_that_is_cancelled_can_be_opened_again() {
    let harness = Harness::with(|config| config.lease = Duration::from_millis(1500)).await;
    let tenant = harness.provisioned("acme").await;
    harness.provisioner.suspend(tenant.id, by()).await.unwrap();
    let operation = harness
        .provisioner
        .request_offboard(tenant.id, NOW, by())
        .await
        .unwrap();
    die_at(&harness, operation, "offboard/drop_database/closed").await;
    let before = TenantState::Suspended;
    harness
        .registry_only(tenant.id, TenantEvent::CancelOffboard { before })
        .await;
    let refused = pg::connect(&harness.own(&tenant), "too early", PATIENCE).await;
    assert!(refused.is_err());
    harness.provisioner.resume(tenant.id, by()).await.unwrap();
    connect(&harness.own(&tenant))
        .await
        .batch_execute("SELECT * FROM lab_profile")
        .await
        .unwrap();
}
