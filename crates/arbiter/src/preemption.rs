//! Which tenant may take a connection from which other tenant, and which connection costs least to evict.
//!
//! A connection can be idle for two different reasons. Most connections of a server with many tenants have
//! not been used for a while. They are a cache, and the one to close is that of the tenant that is seldom
//! used. But where all connections are used all the time and more tenants want one, frequency must not
//! decide: a tenant with a connection is used more often *because* it has the connection, and by frequency it
//! would keep it for ever. Such connections are like a processor to be shared, and the one whose tenure ended
//! first goes.

use std::{cmp::Ordering, time::Duration};

use crate::{PoolHandle, Rules, Timestamp, tenant_entry::TenantEntry};

/// How many tenures callers must have waited before their tenant takes a further connection that leaves its
/// former owner with fewer connections than the tenant has. Such tenants take turns, and each turn costs a
/// connect.
const TURN_TENURES: u32 = 4;

/// A tenant that wants a slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claimant {
    /// How many connections it has.
    pub(crate) live: usize,
    /// Its callers have waited long enough to take a further connection from a tenant that has more.
    may_grow: bool,
    /// Its callers have waited long enough to take a connection in turn.
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

/// What closing a connection costs. The arbiter evicts the connection with the least cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct EvictionCost {
    /// The connection is its tenant's last one.
    last: bool,
    /// The tenant used a connection a moment ago.
    active: bool,
    frequency: f32,
    since: Timestamp,
}

impl Claimant {
    /// A tenant without a connection.
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

    /// Whether it may take a slot from any other tenant. For its first connection it may do so at once.
    pub(crate) fn may_preempt(self) -> bool {
        self.live == 0 || self.may_grow
    }

    /// Whether it may take a connection that is in use, once its tenure is over and its caller gives it back.
    pub(crate) fn may_preempt_busy(self, victim_live: usize) -> bool {
        if self.live == 0 {
            return victim_live > 0;
        }
        let fairer = victim_live > self.live + 1;
        (fairer && self.may_grow) || (victim_live > self.live && self.its_turn)
    }

    pub(crate) fn may_preempt_idle(self, rules: &Rules, victim: &Victim, now: Timestamp) -> bool {
        if self.live > 0 && victim.live == 1 {
            // The victim's last connection, for a claimant that has one. The tenure does not protect an idle
            // connection here: the victim comes first in the queue as soon as it asks again.
            return self.may_grow && victim.idle_for(now) >= rules.anticipation;
        }
        // The victim's next request is often a moment away.
        let ripe = now >= victim.tenure_ends || victim.idle_for(now) >= rules.anticipation;
        // A connection that is idle while callers wait may go even if its tenant has no more than the
        // claimant.
        ripe && (self.live == 0 || self.its_turn || (victim.live > self.live + 1 && self.may_grow))
    }
}

impl Victim {
    fn idle_for(&self, now: Timestamp) -> Duration {
        now.since(self.last_used)
    }

    /// Whether the tenant uses its connections again and again.
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
