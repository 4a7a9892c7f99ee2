//! What a database holds, in a form that can be kept and compared: shape, sequences, and every table's rows.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How much of a definition stands in a manifest, in characters.
const SHOWN_MAX: usize = 120;
/// The hexadecimal digits of a definition's fingerprint.
const FINGERPRINT_DIGITS: usize = 16;

/// One table's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDigest {
    /// Its name with its schema.
    pub name: String,
    /// How many rows it has.
    pub rows: u64,
    /// Two sums of hashes over the rows' text; the module `snapshot` says what they prove.
    pub checksum: String,
}

/// Where a sequence stood while the dump was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceDigest {
    /// Its name with its schema.
    pub name: String,
    /// Before: the last value, and whether it was given out.
    pub from: String,
    /// After.
    pub to: String,
}

/// What a database holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// Every table, materialized view and the large objects, in order of name.
    pub tables: Vec<TableDigest>,
    /// Every sequence.
    pub sequences: Vec<SequenceDigest>,
    /// SHA-256 over the shape.
    pub shape_sha256: String,
    /// The shape: a fingerprint and the beginning of each definition, in order of the fingerprints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shape: Vec<String>,
    /// Definitions beside the shape: publications, event triggers, casts, text search, comments and others.
    /// Manifests of earlier versions have none, and are not compared in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<Vec<String>>,
    /// Tables whose rows are not those of the dump: a restore computes them again, or no dump has them.
    /// Manifests of earlier versions speak of their rows all the same.
    #[serde(skip)]
    pub(crate) derived: Vec<String>,
}

/// What a server lacks that a copy would need to be the same: rights and owners are left out for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// Roles that are gone.
    pub roles: Vec<String>,
    /// What they owned, as `TABLE public.note`.
    pub owned: Vec<String>,
}

impl Missing {
    /// Whether a copy need not have this definition.
    fn excuses(&self, line: &str) -> bool {
        let Some(right) = line.strip_prefix("grant on ") else {
            return false;
        };
        let of_role = |role: &String| {
            right.contains(&format!(" to {} ", printable(role)))
                || right.starts_with(&format!("for role {} ", printable(&name_as_written(role))))
        };
        // Rights on what has another owner now are written differently.
        let of_object = |object: &String| {
            let identity = printable(object.split_once(' ').map_or("", |(_, identity)| identity));
            right.contains(&format!(" {identity} to ")) || right.contains(&format!(" {identity}."))
        };
        // Earlier versions kept only the beginning of a long line.
        let cut = line.chars().count() == SHOWN_MAX;
        !self.roles.is_empty() && (cut || self.roles.iter().any(of_role) || self.owned.iter().any(of_object))
    }
}

/// A name as the server writes it in an object's identity: in quotation marks only where it needs them.
fn name_as_written(name: &str) -> String {
    let plain = name
        .chars()
        .enumerate()
        .all(|(at, c)| c == '_' || c.is_ascii_lowercase() || (at > 0 && c.is_ascii_digit()));
    if plain {
        name.to_owned()
    } else {
        model::quote_ident(name)
    }
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

impl Contents {
    /// The first thing in which `copy` is not what this says; `None` when it is the same. Names tables and
    /// definitions, never a value.
    #[must_use]
    pub fn difference(&self, copy: &Self) -> Option<String> {
        self.difference_but_for(&Missing::default(), copy)
    }

    /// The same for a copy on a server that lacks what it would need: rights of roles that are not there are
    /// no difference.
    #[must_use]
    pub fn difference_but_for(&self, missing: &Missing, copy: &Self) -> Option<String> {
        self.shape_difference(missing, copy)
            .or_else(|| self.object_difference(missing, copy))
            .or_else(|| self.sequence_difference(copy))
            .or_else(|| self.table_difference(copy))
    }

    /// How many rows all tables have together.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// Whether the kept lines are those that the shape's own checksum was made of.
    #[must_use]
    pub fn shape_is_whole(&self) -> bool {
        shape_sha256(&self.shape) == self.shape_sha256
    }

    /// Whether a right on anything in it was granted to the role.
    #[must_use]
    pub fn names_grantee(&self, role: &str) -> bool {
        let to = format!(" to {role} ");
        let grants = self.shape.iter().filter_map(|line| line.split_once(' '));
        let mut grants = grants.filter(|(_, text)| text.starts_with("grant on "));
        grants.any(|(_, text)| text.contains(&to))
    }

    fn object_difference(&self, missing: &Missing, copy: &Self) -> Option<String> {
        let (Some(wanted), Some(found)) = (&self.objects, &copy.objects) else {
            return None;
        };
        let lacking = |of: &[String], line: &&String| !of.contains(line) && !missing.excuses(line);
        if let Some(line) = wanted.iter().find(|line| lacking(found, line)) {
            return Some(format!("the copy has no \"{line}\""));
        }
        let added = found.iter().find(|line| lacking(wanted, line));
        added.map(|line| format!("only the copy has \"{line}\""))
    }

    fn shape_difference(&self, missing: &Missing, copy: &Self) -> Option<String> {
        if self.shape_sha256 == copy.shape_sha256 {
            return None;
        }
        let lacks = |lines: &[String], line: &String| {
            let fingerprint = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
            let wanted = fingerprint(line);
            !lines.iter().any(|other| fingerprint(other) == wanted)
        };
        let shown = |line: &str| line.split_once(' ').map_or("", |(_, text)| text).to_owned();
        // Which version of an extension there is, is its server's business; that it is there stands among the
        // objects.
        let excused = |line: &String| {
            let line = shown(line);
            line.starts_with("extension ") || missing.excuses(&line)
        };
        let gone: Vec<&String> = self
            .shape
            .iter()
            .filter(|line| lacks(&copy.shape, line))
            .collect();
        if let Some(line) = gone.iter().find(|line| !excused(line)) {
            return Some(format!("the copy has no \"{}\"", shown(line)));
        }
        let added: Vec<&String> = copy
            .shape
            .iter()
            .filter(|line| lacks(&self.shape, line))
            .collect();
        if let Some(line) = added.iter().find(|line| !excused(line)) {
            return Some(format!("only the copy has \"{}\"", shown(line)));
        }
        let twice = gone.is_empty() && added.is_empty();
        twice.then(|| "a definition stands twice on one side".to_owned())
    }

    fn sequence_difference(&self, copy: &Self) -> Option<String> {
        let position = |text: &str| -> Option<(i64, bool)> {
            let (value, called) = text.split_once(' ')?;
            Some((value.parse().ok()?, called.starts_with('t')))
        };
        for wanted in &self.sequences {
            let name = &wanted.name;
            let Some(found) = copy.sequences.iter().find(|other| other.name == *name) else {
                return Some(format!("the copy has no sequence {name}"));
            };
            let between = match (position(&wanted.from), position(&wanted.to), position(&found.to)) {
                (Some(a), Some(b), Some(at)) => a.min(b) <= at && at <= a.max(b),
                _ => false,
            };
            if !between {
                return Some(format!(
                    "sequence {name} stood at {} to {} and stands in the copy at {}",
                    wanted.from, wanted.to, found.to
                ));
            }
        }
        None
    }

    fn table_difference(&self, copy: &Self) -> Option<String> {
        for wanted in &self.tables {
            let name = &wanted.name;
            if copy.derived.contains(name) {
                continue;
            }
            let Some(found) = copy.tables.iter().find(|other| other.name == *name) else {
                return Some(format!("the copy has no table {name}"));
            };
            if wanted.rows != found.rows {
                return Some(format!(
                    "table {name} has {} rows and in the copy {}",
                    wanted.rows, found.rows
                ));
            }
            if wanted.checksum != found.checksum {
                return Some(format!("table {name}: its rows are not the same in the copy"));
            }
        }
        let extra = copy
            .tables
            .iter()
            .find(|found| !self.tables.iter().any(|wanted| wanted.name == found.name));
        extra.map(|table| format!("only the copy has a table {}", table.name))
    }
}

/// A line for each definition. The server writes some expressions differently once they have gone through a
/// dump, with other casts and brackets: `x = ANY ((ARRAY['a'::character varying])::text[])` comes back as `x
/// = ANY (ARRAY[('a'::character varying)::text])`. The fingerprint is of what is left without them.
pub(crate) fn shape_lines(definitions: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = definitions
        .iter()
        .map(|definition| {
            let mut loose = definition
                .replace("::character varying", "")
                .replace("::text", "");
            loose.retain(|c| !matches!(c, '(' | ')' | '[' | ']' | ' ' | '\n'));
            let fingerprint = hex::encode(Sha256::digest(loose.as_bytes()));
            // Of a right the role must be seen.
            let length = if definition.starts_with("grant on ") {
                usize::MAX
            } else {
                SHOWN_MAX
            };
            let shown: String = printable(definition).chars().take(length).collect();
            format!("{} {shown}", &fingerprint[..FINGERPRINT_DIGITS])
        })
        .collect();
    lines.sort();
    lines
}

pub(crate) fn shape_sha256(lines: &[String]) -> String {
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(line.split(' ').next().unwrap_or_default());
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(texts: &[&str]) -> Contents {
        let definitions: Vec<String> = texts.iter().map(|&t| t.to_owned()).collect();
        let shape = shape_lines(&definitions);
        Contents {
            tables: Vec::new(),
            sequences: Vec::new(),
            shape_sha256: shape_sha256(&shape),
            shape,
            objects: None,
            derived: Vec::new(),
        }
    }

    #[test]
    fn rights_of_missing_roles_and_versions_of_extensions_are_no_difference() {
        let original = shape(&[
            "grant on relation public.t to gone SELECT",
            "grant on relation public.t to here SELECT",
            "extension x 1.0",
        ]);
        let copy = shape(&["grant on relation public.t to here SELECT", "extension x 1.1"]);
        let missing = |owned: &[&str]| Missing {
            roles: vec!["gone".to_owned()],
            owned: owned.iter().map(|&object| object.to_owned()).collect(),
        };
        assert_eq!(original.difference_but_for(&missing(&[]), &copy), None);
        assert!(original.difference(&copy).unwrap().contains("to gone"));
        let less = shape(&["extension x 1.1"]);
        let difference = original.difference_but_for(&missing(&[]), &less).unwrap();
        assert!(difference.contains("to here"), "{difference}");
        assert_eq!(
            original.difference_but_for(&missing(&["TABLE public.t"]), &less),
            None
        );
    }

    #[test]
    fn further_objects_are_compared_where_the_manifest_has_them() {
        let with = |objects: Option<&[&str]>| Contents {
            objects: objects.map(|all| all.iter().map(|&one| one.to_owned()).collect()),
            ..shape(&[])
        };
        let (none, empty, one) = (with(None), with(Some(&[])), with(Some(&["publication news"])));
        assert_eq!(none.difference(&one), None);
        assert!(
            one.difference(&empty)
                .unwrap()
                .contains("no \"publication news\"")
        );
        assert!(empty.difference(&one).unwrap().contains("only the copy"));
    }

    #[test]
    fn a_shape_differs_by_what_is_missing_added_or_changed_and_not_by_how_casts_are_written() {
        let a = shape(&[
            "constraint t CHECK (((x)::text = ANY ((ARRAY['a'::character varying])::text[])))",
            "index i",
        ]);
        let b = shape(&[
            "constraint t CHECK (((x)::text = ANY (ARRAY[('a'::character varying)::text])))",
            "index i",
        ]);
        assert_eq!(a.difference(&a), None);
        assert_eq!(a.difference(&b), None);
        let short =
            shape(&["constraint t CHECK (((x)::text = ANY (ARRAY[('a'::character varying)::text])))"]);
        let missing = a.difference(&short).unwrap();
        assert!(missing.contains("the copy has no \"index i\""), "{missing}");
        let added = short.difference(&a).unwrap();
        assert!(added.contains("only the copy has \"index i\""), "{added}");
        assert!(shape(&["a", "a"]).difference(&shape(&["a"])).is_some());
    }

    #[test]
    fn tables_and_sequences_differ_by_name_count_and_checksum() {
        let table = |name: &str, rows, checksum: &str| TableDigest {
            name: name.to_owned(),
            rows,
            checksum: checksum.to_owned(),
        };
        let with = |tables: Vec<TableDigest>, from: &str, to: &str| Contents {
            tables,
            sequences: vec![SequenceDigest {
                name: "s".to_owned(),
                from: from.to_owned(),
                to: to.to_owned(),
            }],
            ..shape(&[])
        };
        let original = with(vec![table("a", 1, "1 2")], "3 true", "7 true");
        for (copy, expected) in [
            (with(vec![table("a", 1, "1 2")], "5 true", "5 true"), None),
            (
                with(vec![table("a", 1, "1 2")], "8 true", "8 true"),
                Some("sequence s"),
            ),
            (
                with(vec![table("a", 1, "1 2")], "3 false", "3 false"),
                Some("sequence s"),
            ),
            (
                with(vec![table("a", 2, "1 2")], "3 true", "3 true"),
                Some("table a has 1 rows"),
            ),
            (
                with(vec![table("a", 1, "1 3")], "3 true", "3 true"),
                Some("table a: its rows"),
            ),
            (with(vec![], "3 true", "3 true"), Some("no table a")),
            (
                with(
                    vec![table("a", 1, "1 2"), table("b", 0, "0 0")],
                    "3 true",
                    "3 true",
                ),
                Some("only the copy has a table b"),
            ),
        ] {
            let found = original.difference(&copy);
            match expected {
                None => assert_eq!(found, None),
                Some(text) => assert!(found.as_deref().is_some_and(|f| f.contains(text)), "{found:?}"),
            }
        }
    }
}
