//! Compares rules for which connection to close, by misses alone and without time. A use of a tenant without
//! a connection is a miss, and closes the connection that the rule chooses.

use crate::{
    frequency::{Frequency, FrequencyTracker},
    trace::{Day, Trace},
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rule {
    /// Least recently used.
    Lru,
    /// Least frequently used, for ever.
    Lfu,
    /// Least frequently used, halved after so many uses per slot, with so many absent tenants remembered per
    /// slot.
    Halving { ageing_uses: u64, memory: usize },
    /// Least frequently used with dynamic ageing: a newcomer starts where the last victim ended (Arlitt et
    /// al., 2000).
    Lfuda,
    /// Longest since the use before the last (`O'Neil`, `O'Neil` and Weikum, 1993), all remembered.
    Lru2,
}

impl Rule {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Lru => "LRU".to_owned(),
            Self::Lfu => "LFU, never ageing".to_owned(),
            Self::Halving { ageing_uses, memory } => {
                format!("LFU, halved after {ageing_uses}, memory {memory}")
            }
            Self::Lfuda => "LFUDA".to_owned(),
            Self::Lru2 => "LRU-2".to_owned(),
        }
    }

    fn choose(self, tenants: usize, slots: usize) -> Box<dyn Choice> {
        match self {
            Self::Lru => Box::new(LeastRecent(vec![0; tenants])),
            Self::Lfu => Box::new(LeastFrequent(vec![(0, 0); tenants])),
            Self::Halving { ageing_uses, memory } => Box::new(Halving {
                tracker: FrequencyTracker::new(ageing_uses * slots as u64, memory * slots),
                uses: vec![0; tenants],
                counts: vec![None; tenants],
                last: vec![0; tenants],
            }),
            Self::Lfuda => Box::new(DynamicAgeing {
                age: 0,
                keys: vec![None; tenants],
            }),
            Self::Lru2 => Box::new(SecondToLast(vec![(0, 0); tenants])),
        }
    }
}

/// Part of the requests that missed, after a fifth of them to warm up.
pub(crate) fn misses(rule: Rule, day: Day, tenants: usize, slots: usize, requests: usize, seed: u64) -> f64 {
    misses_after(rule, day, tenants, slots, requests, requests / 5, seed)
}

/// The same after `warm` requests.
pub(crate) fn misses_after(
    rule: Rule,
    day: Day,
    tenants: usize,
    slots: usize,
    requests: usize,
    warm: usize,
    seed: u64,
) -> f64 {
    let mut choice = rule.choose(tenants, slots);
    let mut open: Vec<usize> = Vec::new();
    let mut is_open = vec![false; tenants];
    let mut missed = 0_usize;
    for (time, tenant) in Trace::new(day, tenants, requests, seed).enumerate() {
        if !is_open[tenant] {
            missed += usize::from(time >= warm);
            if open.len() == slots {
                let victim = choice.victim(&open);
                is_open[open.swap_remove(victim)] = false;
            }
            open.push(tenant);
            is_open[tenant] = true;
        }
        choice.used(tenant, time as u64);
    }
    missed as f64 / (requests - warm) as f64
}

/// The same for an omniscient choice, which knows from the start which tenants will be used most in each
/// phase and keeps their connections open.
pub(crate) fn best_static(day: Day, tenants: usize, slots: usize, requests: usize, seed: u64) -> f64 {
    let trace = Trace::new(day, tenants, requests, seed);
    let (phases, warm) = (trace.phases(), requests / 5);
    let mut counts = vec![vec![0_usize; tenants]; phases.len()];
    for (time, tenant) in trace.enumerate() {
        let phase = phases.partition_point(|&end| end <= time);
        counts[phase][tenant] += usize::from(time >= warm);
    }
    let mut hits = 0;
    for mut counts in counts {
        counts.sort_unstable_by(|a, b| b.cmp(a));
        hits += counts.iter().take(slots).sum::<usize>();
    }
    1.0 - hits as f64 / (requests - warm) as f64
}

trait Choice {
    fn used(&mut self, tenant: usize, time: u64);
    /// Which of these connections costs least to evict.
    fn victim(&mut self, open: &[usize]) -> usize;
}

fn least<K: PartialOrd>(open: &[usize], mut key: impl FnMut(usize) -> K) -> usize {
    let mut best = 0;
    let mut least = key(open[0]);
    for (index, &tenant) in open.iter().enumerate().skip(1) {
        let one = key(tenant);
        if one < least {
            (best, least) = (index, one);
        }
    }
    best
}

struct LeastRecent(Vec<u64>);

impl Choice for LeastRecent {
    fn used(&mut self, tenant: usize, time: u64) {
        self.0[tenant] = time;
    }
    fn victim(&mut self, open: &[usize]) -> usize {
        least(open, |tenant| self.0[tenant])
    }
}

struct LeastFrequent(Vec<(u64, u64)>);

impl Choice for LeastFrequent {
    fn used(&mut self, tenant: usize, time: u64) {
        self.0[tenant] = (self.0[tenant].0 + 1, time);
    }
    fn victim(&mut self, open: &[usize]) -> usize {
        least(open, |tenant| self.0[tenant])
    }
}

/// The arbiter's own rule.
struct Halving {
    tracker: FrequencyTracker<usize>,
    uses: Vec<u64>,
    counts: Vec<Option<Frequency>>,
    last: Vec<u64>,
}

impl Choice for Halving {
    fn used(&mut self, tenant: usize, time: u64) {
        let (tracker, uses) = (&mut self.tracker, &mut self.uses[tenant]);
        self.counts[tenant].get_or_insert_with(|| tracker.recall(&tenant, *uses));
        *uses += 1;
        self.last[tenant] = time;
    }
    fn victim(&mut self, open: &[usize]) -> usize {
        let (tracker, counts) = (&mut self.tracker, &mut self.counts);
        let victim = least(open, |tenant| {
            let count = counts[tenant].as_mut();
            let count = count.map(|count| tracker.read(count, self.uses[tenant]));
            (count, self.last[tenant])
        });
        tracker.age();
        if let Some(count) = counts[open[victim]].take() {
            tracker.remember(open[victim], count);
        }
        victim
    }
}

struct DynamicAgeing {
    age: u64,
    keys: Vec<Option<(u64, u64)>>,
}

impl Choice for DynamicAgeing {
    fn used(&mut self, tenant: usize, time: u64) {
        let count = self.keys[tenant].map_or(self.age, |(count, _)| count);
        self.keys[tenant] = Some((count + 1, time));
    }
    fn victim(&mut self, open: &[usize]) -> usize {
        let victim = least(open, |tenant| self.keys[tenant]);
        if let Some((count, _)) = self.keys[open[victim]].take() {
            self.age = count;
        }
        victim
    }
}

struct SecondToLast(Vec<(u64, u64)>);

impl Choice for SecondToLast {
    fn used(&mut self, tenant: usize, time: u64) {
        self.0[tenant] = (self.0[tenant].1, time + 1);
    }
    fn victim(&mut self, open: &[usize]) -> usize {
        least(open, |tenant| self.0[tenant])
    }
}
