use std::{fmt, str::FromStr};

/// A tenant's short name in URLs: `^[a-z][a-z0-9]*(-[a-z0-9]+)*$`, 2 to 40 characters.
///
/// Upper case is refused and not folded: what a person typed is what they will see everywhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Slug(String);

/// Why a text is no slug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is not a valid slug: {why}; a slug has 2 to 40 characters, lower-case letters and digits in words \
         joined by single hyphens, and starts with a letter, as in \"acme-lab\""
)]
pub struct SlugError {
    given: String,
    why: &'static str,
}

impl Slug {
    /// The fewest characters of a slug.
    pub const LENGTH_MIN: usize = 2;
    /// The most characters of a slug; with the longest prefix a database name stays under PostgreSQL's 63
    /// bytes.
    pub const LENGTH_MAX: usize = 40;

    /// Checks a text against the rule above.
    ///
    /// # Errors
    /// [`SlugError`] says which part of the rule does not hold.
    pub fn parse(text: &str) -> Result<Self, SlugError> {
        let refuse = |why| {
            Err(SlugError {
                given: text.chars().take(64).collect(),
                why,
            })
        };
        if !(Self::LENGTH_MIN..=Self::LENGTH_MAX).contains(&text.len()) {
            return refuse("it is too short or too long");
        }
        if !text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            return refuse("it has a character that is not allowed");
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return refuse("it does not start with a letter");
        }
        if text.split('-').any(str::is_empty) {
            return refuse("a hyphen stands at its end or beside another");
        }
        Ok(Self(text.to_owned()))
    }

    /// The slug as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slug({})", self.0)
    }
}

impl FromStr for Slug {
    type Err = SlugError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl<'de> serde::Deserialize<'de> for Slug {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepts_what_the_rule_allows_and_names_what_it_does_not() {
        for good in ["ab", "a1", "acme-lab", "a-1-b", &"a".repeat(40)] {
            assert_eq!(Slug::parse(good).unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", "too short"),
            ("a", "too short"),
            (&*"a".repeat(41), "too long"),
            ("1ab", "start with a letter"),
            ("-ab", "start with a letter"),
            ("ab-", "hyphen"),
            ("a--b", "hyphen"),
            ("Acme", "not allowed"),
            ("a_b", "not allowed"),
            ("a\"; drop database x", "not allowed"),
            ("läb", "not allowed"),
        ] {
            let message = Slug::parse(bad).unwrap_err().to_string();
            assert!(message.contains(why), "{bad:?}: {message}");
        }
    }

    proptest! {
        #[test]
        fn whatever_parses_has_the_stated_shape(text in "[a-zA-Z0-9_ -]{0,45}") {
            if let Ok(slug) = Slug::parse(&text) {
                prop_assert!((2..=40).contains(&slug.as_str().len()));
                let plain = |word: &str| word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                let shaped = slug.as_str().split('-').all(|word| !word.is_empty() && plain(word));
                prop_assert!(shaped);
            }
        }

        #[test]
        fn the_stated_shape_parses(text in "[a-z][a-z0-9]{1,9}(-[a-z0-9]{1,9}){0,3}") {
            prop_assert!(Slug::parse(&text).is_ok());
        }
    }
}
