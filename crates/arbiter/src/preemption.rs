//! Who may take a connection from whom, and which is missed least.
//!
//! Two different things are called idle. Most connections of a server with many tenants have not been used for a while: it is a
//! cache, and the one to close is that of the tenant that is seldom used. But where all are used all the time and more
//! tenants want one, there is no favourite: whoever keeps a connection is used more often *because* it has it, and by
//! frequency it would keep it for ever. Then it is a processor to be shared, and the one whose tenure ended first goes.

use std::{cmp::Ordering, time::Duration};

use crate::{PoolHandle, Rules, Timestamp, tenant_entry::TenantEntry};

/// Where a further connection for one tenant leaves another one with fewer than that one has, it is a matter of taking turns,
/// for which a connect is a high price: so many tenures must the callers have waited.
const TURN_TENURES: u32 = 4;

/// A tenant that takes a slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claimant {
    /// How many connections it has.
    pub(crate) live: usize,
    /// Its callers have waited long enough to take a further one from somebody who has more.
    may_grow: bool,
    /// They have waited long enough to take one in turn.
    its_turn: bool,
}

/// A tenant with an idle connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Victim {
    pub(crate) live: usize,
    pub(crate) frequency: f32,
    pub(crate) last_used: Timestamp,
    pub(crate) tenure_ends: Timestamp,
}

/// What closing a connection costs. The least is best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct EvictionCost {
    /// It is its tenant's last one.
    last: bool,
    /// It was used within the last tenure.
    active: bool,
    frequency: f32,
    since: Timestamp,
}

impl Claimant {
    /// One that has nothing yet.
    pub(crate) const FIRST: Self = Self {
        live: 0,
        may_grow: true,
        its_turn: true,
    };

    pub(crate) fn new<P: PoolHandle>(rules: &Rules, entry: &TenantEntry<P>, now: Timestamp) -> Self {
        let waited = entry.waited(now);
        Self {
            live: entry.live(),
            may_grow: waited.is_some_and(|waited| waited >= rules.grow_after),
            its_turn: waited.is_some_and(|waited| waited >= rules.tenure * TURN_TENURES),
        }
    }

    /// Whether it may take from anybody at all: for its first connection at once.
    pub(crate) fn may_preempt(self) -> bool {
        self.live == 0 || self.may_grow
    }

    /// Whether it may have a connection that is in use, past its tenure, when it is given back.
    pub(crate) fn may_preempt_busy(self, victim_live: usize) -> bool {
        if self.live == 0 {
            return victim_live > 0;
        }
        let fairer = victim_live > self.live + 1;
        (fairer && self.may_grow) || (victim_live > self.live && self.its_turn)
    }

    pub(crate) fn may_preempt_idle(self, rules: &Rules, victim: &Victim, now: Timestamp) -> bool {
        if self.live > 0 && victim.live == 1 {
            // Somebody's last connection, for somebody who has one: idle is idle, tenure or not, for its owner will get another
            // by right as soon as it asks.
            return self.may_grow && victim.idle_for(now) >= rules.anticipation;
        }
        // Its next request is often a moment away.
        let ripe = now >= victim.tenure_ends || victim.idle_for(now) >= rules.anticipation;
        // One that is idle while others wait may go even if its tenant has no more than they.
        ripe && (self.live == 0 || self.its_turn || (victim.live > self.live + 1 && self.may_grow))
    }
}

impl Victim {
    fn idle_for(&self, now: Timestamp) -> Duration {
        now.since(self.last_used)
    }

    /// Whether it is used again and again.
    fn is_active(&self, rules: &Rules, now: Timestamp) -> bool {
        self.idle_for(now) < rules.anticipation * 2
    }

    pub(crate) fn eviction_cost(&self, rules: &Rules, now: Timestamp) -> EvictionCost {
        let active = self.is_active(rules, now);
        EvictionCost {
            last: self.live == 1,
            active,
            frequency: if active { 0.0 } else { self.frequency },
            since: if active { self.tenure_ends } else { self.last_used },
        }
    }
}

impl EvictionCost {
    pub(crate) fn total_cmp(&self, other: &Self) -> Ordering {
        let by_kind = (self.last, self.active).cmp(&(other.last, other.active));
        let by_frequency = by_kind.then(self.frequency.total_cmp(&other.frequency));
        by_frequency.then(self.since.cmp(&other.since))
    }
}
