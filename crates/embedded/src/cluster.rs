//! A cluster as its callers see it: owned or visited, and where to connect.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pg::ConnectTarget;
use secrecy::SecretString;

use crate::{
    EmbeddedError, PgBin,
    initdb::SUPERUSER,
    layout::{LOG, Layout, ROOM_MIN, lock_is_free, lock_open, lock_take},
    scratch::Scratch,
    server::{Plan, Server},
};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The owner may be making the data, or recovering them after a crash.
const ATTACH_LIMIT: Duration = Duration::from_secs(200);
/// How long an owner may have no server: it starts one within moments, and an ended one again within seconds.
const SERVERLESS_LIMIT: Duration = Duration::from_secs(10);
/// How long a full disk, on which the server neither runs nor lets anybody in, is waited for.
const FULL_LIMIT: Duration = Duration::from_secs(5);
/// How long a server that recovers from a crash is waited for.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// After how long it is said what is waited for.
const TOLD_AFTER: Duration = Duration::from_secs(2);
/// The first pause between two looks; each later one doubles it. A look costs a connection.
const POLL_EVERY: Duration = Duration::from_millis(25);
/// The longest such pause.
const POLL_EVERY_MAX: Duration = Duration::from_millis(500);

/// How to start a cluster whose data stay.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The cluster's directory; made if need be, used again at the next start.
    pub dir: PathBuf,
    /// The directory of the PostgreSQL programs; `None` finds the newest that fits the data.
    pub bin: Option<PathBuf>,
    /// Server parameters such as `("max_connections", "300")`. Addresses, port, sockets and logging are not
    /// the caller's.
    pub parameters: Vec<(String, String)>,
}

/// How to start a cluster for tests, whose data go with it.
#[derive(Debug, Clone, Default)]
pub struct ThrowawayOptions {
    /// Where its directory is made; the system's place for temporary files when `None`.
    pub parent: Option<PathBuf>,
    /// The directory of the PostgreSQL programs; `None` finds the newest.
    pub bin: Option<PathBuf>,
    /// Server parameters, over the fast and crash-unsafe ones that a throw-away cluster has.
    pub parameters: Vec<(String, String)>,
}

/// A running private cluster.
///
/// Its owner stops it by [`Cluster::stop`] or by dropping it, which blocks until the server is gone; so it
/// ends as well when the owner is killed. To a guest both do nothing, and the server ends when its owner
/// does.
pub struct Cluster {
    target: ConnectTarget,
    bin: PgBin,
    dir: PathBuf,
    // Dropped in this order: the directory goes when nothing works in it any more.
    server: Option<Server>,
    scratch: Option<Scratch>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("target", &self.target)
            .field("dir", &self.dir)
            .field("is_owner", &self.is_owner())
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Starts the cluster in a directory, or joins the process that runs it already.
    ///
    /// # Errors
    /// [`EmbeddedError`] says what is wrong and what to do about it.
    pub async fn start_or_attach(options: ClusterOptions) -> Result<Self, EmbeddedError> {
        let layout = Layout::open(&options.dir)?;
        let mut waiting = Waiting::default();
        let (start, mut pause, mut told) = (Instant::now(), POLL_EVERY, false);
        loop {
            let owner = lock_open(&layout.owner_lock())?;
            if lock_take(&owner, &layout.owner_lock())? {
                let plan = Plan {
                    layout,
                    bin: options.bin,
                    parameters: options.parameters,
                    throwaway: false,
                };
                let dir = plan.layout.dir().to_owned();
                let server = blocking(move || Server::start(plan, owner)).await?;
                return Self::owned(server, None, &dir).await;
            }
            match Self::attach(&layout).await {
                Ok(Some(cluster)) => return Ok(cluster),
                Ok(None) => {}
                // An owner that is just starting or ending; a lasting obstacle is reported in the end.
                Err(EmbeddedError::Connect(error)) => {
                    let shut = error.code() == Some(&tokio_postgres::error::SqlState::CANNOT_CONNECT_NOW);
                    waiting.recovering_since =
                        shut.then(|| waiting.recovering_since.unwrap_or_else(Instant::now));
                    waiting.last = Some(error.to_string());
                }
                Err(error) => return Err(error),
            }
            // initdb, the server and all that is left of one hold it: when it is free, there is nothing to
            // wait for.
            let serverless = lock_is_free(&layout.server_lock())?;
            waiting.serverless_since =
                serverless.then(|| waiting.serverless_since.unwrap_or_else(Instant::now));
            if let Some(error) = waiting.give_up(&layout, start, layout.free_bytes()) {
                return Err(error);
            }
            if !told && start.elapsed() > TOLD_AFTER {
                told = true;
                tracing::warn!(
                    dir = %layout.dir().display(),
                    last = waiting.last,
                    "waiting for the embedded PostgreSQL, which another process runs"
                );
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_EVERY_MAX);
        }
    }

    /// Starts a cluster of one's own that is fast, does not survive a crash of the machine, and leaves
    /// nothing behind: its directory is removed when it stops, also when its owner is killed.
    ///
    /// # Errors
    /// [`EmbeddedError`] says what is wrong and what to do about it.
    pub async fn start_throwaway(options: ThrowawayOptions) -> Result<Self, EmbeddedError> {
        let parent = options.parent.unwrap_or_else(std::env::temp_dir);
        let mut parameters = fast_parameters();
        parameters.extend(options.parameters);
        // Together on the thread that blocks: if the caller goes away meanwhile, both are dropped there.
        let (server, scratch) = blocking(move || {
            let scratch = Scratch::new(&parent)?;
            let layout = Layout::open(scratch.dir())?;
            let owner = lock_open(&layout.owner_lock())?;
            lock_take(&owner, &layout.owner_lock())?;
            let plan = Plan {
                layout,
                bin: options.bin,
                parameters,
                throwaway: true,
            };
            Ok((Server::start(plan, owner)?, scratch))
        })
        .await?;
        let dir = scratch.dir().to_owned();
        Self::owned(server, Some(scratch), &dir).await
    }

    /// The database `postgres`, as the cluster's superuser.
    #[must_use]
    pub fn target(&self) -> &ConnectTarget {
        &self.target
    }

    /// The programs of the server's version.
    #[must_use]
    pub fn bin(&self) -> &PgBin {
        &self.bin
    }

    /// The cluster's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the server ends with this value.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.server.is_some()
    }

    /// The server's own log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join(LOG)
    }

    /// Whether this owner's server is gone although nobody stopped it; a guest does not know.
    pub fn has_ended(&mut self) -> bool {
        self.server.as_mut().is_some_and(Server::has_ended)
    }

    /// Whether the disk that holds the data has too little room for the server to run.
    #[must_use]
    pub fn disk_is_full(&self) -> bool {
        let free = Layout::open(&self.dir)
            .ok()
            .and_then(|layout| layout.free_bytes());
        free.is_some_and(|free| free < ROOM_MIN)
    }

    /// Starts an owner's server that has ended again, with its data and on its port; does nothing for a
    /// guest.
    ///
    /// When it fails it may be tried again. A caller that goes away meanwhile stops the server.
    ///
    /// # Errors
    /// [`EmbeddedError`] says what is wrong and what to do about it.
    pub async fn restart(&mut self) -> Result<(), EmbeddedError> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        let (server, outcome) = blocking(move || {
            let outcome = server.restart();
            Ok((server, outcome))
        })
        .await?;
        self.server = Some(server);
        outcome
    }

    /// Stops the server and waits until it is gone; does nothing for a guest.
    ///
    /// # Errors
    /// [`EmbeddedError::NotGone`] when it does not end.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        let (server, scratch) = (self.server.take(), self.scratch.take());
        blocking(move || {
            let stopped = server.map_or(Ok(()), Server::stop);
            let removed = scratch.map_or(Ok(()), Scratch::remove);
            stopped.and(removed)
        })
        .await
    }

    async fn owned(server: Server, scratch: Option<Scratch>, dir: &Path) -> Result<Self, EmbeddedError> {
        let cluster = Self {
            target: target(server.port, server.password.clone()),
            bin: server.bin.clone(),
            dir: dir.to_owned(),
            server: Some(server),
            scratch,
        };
        // That it says "ready" is one thing, that this password opens it another.
        pg::connect(&cluster.target, "tenantry embedded", CONNECT_LIMIT).await?;
        Ok(cluster)
    }

    /// `None` while the owner has not said where its server is.
    async fn attach(layout: &Layout) -> Result<Option<Self>, EmbeddedError> {
        let Some(endpoint) = layout.endpoint_read() else {
            return Ok(None);
        };
        let target = target(endpoint.port, layout.password_read()?);
        // SCRAM is mutual: what answers here knows the password's verifier, so it is the server of this
        // directory.
        pg::connect(&target, "tenantry embedded", CONNECT_LIMIT).await?;
        Ok(Some(Self {
            target,
            bin: PgBin::find(Some(&endpoint.bin))?,
            dir: layout.dir().to_owned(),
            server: None,
            scratch: None,
        }))
    }
}

/// What a guest has met so far.
#[derive(Debug, Default)]
struct Waiting {
    /// Since when there is no server.
    serverless_since: Option<Instant>,
    /// Since when it answers that it lets nobody in.
    recovering_since: Option<Instant>,
    last: Option<String>,
}

impl Waiting {
    /// Why there is no sense in waiting longer. `free`: how many bytes the server can still write.
    fn give_up(&self, layout: &Layout, start: Instant, free: Option<u64>) -> Option<EmbeddedError> {
        let long = |since: Option<Instant>, limit| since.is_some_and(|since| since.elapsed() > limit);
        let (dir, log) = (|| layout.dir().to_owned(), || layout.log());
        let stuck = long(self.serverless_since, FULL_LIMIT) || long(self.recovering_since, FULL_LIMIT);
        if let (true, Some(free @ ..ROOM_MIN)) = (stuck, free) {
            return Some(EmbeddedError::DiskFull {
                dir: dir(),
                free,
                last: self.last.clone(),
            });
        }
        if long(self.serverless_since, SERVERLESS_LIMIT) {
            return Some(EmbeddedError::OwnerServerless {
                lock: layout.owner_lock(),
                limit: SERVERLESS_LIMIT,
                log: log(),
            });
        }
        if long(self.recovering_since, RECOVERY_LIMIT) {
            return Some(EmbeddedError::Recovering {
                dir: dir(),
                waited: start.elapsed(),
                last: self.last.clone().unwrap_or_default(),
                log: log(),
            });
        }
        (start.elapsed() > ATTACH_LIMIT).then(|| EmbeddedError::OwnerSilent {
            lock: layout.owner_lock(),
            limit: ATTACH_LIMIT,
            last: self.last.clone(),
        })
    }
}

fn target(port: u16, password: SecretString) -> ConnectTarget {
    ConnectTarget {
        host: "127.0.0.1".to_owned(),
        port,
        user: SUPERUSER.to_owned(),
        password,
        database: SUPERUSER.to_owned(),
    }
}

/// Nobody misses these data after a crash, so nothing waits for the disk.
fn fast_parameters() -> Vec<(String, String)> {
    [
        ("fsync", "off"),
        ("synchronous_commit", "off"),
        ("full_page_writes", "off"),
        ("max_connections", "400"),
        ("max_wal_size", "4GB"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Runs what blocks on a thread for that. When the caller goes away meanwhile, what it started is dropped
/// when done.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EmbeddedError> + Send + 'static,
) -> Result<T, EmbeddedError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_cancelled) => Err(EmbeddedError::File {
            action: "go on with",
            path: PathBuf::from("the cluster"),
            source: io::Error::from(io::ErrorKind::Interrupted),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_says_why_it_gives_up_and_what_helps() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::open(home.path()).unwrap();
        let now = Instant::now();
        let ago = |s: u64| now.checked_sub(Duration::from_secs(s)).unwrap();
        let waiting = |serverless: Option<u64>, recovering: Option<u64>| Waiting {
            serverless_since: serverless.map(ago),
            recovering_since: recovering.map(ago),
            last: Some("in recovery mode".to_owned()),
        };
        let (full, room) = (Some(4096), Some(ROOM_MIN));
        for (waiting, start, free, sign) in [
            (waiting(None, None), 1, full, None),
            (waiting(None, Some(2)), 3, full, None),
            (waiting(None, Some(6)), 7, full, Some("is full (4 KiB are free)")),
            (waiting(Some(6), None), 7, full, Some("starts it again by itself")),
            (waiting(Some(6), None), 7, room, None),
            (waiting(Some(11), None), 12, room, Some("has run no PostgreSQL")),
            (waiting(Some(11), None), 12, None, Some("has run no PostgreSQL")),
            (waiting(None, Some(59)), 59, room, None),
            (waiting(None, Some(61)), 61, room, Some("needs no help")),
            (waiting(None, None), 201, room, Some("did not answer")),
        ] {
            let told = waiting
                .give_up(&layout, ago(start), free)
                .map(|error| error.to_string());
            match sign {
                None => assert_eq!(told, None, "{waiting:?}"),
                Some(sign) => assert!(told.as_ref().is_some_and(|told| told.contains(sign)), "{told:?}"),
            }
        }
    }
}
