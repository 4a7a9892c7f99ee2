//! Tokens of invitations: what somebody is handed once to set a password with.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::generate_password;

/// A new token: 256 random bits as 43 characters that need no escaping anywhere.
#[must_use]
pub fn generate_invitation_token() -> SecretString {
    generate_password()
}

/// What is stored of a token. A plain hash is enough: nobody finds 256 random bits by trying.
#[must_use]
pub fn invitation_digest(token: &SecretString) -> [u8; 32] {
    Sha256::digest(token.expose_secret().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_digest_alone() {
        let (token, other) = (generate_invitation_token(), generate_invitation_token());
        assert_eq!(token.expose_secret().len(), 43);
        assert_eq!(invitation_digest(&token), invitation_digest(&token.clone()));
        assert_ne!(invitation_digest(&token), invitation_digest(&other));
    }
}
