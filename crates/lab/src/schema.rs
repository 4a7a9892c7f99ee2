//! How the texts of requests look in the API's description, from the constants by which they are checked.
//!
//! Most of them are checked where the request is carried out, so that everything that is wrong with it is
//! named at once; these types stand for them in the description.

use model::{
    openapi::{BLANK_OR_LINE_PATTERN, LINE_PATTERN, text},
    text_schema,
};

pub(crate) use model::openapi::{Line, Note, RequiredReason, TimeZone};

use crate::{
    limits::{
        ACCESSION_PREFIX_MAX, CODE_MAX, GROUP_MAX, IDENTIFIER_MAX, IMPORT_FIELD_MAX, INSTRUMENT_MAX,
        TEXT_VALUE_MAX,
    },
    units::UNIT_MAX,
};

text_schema!(
    /// A number or code that others gave.
    pub(crate) Identifier,
    text(1, IDENTIFIER_MAX).pattern(Some(LINE_PATTERN)).description(Some(
        "A number or code, without control characters and invisible ones. White space around it is dropped."
    ))
);

text_schema!(
    /// A word by which things are grouped.
    pub(crate) Group,
    text(1, GROUP_MAX).pattern(Some(LINE_PATTERN))
);

text_schema!(
    /// A test's code.
    pub(crate) TestCode,
    text(1, CODE_MAX).pattern(Some("^[A-Z0-9_]+$")).examples(["GLU"])
);

text_schema!(
    /// A LOINC code.
    pub(crate) Loinc,
    text(3, 8)
        .pattern(Some("^[0-9]{1,6}-[0-9]$"))
        .examples(["2345-7"])
        .description(Some("A LOINC code; its last digit is a check digit, and must be the right one."))
);

text_schema!(
    /// A unit.
    pub(crate) Unit,
    text(1, UNIT_MAX)
        .pattern(Some(LINE_PATTERN))
        .examples(["mmol/L"])
        .description(Some("A unit of UCUM, case-sensitive."))
);

text_schema!(
    /// A value.
    pub(crate) ValueText,
    text(1, TEXT_VALUE_MAX)
        .pattern(Some(r"\S"))
        .examples(["5.0"])
        .description(Some(
            "For a quantity a plain decimal number such as 5.0, kept to the digit; for a coded test one of its words; else text."
        ))
);

text_schema!(
    /// The beginning of accession numbers.
    pub(crate) AccessionPrefix,
    text(0, ACCESSION_PREFIX_MAX).pattern(Some("^[A-Z0-9]*$"))
);

text_schema!(
    /// A field of a row of an import.
    pub(crate) ImportText,
    text(0, IMPORT_FIELD_MAX).pattern(Some(BLANK_OR_LINE_PATTERN))
);

text_schema!(
    /// The value of a row of an import.
    pub(crate) ImportValue,
    text(0, IMPORT_FIELD_MAX)
);

text_schema!(
    /// A field of a row of an import that must be there.
    pub(crate) ImportKey,
    text(1, IMPORT_FIELD_MAX).pattern(Some(LINE_PATTERN))
);

text_schema!(
    /// The name of an instrument.
    pub(crate) Instrument,
    text(0, INSTRUMENT_MAX).pattern(Some(BLANK_OR_LINE_PATTERN))
);
