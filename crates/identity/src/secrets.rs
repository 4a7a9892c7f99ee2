//! Passwords that no person ever types: those of the laboratories' roles.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};

/// 256 random bits as 43 characters that need no escaping anywhere.
#[must_use]
pub fn generate_password() -> SecretString {
    let mut bits = [0_u8; 32];
    rand::rng().fill_bytes(&mut bits);
    URL_SAFE_NO_PAD.encode(bits).into()
}

/// What PostgreSQL stores for a password (SCRAM-SHA-256, RFC 5803), so that `CREATE ROLE … PASSWORD` never carries the
/// password itself into the server's log. It has no character that needs escaping in SQL.
#[must_use]
pub fn scram_verifier(password: &SecretString) -> String {
    postgres_protocol::password::scram_sha_256(password.expose_secret().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_and_never_repeat() {
        let (a, b) = (generate_password(), generate_password());
        assert_eq!(a.expose_secret().len(), 43);
        assert_ne!(a.expose_secret(), b.expose_secret());
        assert!(!format!("{a:?}").contains(a.expose_secret()));
    }

    #[test]
    fn a_verifier_hides_the_password_and_needs_no_escaping() {
        let password = generate_password();
        let verifier = scram_verifier(&password);
        assert!(verifier.starts_with("SCRAM-SHA-256$4096:"), "{verifier}");
        assert!(!verifier.contains(password.expose_secret()));
        assert!(!verifier.contains(['\'', '\\']));
    }
}
