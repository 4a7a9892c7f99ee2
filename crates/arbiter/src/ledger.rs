//! The state of one server's arbiter and every decision about it, without locks, clocks or effects.

use std::collections::{BTreeMap, HashMap};

use crate::{
    Hold, Micros, Refusal, Rules, Seat, Standing, Verdict,
    breaker::Breaker,
    heat::{Climate, Heat},
    sync::Arc,
};

pub(crate) struct Ledger<S: Seat> {
    rules: Rules,
    /// Slots out: connects under way, open connections, and those that are ending.
    taken: usize,
    connecting: usize,
    ending: usize,
    /// Slots that an earlier process's backends still occupy.
    others: usize,
    /// Tenants that hold a slot or stand in the line.
    accounts: HashMap<S::Tenant, Account<S>>,
    line: BTreeMap<Place, S::Tenant>,
    turns: u64,
    climate: Climate<S::Tenant>,
    breaker: Breaker,
    /// Whether the last failure was silence.
    silence: bool,
    /// Whose log-in is used to find out whether a server that was down is back.
    probe: Option<Arc<S>>,
    pressed: bool,
    ticks: bool,
    taken_idle_total: u64,
    yields_total: u64,
    refused_total: u64,
}

struct Account<S> {
    /// The pool that is open now, if any; connections of closed ones count all the same.
    seat: Option<Arc<S>>,
    held: usize,
    connecting: usize,
    ending: usize,
    /// When its latest connection came.
    grown_at: Micros,
    place: Option<Place>,
    heat: Heat,
}

/// A place in the line: fewest connections first, then who came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    live: usize,
    turn: u64,
}

/// What is to be done once the lock is free.
pub(crate) enum Deed<S: Seat> {
    Connect(Arc<S>),
    Close(S::Idle),
    Refuse(Arc<S>, Refusal),
}

impl<S> Account<S> {
    /// Connections that are not about to end.
    fn live(&self) -> usize {
        self.held - self.ending
    }
}

impl<S: Seat> Ledger<S> {
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
            ending: 0,
            others: 0,
            accounts: HashMap::new(),
            line: BTreeMap::new(),
            turns: 0,
            climate: Climate::new(uses, rules.memory.saturating_mul(rules.budget)),
            breaker: Breaker::default(),
            silence: false,
            probe: None,
            pressed: false,
            ticks: false,
            taken_idle_total: 0,
            yields_total: 0,
            refused_total: 0,
        }
    }

    pub(crate) fn want(
        &mut self,
        seat: &Arc<S>,
        now: Micros,
        deeds: &mut Vec<Deed<S>>,
    ) -> Result<(), Refusal> {
        if self.breaker.is_open() {
            self.refused_total += 1;
            self.probe = Some(Arc::clone(seat));
            self.ticks = true;
            return Err(self.refusal(now));
        }
        let tenant = seat.tenant();
        let climate = &mut self.climate;
        let account = self.accounts.entry(tenant).or_insert_with(|| Account {
            seat: None,
            held: 0,
            connecting: 0,
            ending: 0,
            grown_at: 0,
            place: None,
            heat: climate.recall(&tenant, seat.uses()),
        });
        if account
            .seat
            .as_ref()
            .is_none_or(|known| !Arc::ptr_eq(known, seat))
        {
            account.heat.restart(seat.uses());
            account.seat = Some(Arc::clone(seat));
        }
        self.line_up(tenant);
        self.pump(now, deeds);
        Ok(())
    }

    pub(crate) fn connected(&mut self, tenant: S::Tenant, now: Micros, deeds: &mut Vec<Deed<S>>) {
        self.connecting -= 1;
        if let Some(account) = self.accounts.get_mut(&tenant) {
            account.connecting -= 1;
            account.grown_at = now;
        }
        self.breaker.succeeded();
        self.silence = false;
        self.probe = None;
        self.pump(now, deeds);
    }

    /// Books a connect that failed; what it says about the server comes as a [`Ledger::verdict`].
    pub(crate) fn failed(&mut self, tenant: S::Tenant, newly_ending: bool) {
        self.connecting -= 1;
        if let Some(account) = self.accounts.get_mut(&tenant) {
            account.connecting -= 1;
        }
        if newly_ending {
            self.ending(tenant);
        }
    }

    pub(crate) fn verdict(&mut self, verdict: Verdict, now: Micros, jitter: u64, deeds: &mut Vec<Deed<S>>) {
        let opened = match verdict {
            Verdict::Silent | Verdict::Unreachable => {
                self.silence = verdict == Verdict::Silent;
                self.breaker.failed(now, jitter)
            }
            Verdict::Full => {
                self.breaker.pause(now, jitter);
                false
            }
            Verdict::NotItsFault => {
                self.breaker.succeeded();
                self.silence = false;
                false
            }
        };
        if opened {
            self.send_home(now, deeds);
        }
        self.pump(now, deeds);
    }

    /// A connection has answered while the server was thought silent.
    pub(crate) fn answered(&mut self, now: Micros, deeds: &mut Vec<Deed<S>>) {
        if self.silence {
            self.breaker.succeeded();
            self.silence = false;
            self.pump(now, deeds);
        }
    }

    /// A connection of the tenant is about to end.
    pub(crate) fn ending(&mut self, tenant: S::Tenant) {
        self.ending += 1;
        if let Some(account) = self.accounts.get_mut(&tenant) {
            account.ending += 1;
        }
        self.keep_place(tenant);
    }

    pub(crate) fn released(
        &mut self,
        tenant: S::Tenant,
        connecting: bool,
        was_ending: bool,
        now: Micros,
        deeds: &mut Vec<Deed<S>>,
    ) {
        self.taken -= 1;
        self.connecting -= usize::from(connecting);
        self.ending -= usize::from(was_ending);
        if connecting {
            // Given up without a verdict, by a task that was ended.
            self.breaker.abandoned();
        }
        if let Some(account) = self.accounts.get_mut(&tenant) {
            account.held -= 1;
            account.connecting -= usize::from(connecting);
            account.ending -= usize::from(was_ending);
        }
        self.keep_place(tenant);
        self.line_up(tenant);
        self.forget_if_empty(tenant);
        self.pump(now, deeds);
    }

    pub(crate) fn leave(&mut self, seat: &Arc<S>, now: Micros, deeds: &mut Vec<Deed<S>>) {
        let tenant = seat.tenant();
        let is_seat = |known: &Option<Arc<S>>| known.as_ref().is_some_and(|known| Arc::ptr_eq(known, seat));
        if is_seat(&self.probe) {
            self.probe = None;
        }
        let Some(account) = self.accounts.get_mut(&tenant) else {
            return;
        };
        if !is_seat(&account.seat) {
            return;
        }
        self.climate.read(&mut account.heat, seat.uses());
        account.seat = None;
        if let Some(place) = account.place.take() {
            self.line.remove(&place);
        }
        self.forget_if_empty(tenant);
        self.pump(now, deeds);
    }

    pub(crate) fn set_others(&mut self, others: usize, now: Micros, deeds: &mut Vec<Deed<S>>) {
        self.others = others;
        self.pump(now, deeds);
    }

    /// Whether a connection past its tenure goes to somebody who waits.
    pub(crate) fn yields(&mut self, hold: &Hold<S>, tenant: S::Tenant, now: Micros) -> bool {
        let Some(next) = self.next_without_slot() else {
            self.pressed = false;
            return false;
        };
        let live = |tenant| self.accounts.get(&tenant).map_or(0, Account::live);
        // To a tenant that has as many it would be no fairer than before.
        let fairer = next != tenant && live(next) < live(tenant);
        if !fairer || !self.may_take(next, now) || !hold.end() {
            return false;
        }
        self.yields_total += 1;
        self.ending(tenant);
        true
    }

    /// Gives out what can be given: free slots first, then those of idle connections.
    pub(crate) fn pump(&mut self, now: Micros, deeds: &mut Vec<Deed<S>>) {
        self.pressed = false;
        self.ticks = false;
        if self.breaker.is_open() {
            self.pump_probe(now, deeds);
            return;
        }
        while self.connecting < self.rules.connects_max {
            let free = self.free();
            let next = if free > 0 {
                self.waiting_at(0)
            } else {
                self.next_without_slot()
            };
            let Some(next) = next else { return };
            if !self.breaker.admits(now) {
                self.ticks = true;
                return;
            }
            if free > 0 {
                self.grant(next, deeds);
                continue;
            }
            self.ticks = true;
            if !self.may_take(next, now) {
                return;
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
        let Some(seat) = &self.probe else { return };
        self.ticks = true;
        if !self.breaker.admits(now) {
            return;
        }
        if self.free() > 0 {
            let tenant = seat.tenant();
            let seat = Arc::clone(seat);
            let account = self.accounts.entry(tenant).or_insert_with(|| Account {
                seat: None,
                held: 0,
                connecting: 0,
                ending: 0,
                grown_at: 0,
                place: None,
                heat: Heat::default(),
            });
            account.seat = Some(seat);
            self.breaker.began();
            self.grant(tenant, deeds);
        } else if self.ending == 0
            && let Some(idle) = self.take_idle(None, now)
        {
            deeds.push(Deed::Close(idle));
        }
    }

    fn grant(&mut self, tenant: S::Tenant, deeds: &mut Vec<Deed<S>>) {
        let Some(account) = self.accounts.get_mut(&tenant) else {
            return;
        };
        if let Some(place) = account.place.take() {
            self.line.remove(&place);
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

    /// The first in the line for whom no connection is ending yet; none when as many are ending as may connect at once.
    fn next_without_slot(&mut self) -> Option<S::Tenant> {
        (self.connecting + self.ending < self.rules.connects_max)
            .then(|| self.waiting_at(self.ending))
            .flatten()
    }

    /// The tenant at this place of the line. Those whose callers have gone in the meantime lose theirs.
    fn waiting_at(&mut self, index: usize) -> Option<S::Tenant> {
        loop {
            let (&place, &tenant) = self.line.iter().nth(index)?;
            let mut gone = None;
            for (&place, tenant) in self.line.iter().take(index + 1) {
                let account = self.accounts.get(tenant);
                let seat = account.and_then(|account| account.seat.as_ref());
                if seat.is_none_or(|seat| seat.waiting_since().is_none()) {
                    gone = Some((place, *tenant));
                    break;
                }
            }
            match gone {
                None => {
                    debug_assert!(self.line.contains_key(&place));
                    return Some(tenant);
                }
                Some((place, tenant)) => {
                    self.line.remove(&place);
                    if let Some(account) = self.accounts.get_mut(&tenant) {
                        account.place = None;
                    }
                    self.forget_if_empty(tenant);
                }
            }
        }
    }

    /// Whether the tenant may take a slot from another: at once for its first connection, after a while for a further one.
    fn may_take(&self, tenant: S::Tenant, now: Micros) -> bool {
        let Some(account) = self.accounts.get(&tenant) else {
            return false;
        };
        let since = account.seat.as_ref().and_then(|seat| seat.waiting_since());
        // A connection that has just come has not had the time to serve those who wait.
        let waited = |since: Micros| now.saturating_sub(since.max(account.grown_at));
        account.live() == 0 || since.is_some_and(|since| waited(since) >= self.rules.grow_after)
    }

    /// The idle connection that will be missed least, taken out of its pool.
    fn take_idle(&mut self, wanted_by: Option<S::Tenant>, now: Micros) -> Option<S::Idle> {
        let live = wanted_by
            .and_then(|tenant| self.accounts.get(&tenant))
            .map_or(0, Account::live);
        let mut ranked: Vec<_> = Vec::new();
        for (&tenant, account) in &mut self.accounts {
            let Some(seat) = &account.seat else { continue };
            if Some(tenant) == wanted_by || seat.idle() == 0 {
                continue;
            }
            let heat = self.climate.read(&mut account.heat, seat.uses());
            let surplus = account.live() > 1;
            let idle_for = now.saturating_sub(seat.last_used());
            let ripe = if live == 0 || account.live() > live {
                now >= seat.tenure_ends() || idle_for >= self.rules.anticipation
            } else {
                // Somebody's last connection, for somebody who has one: only if it has truly fallen idle.
                idle_for >= self.rules.tenure
            };
            if ripe {
                ranked.push((!surplus, heat, seat.last_used(), tenant));
            }
        }
        // The best is nearly always still there: no need to sort them all.
        while let Some(best) = position_of_least(&ranked) {
            let (.., tenant) = ranked.swap_remove(best);
            let seat = self
                .accounts
                .get(&tenant)
                .and_then(|account| account.seat.as_ref());
            if let Some(idle) = seat.and_then(|seat| seat.take_idle()) {
                self.taken_idle_total += 1;
                if idle.as_ref().end() {
                    self.ending(tenant);
                }
                return Some(idle);
            }
        }
        None
    }

    /// Puts the tenant in the line if it has need of another connection.
    fn line_up(&mut self, tenant: S::Tenant) {
        let Some(account) = self.accounts.get_mut(&tenant) else {
            return;
        };
        let Some(seat) = &account.seat else { return };
        let needs = account.place.is_none()
            && account.connecting == 0
            && account.held < seat.slots_max()
            && seat.waiting_since().is_some();
        if needs {
            self.turns += 1;
            let place = Place {
                live: account.live(),
                turn: self.turns,
            };
            account.place = Some(place);
            self.line.insert(place, tenant);
        }
    }

    /// Moves the tenant in the line when the number of its connections has changed; its turn stays.
    fn keep_place(&mut self, tenant: S::Tenant) {
        let Some(account) = self.accounts.get_mut(&tenant) else {
            return;
        };
        let live = account.live();
        if let Some(place) = &mut account.place
            && place.live != live
        {
            self.line.remove(place);
            place.live = live;
            self.line.insert(*place, tenant);
        }
    }

    fn forget_if_empty(&mut self, tenant: S::Tenant) {
        let empty = |account: &Account<S>| account.held == 0 && account.place.is_none();
        if self.accounts.get(&tenant).is_some_and(empty)
            && let Some(mut account) = self.accounts.remove(&tenant)
        {
            if let Some(seat) = &account.seat {
                self.climate.read(&mut account.heat, seat.uses());
            }
            self.climate.remember(tenant, account.heat);
        }
    }

    /// Everybody in the line hears that the server is down.
    fn send_home(&mut self, now: Micros, deeds: &mut Vec<Deed<S>>) {
        let refusal = self.refusal(now);
        for tenant in std::mem::take(&mut self.line).into_values() {
            let Some(account) = self.accounts.get_mut(&tenant) else {
                continue;
            };
            account.place = None;
            if let Some(seat) = &account.seat {
                self.probe = Some(Arc::clone(seat));
                deeds.push(Deed::Refuse(Arc::clone(seat), refusal));
            }
            self.forget_if_empty(tenant);
        }
        // Those whose connect has just failed stand in no line, and their callers wait all the same.
        for account in self.accounts.values() {
            if let Some(seat) = &account.seat
                && seat.waiting_since().is_some()
            {
                self.probe = Some(Arc::clone(seat));
                deeds.push(Deed::Refuse(Arc::clone(seat), refusal));
            }
        }
    }

    fn refusal(&self, now: Micros) -> Refusal {
        Refusal {
            retry_after: self.breaker.not_before().saturating_sub(now).max(1_000),
        }
    }

    pub(crate) fn is_pressed(&self) -> bool {
        self.pressed
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silence && self.breaker.is_open()
    }

    /// Whether time alone may change something.
    pub(crate) fn ticks(&self) -> bool {
        self.ticks
    }

    pub(crate) fn held(&self, tenant: S::Tenant) -> usize {
        self.accounts.get(&tenant).map_or(0, |account| account.held)
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing {
            budget: self.rules.budget,
            taken: self.taken,
            connecting: self.connecting,
            ending: self.ending,
            others: self.others,
            tenants_waiting: self.line.len(),
            breaker_open: self.breaker.is_open(),
            taken_idle_total: self.taken_idle_total,
            yields_total: self.yields_total,
            refused_total: self.refused_total,
        }
    }
}

fn position_of_least<T>(ranked: &[(bool, f32, Micros, T)]) -> Option<usize> {
    let by_rank = |a: &(bool, f32, Micros, T), b: &(bool, f32, Micros, T)| {
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2))
    };
    (0..ranked.len()).min_by(|&a, &b| by_rank(&ranked[a], &ranked[b]))
}
