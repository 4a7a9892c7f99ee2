//! Passwords that no person ever types: those of the laboratories' roles.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use hmac::{Hmac, Mac};
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// 256 random bits as 43 characters that need no escaping anywhere.
#[must_use]
pub fn generate_password() -> SecretString {
    let mut bits = [0_u8; 32];
    rand::rng().fill_bytes(&mut bits);
    URL_SAFE_NO_PAD.encode(bits).into()
}

/// What PostgreSQL stores for a password (SCRAM-SHA-256, RFC 5802 and 5803), so that `CREATE ROLE … PASSWORD`
/// never carries the password itself into the server's log. It has no character that needs escaping in SQL.
///
/// With one iteration instead of 4,096: iterations slow down an attacker who tries likely passwords one by
/// one, and no attacker comes through 2^256 of them at any speed. They also slow down every log-in, on both
/// sides. So this is for the passwords of [`generate_password`] and for no others.
#[must_use]
pub fn scram_verifier(password: &SecretString) -> String {
    let mut salt = [0_u8; 16];
    rand::rng().fill_bytes(&mut salt);
    // PBKDF2 with one iteration is one HMAC over the salt and the number of the block.
    let salted = hmac(password.expose_secret().as_bytes(), &[&salt, &[0, 0, 0, 1]]);
    let stored_key = Sha256::digest(hmac(&salted, &[b"Client Key"]));
    let server_key = hmac(&salted, &[b"Server Key"]);
    let [salt, stored_key, server_key] =
        [&salt[..], &stored_key, &server_key].map(|key| STANDARD.encode(key));
    format!("SCRAM-SHA-256$1:{salt}${stored_key}:{server_key}")
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
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
        assert!(verifier.starts_with("SCRAM-SHA-256$1:"), "{verifier}");
        assert!(!verifier.contains(password.expose_secret()));
        assert!(!verifier.contains(['\'', '\\']));
    }
}
