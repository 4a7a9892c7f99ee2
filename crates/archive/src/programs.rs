//! `pg_dump` and `pg_restore` as child processes.
//!
//! The password goes through the child's environment and never into its arguments, which everybody on the
//! machine can read; nothing else of our environment does. A child is killed when the future that waits for
//! it is dropped.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use embedded::PgBin;
use pg::ConnectTarget;
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
};

use crate::{ArchiveError, files::blocking};

/// How much of the end of a program's error output is kept.
const SAID_BYTES_MAX: usize = 4096;
/// The first version whose `pg_restore` sets `transaction_timeout`, which older servers refuse.
const TIMEOUT_SETTING_SINCE: u32 = 17;

/// PostgreSQL's client programs in one version.
#[derive(Debug, Clone)]
pub struct Programs {
    pub(crate) dump: PathBuf,
    pub(crate) restore: PathBuf,
    pub(crate) major: u32,
    /// As `pg_dump --version` prints it.
    pub version: String,
}

impl Programs {
    /// Those in `explicit`, else those of the server's own major version, else the newest installed, else
    /// those on the path; refused unless they fit the server.
    ///
    /// # Errors
    /// [`ArchiveError::Program`], [`ArchiveError::ProgramTooOld`].
    pub async fn find(
        explicit: Option<&Path>,
        server_major: u32,
        target: &ConnectTarget,
    ) -> Result<Self, ArchiveError> {
        let dir = match explicit {
            Some(dir) => Some(dir.to_owned()),
            // Looking runs programs, and waits for them.
            None => {
                blocking(move || {
                    let found = PgBin::find_major(None, server_major).or_else(|_| PgBin::find(None));
                    Ok(found.ok().map(|bin| bin.dir().to_owned()))
                })
                .await?
            }
        };
        let path = |name: &str| {
            dir.as_ref()
                .map_or_else(|| PathBuf::from(name), |dir| dir.join(name))
        };
        let (dump, restore) = (path("pg_dump"), path("pg_restore"));
        let (version, major) = version_of(&dump).await?;
        check(&dump, major, server_major, target)?;
        let (_, restores) = version_of(&restore).await?;
        check(&restore, restores, server_major, target)?;
        Ok(Self {
            dump,
            restore,
            major,
            version,
        })
    }
}

/// What a program calls itself, and its major version.
async fn version_of(program: &Path) -> Result<(String, u32), ArchiveError> {
    let refused = |why: String| ArchiveError::Program {
        program: program.to_owned(),
        why,
    };
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| refused(error.to_string()))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let major = major_of(&version).ok_or_else(|| refused(format!("it calls itself {version:?}")))?;
    Ok((version, major))
}

/// Refuses a program that cannot dump the server or whose dump the server cannot take back.
fn check(program: &Path, have: u32, server_major: u32, target: &ConnectTarget) -> Result<(), ArchiveError> {
    if have < server_major {
        return Err(ArchiveError::ProgramTooOld {
            program: program.to_owned(),
            have,
            server: target.to_string(),
            need: server_major,
        });
    }
    if have >= TIMEOUT_SETTING_SINCE && server_major < TIMEOUT_SETTING_SINCE {
        return Err(ArchiveError::Program {
            program: program.to_owned(),
            why: format!(
                "it is of PostgreSQL {have} and begins a restore with the setting transaction_timeout, which \
                 the server {target}, of PostgreSQL {server_major}, does not know; one of version \
                 {server_major} is needed"
            ),
        });
    }
    Ok(())
}

/// Reads the major version out of `pg_dump (PostgreSQL) 15.18 (Debian …)`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split("(PostgreSQL)").nth(1)?.split_whitespace().next()?;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

pub(crate) fn command(program: &Path, target: &ConnectTarget) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        // Messages in English, since some are recognised.
        .env("LC_ALL", "C")
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PGHOST", &target.host)
        .env("PGPORT", target.port.to_string())
        .env("PGUSER", &target.user)
        .env("PGPASSWORD", target.password.expose_secret())
        .env("PGDATABASE", &target.database)
        .env("PGAPPNAME", "tenantry archive")
        .env("PGCONNECT_TIMEOUT", "10")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// A program that was started.
pub(crate) struct Running {
    pub(crate) child: Child,
    name: &'static str,
    path: PathBuf,
    database: String,
}

impl Running {
    pub(crate) fn start(
        mut command: Command,
        name: &'static str,
        path: &Path,
        target: &ConnectTarget,
    ) -> Result<Self, ArchiveError> {
        let child = command.spawn().map_err(|error| ArchiveError::Program {
            program: path.to_owned(),
            why: error.to_string(),
        })?;
        Ok(Self {
            child,
            name,
            path: path.to_owned(),
            database: target.database.clone(),
        })
    }

    /// Waits for its end, which must be a success.
    pub(crate) async fn end(&mut self) -> Result<(), ArchiveError> {
        let said = match self.child.stderr.take() {
            Some(stderr) => tail(stderr).await,
            None => String::new(),
        };
        let status = self.child.wait().await.map_err(|error| ArchiveError::Program {
            program: self.path.clone(),
            why: error.to_string(),
        })?;
        if status.success() {
            return Ok(());
        }
        Err(ArchiveError::ProgramFailed {
            program: self.name,
            database: self.database.clone(),
            said: if said.is_empty() {
                status.to_string()
            } else {
                without_values(&said)
            },
        })
    }
}

/// What a program said without the values of rows that the server put into it: the line that COPY was at, a
/// key that stands twice, a row that a check refuses, a text that is no number.
fn without_values(said: &str) -> String {
    let mut kept: Vec<String> = Vec::new();
    let mut shown = true;
    for line in said.lines() {
        // What continues a line that is left out belongs to it.
        shown = match line {
            line if line.starts_with("CONTEXT:") => false,
            line if line.starts_with("DETAIL:") => {
                !["Key (", "Failing row"].iter().any(|sign| line.contains(sign))
            }
            line if line.starts_with("HINT:")
                || line.starts_with("pg_")
                || line.starts_with("Command was:") =>
            {
                true
            }
            _ => shown,
        };
        if shown {
            let value = line
                .find("invalid ")
                .and_then(|at| line[at..].find(": \"").map(|end| at + end));
            kept.push(line[..value.unwrap_or(line.len())].to_owned());
        }
    }
    kept.join("\n")
}

/// Cuts work off that takes too long. What it started ends with it.
pub(crate) async fn within<T>(
    limit: Duration,
    what: impl FnOnce() -> String,
    work: impl Future<Output = Result<T, ArchiveError>>,
) -> Result<T, ArchiveError> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(ArchiveError::TookTooLong { what: what(), limit }),
    }
}

/// The end of what comes out of a pipe, which is read to its own end so that the child never waits for us.
async fn tail(mut pipe: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..count]);
        let surplus = kept.len().saturating_sub(SAID_BYTES_MAX);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_as_distributions_print_it() {
        for (text, major) in [
            ("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some(15)),
            ("pg_dump (PostgreSQL) 18beta1", Some(18)),
            ("pg_dump", None),
        ] {
            assert_eq!(major_of(text), major, "{text}");
        }
    }

    #[test]
    fn programs_fit_a_server_of_their_version_or_a_little_older() {
        let target = ConnectTarget {
            host: "db".to_owned(),
            port: 5432,
            user: "postgres".to_owned(),
            password: secrecy::SecretString::from("secret"),
            database: "postgres".to_owned(),
        };
        let program = Path::new("/opt/pg/bin/pg_dump");
        for (have, server) in [(15, 15), (16, 15), (17, 17), (18, 17), (16, 16)] {
            assert!(check(program, have, server, &target).is_ok(), "{have} {server}");
        }
        let old = check(program, 15, 16, &target).unwrap_err().to_string();
        assert!(old.contains("older than the server"), "{old}");
        for (have, server) in [(17, 16), (18, 15)] {
            let new = check(program, have, server, &target).unwrap_err().to_string();
            assert!(
                new.contains(&format!("one of version {server} is needed"))
                    && new.contains("TENANTRY_PG_BIN"),
                "{new}"
            );
        }
    }

    #[test]
    fn no_value_of_a_row_is_in_what_a_program_said() {
        let said =
            "pg_restore: error: COPY failed for table \"t\": ERROR:  duplicate key value violates \"t_pkey\"
DETAIL:  Key (name)=(Ada) already exists.
CONTEXT:  COPY t, line 1: \"Ada
Lovelace\"
pg_restore: error: could not execute query: ERROR:  invalid input syntax for type integer: \"Ada\"
pg_restore: error: could not execute query: ERROR:  database \"x\" is being accessed
DETAIL:  There is 1 prepared transaction using the database.
Command was: DROP DATABASE x;";
        let kept = without_values(said);
        assert!(!kept.contains("Ada") && !kept.contains("Lovelace"), "{kept}");
        assert!(
            kept.contains("1 prepared transaction") && kept.contains("Command was: DROP"),
            "{kept}"
        );
        assert!(kept.contains("invalid input syntax for type integer"), "{kept}");
    }

    #[tokio::test]
    async fn only_the_end_of_a_long_complaint_is_kept() {
        let long = format!("{}the end", "x".repeat(100_000));
        let kept = tail(long.as_bytes()).await;
        assert!(kept.len() <= SAID_BYTES_MAX && kept.ends_with("the end"));
    }
}
