//! Bounded polling: tests wait for what they can observe, never for a time that ought to be enough.

use std::time::{Duration, Instant};

const POLL_EVERY: Duration = Duration::from_millis(20);

/// Polls `condition` until it holds; `what` completes the sentence "waited for …".
///
/// # Panics
/// When it does not hold within `limit`; choose a generous one, it costs time only when the test fails.
pub async fn eventually(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    let polling = async {
        while !condition().await {
            tokio::time::sleep(POLL_EVERY).await;
        }
    };
    // The limit covers a condition that itself hangs, too.
    if tokio::time::timeout(limit, polling).await.is_err() {
        panic!("waited {} ms in vain for {what}", start.elapsed().as_millis());
    }
}
