//! The grants as a list: what a laboratory's group has to have, and nothing beyond it.
//!
//! Read from `grants.sql` itself, so that there is no second list. Applying the file in a transaction that is
//! rolled back would say the same, and would write to the catalogue of every laboratory each time that
//! somebody only looks.

use crate::source::GRANTS;

/// One right of the group role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Granted {
    /// `SCHEMA`, `TABLE`, `SEQUENCE` or `FUNCTION`.
    pub kind: &'static str,
    /// The name of the thing as the grants write it, in the schema `public`; a function's with the types of
    /// its arguments.
    pub name: &'static str,
    /// The column; empty for the thing as a whole.
    pub column: &'static str,
    /// `SELECT`, `UPDATE` and the like.
    pub privilege: &'static str,
}

/// What the grants give to a laboratory's group.
#[must_use]
pub fn granted() -> Vec<Granted> {
    let mut found = Vec::new();
    for statement in GRANTS.split("GRANT ").skip(1) {
        let Some((statement, _)) = statement.split_once("TO {group}") else {
            continue;
        };
        let Some((privileges, on)) = statement.split_once(" ON ") else {
            continue;
        };
        let kinds = ["SCHEMA", "SEQUENCE", "FUNCTION"];
        let named = kinds
            .iter()
            .find_map(|kind| on.strip_prefix(kind).map(|names| (*kind, names)));
        let (kind, names) = named.unwrap_or(("TABLE", on));
        for (name, privilege) in parts(names).into_iter().flat_map(|name| {
            parts(privileges)
                .into_iter()
                .map(move |privilege| (name, privilege))
        }) {
            let (privilege, columns) = match privilege.split_once('(') {
                Some((privilege, columns)) => (privilege.trim(), columns.trim_end_matches(')')),
                None => (privilege, ""),
            };
            found.extend(columns.split(',').map(|column| Granted {
                kind,
                name,
                column: column.trim(),
                privilege,
            }));
        }
    }
    found
}

/// What stands between the commas that are in no parentheses.
fn parts(text: &'static str) -> Vec<&'static str> {
    let mut depth = 0_u32;
    let split = text.split(move |letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    });
    split.map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_grant_is_read() {
        let granted = granted();
        let has = |kind, name, column, privilege| {
            granted.contains(&Granted {
                kind,
                name,
                column,
                privilege,
            })
        };
        assert!(has("SCHEMA", "public", "", "USAGE"));
        assert!(has("TABLE", "staff", "", "INSERT") && has("TABLE", "staff", "password_hash", "UPDATE"));
        assert!(!has("TABLE", "staff", "", "UPDATE"));
        assert!(has("TABLE", "result", "changed_by", "UPDATE"));
        assert!(has("TABLE", "import_conflict", "", "INSERT"));
        assert!(has("SEQUENCE", "patient_mrn_seq", "", "USAGE"));
        assert!(has("FUNCTION", "limits_lost(ref_range)", "", "EXECUTE"));
        assert!(has("FUNCTION", "mark_outdated(uuid[], text)", "", "EXECUTE"));
        assert!(has("TABLE", "refinery_schema_history", "", "SELECT"));
        let once: BTreeSet<_> = granted.iter().collect();
        assert_eq!(once.len(), granted.len());
        let is_word = |word: &str| {
            word.chars()
                .all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
        };
        for right in &granted {
            let name = right.name.split('(').next().unwrap_or_default();
            assert!(
                is_word(name) && !name.is_empty() && is_word(right.column),
                "{right:?}"
            );
            assert!(
                right.privilege.chars().all(|c| c.is_ascii_uppercase()),
                "{right:?}"
            );
        }
        let statements = GRANTS.matches("TO {group}").count();
        assert_eq!(
            GRANTS.matches("GRANT ").count(),
            statements,
            "each GRANT is to the group"
        );
    }
}
