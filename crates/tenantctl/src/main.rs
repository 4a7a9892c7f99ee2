//! `tenantctl`: the platform from the terminal. The same operations as the API, run here with progress.
//!
//! Invariants: standard output carries the answer and nothing else, with `--json` exactly one document; every
//! message goes to standard error; the exit code says what kind of end it was, as `--help` lists. An
//! operation that is interrupted here stays whole and can be taken up again. There is no SQL here: the
//! registry and the provisioner do the work.

mod cli;
mod commands;
mod context;
mod find;
mod foreground;
mod outcome;
mod output;
mod password;
mod view;

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let out = output::Out::new(&cli.global);
    let ended = commands::run(cli, &out).await;
    outcome::report(&out, ended)
}
