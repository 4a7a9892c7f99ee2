//! Writing a dump to its place and restoring it from there.
//!
//! To a local file in the clear `pg_dump` writes by itself, at its own speed, and `pg_restore` reads it with several
//! connections at once. Everywhere else the dump is a stream: counted, hashed and encrypted as it passes, with no copy on the
//! way.

use std::{process::Stdio, str::FromStr, time::Duration};

use pg::ConnectTarget;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::{
    ArchiveError, Keys, Place, Programs, crypt, files,
    programs::{Running, command, within},
    upload::upload,
};

/// How often a growing dump is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(500);
/// What is held between program and store.
const PIPE_BYTES: usize = 1024 * 1024;
const CHUNK_BYTES: usize = 256 * 1024;
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
pub type Told<'a> = &'a (dyn Fn(u64) + Send + Sync);

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
    /// Dumps the database that `target` names, as it is in the exported `snapshot`, to `place`; tells how many bytes are
    /// written. Gives what was written and how it is compressed.
    ///
    /// # Errors
    /// [`ArchiveError::ProgramFailed`], [`ArchiveError::TookTooLong`], [`ArchiveError::DiskFull`] and others; nothing stands
    /// at `place` then that was not there before.
    pub async fn write(
        &self,
        target: &ConnectTarget,
        snapshot: Option<&str>,
        place: &Place,
        told: Told<'_>,
    ) -> Result<(Written, &'static str), ArchiveError> {
        let mut compression = self.compression;
        loop {
            let (argument, word) = compression.resolve(self.programs.major);
            let what = || format!("pg_dump of {}", target.database);
            let written = within(
                self.limit,
                what,
                self.write_as(target, snapshot, argument, place, told),
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
        place: &Place,
        told: Told<'_>,
    ) -> Result<Written, ArchiveError> {
        let mut dump = command(&self.programs.dump, target);
        dump.args(["--format=custom", "--no-password", LOCK_WAIT]);
        if let Some(snapshot) = snapshot {
            dump.arg(format!("--snapshot={snapshot}"));
        }
        dump.args(compress);
        let encryptor = self.keys.encryptor()?;
        if let (Some(file), None) = (place.local(), &encryptor) {
            let part = files::part_of(file);
            drop(files::prepare_file(&part)?);
            dump.arg("--file").arg(&part);
            let mut running = Running::start(dump, "pg_dump", &self.programs.dump, target)?;
            let measure = async {
                loop {
                    tokio::time::sleep(MEASURE_EVERY).await;
                    if let Ok(meta) = tokio::fs::metadata(&part).await {
                        told(meta.len());
                    }
                }
            };
            tokio::select! {
                outcome = running.end() => outcome,
                () = measure => unreachable!("measuring goes on until the dump ends"),
            }
            .map_err(|error| name_full_disk(error, &part))?;
            files::finish_file(&part, file).await?;
            let (bytes, sha256) = place.measure(&|_| {}).await?;
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
                location: place.to_string(),
                why: error.to_string(),
                passing: false,
            })?;
            // The other end reads on to the end of the stream.
            let _ = sink.shutdown().await;
            Ok(())
        };
        let store = upload(place, source, told);
        tokio::try_join!(pump, store).map(|((), written)| written)
    }

    /// Restores the dump at `place` into the empty database that `target` names, and refuses one that is not what was
    /// `written`. Tells how many bytes of it are read, where it is a stream.
    ///
    /// What it restores is on the server's disk only with the next commit that waits for it, in whatever database: a dump has
    /// a few hundred small transactions, and to wait for the disk behind each takes longer than the rest of a small laboratory.
    ///
    /// # Errors
    /// [`ArchiveError::Broken`]; [`ArchiveError::Key`] when it cannot be decrypted; others as for writing.
    pub async fn restore(
        &self,
        target: &ConnectTarget,
        place: &Place,
        encrypted: bool,
        written: &Written,
        told: Told<'_>,
    ) -> Result<(), ArchiveError> {
        let what = || format!("pg_restore of {}", target.database);
        within(
            self.limit,
            what,
            self.restore_from(target, place, encrypted, written, told),
        )
        .await
    }

    async fn restore_from(
        &self,
        target: &ConnectTarget,
        place: &Place,
        encrypted: bool,
        written: &Written,
        told: Told<'_>,
    ) -> Result<(), ArchiveError> {
        let mut restore = command(&self.programs.restore, target);
        // Everything belongs to whoever restores.
        restore
            .args(["--exit-on-error", "--no-password", "--no-owner", "--dbname"])
            .arg(&target.database)
            .env("PGOPTIONS", "-c synchronous_commit=off");
        if let (Some(file), false) = (place.local(), encrypted) {
            place.require(written.bytes, &written.sha256).await?;
            restore.arg(format!("--jobs={}", self.jobs.max(1))).arg(file);
            return Running::start(restore, "pg_restore", &self.programs.restore, target)?
                .end()
                .await;
        }
        let source = place.read().await?;
        restore.stdin(Stdio::piped());
        let mut running = Running::start(restore, "pg_restore", &self.programs.restore, target)?;
        let stdin = running.child.stdin.take();
        let mut source = Counted::new(source, told);
        let fed = async {
            let Some(mut stdin) = stdin else { return Ok(()) };
            if encrypted {
                let mut opened = crypt::decrypt(self.keys, &mut source).await?;
                feed(&mut opened, &mut stdin, place).await
            } else {
                feed(&mut source, &mut stdin, place).await
            }
        };
        let (fed, ended) = tokio::join!(fed, running.end());
        // A changed byte shows in many ways; the checksum of the whole names it. So the stream is read to its end first.
        let mut rest = vec![0; CHUNK_BYTES];
        while let Ok(1..) = source.read(&mut rest).await {}
        let Counted { bytes, hash, .. } = source;
        if bytes != written.bytes {
            let why = format!("it has {bytes} bytes and not {}", written.bytes);
            return Err(ArchiveError::broken(place, why));
        }
        if hex::encode(hash.finalize()) != written.sha256 {
            return Err(ArchiveError::broken(place, "its content has changed"));
        }
        // Without the identity the program got nothing, and can only say so.
        fed?;
        ended
    }
}

/// Copies until the end of the source, or of the program: then the program's own words matter.
async fn feed(
    source: &mut (impl AsyncRead + Unpin),
    stdin: &mut tokio::process::ChildStdin,
    place: &Place,
) -> Result<(), ArchiveError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = source
            .read(&mut chunk)
            .await
            .map_err(|error| ArchiveError::broken(place, error))?;
        if count == 0 || stdin.write_all(&chunk[..count]).await.is_err() {
            return Ok(());
        }
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

/// A stream that is hashed and counted as it is read.
struct Counted<'a, R> {
    source: R,
    told: Told<'a>,
    bytes: u64,
    hash: Sha256,
}

impl<'a, R> Counted<'a, R> {
    fn new(source: R, told: Told<'a>) -> Self {
        Self {
            source,
            told,
            bytes: 0,
            hash: Sha256::new(),
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<'_, R> {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = std::pin::Pin::new(&mut this.source).poll_read(cx, buf);
        let new = &buf.filled()[before..];
        if !new.is_empty() {
            this.hash.update(new);
            this.bytes += new.len() as u64;
            (this.told)(this.bytes);
        }
        polled
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
