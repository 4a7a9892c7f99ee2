//! Units: what UCUM knows, and what people write instead.
//!
//! Grammar, atoms and prefixes are those of the crate `octofhir-ucum`, which carries UCUM's own table
//! (`ucum-essence.xml`). Here stands what a laboratory needs beside it: spellings that UCUM reads as
//! something else (`K/uL` is kelvin per microlitre) are refused, and usual misspellings are answered with the
//! right one. See <https://ucum.org/ucum>.

use octofhir_ucum::{ErrorKind, UcumError, analyse, validate};

/// Most characters of a unit.
pub(crate) const UNIT_MAX: usize = 40;

/// Symbols that mean a number in many laboratories and a physical unit in UCUM, where they stand over a
/// volume.
const COUNTS: [(&str, &str, &str); 3] = [
    ("K", "kelvin", "10*3"),
    ("G", "gauss", "10*9"),
    ("T", "tesla", "10*12"),
];

/// Usual spellings of one part of a unit, and UCUM's.
const SPELLINGS: &[(&str, &str)] = &[
    ("K", "10*3"),
    ("M", "10*6"),
    ("thou", "10*3"),
    ("thousand", "10*3"),
    ("mill", "10*6"),
    ("million", "10*6"),
    ("IU", "[IU]"),
    ("iu", "[IU]"),
    ("mIU", "m[IU]"),
    ("uIU", "u[IU]"),
    ("kIU", "k[IU]"),
    ("MIU", "M[IU]"),
    ("GPL", "[GPL'U]"),
    ("MPL", "[MPL'U]"),
    ("Eq", "eq"),
    ("mEq", "meq"),
    ("uEq", "ueq"),
    ("Osm", "osm"),
    ("mOsm", "mosm"),
    ("mOsmol", "mosm"),
    ("Mol", "mol"),
    ("mM", "mmol/L"),
    ("uM", "umol/L"),
    ("nM", "nmol/L"),
    ("pM", "pmol/L"),
    ("gm", "g"),
    ("gms", "g"),
    ("gr", "g"),
    ("mgm", "mg"),
    ("mcg", "ug"),
    ("mcL", "uL"),
    ("mcl", "uL"),
    ("mcmol", "umol"),
    ("ML", "mL"),
    ("DL", "dL"),
    ("cc", "mL"),
    ("ccm", "cm3"),
    ("cmm", "mm3"),
    ("liter", "L"),
    ("litre", "L"),
    ("sec", "s"),
    ("secs", "s"),
    ("seconds", "s"),
    ("mins", "min"),
    ("minutes", "min"),
    ("hr", "h"),
    ("hrs", "h"),
    ("hour", "h"),
    ("hours", "h"),
    ("day", "d"),
    ("days", "d"),
    ("mmHg", "mm[Hg]"),
    ("HPF", "[HPF]"),
    ("hpf", "[HPF]"),
    ("LPF", "[LPF]"),
    ("lpf", "[LPF]"),
    ("ppm", "[ppm]"),
    ("ppb", "[ppb]"),
    ("cells", "{cells}"),
    ("copies", "{copies}"),
    ("INR", "{INR}"),
    ("ratio", "{ratio}"),
];

/// Whole units that are usual and no product of parts.
const WHOLE: &[(&str, &str)] = &[
    ("mg%", "mg/dL"),
    ("g%", "g/dL"),
    ("gm%", "g/dL"),
    ("percent", "%"),
    ("pH", "[pH]"),
    ("C", "Cel"),
    ("F", "[degF]"),
    ("units", "U"),
];

/// Checks a unit in normal form: it must be UCUM, and mean there what a laboratory means by it.
///
/// # Errors
/// A sentence that says what is wrong and, where that is known, how it is written.
pub(crate) fn check(unit: &str) -> Result<(), String> {
    if let Some((_, right)) = WHOLE.iter().find(|(wrong, _)| *wrong == unit)
        && validate(unit).is_ok()
    {
        return Err(format!(
            "{unit:?} is another unit in UCUM; did you mean {right:?}?"
        ));
    }
    if let Some((count, meaning, number)) = count_over_volume(unit) {
        let rest = &unit[count.len()..];
        return Err(format!(
            "{count} is {meaning} in UCUM; did you mean \"{number}{rest}\"?"
        ));
    }
    let Err(error) = validate(unit) else {
        return Ok(());
    };
    let wrong = explain(unit, &error);
    Err(match respelled(unit) {
        Some(right) => format!("{wrong}; did you mean {right:?}?"),
        None => format!("{wrong}; units are UCUM, such as mmol/L, 10*3/uL or [IU]/L"),
    })
}

/// Whether two units in normal form are one: UCUM writes the litre `l` or `L`.
pub(crate) fn same(one: &str, other: &str) -> bool {
    one == other || (litres(one) == litres(other) && validate(one).is_ok())
}

/// The unit with every litre written `L`.
fn litres(unit: &str) -> String {
    let is_litre = |part: &str| {
        let prefix = part.strip_suffix('l');
        prefix
            .is_some_and(|prefix| matches!(prefix, "" | "d" | "c" | "m" | "u" | "n" | "p" | "f" | "h" | "k"))
    };
    let mut written = String::with_capacity(unit.len());
    for (n, part) in unit.split('/').enumerate() {
        if n > 0 {
            written.push('/');
        }
        match part.strip_suffix('l') {
            Some(prefix) if is_litre(part) => {
                written.push_str(prefix);
                written.push('L');
            }
            _ => written.push_str(part),
        }
    }
    written
}

/// The symbol for a count over a volume with which a unit begins, with what it means in UCUM and what is
/// meant.
fn count_over_volume(unit: &str) -> Option<(&'static str, &'static str, &'static str)> {
    let (first, rest) = unit.split_once('/')?;
    let count = COUNTS.iter().find(|(symbol, ..)| *symbol == first)?;
    let (over, litre) = (analyse(rest).ok()?, analyse("L").ok()?);
    (over.dimension == litre.dimension && over.arbitrary.is_empty()).then_some(*count)
}

fn explain(unit: &str, error: &UcumError) -> String {
    if unit.contains(['\u{b5}', '\u{3bc}']) {
        return "UCUM writes micro with the letter u".to_owned();
    }
    match &error.kind {
        ErrorKind::UnitNotFound { unit: atom, .. } => {
            let atom: String = atom.chars().take(UNIT_MAX).collect();
            format!("UCUM knows no unit {atom:?}")
        }
        _ => "it is not written as UCUM writes units".to_owned(),
    }
}

/// The unit as UCUM writes it, if a usual spelling was given.
fn respelled(unit: &str) -> Option<String> {
    let plain: String = unit
        .replace("\u{b0}C", "Cel")
        .replace("\u{b0}F", "[degF]")
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| match c {
            '\u{b5}' | '\u{3bc}' => 'u',
            '\u{b7}' | '\u{d7}' => '.',
            '\u{b2}' => '2',
            '\u{b3}' => '3',
            c => c,
        })
        .collect();
    let plain = plain.trim_start_matches(['x', 'X', '*', '.']);
    let whole = WHOLE.iter().find(|(wrong, _)| *wrong == plain);
    let right = match whole {
        Some((_, right)) => (*right).to_owned(),
        None => plain.split('/').map(part).collect::<Vec<_>>().join("/"),
    };
    (right != unit && validate(&right).is_ok() && count_over_volume(&right).is_none()).then_some(right)
}

/// One part of a unit between its slashes.
fn part(part: &str) -> String {
    // 10^3, 10E3, 10e3 and 10**3 all say what UCUM writes 10*3.
    for ten in ["10**", "10*", "10^", "10E", "10e"] {
        if let Some(exponent) = part.strip_prefix(ten)
            && !exponent.is_empty()
            && exponent.bytes().all(|b| b.is_ascii_digit())
        {
            return format!("10*{exponent}");
        }
    }
    let spelling = SPELLINGS.iter().find(|(wrong, _)| *wrong == part);
    spelling.map_or_else(|| part.to_owned(), |(_, right)| (*right).to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_misspellings_are_answered_with_the_right_one() {
        for (wrong, right) in [
            ("K/uL", "10*3/uL"),
            ("K/mm3", "10*3/mm3"),
            ("G/L", "10*9/L"),
            ("T/L", "10*12/L"),
            ("M/uL", "10*6/uL"),
            ("x10^3/uL", "10*3/uL"),
            ("10e9/L", "10*9/L"),
            ("\u{b5}mol/L", "umol/L"),
            ("\u{3bc}g/dL", "ug/dL"),
            ("mg / dL", "mg/dL"),
            ("mg%", "mg/dL"),
            ("mEq/L", "meq/L"),
            ("mIU/mL", "m[IU]/mL"),
            ("mcg/dL", "ug/dL"),
            ("mm/hr", "mm/h"),
            ("gm/dL", "g/dL"),
            ("mL/min/1.73m\u{b2}", ""),
            ("pH", "[pH]"),
            ("\u{b0}C", "Cel"),
            ("mM", "mmol/L"),
            ("cells/uL", "{cells}/uL"),
            ("furlong", ""),
            ("mmol/L)", ""),
            ("", ""),
        ] {
            let message = check(wrong).unwrap_err();
            let named = message.contains(&format!("did you mean {right:?}"));
            assert_eq!(named, !right.is_empty(), "{wrong}: {message}");
        }
    }

    #[test]
    fn every_unit_of_the_standard_catalogue_is_ucum() {
        let mut reader =
            csv::Reader::from_path(concat!(env!("CARGO_MANIFEST_DIR"), "/data/catalogue.csv")).unwrap();
        let columns = reader.headers().unwrap().clone();
        let at = columns.iter().position(|column| column == "unit_ucum").unwrap();
        for row in reader.records() {
            let row = row.unwrap();
            assert_eq!(check(&row[at]), Ok(()), "{}", &row[at]);
        }
        for (wrong, right) in SPELLINGS.iter().chain(WHOLE) {
            assert_eq!(check(right), Ok(()), "{wrong}");
        }
    }

    #[test]
    fn a_litre_is_a_litre_in_either_letter_and_nothing_else_is_alike() {
        for (one, other) in [
            ("mmol/l", "mmol/L"),
            ("g/dl", "g/dL"),
            ("10*3/ul", "10*3/uL"),
            ("mol", "mol"),
        ] {
            assert!(same(one, other) && same(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("mol", "moL"),
            ("meq/L", "mmol/L"),
            ("mg/dL", "mg/L"),
            ("u[IU]/mL", "m[IU]/L"),
            ("Cel", "CeL"),
        ] {
            assert!(!same(one, other), "{one} {other}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = check(&text);
            let _ = same(&text, &text);
        }
    }
}
