//! Failed log-ins, counted per address and client, and failed acceptances of invitations, so that guessing is slow.
//!
//! Invariant: memory is bounded (`KEYS_MAX`); a count ends one `WINDOW` after its first failure. Counting lives in this
//! process alone: several copies of `tenantd` each allow their own share.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use model::Email;
use moka::future::Cache;

use crate::problem::{Answer, Kind, Problem};

/// The most failures within one window.
const FAILURES_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// The most pairs of address and client that are counted at once.
const KEYS_MAX: u64 = 10_000;

type Key = (String, Option<IpAddr>);

/// The counts of one process.
#[derive(Debug, Clone)]
pub struct Attempts(Cache<Key, Arc<AtomicU32>>);

impl Default for Attempts {
    fn default() -> Self {
        Self(
            Cache::builder()
                .max_capacity(KEYS_MAX)
                .time_to_live(WINDOW)
                .build(),
        )
    }
}

impl Attempts {
    /// Counts an attempt as failed before it is made, so that many at once are counted, too; refused once there were
    /// too many. [`Attempts::succeeded`] takes it back.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub async fn begin(&self, email: &Email, client: Option<IpAddr>) -> Answer<()> {
        self.count(key(email, client)).await
    }

    /// The same for an invitation that exists, by the digest of its token; [`Attempts::accepted`] takes it back.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub async fn begin_invitation(&self, digest: &str, client: Option<IpAddr>) -> Answer<()> {
        self.count(invitation(digest, client)).await
    }

    /// Counts a token of no invitation. Those are counted for the client and not for the token, and whoever has a true
    /// one is not kept out by them, be it from behind the same proxy.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub async fn guessed(&self, client: Option<IpAddr>) -> Answer<()> {
        self.count(invitation("", client)).await
    }

    /// Forgets the failures with an invitation that was accepted.
    pub async fn accepted(&self, digest: &str, client: Option<IpAddr>) {
        self.0.invalidate(&invitation(digest, client)).await;
    }

    async fn count(&self, key: Key) -> Answer<()> {
        let count = self.0.get_with(key, async { Arc::default() }).await;
        if count.fetch_add(1, Ordering::Relaxed) >= FAILURES_MAX {
            let seconds = u32::try_from(WINDOW.as_secs()).unwrap_or(u32::MAX);
            return Err(Problem::new(Kind::TooManyAttempts).retry_after_s(seconds));
        }
        Ok(())
    }

    /// Forgets the failures of somebody who got in.
    pub async fn succeeded(&self, email: &Email, client: Option<IpAddr>) {
        self.0.invalidate(&key(email, client)).await;
    }
}

/// No address looks like it: it has no `@`.
fn invitation(digest: &str, client: Option<IpAddr>) -> Key {
    (format!("invitation {digest}"), client)
}

fn key(email: &Email, client: Option<IpAddr>) -> Key {
    (email.as_str().to_lowercase(), client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn guessed_tokens_keep_nobody_out_who_has_a_true_one() {
        let attempts = Attempts::default();
        for _ in 0..FAILURES_MAX {
            attempts.guessed(None).await.unwrap();
        }
        let refused = attempts.guessed(None).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::TooManyAttempts);
        for _ in 0..FAILURES_MAX {
            attempts.begin_invitation("a1", None).await.unwrap();
        }
        attempts.begin_invitation("a1", None).await.unwrap_err();
        attempts.begin_invitation("b2", None).await.unwrap();
        attempts.accepted("a1", None).await;
        attempts.begin_invitation("a1", None).await.unwrap();
    }

    #[tokio::test]
    async fn the_eleventh_failure_in_a_row_must_wait_and_a_success_forgets() {
        let (attempts, email) = (Attempts::default(), Email::parse("ada@lab.example").unwrap());
        for _ in 0..FAILURES_MAX {
            attempts.begin(&email, None).await.unwrap();
        }
        let refused = attempts.begin(&email, None).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::TooManyAttempts);
        let other = Email::parse("bob@lab.example").unwrap();
        attempts.begin(&other, None).await.unwrap();
        attempts.succeeded(&email, None).await;
        attempts
            .begin(&Email::parse("ADA@lab.example").unwrap(), None)
            .await
            .unwrap();
    }
}
