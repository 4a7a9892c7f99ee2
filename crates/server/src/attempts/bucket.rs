//! Leaky buckets: a failure is a drop, and drops leak out at a steady rate. Pure; the time is passed in.

use std::time::{Duration, Instant};

use lru::LruCache;

/// The most counts at once; the one that was unused for the longest time goes first. To push a count out
/// a person needs this many attempts of their own.
const KEYS_MAX: usize = 50_000;

/// How many failures a count takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    at_once: u32,
    /// The time in which one failure is forgotten.
    leak: Duration,
}

impl Rule {
    pub(super) const fn new(at_once: u32, leak: Duration) -> Self {
        Self { at_once, leak }
    }
}

/// One count that a try touches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Charge {
    key: u64,
    rule: Rule,
    /// Whether it may refuse the try; it counts the failure in either case.
    enforced: bool,
}

impl Charge {
    pub(super) fn new(key: u64, rule: Rule, enforced: bool) -> Self {
        Self { key, rule, enforced }
    }

    pub(super) fn enforced(key: u64, rule: Rule) -> Self {
        Self::new(key, rule, true)
    }
}

/// What becomes of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It may go on, and is under way from now on.
    Go,
    /// It is to wait for one that is under way.
    Wait,
    /// It is refused; the next one is not before this time has passed.
    Refuse(Duration),
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Failures that have not leaked out yet.
    level: f64,
    at: Instant,
    under_way: u32,
}

impl Bucket {
    fn level(&self, rule: Rule, now: Instant) -> f64 {
        let leaked = now.saturating_duration_since(self.at).as_secs_f64() / rule.leak.as_secs_f64();
        (self.level - leaked).max(0.0)
    }

    fn decide(&self, rule: Rule, now: Instant) -> Decision {
        let over = self.level(rule, now) + 1.0 - f64::from(rule.at_once);
        if over > 0.0 {
            return Decision::Refuse(rule.leak.mul_f64(over));
        }
        if over + f64::from(self.under_way) > 0.0 {
            return Decision::Wait;
        }
        Decision::Go
    }
}

/// All counts.
#[derive(Debug)]
pub(super) struct Buckets(LruCache<u64, Bucket>);

impl Default for Buckets {
    fn default() -> Self {
        Self(LruCache::unbounded())
    }
}

impl Buckets {
    /// Begins a try when each of its counts has room.
    pub(super) fn begin(&mut self, charges: &[Charge], now: Instant) -> Decision {
        let mut decision = Decision::Go;
        for charge in charges.iter().filter(|charge| charge.enforced) {
            let Some(bucket) = self.0.peek(&charge.key) else {
                continue;
            };
            decision = match (decision, bucket.decide(charge.rule, now)) {
                (Decision::Refuse(one), Decision::Refuse(other)) => Decision::Refuse(one.max(other)),
                (refused @ Decision::Refuse(_), _) | (_, refused @ Decision::Refuse(_)) => refused,
                (Decision::Go, other) => other,
                (Decision::Wait, _) => Decision::Wait,
            };
        }
        if decision == Decision::Go {
            for charge in charges {
                self.bucket(charge.key, now).under_way += 1;
            }
        }
        decision
    }

    /// Ends a try that failed.
    pub(super) fn failed(&mut self, charges: &[Charge], now: Instant) {
        self.forgotten(charges);
        for charge in charges {
            let bucket = self.bucket(charge.key, now);
            (bucket.level, bucket.at) = (bucket.level(charge.rule, now) + 1.0, now);
        }
    }

    /// Ends a try that succeeded, and empties the count `own`.
    pub(super) fn succeeded(&mut self, charges: &[Charge], own: u64) {
        self.forgotten(charges);
        if let Some(bucket) = self.0.peek_mut(&own) {
            bucket.level = 0.0;
        }
    }

    /// Ends a try that counts for nothing.
    pub(super) fn forgotten(&mut self, charges: &[Charge]) {
        for charge in charges {
            if let Some(bucket) = self.0.peek_mut(&charge.key) {
                bucket.under_way = bucket.under_way.saturating_sub(1);
            }
        }
    }

    fn bucket(&mut self, key: u64, now: Instant) -> &mut Bucket {
        while self.0.len() >= KEYS_MAX && !self.0.contains(&key) {
            self.0.pop_lru();
        }
        self.0.get_or_insert_mut(key, || Bucket {
            level: 0.0,
            at: now,
            under_way: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule::new(3, Duration::from_secs(30));

    #[test]
    fn failures_leak_out_one_by_one_and_a_refusal_says_when() {
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        let charges = [Charge::enforced(1, RULE)];
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..3 {
            assert_eq!(buckets.begin(&charges, at(second)), Decision::Go);
            buckets.failed(&charges, at(second));
        }
        let Decision::Refuse(after) = buckets.begin(&charges, at(3)) else {
            panic!("a fourth failure has no room");
        };
        assert_eq!(after.as_secs_f64().round(), 27.0);
        assert!(matches!(buckets.begin(&charges, at(29)), Decision::Refuse(_)));
        assert_eq!(buckets.begin(&charges, at(31)), Decision::Go);
        assert_eq!(buckets.begin(&charges, at(31)), Decision::Wait);
        buckets.forgotten(&charges);
        assert_eq!(buckets.begin(&charges, at(31)), Decision::Go);
        buckets.succeeded(&charges, 1);
        for _ in 0..3 {
            assert_eq!(buckets.begin(&charges, at(31)), Decision::Go);
        }
    }

    #[test]
    fn a_count_that_may_not_refuse_counts_all_the_same() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        let charges = [Charge::new(1, RULE, false)];
        for _ in 0..9 {
            assert_eq!(buckets.begin(&charges, now), Decision::Go);
            buckets.failed(&charges, now);
        }
        let enforced = [Charge::enforced(1, RULE)];
        assert!(matches!(buckets.begin(&enforced, now), Decision::Refuse(_)));
    }

    #[test]
    fn memory_is_bounded() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        for key in 0..2 * KEYS_MAX as u64 {
            let charges = [Charge::enforced(key, RULE)];
            buckets.begin(&charges, now);
            buckets.failed(&charges, now);
        }
        assert_eq!(buckets.0.len(), KEYS_MAX);
    }
}
