//! The scenarios.

mod cancel;
mod dead_server;
mod morning;
mod noisy;
mod oversubscribed;
mod resident;
mod tenancy_cost;
mod turns;
mod warm_checkout;
mod zipf;

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde_json::json;
use tokio::time::Instant;

pub(crate) use self::turns::{Pace, Rounds, median_qps, of, put_sides, ratio, take_turns};
use crate::fleet::{Fleet, Host};

/// The scenarios in the order of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Scenario {
    Resident,
    WarmCheckout,
    Oversubscribed,
    Noisy,
    Cancel,
    DeadServer,
    Zipf,
    Morning,
    TenancyCost,
}

impl Scenario {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// A run: the registry, and the servers that more than one scenario uses.
pub(crate) struct Bench {
    pub(crate) fleet: Fleet,
    pub(crate) pace: Pace,
    /// Few slots.
    small: Option<Host>,
    /// A thousand laboratories.
    crowd: Option<Host>,
}

impl Bench {
    pub(crate) async fn start(quick: bool) -> anyhow::Result<Self> {
        let pace = if quick {
            Pace {
                quick,
                rounds: 1,
                warm: Duration::from_millis(500),
                slice: Duration::from_secs(2),
            }
        } else {
            Pace {
                quick,
                rounds: 3,
                warm: Duration::from_secs(1),
                slice: Duration::from_secs(4),
            }
        };
        // Other programs on the machine slow down all sides, and not all of them by the same.
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        eprintln!(
            "{processors} processors, load average {} before the start",
            load.split_whitespace().next().unwrap_or("unknown"),
        );
        Ok(Self {
            fleet: Fleet::start().await?,
            pace,
            small: None,
            crowd: None,
        })
    }

    /// Runs the named scenarios, or all. If one fails, the next still runs.
    pub(crate) async fn run(&mut self, named: &[Scenario]) -> anyhow::Result<()> {
        let begun = Instant::now();
        let (mut missed, mut broken) = (Vec::new(), Vec::new());
        for scenario in Scenario::value_variants() {
            if !named.is_empty() && !named.contains(scenario) {
                continue;
            }
            match self.one(*scenario).await {
                Ok(true) => {}
                Ok(false) => missed.push(scenario.name()),
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

    /// Returns whether its targets were reached.
    async fn one(&mut self, scenario: Scenario) -> anyhow::Result<bool> {
        let (fleet, pace) = (&self.fleet, self.pace);
        match scenario {
            Scenario::Resident => resident::run(fleet, pace).await,
            Scenario::WarmCheckout => warm_checkout::run(fleet, pace).await,
            Scenario::Oversubscribed => {
                let small = need(&mut self.small, fleet.small()).await?;
                oversubscribed::run(fleet, small, pace).await
            }
            Scenario::Noisy => {
                let small = need(&mut self.small, fleet.small()).await?;
                noisy::run(fleet, small, pace).await
            }
            Scenario::Cancel => {
                let small = need(&mut self.small, fleet.small()).await?;
                cancel::run(fleet, small, pace).await
            }
            Scenario::DeadServer => dead_server::run(fleet, pace).await,
            Scenario::Zipf => {
                let crowd = need(&mut self.crowd, fleet.crowd()).await?;
                let some = zipf::run(fleet, crowd, 300, pace).await?;
                let many = zipf::run(fleet, crowd, 1_000, pace).await?;
                Ok(some && many)
            }
            Scenario::Morning => {
                let crowd = need(&mut self.crowd, fleet.crowd()).await?;
                morning::run(fleet, crowd, pace).await
            }
            Scenario::TenancyCost => tenancy_cost::run(pace).await,
        }
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for host in [self.small, self.crowd].into_iter().flatten() {
            host.stop().await?;
        }
        self.fleet.stop().await
    }
}

/// The server, made when a scenario first needs it.
async fn need(
    place: &mut Option<Host>,
    make: impl Future<Output = anyhow::Result<Host>>,
) -> anyhow::Result<&Host> {
    if place.is_none() {
        *place = Some(make.await?);
    }
    place.as_ref().context("a server was made just before")
}
