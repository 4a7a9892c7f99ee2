//! How operations are run: claimed under a lease, step by step, by a worker or in the foreground.

mod context;
pub(crate) mod fault;
mod progress;
mod run;
mod sessions;
mod watch;
mod worker;

#[cfg(feature = "fault-points")]
pub use self::fault::Faults;
pub use self::progress::Progress;
pub(crate) use self::{
    context::{Context, StepOutcome, StepResult},
    fault::FaultPlan,
    progress::Observer,
    run::Aborting,
};
