//! Restoring a dump: its contents first, as whoever restores; then owners, then rights, which roles that are
//! gone must not stop.

use std::{path::PathBuf, process::Stdio, time::Duration};

use pg::ConnectTarget;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_postgres::Client;

use crate::{
    ArchiveError, Dump, Location, Manifest, Missing, OnProgress, Owned, crypt,
    files::blocking,
    programs::{Running, command, within},
    rights,
};

const CHUNK_BYTES: usize = 256 * 1024;
/// How much of a stream's beginning is kept, to read the dump's directory from: room for some 50,000 objects.
const DIRECTORY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long the log-in may take with which owners and rights are restored.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

impl Dump<'_> {
    /// Restores the dump at `location` into the empty database that `target` names, and refuses one that is
    /// not what the `manifest` says. Tells how many bytes of it are read, where it is a stream. Owners and
    /// rights are restored last; those of roles that the server does not have are left out and returned.
    /// Subscriptions are never restored: a copy that replicates holds data that are not the dump's.
    ///
    /// What it restores is on the server's disk only with the next commit that waits for it, in whatever
    /// database: a dump has a few hundred small transactions, and to wait for the disk after each takes
    /// longer than the rest of a small laboratory.
    ///
    /// # Errors
    /// [`ArchiveError::Broken`]; [`ArchiveError::Key`] when it cannot be decrypted; others as for writing.
    pub async fn restore(
        &self,
        target: &ConnectTarget,
        location: &Location,
        manifest: &Manifest,
        on_progress: OnProgress<'_>,
    ) -> Result<Missing, ArchiveError> {
        let what = || format!("pg_restore of {}", target.database);
        let restoring = async {
            let client = pg::connect(target, "tenantry archive", CONNECT_LIMIT).await?;
            let contents = self
                .restore_contents(&client, target, location, manifest, on_progress)
                .await?;
            let rights = rights::statements(&self.rights_of(target, &contents).await?);
            give_rights(&client, target, &manifest.inventory.owners, &rights).await
        };
        within(self.limit, what, Box::pin(restoring)).await
    }

    /// Everything but owners and rights. Gives what tells the rights: the file, or the beginning of the
    /// stream.
    async fn restore_contents(
        &self,
        client: &Client,
        target: &ConnectTarget,
        location: &Location,
        manifest: &Manifest,
        on_progress: OnProgress<'_>,
    ) -> Result<Directory, ArchiveError> {
        let (written, encrypted) = (manifest.written(), manifest.encrypted_for.is_some());
        let mut restore = command(&self.programs.restore, target);
        restore
            .args([
                "--exit-on-error",
                "--no-password",
                "--no-owner",
                "--no-acl",
                "--no-subscriptions",
            ])
            .arg("--dbname")
            .arg(&target.database)
            .env("PGOPTIONS", "-c synchronous_commit=off");
        if !has_all_tablespaces(client, target, &manifest.inventory.tablespaces).await? {
            restore.arg("--no-tablespaces");
        }
        if let (Some(file), false) = (location.local(), encrypted) {
            location.require(written.bytes, &written.sha256).await?;
            restore.arg(format!("--jobs={}", self.jobs.max(1))).arg(file);
            Running::start(restore, "pg_restore", &self.programs.restore, target)?
                .end()
                .await?;
            return Ok(Directory::File(file.to_owned()));
        }
        let source = location.read().await?;
        restore.stdin(Stdio::piped());
        let mut running = Running::start(restore, "pg_restore", &self.programs.restore, target)?;
        let stdin = running.child.stdin.take();
        let mut source = Counted::new(source, on_progress);
        let mut beginning = Vec::new();
        let fed = async {
            let Some(mut stdin) = stdin else { return Ok(()) };
            if encrypted {
                let mut opened = crypt::decrypt(self.keys, &mut source).await?;
                feed(&mut opened, &mut stdin, location, &mut beginning).await
            } else {
                feed(&mut source, &mut stdin, location, &mut beginning).await
            }
        };
        let (fed, ended) = tokio::join!(fed, running.end());
        // A changed byte shows in many ways; the checksum of the whole names it. So the stream is read to its
        // end first.
        let mut rest = vec![0; CHUNK_BYTES];
        while let Ok(1..) = source.read(&mut rest).await {}
        let Counted { bytes, hash, .. } = source;
        if bytes != written.bytes {
            let why = format!("it has {bytes} bytes and not {}", written.bytes);
            return Err(ArchiveError::broken(location, why));
        }
        if hex::encode(hash.finalize()) != written.sha256 {
            return Err(ArchiveError::broken(location, "its content has changed"));
        }
        // Without the identity the program got nothing, and can only say so.
        fed?;
        ended?;
        Ok(Directory::Beginning(beginning))
    }

    /// The statements about rights that a dump has, as `pg_restore` writes them.
    async fn rights_of(&self, target: &ConnectTarget, dump: &Directory) -> Result<String, ArchiveError> {
        let list = self.read_from(target, dump, &["--list"]).await?;
        let lines: Vec<&str> = list
            .lines()
            .filter(|line| rights::is_about_rights(line))
            .collect();
        if lines.is_empty() {
            return Ok(String::new());
        }
        let failed = ArchiveError::io("writing", std::env::temp_dir());
        let wanted = blocking(move || tempfile::NamedTempFile::new().map_err(failed)).await?;
        tokio::fs::write(wanted.path(), lines.join("\n"))
            .await
            .map_err(ArchiveError::io("writing", wanted.path()))?;
        let list = format!("--use-list={}", wanted.path().display());
        self.read_from(target, dump, &[&list, "--file=-"]).await
    }

    /// What `pg_restore` says of a dump's directory.
    async fn read_from(
        &self,
        target: &ConnectTarget,
        dump: &Directory,
        arguments: &[&str],
    ) -> Result<String, ArchiveError> {
        let mut command = command(&self.programs.restore, target);
        command.args(arguments).stdout(Stdio::piped());
        match dump {
            Directory::File(file) => command.arg(file),
            Directory::Beginning(_) => command.stdin(Stdio::piped()),
        };
        let mut running = Running::start(command, "pg_restore", &self.programs.restore, target)?;
        let (stdin, stdout) = (running.child.stdin.take(), running.child.stdout.take());
        let feeding = async {
            if let (Some(mut stdin), Directory::Beginning(bytes)) = (stdin, dump) {
                // It ends as soon as it has read the directory.
                let _ = stdin.write_all(bytes).await;
            }
        };
        let reading = async {
            let mut said = Vec::new();
            if let Some(mut stdout) = stdout {
                // A broken pipe shows in how the program ends.
                let _ = stdout.read_to_end(&mut said).await;
            }
            String::from_utf8_lossy(&said).into_owned()
        };
        let ((), said, ended) = tokio::join!(feeding, reading, running.end());
        ended.map(|()| said)
    }
}

/// Where a dump's directory stands.
enum Directory {
    File(PathBuf),
    /// The first bytes of a stream, in the clear.
    Beginning(Vec<u8>),
}

async fn has_all_tablespaces(
    client: &Client,
    target: &ConnectTarget,
    wanted: &[String],
) -> Result<bool, ArchiveError> {
    if wanted.is_empty() {
        return Ok(true);
    }
    let row = client
        .query_one(
            "SELECT NOT EXISTS (SELECT FROM unnest($1::text[]) AS wanted
                     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_tablespace t WHERE t.spcname = wanted))",
            &[&wanted],
        )
        .await
        .map_err(ArchiveError::db("looking for tablespaces", target))?;
    Ok(row.get(0))
}

/// Gives each object to its owner, then each right to its role, in one transaction. Owners first: a right of
/// the owner's is none that is granted. Event triggers of the restored database do not run.
async fn give_rights(
    client: &Client,
    target: &ConnectTarget,
    owners: &[Owned],
    rights: &[rights::Statement],
) -> Result<Missing, ArchiveError> {
    let failed = || ArchiveError::db("restoring owners and rights", target);
    let named: Vec<&String> = rights
        .iter()
        .flat_map(|right| &right.roles)
        .chain(owners.iter().map(|owned| &owned.role))
        .collect();
    let rows = client
        .query(
            "SELECT DISTINCT wanted FROM pg_catalog.unnest($1::text[]) AS wanted
              WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = wanted) ORDER BY 1",
            &[&named],
        )
        .await
        .map_err(failed())?;
    let roles: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut sql = String::from(
        "BEGIN; SET LOCAL search_path = ''; SET LOCAL session_replication_role = replica; SET LOCAL synchronous_commit = off;\n",
    );
    let mut owned = Vec::new();
    for Owned { role, object, .. } in owners {
        if roles.contains(role) {
            owned.push(object.clone());
        } else {
            sql.push_str(&format!(
                "ALTER {object} OWNER TO {};\n",
                model::quote_ident(role)
            ));
        }
    }
    for right in rights {
        if !right.roles.iter().any(|role| roles.contains(role)) {
            sql.push_str(&format!("{};\n", right.sql));
        }
    }
    sql.push_str("COMMIT");
    client.batch_execute(&sql).await.map_err(failed())?;
    Ok(Missing { roles, owned })
}

/// Copies until the end of the source, or of the program: then the program's own words matter.
async fn feed(
    source: &mut (impl AsyncRead + Unpin),
    stdin: &mut tokio::process::ChildStdin,
    location: &Location,
    beginning: &mut Vec<u8>,
) -> Result<(), ArchiveError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = source
            .read(&mut chunk)
            .await
            .map_err(|error| ArchiveError::broken(location, error))?;
        let room = DIRECTORY_BYTES_MAX - beginning.len();
        beginning.extend_from_slice(&chunk[..count.min(room)]);
        if count == 0 || stdin.write_all(&chunk[..count]).await.is_err() {
            return Ok(());
        }
    }
}

/// A stream that is hashed and counted as it is read.
struct Counted<'a, R> {
    source: R,
    on_progress: OnProgress<'a>,
    bytes: u64,
    hash: Sha256,
}

impl<'a, R> Counted<'a, R> {
    fn new(source: R, on_progress: OnProgress<'a>) -> Self {
        Self {
            source,
            on_progress,
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
            (this.on_progress)(this.bytes);
        }
        polled
    }
}
