//! Measures the life of a laboratory beside what PostgreSQL's own means take for the same: making one,
//! archiving it, bringing it back, looking whether all is in order.
//!
//! Everything runs on this machine's loopback, on a private PostgreSQL with the settings that a careful
//! operator has (fsync on). Both sides of a scenario take turns in one run on the same server. It judges
//! nothing but the figures it has just seen.

mod harness;
mod report;
mod scenarios;

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Parser;

use crate::scenarios::Scenario;

/// Measures the life of a laboratory beside PostgreSQL's own means, all on this machine.
///
/// Figures for people go to stderr, one JSON object for each scenario to stdout. The servers' data lie under
/// TMPDIR.
#[derive(Debug, Parser)]
#[command(name = "lifecycle-bench")]
struct Arguments {
    /// A few seconds for each scenario: to see that it works, not to quote.
    #[arg(long)]
    quick: bool,
    /// Only this scenario; may be given more than once.
    #[arg(long, value_enum)]
    scenario: Vec<Scenario>,
    /// The programs of another server for the scenario `clone`; may be given more than once. The newest
    /// installed otherwise.
    #[arg(long)]
    pg_bin: Vec<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into()),
        )
        .init();
    let ended = tokio::select! {
        ended = scenarios::run(&arguments.scenario, arguments.quick, &arguments.pg_bin) => ended,
        interrupted = interrupted() => interrupted,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
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
