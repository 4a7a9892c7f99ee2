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
//! Renewing goes on beside the asking and acknowledging, and waits for neither: a registry that answers slowly makes
//! acknowledgements late by its own delay, and costs no registration.
//!
//! A process that cannot renew its registration is forgotten when that runs out. It goes on serving what it knows, as in
//! any outage of the registry; the fences that fall meanwhile are kept by the laboratories' servers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use model::RouterId;
use registry::{NewRouter, PAGE_MAX, Registry, RegistryError, TenantFence};
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use crate::{ResolverConfig, core::Core};

/// How often the registry is asked for what was missed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The least time between two questions, however many notifications come.
const LOOK_GAP: Duration = Duration::from_millis(20);
/// Asking takes longer the more laboratories are closed (some 10 ms for 10,000). The pauses grow with it, so that asking by
/// the clock takes no more than a fiftieth of the time, and asking upon notifications no more than a tenth.
const EVERY_SHARE: u32 = 50;
const GAP_SHARE: u32 = 10;
/// How far the pauses grow: an answer that took long says more about the network or the moment than about the work, and a
/// suspension waits for the acknowledgement.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(2);
const LOOK_GAP_MAX: Duration = Duration::from_millis(100);
/// How many renewals fit into the life of a registration.
const RENEWALS: u32 = 3;
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
    /// The registration was found to be cleared away.
    lost: Notify,
    /// The registration was renewed.
    renewed: Notify,
    stop: watch::Sender<bool>,
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
            lost: Notify::new(),
            renewed: Notify::new(),
            stop: watch::Sender::new(false),
            renewed_at: Mutex::new(None),
        });
        let router = Router {
            id: RouterId::generate(),
            name: process_name(),
            instance: config.instance.clone().filter(|instance| !instance.is_empty()),
            budget: config.budget,
            reserve: config.reserve,
            core: Arc::clone(core),
            registry: config.registry.clone(),
            // A question that hangs must not cost the registration.
            limit: config.registry_timeout.min(config.router_ttl / RENEWALS),
            shared: Arc::clone(&shared),
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
        self.shared.stop.send_replace(true);
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
    instance: Option<String>,
    budget: usize,
    reserve: usize,
    core: Arc<Core>,
    registry: Registry,
    limit: Duration,
    shared: Arc<Shared>,
}

/// When the registry is asked next.
struct Pauses {
    /// Not before this, whatever comes.
    quiet_until: Instant,
    /// At this, even if nothing comes.
    due: Instant,
}

impl Pauses {
    /// After an answer that came now and took so long.
    fn after(took: Duration) -> Self {
        let answered_at = Instant::now();
        Self {
            quiet_until: answered_at + (took * GAP_SHARE).clamp(LOOK_GAP, LOOK_GAP_MAX),
            due: answered_at + (took * EVERY_SHARE).clamp(LOOK_EVERY, LOOK_EVERY_MAX),
        }
    }
}

impl Router {
    async fn run(self) {
        tokio::join!(
            self.renew_until_stopped(),
            self.acknowledge_until_stopped(),
            self.add_up_until_stopped()
        );
        let unregister = async |client: &_| registry::router_unregister(client, self.id).await;
        if let Err(error) = self.registry.within(self.limit, unregister).await {
            tracing::debug!(%error, "a registration is left to run out");
        }
    }

    /// Registers and renews, whatever becomes of the rest.
    async fn renew_until_stopped(&self) {
        let mut streak = FailureStreak::new("this router's registration is not renewed", &self.name);
        let mut known = false;
        loop {
            let asked_at = Instant::now();
            let pause_ends = match self.register(known).await {
                Ok(()) => {
                    known = true;
                    streak.over();
                    self.shared.renewed.notify_one();
                    // What could not be acknowledged without a registration can be now.
                    self.shared.set_renewed_at(Some(asked_at));
                    self.shared.changed.notify_one();
                    asked_at + self.shared.ttl / RENEWALS
                }
                Err(error) => Instant::now() + streak.pause(&error),
            };
            tokio::select! {
                () = self.stopped() => return,
                () = self.shared.lost.notified() => {}
                () = sleep_until(pause_ends) => {}
            }
        }
    }

    /// Learns after each renewal what all routers may take together. By itself, so that its answer delays no renewal.
    async fn add_up_until_stopped(&self) {
        loop {
            tokio::select! {
                () = self.stopped() => return,
                () = self.shared.renewed.notified() => {}
            }
            let budgets = async |client: &_| registry::router_budgets(client, None).await;
            match self.registry.within(self.limit, budgets).await {
                Ok(budgets) => self.core.pools.note_budgets(budgets),
                Err(error) => {
                    tracing::debug!(%error, "the routers' budgets are added up after the next renewal")
                }
            }
        }
    }

    /// Lets go of laboratories that do not serve, and says so.
    async fn acknowledge_until_stopped(&self) {
        let mut streak = FailureStreak::new("the registry does not learn what this router holds", &self.name);
        // Laboratories that are closed here and of which connections are still open.
        let mut holding = Vec::new();
        loop {
            let stop = match self.turn(&mut holding).await {
                Ok(pauses) => {
                    streak.over();
                    self.rest(&pauses, &holding).await
                }
                Err(error) => self.stopped_by(Instant::now() + streak.pause(&error)).await,
            };
            if stop {
                return;
            }
        }
    }

    /// Waits for a reason to ask again. `true`: it is over.
    async fn rest(&self, pauses: &Pauses, holding: &[TenantFence]) -> bool {
        // With nothing to wait for this is a wait for the time alone.
        let one_free = self
            .core
            .pools
            .connection_counter
            .wait_for_none(pauses.due, |connection_counter| {
                usize::from(
                    holding
                        .iter()
                        .all(|fence| connection_counter.of(fence.tenant) > 0),
                )
            });
        tokio::select! {
            () = self.stopped() => return true,
            () = self.shared.changed.notified() => {}
            _ = one_free => {}
        }
        self.stopped_by(pauses.quiet_until).await
    }

    /// Waits until `until`. `true`: it is over.
    async fn stopped_by(&self, until: Instant) -> bool {
        tokio::select! {
            () = self.stopped() => true,
            () = sleep_until(until) => false,
        }
    }

    /// Returns when it is over.
    async fn stopped(&self) {
        let mut stop = self.shared.stop.subscribe();
        // The sender lives as long as `self`.
        let _stopped = stop.wait_for(|stop| *stop).await;
    }

    /// Asks what has closed, and says what this process has let go of.
    async fn turn(&self, holding: &mut Vec<TenantFence>) -> Result<Pauses, RegistryError> {
        let (fences, took) = self.ask().await?;
        let pauses = Pauses::after(took);
        if self.let_go(fences, holding).await? {
            return Ok(Pauses {
                due: Instant::now(),
                ..pauses
            });
        }
        Ok(pauses)
    }

    /// Registers or renews.
    async fn register(&self, known: bool) -> Result<(), RegistryError> {
        let (id, ttl) = (self.id, self.shared.ttl);
        let work = async |client: &_| {
            if !known || !registry::router_renew(client, id, ttl).await? {
                if known {
                    tracing::warn!(
                        router = self.name,
                        "the registration ran out and was cleared away; registering anew"
                    );
                }
                let router = NewRouter {
                    id,
                    name: &self.name,
                    instance: self.instance.as_deref(),
                    budget: self.budget,
                    reserve: self.reserve,
                };
                registry::router_register(client, &router, ttl).await?;
            }
            Ok(())
        };
        self.registry.within(self.limit, work).await
    }

    /// The laboratories to let go of, and how long the registry took to say so: not counting the wait for a connection.
    async fn ask(&self) -> Result<(Vec<TenantFence>, Duration), RegistryError> {
        let ask = async |client: &_| {
            let asked_at = Instant::now();
            let fences = registry::fences_unacknowledged(client, self.id).await?;
            Ok((fences, asked_at.elapsed()))
        };
        self.registry.within(self.limit, ask).await
    }

    /// Lets go of these laboratories and acknowledges those of which nothing is held. `true`: there may be more, ask again.
    async fn let_go(
        &self,
        fences: Vec<TenantFence>,
        holding: &mut Vec<TenantFence>,
    ) -> Result<bool, RegistryError> {
        for &fence in fences.iter().filter(|fence| !holding.contains(fence)) {
            self.close(fence).await;
        }
        let full_page = fences.len() >= usize::try_from(PAGE_MAX).unwrap_or(usize::MAX);
        let connection_counter = &self.core.pools.connection_counter;
        let (held, free): (Vec<_>, Vec<_>) = fences
            .into_iter()
            .partition(|fence| connection_counter.of(fence.tenant) > 0);
        *holding = held;
        if free.is_empty() {
            return Ok(false);
        }
        let acknowledge = async |client: &_| registry::router_acknowledge(client, self.id, &free).await;
        if !self.registry.within(self.limit, acknowledge).await? {
            // The registration is gone, or not made yet. Once it is, it is asked again and finds the same laboratories.
            self.shared.set_renewed_at(None);
            self.shared.lost.notify_one();
            return Ok(false);
        }
        Ok(full_page)
    }

    /// Nothing that was read about the laboratory before is used after this, no connect begins, and what is idle ends.
    async fn close(&self, fence: TenantFence) {
        let tenant = fence.tenant;
        self.core.cache.forget(tenant);
        if self.core.pools.connection_counter.of(tenant) > 0 {
            // Closes the pool as one that is refused. Where it cannot say so, because the registry went away or the
            // laboratory serves again, the pool is closed all the same.
            let _refused = self.core.admitted(tenant).await;
        }
        self.core.pools.close_drained(tenant);
    }
}

/// Failures one after the other: told once, and followed by longer and longer pauses.
struct FailureStreak<'a> {
    what: &'static str,
    router: &'a str,
    on: bool,
    pauses: ExponentialBackoff,
}

impl<'a> FailureStreak<'a> {
    fn new(what: &'static str, router: &'a str) -> Self {
        Self {
            what,
            router,
            on: false,
            pauses: backoff(),
        }
    }

    fn over(&mut self) {
        if std::mem::replace(&mut self.on, false) {
            tracing::info!(router = self.router, "over: {}", self.what);
            self.pauses = backoff();
        }
    }

    fn pause(&mut self, error: &RegistryError) -> Duration {
        if !std::mem::replace(&mut self.on, true) {
            tracing::warn!(router = self.router, %error, "{}; trying again", self.what);
        }
        self.pauses.next().unwrap_or(BACKOFF_MAX)
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
