//! What can go wrong with a private cluster, and what to do about it.

use std::{io, path::PathBuf, time::Duration};

use crate::layout::ROOM_MIN;

/// Why the private PostgreSQL is not available. Each message ends with what to do next.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No server programs on this machine.
    #[error(
        "no PostgreSQL server was found (looked in {looked}); run scripts/setup, or set TENANTRY_PG_BIN to the \
         directory that holds initdb, postgres and pg_ctl"
    )]
    NotFound {
        /// The directories that were tried.
        looked: String,
    },
    /// The directory that was named, or one that seemed right, lacks programs.
    #[error(
        "{} is not the program directory of a PostgreSQL server: {missing} is missing there; \
         correct TENANTRY_PG_BIN, or run scripts/setup",
        .dir.display()
    )]
    Incomplete {
        /// The directory that was looked into.
        dir: PathBuf,
        /// The first program that is not there.
        missing: &'static str,
    },
    /// Only versions that Tenantry does not support.
    #[error(
        "PostgreSQL {found} in {} is too old: Tenantry needs {needed} or newer; run scripts/setup, or set \
         TENANTRY_PG_BIN to a newer one",
        .dir.display()
    )]
    TooOld {
        /// Where it is.
        dir: PathBuf,
        /// Its major version.
        found: u32,
        /// The oldest supported major version.
        needed: u32,
    },
    /// The data belong to another major version than the programs.
    #[error(
        "the data in {} were made by PostgreSQL {made_by}, but only {available} is here; install PostgreSQL {made_by} \
         or set TENANTRY_PG_BIN to it, or move the directory away to begin anew",
        .dir.display()
    )]
    OtherMajor {
        /// The data directory.
        dir: PathBuf,
        /// The major version that made it.
        made_by: u32,
        /// The versions that were found.
        available: String,
    },
    /// No programs that dump and restore for a server of this version.
    #[error(
        "pg_dump and pg_restore of PostgreSQL {major} are needed, and {}; install the clients of PostgreSQL {major} \
         (Debian: postgresql-client-{major}), or set TENANTRY_PG_BIN to the directory that holds them",
        only(.available)
    )]
    NoSuchMajor {
        /// The server's major version.
        major: u32,
        /// The major versions that were found.
        available: Vec<u32>,
    },
    /// A program could not be run or gave no sense.
    #[error("cannot run {}: {reason}; run scripts/setup to mend the installation", .program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// What happened.
        reason: String,
    },
    /// Started as root, and nobody to run the server as.
    #[error(
        "PostgreSQL refuses to run as root, and this machine has neither a user `postgres` nor `nobody`; \
         run `useradd --system postgres`, or start Tenantry as another user"
    )]
    NoAccount,
    /// The account of the server cannot reach the directory.
    #[error(
        "PostgreSQL runs as user `{account}`, who may not enter {}; run `chmod o+x {}`, or choose another \
         place with TENANTRY_STATE_DIR, for instance /var/lib/tenantry",
        .dir.display(), .dir.display()
    )]
    Unreachable {
        /// Who may not enter.
        account: String,
        /// The directory at which the way ends.
        dir: PathBuf,
    },
    /// A file or directory of the cluster could not be used.
    #[error("cannot {action} {}: {source}{}", .path.display(), advice(.source))]
    File {
        /// What was tried: "create", "read".
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The caller set a parameter that the cluster must decide itself.
    #[error("the parameter {name:?} of a private cluster is set by Tenantry; leave it out")]
    ReservedParameter {
        /// The parameter.
        name: String,
    },
    /// The cluster has data but the password of its superuser is lost.
    #[error(
        "{} is missing or empty, but there are data beside it; put the file back from a backup, or move the \
         whole directory away to begin anew",
        .path.display()
    )]
    PasswordLost {
        /// Where the password belongs.
        path: PathBuf,
    },
    /// initdb failed.
    #[error("cannot create a cluster in {}: {output}{}", .dir.display(), advice_for(.output))]
    Init {
        /// The directory of the cluster.
        dir: PathBuf,
        /// The last that initdb said.
        output: String,
    },
    /// The server ended while starting, or did not become ready in time.
    #[error("PostgreSQL did not start: {reason}; the end of {}:\n{tail}{}", .log.display(), advice_for(.tail))]
    Start {
        /// How it ended.
        reason: String,
        /// The server's log.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// Another process owns the directory, but no server of it answers.
    #[error(
        "another process holds {} but its PostgreSQL did not answer within {} s{}; end that process and start again",
        .lock.display(), .limit.as_secs(), .last.as_ref().map(|e| format!(" ({e})")).unwrap_or_default()
    )]
    OwnerSilent {
        /// The owner's lock file.
        lock: PathBuf,
        /// How long was waited.
        limit: Duration,
        /// What the last attempt to attach met.
        last: Option<String>,
    },
    /// Another process owns the directory and runs no server in it.
    #[error(
        "another process holds {} but has run no PostgreSQL for {} s: it ended and could not be started again; see why \
         in {}, end that process and start again",
        .lock.display(), .limit.as_secs(), .log.display()
    )]
    OwnerServerless {
        /// The owner's lock file.
        lock: PathBuf,
        /// How long there was none.
        limit: Duration,
        /// The server's log.
        log: PathBuf,
    },
    /// The disk that holds the data is full, so the server cannot run or lets nobody in.
    #[error(
        "the disk that holds {} is full ({} KiB are free), so its PostgreSQL cannot run{}; free {} MiB there, or more: the \
         process that runs it starts it again by itself, and nothing that was acknowledged is lost",
        .dir.display(), .free / 1024, .last.as_ref().map(|e| format!(" ({e})")).unwrap_or_default(), ROOM_MIN / 1024 / 1024
    )]
    DiskFull {
        /// The cluster's directory.
        dir: PathBuf,
        /// How many bytes are free for the server.
        free: u64,
        /// What the last attempt to attach met.
        last: Option<String>,
    },
    /// The server recovers from a crash, or starts or stops, and lets nobody in yet.
    #[error(
        "PostgreSQL in {} lets nobody in yet after {} s ({last}): it recovers by itself and needs no help; try again in a minute, \
         its progress is in {}",
        .dir.display(), .waited.as_secs(), .log.display()
    )]
    Recovering {
        /// The cluster's directory.
        dir: PathBuf,
        /// How long was waited.
        waited: Duration,
        /// What the last attempt to attach met.
        last: String,
        /// The server's log.
        log: PathBuf,
    },
    /// Processes of an earlier start are still there.
    #[error(
        "processes of an earlier PostgreSQL still use {} after {} s{}; end them and start again",
        .dir.display(), .limit.as_secs(), .pid.map(|p| format!(" (server process {p})")).unwrap_or_default()
    )]
    NotGone {
        /// The data directory.
        dir: PathBuf,
        /// How long was waited.
        limit: Duration,
        /// The server's process, where it is known.
        pid: Option<i32>,
    },
    /// The server runs but lets nobody in.
    #[error("the private PostgreSQL started but cannot be used: {0}; was its password file exchanged?")]
    Connect(#[from] pg::ConnectError),
}

impl EmbeddedError {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Another process took the port between the look and the start.
    pub(crate) fn is_lost_port(&self) -> bool {
        matches!(self, Self::Start { tail, .. } if tail.contains("could not bind"))
    }
}

fn only(majors: &[u32]) -> String {
    if majors.is_empty() {
        return "none are installed".to_owned();
    }
    let majors: Vec<String> = majors.iter().map(u32::to_string).collect();
    format!("only those of {} are here", majors.join(", "))
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "; start as the user that owns it, or choose another place with TENANTRY_STATE_DIR"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space, or choose another place with TENANTRY_STATE_DIR"
        }
        _ => "",
    }
}

/// Advice on what PostgreSQL itself reported.
fn advice_for(output: &str) -> &'static str {
    if output.contains("No space left on device") || output.contains("Check free disk space") {
        "\nfree some space, or choose another place with TENANTRY_STATE_DIR"
    } else if output.contains("could not access the server configuration file")
        || output.contains("invalid data in file")
        || output.contains("could not locate a valid checkpoint record")
    {
        "\nthe data are damaged: restore the directory from a backup, or move it away to begin anew"
    } else {
        ""
    }
}
