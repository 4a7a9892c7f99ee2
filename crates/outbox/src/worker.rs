//! The worker: sends what is due, and takes away what is too old.

use std::{collections::HashMap, time::Duration};

use model::WebhookId;
use reqwest::Client;
use tokio::{
    task::{Id, JoinSet},
    time::Instant,
};

use crate::{Outbox, OutboxError, stats::Counts};

/// How much is purged in one statement.
const PURGE_BATCH: u32 = 1_000;
/// How long to wait before it is looked again whether TLS connections can be made.
const TLS_RETRY: Duration = Duration::from_secs(60);

/// What is under way, and how much of it to which address.
#[derive(Default)]
struct Running {
    tasks: JoinSet<()>,
    to: HashMap<Id, WebhookId>,
}

impl Running {
    fn busy(&self, per_webhook_max: usize) -> Vec<WebhookId> {
        let mut counts = HashMap::<WebhookId, usize>::new();
        for webhook in self.to.values() {
            *counts.entry(*webhook).or_default() += 1;
        }
        counts.retain(|_, count| *count >= per_webhook_max.max(1));
        counts.into_keys().collect()
    }

    async fn one_ended(&mut self) -> bool {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => {
                self.to.remove(&id);
                true
            }
            Some(Err(error)) => {
                self.to.remove(&error.id());
                tracing::error!(%error, "sending a webhook broke; it is tried again when its lease has run \
                                         out");
                true
            }
            None => false,
        }
    }
}

impl Outbox {
    /// Sends until `shutdown` is ready. Then begins nothing more, and lets what is under way end for a
    /// bounded time; what does not is sent again by another worker.
    pub async fn worker(&self, shutdown: impl Future<Output = ()>) {
        let config = &self.inner.config;
        let mut running = Running::default();
        let mut purge_at = Instant::now();
        tokio::pin!(shutdown);
        loop {
            if Instant::now() >= purge_at {
                self.purge().await;
                purge_at = Instant::now() + config.purge_every.mul_f64(rand::random_range(0.75..=1.25));
            }
            let wait = match self.http().await {
                Ok(http) => {
                    self.take_on(&mut running, http).await;
                    config.poll_every
                }
                Err(error) => {
                    tracing::error!(%error, "webhooks are not sent");
                    TLS_RETRY
                }
            };
            tokio::select! {
                () = &mut shutdown => break,
                true = running.one_ended() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        let all = async { while running.one_ended().await {} };
        if tokio::time::timeout(config.shutdown_grace, all).await.is_err() {
            tracing::warn!("webhooks under way were cut off; they are sent again");
        }
    }

    /// Claims as much as there is room for.
    async fn take_on(&self, running: &mut Running, http: &Client) {
        let config = &self.inner.config;
        while running.tasks.len() < config.parallel_max.max(1) {
            let busy = running.busy(config.parallel_per_webhook_max);
            match self.claim(&busy, None).await {
                Ok(Some(claimed)) => {
                    let webhook = claimed.webhook.id;
                    let (outbox, http) = (self.clone(), http.clone());
                    let task = running.tasks.spawn(async move {
                        if let Err(error) = outbox.attempt(&http, claimed).await {
                            tracing::warn!(webhook.id = %webhook, %error,
                                "what came of a webhook's delivery is not written; it is sent again");
                        }
                    });
                    running.to.insert(task.id(), webhook);
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "the worker cannot look for webhooks to send; trying again");
                    return;
                }
            }
        }
    }

    async fn purge(&self) {
        match self.purge_batch().await {
            Ok(given_up) => Counts::add(&self.inner.counts.given_up, given_up),
            Err(error) => tracing::warn!(%error, "old events are not removed; trying again"),
        }
    }

    async fn purge_batch(&self) -> Result<u64, OutboxError> {
        let config = &self.inner.config;
        let client = config.registry.client().await?;
        let purged = registry::deliveries_purge(&client, config.age_max, config.keep, PURGE_BATCH).await?;
        if purged.given_up > 0 {
            tracing::warn!(
                deliveries = purged.given_up,
                "webhooks' deliveries that waited too long are given up"
            );
        }
        Ok(purged.given_up)
    }
}
