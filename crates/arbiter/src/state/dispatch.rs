//! Grants free slots to waiting tenants, and takes connections from other tenants for them.

use std::time::Duration;

use crate::{
    PoolHandle, Timestamp,
    preemption::{Claimant, EvictionCost, Victim},
    state::{Action, State},
    sync::Arc,
    tenant_entry::TenantEntry,
};

/// How long a backend usually takes at most to exit once its connection closes. If one takes longer (its
/// statement ignores the cancellation, its socket gets no answer), the arbiter stops waiting for its slot and
/// frees another one.
const CLOSES_WITHIN: Duration = Duration::from_millis(50);

/// For each so many slots of the budget, the arbiter closes one more idle connection ahead of its use. With
/// fewer slots, the closed connection would be missed.
const SLOTS_FOR_ONE_AHEAD: usize = 32;

/// After a scan of all tenants finds no idle connection, the next scan waits so long, however many callers
/// come. A connection that is given back meanwhile goes through `should_yield`, and the next tick scans
/// again.
const LOOKS_AGAIN: Duration = Duration::from_micros(500);

impl<P: PoolHandle> State<P> {
    /// Serves the queue as far as possible: from free slots first, then from idle connections.
    pub(super) fn dispatch(&mut self, now: Timestamp, actions: &mut Vec<Action<P>>) {
        self.contended = false;
        self.ticks = false;
        while self
            .closing_soon
            .front()
            .is_some_and(|&began| began + CLOSES_WITHIN <= now)
        {
            self.closing_soon.pop_front();
        }
        if self.breaker.is_open() {
            self.dispatch_probe(now, actions);
            return;
        }
        loop {
            let free = self.free() > 0;
            if free && self.connecting >= self.rules.connects_max {
                return;
            }
            let next = if free {
                self.next(0, |_| true)
            } else {
                self.next_claimant(now)
            };
            // The tenants that are left may be served in a while: with a further connection, or instead of a
            // backend that does not exit.
            self.ticks = !self.queue.is_empty();
            let Some(next) = next else { return };
            if !self.breaker.admits(now, self.connecting) {
                return;
            }
            if free {
                self.grant(next, actions);
                continue;
            }
            let Some(idle) = self.take_idle(Some(next), now) else {
                self.contended = true;
                return;
            };
            actions.push(Action::Close(idle));
        }
    }

    /// While the breaker is open: one connect at a time, for the tenant that asked last.
    fn dispatch_probe(&mut self, now: Timestamp, actions: &mut Vec<Action<P>>) {
        let Some(pool) = self.probe.clone() else { return };
        self.ticks = true;
        if !self.breaker.admits(now, self.connecting) {
            return;
        }
        let tenant = pool.tenant();
        let entry = self.open_entry(&pool);
        let (full, closing) = (entry.held >= pool.slots_max(), entry.closing > 0);
        let room = self.free() > 0;
        if room && !full {
            self.grant(tenant, actions);
        } else if full && !closing {
            // The tenant has all the connections that it may have. One of them makes room for the probe.
            if let Some(idle) = pool.take_idle() {
                self.taken_idle(tenant, &idle, now);
                actions.push(Action::Close(idle));
            }
        } else if !room
            && self.closing == 0
            && let Some(idle) = self.take_idle(None, now)
        {
            actions.push(Action::Close(idle));
        }
        self.forget_if_empty(tenant);
    }

    fn grant(&mut self, tenant: P::Tenant, actions: &mut Vec<Action<P>>) {
        let Some(entry) = self.entries.get_mut(&tenant) else {
            return;
        };
        if let Some(ticket) = entry.ticket.take() {
            self.queue.remove(ticket);
        }
        let Some(pool) = &entry.pool else { return };
        actions.push(Action::Connect(Arc::clone(pool)));
        entry.held += 1;
        entry.connecting += 1;
        self.taken += 1;
        self.connecting += 1;
    }

    fn free(&self) -> usize {
        self.rules.budget.saturating_sub(self.taken + self.predecessors)
    }

    /// The first tenant in the queue that may take a slot from another tenant, and for which no slot is free
    /// or about to be.
    pub(super) fn next_claimant(&mut self, now: Timestamp) -> Option<P::Tenant> {
        // At most `connects_max` connections close or connect at once; with a large budget a few more, so
        // that a slot is free when a connect is done. If predecessors have the whole budget, closing a
        // connection frees no slot.
        let connects_max = self.rules.connects_max;
        let ahead = connects_max.min(self.rules.budget / SLOTS_FOR_ONE_AHEAD);
        let under_way = self.connecting + self.closing_soon.len();
        if under_way >= connects_max + ahead || self.predecessors >= self.rules.budget {
            return None;
        }
        let staying = self.taken - self.closing_soon.len() + self.predecessors;
        let coming = self.rules.budget.saturating_sub(staying);
        let rules = self.rules;
        self.next(coming, |entry| Claimant::new(&rules, entry, now).may_preempt())
    }

    /// The tenant as a claimant; `None` stands for a tenant without a connection.
    pub(super) fn claimant(&self, tenant: Option<P::Tenant>, now: Timestamp) -> Claimant {
        let entry = tenant.and_then(|tenant| self.entries.get(&tenant));
        entry.map_or(Claimant::FIRST, |entry| Claimant::new(&self.rules, entry, now))
    }

    /// The first tenant in the queue that satisfies `may`, after skipping the first `skip` tenants. Removes
    /// tenants from the queue whose callers have gone.
    fn next(&mut self, skip: usize, may: impl Fn(&TenantEntry<P>) -> bool) -> Option<P::Tenant> {
        let (mut gone, mut found, mut ahead) = (Vec::new(), None, 0);
        for tenant in self.queue.iter() {
            let entry = self.entries.get(&tenant);
            let Some(entry) = entry.filter(|entry| entry.waiting_since().is_some()) else {
                gone.push(tenant);
                continue;
            };
            if ahead >= skip && may(entry) {
                found = Some(tenant);
                break;
            }
            ahead += 1;
        }
        for tenant in gone {
            self.dequeue(tenant);
        }
        found
    }

    /// Takes the idle connection with the least eviction cost out of its pool.
    fn take_idle(&mut self, wanted_by: Option<P::Tenant>, now: Timestamp) -> Option<P::Idle> {
        let claimant = self.claimant(wanted_by, now);
        let too_soon =
            |&(at, live): &(Timestamp, usize)| now.since(at) < LOOKS_AGAIN && claimant.live >= live;
        if self.fruitless_scan.as_ref().is_some_and(too_soon) {
            return None;
        }
        let mut candidates = Vec::new();
        for (&tenant, entry) in &mut self.entries {
            let Some(pool) = &entry.pool else { continue };
            if entry.live() == 0 || Some(tenant) == wanted_by || pool.idle() == 0 {
                continue;
            }
            let victim = Victim {
                live: entry.live(),
                frequency: self.tracker.read(&mut entry.frequency, pool.uses()),
                // A new connection has had no time to be used.
                last_used: pool.last_used().max(entry.grown_at),
                tenure_ends: pool.tenure_ends(),
            };
            if claimant.may_preempt_idle(&self.rules, &victim, now) {
                candidates.push((victim.eviction_cost(&self.rules, now), tenant));
            }
        }
        self.tracker.age();
        // The best candidate is nearly always still there, so sorting them all would be a waste.
        while let Some(best) = position_of_least(&candidates) {
            let tenant = candidates.swap_remove(best).1;
            let entry = self.entries.get(&tenant);
            let pool = entry.and_then(|entry| entry.pool.as_ref());
            if let Some(idle) = pool.and_then(|pool| pool.take_idle()) {
                self.taken_idle(tenant, &idle, now);
                return Some(idle);
            }
        }
        self.fruitless_scan = Some((now, claimant.live));
        None
    }

    fn taken_idle(&mut self, tenant: P::Tenant, idle: &P::Idle, now: Timestamp) {
        let newly = self.begin_closing(tenant, idle.as_ref().closing(), now);
        self.taken_idle_total += u64::from(newly);
    }
}

fn position_of_least<K>(candidates: &[(EvictionCost, K)]) -> Option<usize> {
    (0..candidates.len()).min_by(|&a, &b| candidates[a].0.total_cmp(&candidates[b].0))
}
