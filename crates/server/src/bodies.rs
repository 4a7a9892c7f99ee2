//! One budget of memory for the bodies of all connections.
//!
//! Invariant: the bodies that are being read or worked on, and are larger than what anybody may send,
//! together announce no more than [`Bodies`] was made with. Each takes its whole length before its first byte
//! is read: so no body that was begun waits for memory that another one holds. A request that finds the
//! budget spent waits a while and is asked to come back.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::problem::{ApiResult, Kind, Problem};

/// How long a request waits for others to give memory back.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Clone)]
pub struct Bodies {
    bytes: Arc<Semaphore>,
    total: u32,
    wait_max: Duration,
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit);

impl Bodies {
    /// A budget of so many bytes, 4 GiB at most.
    #[must_use]
    pub fn new(total_bytes: usize) -> Self {
        let total = u32::try_from(total_bytes).unwrap_or(u32::MAX);
        let permits = usize::try_from(total).unwrap_or(usize::MAX);
        Self {
            bytes: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            total,
            wait_max: WAIT_MAX,
        }
    }

    /// Takes so many bytes, or all there are for a body that is larger.
    ///
    /// # Errors
    /// 503 with Retry-After when others do not give them back in time.
    pub async fn hold(&self, bytes: usize) -> ApiResult<Held> {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total);
        match timeout(self.wait_max, Arc::clone(&self.bytes).acquire_many_owned(wanted)).await {
            Ok(Ok(permit)) => Ok(Held(permit)),
            Ok(Err(closed)) => Err(Problem::internal(closed)),
            Err(_elapsed) => {
                let cause = format!(
                    "the bodies of other requests hold all {} bytes (http.bodies_max_bytes)",
                    self.total
                );
                Err(Problem::caused(Kind::Busy, cause).closing())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_finds_the_budget_spent_waits_for_it_and_not_for_ever() {
        let bodies = Bodies {
            wait_max: Duration::from_millis(1),
            ..Bodies::new(100)
        };
        let most = bodies.hold(90).await.unwrap();
        let rest = bodies.hold(10).await.unwrap();
        let refused = bodies.hold(1).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Busy);
        drop((most, rest));
        // Larger than the whole budget: it takes all of it, and waits for no more than there is.
        let _all = bodies.hold(1_000).await.unwrap();
    }
}
