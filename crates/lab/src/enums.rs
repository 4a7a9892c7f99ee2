//! The laboratory's words: states, flags and kinds as the database, the API and the code all spell them.

/// Gives a fieldless enum its words: `as_str`, `Display`, `FromStr`, serde, OpenAPI and SQL text speak the
/// same ones.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal, { $($(#[$vdoc:meta])* $variant:ident => $word:tt),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, utoipa::ToSchema)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant),+
        }

        // Of a text and of nothing else: what serde derives also takes the word as an object's only key.
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = String::deserialize(deserializer)?;
                word.parse().map_err(serde::de::Error::custom)
            }
        }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word that is stored and shown.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = model::UnknownWord;

            fn from_str(value: &str) -> Result<Self, Self::Err> {
                match value {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(model::UnknownWord {
                        what: $what,
                        value: value.chars().take(64).collect(),
                        accepted: [$($word),+].join(", "),
                    }),
                }
            }
        }

        impl<'a> tokio_postgres::types::FromSql<'a> for $name {
            fn from_sql(
                ty: &tokio_postgres::types::Type,
                raw: &'a [u8],
            ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
                Ok(<&str>::from_sql(ty, raw)?.parse()?)
            }

            fn accepts(ty: &tokio_postgres::types::Type) -> bool {
                <&str as tokio_postgres::types::FromSql>::accepts(ty)
            }
        }

        impl tokio_postgres::types::ToSql for $name {
            fn to_sql(
                &self,
                ty: &tokio_postgres::types::Type,
                out: &mut bytes::BytesMut,
            ) -> Result<tokio_postgres::types::IsNull, Box<dyn std::error::Error + Sync + Send>> {
                self.as_str().to_sql(ty, out)
            }

            fn accepts(ty: &tokio_postgres::types::Type) -> bool {
                <&str as tokio_postgres::types::ToSql>::accepts(ty)
            }

            tokio_postgres::types::to_sql_checked!();
        }
    };
}

words!(
    /// A patient's sex as far as reference ranges go.
    Sex, "sex", {
    /// Female.
    Female => "F",
    /// Male.
    Male => "M",
    /// Other: a value that is critical for either sex is critical; usual is what holds for everybody or is
    /// shared by both.
    Other => "O",
    /// Unknown: as for other.
    Unknown => "U",
});

words!(
    /// For which sex a reference range holds; one for everybody names none.
    RangeSex, "sex of a range", {
    /// Female.
    Female => "F",
    /// Male.
    Male => "M",
});

words!(
    /// How soon an order is wanted.
    Priority, "priority", {
    /// In its turn.
    Routine => "routine",
    /// Before the routine ones.
    Urgent => "urgent",
    /// At once.
    Stat => "stat",
});

words!(
    /// Where an order stands.
    OrderStatus, "order status", {
    /// Nothing was collected yet.
    Registered => "registered",
    /// At least one specimen was collected.
    InProgress => "in_progress",
    /// Every result is final.
    Completed => "completed",
    /// Called off.
    Cancelled => "cancelled",
});

words!(
    /// Where a specimen stands.
    SpecimenStatus, "specimen status", {
    /// Not drawn yet.
    Expected => "expected",
    /// Drawn, on its way.
    Collected => "collected",
    /// In the laboratory.
    Received => "received",
    /// Not usable.
    Rejected => "rejected",
    /// Thrown away after its time.
    Disposed => "disposed",
});

words!(
    /// Where a result stands.
    ResultStatus, "result status", {
    /// No value yet.
    Pending => "pending",
    /// A value was entered or imported.
    Entered => "entered",
    /// Another person has verified it.
    Verified => "verified",
    /// It has left the laboratory.
    Released => "released",
    /// Released, and its value was corrected since.
    Corrected => "corrected",
    /// Released, and its comment was added to since.
    Amended => "amended",
    /// Given up before release.
    Cancelled => "cancelled",
    /// Withdrawn after release.
    Voided => "voided",
});

words!(
    /// Where a result stands that is still worked on.
    OpenStatus, "status of open work", {
    /// No value yet.
    Pending => "pending",
    /// A value was entered or imported.
    Entered => "entered",
    /// Another person has verified it.
    Verified => "verified",
});

impl From<OpenStatus> for ResultStatus {
    fn from(status: OpenStatus) -> Self {
        match status {
            OpenStatus::Pending => Self::Pending,
            OpenStatus::Entered => Self::Entered,
            OpenStatus::Verified => Self::Verified,
        }
    }
}

impl ResultStatus {
    /// Released in any form: the value counts, and changes only by amendment.
    #[must_use]
    pub const fn is_published(self) -> bool {
        matches!(self, Self::Released | Self::Corrected | Self::Amended)
    }

    /// Nothing is left to do for it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Entered | Self::Verified)
    }
}

words!(
    /// How a value lies to the range it was judged by, or that it is one of the test's critical words. No
    /// range, no flag.
    Flag, "flag", {
    /// Inside; a value equal to a bound is inside.
    Normal => "N",
    /// Below the range.
    Low => "L",
    /// Above the range.
    High => "H",
    /// Below the critical limit.
    CriticalLow => "LL",
    /// Above the critical limit.
    CriticalHigh => "HH",
    /// One of the critical words of a test that has no numbers.
    CriticalWord => "AA",
});

impl Flag {
    /// Whether a notice must be recorded before the value may be released.
    #[must_use]
    pub const fn is_critical(self) -> bool {
        matches!(self, Self::CriticalLow | Self::CriticalHigh | Self::CriticalWord)
    }
}

words!(
    /// Why no range holds for a value: then nothing is said of what is usual, and what is critical may be
    /// unknown.
    NoRange, "reason", {
    /// The test has no range in force.
    Test => "no-range-for-test",
    /// No range of the test holds at this age; the standard catalogue's hold from 18 years.
    Age => "no-range-for-age",
    /// The ranges at this age hold for another sex only, or differ by sex and the person's is other or
    /// unknown. What is critical for either sex is critical all the same.
    Sex => "no-range-for-sex",
    /// The day of collection lies before the date of birth.
    BeforeBirth => "collected-before-birth",
});

words!(
    /// What an instrument puts before a value that it could only bound.
    Comparator, "comparator", {
    /// Less than.
    Less => "<",
    /// At most.
    AtMost => "<=",
    /// At least.
    AtLeast => ">=",
    /// More than.
    More => ">",
});

words!(
    /// What kind of value a test has.
    ValueType, "value type", {
    /// A number with a unit.
    Quantity => "quantity",
    /// One of the test's allowed values.
    Coded => "coded",
    /// Free text.
    Text => "text",
    /// No value of its own: an order for it is an order for its members.
    Panel => "panel",
});

words!(
    /// What an amendment does to a released result.
    AmendmentKind, "kind of amendment", {
    /// The value was wrong.
    Corrected => "corrected",
    /// The value stands; the comment changes.
    Amended => "amended",
});

words!(
    /// Where an amendment stands.
    AmendmentStatus, "amendment status", {
    /// Entered; waits for another person's verification.
    Proposed => "proposed",
    /// Verified and applied.
    Verified => "verified",
    /// Taken back.
    Withdrawn => "withdrawn",
});

words!(
    /// How an imported file is written.
    ImportFormat, "import format", {
    /// Comma-separated values with a header line.
    Csv => "csv",
    /// One JSON object a line.
    Ndjson => "ndjson",
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_the_same_in_code_json_and_openapi() {
        for &status in ResultStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        assert_eq!(
            serde_json::from_str::<Comparator>("\"<=\"").unwrap(),
            Comparator::AtMost
        );
        let schema = serde_json::to_string(&<Comparator as utoipa::PartialSchema>::schema()).unwrap();
        assert!(schema.contains("\"<=\""), "{schema}");
        let wrong = "done".parse::<OrderStatus>().unwrap_err().to_string();
        assert!(
            wrong.contains("registered, in_progress, completed, cancelled"),
            "{wrong}"
        );
    }
}
