//! Counters of laboratories that never go backwards.
//!
//! The resolver counts in each pool, and a pool that is closed takes its counts with it: the next one of the
//! laboratory begins at zero, and the sum under `other` would shrink. Prometheus takes a smaller figure for a
//! restart and adds all of it again. So what came since the last look is added up here, by label.

use std::collections::{BTreeMap, HashMap};

use model::TenantId;
use resolver::TenantPoolStats;

/// What is counted of a laboratory's pool.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) waits: u64,
    pub(crate) waited_s: f64,
    pub(crate) connects: u64,
    pub(crate) evicted: u64,
    pub(crate) errors: u64,
}

impl From<&TenantPoolStats> for Counts {
    fn from(stats: &TenantPoolStats) -> Self {
        Self {
            waits: stats.waits_total,
            waited_s: stats.wait_total.as_secs_f64(),
            connects: stats.connects_total,
            evicted: stats.evictions_total,
            errors: stats.errors_total,
        }
    }
}

impl Counts {
    /// What came on top of `before`; all of it when this is another pool.
    fn since(self, before: Self) -> Self {
        let grown = self.waits >= before.waits
            && self.waited_s >= before.waited_s
            && self.connects >= before.connects
            && self.evicted >= before.evicted
            && self.errors >= before.errors;
        if !grown {
            return self;
        }
        Self {
            waits: self.waits - before.waits,
            waited_s: self.waited_s - before.waited_s,
            connects: self.connects - before.connects,
            evicted: self.evicted - before.evicted,
            errors: self.errors - before.errors,
        }
    }

    fn add(&mut self, more: Self) {
        self.waits += more.waits;
        self.waited_s += more.waited_s;
        self.connects += more.connects;
        self.evicted += more.evicted;
        self.errors += more.errors;
    }
}

/// The sums so far. Bounded by the labels there are and the pools that are open.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    by_label: BTreeMap<String, Counts>,
    seen: HashMap<TenantId, Counts>,
}

impl Totals {
    /// Adds what came since the last look, and gives the sums by label.
    pub(crate) fn update(
        &mut self,
        pools: impl IntoIterator<Item = (TenantId, String, Counts)>,
    ) -> &BTreeMap<String, Counts> {
        let before = std::mem::take(&mut self.seen);
        for (tenant, label, now) in pools {
            let news = now.since(before.get(&tenant).copied().unwrap_or_default());
            self.by_label.entry(label).or_default().add(news);
            self.seen.insert(tenant, now);
        }
        &self.by_label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(waits: u64) -> Counts {
        Counts {
            waits,
            ..Counts::default()
        }
    }

    #[test]
    fn no_sum_shrinks_when_pools_close_and_open_again() {
        let (one, two) = (TenantId::generate(), TenantId::generate());
        let mut totals = Totals::default();
        let mut look = |pools: &[(TenantId, u64)]| {
            let pools = pools
                .iter()
                .map(|&(tenant, waits)| (tenant, "other".to_owned(), counts(waits)));
            totals.update(pools)["other"].waits
        };
        assert_eq!(look(&[(one, 5), (two, 1)]), 6);
        assert_eq!(look(&[(one, 5), (two, 4)]), 9);
        assert_eq!(look(&[(two, 4)]), 9, "a pool was closed");
        assert_eq!(look(&[(one, 2), (two, 4)]), 11, "it is open again");
        assert_eq!(look(&[(one, 1), (two, 4)]), 12, "and once more between two looks");
        assert_eq!(look(&[]), 12);
        assert_eq!(totals.seen.len(), 0);
    }
}
