//! Whether connecting to a server is worth a try.
//!
//! Closed: every tenant may connect. After [`FAILURES_MAX`] failures in a row the breaker opens: the arbiter
//! refuses all callers at once, and one probe at a time finds out whether the server is back. The pause
//! doubles from failure to failure, with jitter so that many routers do not retry together.

use std::time::Duration;

use crate::Timestamp;

/// How many failures in a row open the breaker.
pub const FAILURES_MAX: u32 = 3;
/// The pause after the first failure.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause. With a connect on top, the arbiter notices within two seconds that a server is back.
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    not_before: Timestamp,
}

impl Breaker {
    pub(crate) fn is_open(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// Whether a connect may begin now. While the breaker is open, only if no other connect is under way.
    pub(crate) fn admits(&self, now: Timestamp, connecting: usize) -> bool {
        now >= self.not_before && !(self.is_open() && connecting > 0)
    }

    /// When the next connect may begin.
    pub(crate) fn not_before(&self) -> Timestamp {
        self.not_before
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Counts a failure. Returns whether this failure opened the breaker. `jitter` is a random number from 0
    /// to 1,000.
    pub(crate) fn failed(&mut self, now: Timestamp, jitter: u32) -> bool {
        let was_open = self.is_open();
        self.failures = self.failures.saturating_add(1);
        let doublings = self.failures.saturating_sub(1).min(10);
        self.not_before = now + jittered((PAUSE_MIN * (1 << doublings)).min(PAUSE_MAX), jitter);
        !was_open && self.is_open()
    }

    /// The outcome of a connect is unknown: the next one waits, and the failures before it still count.
    pub(crate) fn outcome_unknown(&mut self, now: Timestamp) {
        self.not_before = self.not_before.max(now + PAUSE_MIN / 2);
    }

    /// The server answers that it has no room: the next connect waits, and no caller is refused for it.
    pub(crate) fn server_full(&mut self, now: Timestamp, jitter: u32) {
        self.failures = 0;
        self.not_before = now + jittered(PAUSE_MIN, jitter);
    }
}

/// At least half of the pause, so that a jitter of zero does not make a busy loop.
fn jittered(pause: Duration, jitter: u32) -> Duration {
    pause / 2 + pause / 2 * jitter.min(1_000) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::ZERO;

    #[test]
    fn it_opens_after_three_failures_in_a_row_and_lets_one_probe_through_at_a_time() {
        let mut breaker = Breaker::default();
        assert!(!breaker.failed(START, 500));
        assert!(!breaker.failed(START, 500));
        breaker.succeeded();
        assert!(!breaker.failed(START, 500) && !breaker.failed(START, 500));
        assert!(breaker.failed(START, 500), "the third in a row opens it");
        assert!(breaker.is_open());

        let now = breaker.not_before();
        let before = Timestamp::from_micros(now.as_micros() - 1);
        assert!(!breaker.admits(before, 0));
        assert!(breaker.admits(now, 0));
        assert!(!breaker.admits(now + PAUSE_MAX, 1), "a probe is under way");
        assert!(!breaker.failed(now, 0), "it is open already");
        let now = breaker.not_before();
        assert!(breaker.admits(now, 0));
        breaker.succeeded();
        assert!(!breaker.is_open() && breaker.admits(now, 3));
    }

    #[test]
    fn a_full_server_is_there() {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES_MAX {
            breaker.failed(START, 500);
        }
        breaker.server_full(START, 500);
        assert!(!breaker.is_open());
        let before = START + (PAUSE_MIN / 2 - Duration::from_micros(1));
        assert!(!breaker.admits(before, 0) && breaker.admits(START + PAUSE_MIN, 0));
    }

    #[test]
    fn pauses_grow_within_bounds_and_are_never_none() {
        let mut breaker = Breaker::default();
        let mut last = Duration::ZERO;
        for failure in 0..50 {
            breaker.failed(START, 0);
            let pause = breaker.not_before().since(START);
            assert!(
                pause >= PAUSE_MIN / 2 && pause >= last,
                "failure {failure}: {pause:?}"
            );
            assert!(pause <= PAUSE_MAX);
            last = pause;
        }
        breaker.failed(START, 1_000);
        assert_eq!(breaker.not_before(), START + PAUSE_MAX);
    }
}
