//! The real `tenantd`, as a process of its own, on a space of its own.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Api, Space, eventually};

/// Start-up includes no more than a few queries; the rest is for a busy machine.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(10);

/// What the child inherits of the test's own environment; all else would make tests depend on who runs them.
const INHERITED: [&str; 5] = ["PATH", "HOME", "TMPDIR", "RUST_BACKTRACE", "TENANTRY_TEST_RUN"];

/// A running `tenantd`. Dropping it is `kill -9`; when a test fails its log is printed.
pub struct Tenantd {
    child: Child,
    url: String,
    log: Log,
}

type Log = Arc<Mutex<String>>;

impl Tenantd {
    /// Starts the program on a free port with the space's settings and `extra` ones, and waits until it is
    /// ready.
    ///
    /// `program` is the caller's `env!("CARGO_BIN_EXE_tenantd")`. The registry must have been prepared.
    ///
    /// # Panics
    /// When it ends or is not ready in time; its log is in the message.
    pub async fn start(program: impl AsRef<Path>, space: &Space, extra: &[(&str, &str)]) -> Self {
        let server = Self::spawn(program.as_ref(), space, extra);
        let ready = server.api();
        eventually("tenantd to be ready", START_LIMIT, async || {
            ready
                .get("/readyz")
                .await
                .is_ok_and(|answer| answer.status == 200)
        })
        .await;
        server
    }

    /// As [`Tenantd::start`], but waits only until it listens: for stories in which it does not become ready.
    ///
    /// # Panics
    /// When it ends before it listens, or does not listen in time.
    pub fn spawn(program: &Path, space: &Space, extra: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program);
        command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in INHERITED {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.envs(space.environment()).envs(extra.iter().copied());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()));
        let log = Log::default();
        let (told, listening) = mpsc::channel();
        collect(child.stdout.take().expect("stdout is piped"), &log, Some(told));
        collect(child.stderr.take().expect("stderr is piped"), &log, None);
        let mut server = Self {
            child,
            url: String::new(),
            log,
        };
        match listening.recv_timeout(START_LIMIT) {
            Ok(url) => server.url = url,
            // The log follows from Drop, since this panics.
            Err(_) => panic!(
                "tenantd did not say `listening on http://…`: {:?}",
                server.child.try_wait()
            ),
        }
        server
    }

    /// Where it listens, as `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A client of it that is not logged in.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(self.url.clone())
    }

    /// What it has printed so far, standard output and standard error as they came.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Whether it has ended, and how.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .try_wait()
            .expect("the exit status of a child can be asked for")
    }

    /// `kill -9`, and the end of the process.
    ///
    /// # Panics
    /// When it had ended before: then the kill landed too late to show anything.
    pub fn kill(mut self) {
        let ended = self.ended();
        assert!(
            ended.is_none(),
            "tenantd had ended before it was killed: {ended:?}\n{}",
            self.log()
        );
        self.child.kill().expect("a running child can be killed");
        self.child.wait().expect("a killed child ends");
    }

    /// SIGTERM, and the end of the process.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn stop(mut self) -> ExitStatus {
        // That it ended by itself shows in the status.
        let _ = kill_process(self.pid(), Signal::TERM);
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                start.elapsed() < STOP_LIMIT,
                "tenantd did not end within {} s of SIGTERM",
                STOP_LIMIT.as_secs()
            );
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

impl Drop for Tenantd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("tenantd said:\n{}", self.log());
        }
    }
}

/// Reads to the end on a thread, so that the child never waits for a full pipe.
fn collect(output: impl Read + Send + 'static, log: &Log, told: Option<mpsc::Sender<String>>) {
    let log = Arc::clone(log);
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let (Some(told), Some((_, url))) = (&told, line.split_once("listening on http://")) {
                let address = url.split_whitespace().next().unwrap_or(url);
                // Only the first is waited for.
                let _ = told.send(format!("http://{address}"));
            }
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            writeln!(log, "{line}").expect("text can be appended to text");
        }
    });
}
