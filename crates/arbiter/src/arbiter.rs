use std::fmt;

use crate::{
    ArbiterStats, ConnectionGuard, FailureKind, PoolHandle, Refusal, Rules, Slot, Timestamp,
    closing::Closing,
    slot::SlotEvents,
    state::{Action, State},
    sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering},
};

/// The time on the caller's monotonic clock.
type Clock = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// A random number from 0 to 1,000, so that routers do not retry a server all at once.
type Jitter = Box<dyn Fn() -> u32 + Send + Sync>;

/// One server's budget of connections, and the queue of tenants that wait for one.
pub struct Arbiter<P: PoolHandle> {
    state: Mutex<State<P>>,
    /// A tenant waits for a slot, and no idle connection could be taken for it. While this is set, each
    /// caller that gives a connection back asks [`Arbiter::should_yield`].
    contended: AtomicBool,
    /// The server does not answer: pools check out no connection to it.
    silent: AtomicBool,
    clock: Clock,
    jitter: Jitter,
    /// Wakes the caller's timer, which calls [`Arbiter::tick`].
    wake: Box<dyn Fn() + Send + Sync>,
}

impl<P: PoolHandle> Arbiter<P> {
    /// An arbiter with the whole budget free. It calls `wake` when [`Arbiter::tick`] should be called from
    /// time to time.
    pub fn new(
        rules: Rules,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
        jitter: impl Fn() -> u32 + Send + Sync + 'static,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            state: Mutex::new(State::new(rules)),
            contended: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            clock: Box::new(clock),
            jitter: Box::new(jitter),
            wake: Box::new(wake),
        }
    }

    /// Requests a slot, because callers of this tenant wait for a connection. Does nothing if the tenant has
    /// all the slots that it may have, or a connect under way.
    ///
    /// # Errors
    /// The breaker is open.
    pub fn request_slot(self: &Arc<Self>, pool: &Arc<P>) -> Result<(), Refusal> {
        self.work(|state, now, actions| state.request_slot(pool, now, actions))
    }

    /// Whether a connection that is given back must be closed for a tenant that waits. If this returns true,
    /// the connection counts as closing, and the caller must close it. Cheap while no tenant waits.
    pub fn should_yield(
        self: &Arc<Self>,
        guard: &ConnectionGuard<P::Tenant>,
        tenant: P::Tenant,
        tenure_ends: Timestamp,
    ) -> bool {
        // Relaxed: if this misses a flag that is just being set, the next tick finds the connection idle.
        self.contended.load(Ordering::Relaxed)
            && (self.clock)() >= tenure_ends
            && self.work(|state, now, _| state.should_yield(guard, tenant, now))
    }

    /// Whether the server counts as silent: it did not answer several times in a row.
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// Checks whether time alone allows more: an idle connection may be taken, or a connect may be tried
    /// again. Returns true if it should be called again in a millisecond.
    pub fn tick(self: &Arc<Self>) -> bool {
        self.work(|state, now, actions| state.tick(now, actions))
    }

    /// Reports that the server answered on a connection while it counted as silent.
    pub fn answered(self: &Arc<Self>) {
        self.work(|state, _, _| state.answered());
    }

    /// Reports that a statement was given up because the server did not even answer its cancellation.
    pub fn unanswered(self: &Arc<Self>) {
        let jitter = (self.jitter)();
        self.work(|state, now, actions| state.note_failure(FailureKind::Silent, now, jitter, actions));
    }

    /// Reports that the pool is closed: it requests no slots any more. Its slots come back as its connections
    /// close.
    pub fn remove_pool(self: &Arc<Self>, pool: &Arc<P>) {
        self.work(|state, now, actions| state.remove_pool(pool, now, actions));
    }

    /// Sets how many connections an earlier process of this instance still has on the server.
    pub fn set_predecessors(self: &Arc<Self>, predecessors: usize) {
        self.work(|state, now, actions| state.set_predecessors(predecessors, now, actions));
    }

    /// How many slots a tenant holds. Slots of failed connects belong to no tenant.
    pub fn held(&self, tenant: P::Tenant) -> usize {
        self.lock().held(tenant)
    }

    /// The open pools that have connections.
    pub fn pools(&self) -> Vec<Arc<P>> {
        self.lock().pools().cloned().collect()
    }

    /// The figures of this moment.
    pub fn stats(&self) -> ArbiterStats {
        self.lock().stats()
    }

    /// Decides under the lock and acts after releasing it.
    fn work<R>(
        self: &Arc<Self>,
        decide: impl FnOnce(&mut State<P>, Timestamp, &mut Vec<Action<P>>) -> R,
    ) -> R {
        let mut actions = Vec::new();
        let now = (self.clock)();
        let mut state = self.lock();
        let outcome = decide(&mut state, now, &mut actions);
        self.contended.store(state.is_contended(), Ordering::Relaxed);
        self.silent.store(state.is_silent(), Ordering::Relaxed);
        let ticks = state.ticks();
        drop(state);
        if ticks {
            (self.wake)();
        }
        // Every granted slot gets its owner before any other code runs, which could panic.
        let ready: Vec<ReadyAction<P>> = actions
            .into_iter()
            .map(|action| ReadyAction::new(self, action))
            .collect();
        for action in ready {
            match action {
                ReadyAction::Connect(pool, slot) => pool.connect(slot),
                ReadyAction::Close(idle) => drop(idle),
                ReadyAction::Refuse(pool, refusal) => pool.refuse(refusal),
            }
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<P: PoolHandle> SlotEvents<P::Tenant> for Arbiter<P> {
    fn connected(self: Arc<Self>, tenant: P::Tenant, closing: &Closing) {
        self.work(|state, now, actions| state.connected(tenant, closing, now, actions));
    }

    fn connect_failed(self: Arc<Self>, tenant: P::Tenant, closing: &Closing, kind: FailureKind) {
        let jitter = (self.jitter)();
        self.work(|state, now, actions| state.connect_failed(tenant, closing, kind, now, jitter, actions));
    }

    fn handle_dropped(self: Arc<Self>, tenant: P::Tenant, closing: &Closing) {
        self.work(|state, now, actions| state.handle_dropped(tenant, closing, now, actions));
    }

    fn slot_released(self: Arc<Self>, tenant: P::Tenant, failed: bool, closing: &Closing) {
        self.work(|state, now, actions| state.slot_released(tenant, failed, closing, now, actions));
    }
}

/// An [`Action`] whose slot has an owner.
enum ReadyAction<P: PoolHandle> {
    Connect(Arc<P>, Slot<P::Tenant>),
    Close(P::Idle),
    Refuse(Arc<P>, Refusal),
}

impl<P: PoolHandle> ReadyAction<P> {
    fn new(arbiter: &Arc<Arbiter<P>>, action: Action<P>) -> Self {
        match action {
            Action::Connect(pool) => {
                let events = Arc::clone(arbiter);
                let slot = Slot::new(events, pool.tenant());
                Self::Connect(pool, slot)
            }
            Action::Close(idle) => Self::Close(idle),
            Action::Refuse(pool, refusal) => Self::Refuse(pool, refusal),
        }
    }
}

impl<P: PoolHandle> fmt::Debug for Arbiter<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arbiter")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
