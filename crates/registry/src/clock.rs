//! The registry's clock, which everything that several processes compare goes by.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use deadpool_postgres::GenericClient;
use jiff::{SignedDuration, Timestamp};
use model::Clock;

use crate::{Registry, RegistryError, sql};

/// How long asking for the time may take.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// An answer that took longer says too little about the moment at which it was true; it counts only where
/// there is no better.
const TOOK_MAX: Duration = Duration::from_millis(500);

/// The time on the registry's own clock, which sets and compares leases and every `not_before`.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn registry_now(client: &impl GenericClient) -> Result<Timestamp, RegistryError> {
    let row = sql::row_one(client, "asking for the time", "SELECT clock_timestamp()", &[]).await?;
    Ok(row.get(0))
}

/// The registry's clock as a process keeps it: the time that the registry last told, and what this machine's
/// monotonic clock has counted since. So the machine's own clock decides nothing, however far it is off or is
/// set while the process runs.
///
/// While the registry is away it goes on from what it was told last. Only before the first answer it shows
/// the machine's time; no process serves before that. Clones share one clock.
#[derive(Debug, Clone)]
pub struct RegistryClock(Arc<State>);

#[derive(Debug)]
struct State {
    local: Arc<dyn Clock>,
    reading: Mutex<Option<Reading>>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    /// What the registry's clock showed,
    time: Timestamp,
    /// and when that was.
    at: Instant,
    /// How far the machine's clock was ahead.
    offset: SignedDuration,
}

impl RegistryClock {
    /// A clock that nobody has set yet. `local` is the machine's, of which only the offset is told.
    #[must_use]
    pub fn new(local: Arc<dyn Clock>) -> Self {
        Self(Arc::new(State {
            local,
            reading: Mutex::new(None),
        }))
    }

    /// Asks the registry and sets the clock by it. Gives how far the machine's clock is ahead.
    ///
    /// # Errors
    /// [`RegistryError`] when the registry cannot be asked; the clock goes on as before.
    pub async fn measure(&self, registry: &Registry) -> Result<SignedDuration, RegistryError> {
        let ask = async |client: &_| self.measure_by(async || registry_now(client).await).await;
        registry.within(ASK_LIMIT, ask).await
    }

    /// The same with a statement that is run anyway and gives the registry's `clock_timestamp()`.
    ///
    /// # Errors
    /// What `ask` fails with.
    pub async fn measure_by(
        &self,
        ask: impl AsyncFnOnce() -> Result<Timestamp, RegistryError>,
    ) -> Result<SignedDuration, RegistryError> {
        let began = Instant::now();
        let time = ask().await?;
        Ok(self.set(began, time))
    }

    /// The registry's clock showed `time` at some moment since `asked`.
    fn set(&self, asked: Instant, time: Timestamp) -> SignedDuration {
        let took = asked.elapsed();
        let at = asked + took / 2;
        let shown = self.0.local.now().checked_sub(took / 2).unwrap_or(time);
        let offset = shown.duration_since(time);
        let mut reading = self.reading();
        if took <= TOOK_MAX || reading.is_none() {
            *reading = Some(Reading { time, at, offset });
        }
        reading.map_or(offset, |reading| reading.offset)
    }

    /// How far the machine's clock was ahead of the registry's when that was asked last; negative when it was
    /// behind, `None` before the first answer.
    #[must_use]
    pub fn offset(&self) -> Option<SignedDuration> {
        self.reading().map(|reading| reading.offset)
    }

    fn reading(&self) -> std::sync::MutexGuard<'_, Option<Reading>> {
        self.0.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for RegistryClock {
    fn now(&self) -> Timestamp {
        let reading = *self.reading();
        match reading {
            Some(Reading { time, at, .. }) => time.checked_add(at.elapsed()).unwrap_or(time),
            None => self.0.local.now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::ManualClock;

    use super::*;

    #[test]
    fn the_machines_clock_decides_nothing_once_the_registry_has_answered() {
        let truth: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let ahead = SignedDuration::from_hours(40 * 24);
        let local = Arc::new(ManualClock::new(truth + ahead));
        let clock = RegistryClock::new(local.clone());
        assert_eq!((clock.now(), clock.offset()), (truth + ahead, None));
        let asked = Instant::now();
        let offset = clock.set(asked, truth);
        let close = |a: Timestamp, b: Timestamp| a.duration_since(b).abs() < SignedDuration::from_secs(60);
        assert!((offset - ahead).abs() < SignedDuration::from_secs(60), "{offset}");
        assert!(close(clock.now(), truth), "{}", clock.now());
        // The machine's clock is set while the process runs.
        local.advance(-ahead * 2);
        assert!(close(clock.now(), truth), "{}", clock.now());
        assert!(close(clock.now() + clock.set(asked, truth), truth - ahead));
    }

    #[test]
    fn an_answer_that_took_long_does_not_replace_a_better_one() {
        let truth: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let clock = RegistryClock::new(Arc::new(ManualClock::new(truth)));
        clock.set(Instant::now(), truth);
        let long_ago = Instant::now().checked_sub(TOOK_MAX * 20).unwrap();
        clock.set(long_ago, truth + SignedDuration::from_hours(1));
        assert!(clock.now() < truth + SignedDuration::from_mins(1));
    }
}
