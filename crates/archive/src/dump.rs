//! Writing a dump to its location and restoring it from there.
//!
//! To a local file in the clear `pg_dump` writes by itself, at its own speed, and `pg_restore` reads it with
//! several connections at once. Everywhere else the dump is a stream: counted, hashed and encrypted as it
//! passes, with no copy on the way.

use std::{process::Stdio, str::FromStr, time::Duration};

use pg::ConnectTarget;
use tokio::io::AsyncWriteExt;

use crate::{
    ArchiveError, Keys, Location, Programs, crypt, files,
    programs::{Running, command, within},
    upload::upload,
};

/// How often a growing dump is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(500);
/// What is held between program and store.
const PIPE_BYTES: usize = 1024 * 1024;
/// The first version whose `pg_dump` can compress with zstd.
const ZSTD_SINCE: u32 = 16;
/// How long `pg_dump` waits for a table that somebody holds for himself.
const LOCK_WAIT: &str = "--lock-wait-timeout=60s";

/// How a dump is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// With zstd where `pg_dump` can (16 and later), else with gzip.
    #[default]
    Auto,
    /// With gzip.
    Gzip,
    /// With zstd; an older `pg_dump` fails.
    Zstd,
    /// Not at all.
    None,
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "auto" => Ok(Self::Auto),
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            "none" => Ok(Self::None),
            other => Err(format!(
                "{other:?} is no compression; use auto, gzip, zstd or none"
            )),
        }
    }
}

impl Compression {
    /// The argument for `pg_dump`, and the word for the manifest.
    fn resolve(self, major: u32) -> (Option<&'static str>, &'static str) {
        match self {
            Self::Auto if major >= ZSTD_SINCE => (Some("--compress=zstd"), "zstd"),
            Self::Auto | Self::Gzip => (None, "gzip"),
            Self::Zstd => (Some("--compress=zstd"), "zstd"),
            Self::None => (Some("--compress=0"), "none"),
        }
    }
}

/// Hears how many bytes have passed.
pub type OnProgress<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256, in lower-case hex.
    pub sha256: String,
}

/// How dumps are written and restored.
#[derive(Debug)]
pub struct Dump<'a> {
    /// By which programs.
    pub programs: &'a Programs,
    /// For whom.
    pub keys: &'a Keys,
    /// How small.
    pub compression: Compression,
    /// How many connections a restore has, where the dump is a local file in the clear.
    pub jobs: usize,
    /// How long each may take.
    pub limit: Duration,
}

impl Dump<'_> {
    /// Dumps the database that `target` names, as it is in the exported `snapshot`, to `location`; tells how
    /// many bytes are written. Gives what was written and how it is compressed.
    ///
    /// # Errors
    /// [`ArchiveError::ProgramFailed`], [`ArchiveError::TookTooLong`], [`ArchiveError::DiskFull`] and others;
    /// nothing stands at `location` then that was not there before.
    pub async fn write(
        &self,
        target: &ConnectTarget,
        snapshot: Option<&str>,
        location: &Location,
        on_progress: OnProgress<'_>,
    ) -> Result<(Written, &'static str), ArchiveError> {
        let mut compression = self.compression;
        loop {
            let (argument, word) = compression.resolve(self.programs.major);
            let what = || format!("pg_dump of {}", target.database);
            let written = within(
                self.limit,
                what,
                self.write_as(target, snapshot, argument, location, on_progress),
            );
            match written.await {
                // Built without it: the next best is taken.
                Err(ArchiveError::ProgramFailed { said, .. })
                    if compression == Compression::Auto
                        && word == "zstd"
                        && said.contains("does not support compression") =>
                {
                    compression = Compression::Gzip;
                }
                outcome => return outcome.map(|written| (written, word)),
            }
        }
    }

    async fn write_as(
        &self,
        target: &ConnectTarget,
        snapshot: Option<&str>,
        compress: Option<&str>,
        location: &Location,
        on_progress: OnProgress<'_>,
    ) -> Result<Written, ArchiveError> {
        let mut dump = command(&self.programs.dump, target);
        // A subscription's connection holds a password, and its copy would replicate.
        dump.args([
            "--format=custom",
            "--no-password",
            "--no-subscriptions",
            LOCK_WAIT,
        ]);
        if let Some(snapshot) = snapshot {
            dump.arg(format!("--snapshot={snapshot}"));
        }
        dump.args(compress);
        let encryptor = self.keys.encryptor()?;
        if let (Some(file), None) = (location.local(), &encryptor) {
            let part = files::part_of(file);
            drop(files::prepare_file(&part)?);
            dump.arg("--file").arg(&part);
            let mut running = Running::start(dump, "pg_dump", &self.programs.dump, target)?;
            let measure = async {
                loop {
                    tokio::time::sleep(MEASURE_EVERY).await;
                    if let Ok(meta) = tokio::fs::metadata(&part).await {
                        on_progress(meta.len());
                    }
                }
            };
            tokio::select! {
                outcome = running.end() => outcome,
                () = measure => unreachable!("measuring goes on until the dump ends"),
            }
            .map_err(|error| name_full_disk(error, &part))?;
            files::finish_file(&part, file).await?;
            let (bytes, sha256) = location.measure(&|_| {}).await?;
            return Ok(Written { bytes, sha256 });
        }
        dump.stdout(Stdio::piped());
        let mut running = Running::start(dump, "pg_dump", &self.programs.dump, target)?;
        let mut stdout = running.child.stdout.take();
        let (mut sink, source) = tokio::io::duplex(PIPE_BYTES);
        // The sink ends its stream only when the program ended well: half a dump never becomes a file.
        let pump = async {
            let pumped = async {
                let Some(stdout) = &mut stdout else { return Ok(()) };
                match encryptor {
                    Some(encryptor) => crypt::encrypt(encryptor, stdout, &mut Held(&mut sink)).await,
                    None => tokio::io::copy(stdout, &mut sink).await.map(drop),
                }
            };
            let (pumped, ended) = tokio::join!(pumped, running.end());
            ended?;
            pumped.map_err(|error| ArchiveError::Store {
                doing: "writing",
                location: location.to_string(),
                why: error.to_string(),
                passing: false,
            })?;
            // The other end reads on to the end of the stream.
            let _ = sink.shutdown().await;
            Ok(())
        };
        let store = upload(location, source, on_progress);
        tokio::try_join!(pump, store).map(|((), written)| written)
    }
}

/// A sink whose stream is not ended by whoever writes to it.
struct Held<'a>(&'a mut tokio::io::DuplexStream);

impl tokio::io::AsyncWrite for Held<'_> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut *self.0).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.poll_flush(cx)
    }
}

fn name_full_disk(error: ArchiveError, path: &std::path::Path) -> ArchiveError {
    match error {
        ArchiveError::ProgramFailed { said, .. }
            if said.contains("No space left on device") || said.contains("Disk quota exceeded") =>
        {
            // What was written is of no use and would keep the disk full.
            if let Err(error) = files::remove(path) {
                tracing::warn!(path = %path.display(), %error, "an unfinished dump could not be removed");
            }
            ArchiveError::DiskFull {
                path: path.to_owned(),
            }
        }
        other => other,
    }
}
