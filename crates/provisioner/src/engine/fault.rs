//! Where a test may kill the process: before and after each step acts, and at a few moments within.
//!
//! Compiled to nothing without the feature `fault-points`. With it, a process whose environment names a point
//! in `TENANTRY_FAULT_POINT` appends the point's name to the file `TENANTRY_FAULT_FILE` when it gets there,
//! and then waits for ever: the test that waits for the file kills it and knows that the kill landed exactly
//! there.

use model::{OperationKind, Step};

/// Where in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) kind: OperationKind,
    pub(crate) undoing: bool,
    pub(crate) step: Step,
    pub(crate) moment: Moment,
}

/// Before or after the step's work, or where it would hurt most within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The registry says that the step is running; nothing is done yet.
    Begun,
    /// The scratch database is there; its rights are not set yet.
    ScratchMade,
    /// What is to be dropped or renamed is closed, and that is all yet.
    Closed,
    /// The step's work is done; the registry does not know yet.
    Acted,
}

#[cfg(not(feature = "fault-points"))]
mod imp {
    /// No faults.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Faults;

    impl Faults {
        pub(crate) fn from_env() -> Self {
            Self
        }

        pub(crate) async fn reach(&self, _point: crate::engine::fault::Point) {}
    }
}

#[cfg(feature = "fault-points")]
mod imp {
    use std::{io::Write, path::PathBuf};

    use crate::engine::fault::{Moment, Point};

    /// The point at which to stop, and the file that tells so.
    #[derive(Debug, Clone, Default)]
    pub struct Faults {
        stop: Option<(String, PathBuf)>,
    }

    impl Faults {
        /// Stops where the environment says, if it says anything.
        pub(crate) fn from_env() -> Self {
            let point = std::env::var("TENANTRY_FAULT_POINT").ok();
            let file = std::env::var_os("TENANTRY_FAULT_FILE").map(PathBuf::from);
            Self {
                stop: point.zip(file),
            }
        }

        /// Stops at `point`, such as `provision/ensure_role/acted` or `provision/undo/drop_role/begun`, and
        /// tells `file`.
        #[must_use]
        pub fn stop_at(point: impl Into<String>, file: impl Into<PathBuf>) -> Self {
            Self {
                stop: Some((point.into(), file.into())),
            }
        }

        pub(crate) async fn reach(&self, point: Point) {
            let Some((stop, file)) = &self.stop else {
                return;
            };
            let undo = if point.undoing { "undo/" } else { "" };
            let moment = match point.moment {
                Moment::Begun => "begun",
                Moment::ScratchMade => "scratch_made",
                Moment::Closed => "closed",
                Moment::Acted => "acted",
            };
            let name = format!("{}/{undo}{}/{moment}", point.kind, point.step);
            if *stop != name {
                return;
            }
            tracing::warn!(point = name, "stopping at a fault point");
            let written = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(file)
                .and_then(|mut file| writeln!(file, "{name}"));
            if let Err(error) = written {
                tracing::error!(%error, file = %file.display(), "the fault point cannot be written");
            }
            std::future::pending::<()>().await;
        }
    }
}

pub(crate) use imp::Faults as FaultPlan;
#[cfg(feature = "fault-points")]
pub use imp::Faults;
