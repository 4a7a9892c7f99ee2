//! Measures the router beside its alternatives: PgBouncer, a map of pools, and a connect for each request.
//!
//! Everything runs on this machine's loopback: private PostgreSQL servers, PgBouncer, and the callers in this
//! process. One run measures all sides of a scenario in turns, on the same databases with the same statement,
//! and a ratio is the median over paired rounds. The program judges nothing but the figures of this run.

mod ceiling;
mod fleet;
mod freeze;
mod load;
mod measure;
mod peers;
mod report;
mod sampler;
mod scenarios;
mod tenants;

use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::scenarios::{Bench, Scenario};

/// Measures the router beside PgBouncer, a map of pools and a connect per request, all on this machine.
///
/// Figures for people go to stderr, one JSON object for each scenario to stdout.
#[derive(Debug, Parser)]
#[command(name = "router-bench")]
struct Arguments {
    /// A few seconds for each scenario: to see that it works, not to quote.
    #[arg(long)]
    quick: bool,
    /// Only this scenario; may be given more than once.
    #[arg(long, value_enum)]
    scenario: Vec<Scenario>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into()),
        )
        .init();
    files_at_most()?;
    peers::check_installed()?;
    let mut bench = Bench::start(arguments.quick).await?;
    let ended = tokio::select! {
        ended = bench.run(&arguments.scenario) => ended,
        interrupted = interrupted() => interrupted,
    };
    let stopped = bench.stop().await;
    ended.and(stopped)
}

/// Raises the limit of open files: a scenario opens some thousand sockets at once.
fn files_at_most() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )?;
    Ok(())
}

async fn interrupted() -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    bail!("interrupted");
}
