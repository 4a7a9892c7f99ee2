//! Ages as durations from the date of birth on the calendar: `P18Y` ends on the 18th birthday, `P28D` after
//! 28 days.

use std::{fmt, str::FromStr};

use jiff::{Span, civil::Date};

/// An age as an ISO 8601 duration of years, months and days, such as `P18Y`, `P6M` or `P28D`.
///
/// The day on which a person reaches it is the date of birth plus the duration; a birthday that a year does
/// not have (29 February) is the last day of its month.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Age {
    years: i16,
    months: i16,
    days: i32,
}

/// A text that is not such an age.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is not an age; write an ISO 8601 duration of years, months and days such as P18Y, P6M or P28D"
)]
pub struct AgeError {
    given: String,
}

impl Age {
    /// From birth on.
    pub const BIRTH: Self = Self {
        years: 0,
        months: 0,
        days: 0,
    };

    /// Reads `P[nY][nM][nD]` with at least one part: up to 150 years, 1,800 months and 54,750 days.
    ///
    /// # Errors
    /// [`AgeError`] shows the accepted form.
    pub fn parse(text: &str) -> Result<Self, AgeError> {
        Self::parts(text).ok_or_else(|| AgeError {
            given: text.chars().take(64).collect(),
        })
    }

    fn parts(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix('P')?;
        if rest.is_empty() {
            return None;
        }
        let mut part = |unit: char, max: i32| -> Option<i32> {
            let Some((digits, after)) = rest.split_once(unit) else {
                return Some(0);
            };
            if !(1..=5).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            rest = after;
            digits.parse().ok().filter(|n| *n <= max)
        };
        let (years, months, days) = (part('Y', 150)?, part('M', 1_800)?, part('D', 54_750)?);
        rest.is_empty().then_some(Self {
            years: i16::try_from(years).ok()?,
            months: i16::try_from(months).ok()?,
            days,
        })
    }

    /// The day on which somebody born on `birth` reaches this age; `None` past the end of the calendar.
    #[must_use]
    pub fn reached(self, birth: Date) -> Option<Date> {
        birth
            .checked_add(Span::new().years(self.years).months(self.months).days(self.days))
            .ok()
    }
}

model::schema!(
    Age,
    model::openapi::text(3, 19)
        .pattern(Some(
            "^P(0*([0-9]{1,2}|1[0-4][0-9]|150)Y)?([0-9]{1,4}M)?([0-9]{1,5}D)?$"
        ))
        .examples(["P18Y"])
        .description(Some(
            "An age as an ISO 8601 duration of years, months and days: at most 150 years, 1,800 months and 54,750 days."
        ))
);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::BIRTH {
            return f.write_str("P0D");
        }
        f.write_str("P")?;
        for (count, unit) in [
            (i32::from(self.years), 'Y'),
            (i32::from(self.months), 'M'),
            (self.days, 'D'),
        ] {
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Age({self})")
    }
}

impl FromStr for Age {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl serde::Serialize for Age {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Age {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;
    use proptest::prelude::*;

    #[test]
    fn adulthood_begins_on_the_birthday_whatever_the_leap_years() {
        let adult = Age::parse("P18Y").unwrap();
        assert_eq!(adult.reached(date(2000, 3, 1)), Some(date(2018, 3, 1)));
        assert_eq!(adult.reached(date(2001, 3, 1)), Some(date(2019, 3, 1)));
        // One of these spans 6574 days and the other 6575: a count of days would be wrong for one of them.
        let days = |year| (adult.reached(date(year, 3, 1)).unwrap() - date(year, 3, 1)).get_days();
        assert_eq!([days(2000), days(2003)], [6574, 6575]);
        assert_eq!(adult.reached(date(2004, 2, 29)), Some(date(2022, 2, 28)));
    }

    #[test]
    fn what_is_not_an_age_is_refused() {
        for bad in [
            "", "P", "18Y", "P18", "PY", "P-1Y", "P1.5Y", "P1D1Y", "P1Y1Y", "P151Y", "P1W", "PT1H",
            "P999999D", "P٣Y",
        ] {
            assert!(Age::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn an_age_reads_as_it_is_written(years in 0i16..=150, months in 0i16..=1800, days in 0i32..=54_750) {
            let age = Age { years, months, days };
            prop_assert_eq!(Age::parse(&age.to_string()), Ok(age));
        }

        #[test]
        fn no_text_panics(text in "P?.{0,20}") {
            let _ = Age::parse(&text);
        }
    }
}
