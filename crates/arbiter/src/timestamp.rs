use std::{ops::Add, time::Duration};

/// A moment on the caller's monotonic clock, in whole microseconds since that clock started.
///
/// Not `std::time::Instant`: callers keep timestamps in atomics, and simulations choose them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The start of the clock. Where a timestamp says when something happened last, it also stands for
    /// "never".
    pub const ZERO: Self = Self(0);
    /// Later than any moment that the clock reaches.
    pub const MAX: Self = Self(u64::MAX);

    /// The moment that many microseconds after the start of the clock.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the start of the clock.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this moment; zero if `earlier` is the later one.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates at [`Timestamp::MAX`].
    fn add(self, duration: Duration) -> Self {
        // Not `as_micros`, which computes in 128 bits.
        let seconds = duration.as_secs().saturating_mul(1_000_000);
        let micros = seconds.saturating_add(u64::from(duration.subsec_micros()));
        Self(self.0.saturating_add(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_and_subtract_without_overflow() {
        let start = Timestamp::from_micros(1_500_000);
        let later = start + Duration::from_millis(2_250);
        assert_eq!(later.as_micros(), 3_750_000);
        assert_eq!(later.since(start), Duration::from_millis(2_250));
        assert_eq!(start.since(later), Duration::ZERO);
        assert_eq!(start + Duration::MAX, Timestamp::MAX);
    }
}
