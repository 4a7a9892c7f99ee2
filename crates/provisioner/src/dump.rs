//! `pg_dump` and `pg_restore` as child processes.
//!
//! The password goes through the child's environment and never into its arguments, which everybody on the machine can
//! read; nothing else of our environment does. A child is killed when the future that waits for it is dropped. What it
//! writes is whole or not there: it goes to `….part`, is synced, and only then renamed.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io::Read,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use embedded::PgBin;
use pg::ConnectTarget;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

use crate::ProvisionError;

/// How much of the end of a program's error output is kept.
const SAID_BYTES_MAX: usize = 4096;
/// The first version whose `pg_restore` sets `transaction_timeout`, which older servers refuse.
const TIMEOUT_SETTING_SINCE: u32 = 17;
/// How often a growing dump is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(500);

/// PostgreSQL's client programs in one version.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    dump: PathBuf,
    restore: PathBuf,
    /// As `pg_dump --version` prints it.
    pub(crate) version: String,
}

impl Programs {
    /// Those in `explicit`, else those of the server's own major version, else the newest installed, else those on the
    /// path; refused unless they fit the server.
    pub(crate) async fn find(
        explicit: Option<&Path>,
        server_major: u32,
        target: &ConnectTarget,
    ) -> Result<Self, ProvisionError> {
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
        let (_, major) = version_of(&restore).await?;
        check(&restore, major, server_major, target)?;
        Ok(Self {
            dump,
            restore,
            version,
        })
    }

    /// Dumps the database that `target` names into `file`, telling `grown` how many bytes are written.
    pub(crate) async fn dump(
        &self,
        target: &ConnectTarget,
        file: &Path,
        limit: Duration,
        grown: impl Fn(u64),
    ) -> Result<(), ProvisionError> {
        let part = part_of(file);
        prepare_file(&part)?;
        let mut command = child(&self.dump, target);
        command
            .arg("--format=custom")
            .arg("--no-password")
            .arg("--file")
            .arg(&part);
        let measure = async {
            loop {
                tokio::time::sleep(MEASURE_EVERY).await;
                if let Ok(meta) = tokio::fs::metadata(&part).await {
                    grown(meta.len());
                }
            }
        };
        tokio::select! {
            outcome = run(command, "pg_dump", &self.dump, target, limit) => outcome,
            () = measure => unreachable!("measuring goes on until the dump ends"),
        }
        .map_err(|error| name_full_disk(error, &part))?;
        finish_file(&part, file).await
    }

    /// Restores a dump into the empty database that `target` names.
    pub(crate) async fn restore(
        &self,
        target: &ConnectTarget,
        file: &Path,
        limit: Duration,
    ) -> Result<(), ProvisionError> {
        let mut command = child(&self.restore, target);
        // Everything belongs to whoever restores: the copy is there to be compared and dropped.
        command
            .args(["--exit-on-error", "--no-password", "--no-owner", "--dbname"])
            .arg(&target.database)
            .arg(file);
        run(command, "pg_restore", &self.restore, target, limit).await
    }
}

/// What a program calls itself, and its major version.
async fn version_of(program: &Path) -> Result<(String, u32), ProvisionError> {
    let refused = |why: String| ProvisionError::Program {
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
fn check(program: &Path, have: u32, server_major: u32, target: &ConnectTarget) -> Result<(), ProvisionError> {
    if have < server_major {
        return Err(ProvisionError::ProgramTooOld {
            program: program.to_owned(),
            have,
            place: target.to_string(),
            need: server_major,
        });
    }
    if have >= TIMEOUT_SETTING_SINCE && server_major < TIMEOUT_SETTING_SINCE {
        return Err(ProvisionError::Program {
            program: program.to_owned(),
            why: format!(
                "it is of PostgreSQL {have} and begins a restore with the setting transaction_timeout, which the server \
                 {target}, of PostgreSQL {server_major}, does not know; one of version {server_major} is needed"
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

fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

fn child(program: &Path, target: &ConnectTarget) -> Command {
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

async fn run(
    mut command: Command,
    name: &'static str,
    program: &Path,
    target: &ConnectTarget,
    limit: Duration,
) -> Result<(), ProvisionError> {
    let refused = |error: std::io::Error| ProvisionError::Program {
        program: program.to_owned(),
        why: error.to_string(),
    };
    let mut child = command.spawn().map_err(refused)?;
    let stderr = child.stderr.take();
    let ended = tokio::time::timeout(limit, async {
        let said = match stderr {
            Some(stderr) => tail(stderr).await,
            None => String::new(),
        };
        child.wait().await.map(|status| (status, said))
    })
    .await;
    let (status, said) = match ended {
        Ok(outcome) => outcome.map_err(refused)?,
        // Dropping the child, at the end of this function, kills it.
        Err(_elapsed) => {
            let what = format!("{name} of {}", target.database);
            return Err(ProvisionError::TookTooLong { what, limit });
        }
    };
    if status.success() {
        return Ok(());
    }
    let said = if said.is_empty() { status.to_string() } else { said };
    Err(ProvisionError::ProgramFailed {
        program: name,
        database: target.database.clone(),
        said,
    })
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

fn name_full_disk(error: ProvisionError, path: &Path) -> ProvisionError {
    match error {
        ProvisionError::ProgramFailed { said, .. }
            if said.contains("No space left on device") || said.contains("Disk quota exceeded") =>
        {
            // What was written is of no use and would keep the disk full.
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "an unfinished dump could not be removed");
            }
            ProvisionError::DiskFull {
                path: path.to_owned(),
            }
        }
        other => other,
    }
}

/// Makes the directory for archives of one laboratory; nobody else on the machine may look inside. Each directory's name
/// is on the disk when this returns, those of its parents that had to be made too.
pub(crate) fn prepare_directory(directory: &Path) -> Result<(), ProvisionError> {
    let io = |path: &Path| ProvisionError::io("making the directory", path.to_owned());
    let missing = directory.ancestors().take_while(|d| !d.exists()).count();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(io(directory))?;
    // The last one also when it was there: whoever made it may have died before this.
    for made in directory.ancestors().take(missing.max(1)) {
        sync_directory_of(made).map_err(io(made))?;
    }
    Ok(())
}

/// Refuses a directory in which nothing can be written.
pub(crate) async fn try_directory(directory: &Path) -> Result<(), ProvisionError> {
    let probe = directory.join("writable");
    write_whole(&probe, b"written to see whether archives can be\n".to_vec()).await?;
    std::fs::remove_file(&probe).map_err(ProvisionError::io("removing", &probe))
}

/// A fresh, empty file that only we can read. An earlier try's is unlinked first: should its writer still live, it
/// writes into nothing.
fn prepare_file(path: &Path) -> Result<(), ProvisionError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(ProvisionError::io("removing an earlier", path)(error));
        }
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(ProvisionError::io("creating", path))
}

/// Makes a part the whole: on the disk first, then under its name, then the name on the disk.
async fn finish_file(part: &Path, file: &Path) -> Result<(), ProvisionError> {
    let (part, file) = (part.to_owned(), file.to_owned());
    blocking(move || {
        let synced = File::open(&part).and_then(|f| {
            f.set_permissions(Permissions::from_mode(0o600))?;
            f.sync_all()
        });
        synced
            .and_then(|()| std::fs::rename(&part, &file))
            .and_then(|()| sync_directory_of(&file))
            .map_err(ProvisionError::io("finishing", &file))
    })
    .await
}

fn sync_directory_of(file: &Path) -> std::io::Result<()> {
    match file.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Writes a small file whole or not at all.
pub(crate) async fn write_whole(file: &Path, content: Vec<u8>) -> Result<(), ProvisionError> {
    let part = part_of(file);
    prepare_file(&part)?;
    tokio::fs::write(&part, content)
        .await
        .map_err(ProvisionError::io("writing", &part))?;
    finish_file(&part, file).await
}

/// A file's size and SHA-256.
pub(crate) async fn measure(file: &Path) -> Result<(u64, String), ProvisionError> {
    let file = file.to_owned();
    blocking(move || {
        let read = || -> std::io::Result<(u64, String)> {
            let mut source = File::open(&file)?;
            let (mut hash, mut bytes, mut chunk) = (Sha256::new(), 0_u64, vec![0; 256 * 1024]);
            loop {
                let count = source.read(&mut chunk)?;
                if count == 0 {
                    return Ok((bytes, hex::encode(hash.finalize())));
                }
                hash.update(&chunk[..count]);
                bytes += count as u64;
            }
        };
        read().map_err(ProvisionError::io("reading", &file))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProvisionError> + Send + 'static,
) -> Result<T, ProvisionError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(join) => Err(ProvisionError::Io {
            doing: "working on",
            path: PathBuf::from("a file"),
            source: std::io::Error::other(join),
        }),
    }
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

    #[tokio::test]
    async fn only_the_end_of_a_long_complaint_is_kept() {
        let long = format!("{}the end", "x".repeat(100_000));
        let kept = tail(long.as_bytes()).await;
        assert!(kept.len() <= SAID_BYTES_MAX && kept.ends_with("the end"));
    }

    #[tokio::test]
    async fn a_file_is_whole_and_private_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.json");
        std::fs::write(part_of(&file), "left over by a crash").unwrap();
        write_whole(&file, b"{}".to_vec()).await.unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"{}");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!part_of(&file).exists());
        let (bytes, sha256) = measure(&file).await.unwrap();
        assert_eq!((bytes, &sha256[..8]), (2, "44136fa3"));
    }
}
