//! Who gets what is free, and what is taken for those who wait.

use crate::{
    Micros, Seat,
    account::Account,
    ledger::{Deed, Ledger},
    sync::Arc,
    taking::{Loss, Owner, Taker},
};

/// How long a backend usually takes at most to be gone once its connection ends. One that takes longer (a statement that does
/// not hear of its cancel, a socket without an answer) is waited for no more: its slot comes when it comes, and
/// those who wait get another.
const ENDS_WITHIN: Micros = 50_000;

/// With so many slots one idle connection more may be ended before it can be used: it would be missed, and there are others.
const SLOTS_FOR_ONE_AHEAD: usize = 32;

/// Having looked at every tenant in vain, it is not done again within so long, however many callers come: a connection that
/// is given back meanwhile is seen when it is, and the next tick looks again.
const LOOKS_AGAIN: Micros = 500;

impl<S: Seat> Ledger<S> {
    /// Gives out what can be given: free slots first, then those of idle connections.
    pub(super) fn pump(&mut self, now: Micros, deeds: &mut Vec<Deed<S>>) {
        self.pressed = false;
        self.ticks = false;
        while self.soon.front().is_some_and(|&began| began + ENDS_WITHIN <= now) {
            self.soon.pop_front();
        }
        if self.breaker.is_open() {
            self.pump_probe(now, deeds);
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
                self.next_taker(now)
            };
            // Whoever is left may take in a while: a further connection, or the place of a backend that does not end.
            self.ticks = !self.line.is_empty();
            let Some(next) = next else { return };
            if !self.breaker.admits(now, self.connecting) {
                return;
            }
            if free {
                self.grant(next, deeds);
                continue;
            }
            let Some(idle) = self.take_idle(Some(next), now) else {
                self.pressed = true;
                return;
            };
            deeds.push(Deed::Close(idle));
        }
    }

    /// While the breaker is open: one connect at a time, for whoever asked last.
    fn pump_probe(&mut self, now: Micros, deeds: &mut Vec<Deed<S>>) {
        let Some(seat) = self.probe.clone() else { return };
        self.ticks = true;
        if !self.breaker.admits(now, self.connecting) {
            return;
        }
        let tenant = seat.tenant();
        let account = self.seat(&seat);
        let (full, ending) = (account.held >= seat.slots_max(), account.ending > 0);
        let room = self.free() > 0;
        if room && !full {
            self.grant(tenant, deeds);
        } else if full && !ending {
            // It has all that it may have, and nothing is known of any: one of them makes way.
            if let Some(idle) = seat.take_idle() {
                self.taken_idle(tenant, &idle, now);
                deeds.push(Deed::Close(idle));
            }
        } else if !room
            && self.ending == 0
            && let Some(idle) = self.take_idle(None, now)
        {
            deeds.push(Deed::Close(idle));
        }
        self.forget_if_empty(tenant);
    }

    fn grant(&mut self, tenant: S::Tenant, deeds: &mut Vec<Deed<S>>) {
        let Some(account) = self.accounts.get_mut(&tenant) else {
            return;
        };
        if let Some(place) = account.place.take() {
            self.line.leave(place);
        }
        let Some(seat) = &account.seat else { return };
        deeds.push(Deed::Connect(Arc::clone(seat)));
        account.held += 1;
        account.connecting += 1;
        self.taken += 1;
        self.connecting += 1;
    }

    fn free(&self) -> usize {
        self.rules.budget.saturating_sub(self.taken + self.others)
    }

    /// The first in the line who may take a slot from another tenant, and for whom none is free or about to be.
    pub(super) fn next_taker(&mut self, now: Micros) -> Option<S::Tenant> {
        // As many end or connect at once as may connect, and with a large budget a few more, so that a slot is free when a connect
        // is done. And where others have the whole budget it would be for nothing.
        let connects_max = self.rules.connects_max;
        let ahead = connects_max.min(self.rules.budget / SLOTS_FOR_ONE_AHEAD);
        let under_way = self.connecting + self.soon.len();
        if under_way >= connects_max + ahead || self.others >= self.rules.budget {
            return None;
        }
        let staying = self.taken - self.soon.len() + self.others;
        let coming = self.rules.budget.saturating_sub(staying);
        let rules = self.rules;
        self.next(coming, |account| Taker::new(&rules, account, now).may_take())
    }

    /// The tenant as one that takes; none: one without a connection.
    pub(super) fn taker(&self, tenant: Option<S::Tenant>, now: Micros) -> Taker {
        let account = tenant.and_then(|tenant| self.accounts.get(&tenant));
        account.map_or(Taker::FIRST, |account| Taker::new(&self.rules, account, now))
    }

    /// The first in the line for whom `may` holds, but for the first few. Those whose callers have gone lose their place.
    fn next(&mut self, skip: usize, may: impl Fn(&Account<S>) -> bool) -> Option<S::Tenant> {
        let (mut gone, mut found, mut ahead) = (Vec::new(), None, 0);
        for tenant in self.line.iter() {
            let account = self.accounts.get(&tenant);
            let Some(account) = account.filter(|account| account.waiting_since().is_some()) else {
                gone.push(tenant);
                continue;
            };
            if ahead >= skip && may(account) {
                found = Some(tenant);
                break;
            }
            ahead += 1;
        }
        for tenant in gone {
            self.leave_line(tenant);
        }
        found
    }

    /// The idle connection that will be missed least, taken out of its pool.
    fn take_idle(&mut self, wanted_by: Option<S::Tenant>, now: Micros) -> Option<S::Idle> {
        let taker = self.taker(wanted_by, now);
        let in_vain =
            |&(at, live): &(Micros, usize)| now.saturating_sub(at) < LOOKS_AGAIN && taker.live >= live;
        if self.barren.as_ref().is_some_and(in_vain) {
            return None;
        }
        let mut candidates = Vec::new();
        for (&tenant, account) in &mut self.accounts {
            let Some(seat) = &account.seat else { continue };
            if account.live() == 0 || Some(tenant) == wanted_by || seat.idle() == 0 {
                continue;
            }
            let owner = Owner {
                live: account.live(),
                heat: self.climate.read(&mut account.heat, seat.uses()),
                // One that has just come has had no time to be used.
                last_used: seat.last_used().max(account.grown_at),
                tenure_ends: seat.tenure_ends(),
            };
            if taker.may_take_idle(&self.rules, &owner, now) {
                candidates.push((owner.loss(&self.rules, now), tenant));
            }
        }
        self.climate.age();
        // The best is nearly always still there: no need to sort them all.
        while let Some(best) = position_of_least(&candidates) {
            let tenant = candidates.swap_remove(best).1;
            let account = self.accounts.get(&tenant);
            let seat = account.and_then(|account| account.seat.as_ref());
            if let Some(idle) = seat.and_then(|seat| seat.take_idle()) {
                self.taken_idle(tenant, &idle, now);
                return Some(idle);
            }
        }
        self.barren = Some((now, taker.live));
        None
    }

    fn taken_idle(&mut self, tenant: S::Tenant, idle: &S::Idle, now: Micros) {
        let newly = self.ending(tenant, idle.as_ref().end(), now);
        self.taken_idle_total += u64::from(newly);
    }
}

fn position_of_least<K>(candidates: &[(Loss, K)]) -> Option<usize> {
    (0..candidates.len()).min_by(|&a, &b| candidates[a].0.total_cmp(&candidates[b].0))
}
