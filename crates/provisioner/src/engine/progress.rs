use std::time::Duration;

use model::{OperationKind, Step};
use serde_json::Value;

/// Who is told of it.
pub(crate) type Observer<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// What happens to an operation while somebody watches it, for a terminal.
#[derive(Debug, Clone)]
pub enum Progress {
    /// This process runs it now.
    Claimed {
        /// What it does.
        kind: OperationKind,
        /// The how many-th try this is.
        attempt: u32,
    },
    /// Another worker runs it; what follows is read from the registry.
    Watching {
        /// Who runs it; nobody while it waits for its next try.
        owner: Option<String>,
    },
    /// A step begins.
    StepBegan {
        /// Which.
        step: Step,
        /// Its place, from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// Whether it takes away what was made.
        undoing: bool,
    },
    /// How much a step has written or restored so far.
    Bytes {
        /// Which step.
        step: Step,
        /// So many.
        bytes: u64,
        /// Of so many, where that is known.
        total: Option<u64>,
    },
    /// A step is done.
    StepDone {
        /// Which.
        step: Step,
        /// How long it took.
        took: Duration,
        /// What it found and did.
        saw: Value,
    },
    /// A try of a step failed.
    StepFailed {
        /// Which.
        step: Step,
        /// Why.
        error: String,
    },
    /// It will be tried again.
    WillRetry {
        /// After this time.
        delay: Duration,
    },
    /// This host cannot read what it needs, and leaves it to others.
    LeftToOthers {
        /// Which host has it.
        error: String,
    },
    /// It waits for a time to pass, as it should.
    Waiting {
        /// So long from now on.
        delay: Duration,
    },
    /// It failed for good or was cancelled, and what it made is taken away.
    Undoing {
        /// Why.
        error: String,
    },
}
