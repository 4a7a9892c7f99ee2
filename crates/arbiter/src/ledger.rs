//! The state of one server's arbiter and every decision about it, without locks, clocks or effects.

use std::{
    collections::{HashMap, VecDeque, hash_map::DefaultHasher},
    hash::BuildHasherDefault,
};

use crate::{
    FAILURES_MAX, Hold, Micros, Refusal, Rules, Seat, Standing, Verdict, account::Account, breaker::Breaker,
    heat::Climate, line::Line, slot::End, sync::Arc,
};

/// The order in which tenants are gone through decides between equals. With a hasher of its own it is the same in every
/// run, so that a failure can be replayed. Tenants' names come from the registry, not from strangers.
type Accounts<S> = HashMap<<S as Seat>::Tenant, Account<S>, BuildHasherDefault<DefaultHasher>>;

mod allot;

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
    /// Whether the last failure was silence, and nothing was heard on any other connection either.
    silence: bool,
    /// When the last of the failures in a row came.
    failed_at: Option<Micros>,
    /// Whose log-in is used to find out whether a server that was down is back.
    probe: Option<Arc<S>>,
    pressed: bool,
    /// When no idle connection was found, and how many connections the tenant had for which it was looked.
    barren: Option<(Micros, usize)>,
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
            failed_at: None,
            probe: None,
            pressed: false,
            barren: None,
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
                // One whose own log-ins hang finds out nothing about the server.
                let account = self.accounts.get(&seat.tenant());
                if self.probe.is_none() || account.is_none_or(|account| account.stuck < FAILURES_MAX as usize)
                {
                    self.probe = Some(Arc::clone(seat));
                }
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
        let for_left = self.accounts.get_mut(&tenant).is_some_and(|account| {
            account.held -= 1;
            account.ending -= 1;
            account.stuck += 1;
            account.connect_ended()
        });
        // Tried again before the backend is gone, which takes long where the server is silent. But not what would fail
        // anyhow: the callers are just being told.
        if for_left || !matches!(verdict, Verdict::Refused | Verdict::NotTried) {
            self.line_up(tenant);
        }
        if verdict == Verdict::NotTried && self.probe.as_ref().is_some_and(|probe| probe.tenant() == tenant) {
            self.probe = None;
        }
        self.verdict(verdict, now, jitter, deeds);
    }

    pub(crate) fn verdict(&mut self, verdict: Verdict, now: Micros, jitter: u64, deeds: &mut Vec<Deed<S>>) {
        match verdict {
            Verdict::Silent | Verdict::Unreachable => {
                let since = self.failed_at.replace(now).unwrap_or(now);
                self.silence = verdict == Verdict::Silent && !self.has_answered_since(since);
                if self.breaker.failed(now, jitter) {
                    self.send_home(now, deeds);
                }
            }
            Verdict::Full => {
                self.server_is_well();
                self.breaker.pause(now, jitter);
            }
            Verdict::Refused => self.server_is_well(),
            Verdict::NotTried => {}
            Verdict::Lost => self.breaker.hold(now),
        }
        self.pump(now, deeds);
    }

    /// A connection has answered while the server was thought silent. Whether it takes new ones is for a probe to find out.
    pub(crate) fn answered(&mut self) {
        self.silence = false;
    }

    fn has_answered_since(&self, since: Micros) -> bool {
        let mut seats = self.accounts.values().filter_map(|account| account.seat.as_ref());
        seats.any(|seat| seat.last_answered() > since)
    }

    fn server_is_well(&mut self) {
        let was_open = self.breaker.is_open();
        self.breaker.succeeded();
        self.silence = false;
        self.failed_at = None;
        self.probe = None;
        if was_open {
            // Some went on waiting, for a connection of theirs that was on loan.
            for tenant in self.accounts.keys().copied().collect::<Vec<_>>() {
                self.line_up(tenant);
            }
        }
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
        failed: bool,
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
        self.ending -= was_ending;
        match self.accounts.get_mut(&tenant) {
            Some(account) if failed => account.stuck -= 1,
            Some(account) => {
                account.held -= 1;
                account.ending -= was_ending;
            }
            None => {}
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

    /// Looks again at everything that time alone may have changed. Whether to look again soon.
    pub(crate) fn tick(&mut self, now: Micros, deeds: &mut Vec<Deed<S>>) -> bool {
        self.barren = None;
        self.pump(now, deeds);
        self.ticks
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
