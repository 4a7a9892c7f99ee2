//! How often, and after how long, a server that ended unasked is started again.
//!
//! One that was killed comes back at once. One that ends each time it starts (its data are damaged, the disk
//! is full) must neither be hammered for ever nor hide behind restarts: after a bounded number it stays down,
//! and that is said.

use std::time::Duration;

/// The longest pause before a start.
const DELAY_MAX: Duration = Duration::from_secs(60);
/// A server that ran for this long is well; what ends it then is something new.
const WELL_AFTER: Duration = Duration::from_secs(300);

/// Counts the starts that did not last.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    in_a_row: u32,
}

impl Restarts {
    /// Starts in a row of which none lasted, before the server is left down: four minutes in all, when each
    /// ends at once.
    pub(crate) const IN_A_ROW_MAX: u32 = 10;

    /// The pause before the next start of a server that `ran_for` so long; `None` when it was started often
    /// enough.
    pub(crate) fn next(&mut self, ran_for: Duration) -> Option<Duration> {
        if ran_for >= WELL_AFTER {
            self.in_a_row = 0;
        }
        if self.in_a_row >= Self::IN_A_ROW_MAX {
            return None;
        }
        // 0, 1, 2, 4, … seconds: the first at once.
        let delay = match self.in_a_row {
            0 => Duration::ZERO,
            n => Duration::from_secs(1 << (n - 1)).min(DELAY_MAX),
        };
        self.in_a_row += 1;
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_keeps_ending_is_started_ever_later_and_then_no_more() {
        let mut restarts = Restarts::default();
        let delays: Vec<u64> = std::iter::from_fn(|| restarts.next(Duration::from_secs(1)))
            .map(|delay| delay.as_secs())
            .collect();
        assert_eq!(delays, [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(restarts.next(Duration::ZERO), None);
    }

    #[test]
    fn one_that_ran_well_for_a_while_is_started_at_once() {
        let mut restarts = Restarts::default();
        for _ in 0..5 {
            restarts.next(Duration::from_secs(1));
        }
        assert_eq!(restarts.next(WELL_AFTER), Some(Duration::ZERO));
        assert_eq!(restarts.next(Duration::ZERO), Some(Duration::from_secs(1)));
    }
}
