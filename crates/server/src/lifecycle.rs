//! Whether the process is closing, and how many requests it still owes an answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

use tokio::sync::watch;

/// Shared by the middleware, which counts, and the shutdown, which waits.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    closing: Arc<AtomicBool>,
    in_flight: watch::Sender<usize>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            closing: Arc::default(),
            in_flight: watch::Sender::new(0),
        }
    }
}

/// One request under way; it is over when this is dropped.
#[derive(Debug)]
pub struct InFlight(watch::Sender<usize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Lifecycle {
    /// Counts a request in.
    #[must_use]
    pub fn enter(&self) -> InFlight {
        self.in_flight.send_modify(|count| *count += 1);
        InFlight(self.in_flight.clone())
    }

    /// From now on `/readyz` says no and connections are closed after their answer.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    /// Whether [`Lifecycle::close`] was called.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Waits until no request is under way, at most `limit`; gives the number still under way.
    pub async fn quiet(&self, limit: Duration) -> usize {
        let mut count = self.in_flight.subscribe();
        let waited = tokio::time::timeout(limit, count.wait_for(|count| *count == 0)).await;
        match waited {
            Ok(_quiet) => 0,
            Err(_elapsed) => *self.in_flight.borrow(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_quiet_when_the_last_request_is_over() {
        let lifecycle = Lifecycle::default();
        let request = lifecycle.enter();
        assert_eq!(lifecycle.quiet(Duration::from_millis(1)).await, 1);
        drop(request);
        assert_eq!(lifecycle.quiet(Duration::from_secs(60)).await, 0);
    }
}
