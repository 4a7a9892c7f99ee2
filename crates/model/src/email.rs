use std::{fmt, str::FromStr};

/// An e-mail address as a log-in name: trimmed, kept as typed, compared without regard to case.
///
/// Only the shape is checked (something, one `@`, something with no space, at most 254 characters as in RFC 5321);
/// whether mail arrives there only mail can tell.
#[derive(Clone, serde::Serialize)]
#[serde(transparent)]
pub struct Email(String);

/// A text that cannot be an e-mail address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not an e-mail address; write it as name@example.org")]
pub struct EmailError {
    given: String,
}

impl Email {
    /// The most characters of an address (RFC 5321, 4.5.3.1.3, less the angle brackets).
    pub const LENGTH_MAX: usize = 254;

    /// Checks the shape of an address.
    ///
    /// # Errors
    /// [`EmailError`] when it has not the shape.
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        let trimmed = text.trim();
        let shaped = trimmed.len() <= Self::LENGTH_MAX
            && !trimmed.chars().any(|c| c.is_whitespace() || c.is_control())
            && matches!(trimmed.split_once('@'), Some((name, host)) if !name.is_empty() && !host.is_empty() && !host.contains('@'));
        if shaped {
            Ok(Self(trimmed.to_owned()))
        } else {
            Err(EmailError {
                given: text.chars().take(64).collect(),
            })
        }
    }

    /// The address as typed.
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
    fn the_shape_decides_and_case_does_not() {
        assert_eq!(
            Email::parse(" Ada@Example.org ").unwrap(),
            Email::parse("ada@example.ORG").unwrap()
        );
        for bad in ["", "ada", "@x", "ada@", "a b@c", "a@b@c", "a\n@b"] {
            assert!(Email::parse(bad).is_err(), "{bad:?}");
        }
    }
}
