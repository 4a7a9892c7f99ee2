//! A measured number, to the digit: `5.0` is not `5`, and what was sent is what comes back.

use std::{error::Error, fmt, str::FromStr};

use bytes::BytesMut;
use rust_decimal::Decimal;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

/// A decimal number with at most 15 digits before the point and 9 after it; the digits after the point are
/// part of it.
///
/// In JSON it is a string: a JSON number would lose `5.0` in most readers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number(Decimal);

/// A text that is not such a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is not a plain decimal number with at most 15 digits before and 9 after the point, such as 5.0 or -0.25"
)]
pub struct NumberError {
    given: String,
}

impl Number {
    const WHOLE_DIGITS_MAX: usize = 15;
    const FRACTION_DIGITS_MAX: usize = 9;

    /// Reads `-?digits[.digits]`. No plus sign, exponent, separator, blank or needless leading zero: each
    /// would have to be changed to be stored.
    ///
    /// # Errors
    /// [`NumberError`] shows the accepted form.
    pub fn parse(text: &str) -> Result<Self, NumberError> {
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = unsigned
            .split_once('.')
            .map_or((unsigned, None), |(w, f)| (w, Some(f)));
        let digits = |part: &str, max: usize| {
            (1..=max).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
        };
        let fits = digits(whole, Self::WHOLE_DIGITS_MAX)
            && (whole == "0" || !whole.starts_with('0'))
            && fraction.is_none_or(|f| digits(f, Self::FRACTION_DIGITS_MAX));
        let error = || NumberError {
            given: text.chars().take(64).collect(),
        };
        if !fits {
            return Err(error());
        }
        let number = Decimal::from_str(text).map_err(|_| error())?;
        if number.is_zero() && text.starts_with('-') {
            return Err(error()); // PostgreSQL has no negative zero: it would come back changed
        }
        Ok(Self(number))
    }

    /// The number for calculations.
    #[must_use]
    pub const fn as_decimal(self) -> Decimal {
        self.0
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Number({})", self.0)
    }
}

impl FromStr for Number {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl serde::Serialize for Number {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for Number {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        let (whole, fraction) = (Self::WHOLE_DIGITS_MAX - 1, Self::FRACTION_DIGITS_MAX);
        let pattern = format!(r"^-?(0|[1-9][0-9]{{0,{whole}}})(\.[0-9]{{1,{fraction}}})?$");
        // A sign, the digits and the point.
        model::openapi::text(1, Self::WHOLE_DIGITS_MAX + Self::FRACTION_DIGITS_MAX + 2)
            .pattern(Some(pattern))
            .examples(["5.0"])
            .description(Some(
                "A plain decimal number, as a text so that every digit is kept.",
            ))
            .into()
    }
}

impl utoipa::ToSchema for Number {}

impl<'a> FromSql<'a> for Number {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Decimal::from_sql(ty, raw).map(Self)
    }

    fn accepts(ty: &Type) -> bool {
        <Decimal as FromSql>::accepts(ty)
    }
}

impl ToSql for Number {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        if self.0.is_zero() {
            // rust_decimal writes every zero as "0" and drops the scale of "0.00". The binary form of
            // numeric: count of base-10000 digits, weight, sign, digits after the point; 16 bits each.
            let scale = u16::try_from(self.0.scale())?;
            for word in [0, 0, 0, scale] {
                out.extend_from_slice(&word.to_be_bytes());
            }
            return Ok(IsNull::No);
        }
        self.0.to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        <Decimal as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_accepted_text_comes_back_to_the_digit(text in "-?(0|[1-9][0-9]{0,14})(\\.[0-9]{1,9})?") {
            match Number::parse(&text) {
                Ok(number) => {
                    prop_assert_eq!(number.to_string(), text.clone());
                    let mut wire = BytesMut::new();
                    number.to_sql(&Type::NUMERIC, &mut wire).unwrap();
                    prop_assert_eq!(Number::from_sql(&Type::NUMERIC, &wire).unwrap().to_string(), text);
                }
                // Only the negative zeros.
                Err(_) => prop_assert!(text.starts_with('-') && text.bytes().all(|b| !(b'1'..=b'9').contains(&b))),
            }
        }

        #[test]
        fn anything_else_is_refused_and_nothing_panics(text in ".{0,40}") {
            if let Ok(number) = Number::parse(&text) {
                prop_assert_eq!(number.to_string(), text);
            }
        }
    }

    #[test]
    fn what_would_have_to_be_changed_is_refused() {
        for bad in [
            "",
            "-",
            ".5",
            "5.",
            "+5",
            "05",
            "-0",
            "-0.0",
            "1e3",
            " 5",
            "5 ",
            "1,5",
            "1_000",
            "NaN",
            "٣",
            "1.0000000001",
            "1234567890123456",
            "<5",
        ] {
            assert!(Number::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            serde_json::to_string(&Number::parse("5.00").unwrap()).unwrap(),
            "\"5.00\""
        );
        assert!(
            serde_json::from_str::<Number>("5.0").is_err(),
            "a JSON number is not a decimal string"
        );
    }
}
