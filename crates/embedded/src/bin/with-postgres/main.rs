//! `with-postgres -- COMMAND`: runs a command beside a throw-away PostgreSQL, and fails when it leaves
//! anything behind.
//!
//! Why: tests share one server for their run, each with databases of its own, and a test that forgets one, or
//! a process or a directory, must not pass. The command learns where the server is from `TENANTRY_TEST_PG*`.

mod command;
mod leftovers;

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use embedded::{Cluster, ThrowawayOptions};

/// Runs a command beside a throw-away PostgreSQL cluster.
///
/// The command gets TENANTRY_TEST_PGHOST, _PGPORT, _PGUSER and _PGPASSWORD (a superuser's), and a TMPDIR of
/// its own. The exit code is the command's; when that is 0 but databases, roles, files in TMPDIR or processes
/// are left, it is 1 and they are named.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Where the cluster's directory is made [default: the system's place for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A server parameter, such as max_connections=500; may be given several times
    #[arg(short = 'c', value_name = "NAME=VALUE", value_parser = parse_parameter)]
    parameters: Vec<(String, String)>,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

fn parse_parameter(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "write it as NAME=VALUE".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("with-postgres: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<ExitCode> {
    // Before the server starts, so that a signal from now on ends the command and not this process.
    let signals = command::Signals::new().context("cannot watch for signals")?;
    let cluster = Cluster::start_throwaway(ThrowawayOptions {
        parent: options.dir,
        bin: std::env::var_os("TENANTRY_PG_BIN").map(PathBuf::from),
        parameters: options.parameters,
    })
    .await?;
    let tmp = make_tmp(cluster.dir())?;
    let run = command::Run::new(cluster.target(), &tmp);
    let code = command::run(&options.command, &run, signals).await;
    let left = leftovers::find(cluster.target(), &tmp, &run.marker).await;
    // In this order, so that everything is removed whatever failed above.
    let removed = fs::remove_dir_all(&tmp).with_context(|| format!("cannot remove {}", tmp.display()));
    let stopped = cluster.stop().await;
    let (code, left) = (code?, left?);
    removed?;
    stopped?;
    for line in &left {
        eprintln!("with-postgres: left behind: {line}");
    }
    Ok(if code == 0 && !left.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::from(code)
    })
}

/// A directory for temporary files, open to every account as the system's is: tests start servers as another
/// one.
fn make_tmp(dir: &Path) -> anyhow::Result<PathBuf> {
    let tmp = dir.join("tmp");
    fs::create_dir(&tmp)
        .and_then(|()| fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777)))
        .with_context(|| format!("cannot make {}", tmp.display()))?;
    Ok(tmp)
}
