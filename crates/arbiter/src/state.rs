//! The state of one server's arbiter and every decision about it, without locks, clocks or effects.

use std::{
    collections::{HashMap, VecDeque, hash_map::DefaultHasher},
    hash::BuildHasherDefault,
    time::Duration,
};

use crate::{
    ArbiterStats, ConnectionGuard, FAILURES_MAX, FailureKind, PoolHandle, Refusal, Rules, Timestamp,
    breaker::Breaker, closing::Closing, frequency::FrequencyTracker, sync::Arc, tenant_entry::TenantEntry,
    wait_queue::WaitQueue,
};

/// The iteration order decides between tenants that are otherwise equal. This hasher has no random key, so
/// the order is the same in every run and a failure can be replayed. Tenants' ids come from the registry, not
/// from strangers.
type Entries<P> = HashMap<<P as PoolHandle>::Tenant, TenantEntry<P>, BuildHasherDefault<DefaultHasher>>;

mod dispatch;

pub(crate) struct State<P: PoolHandle> {
    rules: Rules,
    /// Slots that are out: connects under way, open connections, and closing connections.
    taken: usize,
    connecting: usize,
    closing: usize,
    /// When each connection began to close whose slot is expected back any moment.
    closing_soon: VecDeque<Timestamp>,
    /// Connections that an earlier process's backends still occupy.
    predecessors: usize,
    entries: Entries<P>,
    queue: WaitQueue<P::Tenant>,
    tracker: FrequencyTracker<P::Tenant>,
    breaker: Breaker,
    /// Whether the last failure was silence, and the server answered on no other connection either.
    silence: bool,
    /// When the last of the failures in a row occurred.
    failed_at: Option<Timestamp>,
    /// The pool whose log-in tests whether a server that was down is back.
    probe: Option<Arc<P>>,
    contended: bool,
    /// When a scan found no idle connection to take, and how many connections the claimant of that scan had.
    fruitless_scan: Option<(Timestamp, usize)>,
    ticks: bool,
    taken_idle_total: u64,
    yields_total: u64,
    refused_total: u64,
}

/// What the arbiter does once it has released the lock.
pub(crate) enum Action<P: PoolHandle> {
    Connect(Arc<P>),
    Close(P::Idle),
    Refuse(Arc<P>, Refusal),
}

impl<P: PoolHandle> State<P> {
    pub(crate) fn new(rules: Rules) -> Self {
        let uses = rules.ageing_uses.saturating_mul(rules.budget as u64);
        Self {
            rules: Rules {
                budget: rules.budget.max(1),
                connects_max: rules.connects_max.max(1),
                ..rules
            },
            taken: 0,
            connecting: 0,
            closing: 0,
            closing_soon: VecDeque::new(),
            predecessors: 0,
            entries: Entries::<P>::default(),
            queue: WaitQueue::new(),
            tracker: FrequencyTracker::new(uses, rules.memory.saturating_mul(rules.budget)),
            breaker: Breaker::default(),
            silence: false,
            failed_at: None,
            probe: None,
            contended: false,
            fruitless_scan: None,
            ticks: false,
            taken_idle_total: 0,
            yields_total: 0,
            refused_total: 0,
        }
    }

    pub(crate) fn request_slot(
        &mut self,
        pool: &Arc<P>,
        now: Timestamp,
        actions: &mut Vec<Action<P>>,
    ) -> Result<(), Refusal> {
        if self.breaker.is_open() {
            self.refused_total += 1;
            if !pool.is_closed() {
                // A tenant whose own log-ins hang is no good probe: it finds out nothing about the server.
                let entry = self.entries.get(&pool.tenant());
                if self.probe.is_none() || entry.is_none_or(|entry| entry.stuck < FAILURES_MAX as usize) {
                    self.probe = Some(Arc::clone(pool));
                }
                self.ticks = true;
            }
            return Err(self.refusal(now));
        }
        if pool.is_closed() {
            return Ok(());
        }
        let tenant = pool.tenant();
        self.open_entry(pool);
        self.enqueue(tenant);
        self.dispatch(now, actions);
        self.forget_if_empty(tenant);
        Ok(())
    }

    pub(crate) fn connected(
        &mut self,
        tenant: P::Tenant,
        closing: &Closing,
        now: Timestamp,
        actions: &mut Vec<Action<P>>,
    ) {
        self.connecting -= 1;
        let mut unused = closing.began().is_some();
        if let Some(entry) = self.entries.get_mut(&tenant) {
            entry.grown_at = now;
            unused |= entry.connect_ended();
        }
        // Otherwise the pool that takes the connection requests another slot if its callers need one.
        if unused {
            self.enqueue(tenant);
        }
        self.note_server_up();
        self.dispatch(now, actions);
    }

    pub(crate) fn connect_failed(
        &mut self,
        tenant: P::Tenant,
        closing: &Closing,
        kind: FailureKind,
        now: Timestamp,
        jitter: u32,
        actions: &mut Vec<Action<P>>,
    ) {
        self.begin_closing(tenant, closing, now);
        self.connecting -= 1;
        let for_closed_pool = self.entries.get_mut(&tenant).is_some_and(|entry| {
            entry.held -= 1;
            entry.closing -= 1;
            entry.stuck += 1;
            entry.connect_ended()
        });
        // The tenant tries again before the backend is gone, which takes long if the server is silent. It
        // does not retry what would fail again: in that case the pool is just telling its callers.
        if for_closed_pool || !matches!(kind, FailureKind::Refused | FailureKind::NotTried) {
            self.enqueue(tenant);
        }
        if kind == FailureKind::NotTried && self.probe.as_ref().is_some_and(|probe| probe.tenant() == tenant)
        {
            self.probe = None;
        }
        self.note_failure(kind, now, jitter, actions);
    }

    pub(crate) fn note_failure(
        &mut self,
        kind: FailureKind,
        now: Timestamp,
        jitter: u32,
        actions: &mut Vec<Action<P>>,
    ) {
        match kind {
            FailureKind::Silent | FailureKind::Unreachable => {
                let since = self.failed_at.replace(now).unwrap_or(now);
                self.silence = kind == FailureKind::Silent && !self.has_answered_since(since);
                if self.breaker.failed(now, jitter) {
                    self.refuse_waiting(now, actions);
                }
            }
            FailureKind::Full => {
                self.note_server_up();
                self.breaker.server_full(now, jitter);
            }
            FailureKind::Refused => self.note_server_up(),
            FailureKind::NotTried => {}
            FailureKind::Lost => self.breaker.outcome_unknown(now),
        }
        self.dispatch(now, actions);
    }

    /// The server has answered on a connection while it counted as silent. Whether it accepts new connections
    /// is for a probe to find out.
    pub(crate) fn answered(&mut self) {
        self.silence = false;
    }

    fn has_answered_since(&self, since: Timestamp) -> bool {
        let mut pools = self.entries.values().filter_map(|entry| entry.pool.as_ref());
        pools.any(|pool| pool.last_answered() > since)
    }

    fn note_server_up(&mut self) {
        let was_open = self.breaker.is_open();
        self.breaker.succeeded();
        self.silence = false;
        self.failed_at = None;
        self.probe = None;
        if was_open {
            // Some callers kept waiting for a connection of their tenant that was checked out.
            for tenant in self.entries.keys().copied().collect::<Vec<_>>() {
                self.enqueue(tenant);
            }
        }
    }

    /// Counts a connection of the tenant as closing. Returns false if it was counted before.
    fn begin_closing(&mut self, tenant: P::Tenant, closing: &Closing, now: Timestamp) -> bool {
        let newly = closing.begin(now);
        if newly {
            self.closing += 1;
            self.closing_soon.push_back(now);
            if let Some(entry) = self.entries.get_mut(&tenant) {
                entry.closing += 1;
            }
            self.update_ticket(tenant);
            // From now on the tenant's callers wait for another connection, and not until this backend is
            // gone.
            self.enqueue(tenant);
        }
        newly
    }

    pub(crate) fn handle_dropped(
        &mut self,
        tenant: P::Tenant,
        closing: &Closing,
        now: Timestamp,
        actions: &mut Vec<Action<P>>,
    ) {
        if self.begin_closing(tenant, closing, now) {
            self.dispatch(now, actions);
        }
    }

    pub(crate) fn slot_released(
        &mut self,
        tenant: P::Tenant,
        failed: bool,
        closing: &Closing,
        now: Timestamp,
        actions: &mut Vec<Action<P>>,
    ) {
        let began = closing.began();
        if let Some(began) = began {
            let expected = self.closing_soon.iter().position(|&one| one == began);
            expected.and_then(|index| self.closing_soon.remove(index));
        }
        // From now on the connection's guard reports nothing.
        closing.begin(now);
        let was_closing = usize::from(began.is_some());
        self.taken -= 1;
        self.closing -= was_closing;
        match self.entries.get_mut(&tenant) {
            Some(entry) if failed => entry.stuck -= 1,
            Some(entry) => {
                entry.held -= 1;
                entry.closing -= was_closing;
            }
            None => {}
        }
        self.update_ticket(tenant);
        self.enqueue(tenant);
        self.forget_if_empty(tenant);
        self.dispatch(now, actions);
    }

    pub(crate) fn remove_pool(&mut self, pool: &Arc<P>, now: Timestamp, actions: &mut Vec<Action<P>>) {
        let tenant = pool.tenant();
        if self.probe.as_ref().is_some_and(|probe| Arc::ptr_eq(probe, pool)) {
            self.probe = None;
        }
        let Some(entry) = self.entries.get_mut(&tenant) else {
            return;
        };
        if !entry.is_open_pool(pool) {
            return;
        }
        self.tracker.read(&mut entry.frequency, pool.uses());
        entry.pool = None;
        entry.connecting_for_closed_pool = entry.connecting > 0;
        self.dequeue(tenant);
        self.dispatch(now, actions);
    }

    pub(crate) fn set_predecessors(
        &mut self,
        predecessors: usize,
        now: Timestamp,
        actions: &mut Vec<Action<P>>,
    ) {
        self.predecessors = predecessors;
        self.dispatch(now, actions);
    }

    /// Whether a connection whose tenure is over goes to another tenant. If so, it counts as closing from now
    /// on.
    pub(crate) fn should_yield(
        &mut self,
        guard: &ConnectionGuard<P::Tenant>,
        tenant: P::Tenant,
        now: Timestamp,
    ) -> bool {
        let Some(next) = self.next_claimant(now) else {
            self.contended = false;
            return false;
        };
        let live = self.entries.get(&tenant).map_or(0, TenantEntry::live);
        let claimant = self.claimant(Some(next), now);
        let given_up = next != tenant
            && claimant.may_preempt_busy(live)
            && self.begin_closing(tenant, guard.closing(), now);
        self.yields_total += u64::from(given_up);
        given_up
    }

    /// Repeats every check whose outcome time alone may have changed. Returns whether to repeat them soon.
    pub(crate) fn tick(&mut self, now: Timestamp, actions: &mut Vec<Action<P>>) -> bool {
        self.fruitless_scan = None;
        self.dispatch(now, actions);
        self.ticks
    }

    /// The tenant's entry, with `pool` as its open pool.
    fn open_entry(&mut self, pool: &Arc<P>) -> &mut TenantEntry<P> {
        let (tenant, tracker) = (pool.tenant(), &mut self.tracker);
        let entry = self
            .entries
            .entry(tenant)
            .or_insert_with(|| TenantEntry::new(tracker.recall(&tenant, pool.uses())));
        if !entry.is_open_pool(pool) {
            entry.frequency.restart(pool.uses());
            entry.pool = Some(Arc::clone(pool));
        }
        entry
    }

    /// Adds the tenant to the queue if it needs another connection.
    fn enqueue(&mut self, tenant: P::Tenant) {
        if let Some(entry) = self.entries.get_mut(&tenant)
            && entry.needs_ticket()
        {
            entry.ticket = Some(self.queue.push(entry.live(), tenant));
        }
    }

    /// Moves the tenant in the queue after the number of its connections has changed.
    fn update_ticket(&mut self, tenant: P::Tenant) {
        if let Some(entry) = self.entries.get_mut(&tenant) {
            let live = entry.live();
            if let Some(ticket) = &mut entry.ticket {
                self.queue.reposition(ticket, live);
            }
        }
    }

    fn dequeue(&mut self, tenant: P::Tenant) {
        if let Some(entry) = self.entries.get_mut(&tenant)
            && let Some(ticket) = entry.ticket.take()
        {
            self.queue.remove(ticket);
        }
        self.forget_if_empty(tenant);
    }

    fn forget_if_empty(&mut self, tenant: P::Tenant) {
        if self.entries.get(&tenant).is_some_and(TenantEntry::is_empty)
            && let Some(mut entry) = self.entries.remove(&tenant)
        {
            if let Some(pool) = &entry.pool {
                self.tracker.read(&mut entry.frequency, pool.uses());
            }
            self.tracker.remember(tenant, entry.frequency);
        }
    }

    /// Tells all waiting callers that the server is down, also those whose tenant's connect has just failed
    /// and which is therefore not in the queue.
    fn refuse_waiting(&mut self, now: Timestamp, actions: &mut Vec<Action<P>>) {
        let refusal = self.refusal(now);
        for pool in self.entries.values().filter_map(|entry| entry.pool.as_ref()) {
            if pool.waiting_since().is_some() {
                self.probe = Some(Arc::clone(pool));
                actions.push(Action::Refuse(Arc::clone(pool), refusal));
            }
        }
        for tenant in self.queue.iter().collect::<Vec<_>>() {
            self.dequeue(tenant);
        }
    }

    fn refusal(&self, now: Timestamp) -> Refusal {
        let retry_after = self.breaker.not_before().since(now);
        Refusal {
            retry_after: retry_after.max(Duration::from_millis(1)),
        }
    }

    pub(crate) fn is_contended(&self) -> bool {
        self.contended
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silence && self.breaker.is_open()
    }

    /// Whether time alone may change something.
    pub(crate) fn ticks(&self) -> bool {
        self.ticks
    }

    pub(crate) fn held(&self, tenant: P::Tenant) -> usize {
        self.entries.get(&tenant).map_or(0, |entry| entry.held)
    }

    pub(crate) fn pools(&self) -> impl Iterator<Item = &Arc<P>> {
        let holding = self.entries.values().filter(|entry| entry.held > 0);
        holding.filter_map(|entry| entry.pool.as_ref())
    }

    pub(crate) fn stats(&self) -> ArbiterStats {
        ArbiterStats {
            budget: self.rules.budget,
            taken: self.taken,
            connecting: self.connecting,
            closing: self.closing,
            predecessors: self.predecessors,
            tenants_waiting: self.queue.len(),
            breaker_open: self.breaker.is_open(),
            taken_idle_total: self.taken_idle_total,
            yields_total: self.yields_total,
            refused_total: self.refused_total,
        }
    }
}
