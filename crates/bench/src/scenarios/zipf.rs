//! Many laboratories, a few of them busy (Zipf with exponent 1), on a server of 100 connections. Requests
//! arrive by the clock, faster and faster until a side no longer keeps up.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::{Pace, Rounds, median_qps, of, put_sides, ratio, take_turns};
use crate::{
    ceiling,
    fleet::{Fleet, Host},
    load,
    measure::{Tally, count, median, total},
    peers::{NaiveTuning, Peer, Side, Tuning},
    report::{Outcome, Round, Target, rounded, three},
};

/// Requests under way at once: more than there are slots, so that requests wait for slots.
const WORKERS: usize = 256;
const RATE_FIRST: f64 = 150.0;
const RATE_GROWTH: f64 = 1.5;
const STEPS_MAX: usize = 14;
/// A side keeps up while it answers this part of what arrives.
const KEEPS_UP: f64 = 0.9;
/// Below this share of the bare connect rate, something else than connecting would limit `direct`.
const DIRECT_TO_BARE_MIN: f64 = 0.8;
/// Misses may exceed those of the best static choice by this factor.
const MISSES_MAX: f64 = 1.05;

pub(crate) async fn run(fleet: &Fleet, host: &Host, tenants: usize, pace: Pace) -> anyhow::Result<bool> {
    let length = if pace.quick { 500 } else { 1_500 };
    let bare =
        async || ceiling::connects_per_second(&host.tenants[..tenants], Duration::from_millis(length)).await;
    let before = bare().await;
    let zipf = Arc::new(Zipf::new(tenants));
    let tuning = Tuning {
        naive: NaiveTuning::many(host.budget),
        bouncer_pool: 4,
        clients: WORKERS,
    };
    let step = if pace.quick {
        pace.slice / 4
    } else {
        pace.slice / 5
    };
    let all = take_turns(fleet, host, tenants, tuning, pace, &Side::ALL, async |peer| {
        Ok(rise(peer, &zipf, step, pace.slice).await)
    })
    .await?;
    // Measured again, and the mean of both is used: a shared machine is not equally fast at all times.
    let bare = f64::midpoint(before, bare().await);
    let mut outcome = Outcome::new("zipf", tenants, host.budget);
    put_sides(&mut outcome, &all);
    outcome.put("max_connections", json!(host.max_connections));
    outcome.put("workers", json!(WORKERS));
    outcome.put("bare_connects_per_second", rounded(bare));
    let direct = median_qps(of(&all, Side::Direct)) / bare.max(f64::MIN_POSITIVE);
    outcome.put("direct_to_bare", three(direct));
    outcome.put(
        "direct_is_as_fast_as_it_can_be",
        json!(direct >= DIRECT_TO_BARE_MIN),
    );
    outcome.target(Target::backends(of(&all, Side::Ours), host.budget));
    judge(
        &mut outcome,
        &all,
        zipf.beyond(host.budget),
        if tenants > 300 { 2.5 } else { 4.0 },
    );
    outcome.print()
}

/// Raises the rate until the side does not keep up, then drives it past that for one slice: the goodput.
async fn rise(peer: &Arc<dyn Peer>, zipf: &Arc<Zipf>, step: Duration, slice: Duration) -> Round {
    let pick = {
        let zipf = Arc::clone(zipf);
        move || zipf.pick()
    };
    let mut rate = RATE_FIRST;
    let mut kept: Option<Round> = None;
    let mut all = Tally::default();
    for _ in 0..STEPS_MAX {
        let connects = peer.connects();
        let tally = load::open(peer, pick.clone(), WORKERS, rate, step).await;
        let seconds = step.as_secs_f64();
        let mut round = Round::new(&tally, seconds, &[], Default::default());
        all.add(&tally);
        if round.qps < KEEPS_UP * rate {
            break;
        }
        round.more.insert("kept_up_with", rate);
        misses(
            &mut round,
            "misses_keeping_up",
            connects,
            peer.connects(),
            tally.done,
        );
        kept = Some(round);
        rate *= RATE_GROWTH;
    }
    // Half a slice unmeasured: a side that learns which tenants are busy needs requests at this rate.
    all.add(&load::open(peer, pick.clone(), WORKERS, rate * RATE_GROWTH, slice / 2).await);
    let connects = peer.connects();
    let tally = load::open(peer, pick, WORKERS, rate * RATE_GROWTH, slice).await;
    let mut full = Round::new(&tally, slice.as_secs_f64(), &[], Default::default());
    misses(&mut full, "misses", connects, peer.connects(), tally.done);
    all.add(&tally);
    // Latencies at the highest rate it kept up with: past it they only say how long the overload lasted.
    if let Some(kept) = kept {
        full.p50_us = kept.p50_us;
        full.p99_us = kept.p99_us;
        full.max_us = kept.max_us;
        full.more.extend(kept.more);
    }
    full.errors = all.failed();
    full.errors_by = all.errors;
    full.refused = all.refused;
    full
}

fn misses(round: &mut Round, name: &'static str, before: Option<u64>, after: Option<u64>, done: u64) {
    if let (Some(before), Some(after)) = (before, after)
        && done > 0
    {
        round.more.insert(name, total(after - before) / total(done));
    }
}

fn judge(outcome: &mut Outcome, all: &[Rounds], static_misses: f64, times_min: f64) {
    let ours = of(all, Side::Ours);
    outcome.target(Target::no_errors(ours));
    let best = [Side::PgBouncer, Side::Naive, Side::Direct]
        .into_iter()
        .filter(|side| of(all, *side).iter().all(|round| round.errors == 0))
        .max_by(|a, b| median_qps(of(all, *a)).total_cmp(&median_qps(of(all, *b))));
    match best {
        Some(side) => {
            let times = ratio(ours, of(all, side));
            outcome.put("times_best_peer", three(times));
            outcome.put("best_peer_without_errors", json!(side.name()));
            outcome.target(Target::new(
                &format!(
                    "at least {times_min} times the best peer without errors ({})",
                    side.name()
                ),
                format!("{times:.2}"),
                times >= times_min,
            ));
        }
        None => outcome.target(Target::new(
            "a peer without errors to compare with",
            "none",
            false,
        )),
    }
    let figures = |name: &str| {
        let all: Vec<f64> = ours
            .iter()
            .filter_map(|round| round.more.get(name).copied())
            .collect();
        median(&all)
    };
    let misses = figures("misses");
    outcome.put("misses_best_static", three(static_misses));
    outcome.target(Target::new(
        &format!("misses at most {MISSES_MAX} times the best static choice's ({static_misses:.3})"),
        format!("{misses:.3}, keeping up {:.3}", figures("misses_keeping_up")),
        misses <= MISSES_MAX * static_misses && misses > 0.0,
    ));
}

/// The k-th of n is asked for with a probability proportional to 1/k.
struct Zipf {
    /// Sums of the probabilities.
    sums: Vec<f64>,
}

impl Zipf {
    fn new(n: usize) -> Self {
        let harmonic: f64 = (1..=n).map(|k| 1.0 / count(k)).sum();
        let sums = (1..=n).scan(0.0, |sum, k| {
            *sum += 1.0 / count(k) / harmonic;
            Some(*sum)
        });
        Self { sums: sums.collect() }
    }

    fn pick(&self) -> usize {
        let point: f64 = rand::random();
        self.sums
            .partition_point(|sum| *sum <= point)
            .min(self.sums.len() - 1)
    }

    /// The share of requests for tenants other than the `slots` most frequent ones: the misses of the best
    /// static choice, which keeps a connection to each of those for ever.
    fn beyond(&self, slots: usize) -> f64 {
        slots
            .checked_sub(1)
            .map_or(1.0, |last| 1.0 - self.sums.get(last).copied().unwrap_or(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_static_choice_keeps_the_most_frequent() {
        let zipf = Zipf::new(300);
        assert!((zipf.beyond(90) - 0.191).abs() < 0.005, "{}", zipf.beyond(90));
        assert!(zipf.beyond(300).abs() < 1e-9);
        assert!((zipf.beyond(0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_first_is_picked_as_often_as_its_share() {
        let zipf = Zipf::new(10);
        let firsts = (0..100_000).filter(|_| zipf.pick() == 0).count();
        assert!((count(firsts) / 100_000.0 - 0.3414).abs() < 0.02, "{firsts}");
    }
}
