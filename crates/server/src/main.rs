//! `tenantd`: serves the HTTP API and runs durable operations.

use std::path::PathBuf;

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
    let settings = Settings::load(arguments.config.as_deref(), std::env::vars())?;
    server::logging::start(&settings.log)?;
    server::startup::run(settings).await
}
