use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use tokio::sync::Notify;

/// Whether the registry counts as unavailable. While it does, no caller waits for it: one task tests it again
/// and again, and callers get a cached snapshot or an immediate error.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    on: AtomicBool,
    reason: Mutex<String>,
    began: Notify,
}

impl Outage {
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(SeqCst)
    }

    pub(crate) fn reason(&self) -> Option<String> {
        self.is_on()
            .then(|| self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    pub(crate) fn begin(&self, reason: &str) {
        reason.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
        if !self.on.swap(true, SeqCst) {
            tracing::warn!(
                reason,
                "the registry is unavailable; the router serves the laboratories that it has cached"
            );
        }
        self.began.notify_one();
    }

    pub(crate) fn end(&self) {
        if self.on.swap(false, SeqCst) {
            tracing::info!("the registry is available again");
        }
    }

    /// Returns as soon as an outage is on.
    pub(crate) async fn wait_until_on(&self) {
        while !self.is_on() {
            self.began.notified().await;
        }
    }
}
