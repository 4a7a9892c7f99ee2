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
mod provisioner;
mod reconcile;
mod request;
mod retention;
mod server;
mod suspend;

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
pub(crate) use provisioner::Inner;
pub use provisioner::Provisioner;
pub use reconcile::Stocked;
pub use request::RequestedBy;
pub use retention::Schedule;

/// From which offset on a machine's clock is worth a finding and a warning. Nothing is decided by it; a
/// second or two is what a machine without time synchronisation gathers in a day.
pub const CLOCK_OFFSET_MAX: jiff::SignedDuration = jiff::SignedDuration::from_secs(5);
