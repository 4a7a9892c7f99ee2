//! Runs the arbiter in many orders of its threads' steps, chosen by shuttle, on the same code with shuttle's
//! locks and atomics. Run with `cargo nextest run -p arbiter --features shuttle`.
//!
//! In each test, callers of several tenants check out and give back, some callers give up, connects and
//! closes run on threads of their own, some connects fail, a timer ticks only when it is woken, and a pool is
//! closed and opened again. If the arbiter forgets a caller, the run ends in a deadlock or an endless loop,
//! which shuttle reports. Each connect checks the budget.
//!
//! A failure prints the schedule that led to it. `INTERLEAVING=<schedule>` with the test's name repeats that
//! schedule; `INTERLEAVINGS=<number>` tries so many schedules instead of a few hundred.
#![cfg(feature = "shuttle")]

use std::{collections::VecDeque, time::Duration};

use arbiter::{Arbiter, ConnectionGuard, FailureKind, PoolHandle, Refusal, Rules, Slot, Timestamp};
use shuttle::{
    Config, MaxSteps, Runner,
    rand::Rng,
    scheduler::{PctScheduler, RandomScheduler},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

type Tenant = usize;

/// Microseconds in a millisecond.
const MS: u64 = 1_000;
const TENANTS: usize = 3;

/// What the threads of one run share.
struct Harness {
    rules: Rules,
    arbiter: Arc<Arbiter<Pool>>,
    clock: Arc<AtomicU64>,
    pools: Mutex<Vec<Arc<Pool>>>,
    server: Arc<Server>,
    timer: Arc<Timer>,
}

/// The server: connects and closes wait here for a thread that carries them out.
struct Server {
    budget: usize,
    /// Slots that are out, counted independently of the arbiter.
    slots: AtomicUsize,
    jobs: Mutex<VecDeque<Job>>,
    new: Condvar,
    closed: AtomicBool,
    /// One connect in this many fails; zero: no connect fails.
    failing: AtomicUsize,
}

enum Job {
    Connect(Arc<Pool>, Slot<Tenant>),
    End(Slot<Tenant>),
}

/// Wakes the thread that ticks.
#[derive(Default)]
struct Timer {
    woken: Mutex<bool>,
    wake: Condvar,
    over: AtomicBool,
}

struct Pool {
    tenant: Tenant,
    server: Arc<Server>,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    idle: Vec<Conn>,
    waiting: usize,
    waiting_since: Timestamp,
    /// How often the arbiter refused the callers because the server was down.
    refusals: usize,
    last_used: Timestamp,
    tenure_ends: Timestamp,
    uses: u64,
    closed: bool,
}

/// A connection's handle. When it is dropped, the server learns of it first, and may end the backend before
/// the guard reports anything.
struct Conn {
    backend: Option<(Slot<Tenant>, Arc<Server>)>,
    tenure_ends: Timestamp,
    guard: ConnectionGuard<Tenant>,
}

impl Drop for Conn {
    fn drop(&mut self) {
        if let Some((slot, server)) = self.backend.take() {
            server.push(Job::End(slot));
        }
    }
}

impl AsRef<ConnectionGuard<Tenant>> for Conn {
    fn as_ref(&self) -> &ConnectionGuard<Tenant> {
        &self.guard
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds this")
}

impl Inner {
    fn waits(&self) -> bool {
        self.waiting > self.idle.len()
    }
}

impl PoolHandle for Pool {
    type Tenant = Tenant;
    type Idle = Conn;

    fn tenant(&self) -> Tenant {
        self.tenant
    }
    fn slots_max(&self) -> usize {
        2
    }
    fn is_closed(&self) -> bool {
        lock(&self.inner).closed
    }
    fn waiting_since(&self) -> Option<Timestamp> {
        let inner = lock(&self.inner);
        inner.waits().then_some(inner.waiting_since)
    }
    fn idle(&self) -> usize {
        let inner = lock(&self.inner);
        inner.idle.len().saturating_sub(inner.waiting)
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
    fn connect(self: &Arc<Self>, slot: Slot<Tenant>) {
        let out = self.server.slots.fetch_add(1, SeqCst) + 1;
        assert!(out <= self.server.budget, "{out} slots are out");
        self.server.push(Job::Connect(Arc::clone(self), slot));
    }
    fn refuse(&self, _: Refusal) {
        lock(&self.inner).refusals += 1;
        self.changed.notify_all();
    }
}

impl Pool {
    fn new(tenant: Tenant, server: &Arc<Server>) -> Arc<Self> {
        Arc::new(Self {
            tenant,
            server: Arc::clone(server),
            inner: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Adds a connection for the next caller.
    fn put(&self, conn: Conn) {
        let mut inner = lock(&self.inner);
        if inner.closed {
            drop(inner);
            return;
        }
        inner.idle.push(conn);
        drop(inner);
        self.changed.notify_all();
    }
}

impl Server {
    fn push(&self, job: Job) {
        lock(&self.jobs).push_back(job);
        self.new.notify_one();
    }

    fn pop(&self) -> Option<Job> {
        let mut jobs = lock(&self.jobs);
        loop {
            if let Some(job) = jobs.pop_front() {
                return Some(job);
            }
            if self.closed.load(SeqCst) {
                return None;
            }
            jobs = self.new.wait(jobs).expect("no thread panics while it holds this");
        }
    }

    fn end(&self, slot: Slot<Tenant>) {
        self.slots.fetch_sub(1, SeqCst);
        drop(slot);
    }
}

impl Harness {
    fn new(rules: Rules, failing: usize) -> Arc<Self> {
        let clock = Arc::new(AtomicU64::new(1_000 * MS));
        let timer = Arc::<Timer>::default();
        let server = Arc::new(Server {
            budget: rules.budget,
            slots: AtomicUsize::new(0),
            jobs: Mutex::default(),
            new: Condvar::new(),
            closed: AtomicBool::new(false),
            failing: AtomicUsize::new(failing),
        });
        let (now, waker) = (Arc::clone(&clock), Arc::clone(&timer));
        let arbiter = Arbiter::new(
            rules,
            move || Timestamp::from_micros(now.load(SeqCst)),
            || 500,
            move || {
                *lock(&waker.woken) = true;
                waker.wake.notify_one();
            },
        );
        Arc::new(Self {
            rules,
            arbiter: Arc::new(arbiter),
            clock,
            pools: Mutex::new((0..TENANTS).map(|tenant| Pool::new(tenant, &server)).collect()),
            server,
            timer,
        })
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.clock.load(SeqCst))
    }

    fn pool(&self, tenant: Tenant) -> Arc<Pool> {
        Arc::clone(&lock(&self.pools)[tenant])
    }

    /// Carries out connects and closes.
    fn serve(&self) {
        while let Some(job) = self.server.pop() {
            let (pool, mut slot) = match job {
                Job::End(slot) => {
                    self.server.end(slot);
                    continue;
                }
                Job::Connect(pool, slot) => (pool, slot),
            };
            let failing = self.server.failing.load(SeqCst);
            if failing > 0 && shuttle::rand::thread_rng().gen_range(0..failing) == 0 {
                slot.failed(FailureKind::Unreachable);
                self.server.end(slot);
                continue;
            }
            let now = self.now();
            let guard = slot.guard();
            slot.connected();
            let tenure_ends = now + self.rules.tenure;
            lock(&pool.inner).tenure_ends = tenure_ends;
            pool.put(Conn {
                backend: Some((slot, Arc::clone(&self.server))),
                tenure_ends,
                guard,
            });
            if pool.waiting_since().is_some() {
                let _refused_callers_are_told = self.arbiter.request_slot(&pool);
            }
        }
    }

    /// Ticks while the arbiter says so.
    fn tick(&self) {
        loop {
            let mut woken = lock(&self.timer.woken);
            while !*woken {
                if self.timer.over.load(SeqCst) {
                    return;
                }
                woken = self
                    .timer
                    .wake
                    .wait(woken)
                    .expect("no thread panics while it holds this");
            }
            *woken = false;
            drop(woken);
            loop {
                self.clock.fetch_add(7 * MS, SeqCst);
                if !self.arbiter.tick() {
                    break;
                }
                thread::yield_now();
            }
        }
    }

    /// One caller: waits until it has a connection or is refused. `patience`: how often it is woken before it
    /// gives up.
    fn check_out(&self, pool: &Arc<Pool>, mut patience: usize) -> Option<Conn> {
        let now = self.now();
        let mut inner = lock(&pool.inner);
        let heard = inner.refusals;
        if inner.waiting == 0 {
            inner.waiting_since = now;
        }
        inner.waiting += 1;
        let mut conn = inner.idle.pop();
        if conn.is_none() {
            drop(inner);
            let refused = self.arbiter.request_slot(pool).is_err();
            inner = lock(&pool.inner);
            while !refused && conn.is_none() && inner.refusals == heard && !inner.closed {
                conn = inner.idle.pop();
                if conn.is_none() && patience == 0 {
                    break;
                }
                if conn.is_none() {
                    patience -= 1;
                    inner = pool
                        .changed
                        .wait(inner)
                        .expect("no thread panics while it holds this");
                }
            }
        }
        inner.waiting -= 1;
        inner.uses += u64::from(conn.is_some());
        conn
    }

    fn give_back(&self, pool: &Arc<Pool>, conn: Conn) {
        if !self
            .arbiter
            .should_yield(&conn.guard, pool.tenant, conn.tenure_ends)
        {
            lock(&pool.inner).last_used = self.now();
            pool.put(conn);
        }
    }

    /// A tenant's client: checks out, uses, gives back.
    fn call(&self, tenant: Tenant, times: usize, patience: usize) {
        for _ in 0..times {
            let pool = self.pool(tenant);
            if let Some(conn) = self.check_out(&pool, patience) {
                self.clock.fetch_add(MS, SeqCst);
                thread::yield_now();
                self.give_back(&pool, conn);
            }
        }
    }

    /// Closes the tenant's pool and opens another.
    fn close_pool(&self, tenant: Tenant) {
        let pool = std::mem::replace(&mut lock(&self.pools)[tenant], Pool::new(tenant, &self.server));
        let mut inner = lock(&pool.inner);
        inner.closed = true;
        let idle = std::mem::take(&mut inner.idle);
        drop(inner);
        pool.changed.notify_all();
        drop(idle);
        self.arbiter.remove_pool(&pool);
    }
}

/// What a thread does.
type Work = Box<dyn FnOnce(&Harness) + Send>;

/// Runs the clients to their end, then everything else, and checks that nothing is left.
fn run(harness: &Arc<Harness>, clients: Vec<Work>) {
    let spawn = |work: Work| {
        let harness = Arc::clone(harness);
        thread::spawn(move || work(&harness))
    };
    let ticker = spawn(Box::new(Harness::tick));
    let servers = [spawn(Box::new(Harness::serve)), spawn(Box::new(Harness::serve))];
    for client in clients.into_iter().map(spawn).collect::<Vec<_>>() {
        client.join().expect("the client was served or sent home");
    }
    for tenant in 0..TENANTS {
        harness.close_pool(tenant);
    }
    harness.timer.over.store(true, SeqCst);
    let woken = lock(&harness.timer.woken);
    harness.timer.wake.notify_all();
    drop(woken);
    ticker.join().expect("the ticker ends");
    let jobs = lock(&harness.server.jobs);
    harness.server.closed.store(true, SeqCst);
    harness.server.new.notify_all();
    drop(jobs);
    for server in servers {
        server.join().expect("the server's thread ends");
    }
    let stats = harness.arbiter.stats();
    assert_eq!(
        (
            stats.taken,
            stats.connecting,
            stats.closing,
            stats.tenants_waiting
        ),
        (0, 0, 0, 0),
        "{stats:?}"
    );
}

/// Tries many orders of the scenario's steps, or the requested one.
fn check(scenario: fn()) {
    if let Ok(schedule) = std::env::var("INTERLEAVING") {
        return shuttle::replay(scenario, &schedule);
    }
    let times = std::env::var("INTERLEAVINGS").ok();
    let times = times.and_then(|times| times.parse().ok()).unwrap_or(600);
    let mut config = Config::default();
    // A run takes a few hundred steps.
    config.max_steps = MaxSteps::FailAfter(50_000);
    Runner::new(RandomScheduler::new(times), config.clone()).run(scenario);
    // Few switches, at unlikely places.
    Runner::new(PctScheduler::new(3, times / 2), config).run(scenario);
}

fn rules() -> Rules {
    Rules {
        connects_max: 2,
        grow_after: Duration::from_millis(3),
        ..Rules::new(2)
    }
}

const FOR_EVER: usize = usize::MAX;

#[test]
fn everybody_who_waits_is_served() {
    let scenario = || {
        let harness = Harness::new(rules(), 0);
        run(
            &harness,
            vec![
                Box::new(|harness| harness.call(0, 2, FOR_EVER)),
                Box::new(|harness| harness.call(0, 1, FOR_EVER)),
                Box::new(|harness| harness.call(1, 2, FOR_EVER)),
                Box::new(|harness| harness.call(2, 2, FOR_EVER)),
            ],
        );
    };
    check(scenario);
}

#[test]
fn callers_who_give_up_and_connects_that_fail_lose_nothing() {
    let scenario = || {
        let harness = Harness::new(rules(), 4);
        run(
            &harness,
            vec![
                Box::new(|harness| harness.call(0, 2, 0)),
                Box::new(|harness| harness.call(0, 2, FOR_EVER)),
                Box::new(|harness| harness.call(1, 2, 1)),
                Box::new(|harness| harness.call(2, 2, FOR_EVER)),
            ],
        );
    };
    check(scenario);
}

#[test]
fn a_pool_that_is_closed_and_opened_again_loses_nothing() {
    let scenario = || {
        let harness = Harness::new(rules(), 0);
        run(
            &harness,
            vec![
                Box::new(|harness| harness.call(0, 3, FOR_EVER)),
                Box::new(|harness| harness.close_pool(0)),
                Box::new(|harness| harness.call(1, 2, FOR_EVER)),
                Box::new(|harness| harness.call(2, 1, FOR_EVER)),
            ],
        );
    };
    check(scenario);
}
