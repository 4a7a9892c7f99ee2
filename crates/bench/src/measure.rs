//! The measurements: counts, latencies, fairness, and medians over rounds.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use crate::peers::Failure;

/// A shared machine does not measure a latency to more than three digits.
const DIGITS: u8 = 3;

/// What one client saw in one slice of time.
pub(crate) struct Tally {
    /// Requests that were answered correctly before the slice ended.
    pub(crate) done: u64,
    /// The latencies of requests that began in the slice, however they ended and however late.
    pub(crate) waits_us: Histogram<u64>,
    /// By kind.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Errors with which the server refused a connection for lack of a slot (SQLSTATE 53300).
    pub(crate) refused: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            done: 0,
            waits_us: Histogram::new(DIGITS).expect("three digits are within the histogram's range"),
            errors: BTreeMap::new(),
            refused: 0,
        }
    }
}

impl Tally {
    pub(crate) fn wait(&mut self, waited: Duration) {
        // The histogram grows by itself, and refuses only values that no clock shows.
        let _ = self.waits_us.record(micros(waited).max(1));
    }

    pub(crate) fn fail(&mut self, failure: &Failure) {
        *self.errors.entry(failure.kind.clone()).or_default() += 1;
        self.refused += u64::from(failure.refused);
    }

    /// A side that panics under load has failed, whatever it answered before.
    pub(crate) fn note_panics(&mut self, panics: u64) {
        if panics > 0 {
            *self.errors.entry("panic".to_owned()).or_default() += panics;
        }
    }

    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.done += other.done;
        // Both have the same digits and grow by themselves.
        let _ = self.waits_us.add(&other.waits_us);
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        self.refused += other.refused;
    }

    pub(crate) fn sum<'a>(tallies: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        for tally in tallies {
            all.add(tally);
        }
        all
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Fairness of shares: 1 when all are equal, 1/n when one has everything.
///
/// (Σx)² / (n Σx²), from R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness and Discrimination
/// for Resource Allocation in Shared Computer Systems", DEC-TR-301, 1984.
pub(crate) fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    if squares == 0.0 {
        // No tenant got anything.
        return 0.0;
    }
    sum * sum / (count(shares.len()) * squares)
}

/// The middle of some figures; 0 for none.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// A count as a number to divide by.
pub(crate) fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// A large count as a number to divide by; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^53")]
pub(crate) fn total(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fairness_lies_between_one_of_n_and_one() {
        assert!((jain(&[5.0; 40]) - 1.0).abs() < 1e-9);
        let mut one = vec![0.0; 40];
        one[7] = 3.0;
        assert!((jain(&one) - 1.0 / 40.0).abs() < 1e-9);
        assert!(jain(&[0.0, 0.0]).abs() < 1e-9);
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middles() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).abs() < 1e-9);
    }
}
