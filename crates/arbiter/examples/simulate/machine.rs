//! A machine with a few processors that clients, router and server share, as in the measurements. All running
//! jobs get equal shares (processor sharing).

use std::{cmp::Reverse, collections::BinaryHeap};

use arbiter::Timestamp;

/// Processors.
const CORES: f64 = 2.0;

/// What each action costs, in microseconds: work on a processor, and waiting besides. Chosen so that the
/// machine reproduces the measured figures: one connection answers 9.7k queries a second, eight 52k; a
/// connect takes 3.5 ms alone, and the machine makes at most 400 a second (367 with SCRAM, 536 without); a
/// close takes 1 ms.
pub(crate) mod costs {
    use std::time::Duration;

    pub(crate) const QUERY_WORK: f64 = 33.0;
    pub(crate) const QUERY_WAIT: Duration = Duration::from_micros(65);
    /// Both ends work at the same time.
    pub(crate) const CONNECT_WORK: f64 = 2_200.0;
    pub(crate) const CONNECT_WAIT: Duration = Duration::from_micros(1_300);
    pub(crate) const CLOSE_WORK: f64 = 500.0;
    pub(crate) const CLOSE_WAIT: Duration = Duration::from_micros(500);
}

pub(crate) struct Machine<J> {
    /// How much work each running job has got since the start.
    attained: f64,
    at_work: f64,
    now: f64,
    ends: BinaryHeap<Reverse<End<J>>>,
    number: u64,
}

struct End<J> {
    attained: f64,
    number: u64,
    weight: f64,
    job: J,
}

impl<J> PartialEq for End<J> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl<J> Eq for End<J> {}
impl<J> PartialOrd for End<J> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<J> Ord for End<J> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_attained = self.attained.total_cmp(&other.attained);
        by_attained.then(self.number.cmp(&other.number))
    }
}

impl<J> Machine<J> {
    pub(crate) fn new() -> Self {
        Self {
            attained: 0.0,
            at_work: 0.0,
            now: 0.0,
            ends: BinaryHeap::new(),
            number: 0,
        }
    }

    /// Begins `work` on `weight` processors at once.
    pub(crate) fn begin(&mut self, now: Timestamp, weight: f64, work: f64, job: J) {
        self.advance(now.as_micros() as f64);
        self.number += 1;
        self.at_work += weight;
        self.ends.push(Reverse(End {
            attained: self.attained + work,
            number: self.number,
            weight,
            job,
        }));
    }

    /// When the next job is done, if no other job begins before.
    pub(crate) fn next_end(&self) -> Option<Timestamp> {
        let Reverse(end) = self.ends.peek()?;
        let left = (end.attained - self.attained).max(0.0);
        let end = (self.now + left / self.rate()).ceil();
        Some(Timestamp::from_micros(end as u64))
    }

    /// Takes the next job that is done, at the time that [`Machine::next_end`] returned.
    pub(crate) fn end(&mut self, now: Timestamp) -> Option<J> {
        let Reverse(end) = self.ends.pop()?;
        self.advance(now.as_micros() as f64);
        self.at_work -= end.weight;
        Some(end.job)
    }

    fn rate(&self) -> f64 {
        (CORES / self.at_work).min(1.0)
    }

    fn advance(&mut self, now: f64) {
        if now > self.now {
            if self.at_work > 0.0 {
                self.attained += (now - self.now) * self.rate();
            }
            self.now = now;
        }
    }
}
