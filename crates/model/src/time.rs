//! Timestamps and days as clients write them: RFC 3339 and ISO 8601's calendar date, and nothing else.
//!
//! `jiff`'s own parsers accept more: annotations of zones and calendars, leap seconds, offsets of 25 hours,
//! dates without hyphens. A client that sends one of these means something that would be lost, or made a
//! mistake.

use std::str::FromStr;

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::Offset,
};
use serde::{Deserialize, Deserializer, de::Error as _};

/// A moment, read from RFC 3339 (`2026-01-31T08:00:00+01:00`): with seconds, an offset of less than a day,
/// and up to nine digits of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(Timestamp);

/// Why a text is no [`Moment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    /// It is written otherwise.
    #[error("it must be a timestamp with an offset (RFC 3339), for example 2026-01-31T08:00:00+01:00")]
    Shape,
    /// Its second is 60.
    #[error(
        "it names a leap second, which cannot be kept; write the second before it, for example 2016-12-31T23:59:59Z"
    )]
    LeapSecond,
    /// It is shaped like a timestamp, and there is no such day, time or offset.
    #[error(
        "there is no such day, time or offset; it must be a timestamp with an offset (RFC 3339), for example \
         2026-01-31T08:00:00+01:00"
    )]
    NoSuchMoment,
}

/// A day of the calendar, read from `2026-01-31`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day(Date);

/// Why a text is no [`Day`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it must be a day of the calendar, written as YYYY-MM-DD (ISO 8601), for example 2026-01-31")]
pub struct DayError;

/// Digits of a fixed place, or nothing.
fn digits<T: FromStr>(text: &str, from: usize, count: usize) -> Option<T> {
    let part = text.get(from..from + count)?;
    part.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| part.parse().ok())?
}

fn separators(text: &str, at: &[(usize, &[u8])]) -> bool {
    at.iter().all(|(place, accepted)| {
        text.as_bytes()
            .get(*place)
            .is_some_and(|byte| accepted.contains(byte))
    })
}

impl Day {
    /// Reads `YYYY-MM-DD`.
    ///
    /// # Errors
    /// [`DayError`], also for a day that the calendar does not have.
    pub fn parse(text: &str) -> Result<Self, DayError> {
        let parts = || {
            if text.len() != 10 || !separators(text, &[(4, b"-"), (7, b"-")]) {
                return None;
            }
            Date::new(digits(text, 0, 4)?, digits(text, 5, 2)?, digits(text, 8, 2)?).ok()
        };
        parts().map(Self).ok_or(DayError)
    }
}

impl Moment {
    /// Reads RFC 3339.
    ///
    /// # Errors
    /// [`MomentError`].
    pub fn parse(text: &str) -> Result<Self, MomentError> {
        let parts = Parts::of(text).ok_or(MomentError::Shape)?;
        if parts.second == 60 {
            return Err(MomentError::LeapSecond);
        }
        parts.moment().map(Self).ok_or(MomentError::NoSuchMoment)
    }
}

/// The numbers of a timestamp.
struct Parts {
    date: (i16, i8, i8),
    hour: i8,
    minute: i8,
    second: i8,
    nanosecond: i32,
    offset: (i32, i32, i32),
}

impl Parts {
    fn of(text: &str) -> Option<Self> {
        const FRACTION_DIGITS_MAX: usize = 9;
        if !text.is_ascii() || !separators(text, &[(4, b"-"), (7, b"-"), (10, b"Tt"), (13, b":"), (16, b":")])
        {
            return None;
        }
        let mut rest = text.get(19..)?;
        let mut nanosecond = 0;
        if let Some(fraction) = rest.strip_prefix('.') {
            let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
            if !(1..=FRACTION_DIGITS_MAX).contains(&length) {
                return None;
            }
            let (fraction, after) = fraction.split_at(length);
            nanosecond = format!("{fraction:0<FRACTION_DIGITS_MAX$}").parse().ok()?;
            rest = after;
        }
        let offset = match rest.as_bytes() {
            [b'Z' | b'z'] => (1, 0, 0),
            [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
                let sign = if *sign == b'-' { -1 } else { 1 };
                (sign, digits(rest, 1, 2)?, digits(rest, 4, 2)?)
            }
            _ => return None,
        };
        Some(Self {
            date: (digits(text, 0, 4)?, digits(text, 5, 2)?, digits(text, 8, 2)?),
            hour: digits(text, 11, 2)?,
            minute: digits(text, 14, 2)?,
            second: digits(text, 17, 2)?,
            nanosecond,
            offset,
        })
    }

    fn moment(&self) -> Option<Timestamp> {
        let (year, month, day) = self.date;
        let local = DateTime::new(
            year,
            month,
            day,
            self.hour,
            self.minute,
            self.second,
            self.nanosecond,
        );
        let (sign, hours, minutes) = self.offset;
        if hours > 23 || minutes > 59 {
            return None;
        }
        let offset = Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()?;
        offset.to_timestamp(local.ok()?).ok()
    }
}

impl From<Moment> for Timestamp {
    fn from(moment: Moment) -> Self {
        moment.0
    }
}

impl From<Day> for Date {
    fn from(day: Day) -> Self {
        day.0
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_timestamp_is_rfc_3339_and_nothing_else() {
        for (text, same) in [
            ("2026-01-31T08:00:00+01:00", "2026-01-31T07:00:00Z"),
            ("2026-01-31t08:00:00z", "2026-01-31T08:00:00Z"),
            ("2026-01-31T08:00:00.5-00:00", "2026-01-31T08:00:00.5Z"),
            ("2026-01-31T08:00:00.123456789Z", "2026-01-31T08:00:00.123456789Z"),
            ("2024-02-29T23:59:59+23:59", "2024-02-29T00:00:59Z"),
        ] {
            let expected: Timestamp = same.parse().unwrap();
            assert_eq!(Moment::parse(text).map(Timestamp::from), Ok(expected), "{text}");
        }
        for text in [
            "",
            "2026-01-31",
            "2026-01-31T08:00:00",
            "2026-01-31T08:00Z",
            "2026-01-31 08:00:00Z",
            "20260131T080000Z",
            "2026-01-31T08:00:00+01",
            "2026-01-31T08:00:00+0100",
            "2026-01-31T08:00:00+01:00:00",
            "2026-01-31T08:00:00,5Z",
            "2026-01-31T08:00:00.Z",
            "2026-01-31T08:00:00.1234567890Z",
            "2026-01-31T08:00:00-05:00[America/New_York]",
            "2026-01-31T08:00:00Z[UTC]",
            "2026-01-31T08:00:00Z[u-ca=japanese]",
            "+002026-01-31T08:00:00Z",
            "2026-01-31T08:00:00Z ",
            "２026-01-31T08:00:00Z",
        ] {
            assert_eq!(Moment::parse(text), Err(MomentError::Shape), "{text}");
        }
        for text in [
            "2026-02-30T08:00:00Z",
            "2026-13-01T08:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T08:60:00Z",
            "2026-01-31T08:00:61Z",
            "2026-01-31T08:00:00+24:00",
            "2026-01-31T08:00:00+25:00",
            "2026-01-31T08:00:00+01:60",
        ] {
            assert_eq!(Moment::parse(text), Err(MomentError::NoSuchMoment), "{text}");
        }
        let leap = Moment::parse("2016-12-31T23:59:60Z");
        assert_eq!(leap, Err(MomentError::LeapSecond));
    }

    #[test]
    fn a_day_is_year_month_and_day() {
        assert_eq!(
            Day::parse("2024-02-29").map(Date::from),
            Ok(jiff::civil::date(2024, 2, 29))
        );
        for text in [
            "",
            "2023-02-29",
            "1980-13-41",
            "19800401",
            "1980-4-1",
            "1980-04-01T00:00:00Z",
            "1980-04-01[u-ca=japanese]",
            "-009999-01-01",
            "1980-04-01 ",
            "1980/04/01",
            "１980-04-01",
        ] {
            assert_eq!(Day::parse(text), Err(DayError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_jiff_reads(second in -62_135_596_800i64..253_402_207_200, nanosecond in 0i32..1_000_000_000) {
            let at = Timestamp::new(second, nanosecond).unwrap();
            prop_assert_eq!(Moment::parse(&at.to_string()).map(Timestamp::from), Ok(at));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = (Moment::parse(&text), Day::parse(&text));
        }
    }
}
