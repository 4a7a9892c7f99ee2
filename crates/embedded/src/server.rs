//! The running server of an owner: started under its supervisor, stopped when dropped.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Stdio},
    thread,
    time::{Duration, Instant},
};

use secrecy::SecretString;

use crate::{
    EmbeddedError, PgBin,
    account::Account,
    initdb,
    layout::{Endpoint, Layout, lock_open, write_whole},
    predecessor::{Shutdown, server_pid, wait_until_gone},
};

const SUPERVISOR: &str = include_str!("supervisor.sh");

/// Recovery after a crash reads at most about `max_wal_size` (1 GB) of log.
const READY_LIMIT: Duration = Duration::from_secs(180);
const POLL_EVERY: Duration = Duration::from_millis(5);
/// A free port can be lost to another process between the look and the start.
const PORT_ATTEMPTS_MAX: u32 = 5;

/// What the cluster decides itself; the caller may not set it.
const RESERVED: &[&str] = &[
    "data_directory",
    "external_pid_file",
    "hba_file",
    "listen_addresses",
    "log_destination",
    "logging_collector",
    "password_encryption",
    "port",
    "unix_socket_directories",
];

/// How to start a server, and how to start it again.
pub(crate) struct Plan {
    pub(crate) layout: Layout,
    pub(crate) bin: Option<PathBuf>,
    pub(crate) parameters: Vec<(String, String)>,
    /// Nobody wants the data afterwards: nothing is written out for later.
    pub(crate) throwaway: bool,
}

/// The server of an owner. Dropping it stops the server, which takes as long as the server needs for it.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) bin: PgBin,
    pub(crate) password: SecretString,
    plan: Plan,
    account: Account,
    // Dropped in this order: nobody else may own the directory before the server is gone.
    running: Running,
    _owner: File,
}

impl Server {
    /// Ends what is left of an earlier server, makes the data if there are none, and starts. Blocks until
    /// ready.
    pub(crate) fn start(plan: Plan, owner: File) -> Result<Self, EmbeddedError> {
        check_parameters(&plan.parameters)?;
        let layout = &plan.layout;
        // Guests must not follow what an earlier owner wrote.
        layout.endpoint_remove()?;
        let data = layout.data();
        let account = Account::choose(&data)?;
        account.check_reach(layout.dir())?;
        let made_by = layout.data_major();
        let bin = PgBin::find_for(plan.bin.as_deref(), made_by.map(|major| (data.as_path(), major)))?;
        let mut attempt = 0;
        loop {
            let lock = lock_open(&layout.server_lock())?;
            let lock = wait_until_gone(layout, lock, Shutdown::Fast, || {})?;
            let password = layout.password_ensure()?;
            initdb::ensure_data(layout, &account, &bin, &password, &lock, !plan.throwaway)?;
            let port = layout.port_choose(attempt)?;
            attempt += 1;
            match Running::launch(&plan, &account, &bin, port, lock) {
                Ok(running) => {
                    return Ok(Self {
                        port,
                        bin,
                        password,
                        plan,
                        account,
                        running,
                        _owner: owner,
                    });
                }
                Err(error) if error.is_lost_port() && attempt < PORT_ATTEMPTS_MAX => {
                    tracing::info!(port, "the port was taken at the last moment; trying another");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the server is gone, unasked. One that only lost its supervisor still serves.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.running.has_ended()
    }

    /// Starts a server that has ended again, on the same port, for its address is known elsewhere. Blocks
    /// until ready; when it fails it may be tried again.
    pub(crate) fn restart(&mut self) -> Result<(), EmbeddedError> {
        self.running.stop()?;
        let layout = &self.plan.layout;
        let lock = lock_open(&layout.server_lock())?;
        let lock = wait_until_gone(layout, lock, Shutdown::Fast, || {})?;
        self.running = Running::launch(&self.plan, &self.account, &self.bin, self.port, lock)?;
        Ok(())
    }

    /// Stops the server and waits until none of its processes is left.
    pub(crate) fn stop(mut self) -> Result<(), EmbeddedError> {
        self.running.stop()
    }
}

/// A supervisor with its server.
struct Running {
    layout: Layout,
    throwaway: bool,
    supervisor: Child,
    /// Closing it is what tells the supervisor to stop the server. `None` once that was done.
    pipe: Option<ChildStdin>,
    /// The server's lock, opened but not held: when it can be taken, no process of the server is left.
    probe: Option<File>,
}

impl Running {
    /// Starts the server, waits until it is ready, and says where it is.
    fn launch(
        plan: &Plan,
        account: &Account,
        bin: &PgBin,
        port: u16,
        lock: File,
    ) -> Result<Self, EmbeddedError> {
        let log_start = plan.layout.log_open(account)?;
        let mut running = Self::spawn(plan, account, bin, port, lock)?;
        running.wait_until_ready(log_start)?;
        plan.layout.endpoint_write(&Endpoint {
            port,
            bin: bin.dir().to_owned(),
        })?;
        Ok(running)
    }

    fn spawn(
        plan: &Plan,
        account: &Account,
        bin: &PgBin,
        port: u16,
        lock: File,
    ) -> Result<Self, EmbeddedError> {
        let layout = &plan.layout;
        // Where it stands already nothing is written: on a full disk that would fail.
        if fs::read(layout.supervisor()).ok().as_deref() != Some(SUPERVISOR.as_bytes()) {
            write_whole(&layout.supervisor(), SUPERVISOR.as_bytes(), 0o644)?;
        }
        let probe = lock_open(&layout.server_lock())?;
        let how = shutdown(plan.throwaway);
        let shell = Path::new("/bin/sh");
        let mut command = account.command(shell, layout.dir());
        command.arg(layout.supervisor()).arg(how.name()).arg(layout.log());
        command.arg(bin.program("postgres")).arg("-D").arg(layout.data());
        for (name, value) in parameters(plan, port) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::from(lock))
            .stderr(Stdio::null())
            // Ctrl-C in a terminal goes to the owner, and the owner decides what becomes of the server.
            .process_group(0);
        let mut supervisor = command.spawn().map_err(|error| EmbeddedError::Program {
            program: shell.to_owned(),
            reason: error.to_string(),
        })?;
        let pipe = supervisor.stdin.take();
        Ok(Self {
            layout: layout.clone(),
            throwaway: plan.throwaway,
            supervisor,
            pipe,
            probe: Some(probe),
        })
    }

    fn wait_until_ready(&mut self, log_start: u64) -> Result<(), EmbeddedError> {
        let start = Instant::now();
        let reason = loop {
            if is_ready(&self.layout.data()) {
                return Ok(());
            }
            match self.supervisor.try_wait() {
                Ok(None) if start.elapsed() > READY_LIMIT => {
                    break format!("it was not ready within {} s", READY_LIMIT.as_secs());
                }
                Ok(None) => thread::sleep(POLL_EVERY),
                Ok(Some(status)) => break format!("it ended with {status}"),
                Err(error) => break error.to_string(),
            }
        };
        Err(EmbeddedError::Start {
            reason,
            log: self.layout.log(),
            tail: self.layout.log_tail(log_start),
        })
    }

    fn has_ended(&mut self) -> bool {
        // An exit status that cannot be had says nothing; then the processes do.
        let supervisor_is_gone = !matches!(self.supervisor.try_wait(), Ok(None));
        supervisor_is_gone && server_pid(&self.layout.data()).is_none()
    }

    fn stop(&mut self) -> Result<(), EmbeddedError> {
        let (Some(pipe), Some(probe)) = (self.pipe.take(), self.probe.take()) else {
            return Ok(());
        };
        let endpoint = self.layout.endpoint_remove();
        drop(pipe);
        let supervisor = &mut self.supervisor;
        // Asking for the exit status at each look leaves no zombie; that there is none yet is no matter.
        wait_until_gone(&self.layout, probe, shutdown(self.throwaway), || {
            drop(supervisor.try_wait())
        })?;
        drop(self.supervisor.wait());
        endpoint
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "the private PostgreSQL was not stopped cleanly");
        }
    }
}

fn shutdown(throwaway: bool) -> Shutdown {
    if throwaway {
        Shutdown::Immediate
    } else {
        Shutdown::Fast
    }
}

/// The line that the server writes when it accepts connections; its file is removed before each start.
fn is_ready(data: &Path) -> bool {
    const STATUS_LINE: usize = 7;
    fs::read_to_string(data.join("postmaster.pid")).is_ok_and(|text| {
        text.lines()
            .nth(STATUS_LINE)
            .is_some_and(|status| status.trim() == "ready")
    })
}

fn check_parameters(parameters: &[(String, String)]) -> Result<(), EmbeddedError> {
    match parameters
        .iter()
        .find(|(name, _)| RESERVED.contains(&name.to_ascii_lowercase().as_str()))
    {
        Some((name, _)) => Err(EmbeddedError::ReservedParameter { name: name.clone() }),
        None => Ok(()),
    }
}

/// Ours first, so that the caller's win; what the caller may not set comes last.
fn parameters(plan: &Plan, port: u16) -> Vec<(String, String)> {
    let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let mut all = owned(&[
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
        ("log_line_prefix", "%m [%p] %q%u@%d %a "),
        // The details of a failed statement are its values: the key of a duplicate, or the whole row.
        ("log_error_verbosity", "terse"),
        ("log_parameter_max_length_on_error", "0"),
    ]);
    all.extend(plan.parameters.iter().cloned());
    all.extend(owned(&[
        ("listen_addresses", "127.0.0.1"),
        ("port", &port.to_string()),
        ("unix_socket_directories", ""),
        ("password_encryption", "scram-sha-256"),
        ("log_destination", "stderr"),
        ("logging_collector", "off"),
    ]));
    all
}
