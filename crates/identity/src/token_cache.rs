//! Tokens that were verified a short while ago: a client sends the same one with each request, and to look it
//! up costs a tenth of checking its signature and reading its claims again (0.3 µs instead of 3.2 µs where it
//! was measured).
//!
//! Invariants: only what was verified gets in; times are compared at every use, so no token outlives its end
//! here; memory is bounded (`ENTRIES_MAX`), the least recently used going first; a token's text is not kept,
//! its SHA-256 is.
//!
//! Nothing here knows of dismissals or log-outs: what a token says includes the epochs it was issued under,
//! and whether these still hold and the person still works there is asked elsewhere, at every request.

use std::{
    num::NonZero,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use lru::LruCache;
use sha2::{Digest, Sha256};

use crate::{Principal, TokenError};

/// The most tokens kept; one takes some 200 bytes.
pub(crate) const ENTRIES_MAX: usize = 16 * 1024;
/// Recency changes with every look, so each look locks. Enough shards that threads seldom meet.
const SHARDS: usize = 16;

/// What a token says, its signature being right.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Statement {
    pub(crate) principal: Principal,
    pub(crate) not_before: Timestamp,
    pub(crate) expires: Timestamp,
}

/// What a token is known by.
pub(crate) type Fingerprint = [u8; 32];

pub(crate) fn fingerprint(token: &str) -> Fingerprint {
    Sha256::digest(token.as_bytes()).into()
}

pub(crate) struct TokenCache([Mutex<LruCache<Fingerprint, Statement>>; SHARDS]);

impl Default for TokenCache {
    fn default() -> Self {
        let each = NonZero::new(ENTRIES_MAX / SHARDS).expect("there are more entries than shards");
        // Grown as it fills: most processes see few people.
        Self(std::array::from_fn(|_| {
            let mut shard = LruCache::unbounded();
            shard.resize(each);
            Mutex::new(shard)
        }))
    }
}

impl TokenCache {
    /// Who the token speaks for at `now`, if it was verified before. One whose time is over is forgotten.
    pub(crate) fn look(&self, token: &Fingerprint, now: Timestamp) -> Option<Result<Principal, TokenError>> {
        let mut shard = self.shard(token);
        let spoken = shard.get(token)?.at(now);
        if spoken == Err(TokenError::Expired) {
            shard.pop(token);
        }
        Some(spoken)
    }

    pub(crate) fn keep(&self, token: Fingerprint, statement: Statement) {
        self.shard(&token).put(token, statement);
    }

    fn shard(&self, token: &Fingerprint) -> MutexGuard<'_, LruCache<Fingerprint, Statement>> {
        let shard = &self.0[usize::from(token[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use model::{OperatorId, SessionEpoch};

    use super::*;

    fn statement(expires: i64) -> Statement {
        Statement {
            principal: Principal::Operator {
                operator: OperatorId::generate(),
                epoch: SessionEpoch::generate(),
            },
            not_before: Timestamp::UNIX_EPOCH,
            expires: Timestamp::from_second(expires).unwrap(),
        }
    }

    #[test]
    fn no_more_are_kept_than_the_bound_and_the_latest_are_among_them() {
        let remembered = TokenCache::default();
        let now = Timestamp::UNIX_EPOCH;
        for number in 0..2 * ENTRIES_MAX {
            remembered.keep(fingerprint(&number.to_string()), statement(1));
        }
        assert!(remembered.len() <= ENTRIES_MAX);
        let last = fingerprint(&(2 * ENTRIES_MAX - 1).to_string());
        assert!(remembered.look(&last, now).unwrap().is_ok());
        assert!(remembered.look(&fingerprint("0"), now).is_none());
    }

    #[test]
    fn one_whose_time_is_over_is_forgotten() {
        let (remembered, token) = (TokenCache::default(), fingerprint("t"));
        remembered.keep(token, statement(10));
        let at = |second| remembered.look(&token, Timestamp::from_second(second).unwrap());
        assert!(at(9).unwrap().is_ok());
        assert_eq!(at(10), Some(Err(TokenError::Expired)));
        assert_eq!((at(9), remembered.len()), (None, 0));
    }
}
