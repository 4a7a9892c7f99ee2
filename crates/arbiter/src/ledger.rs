//! The state of one server's arbiter and every decision about it, without locks, clocks or effects.

use std::{
    collections::{HashMap, VecDeque, hash_map::DefaultHasher},
    hash::BuildHasherDefault,
};

use crate::{
    Hold, Micros, Refusal, Rules, Seat, Standing, Verdict,
    account::Account,
    breaker::Breaker,
    heat::Climate,
    line::Line,
    slot::End,
    sync::Arc,
    taking::{Loss, Owner, Taker},
};

/// How long a backend usually takes at most to be gone once its connection ends. One that takes longer (a statement that does
/// not hear of its cancel, a socket without an answer) is waited for no more: its slot comes when it comes, and
/// those who wait get another.
const ENDS_WITHIN: Micros = 50_000;

/// The order in which tenants are gone through decides between equals. With a hasher of its own it is the same in every
/// run, so that a failure can be replayed. Tenants' names come from the registry, not from strangers.
type Accounts<S> = HashMap<<S as Seat>::Tenant, Account<S>, BuildHasherDefault<DefaultHasher>>;

pub(crate) struct Ledger<S: Seat> {
    rules: Rules,
    /// Slots out: connects under way, open connections, and those that are ending.
    taken: usize,
    connecting: usize,
    ending: usize,
    /// When those began to end whose slots are expected any moment.
    soon: VecDeque<Micros>,
    /// Slots that an earlier process's backends still occupy.
    others: usize,
    accounts: Accounts<S>,
    line: Line<S::Tenant>,
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

/// What is to be done once the lock is free.
pub(crate) enum Deed<S: Seat> {
    Connect(Arc<S>),
    Close(S::Idle),
    Refuse(Arc<S>, Refusal),
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
            soon: VecDeque::new(),
            others: 0,
            accounts: Accounts::<S>::default(),
            line: Line::new(),
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
            if !seat.is_closed() {
                self.probe = Some(Arc::clone(seat));
                self.ticks = true;
            }
            return Err(self.refusal(now));
        }
        if seat.is_closed() {
            return Ok(());
        }
        let tenant = seat.tenant();
        self.seat(seat);
        self.line_up(tenant);
        self.pump(now, deeds);
        self.forget_if_empty(tenant);
        Ok(())
    }

    pub(crate) fn connected(&mut self, tenant: S::Tenant, end: &End, now: Micros, deeds: &mut Vec<Deed<S>>) {
        self.connecting -= 1;
        let mut for_nobody = end.began().is_some();
        if let Some(account) = self.accounts.get_mut(&tenant) {
            account.grown_at = now;
            for_nobody |= account.connect_ended();
        }
        // Else whoever hands it over asks for more if need be.
        if for_nobody {
            self.line_up(tenant);
        }
        self.server_is_well();
        self.pump(now, deeds);
    }

    pub(crate) fn failed(
        &mut self,
        tenant: S::Tenant,
        end: &End,
        verdict: Verdict,
        now: Micros,
        jitter: u64,
        deeds: &mut Vec<Deed<S>>,
    ) {
        self.ending(tenant, end, now);
        self.connecting -= 1;
        let account = self.accounts.get_mut(&tenant);
        let for_left = account.is_some_and(Account::connect_ended);
        // Tried again before the backend is gone, which takes long where the server is silent. But not what is refused
        // anyhow: the callers are just being told.
        if for_left || verdict != Verdict::NotItsFault {
            self.line_up(tenant);
        }
        self.verdict(verdict, now, jitter, deeds);
    }

    pub(crate) fn verdict(&mut self, verdict: Verdict, now: Micros, jitter: u64, deeds: &mut Vec<Deed<S>>) {
        match verdict {
            Verdict::Silent | Verdict::Unreachable => {
                self.silence = verdict == Verdict::Silent;
                if self.breaker.failed(now, jitter) {
                    self.send_home(now, deeds);
                }
            }
            Verdict::Full => {
                self.server_is_well();
                self.breaker.pause(now, jitter);
            }
            Verdict::NotItsFault => self.server_is_well(),
        }
        self.pump(now, deeds);
    }

    /// A connection has answered while the server was thought silent.
    pub(crate) fn answered(&mut self, now: Micros, deeds: &mut Vec<Deed<S>>) {
        if self.silence {
            self.server_is_well();
            self.pump(now, deeds);
        }
    }

    fn server_is_well(&mut self) {
        self.breaker.succeeded();
        self.silence = false;
        self.probe = None;
    }

    /// A connection of the tenant is about to end. False: that was known.
    fn ending(&mut self, tenant: S::Tenant, end: &End, now: Micros) -> bool {
        let newly = end.begin(now);
        if newly {
            self.ending += 1;
            self.soon.push_back(now);
            if let Some(account) = self.accounts.get_mut(&tenant) {
                account.ending += 1;
            }
            self.keep_place(tenant);
            // Its callers wait from now on for another one, not until the backend is gone.
            self.line_up(tenant);
        }
        newly
    }

    /// A connection was dropped by whoever had it.
    pub(crate) fn dropped(&mut self, tenant: S::Tenant, end: &End, now: Micros, deeds: &mut Vec<Deed<S>>) {
        if self.ending(tenant, end, now) {
            self.pump(now, deeds);
        }
    }

    pub(crate) fn released(
        &mut self,
        tenant: S::Tenant,
        connecting: bool,
        end: &End,
        now: Micros,
        deeds: &mut Vec<Deed<S>>,
    ) {
        let began = end.began();
        if let Some(began) = began {
            let expected = self.soon.iter().position(|&one| one == began);
            expected.and_then(|index| self.soon.remove(index));
        }
        // From now on its hold has nothing to say.
        end.begin(now);
        let was_ending = usize::from(began.is_some());
        self.taken -= 1;
        self.connecting -= usize::from(connecting);
        self.ending -= was_ending;
        if let Some(account) = self.accounts.get_mut(&tenant) {
            account.held -= 1;
            account.ending -= was_ending;
            if connecting {
                account.connect_ended();
            }
        }
        self.keep_place(tenant);
        self.line_up(tenant);
        self.forget_if_empty(tenant);
        self.pump(now, deeds);
    }

    pub(crate) fn leave(&mut self, seat: &Arc<S>, now: Micros, deeds: &mut Vec<Deed<S>>) {
        let tenant = seat.tenant();
        if self.probe.as_ref().is_some_and(|probe| Arc::ptr_eq(probe, seat)) {
            self.probe = None;
        }
        let Some(account) = self.accounts.get_mut(&tenant) else {
            return;
        };
        if !account.is_seat(seat) {
            return;
        }
        self.climate.read(&mut account.heat, seat.uses());
        account.seat = None;
        account.connecting_for_left = account.connecting > 0;
        self.leave_line(tenant);
        self.pump(now, deeds);
    }

    pub(crate) fn set_others(&mut self, others: usize, now: Micros, deeds: &mut Vec<Deed<S>>) {
        self.others = others;
        self.pump(now, deeds);
    }

    /// Whether a connection past its tenure goes to somebody who waits.
    pub(crate) fn yields(&mut self, hold: &Hold<S>, tenant: S::Tenant, now: Micros) -> bool {
        let Some(next) = self.next_taker(now) else {
            self.pressed = false;
            return false;
        };
        let live = self.accounts.get(&tenant).map_or(0, Account::live);
        let taker = self.taker(Some(next), now);
        let given_up = next != tenant && taker.may_take_busy(live) && self.ending(tenant, hold.end(), now);
        self.yields_total += u64::from(given_up);
        given_up
    }

    /// Gives out what can be given: free slots first, then those of idle connections.
    pub(crate) fn pump(&mut self, now: Micros, deeds: &mut Vec<Deed<S>>) {
        self.pressed = false;
        self.ticks = false;
        while self.soon.front().is_some_and(|&began| began + ENDS_WITHIN <= now) {
            self.soon.pop_front();
        }
        if self.breaker.is_open() {
            self.pump_probe(now, deeds);
            return;
        }
        while self.connecting < self.rules.connects_max {
            let free = self.free() > 0;
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
            && self.soon.is_empty()
            && let Some(idle) = self.take_idle(None, now)
        {
            deeds.push(Deed::Close(idle));
        }
        self.forget_if_empty(tenant);
    }

    /// The tenant's account, with this pool as the one that is open.
    fn seat(&mut self, seat: &Arc<S>) -> &mut Account<S> {
        let (tenant, climate) = (seat.tenant(), &mut self.climate);
        let account = self
            .accounts
            .entry(tenant)
            .or_insert_with(|| Account::new(climate.recall(&tenant, seat.uses())));
        if !account.is_seat(seat) {
            account.heat.restart(seat.uses());
            account.seat = Some(Arc::clone(seat));
        }
        account
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
    fn next_taker(&mut self, now: Micros) -> Option<S::Tenant> {
        // As many end at once as may connect at once. And where others have the whole budget it would be for nothing.
        if self.connecting + self.soon.len() >= self.rules.connects_max || self.others >= self.rules.budget {
            return None;
        }
        let staying = self.taken - self.soon.len() + self.others;
        let coming = self.rules.budget.saturating_sub(staying);
        let rules = self.rules;
        self.next(coming, |account| Taker::new(&rules, account, now).may_take())
    }

    /// The tenant as one that takes; none: one without a connection.
    fn taker(&self, tenant: Option<S::Tenant>, now: Micros) -> Taker {
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
        None
    }

    fn taken_idle(&mut self, tenant: S::Tenant, idle: &S::Idle, now: Micros) {
        let newly = self.ending(tenant, idle.as_ref().end(), now);
        self.taken_idle_total += u64::from(newly);
    }

    /// Puts the tenant in the line if it has need of another connection.
    fn line_up(&mut self, tenant: S::Tenant) {
        if let Some(account) = self.accounts.get_mut(&tenant)
            && account.needs_place()
        {
            account.place = Some(self.line.join(account.live(), tenant));
        }
    }

    /// Moves the tenant in the line when the number of its connections has changed.
    fn keep_place(&mut self, tenant: S::Tenant) {
        if let Some(account) = self.accounts.get_mut(&tenant) {
            let live = account.live();
            if let Some(place) = &mut account.place {
                self.line.shift(place, live);
            }
        }
    }

    fn leave_line(&mut self, tenant: S::Tenant) {
        if let Some(account) = self.accounts.get_mut(&tenant)
            && let Some(place) = account.place.take()
        {
            self.line.leave(place);
        }
        self.forget_if_empty(tenant);
    }

    fn forget_if_empty(&mut self, tenant: S::Tenant) {
        if self.accounts.get(&tenant).is_some_and(Account::is_empty)
            && let Some(mut account) = self.accounts.remove(&tenant)
        {
            if let Some(seat) = &account.seat {
                self.climate.read(&mut account.heat, seat.uses());
            }
            self.climate.remember(tenant, account.heat);
        }
    }

    /// Everybody who waits hears that the server is down: also those whose connect has just failed, who stand in no line.
    fn send_home(&mut self, now: Micros, deeds: &mut Vec<Deed<S>>) {
        let refusal = self.refusal(now);
        for seat in self.accounts.values().filter_map(|account| account.seat.as_ref()) {
            if seat.waiting_since().is_some() {
                self.probe = Some(Arc::clone(seat));
                deeds.push(Deed::Refuse(Arc::clone(seat), refusal));
            }
        }
        for tenant in self.line.iter().collect::<Vec<_>>() {
            self.leave_line(tenant);
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

    pub(crate) fn seats(&self) -> impl Iterator<Item = &Arc<S>> {
        let holding = self.accounts.values().filter(|account| account.held > 0);
        holding.filter_map(|account| account.seat.as_ref())
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

fn position_of_least<K>(candidates: &[(Loss, K)]) -> Option<usize> {
    (0..candidates.len()).min_by(|&a, &b| candidates[a].0.total_cmp(&candidates[b].0))
}
