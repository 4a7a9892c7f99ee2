//! The embedded server's life as a platform sees it: one process owns it, and when that one ends, another that still
//! needs it takes it over.

use std::{sync::Arc, time::Duration};

use embedded::{Cluster, ClusterOptions, EmbeddedError};
use pg::ConnectTarget;
use tokio::{sync::Mutex, task::JoinHandle};

/// How often a guest looks whether the owner's server is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// Every pool of one `tenantd` at its default bounds, the registry's and a few for people; one costs 1.1 MB when used.
const CONNECTIONS_MAX: &str = "900";

/// An embedded server that this process owns or visits.
#[derive(Debug)]
pub(crate) struct EmbeddedServer {
    target: ConnectTarget,
    held: Arc<Mutex<Option<Cluster>>>,
    successor: Option<JoinHandle<()>>,
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
        let is_owner = cluster.is_owner();
        let held = Arc::new(Mutex::new(Some(cluster)));
        let successor =
            (!is_owner).then(|| tokio::spawn(succeed(options, target.clone(), Arc::clone(&held))));
        Ok(Self {
            target,
            held,
            successor,
        })
    }

    pub(crate) fn target(&self) -> &ConnectTarget {
        &self.target
    }

    /// Stops the server if it is ours.
    pub(crate) async fn close(mut self) -> Result<(), EmbeddedError> {
        if let Some(successor) = self.successor.take() {
            successor.abort();
        }
        match self.held.lock().await.take() {
            Some(cluster) => cluster.stop().await,
            None => Ok(()),
        }
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        if let Some(successor) = &self.successor {
            successor.abort();
        }
    }
}

/// Waits for the owner's server to end and then runs it on; data, port and password stay the same.
async fn succeed(options: ClusterOptions, target: ConnectTarget, held: Arc<Mutex<Option<Cluster>>>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if pg::connect(&target, "tenantry embedded", LOOK_LIMIT)
            .await
            .is_ok()
        {
            continue;
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
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "the embedded PostgreSQL is gone and cannot be started yet"),
        }
    }
}
