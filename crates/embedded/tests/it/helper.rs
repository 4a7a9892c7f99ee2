//! What the stories share: directories that the server's account may enter, owners in processes of their own,
//! and a look at the machine's processes.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use embedded::{Cluster, ClusterOptions, EmbeddedError};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testkit::eventually;

pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A directory that every account may pass through, as the ones of a real installation.
pub(crate) fn temp_dir() -> TempDir {
    tempfile::Builder::new()
        .prefix("tenantry-embedded-")
        .permissions(PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap()
}

pub(crate) fn options(dir: &Path) -> ClusterOptions {
    ClusterOptions {
        dir: dir.to_owned(),
        bin: None,
        parameters: vec![("shared_buffers".into(), "16MB".into())],
    }
}

pub(crate) async fn start(dir: &Path) -> Result<Cluster, EmbeddedError> {
    Cluster::start_or_attach(options(dir)).await
}

pub(crate) async fn client(target: &pg::ConnectTarget) -> tokio_postgres::Client {
    pg::connect(target, "embedded test", LIMIT).await.unwrap()
}

pub(crate) async fn execute(cluster: &Cluster, sql: &str) {
    client(cluster.target()).await.batch_execute(sql).await.unwrap();
}

pub(crate) async fn count(cluster: &Cluster, table: &str) -> i64 {
    let client = client(cluster.target()).await;
    let row = client
        .query_one(&format!("SELECT count(*) FROM {table}"), &[])
        .await;
    row.unwrap().get(0)
}

/// An owner in a process of its own: this test program, running the test below.
pub(crate) struct Owner {
    pub(crate) child: Child,
    pub(crate) port: u16,
    /// Kept open: it prints more when it ends.
    _output: BufReader<ChildStdout>,
}

impl Owner {
    pub(crate) fn spawn(dir: &Path) -> Child {
        Self::command(&std::env::current_exe().unwrap(), dir)
            .spawn()
            .unwrap()
    }

    /// With the programs in this directory.
    pub(crate) fn spawn_with(dir: &Path, bin: &Path) -> Child {
        Self::command(&std::env::current_exe().unwrap(), dir)
            .env("EMBEDDED_TEST_BIN", bin)
            .spawn()
            .unwrap()
    }

    pub(crate) fn command(program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .args([
                "helper::an_owner_that_waits_to_be_killed",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env("EMBEDDED_TEST_DIR", dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }

    pub(crate) fn start(dir: &Path) -> Self {
        Self::ready(Self::spawn(dir))
    }

    /// Waits until the process says where its server listens.
    pub(crate) fn ready(mut child: Child) -> Self {
        let mut seen = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while output.read_line(&mut line).unwrap() > 0 {
            if let Some((_, port)) = line.split_once("listens on ") {
                let port = port.trim().parse().unwrap();
                return Self {
                    child,
                    port,
                    _output: output,
                };
            }
            seen.push_str(&line);
            line.clear();
        }
        panic!("the owner ended before its server was ready: {seen}");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
#[ignore = "run by other tests, as a process that they kill"]
async fn an_owner_that_waits_to_be_killed() {
    let dir = PathBuf::from(std::env::var_os("EMBEDDED_TEST_DIR").unwrap());
    let options = ClusterOptions {
        bin: std::env::var_os("EMBEDDED_TEST_BIN").map(PathBuf::from),
        ..options(&dir)
    };
    let cluster = Cluster::start_or_attach(options).await.unwrap();
    assert!(cluster.is_owner());
    println!("listens on {}", cluster.target().port);
    // Ends when the test that started it does.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Processes with this path among their arguments, and those arguments.
pub(crate) fn processes(path: &Path) -> Vec<(Pid, String)> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let wanted = path.to_str().unwrap().to_owned();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            let arguments = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&arguments).replace('\0', " ");
            line.contains(&wanted).then_some((pid, line))
        })
        .collect()
}

pub(crate) async fn until_no_process(path: &Path) {
    eventually("all processes of the cluster to end", LIMIT, async || {
        processes(path).is_empty()
    })
    .await;
}

pub(crate) fn postmaster(dir: &Path) -> Pid {
    let text = fs::read_to_string(dir.join("data/postmaster.pid")).unwrap();
    Pid::from_raw(text.lines().next().unwrap().trim().parse().unwrap()).unwrap()
}

/// The supervisor's shell and the watch that it forked.
pub(crate) fn supervisors(dir: &Path) -> Vec<Pid> {
    let all = processes(dir).into_iter();
    all.filter(|(_, line)| line.starts_with("/bin/sh"))
        .map(|(pid, _)| pid)
        .collect()
}

pub(crate) fn kill_9(pid: Pid) {
    kill_process(pid, Signal::KILL).unwrap();
}
