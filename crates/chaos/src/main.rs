//! Kills the real processes at random moments while laboratories are provisioned, backed up, suspended,
//! resumed, offboarded and restored, and checks after each round that nothing was lost, left over or stuck.
//!
//! Two `tenantd` share the work on a private PostgreSQL. Each round requests operations, waits a random time,
//! kills one `tenantd`, both, or PostgreSQL with SIGKILL, starts them again and waits until every operation
//! has ended. Then it compares registry, server and archives with what must be there. The choices follow from
//! the seed. Where in its work a process is hit does not, so the program counts it: a kill counts for a step
//! only if the registry says that the killed process was running it.

mod audit;
mod expected;
mod harness;
mod kill_target;
mod plan;

use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Parser;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;

use crate::{expected::Expected, harness::Harness, kill_target::KillTarget};

/// After how many rounds progress is printed where no terminal shows it all the time.
const PRINT_EVERY: u64 = 25;
/// The longest wait before a kill; most operations take less.
const KILL_WITHIN_MS: u64 = 900;

/// Kills processes at random while laboratories change, and checks that nothing is lost, left over or stuck.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Arguments {
    /// How many rounds.
    #[arg(long, default_value_t = 50)]
    rounds: u64,
    /// The seed of all choices, as an earlier run printed it; a new one unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// The `tenantd` to kill; the one beside this program unless given.
    #[arg(long)]
    tenantd: Option<PathBuf>,
}

/// The counts of a run.
#[derive(Default)]
struct Tally {
    rounds: u64,
    kills: BTreeMap<&'static str, u64>,
    /// Kills that interrupted a step, by kind and step.
    landed: BTreeMap<String, u64>,
    asked: BTreeMap<String, u64>,
    ended: BTreeMap<String, u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| rand::random::<u32>().into());
    eprintln!("chaos: {} rounds, seed {seed}", arguments.rounds);
    let begun = Instant::now();
    let mut tally = Tally::default();
    let outcome = tokio::select! {
        outcome = run(&arguments, seed, &mut tally) => outcome,
        interrupted = interrupted() => interrupted,
    };
    let seconds = begun.elapsed().as_secs();
    println!(
        "{}",
        json!({
            "seed": seed,
            "rounds": tally.rounds,
            "seconds": seconds,
            "kills": tally.kills,
            "landedInStep": tally.landed,
            "asked": tally.asked,
            "ended": tally.ended,
            "clean": outcome.is_ok(),
            "error": outcome.as_ref().err().map(|error| format!("{error:#}")),
        })
    );
    match outcome {
        Ok(()) => {
            eprintln!(
                "chaos: {} rounds in {seconds} s, nothing lost, nothing left over, nothing stuck",
                tally.rounds
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("chaos: round {}: {error:#}", tally.rounds + 1);
            eprintln!("chaos: --seed {seed} makes the same choices again");
            ExitCode::FAILURE
        }
    }
}

async fn interrupted() -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    bail!("interrupted");
}

async fn run(arguments: &Arguments, seed: u64, tally: &mut Tally) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut harness = Harness::start(arguments.tenantd.as_deref()).await?;
    let mut expected = Expected::default();
    let outcome = rounds(arguments.rounds, &mut rng, &mut harness, &mut expected, tally).await;
    if outcome.is_err() {
        harness.keep_logs();
    }
    let stopped = harness.stop().await;
    outcome.and(stopped)
}

async fn rounds(
    count: u64,
    rng: &mut StdRng,
    harness: &mut Harness,
    expected: &mut Expected,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let terminal = std::io::stderr().is_terminal();
    for round in 1..=count {
        let requests = plan::choose(rng, expected);
        for request in requests {
            *tally.asked.entry(request.word().to_owned()).or_default() += 1;
            plan::ask(harness, expected, request).await?;
        }
        let wait = Duration::from_millis(rng.random_range(0..KILL_WITHIN_MS));
        tokio::time::sleep(wait).await;
        let target = KillTarget::choose(rng);
        *tally.kills.entry(target.word()).or_default() += 1;
        for step in harness.kill(target).await? {
            *tally.landed.entry(step).or_default() += 1;
        }
        // Late cancellations meet operations at any point.
        if rng.random_bool(0.3) {
            plan::cancel_one(rng, harness, expected).await?;
        }
        if rng.random_bool(0.3) {
            plan::end_one_grace(rng, harness, expected).await?;
        }
        for (kind, how) in harness.settle(expected).await.context("nothing may be stuck")? {
            *tally.ended.entry(format!("{kind} {how}")).or_default() += 1;
        }
        audit::check(harness, expected).await?;
        tally.rounds = round;
        if terminal {
            eprint!(
                "\rchaos: round {round} of {count}, {} laboratories ",
                expected.laboratories.len()
            );
        } else if round % PRINT_EVERY == 0 {
            eprintln!(
                "chaos: round {round} of {count}, {} laboratories",
                expected.laboratories.len()
            );
        }
    }
    if terminal {
        eprintln!();
    }
    Ok(())
}
