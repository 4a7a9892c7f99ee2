//! The worker: takes whatever operation may run, woken by the registry's notifications, and looking by itself
//! now and then because a notification can be missed.

use std::time::Duration;

use model::OperationKind;
use registry::{Claimable, Event, Lease, Listener, ListenerOptions, Operation, RegistryError};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    ProvisionError, Provisioner,
    engine::Aborting,
    reconcile::{reconcile_fences, stock},
};

/// How long operations may take to stop once they were asked to, before they are cut off.
const STOP_LIMIT: Duration = Duration::from_secs(6);

impl Provisioner {
    /// Runs operations until `shutdown` is ready. Then it claims nothing more, lets those under way end for a
    /// bounded time, and gives the rest back, so that another worker goes on with them at once.
    pub async fn worker(&self, shutdown: impl Future<Output = ()>) {
        let bounds = &self.inner.config.bounds;
        let mut listener = Listener::start(self.inner.config.registry.target(), ListenerOptions::default());
        let mut running = JoinSet::new();
        let (stop, stopped) = watch::channel(false);
        let inner = self.inner.clone();
        let fencing = Aborting(tokio::spawn(async move { reconcile_fences(&inner).await }));
        let scheduler = self.clone();
        let scheduling = Aborting(tokio::spawn(async move { scheduler.ask_for_due_backups().await }));
        let inner = self.inner.clone();
        let stocking = Aborting(tokio::spawn(async move { stock(&inner).await }));
        tokio::pin!(shutdown);
        loop {
            self.take_on(&mut running, &stopped).await;
            tokio::select! {
                () = &mut shutdown => break,
                () = woken(&mut listener) => {}
                Some(_) = running.join_next() => {}
                () = tokio::time::sleep(bounds.poll_every) => {}
            }
        }
        drop((listener, fencing, stocking, scheduling));
        let all = async |running: &mut JoinSet<()>| while running.join_next().await.is_some() {};
        if tokio::time::timeout(bounds.shutdown_grace, all(&mut running))
            .await
            .is_err()
        {
            // The receivers are gone when the last one has ended meanwhile.
            let _ = stop.send(true);
            if tokio::time::timeout(STOP_LIMIT, all(&mut running)).await.is_err() {
                tracing::warn!(
                    count = running.len(),
                    "operations cut off; their leases have to run out"
                );
                running.shutdown().await;
            }
        }
    }

    /// Claims as much as there is room for.
    async fn take_on(&self, running: &mut JoinSet<()>, stopped: &watch::Receiver<bool>) {
        while running.len() < self.inner.config.bounds.operations_parallel_max.max(1) {
            match self.claim_any().await {
                Ok(Some((operation, lease))) => {
                    let (worker, stopped) = (self.clone(), stopped.clone());
                    running.spawn(async move { worker.work(operation, lease, stopped).await });
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "the worker cannot look for operations; trying again");
                    return;
                }
            }
        }
    }

    async fn claim_any(&self) -> Result<Option<(Operation, Lease)>, RegistryError> {
        let config = &self.inner.config;
        let client = config.registry.client().await?;
        let any = Claimable::Kinds(OperationKind::ALL);
        registry::operation_claim(&client, &self.inner.owner, config.lease, any).await
    }

    async fn work(&self, operation: Operation, lease: Lease, stopped: watch::Receiver<bool>) {
        let (id, slug) = (operation.id, operation.tenant_slug.clone());
        tracing::info!(operation.id = %id, operation.kind = %operation.kind, tenant.slug = %slug,
            attempt = operation.attempts, "operation taken on");
        match self.carry_out(operation, lease, &|_| {}, stopped).await {
            Ok(()) => {}
            Err(ProvisionError::Interrupted { .. }) => {
                tracing::info!(operation.id = %id, tenant.slug = %slug, "operation given back");
            }
            Err(error) => {
                tracing::warn!(operation.id = %id, tenant.slug = %slug, %error,
                    "operation dropped; it is taken up again once its lease has ended");
            }
        }
    }
}

/// Returns when there may be something new to claim.
async fn woken(listener: &mut Listener) {
    loop {
        match listener.next().await {
            Some(Event::OperationChanged { .. } | Event::Lost) => return,
            Some(Event::TenantChanged { .. } | Event::ServerChanged { .. }) => {}
            // It has ended, which it never should; polling is left.
            None => std::future::pending().await,
        }
    }
}
