//! People's passwords: hashed with argon2id, a bounded number at once.
//!
//! One hash takes 19 MiB and some ten milliseconds of a core on purpose. So hashing runs on blocking threads behind a
//! semaphore, and a crowd that logs in gets [`PasswordError::Busy`] after a bounded wait instead of the machine's memory.

use std::{fmt, sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{self, PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

// OWASP Password Storage Cheat Sheet, argon2id: "a minimum configuration of 19 MiB of memory, an iteration count of 2,
// and 1 degree of parallelism".
const MEMORY_KIB: u32 = 19_456;
const ITERATIONS: u32 = 2;
const LANES: u32 = 1;

/// Nobody's password, with the parameters above: verifying against it takes as long as against a real one. Salt and
/// hash were drawn at random; no password is known that fits, and a match would not be believed.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$cTDm1JkWnSXCzLzPKBjwnQ$o1u1Fqk1vYc0CYSUgkq6h3SWIcH4tJyz3v0RrmTzSYk";

/// The fewest characters of a password. NIST SP 800-63B asks for 8 at the least in its third revision and for 15 in its
/// fourth where a password stands alone; no rule about kinds of characters, as NIST advises against them.
const LENGTH_MIN: usize = 12;
/// The most characters: NIST wants 64 at the least to be allowed.
const LENGTH_MAX: usize = 128;
/// The fewest different characters, against "aaaaaaaaaaaa".
const DISTINCT_MIN: usize = 4;

/// Why a password is not accepted for future use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    /// It has too few characters.
    #[error("the password must have at least {LENGTH_MIN} characters; several words make a good one")]
    TooShort,
    /// It has too many characters.
    #[error("the password must have at most {LENGTH_MAX} characters")]
    TooLong,
    /// It repeats the same few characters.
    #[error("the password must have at least {DISTINCT_MIN} different characters")]
    TooUniform,
}

/// Whether a person may choose this password.
///
/// # Errors
/// [`WeakPassword`] says what is missing.
pub fn password_check(password: &str) -> Result<(), WeakPassword> {
    let length = password.chars().count();
    if length < LENGTH_MIN {
        return Err(WeakPassword::TooShort);
    }
    if length > LENGTH_MAX {
        return Err(WeakPassword::TooLong);
    }
    let distinct: std::collections::HashSet<char> = password.chars().collect();
    if distinct.len() < DISTINCT_MIN {
        return Err(WeakPassword::TooUniform);
    }
    Ok(())
}

/// Why a password could not be hashed or verified.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many others are being hashed; it may pass by itself.
    #[error("too many people are logging in at once; no turn came within {} ms", .waited.as_millis())]
    Busy {
        /// How long was waited.
        waited: Duration,
    },
    /// What is stored is no hash that can be read.
    #[error("a stored password hash cannot be read ({reason}); set a new password for this person")]
    Malformed {
        /// What is wrong with it, without the hash.
        reason: String,
    },
    /// Hashing itself failed.
    #[error("a password could not be hashed: {reason}")]
    Failed {
        /// What failed.
        reason: String,
    },
}

/// Bounds of hashing.
#[derive(Debug, Clone, Copy)]
pub struct PasswordOptions {
    /// The most hashes at once; each takes 19 MiB.
    pub parallel_max: usize,
    /// How long a caller waits for its turn.
    pub wait_max: Duration,
}

impl Default for PasswordOptions {
    fn default() -> Self {
        Self {
            parallel_max: 4,
            wait_max: Duration::from_secs(5),
        }
    }
}

/// Hashes and verifies passwords. Clones share the bound.
#[derive(Clone)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    wait_max: Duration,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords")
            .field("turns_free", &self.turns.available_permits())
            .field("wait_max", &self.wait_max)
            .finish()
    }
}

impl Passwords {
    /// Hashing within these bounds.
    #[must_use]
    pub fn new(options: PasswordOptions) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(options.parallel_max.max(1))),
            wait_max: options.wait_max,
        }
    }

    /// A new argon2id hash with a salt of its own, in PHC format.
    ///
    /// # Errors
    /// [`PasswordError::Busy`], [`PasswordError::Failed`].
    pub async fn hash(&self, password: &SecretString) -> Result<String, PasswordError> {
        let password = password.clone();
        self.in_turn(move || {
            hasher()?
                .hash_password(password.expose_secret().as_bytes())
                .map(|hash| hash.to_string())
                .map_err(failed)
        })
        .await
    }

    /// Whether the password is the one that was hashed. With nothing stored (no such person) the same work is done and
    /// the answer is no, so that the time does not tell who exists.
    ///
    /// # Errors
    /// [`PasswordError::Busy`]; [`PasswordError::Malformed`] when what is stored is no hash.
    pub async fn verify(&self, password: &SecretString, stored: Option<&str>) -> Result<bool, PasswordError> {
        let password = password.clone();
        // No accepted password is longer than this, so a longer one is nobody's.
        let exists = stored.is_some() && password.expose_secret().chars().count() <= LENGTH_MAX;
        let stored = stored.filter(|_| exists).unwrap_or(NOBODY).to_owned();
        let matches = self.in_turn(move || {
            let hash = PasswordHash::new(&stored).map_err(|e| PasswordError::Malformed {
                reason: e.to_string(),
            })?;
            match hasher()?.verify_password(password.expose_secret().as_bytes(), &hash) {
                Ok(()) => Ok(true),
                Err(password_hash::Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(PasswordError::Malformed {
                    reason: error.to_string(),
                }),
            }
        });
        Ok(matches.await? && exists)
    }

    /// Runs the work on a blocking thread when its turn has come. The turn goes with the work and not with the caller:
    /// one who hangs up does not make room for more than the bound.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let turn = tokio::time::timeout(self.wait_max, Arc::clone(&self.turns).acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            return Err(PasswordError::Busy {
                waited: self.wait_max,
            });
        };
        let working = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        working.await.unwrap_or_else(|error| Err(failed(error)))
    }
}

fn hasher() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, ITERATIONS, LANES, None).map_err(failed)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn failed(error: impl fmt::Display) -> PasswordError {
    PasswordError::Failed {
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords() -> Passwords {
        Passwords::new(PasswordOptions::default())
    }

    #[tokio::test]
    async fn the_right_password_and_no_other_verifies() {
        let passwords = passwords();
        let right: SecretString = "correct horse battery".into();
        let hash = passwords.hash(&right).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(
            hash,
            passwords.hash(&right).await.unwrap(),
            "each hash has its own salt"
        );
        assert!(passwords.verify(&right, Some(&hash)).await.unwrap());
        for wrong in ["", "correct horse batterx", "correct horse battery "] {
            assert!(
                !passwords.verify(&wrong.into(), Some(&hash)).await.unwrap(),
                "{wrong:?}"
            );
        }
    }

    #[tokio::test]
    async fn nobody_has_a_password() {
        PasswordHash::new(NOBODY).expect("the stand-in has the shape of a hash");
        assert!(NOBODY.contains(&format!("m={MEMORY_KIB},t={ITERATIONS},p={LANES}")));
        assert!(!passwords().verify(&"anything at all".into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn a_stored_text_that_is_no_hash_is_an_error_and_not_a_refusal() {
        for bad in [
            "",
            "secret",
            "$argon2id$v=19$m=19456,t=2,p=1$",
            "$2b$12$abcdefghijklmnopqrstuv",
        ] {
            let error = passwords().verify(&"x".into(), Some(bad)).await.unwrap_err();
            assert!(
                matches!(error, PasswordError::Malformed { .. }),
                "{bad:?}: {error:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_crowd_waits_a_bounded_time() {
        let passwords = Passwords::new(PasswordOptions {
            parallel_max: 1,
            wait_max: Duration::from_millis(1),
        });
        let _the_only_turn = Arc::clone(&passwords.turns).acquire_owned().await.unwrap();
        let error = passwords.hash(&"correct horse battery".into()).await.unwrap_err();
        assert!(matches!(error, PasswordError::Busy { .. }), "{error:?}");
    }

    #[test]
    fn the_rule_counts_characters() {
        assert_eq!(password_check("korrekt pferd"), Ok(()));
        assert_eq!(password_check("äöüßäöüßäöüß"), Ok(()), "12 characters, 24 bytes");
        assert_eq!(password_check("elevenchars"), Err(WeakPassword::TooShort));
        assert_eq!(password_check(&"abcdefgh".repeat(17)), Err(WeakPassword::TooLong));
        assert_eq!(password_check("aaaaaaaaaaaaaaa"), Err(WeakPassword::TooUniform));
    }
}
