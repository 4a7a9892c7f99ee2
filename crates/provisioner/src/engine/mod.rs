//! How operations are run: claimed under a lease, step by step, by a worker or in the foreground.

mod fault;
mod progress;
mod run;
mod watch;
mod worker;

#[cfg(feature = "fault-points")]
pub use self::fault::Faults;
pub use self::progress::Progress;
pub(crate) use self::{
    fault::{FaultPlan, Moment, Point},
    run::{Aborting, Observer},
};
