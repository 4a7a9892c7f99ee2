//! What a text may be, and the one form in which it is kept.
//!
//! Identifiers, names, units and every other single line are kept in the normal form of [`model::text`], so
//! that two that look the same are the same: [`Problems::line`] and [`Problems::identifier`] hand that form
//! out as a [`Line`], and what was typed is stored nowhere. Comments and notes are kept as typed. The
//! database refuses any other form of the columns that are compared (`is_normal_line`), whoever writes them.

use std::{error::Error, fmt, ops::Deref};

use bytes::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

use crate::{FieldProblem, LabError, units};

/// Most characters of a name or another single line.
pub(crate) const LINE_MAX: usize = model::text::LINE_CHARS_MAX;
/// Most characters of a reason.
pub(crate) const REASON_MAX: usize = model::Reason::CHARS_MAX;
/// Most characters of a comment or note.
pub(crate) const NOTE_MAX: usize = model::text::NOTE_CHARS_MAX;

/// A single line in normal form. It is what a statement is given, instead of the text as it came in.
#[must_use = "the normal form is what is stored and compared"]
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub(crate) struct Line(String);

impl Line {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Line {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Line {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl ToSql for Line {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.0.to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        <String as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

/// Gathers everything that is wrong with a request, so that a person mends it in one go.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<FieldProblem>);

impl Problems {
    pub(crate) fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldProblem {
            field: field.into(),
            message: message.into(),
        });
    }

    /// A line for people that must hold something, such as a name or a reason. What comes back for a text
    /// that is refused is for nothing but going on to the next field.
    pub(crate) fn line(&mut self, field: &str, text: &str, max: usize) -> Line {
        let form = model::text::line(text, max);
        self.normal(field, form)
    }

    /// A line for people that may be absent.
    pub(crate) fn optional_line(&mut self, field: &str, text: Option<&str>, max: usize) -> Option<Line> {
        text.map(|text| self.line(field, text, max))
    }

    /// An identifier, code or unit: it holds no character that cannot be seen.
    pub(crate) fn identifier(&mut self, field: &str, text: &str, max: usize) -> Line {
        let form = model::text::identifier(text, max);
        self.normal(field, form)
    }

    /// An identifier that may be absent.
    pub(crate) fn optional_identifier(
        &mut self,
        field: &str,
        text: Option<&str>,
        max: usize,
    ) -> Option<Line> {
        text.map(|text| self.identifier(field, text, max))
    }

    /// A unit of UCUM that may be absent.
    pub(crate) fn unit(&mut self, field: &str, unit: Option<&str>) -> Option<Line> {
        let unit = self.optional_identifier(field, unit, units::UNIT_MAX)?;
        if !unit.is_empty()
            && let Err(message) = units::check(&unit)
        {
            self.add(field, message);
        }
        Some(unit)
    }

    fn normal(&mut self, field: &str, form: Result<String, model::text::TextError>) -> Line {
        Line(form.unwrap_or_else(|error| {
            self.add(field, format!("it {error}"));
            String::new()
        }))
    }

    /// Several lines, possibly none, kept as typed.
    pub(crate) fn note(&mut self, field: &str, text: Option<&str>) {
        let Some(text) = text else { return };
        if let Some(c) = text
            .chars()
            .find(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
        {
            self.add(
                field,
                format!(
                    "it holds the control character U+{:04X}; take it out",
                    u32::from(c)
                ),
            );
        }
        let length = text.chars().count();
        if length > NOTE_MAX {
            self.add(
                field,
                format!("it has {length} characters; at most {NOTE_MAX} are kept"),
            );
        }
    }

    /// All well, or everything that is not.
    pub(crate) fn done(self) -> Result<(), LabError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(LabError::Invalid(self.0))
        }
    }
}

/// A required reason.
pub(crate) fn reason(text: &str) -> Result<Line, LabError> {
    let mut problems = Problems::default();
    let reason = problems.line("reason", text, REASON_MAX);
    problems.done()?;
    Ok(reason)
}

/// The form in which names are searched: accents and case do not matter, and neither does how a letter was
/// composed.
pub(crate) fn search_key(text: &str) -> String {
    let folded: String = text
        .nfkd()
        .filter(|c| !is_combining_mark(*c))
        .flat_map(char::to_lowercase)
        .collect();
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A value as it is kept: NFC, without the blanks and invisible characters that copying leaves at its ends.
/// What is inside it stays, line breaks too. Values that are typed and those from files go through here.
pub(crate) fn block(text: &str) -> String {
    model::text::nfc(text)
        .trim_matches(|c: char| c.is_whitespace() || matches!(c, '\u{200b}' | '\u{2060}' | '\u{feff}'))
        .to_owned()
}

/// Text as the prefix of a LIKE pattern.
pub(crate) fn like_prefix(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_kind_pass_and_what_cannot_be_kept_is_named() {
        for name in [
            "O'Brien; DROP TABLE patient;--",
            "\"Ann\"",
            "Nguyễn",
            "محمد",
            "李",
            "%_\\",
        ] {
            let mut problems = Problems::default();
            assert_eq!(problems.line("familyName", name, LINE_MAX).as_str(), name);
            assert!(problems.done().is_ok(), "{name}");
        }
        for (name, word) in [
            ("", "empty"),
            (" \u{a0}", "empty"),
            ("a\0b", "U+0000"),
            ("a\nb", "U+000A"),
            ("a\u{200b}b", "U+200B"),
        ] {
            let mut problems = Problems::default();
            let _ = problems.line("familyName", name, LINE_MAX);
            assert!(
                problems.done().unwrap_err().to_string().contains(word),
                "{name:?}"
            );
        }
        let mut problems = Problems::default();
        let decomposed = problems.line("familyName", &"e\u{301}".repeat(LINE_MAX), LINE_MAX);
        assert_eq!(decomposed.as_str(), "é".repeat(LINE_MAX));
        problems.note("comment", Some("two\nlines"));
        assert!(problems.0.is_empty());
        let _ = problems.line("familyName", &"é".repeat(LINE_MAX + 1), LINE_MAX);
        problems.note("comment", Some("a\0"));
        assert_eq!(problems.0.len(), 2);
    }

    #[test]
    fn search_finds_a_name_however_it_is_composed() {
        assert_eq!(search_key("  JOSÉ   Álvarez "), "jose alvarez");
        assert_eq!(search_key("Jose\u{0301}"), search_key("José"));
        assert_eq!(like_prefix("50%_\\"), "50\\%\\_\\\\%");
    }
}
