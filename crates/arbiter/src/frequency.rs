//! How often a tenant is used, with ageing.
//!
//! A connection is worth what its next use saves, a connect, times how soon that use comes. The best guess at the latter is how
//! often the tenant was used lately. Counting alone (LFU) keeps yesterday's favourites for ever, so all counts are halved from
//! time to time (Karedla, Love and Wherry, "Caching strategies to improve disk system performance", 1994). Time here is the
//! number of uses, not a clock: the rule is the same for ten requests a minute and for ten thousand a second.
//!
//! Misses of the rules that were tried, Zipf(1.0) on 90 slots, in virtual time (`examples/simulate`, experiment `rules`); on a
//! day whose favourites stay, and on one on which they change:
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
//! Absent tenants have to be remembered: halved after 256 uses a slot and without a memory the misses are 35.7%, 51.1% and 60.2%,
//! and 57.6%, 63.3% and 63.7% where favourites change; with 16 remembered for each slot 32.4%, 48.4% and 58.1%, and 34.1%, 50.1%
//! and 58.7%.

use std::{hash::Hash, num::NonZeroUsize};

use lru::LruCache;

/// Counts that stand for less than this are gone: a float never quite reaches zero.
const COLD: f32 = 0.05;

/// One tenant's count, as of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Frequency {
    count: f32,
    epoch: u32,
    /// The reading of the pool's own counter that `count` includes.
    seen: u64,
}

/// When the counts age, and what is remembered of tenants without a connection.
#[derive(Debug)]
pub(crate) struct FrequencyTracker<K: Eq + Hash> {
    epoch: u32,
    uses: u64,
    uses_max: u64,
    absent: LruCache<K, Frequency>,
}

impl Frequency {
    /// Goes on under a new pool, whose counter reads `seen`.
    pub(crate) fn restart(&mut self, seen: u64) {
        self.seen = seen;
    }

    /// The count as of now.
    pub(crate) fn value(&self, epoch: u32) -> f32 {
        let halvings = epoch.wrapping_sub(self.epoch).min(64);
        self.count * 0.5_f32.powi(halvings.cast_signed())
    }
}

impl<K: Copy + Eq + Hash> FrequencyTracker<K> {
    /// `uses_max`: after how many uses of all tenants together the counts are halved. `memory`: how many absent tenants
    /// are remembered.
    pub(crate) fn new(uses_max: u64, memory: usize) -> Self {
        Self {
            epoch: 0,
            uses: 0,
            uses_max: uses_max.max(1),
            absent: LruCache::new(NonZeroUsize::new(memory).unwrap_or(NonZeroUsize::MIN)),
        }
    }

    /// Takes in what happened since the last look; `uses` is the reading of the pool's counter, which only grows.
    pub(crate) fn read(&mut self, frequency: &mut Frequency, uses: u64) -> f32 {
        let new = uses.saturating_sub(frequency.seen);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a guess at a frequency needs no more than a float's digits"
        )]
        let count = frequency.value(self.epoch) + new as f32;
        *frequency = Frequency {
            count,
            epoch: self.epoch,
            seen: uses,
        };
        self.uses += new;
        count
    }

    /// Halves the counts when it is time. Not within [`FrequencyTracker::read`], so that all that are compared are of one age.
    pub(crate) fn age(&mut self) {
        if self.uses >= self.uses_max {
            // After a long calm, in which nobody reads, the counts are many times what a period brings. As many halvings bring
            // them back to it; with one only, what was popular in the calm would stay for as many periods.
            let periods = self.uses / self.uses_max;
            self.epoch = self.epoch.wrapping_add(1 + periods.ilog2());
            self.uses = 0;
        }
    }

    /// Remembers a tenant that has no connection any more.
    pub(crate) fn remember(&mut self, tenant: K, frequency: Frequency) {
        if frequency.value(self.epoch) > COLD {
            self.absent.put(tenant, frequency);
        }
    }

    /// What is remembered of a tenant; `seen` is the present reading of its (perhaps new) pool's counter.
    pub(crate) fn recall(&mut self, tenant: &K, seen: u64) -> Frequency {
        let count = self
            .absent
            .pop(tenant)
            .map_or(0.0, |frequency| frequency.value(self.epoch));
        Frequency {
            count,
            epoch: self.epoch,
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
