//! How often each tenant uses its connections: least frequently used (LFU) with ageing.
//!
//! A connection is worth what its next use saves, a connect, times how soon that use comes. The best estimate
//! of the latter is how often the tenant was used lately. Counting alone (LFU) keeps yesterday's favourites
//! for ever, so all counts are halved from time to time (Karedla, Love and Wherry, "Caching strategies to
//! improve disk system performance", 1994). Time is measured in uses here and not by a clock, so the rule is
//! the same for ten requests a minute and ten thousand a second.
//!
//! Misses of the rules that were tried, Zipf(1.0) on 90 slots, in virtual time (`examples/simulate`,
//! experiment `rules`); on a day whose favourites stay, and on a day on which they change:
//!
//! | | 1,000 | 10,000 | 100,000 tenants | 1,000, changing | 10,000 | 100,000 |
//! |---|---|---|---|---|---|---|
//! | the best static choice | 32.3% | 48.2% | 58.0% | 32.2% | 48.2% | 58.0% |
//! | LRU | 44.3% | 62.4% | 72.0% | 44.4% | 62.4% | 72.0% |
//! | LRU-2 | 37.4% | 52.6% | 61.5% | 37.4% | 52.5% | 61.5% |
//! | LFUDA | 41.1% | 59.4% | 69.5% | 42.1% | 60.0% | 69.8% |
//! | LFU without ageing | 32.4% | 48.3% | 58.1% | 40.9% | 56.7% | 65.1% |
//! | LFU, halved after 64 uses a slot | 32.6% | 48.6% | 58.4% | 33.1% | 49.0% | 58.5% |
//!
//! Tenants without a connection must be remembered. When counts are halved after 256 uses a slot and no
//! tenant is remembered, the misses are 35.7%, 51.1% and 60.2%, and 57.6%, 63.3% and 63.7% where favourites
//! change. With 16 tenants remembered for each slot, they are 32.4%, 48.4% and 58.1%, and 34.1%, 50.1% and
//! 58.7%.

use std::{hash::Hash, num::NonZeroUsize};

use lru::LruCache;

/// A count below this is forgotten: a float that is halved again and again never reaches zero.
const COLD: f32 = 0.05;

/// One tenant's count of uses, as of a number of halvings.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Frequency {
    count: f32,
    halvings: u32,
    /// The value of the pool's own counter that `count` includes.
    seen: u64,
}

/// Ages the counts of all tenants, and remembers those of tenants without a connection.
#[derive(Debug)]
pub(crate) struct FrequencyTracker<K: Eq + Hash> {
    /// How often all counts have been halved; wraps around.
    halvings: u32,
    uses: u64,
    uses_max: u64,
    absent: LruCache<K, Frequency>,
}

impl Frequency {
    /// Continues with a new pool, whose counter stands at `seen`.
    pub(crate) fn restart(&mut self, seen: u64) {
        self.seen = seen;
    }

    /// The count after `halvings` halvings.
    pub(crate) fn value(&self, halvings: u32) -> f32 {
        let missed = halvings.wrapping_sub(self.halvings).min(64);
        self.count * 0.5_f32.powi(missed.cast_signed())
    }
}

impl<K: Copy + Eq + Hash> FrequencyTracker<K> {
    /// `uses_max`: after how many uses of all tenants together the counts are halved. `memory`: how many
    /// tenants without a connection are remembered.
    pub(crate) fn new(uses_max: u64, memory: usize) -> Self {
        Self {
            halvings: 0,
            uses: 0,
            uses_max: uses_max.max(1),
            absent: LruCache::new(NonZeroUsize::new(memory).unwrap_or(NonZeroUsize::MIN)),
        }
    }

    /// Adds the uses since the last call and returns the count. `uses` is the value of the pool's counter,
    /// which only grows.
    pub(crate) fn read(&mut self, frequency: &mut Frequency, uses: u64) -> f32 {
        let new = uses.saturating_sub(frequency.seen);
        #[expect(
            clippy::cast_precision_loss,
            reason = "an estimate of a frequency needs no more than a float's digits"
        )]
        let count = frequency.value(self.halvings) + new as f32;
        *frequency = Frequency {
            count,
            halvings: self.halvings,
            seen: uses,
        };
        self.uses += new;
        count
    }

    /// Halves the counts when it is time. [`FrequencyTracker::read`] does not, so that all counts that are
    /// compared with each other have the same age.
    pub(crate) fn age(&mut self) {
        if self.uses >= self.uses_max {
            // While no tenant waits, the counts are not read, and then they are many times what one period
            // brings. Several halvings bring them back to it. With one halving, the favourites of that time
            // would stay for many periods.
            let periods = self.uses / self.uses_max;
            self.halvings = self.halvings.wrapping_add(1 + periods.ilog2());
            self.uses = 0;
        }
    }

    /// Remembers the count of a tenant that has no connection any more.
    pub(crate) fn remember(&mut self, tenant: K, frequency: Frequency) {
        if frequency.value(self.halvings) > COLD {
            self.absent.put(tenant, frequency);
        }
    }

    /// The remembered count of a tenant. `seen` is the present value of its (perhaps new) pool's counter.
    pub(crate) fn recall(&mut self, tenant: &K, seen: u64) -> Frequency {
        let count = self
            .absent
            .pop(tenant)
            .map_or(0.0, |frequency| frequency.value(self.halvings));
        Frequency {
            count,
            halvings: self.halvings,
            seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_popular_once_does_not_stay_for_ever() {
        let mut tracker = FrequencyTracker::<u8>::new(100, 4);
        let (mut old, mut new) = (Frequency::default(), Frequency::default());
        tracker.read(&mut old, 400);
        for uses in (50..=800).step_by(50) {
            tracker.read(&mut new, uses);
            tracker.age();
        }
        assert!(
            tracker.read(&mut new, 800) > tracker.read(&mut old, 400),
            "the counts are {new:?} and {old:?}"
        );
    }

    #[test]
    fn a_long_calm_weighs_no_more_than_a_period() {
        let mut tracker = FrequencyTracker::<u8>::new(100, 4);
        let (mut old, mut new) = (Frequency::default(), Frequency::default());
        tracker.read(&mut old, 1_000_000);
        tracker.read(&mut new, 1_000);
        tracker.age();
        assert!(
            tracker.read(&mut old, 1_000_000) <= 100.0,
            "the counts are {old:?}"
        );
        tracker.read(&mut new, 1_200);
        tracker.age();
        assert!(
            tracker.read(&mut new, 1_200) > tracker.read(&mut old, 1_000_000),
            "the counts are {new:?} and {old:?}"
        );
    }

    #[test]
    fn an_absent_tenant_comes_back_with_what_it_had() {
        let mut tracker = FrequencyTracker::<u8>::new(1_000, 2);
        let mut frequency = tracker.recall(&1, 0);
        tracker.read(&mut frequency, 9);
        tracker.remember(1, frequency);
        // A new pool counts from zero again.
        let mut frequency = tracker.recall(&1, 0);
        assert!((tracker.read(&mut frequency, 1) - 10.0).abs() < 0.01);
    }

    #[test]
    fn memory_is_bounded() {
        let mut tracker = FrequencyTracker::<u32>::new(1_000_000, 8);
        for tenant in 0..100 {
            let mut frequency = tracker.recall(&tenant, 0);
            tracker.read(&mut frequency, 3);
            tracker.remember(tenant, frequency);
        }
        assert_eq!(tracker.absent.len(), 8);
    }
}
