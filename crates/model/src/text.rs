//! One normal form for every short text that is compared, searched or shown: identifiers, names, units,
//! addresses.
//!
//! Invariant: two texts that a person cannot tell apart because they differ in composition, in the kind of
//! white space or in invisible characters have the same normal form, or are refused. The form is NFC (UAX
//! #15), has no white space at its ends and single U+0020 between its words, and holds no control, format,
//! separator or noncharacter code point.
//!
//! Letters of different scripts that look alike stay different here: names may mix scripts. [`scripts_mixed`]
//! finds them.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, is_nfc};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};
use unicode_script::{Script, UnicodeScript as _};
use unicode_security::MixedScript as _;

/// Most characters of a name or another single line.
pub const LINE_CHARS_MAX: usize = 200;
/// Most characters of a comment or a note.
pub const NOTE_CHARS_MAX: usize = 4_000;

/// Why a text has no normal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Nothing remains after trimming.
    #[error("must not be empty")]
    Empty,
    /// It is longer than it may be.
    #[error("has {have} characters; the limit is {max}")]
    TooLong {
        /// Its length in characters, in normal form.
        have: usize,
        /// The limit.
        max: usize,
    },
    /// It contains a character that has no visible form of its own.
    #[error("contains the {what} U+{:04X}; remove it", u32::from(*.character))]
    Character {
        /// The character.
        character: char,
        /// What kind of character it is.
        what: &'static str,
    },
}

/// The normal form of a line of text for people, such as a name or a reason. `chars_max` is its limit in
/// characters.
///
/// Zero-width joiner and non-joiner are kept between two letters of a script whose spelling needs them
/// (Persian, Sinhala), and variation selectors after a Han character (Japanese names). Everywhere else they
/// are refused as invisible.
///
/// # Errors
/// [`TextError`].
pub fn line(text: &str, chars_max: usize) -> Result<String, TextError> {
    normal(text, chars_max, spelled)
}

/// The normal form of an identifier or a code, which holds no invisible character at all. `chars_max` is its
/// limit in characters.
///
/// # Errors
/// [`TextError`].
pub fn identifier(text: &str, chars_max: usize) -> Result<String, TextError> {
    normal(text, chars_max, |_, _, _| false)
}

/// A text in NFC and otherwise as it is, for what is compared as a whole and may hold anything, such as a
/// password.
#[must_use]
pub fn nfc(text: &str) -> Cow<'_, str> {
    if is_nfc(text) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.nfc().collect())
    }
}

/// Whether a text mixes writing systems in a way that no language does (UTS #39, 5.1): "pаypal" with a
/// Cyrillic "а". Digits and punctuation belong to every script, and Japanese and Korean count as one each.
#[must_use]
pub fn scripts_mixed(text: &str) -> bool {
    !text.is_single_script()
}

/// `spells` decides about an invisible character between its neighbours.
fn normal(
    text: &str,
    chars_max: usize,
    spells: fn(Option<char>, char, Option<char>) -> bool,
) -> Result<String, TextError> {
    let composed = nfc(text);
    let trimmed = composed.trim_matches(|c: char| c.is_whitespace() || invisible_space(c));
    if trimmed.is_empty() {
        return Err(TextError::Empty);
    }
    let mut normal = String::with_capacity(trimmed.len());
    let mut have = 0;
    let mut before = None;
    let mut characters = trimmed.chars().peekable();
    while let Some(c) = characters.next() {
        let next = characters.peek().copied();
        if let Some(what) = unseen(c)
            && !spells(before, c, next)
        {
            return Err(TextError::Character { character: c, what });
        }
        if c.is_whitespace() && before.is_some_and(char::is_whitespace) {
            continue;
        }
        normal.push(if c.is_whitespace() { ' ' } else { c });
        have += 1;
        before = Some(c);
    }
    if have > chars_max {
        return Err(TextError::TooLong { have, max: chars_max });
    }
    Ok(normal)
}

/// What copying from a page or a spreadsheet leaves at the ends of a text.
fn invisible_space(c: char) -> bool {
    matches!(c, '\u{200B}' | '\u{2060}' | '\u{FEFF}')
}

/// What kind of character it is, if it has no visible form.
fn unseen(c: char) -> Option<&'static str> {
    match c.general_category() {
        GeneralCategory::Control => return Some("control character"),
        GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator => {
            return Some("line separator");
        }
        GeneralCategory::Format => return Some("invisible format character"),
        _ => {}
    }
    match c {
        // Default_Ignorable_Code_Point beyond the categories above (DerivedCoreProperties.txt).
        '\u{034F}'
        | '\u{115F}'
        | '\u{1160}'
        | '\u{17B4}'
        | '\u{17B5}'
        | '\u{2065}'
        | '\u{3164}'
        | '\u{FFA0}'
        | '\u{FFF0}'..='\u{FFF8}'
        | '\u{E0000}'..='\u{E0FFF}' => Some("invisible character"),
        '\u{180B}'..='\u{180F}' | '\u{FE00}'..='\u{FE0F}' => Some("invisible variation selector"),
        // The Braille blank is shown as a space and is none.
        '\u{2800}' => Some("blank character"),
        _ if u32::from(c) & 0xFFFE == 0xFFFE || ('\u{FDD0}'..='\u{FDEF}').contains(&c) => {
            Some("noncharacter")
        }
        _ => None,
    }
    .map(|what| {
        if ('\u{E0100}'..='\u{E01EF}').contains(&c) {
            "invisible variation selector"
        } else {
            what
        }
    })
}

/// Whether an invisible character is part of the spelling here.
fn spelled(before: Option<char>, c: char, next: Option<char>) -> bool {
    let Some(before) = before else { return false };
    match c {
        '\u{200C}' | '\u{200D}' => {
            let script = before.script();
            joins(script) && next.is_some_and(|next| next.script() == script)
        }
        '\u{FE00}'..='\u{FE0E}' | '\u{E0100}'..='\u{E01EF}' => before.script() == Script::Han,
        _ => false,
    }
}

/// Scripts whose orthography uses the joiners (UAX #31, 2.3: cursive scripts, and scripts with a virama).
fn joins(script: Script) -> bool {
    matches!(
        script,
        Script::Arabic
            | Script::Syriac
            | Script::Mongolian
            | Script::Devanagari
            | Script::Bengali
            | Script::Gurmukhi
            | Script::Gujarati
            | Script::Oriya
            | Script::Tamil
            | Script::Telugu
            | Script::Kannada
            | Script::Malayalam
            | Script::Sinhala
            | Script::Khmer
            | Script::Myanmar
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_looks_the_same_has_one_form() {
        for same in [
            "Z1",
            "Z1 ",
            " Z1",
            "\u{a0}Z1\u{2003}",
            "\u{200B}Z1",
            "\u{FEFF}Z1\u{2060} ",
            "Z1\r\n",
            "\u{3000}Z1",
        ] {
            assert_eq!(identifier(same, 10).as_deref(), Ok("Z1"), "{same:?}");
            assert_eq!(line(same, 10).as_deref(), Ok("Z1"), "{same:?}");
        }
        assert_eq!(
            line("Zoe\u{0308}  van\u{a0}Dam", 20).as_deref(),
            Ok("Zoë van Dam")
        );
    }

    #[test]
    fn what_cannot_be_seen_is_refused_and_named() {
        for (text, word) in [
            ("a\0b", "control character U+0000"),
            ("a\nb", "U+000A"),
            ("a\u{85}b", "U+0085"),
            ("a\u{2028}b", "line separator U+2028"),
            ("\u{202E}ada", "format character U+202E"),
            ("ada\u{200F}", "U+200F"),
            ("a\u{2066}b", "U+2066"),
            ("a\u{200B}b", "U+200B"),
            ("a\u{AD}b", "U+00AD"),
            ("a\u{200D}b", "U+200D"),
            ("a\u{3164}b", "U+3164"),
            ("a\u{FE0F}b", "variation selector U+FE0F"),
            ("a\u{E0100}", "variation selector U+E0100"),
            ("a\u{E0041}", "U+E0041"),
            ("a\u{FFFE}", "noncharacter U+FFFE"),
        ] {
            for outcome in [line(text, 10), identifier(text, 10)] {
                let message = outcome.unwrap_err().to_string();
                assert!(message.contains(word), "{text:?}: {message}");
            }
        }
        for empty in ["", " ", "\u{a0}\u{200B}", "\n"] {
            assert_eq!(line(empty, 10), Err(TextError::Empty), "{empty:?}");
        }
        let long = TextError::TooLong { have: 4, max: 3 };
        assert_eq!(line("e\u{301}e\u{301}e\u{301}", 3).as_deref(), Ok("ééé"));
        assert_eq!(line("éééé", 3), Err(long));
    }

    #[test]
    fn names_of_every_language_keep_their_spelling() {
        for name in [
            "O'Brien; DROP TABLE patient;--",
            "Nguyễn",
            "محمد",
            "李",
            "葛\u{E0100}城",
            "می\u{200C}نا",
            "ශ\u{0DCA}\u{200D}රී",
            "Ö-1, 2%",
        ] {
            assert_eq!(line(name, 40).as_deref(), Ok(name), "{name:?}");
        }
        assert!(identifier("می\u{200C}نا", 40).is_err());
    }

    #[test]
    fn scripts_are_told_apart() {
        for one in ["paypal", "пример", "李さん", "김", "x1-2.3", "ada+lab", "Ærø"] {
            assert!(!scripts_mixed(one), "{one}");
        }
        for mixed in ["p\u{430}ypal", "adaβ", "\u{455}cope"] {
            assert!(scripts_mixed(mixed), "{mixed}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_its_own_normal_form(text in any::<String>()) {
            if let Ok(once) = line(&text, usize::MAX) {
                prop_assert_eq!(line(&once, usize::MAX), Ok(once.clone()));
            }
            if let Ok(once) = identifier(&text, usize::MAX) {
                prop_assert_eq!(identifier(&once, usize::MAX), Ok(once));
            }
        }
    }
}
