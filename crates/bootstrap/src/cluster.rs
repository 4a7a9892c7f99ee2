//! The embedded server's life as a platform sees it: one process owns it and starts it again when it ends
//! unasked; when the owner itself ends, another that still needs the server takes it over.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use embedded::{Cluster, ClusterOptions, EmbeddedError};
use pg::ConnectTarget;
use tokio::{sync::Mutex, task::JoinHandle};

use crate::restarts::Restarts;

/// How often an owner looks whether its server is still there, which costs a few system calls.
const OWNER_LOOKS_EVERY: Duration = Duration::from_millis(250);
/// How often a guest looks, which costs a connection.
const GUEST_LOOKS_EVERY: Duration = Duration::from_secs(1);
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// How often an owner looks whether there is room again for its server.
const FULL_LOOKS_EVERY: Duration = Duration::from_secs(2);

/// A budget of any sensible size, for several `tenantd` on this machine, and what is reserved beside it. A
/// connection that nobody makes costs the server a few kB.
const CONNECTIONS_MAX: &str = "900";

/// An embedded server that this process owns or visits.
#[derive(Debug)]
pub(crate) struct EmbeddedServer {
    target: ConnectTarget,
    bin_dir: PathBuf,
    held: Arc<Mutex<Option<Cluster>>>,
    keeper: JoinHandle<()>,
}

impl EmbeddedServer {
    pub(crate) async fn start(paths: &settings::Paths) -> Result<Self, EmbeddedError> {
        let options = ClusterOptions {
            dir: paths.embedded_dir(),
            bin: paths.pg_bin.clone(),
            parameters: vec![("max_connections".to_owned(), CONNECTIONS_MAX.to_owned())],
        };
        let cluster = Cluster::start_or_attach(options.clone()).await?;
        let target = cluster.target().clone();
        let bin_dir = cluster.bin().dir().to_owned();
        let held = Arc::new(Mutex::new(Some(cluster)));
        let keeper = tokio::spawn(keep(options, target.clone(), Arc::clone(&held)));
        Ok(Self {
            target,
            bin_dir,
            held,
            keeper,
        })
    }

    pub(crate) fn target(&self) -> &ConnectTarget {
        &self.target
    }

    /// The programs of the server's own version.
    pub(crate) fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// Stops the server if it is ours.
    pub(crate) async fn close(self) -> Result<(), EmbeddedError> {
        self.keeper.abort();
        match self.held.lock().await.take() {
            Some(cluster) => cluster.stop().await,
            None => Ok(()),
        }
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Keeps the server running for as long as this process needs it; data, port and password stay the same. Ends
/// when the server cannot be kept.
async fn keep(options: ClusterOptions, target: ConnectTarget, held: Arc<Mutex<Option<Cluster>>>) {
    let mut restarts = Restarts::default();
    let mut since = Instant::now();
    let mut full_told = false;
    loop {
        let is_owner = held.lock().await.as_ref().is_some_and(Cluster::is_owner);
        if !is_owner {
            tokio::time::sleep(GUEST_LOOKS_EVERY).await;
            if succeed(&options, &target, &held).await {
                since = Instant::now();
            }
            continue;
        }
        tokio::time::sleep(OWNER_LOOKS_EVERY).await;
        let ended = match held.lock().await.as_mut() {
            None => return,
            Some(cluster) => cluster
                .has_ended()
                .then(|| (cluster.log(), cluster.disk_is_full())),
        };
        let Some((log, full)) = ended else {
            full_told = false;
            continue;
        };
        if full {
            // To start it would only fail, and count as one of the starts that it is given.
            if !full_told {
                full_told = true;
                tracing::error!(
                    log = %log.display(),
                    "the disk of the embedded PostgreSQL is full, and the server has ended; free some space, \
                     then it is started again by itself"
                );
            }
            tokio::time::sleep(FULL_LOOKS_EVERY).await;
            continue;
        }
        let Some(delay) = restarts.next(since.elapsed()) else {
            tracing::error!(
                restarts = Restarts::IN_A_ROW_MAX,
                log = %log.display(),
                "the embedded PostgreSQL keeps ending and is left stopped; see its log for why, then start \
                 this process again"
            );
            return;
        };
        tracing::warn!(
            log = %log.display(),
            delay_ms = delay.as_millis(),
            "the embedded PostgreSQL ended although nobody stopped it; starting it again"
        );
        tokio::time::sleep(delay).await;
        restart(&held).await;
        since = Instant::now();
    }
}

async fn restart(held: &Mutex<Option<Cluster>>) {
    let mut held = held.lock().await;
    let Some(cluster) = held.as_mut() else {
        return;
    };
    match cluster.restart().await {
        Ok(()) => tracing::info!(port = cluster.target().port, "the embedded PostgreSQL runs again"),
        Err(error) => tracing::error!(%error, "the embedded PostgreSQL could not be started again"),
    }
}

/// Looks for the owner's server, and runs it on when the owner has ended; says whether it does now.
async fn succeed(options: &ClusterOptions, target: &ConnectTarget, held: &Mutex<Option<Cluster>>) -> bool {
    if pg::connect(target, "tenantry embedded", LOOK_LIMIT).await.is_ok() {
        return false;
    }
    match Cluster::start_or_attach(options.clone()).await {
        Ok(cluster) => {
            if cluster.target().port != target.port {
                tracing::error!(
                    before = target.port,
                    now = cluster.target().port,
                    "the embedded PostgreSQL came back on another port; restart this process"
                );
            }
            let is_owner = cluster.is_owner();
            *held.lock().await = Some(cluster);
            if is_owner {
                tracing::info!("the embedded PostgreSQL's owner ended; this process runs it now");
            }
            is_owner
        }
        Err(error) => {
            tracing::warn!(%error, "the embedded PostgreSQL is gone and cannot be started yet");
            false
        }
    }
}
