//! Stops every process of a server, so that the server neither answers nor closes anything, and resumes them.

use std::{
    fs,
    io::Write,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use crate::fleet::Host;

/// New processes may appear while others are being stopped; the first, which starts them, is stopped first.
const LOOKS: usize = 3;
/// Resumes the processes when the pipe closes, so also when this program is killed.
const THAW: &str = r#"
trap '' INT TERM HUP
while read -r _line; do :; done
kill -CONT "$@" 2>/dev/null
exit 0
"#;

/// The stopped processes of one server; dropping this resumes them.
pub(crate) struct Frozen {
    thaw: Child,
}

impl Frozen {
    pub(crate) fn new(host: &Host) -> anyhow::Result<Self> {
        let file = host.dir().join("data/postmaster.pid");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let postmaster: i32 = text.lines().next().unwrap_or_default().trim().parse()?;
        stop(postmaster);
        let mut stopped = vec![postmaster];
        for _ in 0..LOOKS {
            for child in children_of(postmaster)? {
                if !stopped.contains(&child) {
                    stop(child);
                    stopped.push(child);
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let thaw = Command::new("/bin/sh")
            .args(["-c", THAW, "bench-thaw"])
            .args(stopped.iter().map(ToString::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { thaw })
    }

    pub(crate) fn thaw(mut self) -> anyhow::Result<()> {
        self.end().context("the server's processes cannot be woken")
    }

    fn end(&mut self) -> std::io::Result<()> {
        if let Some(mut pipe) = self.thaw.stdin.take() {
            pipe.flush()?;
        }
        self.thaw.wait().map(drop)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn stop(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // One that has just ended needs no stopping.
        let _ = kill_process(pid, Signal::STOP);
    }
}

/// From `/proc`: the fourth field of `stat`, after a name in brackets that may hold anything.
fn children_of(parent: i32) -> anyhow::Result<Vec<i32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let ppid = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1))
            .and_then(|ppid| ppid.parse::<i32>().ok());
        if ppid == Some(parent) {
            children.push(pid);
        }
    }
    Ok(children)
}
