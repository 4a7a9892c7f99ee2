//! Measures how long the arbiter's lock is held, with many slots and a long wait queue.
//!
//! ```text
//! cargo run --release -p arbiter --example lock_time
//! ```

use std::{
    collections::VecDeque,
    hint::black_box,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use arbiter::{Arbiter, ConnectionGuard, PoolHandle, Refusal, Rules, Slot, Timestamp};

struct Pool {
    tenant: usize,
    waits: AtomicBool,
    idle: Mutex<Vec<Conn>>,
    last_used: AtomicU64,
    uses: AtomicU64,
    connects: Connects,
}

/// Connects under way.
type Connects = Arc<Mutex<Vec<(usize, Slot<usize>)>>>;

struct Conn {
    tenant: usize,
    guard: ConnectionGuard<usize>,
    slot: Option<Slot<usize>>,
}

impl AsRef<ConnectionGuard<usize>> for Conn {
    fn as_ref(&self) -> &ConnectionGuard<usize> {
        &self.guard
    }
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
        8
    }
    fn waiting_since(&self) -> Option<Timestamp> {
        self.waits.load(Relaxed).then_some(Timestamp::ZERO)
    }
    fn idle(&self) -> usize {
        lock(&self.idle).len()
    }
    fn last_used(&self) -> Timestamp {
        Timestamp::from_micros(self.last_used.load(Relaxed))
    }
    fn tenure_ends(&self) -> Timestamp {
        Timestamp::from_micros(self.last_used.load(Relaxed))
    }
    fn uses(&self) -> u64 {
        self.uses.load(Relaxed)
    }
    fn take_idle(&self) -> Option<Conn> {
        lock(&self.idle).pop()
    }
    fn connect(self: &Arc<Self>, slot: Slot<usize>) {
        lock(&self.connects).push((self.tenant, slot));
    }
    fn refuse(&self, _: Refusal) {}
}

struct Harness {
    arbiter: Arc<Arbiter<Pool>>,
    clock: Arc<AtomicU64>,
    connects: Connects,
    pools: Vec<Arc<Pool>>,
    conns: VecDeque<Conn>,
}

impl Harness {
    fn new(budget: usize, waiting: usize) -> Self {
        let clock = Arc::new(AtomicU64::new(1_000_000));
        let now = Arc::clone(&clock);
        let arbiter = Arbiter::new(
            Rules::new(budget),
            move || Timestamp::from_micros(now.load(Relaxed)),
            || 500,
            || {},
        );
        let mut harness = Self {
            arbiter: Arc::new(arbiter),
            clock,
            connects: Arc::default(),
            pools: Vec::new(),
            conns: VecDeque::new(),
        };
        for tenant in 0..budget + waiting {
            harness.pools.push(Arc::new(Pool {
                tenant,
                waits: AtomicBool::new(true),
                idle: Mutex::default(),
                last_used: AtomicU64::new(0),
                uses: AtomicU64::new(0),
                connects: Arc::clone(&harness.connects),
            }));
            let _never_down = harness.arbiter.request_slot(&harness.pools[tenant]);
            harness.connect();
        }
        harness
    }

    /// The connect under way succeeds, if there is one.
    fn connect(&mut self) {
        let connect = lock(&self.connects).pop();
        if let Some((tenant, mut slot)) = connect {
            self.pools[tenant].waits.store(false, Relaxed);
            slot.connected();
            self.conns.push_back(Conn {
                tenant,
                guard: slot.guard(),
                slot: Some(slot),
            });
        }
    }
}

fn time(what: &str, times: u32, mut act: impl FnMut()) {
    let start = Instant::now();
    for _ in 0..times {
        act();
    }
    let each = start.elapsed().as_nanos() / u128::from(times);
    println!("  {what:58} {each:>7} ns");
}

fn main() {
    for (budget, waiting) in [(64, 100), (500, 1_000), (500, 10_000)] {
        println!("{budget} slots, {waiting} tenants waiting");
        let mut harness = Harness::new(budget, waiting);
        let arbiter = Arc::clone(&harness.arbiter);
        let last = Arc::clone(&harness.pools[budget + waiting - 1]);
        time(
            "one more caller of a waiting tenant, nothing idle",
            20_000,
            || {
                let _never_down = black_box(arbiter.request_slot(&last));
            },
        );
        time("a tick, nothing idle", 20_000, || {
            harness.clock.fetch_add(1_000, Relaxed);
            black_box(arbiter.tick());
        });
        time("a give-back within the tenure", 1_000_000, || {
            black_box(arbiter.should_yield(&harness.conns[0].guard, 0, Timestamp::MAX));
        });
        time("a give-back past it: given up, closed, granted", 50, || {
            let mut conn = harness.conns.pop_front().expect("one is checked out");
            assert!(
                arbiter.should_yield(&conn.guard, conn.tenant, Timestamp::ZERO),
                "a tenant waits"
            );
            drop(conn.slot.take());
            harness.connect();
        });

        // All connections are idle: the arbiter compares all of them to find the one with the least eviction
        // cost.
        let mut harness = Harness::new(budget, waiting);
        harness.clock.fetch_add(1_000_000, Relaxed);
        for conn in harness.conns.drain(..) {
            lock(&harness.pools[conn.tenant].idle).push(conn);
        }
        let arbiter = Arc::clone(&harness.arbiter);
        time("an idle one chosen among all, closed, granted", 50, || {
            arbiter.tick();
            harness.connect();
        });
    }
}
