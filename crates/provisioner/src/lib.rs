//! Durable changes to laboratories: provision, adopt, migrate, back up, restore, offboard.
//!
//! What is asked for is written, in one transaction, as a change of the registry and an operation that makes
//! it true. A worker in `tenantd`, or `tenantctl` in the foreground, claims an operation by
//! a lease and works through its steps. Each step looks before it acts, so a crash anywhere costs time and
//! nothing else.
//!
//! Invariants:
//!
//! - A laboratory becomes `active` in the last step of its provisioning and nowhere else.
//! - A database that was ever in service is dropped only after its archive was restored, compared,
//!   recorded, is still there unchanged, and still holds what the database does.
//! - A database or role is touched only if it is marked as this laboratory's own; what else has its name is
//!   left alone.
//! - A worker that lost its lease stops; its successor ends what that worker still had under way on the
//!   server.
//!
//! The provisioner knows nothing of HTTP or of what a laboratory does; its first rows come by [`SeedHook`].

mod config;
mod doctor;
mod engine;
mod error;
mod forget;
mod invitations;
mod operations;
mod preconditions;
mod reconcile;
mod request;
mod retention;
mod server;
mod suspend;

use std::sync::Arc;

pub use config::{ArchiveOptions, Bounds, OpenRule, ProvisionerConfig, RolePolicy, Seed, SeedHook};
pub use doctor::{Examined, Finding, FindingKind, Reachable, Report, RoleCreator, Severity};
#[cfg(feature = "fault-points")]
pub use engine::Faults;
pub use engine::Progress;
pub use error::{BoxError, ProvisionError};
pub use invitations::Invited;
pub use operations::adopt::request::{AdminEntry, Adoption};
pub use operations::import_archive::Import;
pub use operations::offboard::request::{GRACE_MAX, GRACE_UNCONFIRMED_MIN};
pub use operations::provision::request::{NewAdmin, NewLab};
pub use operations::restore::request::RestoreAs;
pub use operations::{steps, undo_steps};
pub use reconcile::Stocked;
pub use request::RequestedBy;
pub use retention::Schedule;

/// From which offset on a machine's clock is worth a finding and a warning. Nothing is decided by it; a
/// second or two is what a machine without time synchronisation gathers in a day.
pub const CLOCK_OFFSET_MAX: jiff::SignedDuration = jiff::SignedDuration::from_secs(5);

/// Asks for operations and runs them. Clones share everything.
#[derive(Clone)]
pub struct Provisioner {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: ProvisionerConfig,
    /// The host that this process runs on: a local path means something there only.
    pub(crate) host: String,
    /// This process among all workers of the fleet.
    pub(crate) owner: String,
    pub(crate) faults: engine::FaultPlan,
    pub(crate) idle_sessions: server::IdleSessions,
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
                faults: engine::FaultPlan::from_env(),
                idle_sessions: server::IdleSessions::default(),
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
                idle_sessions: server::IdleSessions::default(),
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
                idle_sessions: server::IdleSessions::default(),
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
