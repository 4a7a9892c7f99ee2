//! Passwords as they come in. Everything else is parsed by the types of `model`, `lab` and `provisioner`.

use std::fmt;

use identity::{
    ChosenPassword, PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN, PasswordContext, Passwords, WeakPassword,
};
use model::{Email, EventType, openapi::text, text_schema};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::openapi::{KnownFormat, ObjectBuilder, SchemaFormat, schema::Type};

use crate::problem::{ApiResult, Kind, Problem};

text_schema!(
    /// A password that a person chooses.
    pub NewPassword,
    text(PASSWORD_CHARS_MIN, PASSWORD_CHARS_MAX)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Password)))
        .description(Some(
            "A new password: no common one, and nothing made of the person's address or the laboratory's name."
        ))
);

text_schema!(
    /// A type of event that an address can ask for.
    pub WantedEvent,
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(
        EventType::ALL
            .iter()
            .filter(|kind| **kind != EventType::WebhookTest)
            .map(|kind| kind.as_str())
            .collect::<Vec<_>>()
    ))
);

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

/// Refuses the password in this field if no person may choose it, before anything is looked up.
///
/// # Errors
/// 422.
pub fn check_length(field: &str, password: &Password) -> ApiResult<()> {
    ChosenPassword::check_length(password.secret()).map_err(|weak| refused(field, weak))
}

/// The password in this field, if the person of whom `context` tells may choose it.
///
/// # Errors
/// 422.
pub fn chosen(field: &str, password: &Password, context: &PasswordContext) -> ApiResult<ChosenPassword> {
    ChosenPassword::check(password.secret(), context).map_err(|weak| refused(field, weak))
}

fn refused(field: &str, weak: WeakPassword) -> Problem {
    Problem::field(Kind::WeakPassword, field, weak.to_string())
}

/// The hash of a new password.
///
/// # Errors
/// 422 when it is weak, 503 when too many are being hashed.
pub async fn hashed(
    passwords: &Passwords,
    field: &str,
    password: &Password,
    context: &PasswordContext,
) -> ApiResult<SecretString> {
    let chosen = chosen(field, password, context)?;
    Ok(passwords.hash(&chosen).await?.into())
}

/// The place of a password where none is taken: a caller who sends one learns how a password is set.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPassword;

impl<'de> Deserialize<'de> for NoPassword {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(
            "`password` is not taken here: one person cannot set another's password. A person who is added or invited (POST \
             /api/v1/staff/{id}/invitation) sets it by the link, and changes it with POST /api/v1/me/password",
        ))
    }
}

/// An address by which a person is looked up, for `#[serde(deserialize_with = "input::known_email")]`.
///
/// # Errors
/// When it has not the shape of one.
pub fn known_email<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Email, D::Error> {
    let text = String::deserialize(deserializer)?;
    Email::known(&text).map_err(serde::de::Error::custom)
}

/// A field that may be left out and not be `null`: for `#[serde(default, deserialize_with =
/// "input::present")]`. Absent means "stays as it is", and `null` would look like "take it away", which these
/// fields cannot do.
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
