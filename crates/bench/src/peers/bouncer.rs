//! A PgBouncer of this program. It runs under the server's account, because it refuses root. It ends with its
//! owner, also when the owner is killed: a shell holds a pipe from the owner and ends PgBouncer when the pipe
//! closes.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::fleet::Host;

const PLACES: [&str; 3] = [
    "/usr/sbin/pgbouncer",
    "/usr/bin/pgbouncer",
    "/usr/local/bin/pgbouncer",
];
const READY_LIMIT: Duration = Duration::from_secs(10);
const SUPERVISOR: &str = r#"
trap '' INT HUP
"$@" &
child=$!
while read -r _line; do :; done
kill "$child" 2>/dev/null
wait "$child"
"#;

/// A running PgBouncer.
pub(crate) struct Bouncer {
    pub(crate) port: u16,
    pub(crate) version: String,
    supervisor: Child,
    pipe: Option<ChildStdin>,
}

/// The program, if it is installed.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    PLACES
        .iter()
        .map(PathBuf::from)
        .find(|place| place.exists())
        .context(
            "PgBouncer is not installed: apt-get install pgbouncer \
             (and stop the service that its package starts)",
        )
}

impl Bouncer {
    /// Starts it beside the host's data with the lines of `[databases]` and `[pgbouncer]` and an
    /// authentication file.
    pub(crate) async fn start(
        host: &Host,
        databases: &str,
        settings: &[(&str, String)],
        users: &str,
    ) -> anyhow::Result<Self> {
        let program = program()?;
        let dir = host
            .dir()
            .join(format!("pgbouncer-{:08x}", rand::random::<u32>()));
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut ini = format!("[databases]\n{databases}\n[pgbouncer]\n");
        for (name, value) in settings {
            ini.push_str(&format!("{name} = {value}\n"));
        }
        ini.push_str(&format!(
            "listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             logfile = {}\nauth_file = {}\n",
            dir.join("log").display(),
            dir.join("users").display(),
        ));
        let file = dir.join("ini");
        let account = host.account()?;
        write_for(account, &file, &ini)?;
        write_for(account, &dir.join("users"), users)?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SUPERVISOR, "bench-pgbouncer"])
            .args([&program, Path::new("-q"), &file])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        if rustix::process::geteuid().is_root() {
            chown(&dir, Some(account.0), Some(account.1))?;
            command.uid(account.0).gid(account.1);
        }
        let mut supervisor = command.spawn().context("cannot start /bin/sh")?;
        let pipe = supervisor.stdin.take();
        let bouncer = Self {
            port,
            version: version(&program),
            supervisor,
            pipe,
        };
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            if begun.elapsed() > READY_LIMIT {
                let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
                bail!("PgBouncer does not listen after {READY_LIMIT:?}: {log}");
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(bouncer)
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // It ends as soon as its pipe closes. If waiting for it fails, there is nothing more to do.
        let _ = self.supervisor.wait();
    }
}

fn write_for(account: (u32, u32), path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    if rustix::process::geteuid().is_root() {
        chown(path, Some(account.0), Some(account.1))?;
    }
    Ok(())
}

fn version(program: &Path) -> String {
    Command::new(program)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_default()
}
