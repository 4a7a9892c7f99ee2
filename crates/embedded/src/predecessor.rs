//! Making sure that nothing of an earlier server is left before the data are touched.
//!
//! The earlier owner, its supervisor and its server may each have been killed on their own. What is left of
//! them holds the server's lock, so there is one question to ask. Only a process that provably is the server
//! of this very directory is ever signalled: after a crash its number may belong to somebody else.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    EmbeddedError,
    layout::{Layout, lock_take, remove_file},
};

/// A fast shutdown writes everything out first; a slow disk may need this long.
const FAST_LIMIT: Duration = Duration::from_secs(60);
/// An immediate shutdown writes nothing; the next start recovers from the log.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(15);
const POLL_EVERY: Duration = Duration::from_millis(5);

/// How a server is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shutdown {
    /// Disconnect everybody, write everything out.
    Fast,
    /// End at once; for data that nobody wants any more.
    Immediate,
}

impl Shutdown {
    /// The signal's name for `kill`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fast => "INT",
            Self::Immediate => "QUIT",
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::Fast => Signal::INT,
            Self::Immediate => Signal::QUIT,
        }
    }
}

/// Ends what is left of an earlier server and takes the server's lock: then no process works on the data.
///
/// `meanwhile` is called between two looks, for what must be done so that the lock can become free.
pub(crate) fn wait_until_gone(
    layout: &Layout,
    lock: File,
    how: Shutdown,
    mut meanwhile: impl FnMut(),
) -> Result<File, EmbeddedError> {
    let start = Instant::now();
    let mut signalled = None;
    loop {
        meanwhile();
        if lock_take(&lock, &layout.server_lock())? {
            // Nobody is left who could have written it; and PostgreSQL would refuse to start when the number
            // in it belongs to another process by now.
            remove_file(&layout.data().join("postmaster.pid"))?;
            return Ok(lock);
        }
        let how = if start.elapsed() < FAST_LIMIT {
            how
        } else {
            Shutdown::Immediate
        };
        let pid = server_pid(&layout.data());
        if let Some(pid) = pid
            && signalled != Some((pid, how))
        {
            tracing::info!(
                pid = pid.as_raw_nonzero().get(),
                signal = how.name(),
                "ending PostgreSQL"
            );
            // Gone since it was looked up is as good.
            let _ = kill_process(pid, how.signal());
            signalled = Some((pid, how));
        }
        if start.elapsed() > FAST_LIMIT + IMMEDIATE_LIMIT {
            return Err(EmbeddedError::NotGone {
                dir: layout.data(),
                limit: FAST_LIMIT + IMMEDIATE_LIMIT,
                pid: pid.map(|pid| pid.as_raw_nonzero().get()),
            });
        }
        thread::sleep(POLL_EVERY);
    }
}

/// The running server of this data directory.
pub(crate) fn server_pid(data: &Path) -> Option<Pid> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let number: i32 = text.lines().next()?.trim().parse().ok()?;
    let pid = Pid::from_raw(number).filter(|_| number > 1)?;
    works_on(number, data).then_some(pid)
}

/// Whether the process was started with this directory as an argument, as our servers are.
fn works_on(pid: i32, data: &Path) -> bool {
    let data = data.as_os_str().as_encoded_bytes();
    if let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) {
        return arguments
            .split(|byte| *byte == 0)
            .any(|argument| argument == data);
    }
    // Where there is no /proc.
    Command::new("ps")
        .args(["-ww", "-o", "command=", "-p", &pid.to_string()])
        .output()
        .is_ok_and(|output| output.stdout.windows(data.len()).any(|part| part == data))
}
