use std::{sync::Arc, time::Duration};

use identity::Sealer;
use model::Clock;
use registry::Registry;

/// What the outbox works with, and its limits.
#[derive(Clone)]
pub struct OutboxConfig {
    /// The master database.
    pub registry: Registry,
    /// Seals and opens the secrets of addresses (context `webhook:<id>`).
    pub sealer: Sealer,
    /// For the times that are signed.
    pub clock: Arc<dyn Clock>,
    /// Whether private addresses may be connected to.
    pub private_addresses: bool,
    /// Limit on one request, from the look-up of the name to the end of the answer.
    pub request_timeout: Duration,
    /// How often a delivery is begun before it is given up.
    pub attempts_max: u32,
    /// How long after it was queued a delivery is given up.
    pub age_max: Duration,
    /// The wait after the first failed attempt; each later one doubles it.
    pub backoff_min: Duration,
    /// The longest wait between two attempts.
    pub backoff_max: Duration,
    /// An address is switched off when nothing got through to it for so long…
    pub off_after: Duration,
    /// …in at least so many attempts.
    pub off_failures: u32,
    /// How long events are kept.
    pub keep: Duration,
    /// Most requests under way at once in one process.
    pub parallel_max: usize,
    /// Most of them to one address, so that one that hangs leaves room for the others.
    pub parallel_per_webhook_max: usize,
    /// How often the worker looks for deliveries that are due.
    pub poll_every: Duration,
    /// How often it looks for what is too old.
    pub purge_every: Duration,
    /// How long requests under way may go on when the worker is told to stop.
    pub shutdown_grace: Duration,
}

impl OutboxConfig {
    /// The usual limits.
    #[must_use]
    pub fn new(registry: Registry, sealer: Sealer, clock: Arc<dyn Clock>) -> Self {
        Self {
            registry,
            sealer,
            clock,
            private_addresses: false,
            request_timeout: Duration::from_secs(10),
            attempts_max: 20,
            age_max: Duration::from_secs(3 * 86_400),
            backoff_min: Duration::from_secs(2),
            backoff_max: Duration::from_secs(6 * 3_600),
            off_after: Duration::from_secs(5 * 86_400),
            off_failures: 5,
            keep: Duration::from_secs(30 * 86_400),
            parallel_max: 16,
            parallel_per_webhook_max: 4,
            poll_every: Duration::from_secs(1),
            purge_every: Duration::from_secs(60),
            shutdown_grace: Duration::from_secs(10),
        }
    }

    /// The wait after the `attempt`-th failed attempt: doubling, bounded, and between half and the whole of
    /// it so that many that failed together do not come back together. What the receiver asked for counts
    /// too, up to the bound.
    pub(crate) fn backoff(&self, attempt: u32, asked: Option<Duration>) -> Duration {
        let doubled = self
            .backoff_min
            .saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
        let wait = doubled
            .min(self.backoff_max)
            .mul_f64(rand::random_range(0.5..=1.0));
        wait.max(asked.unwrap_or_default().min(self.backoff_max))
    }

    /// Longer than any attempt takes: a claim that is older belongs to a process that died.
    pub(crate) fn lease(&self) -> Duration {
        self.request_timeout + Duration::from_secs(10)
    }
}
