//! Making the data directory: beside its place, then renamed, so that an interrupted initdb leaves nothing to
//! trip over.

use std::{
    fs::{self, DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use secrecy::SecretString;

use crate::{
    EmbeddedError, PgBin,
    account::Account,
    layout::{Layout, remove_dir, remove_file},
};

/// The superuser's name.
pub(crate) const SUPERUSER: &str = "postgres";

/// initdb takes one to three seconds, and much longer only when a disk does.
const INITDB_LIMIT: Duration = Duration::from_secs(180);

const POLL_EVERY: Duration = Duration::from_millis(10);

/// Runs initdb unless there are data. `lock` is the server's lock: an initdb that outlives its owner still
/// holds it.
pub(crate) fn ensure_data(
    layout: &Layout,
    account: &Account,
    bin: &PgBin,
    password: &SecretString,
    lock: &File,
    durable: bool,
) -> Result<(), EmbeddedError> {
    let unfinished = layout.data_unfinished();
    remove_dir(&unfinished)?;
    if layout.data().exists() {
        return Ok(());
    }
    let password_file = layout.password_file_for_initdb(password)?;
    account.own(&password_file)?;
    // C.UTF-8 sorts by code point everywhere alike; machines without it (musl, old macOS) have C, which does
    // the same.
    let mut outcome = Err(String::new());
    for locale in ["C.UTF-8", "C"] {
        remove_dir(&unfinished)?;
        DirBuilder::new()
            .mode(0o700)
            .create(&unfinished)
            .map_err(EmbeddedError::file("create", &unfinished))?;
        account.own(&unfinished)?;
        outcome = run(layout, account, bin, &password_file, lock, locale, durable)?;
        if !matches!(&outcome, Err(output) if output.contains("invalid locale")) {
            break;
        }
    }
    remove_file(&password_file)?;
    outcome.map_err(|output| EmbeddedError::Init {
        dir: layout.dir().to_owned(),
        output,
    })?;
    let data = layout.data();
    fs::rename(&unfinished, &data).map_err(EmbeddedError::file("create", &data))?;
    // The rename itself must be on disk before anything is acknowledged that lies in there.
    File::open(layout.dir())
        .and_then(|dir| dir.sync_all())
        .map_err(EmbeddedError::file("sync", layout.dir()))
}

/// The inner error is what initdb said when it failed.
fn run(
    layout: &Layout,
    account: &Account,
    bin: &PgBin,
    password_file: &Path,
    lock: &File,
    locale: &str,
    durable: bool,
) -> Result<Result<(), String>, EmbeddedError> {
    let program = bin.program("initdb");
    let failed = |reason: String| EmbeddedError::Program {
        program: program.clone(),
        reason,
    };
    let held = lock
        .try_clone()
        .map_err(EmbeddedError::file("hold", layout.server_lock()))?;
    let log_start = layout.log_open(account)?;
    let log = || {
        fs::OpenOptions::new()
            .append(true)
            .open(layout.log())
            .map_err(EmbeddedError::file("open", layout.log()))
    };
    let mut command = account.command(&program, layout.dir());
    command
        .arg("--pgdata")
        .arg(layout.data_unfinished())
        .arg("--pwfile")
        .arg(password_file)
        .args(["--username", SUPERUSER, "--auth", "scram-sha-256"])
        .args(["--encoding", "UTF8", "--locale", locale, "--no-instructions"])
        // initdb never reads its input: this hands it the lock.
        .stdin(Stdio::from(held))
        .stdout(Stdio::from(log()?))
        .stderr(Stdio::from(log()?));
    if !durable {
        command.arg("--no-sync");
    }
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let start = Instant::now();
    loop {
        match child.try_wait().map_err(|error| failed(error.to_string()))? {
            Some(status) if status.success() => return Ok(Ok(())),
            Some(_) => return Ok(Err(layout.log_tail(log_start))),
            None if start.elapsed() > INITDB_LIMIT => {
                // It may have ended meanwhile, and then there is nothing to kill.
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(format!("not done within {} s", INITDB_LIMIT.as_secs())));
            }
            None => std::thread::sleep(POLL_EVERY),
        }
    }
}
