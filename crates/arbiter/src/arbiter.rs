use std::fmt;

use crate::{
    Hold, Micros, Refusal, Rules, Seat, Slot, Verdict,
    ledger::{Deed, Ledger},
    slot::End,
    sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering},
};

/// The time, in microseconds since a moment of the caller's choice.
type Clock = Box<dyn Fn() -> Micros + Send + Sync>;

/// A random number of 0 to 1,000, so that routers do not come back all at once.
type Jitter = Box<dyn Fn() -> u64 + Send + Sync>;

/// One server's budget of connections, and the line of those who wait for one.
pub struct Arbiter<S: Seat> {
    ledger: Mutex<Ledger<S>>,
    /// Somebody waits for a slot and no idle connection could be taken: whoever gives one back asks [`Arbiter::yields`].
    pressed: AtomicBool,
    /// The server does not answer: nobody is lent a connection to it.
    silent: AtomicBool,
    clock: Clock,
    jitter: Jitter,
    /// Tells the caller's timer that [`Arbiter::tick`] has something to look at.
    wake: Box<dyn Fn() + Send + Sync>,
}

/// How things stand at one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// The most slots.
    pub budget: usize,
    /// Slots that are out: connects under way, open connections, and those that are ending.
    pub taken: usize,
    /// Connects under way.
    pub connecting: usize,
    /// Connections that are ending.
    pub ending: usize,
    /// Connections that an earlier process of ours still has there.
    pub others: usize,
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

impl<S: Seat> Arbiter<S> {
    /// An arbiter with the whole budget free. `wake` is called when [`Arbiter::tick`] should be called from time to time.
    pub fn new(
        rules: Rules,
        clock: impl Fn() -> Micros + Send + Sync + 'static,
        jitter: impl Fn() -> u64 + Send + Sync + 'static,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            ledger: Mutex::new(Ledger::new(rules)),
            pressed: AtomicBool::new(false),
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
    pub fn want(self: &Arc<Self>, seat: &Arc<S>) -> Result<(), Refusal> {
        self.work(|ledger, now, deeds| ledger.want(seat, now, deeds))
    }

    /// Whether a connection that is given back should be closed for somebody who waits; then it must be. Cheap while nobody
    /// waits.
    pub fn yields(self: &Arc<Self>, hold: &Hold<S>, tenant: S::Tenant, tenure_ends: Micros) -> bool {
        // Relaxed: whoever misses the flag by a moment is found idle by the next tick.
        self.pressed.load(Ordering::Relaxed)
            && (self.clock)() >= tenure_ends
            && self.work(|ledger, now, _| ledger.yields(hold, tenant, now))
    }

    /// Whether the server is taken to be silent: it did not answer several times in a row.
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// Looks whether an idle connection may be taken by now, or a connect tried again. True: call again in a millisecond.
    pub fn tick(self: &Arc<Self>) -> bool {
        self.work(|ledger, now, deeds| ledger.tick(now, deeds))
    }

    /// A connection that was thought lost has answered.
    pub fn answered(self: &Arc<Self>) {
        self.work(|ledger, _, _| ledger.answered());
    }

    /// A statement was given up because the server did not even answer a cancel.
    pub fn unanswered(self: &Arc<Self>) {
        let jitter = (self.jitter)();
        self.work(|ledger, now, deeds| ledger.verdict(Verdict::Silent, now, jitter, deeds));
    }

    /// The pool is closed: it neither wants nor gives anything any more. Its slots come back as its connections end.
    pub fn leave(self: &Arc<Self>, seat: &Arc<S>) {
        self.work(|ledger, now, deeds| ledger.leave(seat, now, deeds));
    }

    /// How many connections another process of ours, an earlier one, still has on this server.
    pub fn set_others(self: &Arc<Self>, others: usize) {
        self.work(|ledger, now, deeds| ledger.set_others(others, now, deeds));
    }

    /// How many slots a tenant holds; those of connects that failed are nobody's.
    pub fn held(&self, tenant: S::Tenant) -> usize {
        self.lock().held(tenant)
    }

    /// The open pools that have connections.
    pub fn seats(&self) -> Vec<Arc<S>> {
        self.lock().seats().cloned().collect()
    }

    /// The figures of this moment.
    pub fn standing(&self) -> Standing {
        self.lock().standing()
    }

    pub(crate) fn connected(self: &Arc<Self>, tenant: S::Tenant, end: &End) {
        self.work(|ledger, now, deeds| ledger.connected(tenant, end, now, deeds));
    }

    pub(crate) fn failed(self: &Arc<Self>, tenant: S::Tenant, end: &End, verdict: Verdict) {
        let jitter = (self.jitter)();
        self.work(|ledger, now, deeds| ledger.failed(tenant, end, verdict, now, jitter, deeds));
    }

    pub(crate) fn dropped(self: &Arc<Self>, tenant: S::Tenant, end: &End) {
        self.work(|ledger, now, deeds| ledger.dropped(tenant, end, now, deeds));
    }

    pub(crate) fn released(self: &Arc<Self>, tenant: S::Tenant, failed: bool, end: &End) {
        self.work(|ledger, now, deeds| ledger.released(tenant, failed, end, now, deeds));
    }

    /// Decides under the lock and acts outside it.
    fn work<T>(self: &Arc<Self>, decide: impl FnOnce(&mut Ledger<S>, Micros, &mut Vec<Deed<S>>) -> T) -> T {
        let mut deeds = Vec::new();
        let now = (self.clock)();
        let mut ledger = self.lock();
        let outcome = decide(&mut ledger, now, &mut deeds);
        self.pressed.store(ledger.is_pressed(), Ordering::Relaxed);
        self.silent.store(ledger.is_silent(), Ordering::Relaxed);
        let ticks = ledger.ticks();
        drop(ledger);
        if ticks {
            (self.wake)();
        }
        // Every slot that was granted gets its owner before anything else runs that could panic.
        let acts: Vec<Act<S>> = deeds.into_iter().map(|deed| Act::new(self, deed)).collect();
        for act in acts {
            match act {
                Act::Connect(seat, slot) => seat.connect(slot),
                Act::Close(idle) => drop(idle),
                Act::Refuse(seat, refusal) => seat.refuse(refusal),
            }
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, Ledger<S>> {
        self.ledger
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A [`Deed`] whose slot has an owner.
enum Act<S: Seat> {
    Connect(Arc<S>, Slot<S>),
    Close(S::Idle),
    Refuse(Arc<S>, Refusal),
}

impl<S: Seat> Act<S> {
    fn new(arbiter: &Arc<Arbiter<S>>, deed: Deed<S>) -> Self {
        match deed {
            Deed::Connect(seat) => {
                let slot = Slot::new(arbiter, seat.tenant());
                Self::Connect(seat, slot)
            }
            Deed::Close(idle) => Self::Close(idle),
            Deed::Refuse(seat, refusal) => Self::Refuse(seat, refusal),
        }
    }
}

impl<S: Seat> fmt::Debug for Arbiter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arbiter")
            .field("standing", &self.standing())
            .finish_non_exhaustive()
    }
}
