//! 16 laboratories with a request now and then, beside one whose 32 clients occupy every slot that they can
//! get.
//!
//! A side's figures are those of the quiet laboratories; the figures of the noisy one stand beside them.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{Pace, Rounds, of, put_sides, take_turns};
use crate::{
    fleet::{Fleet, Host},
    load::{self, Client},
    measure::{Tally, count, median, total},
    peers::{NaiveTuning, Side, Tuning, Work, once},
    report::{Outcome, Round, Target, three},
};

const QUIET: usize = 16;
const NOISY_CLIENTS: usize = 32;
/// Between two requests of a quiet client.
const THINK: Duration = Duration::from_millis(50);
const QUIET_P99_MAX: Duration = Duration::from_millis(100);
/// The quiet tenant that was served least, against the mean of all.
const LEAST_MIN: f64 = 0.8;
/// The share of the slot time left by the quiet tenants that the noisy one must get.
const SLACK_MIN: f64 = 0.9;
const CONNECTS: usize = 40;

pub(crate) async fn run(fleet: &Fleet, host: &Host, pace: Pace) -> anyhow::Result<bool> {
    let quiet = (0..QUIET).map(|tenant| Client {
        tenant,
        work: Work::Point,
        think: THINK,
    });
    let noisy: Vec<Client> = (0..NOISY_CLIENTS)
        .map(|_| Client {
            tenant: QUIET,
            work: Work::Sleep,
            think: Duration::ZERO,
        })
        .collect();
    let clients: Vec<Client> = quiet.chain(noisy.iter().copied()).collect();
    let tuning = Tuning {
        naive: NaiveTuning {
            pools: host.budget / 2,
            size: 2,
            places: NOISY_CLIENTS + QUIET,
        },
        // With all eight the noisy tenant would never leave room; with half, the quiet ones share the other
        // half.
        bouncer_pool: host.budget / 2,
        clients: NOISY_CLIENTS,
    };
    let connect = connect_seconds(host).await?;
    let all = take_turns(fleet, host, QUIET + 1, tuning, pace, &Side::ALL, async |peer| {
        let alone = load::closed(peer, &noisy, pace.warm / 2, pace.slice / 2).await;
        let alone = total(Tally::sum(&alone).done) / (pace.slice / 2).as_secs_f64();
        let tallies = load::closed(peer, &clients, pace.warm, pace.slice).await;
        Ok(round(
            &tallies,
            alone,
            connect,
            host.budget,
            pace.slice.as_secs_f64(),
        ))
    })
    .await?;
    let mut outcome = Outcome::new("noisy", QUIET + 1, host.budget);
    put_sides(&mut outcome, &all);
    outcome.put("connect_and_query_us", json!((connect * 1e6).round()));
    judge(&mut outcome, &all);
    outcome.print()
}

/// One log-in and query on an idle machine: the most slot time that a quiet request costs.
async fn connect_seconds(host: &Host) -> anyhow::Result<f64> {
    let config = host.tenants[0]
        .target
        .to_config("bench connect", crate::fleet::CONNECT_LIMIT);
    let mut each = Vec::new();
    for _ in 0..CONNECTS {
        let begun = Instant::now();
        once(&config, Work::Point)
            .await
            .map_err(|failure| anyhow::anyhow!("cannot connect: {}", failure.kind))?;
        each.push(begun.elapsed().as_secs_f64());
        host.wait_until_empty().await?;
    }
    Ok(median(&each))
}

fn round(tallies: &[Tally], alone: f64, connect: f64, budget: usize, seconds: f64) -> Round {
    let (quiet, noisy) = tallies.split_at(QUIET);
    let shares: Vec<f64> = quiet.iter().map(|tally| total(tally.done)).collect();
    let mut round = Round::new(&Tally::sum(quiet), seconds, &shares, Default::default());
    let noisy = Tally::sum(noisy);
    round.errors += noisy.failed();
    for (kind, number) in &noisy.errors {
        *round.errors_by.entry(kind.clone()).or_default() += number;
    }
    let noisy_qps = total(noisy.done) / seconds;
    // The part of all slot time that the quiet ones need if each of their requests takes a slot from the
    // noisy one, which connects again afterwards.
    let needed = (round.qps * 2.0 * connect / count(budget)).min(1.0);
    round.more.insert("noisy_qps", noisy_qps);
    round.more.insert("noisy_alone_qps", alone);
    round.more.insert(
        "slack_used",
        noisy_qps / (alone * (1.0 - needed)).max(f64::MIN_POSITIVE),
    );
    let mean = shares.iter().sum::<f64>() / count(QUIET);
    let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
    round
        .more
        .insert("least_to_mean", least / mean.max(f64::MIN_POSITIVE));
    round
}

fn judge(outcome: &mut Outcome, all: &[Rounds]) {
    let ours = of(all, Side::Ours);
    let middle = |figure: &dyn Fn(&Round) -> f64| median(&ours.iter().map(figure).collect::<Vec<_>>());
    let more = |name: &'static str| middle(&|round| round.more.get(name).copied().unwrap_or(0.0));
    let p99 = middle(&|round| round.p99_us);
    outcome.target(Target::new(
        &format!("quiet p99 at most {} ms", QUIET_P99_MAX.as_millis()),
        format!("{:.1} ms", p99 / 1e3),
        !ours.is_empty() && p99 <= QUIET_P99_MAX.as_secs_f64() * 1e6,
    ));
    outcome.target(Target::new(
        &format!("no quiet tenant starved: the least served at least {LEAST_MIN} of the mean"),
        three(more("least_to_mean")),
        more("least_to_mean") >= LEAST_MIN,
    ));
    outcome.target(Target::new(
        &format!("the noisy tenant uses at least {SLACK_MIN} of what the quiet ones leave"),
        format!(
            "{:.2} ({:.0} of {:.0} q/s alone)",
            more("slack_used"),
            more("noisy_qps"),
            more("noisy_alone_qps")
        ),
        more("slack_used") >= SLACK_MIN,
    ));
    outcome.target(Target::no_errors(ours));
}
