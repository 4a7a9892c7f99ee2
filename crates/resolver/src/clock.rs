use std::time::Duration;

use arbiter::Micros;
use tokio::time::Instant;

/// Microseconds since the resolver started: they fit an atomic, and the arbiter reckons in them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn now(self) -> Micros {
        micros(self.start.elapsed())
    }
}

pub(crate) fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX)
}
