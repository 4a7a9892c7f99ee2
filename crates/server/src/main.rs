//! `tenantd`: serves the HTTP API and runs durable operations.

use std::{ffi::OsString, path::PathBuf};

use clap::Parser;
use settings::Settings;

/// Serves Tenantry's HTTP API and runs its operations on laboratories. Prepare the registry with `tenantctl up` first.
/// Everything is configured by environment variables or a TOML file; `tenantctl config show` lists what is in force.
#[derive(Debug, Parser)]
#[command(name = "tenantd", version)]
struct Arguments {
    /// The TOML file with the settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // A variable that is not UTF-8 belongs to somebody else, and is no reason to panic.
    let lossy = |text: OsString| text.to_string_lossy().into_owned();
    let env = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value)));
    let settings = Settings::load(arguments.config.as_deref(), env)?;
    let _lines = server::logging::start(&settings.log)?;
    server::startup::run(settings).await
}
