//! What a text may be. Names and comments are kept exactly as typed: quotes, SQL, any script, combining characters. Only
//! what PostgreSQL cannot store (NUL), what breaks a one-line field (control characters) and what is too long is refused.

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

use crate::{FieldProblem, LabError};

/// Most characters of a name or another single line.
pub(crate) const LINE_MAX: usize = 200;
/// Most characters of a reason.
pub(crate) const REASON_MAX: usize = 500;
/// Most characters of a comment or note.
pub(crate) const NOTE_MAX: usize = 4_000;

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

    /// A single line that must hold something.
    pub(crate) fn line(&mut self, field: &str, text: &str, max: usize) {
        if text.trim().is_empty() {
            self.add(field, "it must not be empty");
        } else if let Some(c) = text.chars().find(|c| c.is_control()) {
            self.add(
                field,
                format!(
                    "it holds the control character U+{:04X}; take it out",
                    u32::from(c)
                ),
            );
        }
        self.length(field, text, max);
    }

    /// A single line that may be absent.
    pub(crate) fn optional_line(&mut self, field: &str, text: Option<&str>, max: usize) {
        if let Some(text) = text {
            self.line(field, text, max);
        }
    }

    /// Several lines, possibly none.
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
        self.length(field, text, NOTE_MAX);
    }

    fn length(&mut self, field: &str, text: &str, max: usize) {
        let length = text.chars().count();
        if length > max {
            self.add(
                field,
                format!("it has {length} characters; at most {max} are kept"),
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
pub(crate) fn reason(text: &str) -> Result<(), LabError> {
    let mut problems = Problems::default();
    problems.line("reason", text, REASON_MAX);
    problems.done()
}

/// The form in which names are searched: accents and case do not matter, and neither does how a letter was composed.
pub(crate) fn search_key(text: &str) -> String {
    let folded: String = text
        .nfkd()
        .filter(|c| !is_combining_mark(*c))
        .flat_map(char::to_lowercase)
        .collect();
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
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
            "Zoe\u{0308}",
            "محمد",
            "李",
            "👩‍⚕️",
            "%_\\",
        ] {
            let mut problems = Problems::default();
            problems.line("familyName", name, LINE_MAX);
            assert!(problems.done().is_ok(), "{name}");
        }
        for (name, word) in [
            ("", "empty"),
            (" \u{a0}", "empty"),
            ("a\0b", "U+0000"),
            ("a\nb", "U+000A"),
        ] {
            let mut problems = Problems::default();
            problems.line("familyName", name, LINE_MAX);
            assert!(
                problems.done().unwrap_err().to_string().contains(word),
                "{name:?}"
            );
        }
        let mut problems = Problems::default();
        problems.line("familyName", &"é".repeat(LINE_MAX), LINE_MAX);
        problems.note("comment", Some("two\nlines"));
        assert!(problems.0.is_empty());
        problems.line("familyName", &"é".repeat(LINE_MAX + 1), LINE_MAX);
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
