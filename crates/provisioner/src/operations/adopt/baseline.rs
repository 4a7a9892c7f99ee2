//! Which schema version a database without a history has: decided by what is there, never by guessing.
//!
//! A version is told by the lines that stand for it: every object of its shape (`shape.sql`, without rights
//! and owners) and the rows that its migrations write under keys of their own. A database has a version when
//! it has all of its lines. What it has beside them is its own, unless it belongs to a later version: then a
//! migration is half there, and running the rest of it would fail or harm.

use std::collections::BTreeSet;

use model::SchemaVersion;

/// How many characters of a line an error shows.
const SHOWN_MAX: usize = 160;

/// What stands for one version, or what a database has.
pub(crate) type Lines = BTreeSet<String>;

/// How a line of a row begins; all others are of the shape.
pub(crate) const ROW: &str = "row ";

/// The lines of a shape that say what a version is. Rights and owners are set when a laboratory is taken
/// over; the history is written then; the place of a column among others differs where a laboratory has added
/// its own.
pub(crate) fn telling(shape: impl IntoIterator<Item = String>) -> Lines {
    shape
        .into_iter()
        .filter(|line| !line.starts_with("grant on ") && !line.contains("refinery_schema_history"))
        .map(|line| loosen(&line))
        .collect()
}

/// The server writes some expressions differently once they have gone through a dump, with other casts and
/// brackets.
fn loosen(line: &str) -> String {
    let line = match line.strip_prefix("column ").and_then(|rest| rest.split_once(' ')) {
        Some((table, rest)) => {
            let unnumbered = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("column {table}{unnumbered}")
        }
        None => line.to_owned(),
    };
    let line = line.replace("::character varying", "").replace("::text", "");
    line.replace(['(', ')', '[', ']'], "")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

fn shown(line: &str) -> String {
    line.chars().take(SHOWN_MAX).collect()
}

fn version(at: usize) -> SchemaVersion {
    SchemaVersion::new(u32::try_from(at).unwrap_or(u32::MAX))
}

/// The version that a database has; `versions` begins with version 0, which has the lines of any empty
/// database. `wanted` is a person's word on it, which is checked: it decides where versions look alike, and
/// where rows of a version were removed.
pub(crate) fn judge(
    versions: &[Lines],
    found: &Lines,
    wanted: Option<SchemaVersion>,
) -> Result<SchemaVersion, String> {
    let own = |at: usize| versions[at].difference(&versions[0]);
    let rows_too = wanted.is_none();
    let missing =
        |at: usize| own(at).find(|line| (rows_too || !line.starts_with(ROW)) && !found.contains(*line));
    let last = versions.len() - 1;
    let at = match wanted {
        Some(wanted) => usize::try_from(wanted.number())
            .ok()
            .filter(|at| *at <= last)
            .ok_or_else(|| format!("there is no version {wanted}; this binary knows up to {last}"))?,
        None => (1..=last).rev().find(|&at| missing(at).is_none()).unwrap_or(0),
    };
    if let Some(line) = missing(at) {
        return Err(format!(
            "it is not at version {at}: it has no \"{}\"",
            shown(line)
        ));
    }
    let later = (at + 1..=last).find_map(|later| {
        let of_later = own(later).filter(|line| !versions[at].contains(*line));
        of_later
            .filter(|line| found.contains(*line))
            .map(|line| (later, line))
            .next()
    });
    if let Some((later, line)) = later {
        let lacks = missing(later).map_or_else(String::new, |line| format!(" but not \"{}\"", shown(line)));
        return Err(format!(
            "version {later} is half there: it has \"{}\"{lacks}; complete it or take it away by hand",
            shown(line)
        ));
    }
    if wanted.is_none() {
        if at == 0 {
            return Err("it holds none of a laboratory's tables; is it the right database?".to_owned());
        }
        if versions[at] == versions[at - 1] {
            return Err(format!(
                "versions {} and {at} cannot be told apart by what is there; say which one it is with a \
                 baseline",
                at - 1
            ));
        }
    }
    Ok(version(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[&str]) -> Lines {
        text.iter().map(|line| (*line).to_owned()).collect()
    }

    fn versions() -> Vec<Lines> {
        vec![
            lines(&["schema public"]),
            lines(&["schema public", "staff"]),
            lines(&["schema public", "staff", "test_def"]),
            lines(&["schema public", "staff", "test_def", "row GLU"]),
            lines(&[
                "schema public",
                "staff",
                "test_def",
                "row GLU",
                "result",
                "result guard 1",
            ]),
            lines(&[
                "schema public",
                "staff",
                "test_def",
                "row GLU",
                "result",
                "result guard 2",
            ]),
            lines(&[
                "schema public",
                "staff",
                "test_def",
                "row GLU",
                "result",
                "result guard 2",
            ]),
        ]
    }

    fn of(found: &[&str]) -> Result<u32, String> {
        judge(&versions()[..6], &lines(found), None).map(SchemaVersion::number)
    }

    #[test]
    fn the_newest_version_that_is_all_there_is_it_whatever_else_there_is() {
        assert_eq!(of(&["staff"]), Ok(1));
        assert_eq!(of(&["staff", "test_def", "own table"]), Ok(2));
        assert_eq!(of(&["staff", "test_def", "row GLU", "row OWN"]), Ok(3));
        assert_eq!(
            of(&["staff", "test_def", "row GLU", "result", "result guard 1"]),
            Ok(4)
        );
        assert_eq!(
            of(&["staff", "test_def", "row GLU", "result", "result guard 2"]),
            Ok(5)
        );
    }

    #[test]
    fn what_is_half_there_or_not_there_is_refused_by_name() {
        let half = of(&["staff", "test_def", "row GLU", "result"]).unwrap_err();
        assert!(
            half.contains("version 4 is half there") && half.contains("guard"),
            "{half}"
        );
        let half = of(&["staff", "result"]).unwrap_err();
        assert!(
            half.contains("version 4") && half.contains("\"result\""),
            "{half}"
        );
        let none = of(&["own table"]).unwrap_err();
        assert!(none.contains("none of a laboratory's tables"), "{none}");
    }

    #[test]
    fn a_persons_word_is_checked_and_decides_where_versions_look_alike() {
        let found = lines(&["staff", "test_def", "row GLU", "result", "result guard 2"]);
        let judged = |wanted: Option<u32>, found: &Lines| {
            judge(&versions(), found, wanted.map(SchemaVersion::new)).map(SchemaVersion::number)
        };
        assert!(judged(None, &found).unwrap_err().contains("versions 5 and 6"));
        assert_eq!(judged(Some(5), &found), Ok(5));
        assert_eq!(judged(Some(6), &found), Ok(6));
        assert!(judged(Some(7), &found).unwrap_err().contains("no version 7"));
        assert!(judged(Some(2), &found).unwrap_err().contains("half there"));
        let without_rows = lines(&["staff", "test_def"]);
        assert_eq!(judged(Some(3), &without_rows), Ok(3));
        assert!(judged(Some(4), &without_rows).unwrap_err().contains("\"result\""));
        assert_eq!(judged(Some(0), &lines(&["own table"])), Ok(0));
    }

    #[test]
    fn a_line_says_the_same_behind_a_dump_and_beside_a_column_of_ones_own() {
        let a = "column public.staff 4 role text not null default 'x'::text";
        let b = "column public.staff 5 role text not null default ('x')";
        assert_eq!(loosen(a), loosen(b));
        assert_eq!(telling(["grant on relation a to b".to_owned()]).len(), 0);
    }
}
