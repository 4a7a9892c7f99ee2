//! Where a page of a list begins that is ordered by the registry's clock.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use uuid::Uuid;

/// Behind the row with this time and id. Rows are ordered by the time that the registry gave them; the id
/// decides between two of the same microsecond only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    at: Timestamp,
    id: Uuid,
}

/// The text is no position that a list gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no position in a list")]
pub struct NotAPosition;

impl Position {
    pub(crate) fn new(at: Timestamp, id: Uuid) -> Self {
        Self { at, id }
    }

    /// The two parameters of `(created_at, id) < ($n, $m)`; absent ones begin at the first row.
    pub(crate) fn parts(position: Option<Self>) -> (Option<Timestamp>, Option<Uuid>) {
        (position.map(|p| p.at), position.map(|p| p.id))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at.as_microsecond(), self.id)
    }
}

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let (at, id) = text.split_once('.').ok_or(NotAPosition)?;
        let at = at
            .parse()
            .ok()
            .and_then(|at| Timestamp::from_microsecond(at).ok());
        let id = Uuid::parse_str(id).ok();
        at.zip(id).map(|(at, id)| Self { at, id }).ok_or(NotAPosition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_as_it_was_written() {
        let at = Timestamp::from_microsecond(1_795_000_000_123_456).unwrap();
        let position = Position::new(at, Uuid::from_u128(7));
        assert_eq!(position.to_string().parse(), Ok(position));
        for wrong in [
            "",
            "1",
            "0190a5b0-0000-7000-8000-000000000001",
            "x.y",
            "1.",
            "9999999999999999999.1",
        ] {
            assert_eq!(wrong.parse::<Position>(), Err(NotAPosition), "{wrong}");
        }
    }
}
