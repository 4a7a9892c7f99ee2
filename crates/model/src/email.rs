use std::{fmt, str::FromStr};

use crate::text;

/// An e-mail address as a log-in name: in NFC, without white space around it, and compared without regard to
/// case.
///
/// Only the shape is checked (something, one `@`, something with no space, at most 254 bytes as in RFC 5321),
/// and that it looks like no other address: no invisible characters, and no letters of several scripts in the
/// part before the `@` or in one label of the host. Whether mail arrives there only mail can tell.
#[derive(Clone, serde::Serialize)]
#[serde(transparent)]
pub struct Email(String);

/// A text that cannot be an e-mail address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not an e-mail address: {why}")]
pub struct EmailError {
    given: String,
    why: String,
}

impl EmailError {
    fn new(given: &str, why: impl fmt::Display) -> Self {
        Self {
            given: given.chars().take(64).collect(),
            why: why.to_string(),
        }
    }
}

impl Email {
    /// The most bytes of an address (RFC 5321, 4.5.3.1.3, less the angle brackets).
    pub const LENGTH_MAX: usize = 254;

    /// Accepts an address that a person is to have.
    ///
    /// # Errors
    /// [`EmailError`] when it has not the shape, or can be taken for another one.
    pub fn parse(given: &str) -> Result<Self, EmailError> {
        let normal = text::identifier(given, Self::LENGTH_MAX);
        let email = Self::shaped(given, normal.map_err(|error| EmailError::new(given, error))?)?;
        let (name, host) = email.0.split_once('@').unwrap_or_default();
        if std::iter::once(name)
            .chain(host.split('.'))
            .any(text::scripts_mixed)
        {
            let why = "it mixes letters of different scripts, so that it looks like another address";
            return Err(EmailError::new(given, why));
        }
        Ok(email)
    }

    /// An address by which a person is looked up: those that were accepted before the rules of
    /// [`Email::parse`] are, too.
    ///
    /// # Errors
    /// [`EmailError`] when it has not the shape.
    pub fn known(given: &str) -> Result<Self, EmailError> {
        Self::shaped(given, text::nfc(given).trim().to_owned())
    }

    /// An address as a database has it.
    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    fn shaped(given: &str, normal: String) -> Result<Self, EmailError> {
        let shaped = normal.len() <= Self::LENGTH_MAX
            && !normal.chars().any(|c| c.is_whitespace() || c.is_control())
            && matches!(normal.split_once('@'), Some((name, host)) if !name.is_empty() && !host.is_empty() && !host.contains('@'));
        if shaped {
            Ok(Self(normal))
        } else {
            Err(EmailError::new(given, "write it as name@example.org"))
        }
    }

    /// The address as typed, in NFC.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Email {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_lowercase() == other.0.to_lowercase()
    }
}

impl Eq for Email {}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Email({})", self.0)
    }
}

impl FromStr for Email {
    type Err = EmailError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl<'de> serde::Deserialize<'de> for Email {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_decides_and_case_and_composition_do_not() {
        for (one, same) in [
            (" Ada@Example.org ", "ada@example.ORG"),
            ("zoe\u{308}@lab.example", "zo\u{eb}@lab.example"),
            ("\u{200B}ada@lab.example\u{a0}", "ada@lab.example"),
        ] {
            assert_eq!(Email::parse(one).unwrap(), Email::parse(same).unwrap());
        }
        for bad in ["", "ada", "@x", "ada@", "a b@c", "a@b@c", "a\n@b"] {
            assert!(Email::parse(bad).is_err(), "{bad:?}");
            assert!(Email::known(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn no_address_looks_like_another() {
        for (bad, word) in [
            ("ad\u{430}@lab.example", "scripts"),
            ("ada@l\u{430}b.example", "scripts"),
            ("ada\u{202E}@lab.example", "U+202E"),
            ("a\u{200D}da@lab.example", "U+200D"),
            ("ada@lab\u{AD}.example", "U+00AD"),
        ] {
            let error = Email::parse(bad).unwrap_err().to_string();
            assert!(error.contains(word), "{bad:?}: {error}");
            // Who has such an address from before still gets in.
            assert!(Email::known(bad).is_ok(), "{bad:?}");
        }
        for good in [
            "иван@lab.example",
            "иван@пример.рф",
            "山田さん@例え.jp",
            "x-1.y_2+z@lab-1.example",
        ] {
            assert!(Email::parse(good).is_ok(), "{good}");
        }
    }
}
