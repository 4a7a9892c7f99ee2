//! Runs the arbiter itself in virtual time, with simulated pools, callers and a server.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arbiter::{Arbiter, ConnectionGuard, PoolHandle, Refusal, Rules, Slot, Timestamp};

use crate::{
    machine::{Machine, costs},
    random::Random,
};

const TICK: Duration = Duration::from_millis(1);

/// The bound of open pools.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pools {
    pub(crate) max: usize,
    /// Whether a pool without connections is closed before one that has some, however recently it was used.
    pub(crate) empty_first: bool,
}

impl Pools {
    pub(crate) const UNBOUNDED: Self = Self {
        max: usize::MAX,
        empty_first: true,
    };
}

/// What one caller does: request, use, think, request again; or only once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) tenant: usize,
    /// How long the server sleeps within its query.
    pub(crate) sleep: Duration,
    /// How long it thinks on average before it requests again, in microseconds; `None`: it requests only
    /// once.
    pub(crate) think: Option<f64>,
}

/// Requests that arrive whether or not earlier ones are answered.
pub(crate) struct Arrivals<'a> {
    pub(crate) tenants: &'a mut dyn Iterator<Item = usize>,
    pub(crate) per_second: f64,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Results {
    /// Requests that were answered, by tenant.
    pub(crate) answered: Vec<u64>,
    /// How long each waited for its connection.
    pub(crate) waits: Vec<Vec<Duration>>,
    pub(crate) connects: u64,
    /// Callers that still wait at the end, and the longest wait among them.
    pub(crate) left: usize,
    pub(crate) left_longest: Duration,
    pub(crate) time: Duration,
}

pub(crate) struct Simulation<'a> {
    arbiter: Arc<Arbiter<Pool>>,
    rules: Rules,
    clock: Arc<AtomicU64>,
    outbox: Arc<Mutex<Outbox>>,
    pools: Vec<Option<Arc<Pool>>>,
    bound: Pools,
    /// Tenants whose pool is open.
    open: Vec<usize>,
    slots_max: usize,
    slots: HashMap<u64, Slot<usize>>,
    numbers: u64,
    machine: Machine<Work>,
    events: BinaryHeap<Reverse<Timed>>,
    order: u64,
    ticking: bool,
    random: Random,
    arrivals: Option<Arrivals<'a>>,
    warm_from: Timestamp,
    results: Results,
}

/// A job on a processor.
enum Work {
    Connect(Arc<Pool>, Slot<usize>),
    Query(CheckedOut),
    Close(u64),
}

enum Event {
    Asks(Caller),
    Arrives,
    Connected(Arc<Pool>, Slot<usize>),
    Answered(CheckedOut),
    Gone(u64),
    Tick,
}

struct Timed {
    at: Timestamp,
    order: u64,
    event: Event,
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Timed {}
impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

struct CheckedOut {
    conn: Conn,
    caller: Caller,
}

/// What the arbiter requested and the simulation has not begun yet.
#[derive(Default)]
struct Outbox {
    connects: Vec<(Arc<Pool>, Slot<usize>)>,
    ended: Vec<u64>,
    wake: bool,
}

pub(crate) struct Pool {
    tenant: usize,
    slots_max: usize,
    outbox: Arc<Mutex<Outbox>>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    idle: Vec<Conn>,
    callers: VecDeque<(Timestamp, Caller)>,
    waiting_since: Timestamp,
    last_used: Timestamp,
    tenure_ends: Timestamp,
    uses: u64,
    in_use: usize,
    closed: bool,
}

pub(crate) struct Conn {
    number: u64,
    tenure_ends: Timestamp,
    guard: ConnectionGuard<usize>,
    outbox: Arc<Mutex<Outbox>>,
}

impl Drop for Conn {
    fn drop(&mut self) {
        lock(&self.outbox).ended.push(self.number);
    }
}

impl AsRef<ConnectionGuard<usize>> for Conn {
    fn as_ref(&self) -> &ConnectionGuard<usize> {
        &self.guard
    }
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PoolHandle for Pool {
    type Tenant = usize;
    type Idle = Conn;

    fn tenant(&self) -> usize {
        self.tenant
    }
    fn slots_max(&self) -> usize {
        self.slots_max
    }
    fn is_closed(&self) -> bool {
        lock(&self.inner).closed
    }
    fn waiting_since(&self) -> Option<Timestamp> {
        let inner = lock(&self.inner);
        (!inner.callers.is_empty()).then_some(inner.waiting_since)
    }
    fn idle(&self) -> usize {
        lock(&self.inner).idle.len()
    }
    fn last_used(&self) -> Timestamp {
        lock(&self.inner).last_used
    }
    fn tenure_ends(&self) -> Timestamp {
        lock(&self.inner).tenure_ends
    }
    fn uses(&self) -> u64 {
        lock(&self.inner).uses
    }
    fn take_idle(&self) -> Option<Conn> {
        lock(&self.inner).idle.pop()
    }
    fn connect(self: &Arc<Self>, slot: Slot<usize>) {
        lock(&self.outbox).connects.push((Arc::clone(self), slot));
    }
    fn refuse(&self, _: Refusal) {
        unreachable!("the simulated server is never down");
    }
}

impl<'a> Simulation<'a> {
    pub(crate) fn new(rules: Rules, tenants: usize, slots_max: usize, seed: u64) -> Self {
        let clock = Arc::new(AtomicU64::new(1));
        let outbox = Arc::<Mutex<Outbox>>::default();
        let (now, bell) = (Arc::clone(&clock), Arc::clone(&outbox));
        let arbiter = Arbiter::new(
            rules,
            move || Timestamp::from_micros(now.load(Ordering::Relaxed)),
            || 500,
            move || lock(&bell).wake = true,
        );
        Self {
            arbiter: Arc::new(arbiter),
            rules,
            clock,
            outbox,
            pools: vec![None; tenants],
            bound: Pools::UNBOUNDED,
            open: Vec::new(),
            slots_max,
            slots: HashMap::new(),
            numbers: 0,
            machine: Machine::new(),
            events: BinaryHeap::new(),
            order: 0,
            ticking: false,
            random: Random::new(seed),
            arrivals: None,
            warm_from: Timestamp::ZERO,
            results: Results {
                answered: vec![0; tenants],
                waits: vec![Vec::new(); tenants],
                ..Results::default()
            },
        }
    }

    pub(crate) fn with_pools(mut self, bound: Pools) -> Self {
        self.bound = bound;
        self
    }

    /// Runs for `time`, of which the first part, `warm_up`, does not count.
    pub(crate) fn run(
        mut self,
        callers: &[Caller],
        arrivals: Option<Arrivals<'a>>,
        warm_up: Duration,
        time: Duration,
    ) -> Results {
        for &caller in callers {
            // Not all in the same microsecond.
            let at = Timestamp::from_micros(self.random.below(1_000) as u64);
            self.at(at, Event::Asks(caller));
        }
        self.arrivals = arrivals;
        if self.arrivals.is_some() {
            self.at(Timestamp::from_micros(1), Event::Arrives);
        }
        self.warm_from = Timestamp::ZERO + warm_up;
        let end = Timestamp::ZERO + time;
        loop {
            let event_at = self.events.peek().map(|Reverse(timed)| timed.at);
            let work_at = self.machine.next_end();
            let now = match (event_at, work_at) {
                (None, None) => break,
                (Some(at), None) | (None, Some(at)) => at,
                (Some(a), Some(b)) => a.min(b),
            };
            if now >= end {
                break;
            }
            self.clock.fetch_max(now.as_micros(), Ordering::Relaxed);
            if event_at == Some(now) {
                if let Some(Reverse(timed)) = self.events.pop() {
                    self.happens(timed.event);
                }
            } else if let Some(work) = self.machine.end(now) {
                self.is_done(work);
            }
            self.send();
        }
        self.finish(end)
    }

    fn finish(mut self, end: Timestamp) -> Results {
        for pool in self.pools.iter().flatten() {
            for &(since, _) in &lock(&pool.inner).callers {
                self.results.left += 1;
                self.results.left_longest = self.results.left_longest.max(end.since(since));
            }
        }
        self.results.time = end.since(self.warm_from);
        self.results
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.clock.load(Ordering::Relaxed))
    }

    fn counts(&self) -> bool {
        self.now() >= self.warm_from
    }

    fn at(&mut self, at: Timestamp, event: Event) {
        self.order += 1;
        self.events.push(Reverse(Timed {
            at,
            order: self.order,
            event,
        }));
    }

    fn after(&mut self, pause: Duration, event: Event) {
        self.at(self.now() + pause, event);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Asks(caller) => self.ask(caller),
            Event::Arrives => self.arrive(),
            Event::Connected(pool, slot) => self.connected(&pool, slot),
            Event::Answered(checked_out) => self.answered(checked_out),
            Event::Gone(number) => {
                self.slots.remove(&number);
            }
            Event::Tick => {
                self.ticking = self.arbiter.tick();
                if self.ticking {
                    self.after(TICK, Event::Tick);
                }
            }
        }
    }

    fn is_done(&mut self, work: Work) {
        match work {
            Work::Connect(pool, slot) => self.after(costs::CONNECT_WAIT, Event::Connected(pool, slot)),
            Work::Query(checked_out) => self.after(
                costs::QUERY_WAIT + checked_out.caller.sleep,
                Event::Answered(checked_out),
            ),
            Work::Close(number) => self.after(costs::CLOSE_WAIT, Event::Gone(number)),
        }
    }

    /// Begins what the arbiter requested.
    fn send(&mut self) {
        let mut outbox = lock(&self.outbox);
        let (connects, ended) = (
            std::mem::take(&mut outbox.connects),
            std::mem::take(&mut outbox.ended),
        );
        let wake = std::mem::take(&mut outbox.wake);
        drop(outbox);
        let now = self.now();
        for (pool, slot) in connects {
            let work = Work::Connect(pool, slot);
            self.machine.begin(now, 2.0, costs::CONNECT_WORK, work);
        }
        for number in ended {
            self.machine
                .begin(now, 1.0, costs::CLOSE_WORK, Work::Close(number));
        }
        if wake && !self.ticking {
            self.ticking = true;
            self.after(TICK, Event::Tick);
        }
    }

    fn pool(&mut self, tenant: usize) -> Arc<Pool> {
        if let Some(pool) = &self.pools[tenant] {
            return Arc::clone(pool);
        }
        if self.open.len() >= self.bound.max {
            self.close_least_recent();
        }
        self.open.push(tenant);
        let pool = Arc::new(Pool {
            tenant,
            slots_max: self.slots_max,
            outbox: Arc::clone(&self.outbox),
            inner: Mutex::default(),
        });
        Arc::clone(self.pools[tenant].insert(pool))
    }

    /// Closes the least recently used pool that no caller uses.
    fn close_least_recent(&mut self) {
        let rank = |&(_, tenant): &(usize, &usize)| {
            let inner = lock(&self.pools[*tenant].as_ref()?.inner);
            let in_use = inner.in_use > 0 || !inner.callers.is_empty();
            let kept = self.bound.empty_first && self.arbiter.held(*tenant) > 0;
            Some((in_use, kept, inner.last_used))
        };
        let least = self.open.iter().enumerate().min_by_key(rank);
        let Some((index, _)) = least else { return };
        let Some(pool) = self.pools[self.open.swap_remove(index)].take() else {
            return;
        };
        let mut inner = lock(&pool.inner);
        assert!(
            inner.in_use == 0 && inner.callers.is_empty(),
            "all pools are in use"
        );
        inner.closed = true;
        let idle = std::mem::take(&mut inner.idle);
        drop(inner);
        self.arbiter.remove_pool(&pool);
        drop(idle);
    }

    fn arrive(&mut self) {
        let Some(arrivals) = &mut self.arrivals else {
            return;
        };
        let Some(tenant) = arrivals.tenants.next() else {
            return;
        };
        let pause = self.random.pause(1e6 / arrivals.per_second);
        self.ask(Caller {
            tenant,
            sleep: Duration::ZERO,
            think: None,
        });
        self.after(pause, Event::Arrives);
    }

    fn ask(&mut self, caller: Caller) {
        let now = self.now();
        let pool = self.pool(caller.tenant);
        let mut inner = lock(&pool.inner);
        if let Some(conn) = inner.idle.pop() {
            drop(inner);
            self.check_out(&pool, conn, now, caller);
            return;
        }
        if inner.callers.is_empty() {
            inner.waiting_since = now;
        }
        inner.callers.push_back((now, caller));
        drop(inner);
        let _it_is_never_refused = self.arbiter.request_slot(&pool);
    }

    fn check_out(&mut self, pool: &Pool, conn: Conn, since: Timestamp, caller: Caller) {
        let now = self.now();
        let mut inner = lock(&pool.inner);
        inner.uses += 1;
        inner.in_use += 1;
        inner.last_used = now;
        drop(inner);
        if self.counts() {
            self.results.waits[caller.tenant].push(now.since(since));
        }
        let work = Work::Query(CheckedOut { conn, caller });
        self.machine.begin(now, 1.0, costs::QUERY_WORK, work);
    }

    fn connected(&mut self, pool: &Arc<Pool>, mut slot: Slot<usize>) {
        self.numbers += 1;
        self.results.connects += u64::from(self.counts());
        let conn = Conn {
            number: self.numbers,
            tenure_ends: self.now() + self.rules.tenure,
            guard: slot.guard(),
            outbox: Arc::clone(&self.outbox),
        };
        lock(&pool.inner).tenure_ends = conn.tenure_ends;
        slot.connected();
        self.slots.insert(self.numbers, slot);
        self.hand_over(pool, conn);
        if !lock(&pool.inner).callers.is_empty() {
            let _it_is_never_refused = self.arbiter.request_slot(pool);
        }
    }

    fn hand_over(&mut self, pool: &Arc<Pool>, conn: Conn) {
        let mut inner = lock(&pool.inner);
        match inner.callers.pop_front() {
            _ if inner.closed => drop(inner),
            Some((since, caller)) => {
                drop(inner);
                self.check_out(pool, conn, since, caller);
            }
            None => inner.idle.push(conn),
        }
    }

    fn answered(&mut self, checked_out: CheckedOut) {
        let CheckedOut { conn, caller } = checked_out;
        self.results.answered[caller.tenant] += u64::from(self.counts());
        if let Some(think) = caller.think {
            let pause = if think > 0.0 {
                self.random.pause(think)
            } else {
                Duration::ZERO
            };
            self.after(pause, Event::Asks(caller));
        }
        let pool = self.pool(caller.tenant);
        let mut inner = lock(&pool.inner);
        inner.last_used = self.now();
        inner.in_use -= 1;
        drop(inner);
        if !self
            .arbiter
            .should_yield(&conn.guard, caller.tenant, conn.tenure_ends)
        {
            self.hand_over(&pool, conn);
        }
    }
}

impl Results {
    pub(crate) fn per_second(&self) -> f64 {
        self.answered.iter().sum::<u64>() as f64 / self.seconds()
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.time.as_secs_f64()
    }

    /// Connects for each request that was answered.
    pub(crate) fn misses(&self) -> f64 {
        self.connects as f64 / self.answered.iter().sum::<u64>().max(1) as f64
    }

    pub(crate) fn longest_ms(&self) -> f64 {
        let longest = self.waits.iter().flatten().copied().max().unwrap_or_default();
        ms(longest.max(self.left_longest))
    }

    /// The wait below which 99 of 100 of these tenants' requests stay.
    pub(crate) fn p99_ms(&self, tenants: impl IntoIterator<Item = usize>) -> f64 {
        let mut waits: Vec<Duration> = tenants
            .into_iter()
            .flat_map(|tenant| self.waits[tenant].iter().copied())
            .collect();
        waits.sort_unstable();
        ms(waits.get(waits.len() * 99 / 100).copied().unwrap_or_default())
    }

    /// Jain's index of fairness: 1 if all tenants got the same, 1 ÷ n if one got everything (Jain, Chiu and
    /// Hawe, 1984).
    pub(crate) fn jain(&self) -> f64 {
        let all: Vec<f64> = self.answered.iter().map(|&answered| answered as f64).collect();
        let sum: f64 = all.iter().sum();
        let squares: f64 = all.iter().map(|one| one * one).sum();
        sum * sum / (all.len() as f64 * squares.max(1.0))
    }
}
