//! Failed log-ins and failed acceptances of invitations, counted so that guessing is slow and costs nobody
//! but the guesser.
//!
//! Three counts, each a leaky bucket:
//! - of one client at one account. It alone can refuse a client that has logged in to the account before, so
//!   a stranger's guesses never keep the owner out. A success empties it, and no other count;
//! - of one account by clients that it does not know. It is a rate, one try a second once a hundred have
//!   failed, and no lock: an attack from many addresses slows down new clients only;
//! - of one client at all accounts that do not know it, against one password being tried everywhere.
//!
//! An account is a person of one audience in one laboratory, so what happens to an address elsewhere does not
//! matter. A try that is under way counts until it is known how it ended, so many at once guess no more than
//! one after the other; later callers wait, and all callers with the right password get in.
//!
//! Invariant: memory is bounded (`KEYS_MAX`). Keys are numbers under a random hash, so no client can aim at a
//! count. Counting lives in this process alone: several copies of `tenantd` each allow their own share.

mod bucket;

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use lru::LruCache;
use model::{ClientNetwork, Email, TenantId};
use tokio::sync::Notify;

use crate::problem::{ApiResult, Kind, Problem};
use bucket::{Buckets, Charge, Decision, Rule};

/// One client at one account.
const PAIR: Rule = Rule::new(10, Duration::from_secs(30));
/// One account, all clients that it does not know. NIST SP 800-63B, 3.2.2: at most 100 consecutive failures,
/// or slower.
const ACCOUNT: Rule = Rule::new(100, Duration::from_secs(1));
/// One client, all accounts that do not know it. Many people may have one address.
const CLIENT: Rule = Rule::new(100, Duration::from_secs(5));
/// One client, tokens of no invitation.
const TOKENS: Rule = Rule::new(10, Duration::from_secs(30));

/// How long a try waits for others of the same kind that are under way.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// The most pairs of account and client that are remembered because of a log-in.
const KNOWN_MAX: usize = 50_000;

/// What a caller wants to log in to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Audience {
    /// A laboratory.
    Lab,
    /// The platform.
    Operator,
}

impl Audience {
    /// Its word in the audit.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lab => "lab",
            Self::Operator => "operator",
        }
    }
}

/// Whose password is tried: a person who may or may not exist.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// To what.
    pub audience: Audience,
    /// In which laboratory; absent for operators, and when no laboratory was meant.
    pub tenant: Option<TenantId>,
    /// As whom.
    pub email: &'a Email,
}

/// The counts of one process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Attempts(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    hasher: RandomState,
    buckets: Mutex<Buckets>,
    known: Mutex<Known>,
    /// Notified when a try has ended.
    ended: Notify,
}

#[derive(Debug)]
struct Known(LruCache<u64, ()>);

impl Default for Known {
    fn default() -> Self {
        Self(LruCache::unbounded())
    }
}

/// An attempt that is under way. One that is dropped without an outcome does not count.
#[must_use = "a try that is dropped does not count"]
#[derive(Debug)]
pub struct Attempt {
    shared: Arc<Shared>,
    charges: Vec<Charge>,
    pair: u64,
}

impl Attempts {
    /// Whether a person has logged in to the account from this client since the start, as far as it is
    /// remembered.
    #[must_use]
    pub fn remembers(&self, account: &Account<'_>, client: Option<ClientNetwork>) -> bool {
        let pair = self.0.pair(account, client);
        lock(&self.0.known).0.get(&pair).is_some()
    }

    /// A number that stands for the client, in queues.
    #[must_use]
    pub fn client_key(&self, client: Option<ClientNetwork>) -> u64 {
        self.0.hasher.hash_one(("client", client))
    }

    /// Begins a try, waiting for others that might use up what is left. `known` says that this client has
    /// logged in to the account before.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub async fn begin(
        &self,
        account: &Account<'_>,
        client: Option<ClientNetwork>,
        known: bool,
    ) -> ApiResult<Attempt> {
        let pair = self.0.pair(account, client);
        let whole = self.0.hasher.hash_one(("account", key(account)));
        let all = self.client_key(client);
        let charges = vec![
            Charge::enforced(pair, PAIR),
            Charge::new(whole, ACCOUNT, !known),
            Charge::new(all, CLIENT, !known),
        ];
        self.start(charges, pair).await
    }

    /// Begins the acceptance of an invitation that exists, by the digest of its token.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub async fn begin_invitation(&self, digest: &str, client: Option<ClientNetwork>) -> ApiResult<Attempt> {
        let pair = self.0.hasher.hash_one(("invitation", digest, client));
        self.start(vec![Charge::enforced(pair, PAIR)], pair).await
    }

    /// Counts a token of no invitation. Those are counted for the client and not for the token, and whoever
    /// has a true one is not kept out by them, be it from behind the same proxy.
    ///
    /// # Errors
    /// 429 with the time to wait.
    pub async fn guessed(&self, client: Option<ClientNetwork>) -> ApiResult<()> {
        let key = self.0.hasher.hash_one(("token", client));
        self.start(vec![Charge::enforced(key, TOKENS)], key)
            .await?
            .failed();
        Ok(())
    }

    async fn start(&self, charges: Vec<Charge>, pair: u64) -> ApiResult<Attempt> {
        let begun = tokio::time::timeout(WAIT_MAX, async {
            loop {
                // Registered before the look, so that an end in between is not missed.
                let ended = self.0.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                match lock(&self.0.buckets).begin(&charges, Instant::now()) {
                    Decision::Go => return Ok(()),
                    Decision::Refuse(after) => return Err(after),
                    Decision::Wait => {}
                }
                ended.await;
            }
        });
        match begun.await {
            Ok(Ok(())) => Ok(Attempt {
                shared: Arc::clone(&self.0),
                charges,
                pair,
            }),
            Ok(Err(after)) => Err(Problem::new(Kind::TooManyAttempts).retry_after_s(seconds(after))),
            Err(_elapsed) => Err(Problem::new(Kind::TooManyAtOnce)),
        }
    }
}

impl Attempt {
    /// The right password was given.
    pub fn succeeded(mut self) {
        let charges = std::mem::take(&mut self.charges);
        lock(&self.shared.buckets).succeeded(&charges, self.pair);
        let mut known = lock(&self.shared.known);
        known.0.put(self.pair, ());
        if known.0.len() > KNOWN_MAX {
            known.0.pop_lru();
        }
        drop(known);
        self.shared.ended.notify_waiters();
    }

    /// It was the wrong one.
    pub fn failed(mut self) {
        let charges = std::mem::take(&mut self.charges);
        lock(&self.shared.buckets).failed(&charges, Instant::now());
        self.shared.ended.notify_waiters();
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.charges.is_empty() {
            lock(&self.shared.buckets).forgotten(&self.charges);
            self.shared.ended.notify_waiters();
        }
    }
}

impl Shared {
    fn pair(&self, account: &Account<'_>, client: Option<ClientNetwork>) -> u64 {
        self.hasher.hash_one(("pair", key(account), client))
    }
}

fn key(account: &Account<'_>) -> (Audience, Option<TenantId>, String) {
    (
        account.audience,
        account.tenant,
        account.email.as_str().to_lowercase(),
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rounded up, so that a client that waits that long does not come too early.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(1000))
        .unwrap_or(u32::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> Option<ClientNetwork> {
        Some(ClientNetwork::of([203, 0, 113, last].into()))
    }

    fn refused(answer: ApiResult<Attempt>) {
        assert_eq!(answer.unwrap_err().kind(), Kind::TooManyAttempts);
    }

    #[tokio::test]
    async fn guessed_tokens_keep_nobody_out_who_has_a_true_one() {
        let attempts = Attempts::default();
        for _ in 0..10 {
            attempts.guessed(None).await.unwrap();
        }
        let problem = attempts.guessed(None).await.unwrap_err();
        assert_eq!(problem.kind(), Kind::TooManyAttempts);
        for _ in 0..10 {
            attempts.begin_invitation("a1", None).await.unwrap().failed();
        }
        refused(attempts.begin_invitation("a1", None).await);
        attempts.begin_invitation("b2", None).await.unwrap().succeeded();
        attempts
            .begin_invitation("a1", client(1))
            .await
            .unwrap()
            .succeeded();
    }

    #[tokio::test]
    async fn a_success_forgets_the_failures_of_its_own_client_at_its_own_account() {
        let (attempts, ada) = (Attempts::default(), Email::parse("ada@lab.example").unwrap());
        let upper = Email::parse("ADA@lab.example").unwrap();
        let of = |audience, email| Account {
            audience,
            tenant: None,
            email,
        };
        let (lab, operator) = (of(Audience::Lab, &ada), of(Audience::Operator, &ada));
        for _ in 0..10 {
            attempts
                .begin(&operator, client(1), false)
                .await
                .unwrap()
                .failed();
            attempts.begin(&lab, client(1), false).await.unwrap().failed();
            attempts.begin(&lab, client(2), false).await.unwrap().failed();
        }
        refused(attempts.begin(&of(Audience::Lab, &upper), client(1), true).await);
        attempts.begin(&lab, client(3), false).await.unwrap().succeeded();
        assert!(attempts.remembers(&lab, client(3)) && !attempts.remembers(&lab, client(1)));
        for (account, at) in [(&operator, 1), (&lab, 1), (&lab, 2)] {
            refused(attempts.begin(account, client(at), false).await);
        }
        let elsewhere = Account {
            tenant: Some(TenantId::generate()),
            ..lab
        };
        attempts
            .begin(&elsewhere, client(1), false)
            .await
            .unwrap()
            .succeeded();
    }

    #[tokio::test]
    async fn an_attack_from_everywhere_keeps_out_nobody_who_is_known() {
        let (attempts, ada) = (Attempts::default(), Email::parse("ada@lab.example").unwrap());
        let account = Account {
            audience: Audience::Lab,
            tenant: None,
            email: &ada,
        };
        // One a second leaks out meanwhile.
        let mut failed = 0;
        for at in 0..=255 {
            if let Ok(attempt) = attempts.begin(&account, client(at), false).await {
                attempt.failed();
                failed += 1;
            }
        }
        assert!((100..200).contains(&failed), "{failed}");
        refused(attempts.begin(&account, None, false).await);
        attempts.begin(&account, None, true).await.unwrap().succeeded();
        refused(attempts.begin(&account, client(9), false).await);
    }

    #[tokio::test]
    async fn a_client_that_tries_one_password_everywhere_is_refused_and_its_neighbour_at_home_is_not() {
        let attempts = Attempts::default();
        let emails: Vec<Email> = (0..200)
            .map(|at| Email::parse(&format!("p{at}@lab.example")).unwrap())
            .collect();
        let account = |email| Account {
            audience: Audience::Lab,
            tenant: None,
            email,
        };
        let mut failed = 0;
        for email in &emails {
            if let Ok(attempt) = attempts.begin(&account(email), client(1), false).await {
                attempt.failed();
                failed += 1;
            }
        }
        assert!((100..150).contains(&failed), "{failed}");
        attempts
            .begin(&account(&emails[0]), client(1), true)
            .await
            .unwrap()
            .succeeded();
        attempts
            .begin(&account(&emails[0]), client(2), false)
            .await
            .unwrap()
            .succeeded();
    }

    #[tokio::test]
    async fn many_at_once_guess_no_more_than_one_after_the_other_and_all_who_are_right_get_in() {
        for (right, expected) in [(true, 40), (false, 10)] {
            let (attempts, ada) = (Attempts::default(), Email::parse("ada@lab.example").unwrap());
            let crowd: Vec<_> = (0..40)
                .map(|_| {
                    let (attempts, ada) = (attempts.clone(), ada.clone());
                    tokio::spawn(async move {
                        let account = Account {
                            audience: Audience::Lab,
                            tenant: None,
                            email: &ada,
                        };
                        let begun = attempts.begin(&account, None, false).await;
                        tokio::task::yield_now().await;
                        begun.map(|attempt| {
                            if right {
                                attempt.succeeded()
                            } else {
                                attempt.failed()
                            }
                        })
                    })
                })
                .collect();
            let mut got_in = 0;
            for one in crowd {
                got_in += usize::from(one.await.unwrap().is_ok());
            }
            assert_eq!(got_in, expected);
        }
    }
}
