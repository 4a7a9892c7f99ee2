//! Who gets what is free, and what is taken for those who wait.

use std::time::Duration;

use crate::{
    PoolHandle, Timestamp,
    preemption::{Claimant, EvictionCost, Victim},
    state::{Action, State},
    sync::Arc,
    tenant_entry::TenantEntry,
};

/// How long a backend usually takes at most to be gone once its connection ends. One that takes longer (a statement that does
/// not hear of its cancel, a socket without an answer) is waited for no more: its slot comes when it comes, and
/// those who wait get another.
const CLOSES_WITHIN: Duration = Duration::from_millis(50);

/// With so many slots one idle connection more may be ended before it can be used: it would be missed, and there are predecessors.
const SLOTS_FOR_ONE_AHEAD: usize = 32;

/// Having looked at every tenant in vain, it is not done again within so long, however many callers come: a connection that
/// is given back meanwhile is seen when it is, and the next tick looks again.
const LOOKS_AGAIN: Duration = Duration::from_micros(500);

impl<P: PoolHandle> State<P> {
    /// Gives out what can be given: free slots first, then those of idle connections.
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
            // Whoever is left may take in a while: a further connection, or the place of a backend that does not end.
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

    /// While the breaker is open: one connect at a time, for whoever asked last.
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
            // It has all that it may have, and nothing is known of any: one of them makes way.
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

    /// The first in the line who may take a slot from another tenant, and for whom none is free or about to be.
    pub(super) fn next_claimant(&mut self, now: Timestamp) -> Option<P::Tenant> {
        // As many end or connect at once as may connect, and with a large budget a few more, so that a slot is free when a connect
        // is done. And where others have the whole budget it would be for nothing.
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

    /// The tenant as one that takes; none: one without a connection.
    pub(super) fn claimant(&self, tenant: Option<P::Tenant>, now: Timestamp) -> Claimant {
        let entry = tenant.and_then(|tenant| self.entries.get(&tenant));
        entry.map_or(Claimant::FIRST, |entry| Claimant::new(&self.rules, entry, now))
    }

    /// The first in the line for whom `may` holds, but for the first few. Those whose callers have gone lose their place.
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

    /// The idle connection that will be missed least, taken out of its pool.
    fn take_idle(&mut self, wanted_by: Option<P::Tenant>, now: Timestamp) -> Option<P::Idle> {
        let claimant = self.claimant(wanted_by, now);
        let in_vain = |&(at, live): &(Timestamp, usize)| now.since(at) < LOOKS_AGAIN && claimant.live >= live;
        if self.fruitless_scan.as_ref().is_some_and(in_vain) {
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
                // One that has just come has had no time to be used.
                last_used: pool.last_used().max(entry.grown_at),
                tenure_ends: pool.tenure_ends(),
            };
            if claimant.may_preempt_idle(&self.rules, &victim, now) {
                candidates.push((victim.eviction_cost(&self.rules, now), tenant));
            }
        }
        self.tracker.age();
        // The best is nearly always still there: no need to sort them all.
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
