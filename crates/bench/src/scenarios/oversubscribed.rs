//! 40 laboratories that ask without a pause, and 8 slots.

use std::time::Duration;

use super::{Pace, Rounds, median_qps, of, put_sides, ratio, take_turns};
use crate::{
    fleet::{Fleet, Host},
    load::{self, Client},
    measure::{Tally, total},
    peers::{NaiveTuning, Side, Tuning, Work},
    report::{Outcome, Round, Target, three},
};

const TENANTS: usize = 40;
const QPS_MIN: f64 = 25_000.0;
const TIMES_MIN: f64 = 50.0;
const WAIT_MAX: Duration = Duration::from_millis(500);
const JAIN_MIN: f64 = 0.98;

pub(crate) async fn run(fleet: &Fleet, host: &Host, pace: Pace) -> anyhow::Result<bool> {
    let clients: Vec<Client> = (0..TENANTS)
        .map(|tenant| Client {
            tenant,
            work: Work::Point,
            think: Duration::ZERO,
        })
        .collect();
    let tuning = Tuning {
        // With a pool for each slot, the server would refuse more connections, because closing ones still
        // count.
        naive: NaiveTuning {
            pools: host.budget * 3 / 4,
            size: 1,
            places: host.budget * 3 / 4,
        },
        bouncer_pool: 1,
        clients: 1,
    };
    let all = take_turns(fleet, host, TENANTS, tuning, pace, &Side::ALL, async |peer| {
        let tallies = load::closed(peer, &clients, pace.warm, pace.slice).await;
        let shares: Vec<f64> = tallies.iter().map(|tally| total(tally.done)).collect();
        let seconds = pace.slice.as_secs_f64();
        Ok(Round::new(
            &Tally::sum(&tallies),
            seconds,
            &shares,
            Default::default(),
        ))
    })
    .await?;
    let mut outcome = Outcome::new("oversubscribed", TENANTS, host.budget);
    put_sides(&mut outcome, &all);
    judge(&mut outcome, &all, host.budget);
    outcome.print()
}

fn judge(outcome: &mut Outcome, all: &[Rounds], budget: usize) {
    let ours = of(all, Side::Ours);
    let qps = median_qps(ours);
    let times = [Side::PgBouncer, Side::Naive]
        .map(|side| ratio(ours, of(all, side)))
        .into_iter()
        .fold(f64::INFINITY, f64::min);
    outcome.put("times_best_peer", three(times));
    outcome.target(Target::new(
        &format!("at least {QPS_MIN} q/s"),
        qps.round(),
        qps >= QPS_MIN,
    ));
    outcome.target(Target::new(
        &format!("at least {TIMES_MIN} times the better of PgBouncer and naive"),
        format!("{times:.1}"),
        times >= TIMES_MIN,
    ));
    let longest = ours.iter().map(|round| round.max_us).max().unwrap_or(u64::MAX);
    outcome.target(Target::new(
        &format!("longest wait at most {} ms", WAIT_MAX.as_millis()),
        format!("{} ms", longest / 1_000),
        u128::from(longest) <= WAIT_MAX.as_micros(),
    ));
    let fair = crate::measure::median(&ours.iter().filter_map(|round| round.jain).collect::<Vec<_>>());
    outcome.target(Target::new(
        &format!("Jain index at least {JAIN_MIN}"),
        format!("{fair:.3}"),
        fair >= JAIN_MIN,
    ));
    outcome.target(Target::backends(ours, budget));
    outcome.target(Target::no_errors(ours));
}
