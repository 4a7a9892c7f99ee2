//! The scenarios, in the order of the run.

mod archive;
mod clone;
mod doctor;
mod provision;

use std::{path::PathBuf, time::Instant};

use anyhow::ensure;
use clap::ValueEnum;
use serde_json::json;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Scenario {
    ProvisionWarm,
    ProvisionCold,
    ProvisionMany,
    Clone,
    Archive,
    #[value(name = "restore_1gb")]
    Restore1gb,
    Doctor,
}

impl Scenario {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    async fn measure(self, quick: bool, pg_bins: &[PathBuf]) -> anyhow::Result<Vec<crate::report::Outcome>> {
        let one = match self {
            Self::ProvisionWarm => provision::warm(quick).await,
            Self::ProvisionCold => provision::cold(quick).await,
            Self::ProvisionMany => provision::many(quick).await,
            Self::Clone => return clone::clone(quick, pg_bins).await,
            Self::Archive => return archive::archive(quick).await,
            Self::Restore1gb => archive::restore(quick).await,
            Self::Doctor => doctor::measure(quick).await,
        };
        Ok(vec![one?])
    }
}

/// The named scenarios, or all. One that cannot be measured does not keep the next from being.
pub(crate) async fn run(named: &[Scenario], quick: bool, pg_bins: &[PathBuf]) -> anyhow::Result<()> {
    let begun = Instant::now();
    // Other work on the machine takes from both sides, and not from each the same.
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    eprintln!(
        "{processors} processors, load average {} before the start; fsync on",
        load.split_whitespace().next().unwrap_or("unknown"),
    );
    let (mut missed, mut broken) = (Vec::new(), Vec::new());
    for scenario in Scenario::value_variants() {
        if !named.is_empty() && !named.contains(scenario) {
            continue;
        }
        match scenario.measure(quick, pg_bins).await {
            Ok(outcomes) => {
                let reached: Vec<bool> = outcomes.iter().map(crate::report::Outcome::print).collect();
                if reached.contains(&false) {
                    missed.push(scenario.name());
                }
            }
            Err(error) => {
                eprintln!("\n{} could not be measured: {error:#}", scenario.name());
                println!(
                    "{}",
                    json!({ "scenario": scenario.name(), "error": format!("{error:#}") })
                );
                broken.push(scenario.name());
            }
        }
        eprintln!("  ({:.0} s since the start)", begun.elapsed().as_secs_f64());
    }
    match missed.as_slice() {
        [] if broken.is_empty() => eprintln!("\nevery target was reached"),
        _ => eprintln!("\nnot every target was reached in: {}", missed.join(", ")),
    }
    ensure!(broken.is_empty(), "could not be measured: {}", broken.join(", "));
    Ok(())
}
