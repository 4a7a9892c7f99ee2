//! People's passwords: hashed with argon2id, a bounded number at once.
//!
//! One hash takes 19 MiB and some ten milliseconds of a core on purpose. So hashing runs on blocking threads,
//! each with a [permit](crate::permits) and the permit's memory, and a crowd that logs in gets
//! [`PasswordError::Busy`] after a bounded wait instead of the machine's memory.

use std::{fmt, time::Duration};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use model::text;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    ChosenPassword,
    permits::{NoPermit, Permit, Permits, Requester},
    rules::PASSWORD_CHARS_MAX,
};

// OWASP Password Storage Cheat Sheet, argon2id: "a minimum configuration of 19 MiB of memory, an iteration
// count of 2, and 1 degree of parallelism".
const MEMORY_KIB: u32 = 19_456;
const ITERATIONS: u32 = 2;
const LANES: u32 = 1;
/// The bytes of a new salt and of a new hash.
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// The most that a stored hash may ask for. Hashes come from databases that their laboratory may write to,
/// adopted ones above all, and one that asked for a terabyte would be a weapon.
const STORED_MEMORY_KIB_MAX: u32 = 65_536;
const STORED_ITERATIONS_MAX: u32 = 10;
const STORED_LANES_MAX: u32 = 16;

/// A stand-in hash with the parameters above: verifying against it takes as long as against a real one.
/// Salt and hash were drawn at random; no password is known that fits, and a match would not be believed.
const STAND_IN: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$cTDm1JkWnSXCzLzPKBjwnQ$o1u1Fqk1vYc0CYSUgkq6h3SWIcH4tJyz3v0RrmTzSYk";

/// Why a password could not be hashed or verified.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many others are being hashed; it may pass by itself.
    #[error("too many people are logging in at once; no turn came within {} ms", .waited.as_millis())]
    Busy {
        /// How long was waited.
        waited: Duration,
    },
    /// Too many callers of the same client wait already.
    #[error("too many log-ins of one client wait for their turn to be hashed")]
    ClientBusy,
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
    permits: Permits,
    requester: Requester,
    wait_max: Duration,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords")
            .field("requester", &self.requester)
            .field("waiting", &self.permits.waiting())
            .field("wait_max", &self.wait_max)
            .finish_non_exhaustive()
    }
}

impl Passwords {
    /// Hashing within these bounds.
    #[must_use]
    pub fn new(options: PasswordOptions) -> Self {
        Self {
            permits: Permits::new(options.parallel_max),
            requester: Requester::AUTHENTICATED,
            wait_max: options.wait_max,
        }
    }

    /// The same permits, asked for by this requester. Otherwise it is a caller that has proved who it is.
    #[must_use]
    pub fn on_behalf_of(&self, requester: Requester) -> Self {
        Self {
            requester,
            ..self.clone()
        }
    }

    /// How many passwords were hashed or verified since the start, those under way among them.
    #[must_use]
    pub fn hashed_total(&self) -> u64 {
        self.permits.given()
    }

    /// How many callers wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.permits.waiting()
    }

    /// A new argon2id hash with a salt of its own, in PHC format.
    ///
    /// # Errors
    /// [`PasswordError::Busy`], [`PasswordError::Failed`].
    pub async fn hash(&self, password: &ChosenPassword) -> Result<String, PasswordError> {
        let password = password.secret().clone();
        self.in_turn(move |memory| {
            let salt: [u8; SALT_BYTES] = rand::random();
            let mut out = [0; HASH_BYTES];
            let params = Params::new(MEMORY_KIB, ITERATIONS, LANES, None).map_err(failed)?;
            let params_text = ParamsString::try_from(&params).map_err(failed)?;
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            compute(&argon2, memory, password.expose_secret(), &salt, &mut out).map_err(failed)?;
            let hash = PasswordHash {
                algorithm: Algorithm::Argon2id.ident(),
                version: Some(Version::V0x13.into()),
                params: params_text,
                salt: Some(Salt::new(&salt).map_err(failed)?),
                hash: Some(Output::new(&out).map_err(failed)?),
            };
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether the password is the one that was hashed. With nothing stored (no such person) the same work is
    /// done and the answer is no, so that the time does not tell who exists.
    ///
    /// Hashes are made of NFC. A password that was typed in another form is compared in both, because hashes
    /// of before may be of the other; how much work that is depends on what was typed, and not on whose it
    /// is.
    ///
    /// # Errors
    /// [`PasswordError::Busy`]; [`PasswordError::Malformed`] when what is stored is no hash.
    pub async fn verify(&self, password: &SecretString, stored: Option<&str>) -> Result<bool, PasswordError> {
        let forms = forms(password);
        // No accepted password is longer, so a longer one is refused without reading it to its end.
        let exists = stored.is_some() && !forms.is_empty();
        let stored = stored.filter(|_| exists).unwrap_or(STAND_IN).to_owned();
        let matches = self.in_turn(move |memory| {
            let stored = Stored::read(&stored)?;
            let mut matches = false;
            let nothing = forms.is_empty().then_some("");
            for form in forms.iter().map(ExposeSecret::expose_secret).chain(nothing) {
                let mut out = [0; Output::MAX_LENGTH];
                let out = &mut out[..stored.expected.len()];
                compute(&stored.argon2, memory, form, &stored.salt, out).map_err(malformed)?;
                // This comparison takes constant time.
                matches |= Output::new(out).map_err(malformed)? == stored.expected;
            }
            Ok(matches)
        });
        Ok(matches.await? && exists)
    }

    /// Runs the work on a blocking thread when its turn has come. The permit goes with the work and not with
    /// the caller: one who hangs up does not make room for more than the bound.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vec<Block>) -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let permit = self.permits.acquire(self.requester, self.wait_max).await;
        let mut permit: Permit = permit.map_err(|none| match none {
            NoPermit::Late | NoPermit::LaneFull => PasswordError::Busy {
                waited: self.wait_max,
            },
            NoPermit::ClientFull => PasswordError::ClientBusy,
        })?;
        let working = tokio::task::spawn_blocking(move || work(&mut permit.memory));
        working.await.unwrap_or_else(|error| Err(failed(error)))
    }
}

/// What a password is compared as: in NFC, and as it was typed where that differs. None when it is longer
/// than any that was ever accepted.
fn forms(password: &SecretString) -> Vec<SecretString> {
    let typed = password.expose_secret();
    if typed.len() > 12 * PASSWORD_CHARS_MAX {
        return Vec::new();
    }
    let normal = text::nfc(typed);
    let mut forms = Vec::new();
    if normal.chars().count() <= PASSWORD_CHARS_MAX {
        forms.push(SecretString::from(&*normal));
    }
    if normal != typed && typed.chars().count() <= PASSWORD_CHARS_MAX {
        forms.push(password.clone());
    }
    forms
}

/// A stored hash, taken apart.
struct Stored {
    argon2: Argon2<'static>,
    salt: Salt,
    expected: Output,
}

impl Stored {
    fn read(stored: &str) -> Result<Self, PasswordError> {
        let hash = PasswordHash::new(stored).map_err(malformed)?;
        let algorithm = Algorithm::try_from(hash.algorithm.as_str()).map_err(malformed)?;
        let version = match hash.version {
            Some(version) => Version::try_from(version).map_err(malformed)?,
            None => Version::default(),
        };
        let params = Params::try_from(&hash).map_err(malformed)?;
        let bounded = params.m_cost() <= STORED_MEMORY_KIB_MAX
            && params.t_cost() <= STORED_ITERATIONS_MAX
            && params.p_cost() <= STORED_LANES_MAX;
        if !bounded {
            return Err(malformed(format!(
                "it asks for more than m={STORED_MEMORY_KIB_MAX}, t={STORED_ITERATIONS_MAX}, p={STORED_LANES_MAX}"
            )));
        }
        let (Some(salt), Some(expected)) = (hash.salt, hash.hash) else {
            return Err(malformed("it has no salt or no hash"));
        };
        Ok(Self {
            argon2: Argon2::new(algorithm, version, params),
            salt,
            expected,
        })
    }
}

/// Computes a hash in the permit's memory and wipes it: from the blocks of a finished computation a guess
/// could be checked at a fraction of Argon2's cost.
fn compute(
    argon2: &Argon2<'_>,
    memory: &mut Vec<Block>,
    password: &str,
    salt: &[u8],
    out: &mut [u8],
) -> argon2::Result<()> {
    let usual = MEMORY_KIB as usize;
    let blocks = argon2.params().block_count();
    memory.resize(blocks.max(usual), Block::new());
    let done = argon2.hash_password_into_with_memory(password.as_bytes(), salt, out, &mut memory[..blocks]);
    memory[..blocks].fill(Block::new());
    if memory.len() > usual {
        // A stored hash of other parameters needed more; those of our own do not.
        memory.truncate(usual);
        memory.shrink_to_fit();
    }
    done
}

fn failed(error: impl fmt::Display) -> PasswordError {
    PasswordError::Failed {
        reason: error.to_string(),
    }
}

fn malformed(error: impl fmt::Display) -> PasswordError {
    PasswordError::Malformed {
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordHasher as _;

    use super::*;
    use crate::PasswordContext;

    fn passwords() -> Passwords {
        Passwords::new(PasswordOptions::default())
    }

    #[tokio::test]
    async fn the_right_password_and_no_other_verifies() {
        let passwords = passwords();
        let right: SecretString = "correct horse battery".into();
        let chosen = chosen("correct horse battery");
        let hash = passwords.hash(&chosen).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(
            hash,
            passwords.hash(&chosen).await.unwrap(),
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

    fn chosen(password: &str) -> ChosenPassword {
        ChosenPassword::check(&password.into(), &PasswordContext::default()).unwrap()
    }

    #[tokio::test]
    async fn a_password_is_the_same_however_its_letters_were_composed() {
        let passwords = passwords();
        let (composed, decomposed) = ("zo\u{eb}'s tall giraffe", "zoe\u{308}'s tall giraffe");
        for set in [composed, decomposed] {
            let hash = passwords.hash(&chosen(set)).await.unwrap();
            for typed in [composed, decomposed] {
                assert!(passwords.verify(&typed.into(), Some(&hash)).await.unwrap());
            }
            assert!(
                !passwords
                    .verify(&"zoe's tall giraffe".into(), Some(&hash))
                    .await
                    .unwrap()
            );
        }
        // As it was stored before: a hash of what was typed then.
        let old = Argon2::default()
            .hash_password(decomposed.as_bytes())
            .unwrap()
            .to_string();
        assert!(passwords.verify(&decomposed.into(), Some(&old)).await.unwrap());
        for nobody in ["x".repeat(15_000_000), "x".repeat(129)] {
            assert!(!passwords.verify(&nobody.into(), Some(&old)).await.unwrap());
        }
    }

    #[tokio::test]
    async fn nobody_has_a_password() {
        PasswordHash::new(STAND_IN).expect("the stand-in has the shape of a hash");
        assert!(STAND_IN.contains(&format!("m={MEMORY_KIB},t={ITERATIONS},p={LANES}")));
        assert!(!passwords().verify(&"anything at all".into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn a_stored_text_that_is_no_hash_is_an_error_and_not_a_refusal() {
        for bad in [
            "",
            "secret",
            "$argon2id$v=19$m=19456,t=2,p=1$",
            "$2b$12$abcdefghijklmnopqrstuv",
            // Four gibibytes, and a thousand passes.
            "$argon2id$v=19$m=4194304,t=2,p=1$cTDm1JkWnSXCzLzPKBjwnQ$o1u1Fqk1vYc0CYSUgkq6h3SWIcH4tJyz3v0RrmTzSYk",
            "$argon2id$v=19$m=19456,t=1000,p=1$cTDm1JkWnSXCzLzPKBjwnQ$o1u1Fqk1vYc0CYSUgkq6h3SWIcH4tJyz3v0RrmTzSYk",
        ] {
            let error = passwords().verify(&"x".into(), Some(bad)).await.unwrap_err();
            assert!(
                matches!(error, PasswordError::Malformed { .. }),
                "{bad:?}: {error:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_hash_of_other_parameters_verifies() {
        let passwords = passwords();
        // The library's own allocation, with less and with more memory than a permit has, and several lanes.
        for (memory_kib, lanes) in [(64, 1), (256, 2), (40_000, 1)] {
            let params = Params::new(memory_kib, 1, lanes, None).unwrap();
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            let hash: PasswordHash =
                argon2::PasswordHasher::hash_password_with_salt(&argon2, b"password", b"somesaltsomesalt")
                    .unwrap();
            let hash = hash.to_string();
            for _ in 0..2 {
                assert!(
                    passwords.verify(&"password".into(), Some(&hash)).await.unwrap(),
                    "{hash}"
                );
                assert!(
                    !passwords.verify(&"passwort".into(), Some(&hash)).await.unwrap(),
                    "{hash}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_password_that_is_too_long_for_anybody_fits_nothing() {
        let passwords = passwords();
        let long: SecretString = "x".repeat(15_000_000).into();
        let hash = passwords.hash(&chosen("correct horse battery")).await.unwrap();
        assert!(!passwords.verify(&long, Some(&hash)).await.unwrap());
        assert!(!passwords.verify(&long, None).await.unwrap());
    }

    #[tokio::test]
    async fn a_crowd_waits_a_bounded_time() {
        let passwords = Passwords::new(PasswordOptions {
            parallel_max: 1,
            wait_max: Duration::from_millis(1),
        });
        let the_only_permit = passwords
            .permits
            .acquire(Requester::AUTHENTICATED, Duration::ZERO);
        let _held = the_only_permit.await.unwrap();
        let error = passwords
            .hash(&chosen("correct horse battery"))
            .await
            .unwrap_err();
        assert!(matches!(error, PasswordError::Busy { .. }), "{error:?}");
    }
}
