//! Signing, as Standard Webhooks has it: HMAC-SHA256 over `id.timestamp.body` with the secret's bytes, in
//! base64 behind `v1,`.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// How a secret begins, so that people and scanners know what it is.
const PREFIX: &str = "whsec_";
/// 256 bits, as long as the hash's own output.
const SECRET_BYTES: usize = 32;

/// A new secret in the form that receivers' libraries take.
pub(crate) fn generate() -> SecretString {
    let mut bits = [0_u8; SECRET_BYTES];
    rand::rng().fill_bytes(&mut bits);
    format!("{PREFIX}{}", STANDARD.encode(bits)).into()
}

/// The header's value: one signature for each secret, with a space between. `None` when a secret has not the
/// form.
pub(crate) fn sign(secrets: &[SecretString], id: &str, timestamp: i64, body: &str) -> Option<String> {
    let signed = secrets.iter().map(|secret| {
        let key = STANDARD
            .decode(secret.expose_secret().strip_prefix(PREFIX)?)
            .ok()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    });
    signed.collect::<Option<Vec<_>>>().map(|all| all.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn the_signature_is_the_one_that_others_compute() {
        let secret = SecretString::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let signature = sign(
            &[secret],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(
            signature.as_deref(),
            Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
    }

    #[test]
    fn a_secret_never_repeats_and_what_is_none_signs_nothing() {
        let (a, b) = (generate(), generate());
        assert_ne!(a.expose_secret(), b.expose_secret());
        assert!(sign(&[a, b], "x", 0, "").is_some_and(|text| text.split(' ').count() == 2));
        assert_eq!(sign(&["secret".to_owned().into()], "x", 0, ""), None);
    }
}
