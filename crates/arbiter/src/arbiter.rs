use std::fmt;

use crate::{
    ConnectionGuard, FailureKind, PoolHandle, Refusal, Rules, Slot, Timestamp,
    slot::Closing,
    state::{Action, State},
    sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering},
};

/// The time on the caller's monotonic clock.
type Clock = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// A random number of 0 to 1,000, so that routers do not come back all at once.
type Jitter = Box<dyn Fn() -> u32 + Send + Sync>;

/// One server's budget of connections, and the line of those who wait for one.
pub struct Arbiter<P: PoolHandle> {
    state: Mutex<State<P>>,
    /// Somebody waits for a slot and no idle connection could be taken: whoever gives one back asks [`Arbiter::should_yield`].
    contended: AtomicBool,
    /// The server does not answer: nobody is lent a connection to it.
    silent: AtomicBool,
    clock: Clock,
    jitter: Jitter,
    /// Tells the caller's timer that [`Arbiter::tick`] has something to look at.
    wake: Box<dyn Fn() + Send + Sync>,
}

/// How things stand at one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArbiterStats {
    /// The most slots.
    pub budget: usize,
    /// Slots that are out: connects under way, open connections, and those that are ending.
    pub taken: usize,
    /// Connects under way.
    pub connecting: usize,
    /// Connections that are ending.
    pub closing: usize,
    /// Connections that an earlier process of ours still has there.
    pub predecessors: usize,
    /// Tenants in the line.
    pub tenants_waiting: usize,
    /// Whether the breaker is open.
    pub breaker_open: bool,
    /// Idle connections taken for another tenant.
    pub taken_idle_total: u64,
    /// Connections given up because their tenure was over and another tenant waited.
    pub yields_total: u64,
    /// Callers refused at once because the breaker was open.
    pub refused_total: u64,
}

impl<P: PoolHandle> Arbiter<P> {
    /// An arbiter with the whole budget free. `wake` is called when [`Arbiter::tick`] should be called from time to time.
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

    /// Callers of this tenant wait for a connection. Nothing happens when it has its share under way already.
    ///
    /// # Errors
    /// The breaker is open.
    pub fn request_slot(self: &Arc<Self>, pool: &Arc<P>) -> Result<(), Refusal> {
        self.work(|state, now, actions| state.request_slot(pool, now, actions))
    }

    /// Whether a connection that is given back should be closed for somebody who waits; then it must be. Cheap while nobody
    /// waits.
    pub fn should_yield(
        self: &Arc<Self>,
        guard: &ConnectionGuard<P>,
        tenant: P::Tenant,
        tenure_ends: Timestamp,
    ) -> bool {
        // Relaxed: whoever misses the flag by a moment is found idle by the next tick.
        self.contended.load(Ordering::Relaxed)
            && (self.clock)() >= tenure_ends
            && self.work(|state, now, _| state.should_yield(guard, tenant, now))
    }

    /// Whether the server is taken to be silent: it did not answer several times in a row.
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// Looks whether an idle connection may be taken by now, or a connect tried again. True: call again in a millisecond.
    pub fn tick(self: &Arc<Self>) -> bool {
        self.work(|state, now, actions| state.tick(now, actions))
    }

    /// A connection that was thought lost has answered.
    pub fn answered(self: &Arc<Self>) {
        self.work(|state, _, _| state.answered());
    }

    /// A statement was given up because the server did not even answer a cancel.
    pub fn unanswered(self: &Arc<Self>) {
        let jitter = (self.jitter)();
        self.work(|state, now, actions| state.note_failure(FailureKind::Silent, now, jitter, actions));
    }

    /// The pool is closed: it neither wants nor gives anything any more. Its slots come back as its connections end.
    pub fn remove_pool(self: &Arc<Self>, pool: &Arc<P>) {
        self.work(|state, now, actions| state.remove_pool(pool, now, actions));
    }

    /// How many connections another process of ours, an earlier one, still has on this server.
    pub fn set_predecessors(self: &Arc<Self>, predecessors: usize) {
        self.work(|state, now, actions| state.set_predecessors(predecessors, now, actions));
    }

    /// How many slots a tenant holds; those of connects that failed are nobody's.
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

    pub(crate) fn connected(self: &Arc<Self>, tenant: P::Tenant, closing: &Closing) {
        self.work(|state, now, actions| state.connected(tenant, closing, now, actions));
    }

    pub(crate) fn failed(self: &Arc<Self>, tenant: P::Tenant, closing: &Closing, kind: FailureKind) {
        let jitter = (self.jitter)();
        self.work(|state, now, actions| state.failed(tenant, closing, kind, now, jitter, actions));
    }

    pub(crate) fn dropped(self: &Arc<Self>, tenant: P::Tenant, closing: &Closing) {
        self.work(|state, now, actions| state.dropped(tenant, closing, now, actions));
    }

    pub(crate) fn released(self: &Arc<Self>, tenant: P::Tenant, failed: bool, closing: &Closing) {
        self.work(|state, now, actions| state.released(tenant, failed, closing, now, actions));
    }

    /// Decides under the lock and ready outside it.
    fn work<T>(
        self: &Arc<Self>,
        decide: impl FnOnce(&mut State<P>, Timestamp, &mut Vec<Action<P>>) -> T,
    ) -> T {
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
        // Every slot that was granted gets its owner before anything else runs that could panic.
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

/// A [`Action`] whose slot has an owner.
enum ReadyAction<P: PoolHandle> {
    Connect(Arc<P>, Slot<P>),
    Close(P::Idle),
    Refuse(Arc<P>, Refusal),
}

impl<P: PoolHandle> ReadyAction<P> {
    fn new(arbiter: &Arc<Arbiter<P>>, action: Action<P>) -> Self {
        match action {
            Action::Connect(pool) => {
                let slot = Slot::new(arbiter, pool.tenant());
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
