//! Passwords and reasons as they come in. Everything else is parsed by the types of `model`, `lab` and `provisioner`.

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

/// The longest reason that is taken, in characters.
pub const REASON_CHARS_MAX: usize = 500;

/// Why somebody asks for something, in their words: one line for the audit.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Reason(String);

impl TryFrom<String> for Reason {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let long = text.chars().count();
        if long > REASON_CHARS_MAX {
            return Err(format!(
                "the reason has {long} characters; at most {REASON_CHARS_MAX} are taken"
            ));
        }
        if text.chars().any(char::is_control) {
            return Err(
                "the reason has a control character, such as a line break or U+0000; take it out".to_owned(),
            );
        }
        Ok(Self(text))
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.0
    }
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
    fn a_reason_is_one_line_of_bounded_length() {
        let reason = |text: &str| Reason::try_from(text.to_owned()).map(String::from);
        for good in ["", "they asked for it", &"é".repeat(REASON_CHARS_MAX)] {
            assert_eq!(reason(good).as_deref(), Ok(good));
        }
        for bad in ["a\0b", "a\nb", "\u{85}", &"é".repeat(REASON_CHARS_MAX + 1)] {
            reason(bad).unwrap_err();
        }
    }

    #[test]
    fn a_password_never_shows_itself() {
        assert_eq!(format!("{:?}", Password::from("hunter2".to_owned())), "***");
    }
}
