//! Registers this process in the registry as one that connects to laboratories, and acknowledges fences.
//!
//! An operation that needs a laboratory without connections waits for the registered processes. So each
//! process registers at its start, renews its registration, and acknowledges each laboratory that does not
//! serve once it holds no connection to it and uses nothing that it read about it before; also laboratories
//! that it never connected to. The registry says which laboratories these are. A notification only makes the
//! process ask at once; a lost one costs a second.
//!
//! While a caller has a connection checked out, the process does not acknowledge the laboratory, however long
//! that takes: it takes no connection from a caller. The operation that waits has a time limit of its own,
//! and then ends the sessions on the laboratory's server.
//!
//! The renewals run beside the questions and acknowledgements and wait for neither. If the registry answers
//! slowly, acknowledgements are late by that delay, and the registration stays.
//!
//! If a process cannot renew its registration, it expires. The process goes on serving the laboratories that
//! it has cached, as in any outage of the registry; the laboratories' servers keep the fences that are set
//! meanwhile.

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

/// How often the process asks the registry without a notification.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The least time between two questions, however many notifications come.
const LOOK_GAP: Duration = Duration::from_millis(20);
/// The more laboratories are closed, the longer a question takes (some 10 ms for 10,000). The pauses grow
/// with that time, so that periodic questions take at most a fiftieth of the time, and questions after
/// notifications at most a tenth.
const EVERY_SHARE: u32 = 50;
const GAP_SHARE: u32 = 10;
/// The longest pauses. A very slow answer says more about the network or the moment than about the number of
/// closed laboratories, and a suspension waits for the acknowledgement.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(2);
const LOOK_GAP_MAX: Duration = Duration::from_millis(100);
/// How often the process renews its registration within the registration's lifetime.
const RENEWALS: u32 = 3;
/// The pause after the first failure; each further failure doubles it.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// The longest pause after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How long a process that ends may take to unregister.
const END_LIMIT: Duration = Duration::from_secs(2);

/// This process's registration as a router. If it is dropped without [`Self::end`], it expires by itself.
pub(crate) struct Registration {
    shared: Arc<Shared>,
    task: AsyncMutex<Option<Task>>,
}

struct Shared {
    ttl: Duration,
    changed: Notify,
    /// The registry had deleted the registration.
    lost: Notify,
    /// The registration was renewed.
    renewed: Notify,
    stop: watch::Sender<bool>,
    /// When the latest renewal that the registry confirmed was sent.
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
    /// Registers, and renews the registration until this is dropped.
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
            // A question without an answer must not let the registration expire.
            limit: config.registry_timeout.min(config.router_ttl / RENEWALS),
            shared: Arc::clone(&shared),
        };
        let task = Task(tokio::spawn(router.run()));
        Self {
            shared,
            task: AsyncMutex::new(Some(task)),
        }
    }

    /// A laboratory's row changed, or may have changed: ask the registry now which fences to acknowledge.
    pub(crate) fn notice(&self) {
        self.shared.changed.notify_one();
    }

    /// Whether the registration is valid, so that operations wait for this process.
    pub(crate) fn is_registered(&self) -> bool {
        self.renewed_age().is_some_and(|age| age < self.shared.ttl)
    }

    /// How long ago the registry confirmed the registration; `None` before the first time and after the end.
    pub(crate) fn renewed_age(&self) -> Option<Duration> {
        self.shared.renewed_at().map(|at| at.elapsed())
    }

    /// Ends the registration within two seconds, so that no operation waits for this process any more. Call
    /// it when the process holds no connection to any laboratory.
    pub(crate) async fn end(&self) {
        let Some(mut task) = self.task.lock().await.take() else {
            return;
        };
        self.shared.stop.send_replace(true);
        // If the registry does not answer in time, the registration expires.
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

/// When the process asks the registry next.
struct Pauses {
    /// Not before this moment, whatever happens.
    quiet_until: Instant,
    /// At this moment, even without a notification.
    due: Instant,
}

impl Pauses {
    /// The pauses after an answer that arrived now and took so long.
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
            self.read_budgets_until_stopped()
        );
        let unregister = async |client: &_| registry::router_unregister(client, self.id).await;
        if let Err(error) = self.registry.within(self.limit, unregister).await {
            tracing::debug!(%error, "the router could not unregister; its registration will expire");
        }
    }

    /// Registers and renews, independently of the other tasks.
    async fn renew_until_stopped(&self) {
        let mut streak = FailureStreak::new("the router cannot renew its registration", &self.name);
        let mut known = false;
        loop {
            let asked_at = Instant::now();
            let pause_ends = match self.register(known).await {
                Ok(()) => {
                    known = true;
                    streak.over();
                    self.shared.renewed.notify_one();
                    // Acknowledgements that failed for lack of a registration can succeed now.
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

    /// Reads the budgets of all routers after each renewal. A task of its own, so that a slow answer delays
    /// no renewal.
    async fn read_budgets_until_stopped(&self) {
        loop {
            tokio::select! {
                () = self.stopped() => return,
                () = self.shared.renewed.notified() => {}
            }
            let budgets = async |client: &_| registry::router_budgets(client, None).await;
            match self.registry.within(self.limit, budgets).await {
                Ok(budgets) => self.core.pools.note_budgets(budgets),
                Err(error) => {
                    tracing::debug!(
                        %error,
                        "the router could not read all budgets; the next renewal tries again"
                    );
                }
            }
        }
    }

    /// Releases laboratories that do not serve, and acknowledges that.
    async fn acknowledge_until_stopped(&self) {
        let mut streak = FailureStreak::new("the router cannot acknowledge closed laboratories", &self.name);
        // Laboratories that this process has closed and to which it still has connections.
        let mut holding = Vec::new();
        loop {
            let stop = match self.acknowledge_fences(&mut holding).await {
                Ok(pauses) => {
                    streak.over();
                    self.wait_for_reason(&pauses, &holding).await
                }
                Err(error) => self.stopped_by(Instant::now() + streak.pause(&error)).await,
            };
            if stop {
                return;
            }
        }
    }

    /// Waits for a reason to ask again. `true`: the task must stop.
    async fn wait_for_reason(&self, pauses: &Pauses, holding: &[TenantFence]) -> bool {
        // If no connection is left to wait for, this waits for the time alone.
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

    /// Waits until `until`. `true`: the task must stop.
    async fn stopped_by(&self, until: Instant) -> bool {
        tokio::select! {
            () = self.stopped() => true,
            () = sleep_until(until) => false,
        }
    }

    /// Returns when the task must stop.
    async fn stopped(&self) {
        let mut stop = self.shared.stop.subscribe();
        // The sender lives as long as `self`.
        let _stopped = stop.wait_for(|stop| *stop).await;
    }

    /// Asks which laboratories are closed, releases them, and acknowledges those that this process has
    /// released.
    async fn acknowledge_fences(&self, holding: &mut Vec<TenantFence>) -> Result<Pauses, RegistryError> {
        let (fences, took) = self.read_fences().await?;
        let pauses = Pauses::after(took);
        if self.release(fences, holding).await? {
            return Ok(Pauses {
                due: Instant::now(),
                ..pauses
            });
        }
        Ok(pauses)
    }

    /// Registers, or renews the registration.
    async fn register(&self, known: bool) -> Result<(), RegistryError> {
        let (id, ttl) = (self.id, self.shared.ttl);
        let work = async |client: &_| {
            if !known || !registry::router_renew(client, id, ttl).await? {
                if known {
                    tracing::warn!(
                        router = self.name,
                        "the router's registration had expired and was deleted; the router registers again"
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

    /// The laboratories to release, and how long the registry took to answer, without the wait for a
    /// connection.
    async fn read_fences(&self) -> Result<(Vec<TenantFence>, Duration), RegistryError> {
        let read = async |client: &_| {
            let asked_at = Instant::now();
            let fences = registry::fences_unacknowledged(client, self.id).await?;
            Ok((fences, asked_at.elapsed()))
        };
        self.registry.within(self.limit, read).await
    }

    /// Releases these laboratories, and acknowledges those to which the process has no connection. `true`:
    /// there may be more of them, so ask again.
    async fn release(
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
            // The registration is deleted, or not made yet. Once it exists, the next question returns the
            // same laboratories.
            self.shared.set_renewed_at(None);
            self.shared.lost.notify_one();
            return Ok(false);
        }
        Ok(full_page)
    }

    /// After this, the process uses nothing that it read about the laboratory before, begins no connect to
    /// it, and has ended its idle connections.
    async fn close(&self, fence: TenantFence) {
        let tenant = fence.tenant;
        self.core.cache.forget(tenant);
        if self.core.pools.connection_counter.of(tenant) > 0 {
            // Counts the pool as refused when it closes it. If the registry is unavailable or the laboratory
            // serves again, the line below closes the pool.
            let _refused = self.core.admitted(tenant).await;
        }
        self.core.pools.close_drained(tenant);
    }
}

/// A row of failures: logged once, with longer and longer pauses.
struct FailureStreak<'a> {
    condition: &'static str,
    router: &'a str,
    on: bool,
    pauses: ExponentialBackoff,
}

impl<'a> FailureStreak<'a> {
    fn new(condition: &'static str, router: &'a str) -> Self {
        Self {
            condition,
            router,
            on: false,
            pauses: backoff(),
        }
    }

    fn over(&mut self) {
        if std::mem::replace(&mut self.on, false) {
            tracing::info!(router = self.router, "no longer true: {}", self.condition);
            self.pauses = backoff();
        }
    }

    fn pause(&mut self, error: &RegistryError) -> Duration {
        if !std::mem::replace(&mut self.on, true) {
            tracing::warn!(router = self.router, %error, "{}; it tries again", self.condition);
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

/// Host name and process id, for people.
fn process_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "host",
        host => host,
    };
    format!("{host}:{}", std::process::id())
}
