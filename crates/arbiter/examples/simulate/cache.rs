//! Which connection to close: rules compared by misses alone, without time. A use of a tenant that has no connection is a miss
//! and closes the connection that the rule likes least.

use crate::{
    heat::{Climate, Heat},
    trace::{Day, Trace},
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rule {
    /// Least recently used.
    Lru,
    /// Least frequently used, for ever.
    Lfu,
    /// Least frequently used, halved after so many uses per slot, with so many absent tenants remembered per slot.
    Halving { ageing_uses: u64, memory: usize },
    /// Least frequently used with dynamic ageing: a newcomer starts where the last victim ended (Arlitt et al., 2000).
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
            Self::Lru => Box::new(Recency(vec![0; tenants])),
            Self::Lfu => Box::new(Frequency(vec![(0, 0); tenants])),
            Self::Halving { ageing_uses, memory } => Box::new(Halving {
                climate: Climate::new(ageing_uses * slots as u64, memory * slots),
                uses: vec![0; tenants],
                heats: vec![None; tenants],
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

/// The same for who knows from the start which tenants will be used most in each phase, and keeps their connections open.
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
    /// Which of these is missed least.
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

struct Recency(Vec<u64>);

impl Choice for Recency {
    fn used(&mut self, tenant: usize, time: u64) {
        self.0[tenant] = time;
    }
    fn victim(&mut self, open: &[usize]) -> usize {
        least(open, |tenant| self.0[tenant])
    }
}

struct Frequency(Vec<(u64, u64)>);

impl Choice for Frequency {
    fn used(&mut self, tenant: usize, time: u64) {
        self.0[tenant] = (self.0[tenant].0 + 1, time);
    }
    fn victim(&mut self, open: &[usize]) -> usize {
        least(open, |tenant| self.0[tenant])
    }
}

/// The arbiter's own.
struct Halving {
    climate: Climate<usize>,
    uses: Vec<u64>,
    heats: Vec<Option<Heat>>,
    last: Vec<u64>,
}

impl Choice for Halving {
    fn used(&mut self, tenant: usize, time: u64) {
        let (climate, uses) = (&mut self.climate, &mut self.uses[tenant]);
        self.heats[tenant].get_or_insert_with(|| climate.recall(&tenant, *uses));
        *uses += 1;
        self.last[tenant] = time;
    }
    fn victim(&mut self, open: &[usize]) -> usize {
        let (climate, heats) = (&mut self.climate, &mut self.heats);
        let victim = least(open, |tenant| {
            let heat = heats[tenant].as_mut();
            let heat = heat.map(|heat| climate.read(heat, self.uses[tenant]));
            (heat, self.last[tenant])
        });
        climate.age();
        if let Some(heat) = heats[open[victim]].take() {
            climate.remember(open[victim], heat);
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
