//! From bytes to rows. Every line is read by itself, so a stray quote spoils its own line and no other; in turn no field may
//! hold a line break, and none of ours needs one.

use jiff::Timestamp;
use model::text::TextError;

use super::{IMPORT_ROWS_MAX, SetAside};
use crate::{Comparator, ImportFormat, LabError};

const RAW_CHARS_MAX: usize = 2_000;
const FIELD_CHARS_MAX: usize = 4_000;
const INSTRUMENT_CHARS_MAX: usize = 100;
const COLUMNS: [&str; 8] = [
    "barcode",
    "code",
    "loinc",
    "value",
    "comparator",
    "unit",
    "instrument",
    "resultedAt",
];

/// A readable row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImportRow {
    pub(crate) line: i32,
    pub(crate) raw: String,
    pub(crate) barcode: String,
    pub(crate) code: Option<String>,
    pub(crate) loinc: Option<String>,
    pub(crate) value: String,
    pub(crate) comparator: Option<Comparator>,
    pub(crate) unit: Option<String>,
    pub(crate) instrument: Option<String>,
    pub(crate) resulted_at: Option<Timestamp>,
}

/// A file's rows, readable or not.
pub(crate) struct Parsed {
    pub(crate) rows: Vec<ImportRow>,
    pub(crate) set_aside: Vec<SetAside>,
}

/// One row's fields as text, whatever the file's format.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields {
    barcode: Option<String>,
    code: Option<String>,
    loinc: Option<String>,
    value: Option<String>,
    comparator: Option<String>,
    unit: Option<String>,
    instrument: Option<String>,
    resulted_at: Option<String>,
}

impl Fields {
    /// Every field in normal form, blank ones absent. A value may hold several lines and keeps what is inside it.
    fn normal(self) -> Result<Self, String> {
        let identifier = |name: &str, field: Option<String>, max: usize| {
            field
                .filter(|text| !text.is_empty())
                .map(|text| model::text::identifier(&text, max))
                .transpose()
                .or_else(|error| match error {
                    TextError::Empty => Ok(None),
                    error => Err(format!("{name} {error}")),
                })
        };
        let value = self.value.as_deref().map(trimmed).filter(|text| !text.is_empty());
        if value.is_some_and(|value| value.chars().count() > FIELD_CHARS_MAX) {
            return Err(format!("value has more than {FIELD_CHARS_MAX} characters"));
        }
        Ok(Self {
            barcode: identifier("barcode", self.barcode, FIELD_CHARS_MAX)?,
            code: identifier("code", self.code, FIELD_CHARS_MAX)?,
            loinc: identifier("loinc", self.loinc, FIELD_CHARS_MAX)?,
            value: value.map(str::to_owned),
            comparator: identifier("comparator", self.comparator, FIELD_CHARS_MAX)?,
            unit: identifier("unit", self.unit, FIELD_CHARS_MAX)?,
            instrument: identifier("instrument", self.instrument, INSTRUMENT_CHARS_MAX)?,
            resulted_at: identifier("resultedAt", self.resulted_at, FIELD_CHARS_MAX)?,
        })
    }
}

/// Without the blanks and invisible characters that copying leaves at the ends.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\u{200b}' | '\u{2060}' | '\u{feff}'))
}

pub(crate) fn parse(format: ImportFormat, file: &[u8]) -> Result<Parsed, LabError> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file); // a byte order mark
    let mut lines = file
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .zip(1i32..)
        .filter(|(line, _)| !line.trim_ascii().is_empty());
    let header = match format {
        ImportFormat::Ndjson => Vec::new(),
        ImportFormat::Csv => {
            let (line, _) = lines.next().ok_or_else(no_rows)?;
            header(line)?
        }
    };
    let mut parsed = Parsed {
        rows: Vec::new(),
        set_aside: Vec::new(),
    };
    for (bytes, line) in lines {
        if parsed.rows.len() + parsed.set_aside.len() == IMPORT_ROWS_MAX {
            return Err(LabError::invalid(
                "file",
                format!("it has more than {IMPORT_ROWS_MAX} rows; split it"),
            ));
        }
        // What PostgreSQL cannot hold is shown as the replacement character.
        let raw: String = String::from_utf8_lossy(bytes)
            .chars()
            .take(RAW_CHARS_MAX)
            .map(|c| if c == '\0' { '\u{fffd}' } else { c })
            .collect();
        match row(format, &header, bytes, line, &raw) {
            Ok(row) => parsed.rows.push(row),
            Err((code, reason)) => parsed.set_aside.push(SetAside {
                line,
                raw,
                code,
                reason,
            }),
        }
    }
    if parsed.rows.is_empty() && parsed.set_aside.is_empty() {
        return Err(no_rows());
    }
    Ok(parsed)
}

fn no_rows() -> LabError {
    LabError::invalid("file", "it has no rows")
}

fn header(line: &[u8]) -> Result<Vec<&'static str>, LabError> {
    let bad = |message: String| LabError::invalid("file", message);
    let text = std::str::from_utf8(line).map_err(|_| bad("the header is not UTF-8".to_owned()))?;
    let names = split(text).ok_or_else(|| bad("the header has a stray quote".to_owned()))?;
    let mut header = Vec::with_capacity(names.len());
    for name in &names {
        let shown: String = name.chars().take(32).collect();
        let known = COLUMNS
            .iter()
            .find(|column| **column == name.trim())
            .ok_or_else(|| {
                bad(format!(
                    "the header names {shown:?}; known columns are {}",
                    COLUMNS.join(", ")
                ))
            })?;
        if header.contains(known) {
            return Err(bad(format!("the header names {known} twice")));
        }
        header.push(*known);
    }
    let complete = header.contains(&"barcode")
        && header.contains(&"value")
        && (header.contains(&"code") || header.contains(&"loinc"));
    if !complete {
        return Err(bad(
            "the header needs barcode, value, and code or loinc".to_owned()
        ));
    }
    Ok(header)
}

type Reject = (&'static str, String);

fn row(
    format: ImportFormat,
    header: &[&str],
    bytes: &[u8],
    line: i32,
    raw: &str,
) -> Result<ImportRow, Reject> {
    let bad_row = |reason: String| ("bad_row", reason);
    let text = std::str::from_utf8(bytes).map_err(|_| bad_row("the line is not UTF-8".to_owned()))?;
    if text.contains('\0') {
        return Err(bad_row("the line holds a NUL character".to_owned()));
    }
    let fields = match format {
        ImportFormat::Ndjson => serde_json::from_str::<Fields>(text)
            .map_err(|error| bad_row(format!("not a row in JSON: {error}")))?,
        ImportFormat::Csv => csv_fields(header, text).map_err(bad_row)?,
    };
    let fields = fields.normal().map_err(|reason| ("bad_value", reason))?;
    let missing = |name: &str| bad_row(format!("{name} is missing"));
    if fields.code.is_none() && fields.loinc.is_none() {
        return Err(missing("code or loinc"));
    }
    let comparator = fields
        .comparator
        .map(|word| word.parse::<Comparator>())
        .transpose()
        .map_err(|error| ("bad_value", error.to_string()))?;
    let resulted_at = fields
        .resulted_at
        .map(|text| text.parse::<Timestamp>())
        .transpose()
        .map_err(|_| {
            (
                "bad_value",
                "resultedAt is no time with a zone, such as 2026-01-31T08:00:00Z".to_owned(),
            )
        })?;
    Ok(ImportRow {
        line,
        raw: raw.to_owned(),
        barcode: fields.barcode.ok_or_else(|| missing("barcode"))?,
        code: fields.code,
        loinc: fields.loinc,
        value: fields.value.ok_or_else(|| missing("value"))?,
        comparator,
        unit: fields.unit,
        instrument: fields.instrument,
        resulted_at,
    })
}

fn csv_fields(header: &[&str], text: &str) -> Result<Fields, String> {
    let values =
        split(text).ok_or("a quote is not closed, or stands inside a field that does not begin with one")?;
    if values.len() != header.len() {
        return Err(format!(
            "it has {} fields, the header has {}",
            values.len(),
            header.len()
        ));
    }
    let mut fields = Fields::default();
    for (name, value) in header.iter().zip(values) {
        let field = match *name {
            "barcode" => &mut fields.barcode,
            "code" => &mut fields.code,
            "loinc" => &mut fields.loinc,
            "value" => &mut fields.value,
            "comparator" => &mut fields.comparator,
            "unit" => &mut fields.unit,
            "instrument" => &mut fields.instrument,
            _ => &mut fields.resulted_at,
        };
        *field = Some(value);
    }
    Ok(fields)
}

/// The fields of one line of CSV (RFC 4180, without line breaks in fields); `None` when its quotes do not match up.
fn split(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::with_capacity(COLUMNS.len());
    let mut rest = line;
    loop {
        let after = if let Some(quoted) = rest.strip_prefix('"') {
            let (field, after) = unquote(quoted)?;
            fields.push(field);
            after
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let (field, after) = rest.split_at(end);
            if field.contains('"') {
                return None;
            }
            fields.push(field.to_owned());
            after
        };
        if after.is_empty() {
            return Some(fields);
        }
        rest = after.strip_prefix(',')?;
    }
}

/// The field up to its closing quote, and what follows that quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Some((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn csv_lines(text: &str) -> Parsed {
        parse(ImportFormat::Csv, text.as_bytes()).unwrap()
    }

    proptest! {
        /// What a standard CSV writer writes, we read back.
        #[test]
        fn a_written_line_reads_back(values in proptest::collection::vec("[^\r\n\0]{0,12}", 1..6)) {
            let mut writer = csv::WriterBuilder::new().quote_style(csv::QuoteStyle::Necessary).from_writer(Vec::new());
            writer.write_record(&values).unwrap();
            let line = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            prop_assert_eq!(split(line.trim_end_matches('\n')), Some(values));
        }

        #[test]
        fn no_line_panics_and_none_is_lost(lines in proptest::collection::vec("[ -~é\u{1f600}\"]{1,40}", 1..20)) {
            let text = format!("barcode,code,value\n{}", lines.join("\n"));
            let expected = lines.iter().filter(|line| !line.trim_ascii().is_empty()).count();
            if let Ok(parsed) = parse(ImportFormat::Csv, text.as_bytes()) {
                prop_assert_eq!(parsed.rows.len() + parsed.set_aside.len(), expected);
            } else {
                prop_assert_eq!(expected, 0);
            }
            let _ = parse(ImportFormat::Ndjson, lines.join("\n").as_bytes());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(ImportFormat::Csv, &bytes);
            let _ = parse(ImportFormat::Ndjson, &bytes);
        }
    }

    #[test]
    fn a_stray_quote_spoils_only_its_own_line() {
        let parsed = csv_lines(
            "\u{feff}barcode,code,value,unit\r\nA-1,\"K,4.0,mmol/L\r\n\r\nA-2,K,\"4.0\",mmol/L\r\nA-3,K\r\n",
        );
        assert_eq!(parsed.rows.len(), 1);
        assert_eq!((parsed.rows[0].line, parsed.rows[0].value.as_str()), (4, "4.0"));
        let lines: Vec<(i32, &str)> = parsed.set_aside.iter().map(|row| (row.line, row.code)).collect();
        assert_eq!(lines, [(2, "bad_row"), (5, "bad_row")]);
        assert!(parsed.set_aside[1].raw.contains("A-3,K"));
    }

    #[test]
    fn a_file_without_the_needed_columns_is_refused_whole() {
        for header in [
            "barcode,value",
            "code,value",
            "barcode,code",
            "barcode,code,value,colour",
            "barcode,code,value,code",
            "\"barcode,code,value",
        ] {
            assert!(
                parse(ImportFormat::Csv, format!("{header}\nx,y,z\n").as_bytes()).is_err(),
                "{header}"
            );
        }
        for empty in ["", "\n\n", "barcode,code,value\n"] {
            assert!(parse(ImportFormat::Csv, empty.as_bytes()).is_err());
        }
    }

    #[test]
    fn a_json_number_is_set_aside_since_its_digits_are_lost() {
        let text = "{\"barcode\":\"A-1\",\"code\":\"K\",\"value\":5.0}\n{\"barcode\":\"A-1\",\"code\":\"K\",\"value\":\"5.0\"}\n{\"x\":1}\nnonsense\n";
        let parsed = parse(ImportFormat::Ndjson, text.as_bytes()).unwrap();
        assert_eq!((parsed.rows.len(), parsed.set_aside.len()), (1, 3));
        assert_eq!(parsed.rows[0].value, "5.0");
    }

    #[test]
    fn what_cannot_be_stored_is_set_aside_and_shown() {
        let mut bytes = b"barcode,code,value\nA\0,K,1\n".to_vec();
        bytes.extend_from_slice(b"\xff\xfe,K,1\nA,K,1,\nA,K,\nA,,1\n,K,1\n");
        let parsed = parse(ImportFormat::Csv, &bytes).unwrap();
        assert_eq!((parsed.rows.len(), parsed.set_aside.len()), (0, 6));
        assert!(
            parsed
                .set_aside
                .iter()
                .all(|row| row.code == "bad_row" && !row.raw.contains('\0'))
        );
    }
}
