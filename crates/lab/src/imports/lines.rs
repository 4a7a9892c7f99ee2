//! From bytes to rows.
//!
//! A file is cut into records first: a line, or in CSV as many lines as a quoted field spans (RFC 4180). The
//! crate `csv` reads each record by itself. A quote that is never closed would swallow the rest of the file,
//! so it spoils its own line only: then the record ends at its line.

use std::cell::RefCell;

use jiff::Timestamp;
use model::{
    input::{self, Node},
    text::TextError,
    time::Moment,
};
use sha2::{Digest, Sha256};

use super::set_aside::{Fields, IMPORT_ROWS_MAX, SetAside};
use crate::{
    Comparator, ImportFormat, LabError,
    limits::{IMPORT_FIELD_MAX, INSTRUMENT_MAX},
    text::block,
};

const RAW_CHARS_MAX: usize = 2_000;
/// Most lines of one record.
const RECORD_LINES_MAX: usize = 100;
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
/// What instruments and other systems write where nothing was measured.
const NOT_DONE: [&str; 8] = ["NA", "N/A", "n/a", "na", "not done", "NOT DONE", "-", "--"];

/// A readable row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImportRow {
    /// The line of the file where it begins, from 1.
    pub(crate) line: i32,
    pub(crate) raw: String,
    pub(crate) barcode: String,
    pub(crate) code: Option<String>,
    pub(crate) loinc: Option<String>,
    /// Absent when the row says that nothing was measured.
    pub(crate) value: Option<String>,
    /// Or why it cannot be read.
    pub(crate) comparator: Result<Option<Comparator>, String>,
    pub(crate) unit: Option<String>,
    pub(crate) instrument: Option<String>,
    /// Or why it cannot be read.
    pub(crate) resulted_at: Result<Option<Timestamp>, String>,
    /// The fields as they are kept when the row is set aside, to be tried again.
    pub(crate) fields: Fields,
}

/// A file's rows, readable or not.
pub(crate) struct Parsed {
    pub(crate) rows: Vec<ImportRow>,
    pub(crate) set_aside: Vec<SetAside>,
}

impl Fields {
    /// Every field in normal form, blank ones absent. A value may hold several lines and keeps what is inside
    /// it.
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
        let value = self.value.as_deref().map(block).filter(|text| !text.is_empty());
        if value
            .as_ref()
            .is_some_and(|value| value.chars().count() > IMPORT_FIELD_MAX)
        {
            return Err(format!("value has more than {IMPORT_FIELD_MAX} characters"));
        }
        Ok(Self {
            barcode: identifier("barcode", self.barcode, IMPORT_FIELD_MAX)?,
            code: identifier("code", self.code, IMPORT_FIELD_MAX)?,
            loinc: identifier("loinc", self.loinc, IMPORT_FIELD_MAX)?,
            value,
            comparator: identifier("comparator", self.comparator, IMPORT_FIELD_MAX)?,
            unit: identifier("unit", self.unit, IMPORT_FIELD_MAX)?,
            instrument: identifier("instrument", self.instrument, INSTRUMENT_MAX)?,
            resulted_at: identifier("resultedAt", self.resulted_at, IMPORT_FIELD_MAX)?,
        })
    }
}

/// The SHA-256 of what a file says: its rows, whatever its line ends, quotes, blank lines and columns' order
/// are, and in which order they stand. A row that cannot be read says what is written.
pub(crate) fn content_sha256(parsed: &Parsed) -> Vec<u8> {
    let one_line_end = |text: &str| text.replace("\r\n", "\n");
    let readable = parsed.rows.iter().map(|row| {
        let mut fields = row.fields.clone();
        fields.value = fields.value.as_deref().map(one_line_end);
        serde_json::to_string(&fields).unwrap_or_default()
    });
    let others = parsed.set_aside.iter().map(|row| one_line_end(row.raw.trim()));
    let mut all: Vec<String> = readable.chain(others).collect();
    all.sort_unstable();
    let mut hash = Sha256::new();
    for row in all {
        hash.update(row.len().to_be_bytes());
        hash.update(row.as_bytes());
    }
    hash.finalize().to_vec()
}

/// Whether a value says that nothing was measured.
pub(crate) fn is_not_done(value: &str) -> bool {
    NOT_DONE.contains(&value)
}

pub(crate) fn parse(format: ImportFormat, file: &[u8]) -> Result<Parsed, LabError> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file); // a byte order mark
    let mut records = Records {
        rest: file,
        line: 1,
        quotes: format == ImportFormat::Csv,
    };
    let header = match format {
        ImportFormat::Ndjson => Vec::new(),
        ImportFormat::Csv => header(&records.next().ok_or_else(no_rows)?)?,
    };
    let mut parsed = Parsed {
        rows: Vec::new(),
        set_aside: Vec::new(),
    };
    while let Some(record) = records.next_of(header.len()) {
        if parsed.rows.len() + parsed.set_aside.len() == IMPORT_ROWS_MAX {
            return Err(LabError::invalid(
                "file",
                format!("it has more than {IMPORT_ROWS_MAX} rows; split it"),
            ));
        }
        // What PostgreSQL cannot hold is shown as the replacement character.
        let raw: String = String::from_utf8_lossy(record.bytes)
            .chars()
            .take(RAW_CHARS_MAX)
            .map(|c| if c == '\0' { '\u{fffd}' } else { c })
            .collect();
        match row(format, &header, &record, &raw) {
            Ok(row) => parsed.rows.push(row),
            Err((code, reason)) => parsed.set_aside.push(SetAside {
                line: record.line,
                raw,
                code: code.to_owned(),
                reason,
                fields: None,
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

/// One record of a file, without its line end.
struct Record<'a> {
    bytes: &'a [u8],
    line: i32,
    /// Whether its quotes match up.
    whole: bool,
}

/// The records of a file, blank lines left out.
struct Records<'a> {
    rest: &'a [u8],
    line: i32,
    /// Whether a quoted field may hold line breaks.
    quotes: bool,
}

impl<'a> Records<'a> {
    fn next(&mut self) -> Option<Record<'a>> {
        self.next_of(0)
    }

    /// The next record. One of several lines must have as many fields as the header (0: any number):
    /// otherwise its quote was stray, and it ends at its first line.
    fn next_of(&mut self, fields: usize) -> Option<Record<'a>> {
        while !self.rest.is_empty() {
            let first = end_of_line(self.rest);
            let (end, lines, whole) = match self.quotes.then(|| end_of_record(self.rest)).flatten() {
                Some((end, 1)) => (end, 1, true),
                Some((end, lines)) if split(without_line_end(&self.rest[..end]), fields).is_some() => {
                    (end, lines, true)
                }
                _ => (first, 1, !self.quotes),
            };
            let record = Record {
                bytes: without_line_end(&self.rest[..end]),
                line: self.line,
                whole,
            };
            self.rest = &self.rest[end..];
            self.line = self.line.saturating_add(lines);
            if !record.bytes.trim_ascii().is_empty() {
                return Some(record);
            }
        }
        None
    }
}

/// Where the next line begins.
fn end_of_line(text: &[u8]) -> usize {
    text.iter()
        .position(|byte| *byte == b'\n')
        .map_or(text.len(), |at| at + 1)
}

fn without_line_end(record: &[u8]) -> &[u8] {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    record.strip_suffix(b"\r").unwrap_or(record)
}

/// Where the next record begins and how many lines this one has; `None` when its quotes do not match up.
fn end_of_record(text: &[u8]) -> Option<(usize, i32)> {
    #[derive(Clone, Copy, PartialEq)]
    enum At {
        Start,
        Plain,
        Quoted,
        Closed,
    }
    let (mut at, mut lines) = (At::Start, 1);
    for (n, byte) in text.iter().enumerate() {
        at = match (at, byte) {
            (At::Quoted, b'"') => At::Closed,
            (At::Quoted, b'\n') => {
                lines += 1;
                if lines > RECORD_LINES_MAX {
                    return None;
                }
                At::Quoted
            }
            (At::Quoted, _) => At::Quoted,
            (_, b'\n') => return Some((n + 1, i32::try_from(lines).unwrap_or(i32::MAX))),
            (At::Start | At::Closed, b'"') => At::Quoted,
            (At::Plain, b'"') => return None,
            (_, b',') => At::Start,
            (At::Closed, b'\r') => At::Closed,
            (At::Closed, _) => return None,
            (At::Start | At::Plain, _) => At::Plain,
        };
    }
    (at != At::Quoted).then(|| (text.len(), i32::try_from(lines).unwrap_or(i32::MAX)))
}

/// The fields of one record of CSV; `None` when they are not as many as wanted (0: any number).
///
/// The reader's tables are built once: building them for each record took most of the time of a large file,
/// on a thread that other requests wait for. Records without a quote, as most are, do not need them.
fn split(record: &[u8], wanted: usize) -> Option<Vec<Vec<u8>>> {
    let fields = if record.iter().any(|byte| matches!(byte, b'"' | b'\r' | b'\n')) {
        split_quoted(record)?
    } else {
        record.split(|byte| *byte == b',').map(<[u8]>::to_vec).collect()
    };
    (wanted == 0 || fields.len() == wanted).then_some(fields)
}

fn split_quoted(record: &[u8]) -> Option<Vec<Vec<u8>>> {
    thread_local! {
        // A clone would have empty tables.
        static READER: RefCell<csv_core::Reader> = RefCell::new(csv_core::Reader::new());
    }
    READER.with_borrow_mut(|reader| {
        reader.reset();
        read_record(reader, record)
    })
}

fn read_record(reader: &mut csv_core::Reader, record: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut bytes = vec![0; record.len()];
    let mut ends = vec![0; record.iter().filter(|byte| **byte == b',').count() + 1];
    let (mut written, mut ended) = (0, 0);
    // The second time with nothing, which ends the record.
    for input in [record, &[]] {
        let (outcome, _, more, fields) = reader.read_record(input, &mut bytes[written..], &mut ends[ended..]);
        written += more;
        ended += fields;
        if outcome == csv_core::ReadRecordResult::Record {
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let fields = starts
                .zip(&ends[..ended])
                .map(|(from, to)| bytes[from..*to].to_vec());
            return Some(fields.collect());
        }
    }
    None
}

fn header(record: &Record<'_>) -> Result<Vec<&'static str>, LabError> {
    let bad = |message: String| LabError::invalid("file", message);
    if !record.whole {
        return Err(bad("the header has a stray quote".to_owned()));
    }
    let names = split(record.bytes, 0).ok_or_else(|| bad("the header cannot be read".to_owned()))?;
    let mut header = Vec::with_capacity(names.len());
    for name in &names {
        let name = std::str::from_utf8(name).map_err(|_| bad("the header is not UTF-8".to_owned()))?;
        let shown: String = name.chars().take(32).collect();
        let known = COLUMNS
            .iter()
            .find(|column| **column == block(name))
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

fn row(format: ImportFormat, header: &[&str], record: &Record<'_>, raw: &str) -> Result<ImportRow, Reject> {
    let bad_row = |reason: String| ("bad_row", reason);
    let text = std::str::from_utf8(record.bytes).map_err(|_| bad_row("the line is not UTF-8".to_owned()))?;
    if text.contains('\0') {
        return Err(bad_row("the line holds a NUL character".to_owned()));
    }
    let fields = match format {
        ImportFormat::Ndjson => ndjson_fields(text).map_err(bad_row)?,
        ImportFormat::Csv => csv_fields(header, record).map_err(bad_row)?,
    };
    let fields = fields.normal().map_err(|reason| ("bad_value", reason))?;
    read(record.line, raw.to_owned(), fields)
}

/// A row from its fields, which are in normal form. One that says of which result it speaks is a row,
/// whatever else of it cannot be read.
pub(crate) fn read(line: i32, raw: String, fields: Fields) -> Result<ImportRow, Reject> {
    let missing = |name: &str| ("bad_row", format!("{name} is missing"));
    if fields.code.is_none() && fields.loinc.is_none() {
        return Err(missing("code or loinc"));
    }
    let comparator = fields
        .comparator
        .as_ref()
        .map(|word| word.parse::<Comparator>())
        .transpose()
        .map_err(|error| format!("comparator: {error}"));
    let resulted_at = fields
        .resulted_at
        .as_ref()
        .map(|text| Moment::parse(text).map(Timestamp::from))
        .transpose()
        .map_err(|error| format!("resultedAt: {error}"));
    Ok(ImportRow {
        line,
        raw,
        barcode: fields.barcode.clone().ok_or_else(|| missing("barcode"))?,
        code: fields.code.clone(),
        loinc: fields.loinc.clone(),
        value: fields.value.clone(),
        comparator,
        unit: fields.unit.clone(),
        instrument: fields.instrument.clone(),
        resulted_at,
        fields,
    })
}

fn ndjson_fields(text: &str) -> Result<Fields, String> {
    let document: Node = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    input::read(document).map_err(|refusal| format!("it is not such a row: {refusal}"))
}

fn csv_fields(header: &[&str], record: &Record<'_>) -> Result<Fields, String> {
    if !record.whole {
        return Err(
            "a quote is not closed, or stands inside a field that does not begin with one".to_owned(),
        );
    }
    let values = split(record.bytes, 0).unwrap_or_default();
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
        // The record is UTF-8, and fields are cut at ASCII characters.
        *field = Some(String::from_utf8_lossy(&value).into_owned());
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_by_csv(record: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(record);
        let fields = reader.byte_records().next()?.ok()?;
        Some(fields.iter().map(<[u8]>::to_vec).collect())
    }

    fn csv_lines(text: &str) -> Parsed {
        parse(ImportFormat::Csv, text.as_bytes()).unwrap()
    }

    proptest! {
        /// What a standard CSV writer writes is cut and read back, with line breaks inside its fields.
        #[test]
        fn a_written_file_reads_back(values in proptest::collection::vec("[a-z\"\r\n,é]{0,12}", 1..20)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["barcode", "code", "value"]).unwrap();
            for value in &values {
                writer.write_record(["B", "C", value]).unwrap();
            }
            let parsed = parse(ImportFormat::Csv, &writer.into_inner().unwrap()).unwrap();
            prop_assert!(parsed.set_aside.is_empty());
            let read: Vec<String> = parsed.rows.into_iter().map(|row| row.value.unwrap_or_default()).collect();
            let wanted: Vec<String> = values.iter().map(|value| block(value)).collect();
            prop_assert_eq!(read, wanted);
        }

        #[test]
        fn records_without_quotes_are_split_as_a_reader_of_csv_does(record in "[a-z, \t;é']{1,60}") {
            prop_assert_eq!(split(record.as_bytes(), 0), read_by_csv(record.as_bytes()));
        }

        #[test]
        fn records_with_quotes_are_split_as_a_reader_of_csv_does(record in "[a-z,;é' \"\r\n]{1,60}") {
            prop_assert_eq!(split_quoted(record.as_bytes()), read_by_csv(record.as_bytes()));
        }

        #[test]
        fn no_line_panics_and_none_is_lost(lines in proptest::collection::vec("[ -!#-~é\u{1f600}]{1,40}", 1..20)) {
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
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), quotes in "[\",\r\nab]{0,60}") {
            let _ = parse(ImportFormat::Csv, &bytes);
            let _ = parse(ImportFormat::Ndjson, &bytes);
            let _ = parse(ImportFormat::Csv, format!("barcode,code,value\n{quotes}").as_bytes());
        }
    }

    #[test]
    fn a_stray_quote_spoils_only_its_own_line() {
        let parsed = csv_lines(
            "\u{feff}barcode,code,value,unit\r\nA-1,\"K,4.0,mmol/L\r\n\r\nA-2,K,\"4.0\",mmol/L\r\nA-3,K\r\n",
        );
        assert_eq!(parsed.rows.len(), 1);
        assert_eq!(
            (parsed.rows[0].line, parsed.rows[0].value.as_deref()),
            (4, Some("4.0"))
        );
        let lines: Vec<(i32, &str)> = parsed
            .set_aside
            .iter()
            .map(|row| (row.line, row.code.as_str()))
            .collect();
        assert_eq!(lines, [(2, "bad_row"), (5, "bad_row")]);
        assert!(parsed.set_aside[1].raw.contains("A-3,K"));
        // Two stray quotes that would make one field of all between them.
        let parsed = csv_lines("barcode,code,value\nA-1,K,\"4.0\nA-2,K,4.1\nA-3,K,4.2\"\nA-4,K,4.3\n");
        let lines: Vec<i32> = parsed.rows.iter().map(|row| row.line).collect();
        assert_eq!(
            lines,
            [2, 5],
            "one value of three lines, as it is written: {lines:?}"
        );
    }

    #[test]
    fn a_quoted_line_break_is_part_of_its_field_and_counts_as_a_line() {
        let parsed = csv_lines("barcode,code,value\nA-1,K,\"one\r\ntwo \"\"and\"\"\n\"\nA-2,K,3\n");
        let rows: Vec<(i32, Option<&str>)> = parsed
            .rows
            .iter()
            .map(|row| (row.line, row.value.as_deref()))
            .collect();
        assert_eq!(rows, [(2, Some("one\r\ntwo \"and\"")), (5, Some("3"))]);
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
        assert_eq!(parsed.rows[0].value.as_deref(), Some("5.0"));
    }

    #[test]
    fn what_cannot_be_stored_is_set_aside_and_shown() {
        let mut bytes = b"barcode,code,value\nA\0,K,1\n".to_vec();
        bytes.extend_from_slice(b"\xff\xfe,K,1\nA,K,1,\nA,,1\n,K,1\n");
        let parsed = parse(ImportFormat::Csv, &bytes).unwrap();
        assert_eq!((parsed.rows.len(), parsed.set_aside.len()), (0, 5));
        assert!(
            parsed
                .set_aside
                .iter()
                .all(|row| row.code == "bad_row" && !row.raw.contains('\0'))
        );
    }
}
