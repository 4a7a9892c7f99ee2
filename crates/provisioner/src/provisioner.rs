//! The provisioner itself: what all of its parts share.

use std::sync::Arc;

#[cfg(feature = "fault-points")]
use crate::engine::Faults;
use crate::{ProvisionError, ProvisionerConfig, engine::FaultPlan, server::IdleSessions};

/// Asks for operations and runs them. Clones share everything.
#[derive(Clone)]
pub struct Provisioner {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: ProvisionerConfig,
    /// The host that this process runs on: a local path means something there only.
    pub(crate) host: String,
    /// This process among all workers of the fleet.
    pub(crate) owner: String,
    pub(crate) faults: FaultPlan,
    pub(crate) idle_sessions: IdleSessions,
    /// Woken when a spare was taken.
    pub(crate) spare_taken: tokio::sync::Notify,
}

impl Provisioner {
    /// A provisioner; nothing is connected yet.
    #[must_use]
    pub fn new(config: ProvisionerConfig) -> Self {
        let host = host_name();
        Self {
            inner: Arc::new(Inner {
                config,
                owner: owner_name(&host),
                host,
                faults: FaultPlan::from_env(),
                idle_sessions: IdleSessions::default(),
                spare_taken: tokio::sync::Notify::new(),
            }),
        }
    }

    /// The same, but stopping where a test says.
    #[cfg(feature = "fault-points")]
    #[must_use]
    pub fn with_faults(self, faults: Faults) -> Self {
        Self {
            inner: Arc::new(Inner {
                config: self.inner.config.clone(),
                owner: owner_name(&self.inner.host),
                host: self.inner.host.clone(),
                faults,
                idle_sessions: IdleSessions::default(),
                spare_taken: tokio::sync::Notify::new(),
            }),
        }
    }

    /// The same on another host, as far as others can tell.
    #[cfg(feature = "fault-points")]
    #[must_use]
    pub fn on_host(self, host: &str) -> Self {
        Self {
            inner: Arc::new(Inner {
                config: self.inner.config.clone(),
                owner: owner_name(host),
                host: host.to_owned(),
                faults: Faults::default(),
                idle_sessions: IdleSessions::default(),
                spare_taken: tokio::sync::Notify::new(),
            }),
        }
    }

    /// What it works with.
    #[must_use]
    pub fn config(&self) -> &ProvisionerConfig {
        &self.inner.config
    }

    /// The name under which this process holds leases.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.inner.owner
    }

    /// Where this process writes archives.
    ///
    /// # Errors
    /// [`ProvisionError::Archive`] when what is configured is no store.
    pub fn archive_store(&self) -> Result<archive::Store, ProvisionError> {
        self.inner.store()
    }

    /// The host that it runs on.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.inner.host
    }
}

fn host_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match host.trim() {
        "" => "host".to_owned(),
        host => host.replace(':', "-"),
    }
}

/// `host:pid:random`: names a process for people, and two runs with the same pid apart. The registry reads
/// the host from it.
fn owner_name(host: &str) -> String {
    format!("{host}:{}:{:08x}", std::process::id(), rand::random::<u32>())
}
