//! Pools and a server that do only what a test tells them to, one step at a time, and a clock that the test
//! moves.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arbiter::{
    Arbiter, ArbiterStats, ConnectionGuard, FailureKind, PoolHandle, Refusal, Rules, Slot, Timestamp,
};

pub(crate) type Tenant = u32;

/// A millisecond.
pub(crate) const MS: Duration = Duration::from_millis(1);

/// One server, its arbiter, and everything that this process has there.
pub(crate) struct Harness {
    pub(crate) rules: Rules,
    pub(crate) arbiter: Arc<Arbiter<Pool>>,
    pub(crate) slots_max: usize,
    clock: Arc<AtomicU64>,
    wire: Arc<Wire>,
    pools: BTreeMap<Tenant, Arc<Pool>>,
    /// The pool that was closed last, for callers that notice too late.
    closed: Option<Arc<Pool>>,
    /// Connections that callers have checked out.
    checked_out: Vec<Conn>,
    /// Slots that are not connecting any more, by the connection's number; a failed connect has a number too.
    backends: BTreeMap<u64, Slot<Tenant>>,
    numbers: u64,
}

/// What pools request, for the harness to act on.
#[derive(Default)]
struct Wire {
    connects: Mutex<VecDeque<(Arc<Pool>, Slot<Tenant>)>>,
    connects_begun: AtomicU64,
    /// Connections whose handle is gone.
    ended: Mutex<Vec<u64>>,
}

/// One tenant's pool.
pub(crate) struct Pool {
    tenant: Tenant,
    slots_max: usize,
    wire: Arc<Wire>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    idle: Vec<Conn>,
    /// When each caller in the queue came.
    callers: VecDeque<Timestamp>,
    waiting_since: Option<Timestamp>,
    last_used: Timestamp,
    last_answered: Timestamp,
    tenure_ends: Timestamp,
    uses: u64,
    /// Connections that callers have: one of them may come back to the callers that wait.
    checked_out: usize,
    closed: bool,
}

/// A connection's handle.
pub(crate) struct Conn {
    number: u64,
    pool: Arc<Pool>,
    tenure_ends: Timestamp,
    guard: ConnectionGuard<Tenant>,
}

impl Drop for Conn {
    fn drop(&mut self) {
        lock(&self.pool.wire.ended).push(self.number);
    }
}

impl AsRef<ConnectionGuard<Tenant>> for Conn {
    fn as_ref(&self) -> &ConnectionGuard<Tenant> {
        &self.guard
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).expect("a test is short")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds this")
}

impl PoolHandle for Pool {
    type Tenant = Tenant;
    type Idle = Conn;

    fn tenant(&self) -> Tenant {
        self.tenant
    }
    fn slots_max(&self) -> usize {
        self.slots_max
    }
    fn is_closed(&self) -> bool {
        lock(&self.inner).closed
    }
    fn waiting_since(&self) -> Option<Timestamp> {
        lock(&self.inner).waiting_since
    }
    fn idle(&self) -> usize {
        lock(&self.inner).idle.len()
    }
    fn last_used(&self) -> Timestamp {
        lock(&self.inner).last_used
    }
    fn last_answered(&self) -> Timestamp {
        lock(&self.inner).last_answered
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
        self.wire.connects_begun.fetch_add(1, Ordering::Relaxed);
        lock(&self.wire.connects).push_back((Arc::clone(self), slot));
    }
    fn refuse(&self, _: Refusal) {
        lock(&self.inner).lose_hope();
    }
}

impl Inner {
    /// The server is down. If a connection of the tenant is checked out, its callers wait for that one.
    fn lose_hope(&mut self) {
        if self.checked_out == 0 {
            self.refuse_waiting();
        }
    }

    fn refuse_waiting(&mut self) {
        self.callers.clear();
        self.waiting_since = None;
    }

    /// Takes the caller that came first, if there is one.
    fn serve(&mut self, now: Timestamp) -> Option<Timestamp> {
        let since = self.callers.pop_front()?;
        if self.callers.is_empty() {
            self.waiting_since = None;
        }
        self.uses += 1;
        self.last_used = now;
        Some(since)
    }
}

/// The outcome of a caller's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    CheckedOut,
    Waits,
    Refused,
}

impl Harness {
    pub(crate) fn new(rules: Rules, slots_max: usize) -> Self {
        let clock = Arc::new(AtomicU64::new(1_000_000));
        let now = Arc::clone(&clock);
        Self {
            rules,
            arbiter: Arc::new(Arbiter::new(
                rules,
                move || Timestamp::from_micros(now.load(Ordering::Relaxed)),
                || 500,
                || {},
            )),
            slots_max,
            clock,
            wire: Arc::default(),
            pools: BTreeMap::new(),
            closed: None,
            checked_out: Vec::new(),
            backends: BTreeMap::new(),
            numbers: 0,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.clock.load(Ordering::Relaxed))
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.clock.fetch_add(micros(time), Ordering::Relaxed);
    }

    pub(crate) fn pool(&mut self, tenant: Tenant) -> Arc<Pool> {
        let open = || {
            Arc::new(Pool {
                tenant,
                slots_max: self.slots_max,
                wire: Arc::clone(&self.wire),
                inner: Mutex::default(),
            })
        };
        Arc::clone(self.pools.entry(tenant).or_insert_with(open))
    }

    /// A caller requests a connection of the tenant.
    pub(crate) fn ask(&mut self, tenant: Tenant) -> Asked {
        let now = self.now();
        let pool = self.pool(tenant);
        let mut inner = lock(&pool.inner);
        inner.callers.push_back(now);
        inner.waiting_since.get_or_insert(now);
        if let Some(conn) = inner.idle.pop() {
            inner.serve(now);
            inner.checked_out += 1;
            self.checked_out.push(conn);
            return Asked::CheckedOut;
        }
        drop(inner);
        if self.arbiter.request_slot(&pool).is_err() {
            lock(&pool.inner).lose_hope();
            return Asked::Refused;
        }
        Asked::Waits
    }

    /// The caller that came last gives up.
    pub(crate) fn cancel(&mut self, tenant: Tenant) {
        let pool = self.pool(tenant);
        let mut inner = lock(&pool.inner);
        inner.callers.pop_back();
        if inner.callers.is_empty() {
            inner.waiting_since = None;
        }
    }

    /// The nth of the connects under way succeeds. Returns how long the caller had waited that got the
    /// connection.
    pub(crate) fn connect_succeeds(&mut self, nth: usize) -> Option<Duration> {
        self.connect_ends(nth, Ok(true))
    }

    /// The nth of the connects under way fails.
    pub(crate) fn connect_fails(&mut self, nth: usize, kind: FailureKind) {
        self.connect_ends(nth, Err(kind));
    }

    /// The nth of the connects under way ends; after a success, the arbiter learns of it last or first.
    pub(crate) fn connect_ends(
        &mut self,
        nth: usize,
        outcome: Result<bool, FailureKind>,
    ) -> Option<Duration> {
        let (pool, mut slot) = lock(&self.wire.connects).remove(nth)?;
        self.numbers += 1;
        let number = self.numbers;
        match outcome {
            Ok(hand_over_first) => {
                let now = self.now();
                if !hand_over_first {
                    slot.connected();
                }
                let conn = Conn {
                    number,
                    pool: Arc::clone(&pool),
                    tenure_ends: now + self.rules.tenure,
                    guard: slot.guard(),
                };
                self.backends.insert(number, slot);
                let mut inner = lock(&pool.inner);
                inner.tenure_ends = conn.tenure_ends;
                inner.last_used = now;
                drop(inner);
                let waited = self.hand_over(conn);
                if let Some(slot) = self.backends.get_mut(&number) {
                    slot.connected();
                }
                if lock(&pool.inner).waiting_since.is_some() {
                    self.request_again(&pool);
                }
                waited
            }
            Err(kind) => {
                if matches!(kind, FailureKind::Refused | FailureKind::NotTried) {
                    lock(&pool.inner).refuse_waiting();
                }
                slot.failed(kind);
                self.backends.insert(number, slot);
                lock(&self.wire.ended).push(number);
                None
            }
        }
    }

    /// The task that makes the connect is ended in the middle of it.
    pub(crate) fn connect_abandoned(&mut self, nth: usize) {
        let connect = lock(&self.wire.connects).remove(nth);
        drop(connect);
    }

    /// A caller gives its connection back. Returns how long the next caller had waited that got it.
    pub(crate) fn give_back(&mut self, nth: usize) -> Option<Duration> {
        if nth >= self.checked_out.len() {
            return None;
        }
        let conn = self.checked_out.remove(nth);
        let mut inner = lock(&conn.pool.inner);
        inner.checked_out -= 1;
        (inner.last_used, inner.last_answered) = (self.now(), self.now());
        drop(inner);
        let is_gone = !self.backends.contains_key(&conn.number);
        if is_gone
            || self
                .arbiter
                .should_yield(&conn.guard, conn.pool.tenant, conn.tenure_ends)
        {
            return None;
        }
        self.hand_over(conn)
    }

    fn hand_over(&mut self, conn: Conn) -> Option<Duration> {
        let now = self.now();
        let pool = Arc::clone(&conn.pool);
        let mut inner = lock(&pool.inner);
        if inner.closed {
            drop(inner);
            return None;
        }
        match inner.serve(now) {
            Some(since) => {
                inner.checked_out += 1;
                self.checked_out.push(conn);
                Some(now.since(since))
            }
            None => {
                inner.idle.push(conn);
                None
            }
        }
    }

    fn request_again(&self, pool: &Arc<Pool>) {
        if self.arbiter.request_slot(pool).is_err() {
            lock(&pool.inner).lose_hope();
        }
    }

    /// A caller's connection turns out to be broken.
    pub(crate) fn checked_out_breaks(&mut self, nth: usize) {
        if nth < self.checked_out.len() {
            let conn = self.checked_out.remove(nth);
            let mut inner = lock(&conn.pool.inner);
            inner.checked_out -= 1;
            let hopeless = inner.checked_out == 0 && inner.waiting_since.is_some();
            drop(inner);
            let pool = Arc::clone(&conn.pool);
            drop(conn);
            if hopeless {
                // Its room in the pool is free: the callers that wait ask again.
                self.request_again(&pool);
            }
        }
    }

    /// An idle connection of the tenant is closed because of its age.
    pub(crate) fn idle_closes(&mut self, tenant: Tenant) {
        let conn = self.pool(tenant).take_idle();
        drop(conn);
    }

    /// The server ends the nth backend by itself, whatever this process does with it.
    pub(crate) fn backend_dies(&mut self, nth: usize) {
        let number = self.backends.keys().nth(nth).copied();
        if let Some(number) = number {
            self.backends.remove(&number);
        }
    }

    /// The backend of the nth connection that was closed is gone.
    pub(crate) fn backend_gone(&mut self, nth: usize) {
        let mut ended = lock(&self.wire.ended);
        ended.retain(|number| self.backends.contains_key(number));
        if nth >= ended.len() {
            return;
        }
        let number = ended.remove(nth);
        drop(ended);
        self.backends.remove(&number);
    }

    /// Closes the tenant's pool: its callers are refused, and its checked-out connections are still out.
    pub(crate) fn close_pool(&mut self, tenant: Tenant) {
        if let Some(pool) = self.pools.remove(&tenant) {
            let mut inner = lock(&pool.inner);
            inner.closed = true;
            inner.refuse_waiting();
            let idle = std::mem::take(&mut inner.idle);
            drop(inner);
            drop(idle);
            self.arbiter.remove_pool(&pool);
            self.closed = Some(pool);
        }
    }

    /// A caller entered a pool just before it was closed, and asks just after.
    pub(crate) fn ask_too_late(&mut self) {
        let Some(pool) = self.closed.take() else { return };
        let now = self.now();
        let mut inner = lock(&pool.inner);
        inner.callers.push_back(now);
        inner.waiting_since = Some(now);
        drop(inner);
        let _outcome = self.arbiter.request_slot(&pool);
        lock(&pool.inner).refuse_waiting();
    }

    pub(crate) fn is_waiting(&self, tenant: Tenant) -> bool {
        self.pools
            .get(&tenant)
            .is_some_and(|pool| lock(&pool.inner).waiting_since.is_some())
    }

    pub(crate) fn idle(&mut self, tenant: Tenant) -> usize {
        self.pool(tenant).idle()
    }

    pub(crate) fn anybody_waits(&self) -> bool {
        self.pools.keys().any(|&tenant| self.is_waiting(tenant))
    }

    pub(crate) fn connects(&self) -> usize {
        lock(&self.wire.connects).len()
    }

    pub(crate) fn connects_begun(&self) -> u64 {
        self.wire.connects_begun.load(Ordering::Relaxed)
    }

    pub(crate) fn checked_out(&self) -> usize {
        self.checked_out.len()
    }

    /// Whose connections callers have, in the order in which they got them.
    pub(crate) fn checked_out_by(&self) -> Vec<Tenant> {
        self.checked_out.iter().map(|conn| conn.pool.tenant).collect()
    }

    /// Their numbers, in the same order.
    pub(crate) fn checked_out_numbers(&self) -> Vec<u64> {
        self.checked_out.iter().map(|conn| conn.number).collect()
    }

    /// Whose connects are under way, in the order in which they began.
    pub(crate) fn connecting_for(&self) -> Vec<Tenant> {
        let connects = lock(&self.wire.connects);
        connects.iter().map(|(pool, _)| pool.tenant).collect()
    }

    pub(crate) fn stats(&self) -> ArbiterStats {
        self.arbiter.stats()
    }

    /// Backends that exist, whose handles are gone.
    pub(crate) fn closings(&self) -> usize {
        let ended = lock(&self.wire.ended);
        ended
            .iter()
            .filter(|number| self.backends.contains_key(number))
            .count()
    }

    /// Checks that the arbiter's figures are what exists.
    ///
    /// # Panics
    /// They are not.
    pub(crate) fn check(&self) {
        let stats = self.stats();
        let connecting = self.connecting_for();
        assert_eq!(
            stats.taken,
            connecting.len() + self.backends.len(),
            "slots out: {stats:?}"
        );
        assert_eq!(stats.connecting, connecting.len(), "connecting: {stats:?}");
        assert_eq!(stats.closing, self.closings(), "closing: {stats:?}");
        assert!(stats.taken <= self.rules.budget, "over the budget: {stats:?}");
        assert!(
            connecting.len() <= self.rules.connects_max,
            "connects at once: {stats:?}"
        );
        let mut held = 0;
        for &tenant in self.pools.keys() {
            let slots = self.arbiter.held(tenant);
            held += slots;
            assert!(slots <= self.slots_max, "tenant {tenant} has {slots}");
            let connects = connecting.iter().filter(|&&one| one == tenant).count();
            assert!(connects <= 1, "tenant {tenant} makes {connects} connects at once");
        }
        assert!(held <= stats.taken, "held {held}: {stats:?}");
    }

    /// Ends everything, in the order that `first_slots` says, and checks that the arbiter is like new.
    pub(crate) fn end_all(&mut self, first_slots: bool) {
        self.closed = None;
        let tenants: Vec<Tenant> = self.pools.keys().copied().collect();
        let pools: Vec<Arc<Pool>> = self.pools.values().map(Arc::clone).collect();
        if first_slots {
            self.backends.clear();
        }
        for tenant in tenants {
            self.close_pool(tenant);
        }
        self.checked_out.clear();
        lock(&self.wire.connects).clear();
        self.backends.clear();
        self.arbiter.set_predecessors(0);
        self.check();
        let stats = self.stats();
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
        self.closed = None;
        for pool in pools {
            assert_eq!(Arc::strong_count(&pool), 1, "the arbiter remembers a closed pool");
        }
    }
}
