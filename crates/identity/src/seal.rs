//! Secrets at rest: sealed with a key that never lies in the same database, and bound to whom they belong.

use std::fmt;

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use model::{ArchiveId, ServerName, TenantId, WebhookId};
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};

use crate::SealKey;

/// The layout that is written now: this byte, the key's id, the nonce, the ciphertext with its tag.
const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 4;
/// XChaCha20's nonce is long enough to be drawn at random for every secret there will ever be.
const NONCE_BYTES: usize = 24;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES;

/// Why a sealed secret could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is not something that was sealed, or by a newer version.
    #[error("unrecognised sealed-secret format")]
    Malformed,
    /// It was sealed with another key.
    #[error(
        "the secret was sealed with key {sealed_with}, but the key here is {have}; \
         put the seal.key of that time back into the keys directory"
    )]
    WrongKey {
        /// Id of the key it was sealed with.
        sealed_with: String,
        /// Id of the key at hand.
        have: String,
    },
    /// It was changed, or belongs to another context.
    #[error("the sealed secret of {context} was changed, or was sealed for something else")]
    Tampered {
        /// The context it was to be opened in.
        context: String,
    },
}

/// Which secret of whom: a secret opens in the context alone in which it was sealed, so a row's secret that
/// is copied to another row is worth nothing. The text of a context is authenticated with each stored secret
/// and never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealContext {
    /// The password of a server's administrator.
    Server(ServerName),
    /// The password of a tenant's role.
    TenantRole(TenantId),
    /// A webhook's signing secret.
    Webhook(WebhookId),
    /// The administrators that are kept with an archive.
    ArchivedAdmins(ArchiveId),
}

impl fmt::Display for SealContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(name) => write!(f, "server:{name}"),
            Self::TenantRole(tenant) => write!(f, "tenant:{tenant}:role"),
            Self::Webhook(webhook) => write!(f, "webhook:{webhook}"),
            Self::ArchivedAdmins(archive) => write!(f, "archive:{archive}:admins"),
        }
    }
}

/// Seals and opens secrets (XChaCha20-Poly1305).
#[derive(Clone)]
pub struct Sealer {
    key: SealKey,
    cipher: XChaCha20Poly1305,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    /// Seals with `key`.
    #[must_use]
    pub fn new(key: SealKey) -> Self {
        let cipher = XChaCha20Poly1305::new(&(*key.bytes()).into());
        Self { key, cipher }
    }

    /// Seals a secret for `context`.
    ///
    /// # Panics
    /// Never: the cipher refuses only texts of more than 256 GiB.
    #[must_use]
    pub fn seal(&self, context: &SealContext, secret: &SecretString) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(HEADER_BYTES + NONCE_BYTES + secret.expose_secret().len() + 16);
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.key.id_bytes());
        let mut nonce = [0_u8; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload {
            msg: secret.expose_secret().as_bytes(),
            aad: &associated(&sealed, context),
        };
        let ciphertext = self
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a secret is far shorter than the cipher's limit");
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&ciphertext);
        sealed
    }

    /// Opens what was sealed for the same context.
    ///
    /// # Errors
    /// [`SealError`]; a wrong key is told apart, with the ids of both.
    pub fn open(&self, context: &SealContext, sealed: &[u8]) -> Result<SecretString, SealError> {
        let (header, rest) = sealed
            .split_at_checked(HEADER_BYTES)
            .ok_or(SealError::Malformed)?;
        let (nonce, ciphertext) = rest
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(SealError::Malformed)?;
        if header[0] != VERSION {
            return Err(SealError::Malformed);
        }
        if header[1..] != self.key.id_bytes() {
            return Err(SealError::WrongKey {
                sealed_with: hex::encode(&header[1..]),
                have: self.key.id(),
            });
        }
        let payload = Payload {
            msg: ciphertext,
            aad: &associated(header, context),
        };
        let opened =
            self.cipher
                .decrypt(&XNonce::from(*nonce), payload)
                .map_err(|_| SealError::Tampered {
                    context: context.to_string(),
                })?;
        String::from_utf8(opened)
            .map(SecretString::from)
            .map_err(|_| SealError::Malformed)
    }
}

/// What is authenticated beside the secret: the header has a fixed length, so it and the context cannot be
/// confused.
fn associated(header: &[u8], context: &SealContext) -> Vec<u8> {
    [header, context.to_string().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn context(number: u128) -> SealContext {
        SealContext::TenantRole(Uuid::from_u128(number).into())
    }

    fn sealer() -> Sealer {
        Sealer::new(SealKey::generate())
    }

    #[test]
    fn a_blob_with_any_byte_changed_or_missing_does_not_open() {
        let sealer = sealer();
        let sealed = sealer.seal(&context(1), &"secret".into());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(sealer.open(&context(1), &changed).is_err(), "byte {at}");
            assert!(sealer.open(&context(1), &sealed[..at]).is_err(), "cut at {at}");
        }
        let appended = [sealed.as_slice(), b"x"].concat();
        assert!(sealer.open(&context(1), &appended).is_err());
    }

    #[test]
    fn the_text_of_a_context_is_part_of_what_is_stored_and_stays() {
        let id = Uuid::from_u128(1);
        let texts = [
            SealContext::Server(ServerName::parse("main").unwrap()),
            SealContext::TenantRole(id.into()),
            SealContext::Webhook(id.into()),
            SealContext::ArchivedAdmins(id.into()),
        ]
        .map(|context| context.to_string());
        let expected = [
            "server:main".to_owned(),
            format!("tenant:{id}:role"),
            format!("webhook:{id}"),
            format!("archive:{id}:admins"),
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn another_context_does_not_open_it() {
        let sealer = sealer();
        let sealed = sealer.seal(&context(1), &"secret".into());
        let error = sealer.open(&context(2), &sealed).unwrap_err();
        assert_eq!(
            error,
            SealError::Tampered {
                context: context(2).to_string()
            }
        );
    }

    #[test]
    fn a_wrong_key_is_named_with_the_right_one() {
        let (then, now) = (sealer(), sealer());
        let error = now
            .open(&context(1), &then.seal(&context(1), &"secret".into()))
            .unwrap_err();
        let expected = SealError::WrongKey {
            sealed_with: then.key.id(),
            have: now.key.id(),
        };
        assert_eq!(error, expected);
        let message = error.to_string();
        assert!(
            message.contains(&then.key.id()) && message.contains(&now.key.id()),
            "{message}"
        );
    }

    #[test]
    fn the_same_secret_is_never_sealed_alike() {
        let sealer = sealer();
        assert_ne!(
            sealer.seal(&context(1), &"s".into()),
            sealer.seal(&context(1), &"s".into())
        );
        assert!(!format!("{sealer:?}").contains(&hex::encode(sealer.key.bytes())));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_again(number: u128, secret in ".{0,300}") {
            let sealer = sealer();
            let context = context(number);
            let opened = sealer.open(&context, &sealer.seal(&context, &secret.clone().into())).unwrap();
            prop_assert_eq!(opened.expose_secret(), secret.as_str());
        }

        #[test]
        fn noise_is_refused_without_a_panic(noise in proptest::collection::vec(any::<u8>(), 0..120)) {
            prop_assert!(sealer().open(&context(1), &noise).is_err());
        }
    }
}
