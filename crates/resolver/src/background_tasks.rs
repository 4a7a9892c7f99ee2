//! The background tasks: one listens for changes, one closes pools after changes, one ends idle connections,
//! one tests whether an unavailable registry is back. All end with the resolver.

use std::{sync::Arc, time::Duration};

use model::TenantId;
use registry::{Event, Listener, ListenerOptions};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::MissedTickBehavior,
};

use crate::{ResolverConfig, core::Core, registration::Registration};

/// The pause between two tests of an unavailable registry.
const PROBE_PAUSE: Duration = Duration::from_millis(250);

pub(crate) struct BackgroundTasks {
    listening: watch::Receiver<bool>,
    /// Aborted when dropped.
    _tasks: JoinSet<()>,
}

impl BackgroundTasks {
    pub(crate) fn start(core: &Arc<Core>, config: &ResolverConfig, registration: &Arc<Registration>) -> Self {
        let listener = Listener::start(config.registry.target(), ListenerOptions::default());
        let listening = listener.connected();
        // If the queue is full, the next checkout or the idle limit closes the pool.
        let (changed, changes) = mpsc::channel(config.pools_max.max(1) * 2);
        let mut tasks = JoinSet::new();
        let registration = Arc::clone(registration);
        tasks.spawn(listen(Arc::clone(core), registration, listener, changed));
        tasks.spawn(follow_up(Arc::clone(core), changes));
        tasks.spawn(sweep(Arc::clone(core), config.idle_timeout));
        tasks.spawn(probe(Arc::clone(core)));
        Self {
            listening,
            _tasks: tasks,
        }
    }

    pub(crate) fn is_listening(&self) -> bool {
        *self.listening.borrow()
    }
}

/// Invalidates what changed. It waits for nothing but the next event, so an invalidation takes effect at
/// once.
async fn listen(
    core: Arc<Core>,
    registration: Arc<Registration>,
    mut listener: Listener,
    changed: mpsc::Sender<TenantId>,
) {
    while let Some(event) = listener.next().await {
        match event {
            Event::TenantChanged { id, .. } => {
                core.cache.forget(id);
                registration.notice();
                if core.pools.has(id) {
                    let _full = changed.try_send(id);
                }
            }
            Event::ServerChanged { .. } | Event::Lost => {
                core.cache.forget_all();
                registration.notice();
                for id in core.pools.tenants_open() {
                    let _full = changed.try_send(id);
                }
            }
            Event::OperationChanged { .. } => {}
        }
    }
    // From now on, only the snapshots' time to live bounds their age.
    tracing::error!("the router has stopped listening for changes in the registry");
}

/// Closes the pools of tenants that are no longer served, so that their connections end without waiting for
/// the next checkout.
async fn follow_up(core: Arc<Core>, mut changes: mpsc::Receiver<TenantId>) {
    while let Some(tenant) = changes.recv().await {
        if core.pools.has(tenant) {
            let _closed_if_refused = core.admitted(tenant).await;
        }
    }
}

/// One task for all pools, because deadpool has none of its own.
async fn sweep(core: Arc<Core>, idle_timeout: Duration) {
    let mut ticks = tokio::time::interval((idle_timeout / 4).max(Duration::from_millis(50)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        core.pools.sweep();
    }
}

async fn probe(core: Arc<Core>) {
    loop {
        core.cache.outage.wait_until_on().await;
        tokio::time::sleep(PROBE_PAUSE).await;
        core.cache.probe().await;
    }
}
