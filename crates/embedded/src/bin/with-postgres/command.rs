//! The command: what it is told, and how signals reach it.

use std::{
    ffi::OsString,
    io::IsTerminal,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::Context;
use pg::ConnectTarget;
use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret;
use tokio::{
    process::{Child, Command},
    signal::unix::{self, SignalKind},
};

/// How long the command may take to end after a signal before it is killed.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Carried by every process that the command starts, so that those it leaves behind can be told.
pub(crate) const MARKER: &str = "TENANTRY_TEST_RUN";

/// What the command finds in its environment.
pub(crate) struct Run {
    pub(crate) marker: String,
    variables: Vec<(&'static str, OsString)>,
}

impl Run {
    pub(crate) fn new(target: &ConnectTarget, tmp: &Path) -> Self {
        let marker = format!("{:032x}", rand::random::<u128>());
        let variables = vec![
            ("TENANTRY_TEST_PGHOST", target.host.clone().into()),
            ("TENANTRY_TEST_PGPORT", target.port.to_string().into()),
            ("TENANTRY_TEST_PGUSER", target.user.clone().into()),
            ("TENANTRY_TEST_PGPASSWORD", target.password.expose_secret().into()),
            ("TMPDIR", PathBuf::from(tmp).into()),
            (MARKER, marker.clone().into()),
        ];
        Self { marker, variables }
    }
}

/// The signals that ask this process to end.
pub(crate) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hang_up: unix::Signal,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hang_up: unix::signal(SignalKind::hangup())?,
        })
    }

    /// The next one, and whether the terminal sent it to the command as well.
    async fn next(&mut self) -> (Signal, bool) {
        tokio::select! {
            _ = self.interrupt.recv() => (Signal::INT, std::io::stdin().is_terminal()),
            _ = self.terminate.recv() => (Signal::TERM, false),
            _ = self.hang_up.recv() => (Signal::HUP, std::io::stdin().is_terminal()),
        }
    }
}

/// Runs the command to its end and returns its exit code, or 128 and the number of the signal that ended it.
pub(crate) async fn run(command: &[OsString], run: &Run, mut signals: Signals) -> anyhow::Result<u8> {
    let (program, arguments) = command.split_first().context("no command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .envs(run.variables.iter().map(|(name, value)| (name, value)))
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let status = wait(&mut child, &mut signals).await?;
    Ok(code(status))
}

async fn wait(child: &mut Child, signals: &mut Signals) -> anyhow::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            (signal, delivered) = signals.next() => {
                if !delivered {
                    pass_on(child, signal);
                }
                // A second signal goes through as well: many programs end at once on the second.
                tokio::select! {
                    status = child.wait() => return Ok(status?),
                    (signal, delivered) = signals.next() => if !delivered { pass_on(child, signal) },
                    () = tokio::time::sleep(END_LIMIT) => child.start_kill()?,
                }
            }
        }
    }
}

fn pass_on(child: &Child, signal: Signal) {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended in this moment.
        let _ = kill_process(pid, signal);
    }
}

fn code(status: ExitStatus) -> u8 {
    let number = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    u8::try_from(number).unwrap_or(1)
}
