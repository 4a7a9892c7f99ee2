//! Telling the registry that this process connects to laboratories, and what it has let go of.
//!
//! An operation that wants a laboratory for itself waits for the processes that are registered. So each registers at its
//! start, says again and again that it lives, and acknowledges each laboratory that does not serve once it holds no
//! connection of it and uses nothing that it read about it before: also those that it never had anything to do with. Which
//! they are it asks the registry. A notification only makes it ask at once; a lost one costs a second.
//!
//! While a connection is on loan the laboratory is not acknowledged, however long that takes: nothing is taken from a
//! borrower here. Whoever waits has a limit of their own, and the laboratory's server to fall back on.
//!
//! A process that cannot renew its registration is forgotten when that runs out. It goes on serving what it knows, as in
//! any outage of the registry; the fences that fall meanwhile are kept by the laboratories' servers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use model::RouterId;
use registry::{PAGE_MAX, Registry, RegistryError, TenantFence};
use tokio::{
    sync::{Mutex as AsyncMutex, Notify},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use crate::{ResolverConfig, resolver::Core};

/// How often the registry is asked for what was missed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The least time between two questions, however many notifications come.
const LOOK_GAP: Duration = Duration::from_millis(20);
/// Asking takes longer the more laboratories are closed (some 10 ms for 10,000). The pauses grow with it, so that asking by
/// the clock takes no more than a fiftieth of the time, and asking upon notifications no more than a tenth.
const EVERY_SHARE: u32 = 50;
const GAP_SHARE: u32 = 10;
/// The wait behind the first failure; each later one doubles it.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest wait behind a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How long a process that ends takes to say so.
const END_LIMIT: Duration = Duration::from_secs(2);

/// This process among the routers; the registration runs out by itself when this is dropped without [`Self::end`].
pub(crate) struct Registration {
    shared: Arc<Shared>,
    task: AsyncMutex<Option<Task>>,
}

struct Shared {
    ttl: Duration,
    changed: Notify,
    stop: Notify,
    /// When the registry was asked that confirmed the registration last.
    renewed_at: Mutex<Option<Instant>>,
}

/// Aborted when dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Registration {
    /// Registers, and goes on for as long as this lives.
    pub(crate) fn start(core: &Arc<Core>, config: &ResolverConfig) -> Self {
        let shared = Arc::new(Shared {
            ttl: config.router_ttl,
            changed: Notify::new(),
            stop: Notify::new(),
            renewed_at: Mutex::new(None),
        });
        let router = Router {
            id: RouterId::generate(),
            name: process_name(),
            core: Arc::clone(core),
            registry: config.registry.clone(),
            // A question that hangs must not cost the registration.
            limit: config.registry_timeout.min(config.router_ttl / 3),
            shared: Arc::clone(&shared),
            holding: Vec::new(),
        };
        let task = Task(tokio::spawn(router.run()));
        Self {
            shared,
            task: AsyncMutex::new(Some(task)),
        }
    }

    /// A laboratory's row changed, or may have: ask now which are to be let go.
    pub(crate) fn notice(&self) {
        self.shared.changed.notify_one();
    }

    /// Whether operations wait for this process.
    pub(crate) fn is_registered(&self) -> bool {
        self.renewed_age().is_some_and(|age| age < self.shared.ttl)
    }

    /// How long ago the registry confirmed the registration; `None` before the first time and after the end.
    pub(crate) fn renewed_age(&self) -> Option<Duration> {
        self.shared.renewed_at().map(|at| at.elapsed())
    }

    /// Ends the registration, in two seconds at most: nobody waits for this process any more. To be called when it holds no
    /// connection of any laboratory.
    pub(crate) async fn end(&self) {
        let Some(mut task) = self.task.lock().await.take() else {
            return;
        };
        self.shared.stop.notify_one();
        // What is not said in time is found out when the registration runs out.
        let _late_or_broken = timeout(END_LIMIT, &mut task.0).await;
        self.shared.set_renewed_at(None);
    }
}

impl Shared {
    fn renewed_at(&self) -> Option<Instant> {
        *self.renewed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_renewed_at(&self, at: Option<Instant>) {
        *self.renewed_at.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

struct Router {
    id: RouterId,
    name: String,
    core: Arc<Core>,
    registry: Registry,
    limit: Duration,
    shared: Arc<Shared>,
    /// Laboratories that are closed here and of which connections are still open.
    holding: Vec<TenantFence>,
}

/// When the registry is asked next.
struct Pauses {
    /// Not before this, whatever comes.
    quiet_until: Instant,
    /// At this, even if nothing comes.
    due: Instant,
}

impl Router {
    async fn run(mut self) {
        let mut waits = backoff();
        let mut well = true;
        loop {
            let outcome = self.turn().await;
            let stop = match outcome {
                Ok(pauses) => {
                    waits = backoff();
                    if !std::mem::replace(&mut well, true) {
                        tracing::info!(router = self.name, "the registry knows of this router again");
                    }
                    self.rest(&pauses).await
                }
                Err(error) => {
                    let wait = waits.next().unwrap_or(BACKOFF_MAX);
                    if std::mem::replace(&mut well, false) {
                        tracing::warn!(
                            router = self.name,
                            %error,
                            "the registry does not learn what this router holds; trying again"
                        );
                    }
                    self.stopped_by(Instant::now() + wait).await
                }
            };
            if stop {
                break;
            }
        }
        let unregister = async |client: &_| registry::router_unregister(client, self.id).await;
        if let Err(error) = self.registry.within(self.limit, unregister).await {
            tracing::debug!(%error, "a registration is left to run out");
        }
    }

    /// Waits for a reason to ask again. `true`: it is over.
    async fn rest(&self, pauses: &Pauses) -> bool {
        let holding = &self.holding;
        // With nothing to wait for this is a wait for the time alone.
        let one_free = self.core.pools.census.wait_for_none(pauses.due, |census| {
            usize::from(holding.iter().all(|fence| census.of(fence.tenant) > 0))
        });
        tokio::select! {
            () = self.shared.stop.notified() => return true,
            () = self.shared.changed.notified() => {}
            _ = one_free => {}
        }
        self.stopped_by(pauses.quiet_until).await
    }

    /// Waits until `until`. `true`: it is over.
    async fn stopped_by(&self, until: Instant) -> bool {
        tokio::select! {
            () = self.shared.stop.notified() => true,
            () = sleep_until(until) => false,
        }
    }

    /// Says that this process lives, when it is time to, and what it has let go of.
    async fn turn(&mut self) -> Result<Pauses, RegistryError> {
        let renewal = self.shared.ttl / 3;
        let now = Instant::now();
        let renewed_at = match self.shared.renewed_at() {
            Some(at) if at + renewal > now => at,
            before => {
                self.register(before.is_some()).await?;
                self.shared.set_renewed_at(Some(now));
                now
            }
        };
        let asked_at = Instant::now();
        let fences = self.ask().await?;
        let took = asked_at.elapsed();
        let more = self.let_go(fences).await?;
        let answered_at = asked_at + took;
        let due = (answered_at + LOOK_EVERY.max(took * EVERY_SHARE)).min(renewed_at + renewal);
        Ok(Pauses {
            quiet_until: answered_at + LOOK_GAP.max(took * GAP_SHARE),
            due: if more { answered_at } else { due },
        })
    }

    async fn register(&self, known: bool) -> Result<(), RegistryError> {
        let (id, ttl) = (self.id, self.shared.ttl);
        let renewed = known
            && self
                .registry
                .within(self.limit, async |client| {
                    registry::router_renew(client, id, ttl).await
                })
                .await?;
        if renewed {
            return Ok(());
        }
        if known {
            tracing::warn!(
                router = self.name,
                "the registration ran out and was cleared away; registering anew"
            );
        }
        let register = async |client: &_| registry::router_register(client, id, &self.name, ttl).await;
        self.registry.within(self.limit, register).await
    }

    async fn ask(&self) -> Result<Vec<TenantFence>, RegistryError> {
        let ask = async |client: &_| registry::fences_unacknowledged(client, self.id).await;
        self.registry.within(self.limit, ask).await
    }

    /// Lets go of these laboratories and acknowledges those of which nothing is held. `true`: there may be more, ask again.
    async fn let_go(&mut self, fences: Vec<TenantFence>) -> Result<bool, RegistryError> {
        for &fence in fences.iter().filter(|fence| !self.holding.contains(fence)) {
            self.close(fence).await;
        }
        let full_page = fences.len() >= usize::try_from(PAGE_MAX).unwrap_or(usize::MAX);
        let census = &self.core.pools.census;
        let (holding, free): (Vec<_>, Vec<_>) =
            fences.into_iter().partition(|fence| census.of(fence.tenant) > 0);
        self.holding = holding;
        if free.is_empty() {
            return Ok(false);
        }
        let acknowledge = async |client: &_| registry::router_acknowledge(client, self.id, &free).await;
        if !self.registry.within(self.limit, acknowledge).await? {
            // The registration is gone; the next turn registers anew and finds the same laboratories.
            self.shared.set_renewed_at(None);
            return Ok(true);
        }
        Ok(full_page)
    }

    /// Nothing that was read about the laboratory before is used after this, no connect begins, and what is idle ends.
    async fn close(&self, fence: TenantFence) {
        let tenant = fence.tenant;
        self.core.cache.forget(tenant);
        if self.core.pools.census.of(tenant) > 0 {
            // Closes the pool as one that is refused. Where it cannot say so, because the registry went away or the
            // laboratory serves again, the pool is closed all the same.
            let _refused = self.core.admitted(tenant).await;
        }
        self.core.pools.close_drained(tenant);
    }
}

fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(BACKOFF_MIN)
        .with_max_delay(BACKOFF_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Host and process id, for people.
fn process_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "host",
        host => host,
    };
    format!("{host}:{}", std::process::id())
}
