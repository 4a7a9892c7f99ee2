//! Replays a laboratory's day in virtual time, to choose by figures which connection the arbiter closes and
//! how long a tenant keeps one.
//!
//! ```text
//! cargo run --release -p arbiter --example simulate -- [EXPERIMENT…] [--json] [--quick] [--seed N]
//! ```
//!
//! The experiments are `rules` (which connection to close, by misses alone), and with the arbiter itself on a
//! simulated machine: `zipf`, `pools`, `tenure`, `anticipation`, `grow`, `noisy`, `morning`. Without a name
//! all of them run. The same seed gives the same figures on any machine; those in the notes on `rules` and
//! `frequency` come from the default seed.

mod cache;
mod experiments;
#[path = "../../src/frequency.rs"]
#[expect(dead_code, reason = "a cache without pools has no pool to open again")]
mod frequency;
mod machine;
mod random;
mod simulation;
mod table;
mod trace;

use std::process::ExitCode;

use experiments::{EXPERIMENTS, Options};

fn main() -> ExitCode {
    let mut options = Options::default();
    let mut names = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => options.json = true,
            "--quick" => options.quick = true,
            "--seed" => match words.next().and_then(|seed| seed.parse().ok()) {
                Some(seed) => options.seed = seed,
                None => return usage("--seed takes a number"),
            },
            name if EXPERIMENTS.iter().any(|(known, _)| *known == name) => names.push(word),
            other => return usage(&format!("what is {other}?")),
        }
    }
    for (name, run) in EXPERIMENTS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            run(&options);
        }
    }
    ExitCode::SUCCESS
}

fn usage(trouble: &str) -> ExitCode {
    let names: Vec<&str> = EXPERIMENTS.iter().map(|(name, _)| *name).collect();
    eprintln!(
        "{trouble}\nusage: simulate [{}]… [--json] [--quick] [--seed N]",
        names.join("|")
    );
    ExitCode::from(2)
}
