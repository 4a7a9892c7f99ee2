//! A registry of its own, an outbox with short limits, and ways to make things happen.

use std::{sync::Arc, time::Duration};

use identity::{SealKey, Sealer};
use model::{EventType, Namespace, ServerName, Slug, SystemClock, TenantEvent, TenantId};
use outbox::{NewAddress, Outbox, OutboxConfig};
use registry::{
    Actor, Change, Delivery, DeliveryFilter, NewServer, NewTenant, Registry, RegistryOptions, Webhook,
};
use secrecy::{ExposeSecret, SecretString};
use testkit::Space;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::receiver::Receiver;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Harness {
    pub(crate) registry: Registry,
    pub(crate) outbox: Outbox,
    config: OutboxConfig,
    actor: Actor,
    // Last, so that everything connected to its databases goes before it.
    _space: Space,
}

impl Harness {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut OutboxConfig)) -> Self {
        let space = Space::new().await;
        let registry = Registry::new(&space.registry, RegistryOptions::default());
        registry.migrate().await.unwrap();
        let server = NewServer {
            name: ServerName::parse("main").unwrap(),
            host: space.server.host.clone(),
            port: space.server.port,
            admin_user: space.server.user.clone(),
            admin_secret: vec![1],
        };
        registry::server_upsert(&registry.client().await.unwrap(), &server)
            .await
            .unwrap();
        let sealer = Sealer::new(SealKey::generate());
        let mut config = OutboxConfig {
            private_addresses: true,
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(100),
            poll_every: Duration::from_millis(10),
            purge_every: Duration::from_millis(50),
            shutdown_grace: Duration::from_secs(5),
            ..OutboxConfig::new(registry.clone(), sealer, Arc::new(SystemClock))
        };
        change(&mut config);
        Self {
            registry,
            outbox: Outbox::new(config.clone()),
            config,
            actor: Actor::Terminal("ada".to_owned()),
            _space: space,
        }
    }

    /// Another process with the same keys, as far as that can be had in one.
    pub(crate) fn another(&self, change: impl FnOnce(&mut OutboxConfig)) -> Outbox {
        let mut config = self.config.clone();
        change(&mut config);
        Outbox::new(config)
    }

    pub(crate) fn by(&self) -> Change<'_> {
        Change::by(&self.actor)
    }

    pub(crate) async fn add(&self, receiver: &Receiver, event_types: &[EventType]) -> (Webhook, String) {
        let new = NewAddress {
            url: receiver.url.clone(),
            description: "the billing".to_owned(),
            event_types: event_types.to_vec(),
        };
        let (webhook, secret) = self.outbox.add(new, &self.by()).await.unwrap();
        (webhook, shown(&secret))
    }

    pub(crate) async fn client(&self) -> registry::RegistryClient {
        self.registry.client().await.unwrap()
    }

    /// A laboratory that is in service: two events.
    pub(crate) async fn laboratory(&self, slug: &str) -> TenantId {
        let slug = Slug::parse(slug).unwrap();
        let namespace = Namespace::default();
        let new = NewTenant {
            id: TenantId::generate(),
            name: format!("Laboratory {slug}"),
            time_zone: "UTC".to_owned(),
            server: ServerName::parse("main").unwrap(),
            db_name: namespace.tenant_database(&slug),
            role_name: namespace.tenant_role(&slug),
            role_secret: None,
            slug,
        };
        let insert = async |txn: &registry::RegistryTransaction<'_>| {
            registry::tenant_insert_in_txn(txn, &new, &self.by()).await
        };
        self.registry.in_txn(insert).await.unwrap();
        self.happens(new.id, TenantEvent::Provisioned).await;
        new.id
    }

    pub(crate) async fn happens(&self, tenant: TenantId, event: TenantEvent) {
        let transition = async |txn: &registry::RegistryTransaction<'_>| {
            registry::tenant_transition_in_txn(txn, tenant, event, &self.by()).await
        };
        self.registry.in_txn(transition).await.unwrap();
    }

    pub(crate) async fn deliveries(&self) -> Vec<Delivery> {
        registry::deliveries_list(&self.client().await, &DeliveryFilter::default(), None, 500)
            .await
            .unwrap()
    }

    pub(crate) async fn webhook(&self, webhook: &Webhook) -> Webhook {
        let found = registry::webhook_by_id(&self.client().await, webhook.id).await;
        found.unwrap().unwrap()
    }
}

pub(crate) fn shown(secret: &SecretString) -> String {
    secret.expose_secret().to_owned()
}

/// A worker under way.
pub(crate) struct Working {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Working {
    pub(crate) fn start(outbox: &Outbox) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let outbox = outbox.clone();
        let task = tokio::spawn(async move {
            outbox
                .worker(async {
                    let _ = stopped.await;
                })
                .await;
        });
        Self { stop, task }
    }

    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }

    /// As a process that dies: nothing is written down any more.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}
