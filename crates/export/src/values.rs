//! How the values of one column are written, and what the description calls that.
//!
//! A column gets a type of the Data Package standard where every value that it holds has a form in that type.
//! A value without one (a date before year 1, `infinity`, an array whose first index is not 1) makes its
//! whole column PostgreSQL's own text, described as a string: a description that is wrong for one row is
//! wrong.

use model::quote_ident;
use tokio_postgres::Transaction;

use crate::{
    ExportError,
    tables::{Column, Element},
};

/// Finite arrays whose dimensions all begin at 1, which is what JSON can say. An empty array has no
/// dimensions.
const JSON_DIMENSIONS: &str = r"'^(\[1:[0-9]+\])+$'";

/// What an absent value is written as, unless the table holds that very text. COPY quotes a text that equals
/// it, but most readers do not tell a quoted field from an unquoted one.
const ABSENT: &str = r"\N";

/// One way to write a column's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoding {
    /// The field's `type` in the Data Package standard.
    pub(crate) kind: &'static str,
    /// The field's `format` there.
    pub(crate) format: Option<&'static str>,
    /// For people: how to read a value that the standard's type alone does not explain.
    pub(crate) explanation: Option<&'static str>,
    /// The value as an SQL expression over the row `t`.
    pub(crate) sql: String,
    /// True of every value that this encoding can write. None: it can write all.
    fits: Option<String>,
    /// The value as text where it may be any text; what an absent value is written as must be none of them.
    free_text: Option<String>,
}

impl Encoding {
    /// The best encoding for a column's type, which must be given up where a value does not fit.
    pub(crate) fn preferred(column: &Column) -> Self {
        let name = reference(column);
        let plain = |kind| Self::new(kind, None, name.clone());
        if let Some(element) = &column.element {
            return match array(element, &name) {
                Some(encoding) => encoding,
                None => Self::postgresql(column),
            };
        }
        if !column.built_in {
            return Self::postgresql(column);
        }
        match column.base.as_str() {
            "int2" | "int4" | "int8" => plain("integer"),
            "numeric" | "float4" | "float8" => Self::new("number", None, number(&name)),
            "bool" => {
                let sql = format!("CASE {name} WHEN true THEN 'true' WHEN false THEN 'false' END");
                Self::new("boolean", None, sql)
            }
            "date" => plain("date").fitting(format!("{name} BETWEEN '0001-01-01' AND '9999-12-31'")),
            "timestamptz" => Self::new("datetime", None, moment(&name, " AT TIME ZONE 'UTC'", "\"Z\""))
                .fitting(within_years(&name, "+00")),
            "timestamp" => {
                Self::new("datetime", None, moment(&name, "", "")).fitting(within_years(&name, ""))
            }
            "time" => plain("time").fitting(format!("{name} < '24:00:00'")),
            // XML Schema's durations, which the standard means, have no signs inside and no infinity.
            "interval" => plain("duration").fitting(format!("{name}::text ~ '^P[^-]*$'")),
            "uuid" => Self::new("string", Some("uuid"), name),
            "json" | "jsonb" => plain("any").explained("JSON"),
            "bytea" => {
                let sql = format!("translate(encode({name}, 'base64'), E'\\n', '')");
                Self::new("string", Some("binary"), sql)
            }
            "text" | "varchar" => {
                let text = format!("{name}::text");
                Self {
                    free_text: Some(text),
                    ..plain("string")
                }
            }
            _ => Self::postgresql(column),
        }
    }

    /// The text that the type itself writes, which a cast to text does not always do.
    pub(crate) fn postgresql(column: &Column) -> Self {
        let name = reference(column);
        let text = Self {
            free_text: Some(format!("format('%s', {name})")),
            ..Self::new("string", None, name)
        };
        if column.base == "bpchar" && column.built_in {
            text
        } else {
            text.explained("text of PostgreSQL's type in postgresql:type, as PostgreSQL writes and reads it")
        }
    }

    fn new(kind: &'static str, format: Option<&'static str>, sql: String) -> Self {
        Self {
            kind,
            format,
            explanation: None,
            sql,
            fits: None,
            free_text: None,
        }
    }

    fn fitting(self, fits: String) -> Self {
        Self {
            fits: Some(fits),
            ..self
        }
    }

    fn explained(self, explanation: &'static str) -> Self {
        Self {
            explanation: Some(explanation),
            ..self
        }
    }
}

fn reference(column: &Column) -> String {
    format!("t.{}", quote_ident(&column.name))
}

/// JSON where it says the same: `None` for elements of which it does not. A `null` of JSON inside an array of
/// JSON is one, and how a type that is not the server's own becomes JSON or text may be its owner's function.
fn array(element: &Element, name: &str) -> Option<Encoding> {
    if !element.built_in {
        return None;
    }
    let (value, explanation) = match element.type_name.as_str() {
        "json" | "jsonb" | "xml" => return None,
        // A reader of JSON takes numbers for doubles, and JSON has no NaN.
        "numeric" | "float4" | "float8" => (
            format!("{name}::text[]"),
            Some("JSON; numbers are strings, so that no digit is lost"),
        ),
        "int2" | "int4" | "int8" | "bool" => (name.to_owned(), None),
        _ => (
            name.to_owned(),
            Some("JSON; each element is text of PostgreSQL's type"),
        ),
    };
    let encoding = Encoding::new("array", None, format!("array_to_json({value})"))
        .fitting(format!("coalesce(array_dims({name}) ~ {JSON_DIMENSIONS}, true)"));
    Some(Encoding {
        explanation,
        ..encoding
    })
}

/// The standard writes infinite numbers so.
fn number(name: &str) -> String {
    format!("CASE {name} WHEN 'Infinity' THEN 'INF' WHEN '-Infinity' THEN '-INF' ELSE {name}::text END")
}

/// RFC 3339, as the standard's date-times are.
fn moment(name: &str, zone: &str, suffix: &str) -> String {
    format!("to_char({name}{zone}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US{suffix}')")
}

/// RFC 3339 has four digits for the year, no era and no infinity.
fn within_years(name: &str, zone: &str) -> String {
    format!("{name} >= '0001-01-01 00:00:00{zone}' AND {name} < '10000-01-01 00:00:00{zone}'")
}

/// What a table's values allow.
#[derive(Debug)]
pub(crate) struct Survey {
    /// Whether each encoding can write all values of its column, in the order that was asked.
    pub(crate) fits: Vec<bool>,
    /// What an absent value is written as: a text that no value of the table is written as.
    pub(crate) absent: String,
}

/// Reads the table once to see whether all its values fit their encodings. `table` is a quoted name.
///
/// # Errors
/// [`ExportError::Db`]; [`ExportError::NoMarker`].
pub(crate) async fn survey(
    txn: &Transaction<'_>,
    title: &str,
    table: &str,
    encodings: &[&Encoding],
) -> Result<Survey, ExportError> {
    let mut survey = Survey {
        fits: vec![true; encodings.len()],
        absent: ABSENT.to_owned(),
    };
    // The number behind `\N` where a value is that; `\N` by itself is number 0.
    let marks: Vec<String> = encodings
        .iter()
        .filter_map(|encoding| encoding.free_text.as_ref())
        .map(|text| {
            format!(
                "CASE WHEN starts_with({text}, '\\N') AND {text} ~ '^\\\\N([1-9][0-9]{{0,8}})?$'
                      THEN coalesce(nullif(substr({text}, 3), ''), '0')::int END"
            )
        })
        .collect();
    let checked: Vec<usize> = (0..encodings.len())
        .filter(|&at| encodings[at].fits.is_some())
        .collect();
    if marks.is_empty() && checked.is_empty() {
        return Ok(survey);
    }
    let greatest = match marks.as_slice() {
        [] => "NULL::int".to_owned(),
        marks => format!("max(greatest({}))", marks.join(", ")),
    };
    let fits: Vec<String> = checked
        .iter()
        .filter_map(|&at| encodings[at].fits.as_ref())
        .map(|fits| format!("coalesce(bool_and({fits}), true)"))
        .collect();
    let sql = format!(
        "SELECT {greatest}, ARRAY[{}]::bool[] FROM ONLY {table} AS t",
        fits.join(", ")
    );
    let row = txn.query_one(&sql, &[]).await.map_err(ExportError::db(format!(
        "looking at the values of the table {title}"
    )))?;
    for (at, fits) in checked.into_iter().zip(row.get::<_, Vec<bool>>(1)) {
        survey.fits[at] = fits;
    }
    if let Some(greatest) = row.get::<_, Option<i32>>(0) {
        // The longest number that is looked for; a longer one could be a value that was not seen.
        if greatest == 999_999_999 {
            return Err(ExportError::NoMarker {
                table: title.to_owned(),
            });
        }
        survey.absent = format!("{ABSENT}{}", greatest + 1);
    }
    Ok(survey)
}
