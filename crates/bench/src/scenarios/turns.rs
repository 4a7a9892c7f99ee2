//! How the sides of a scenario take turns.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use crate::{
    fleet::{Fleet, Host},
    measure::median,
    peers::{Peer, Side, Tuning},
    report::{self, Outcome, Round},
    sampler::Sampler,
};

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    /// Before each side's slice; does not count.
    pub(crate) warm: Duration,
    /// Each side's turn in a round.
    pub(crate) slice: Duration,
}

/// One side's rounds.
pub(crate) struct Rounds {
    pub(crate) side: Side,
    pub(crate) rounds: Vec<Round>,
    pub(crate) config: Value,
}

/// Lets every side run `measure` in turn, round after round, each on a server without connections of the side
/// before.
pub(crate) async fn take_turns(
    fleet: &Fleet,
    host: &Host,
    tenants: usize,
    tuning: Tuning,
    pace: Pace,
    sides: &[Side],
    measure: impl AsyncFn(&Arc<dyn Peer>) -> anyhow::Result<Round>,
) -> anyhow::Result<Vec<Rounds>> {
    let mut all: Vec<Rounds> = sides
        .iter()
        .map(|side| Rounds {
            side: *side,
            rounds: Vec::new(),
            config: Value::Null,
        })
        .collect();
    // PgBouncer's clients stay connected from round to round; the other sides start anew.
    let mut bouncer = None;
    for round in 0..pace.rounds {
        for turn in 0..all.len() {
            // So that no side always follows the same one.
            let of = &mut all[(turn + round) % sides.len()];
            let (peer, config) = match bouncer.clone() {
                Some(open) if of.side == Side::PgBouncer => open,
                _ => of.side.open(fleet, host, tenants, tuning).await?,
            };
            if of.side == Side::PgBouncer {
                bouncer = Some((Arc::clone(&peer), config.clone()));
            }
            let sampler = Sampler::start(host).await?;
            let measured = measure(&peer).await;
            let seen = sampler.stop().await?;
            peer.rest().await?;
            drop(peer);
            host.wait_until_empty().await?;
            let mut measured = measured?;
            measured.seen = seen;
            eprintln!(
                "  round {}: {:<9} {:>8.0} q/s, {} errors",
                round + 1,
                of.side.name(),
                measured.qps,
                measured.errors
            );
            of.rounds.push(measured);
            of.config = config;
        }
    }
    Ok(all)
}

/// Puts every side into the outcome.
pub(crate) fn put_sides(outcome: &mut Outcome, all: &[Rounds]) {
    for of in all {
        outcome.put(of.side.name(), report::side(&of.rounds, of.config.clone()));
    }
}

pub(crate) fn of(all: &[Rounds], side: Side) -> &[Round] {
    all.iter()
        .find(|of| of.side == side)
        .map_or(&[], |of| of.rounds.as_slice())
}

/// The median over rounds of our rate divided by the other side's rate in the same round.
pub(crate) fn ratio(ours: &[Round], other: &[Round]) -> f64 {
    let paired: Vec<f64> = ours
        .iter()
        .zip(other)
        .map(|(ours, other)| ours.qps / other.qps.max(f64::MIN_POSITIVE))
        .collect();
    median(&paired)
}

pub(crate) fn median_qps(rounds: &[Round]) -> f64 {
    median(&rounds.iter().map(|round| round.qps).collect::<Vec<_>>())
}
