use std::{fmt, str::FromStr};

use uuid::Uuid;

/// Fewer digits would name too much by chance.
const DIGITS_MIN: usize = 4;
const DIGITS_MAX: usize = 32;

/// The first hexadecimal digits of an id, as people copy them from a list; hyphens may stand between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPrefix(String);

/// Why a text is not the beginning of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("use an id or its first {DIGITS_MIN} or more hexadecimal digits, as 0199f3c2-7a")]
pub struct IdPrefixError;

impl IdPrefix {
    /// The lowest and the highest id that begin like this.
    #[must_use]
    pub fn bounds(&self) -> (Uuid, Uuid) {
        let filled = |digit: &str| {
            let padding = digit.repeat(DIGITS_MAX - self.0.len());
            // Exactly 32 hexadecimal digits, as `from_str` saw to it.
            Uuid::try_parse(&format!("{}{padding}", self.0)).unwrap_or_default()
        };
        (filled("0"), filled("f"))
    }
}

impl FromStr for IdPrefix {
    type Err = IdPrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: String = text.chars().filter(|&c| c != '-').collect();
        let long_enough = (DIGITS_MIN..=DIGITS_MAX).contains(&digits.len());
        if !long_enough || text.starts_with('-') || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(IdPrefixError);
        }
        Ok(Self(digits.to_ascii_lowercase()))
    }
}

impl fmt::Display for IdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_hold_exactly_the_ids_that_begin_like_this() {
        let prefix: IdPrefix = "0199F3c2-7a".parse().unwrap();
        let (low, high) = prefix.bounds();
        assert_eq!(low.to_string(), "0199f3c2-7a00-0000-0000-000000000000");
        assert_eq!(high.to_string(), "0199f3c2-7aff-ffff-ffff-ffffffffffff");
        let whole = "0199f3c2-7a01-7000-8000-000000000001";
        let (low, high) = whole.parse::<IdPrefix>().unwrap().bounds();
        assert_eq!((low, high), (whole.parse().unwrap(), whole.parse().unwrap()));
    }

    #[test]
    fn what_is_no_beginning_of_an_id_is_refused() {
        for text in [
            "",
            "019",
            "zzzz",
            "-0199",
            "0199 ",
            "0199f3c27a017000800000000000000100",
        ] {
            assert_eq!(text.parse::<IdPrefix>(), Err(IdPrefixError), "{text:?}");
        }
    }
}
