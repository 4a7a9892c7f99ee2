//! Whether the process is closing, and how many requests it still owes an answer.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
};
use std::time::Duration;

use tokio::sync::Notify;

/// Shared by the middleware, which counts, and the shutdown, which waits.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle(Arc<Shared>);

/// Every request passes here twice, so counting is an addition and nothing more.
#[derive(Debug, Default)]
struct Shared {
    closing: AtomicBool,
    in_flight: AtomicUsize,
    /// Notified by the task that counts down to zero.
    quiet: Notify,
}

/// One request under way; it is over when this is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Shared>);

impl Drop for InFlight {
    fn drop(&mut self) {
        // Usually no task waits, and the check costs one more load of an atomic.
        if self.0.in_flight.fetch_sub(1, SeqCst) == 1 {
            self.0.quiet.notify_waiters();
        }
    }
}

impl Lifecycle {
    /// Counts a request in.
    #[must_use]
    pub fn enter(&self) -> InFlight {
        self.0.in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(&self.0))
    }

    /// From now on `/readyz` says no and connections are closed after their answer.
    pub fn close(&self) {
        self.0.closing.store(true, SeqCst);
    }

    /// Whether [`Lifecycle::close`] was called.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.0.closing.load(Relaxed)
    }

    /// Waits until no request is under way, at most `limit`; gives the number still under way.
    pub async fn quiet(&self, limit: Duration) -> usize {
        let none_left = async {
            loop {
                // Registered before the look, so that the last one's word is not missed.
                let notified = self.0.quiet.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                if self.0.in_flight.load(SeqCst) == 0 {
                    return;
                }
                notified.await;
            }
        };
        match tokio::time::timeout(limit, none_left).await {
            Ok(()) => 0,
            Err(_elapsed) => self.0.in_flight.load(SeqCst),
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
