//! `tenantd`: serves the HTTP API and runs durable operations.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use bootstrap::{Exit, error_text};
use clap::Parser;
use settings::Settings;

/// Serves Tenantry's HTTP API and runs its operations on laboratories. Prepare the registry with `tenantctl
/// up` first. Everything is configured by environment variables or a TOML file; `tenantctl config show` lists
/// what is in force.
#[derive(Debug, Parser)]
#[command(name = "tenantd", version, after_help = EXIT_CODES)]
struct Arguments {
    /// The TOML file with the settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

const EXIT_CODES: &str = "\
Exit codes, as those of tenantctl:
  0    stopped by SIGTERM or SIGINT
  1    failed
  2    wrong usage or configuration
  6    the registry or a server cannot be reached
  130  stopped at once by a second signal";

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error_text(error.as_ref()));
            let exit = error.chain().find_map(Exit::of).unwrap_or(Exit::Failed);
            ExitCode::from(exit.code())
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    // A variable that is not UTF-8 belongs to another program, and is no reason to panic.
    let lossy = |text: OsString| text.to_string_lossy().into_owned();
    let env = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value)));
    let settings = Settings::load(arguments.config.as_deref(), env)?;
    let _lines = server::logging::start(&settings.log)?;
    server::startup::run(settings).await
}
