//! Passwords as they come in. Everything else is parsed by the types of `model`, `lab` and `provisioner`.

use std::fmt;

use identity::Passwords;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::problem::{Answer, Kind, Problem};

/// A password as it came in; it never shows itself.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct Password(SecretString);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Password {
    /// The password, for hashing and checking.
    #[must_use]
    pub fn secret(&self) -> &SecretString {
        &self.0
    }
}

/// Refuses what may not become a password.
///
/// # Errors
/// 422.
pub fn strong(password: &Password) -> Answer<()> {
    identity::password_check(password.secret().expose_secret())
        .map_err(|weak| Problem::with(Kind::WeakPassword, weak.to_string()))
}

/// The hash of a new password.
///
/// # Errors
/// 422 when it is weak, 503 when too many are being hashed.
pub async fn hashed(passwords: &Passwords, password: &Password) -> Answer<SecretString> {
    strong(password)?;
    Ok(passwords.hash(password.secret()).await?.into())
}

/// A field that may be left out and not be `null`: for `#[serde(default, deserialize_with = "input::present")]`. Absent
/// means "stays as it is", and `null` would look like "take it away", which these fields cannot do.
///
/// # Errors
/// Whatever `T` refuses, `null` among it.
pub fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_never_shows_itself() {
        assert_eq!(format!("{:?}", Password::from("hunter2".to_owned())), "***");
    }
}
