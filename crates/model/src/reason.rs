use std::{ops::Deref, str::FromStr};

use crate::text::{self, TextError};

/// Why a person asks for something, in their words: one line of at most 500 characters, for audits and
/// events. It may be empty.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Reason(String);

impl Reason {
    /// The most characters.
    pub const CHARS_MAX: usize = 500;

    /// The reason in its normal form.
    ///
    /// # Errors
    /// [`TextError`] when it is too long, or has a line break or another character that cannot be seen.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        match text::line(text, Self::CHARS_MAX) {
            Err(TextError::Empty) => Ok(Self(String::new())),
            parsed => parsed.map(Self),
        }
    }
}

impl TryFrom<String> for Reason {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).map_err(|error| format!("the reason {error}"))
    }
}

impl FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl Deref for Reason {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        for good in ["", "they asked for it", &"é".repeat(Reason::CHARS_MAX)] {
            assert_eq!(&*Reason::parse(good).unwrap(), good);
        }
        for bad in [
            "a\0b",
            "a\nb",
            "a\u{85}b",
            "a\u{202E}b",
            &"é".repeat(Reason::CHARS_MAX + 1),
        ] {
            Reason::parse(bad).unwrap_err();
        }
    }
}
