//! What this binary carries: every migration of the tenant schema and the grants that close each run.

use std::{fmt::Write as _, sync::LazyLock};

use model::{RoleName, SchemaVersion, VersionWindow};
use sha2::{Digest, Sha256};

mod embedded {
    refinery::embed_migrations!("../../migrations-tenant");
}

/// What a laboratory's role may do; `{group}` stands for the laboratory's group role.
pub(crate) const GRANTS: &str = include_str!("../../../migrations-tenant/grants.sql");

/// The server's own functions that the grants close to PUBLIC: a database that is adopted and given back gets
/// them back.
pub const CLOSED_FUNCTIONS: [&str; 5] = [
    "pg_catalog.lo_create(oid)",
    "pg_catalog.lo_creat(integer)",
    "pg_catalog.lo_from_bytea(oid, bytea)",
    "pg_catalog.pg_logical_emit_message(boolean, text, text)",
    "pg_catalog.pg_logical_emit_message(boolean, text, bytea)",
];

/// The line that ends what every database gets, the template too. Behind it stand the rights of the group
/// role.
const GROUP_PART: &str = "-- ---- the laboratory's group role ----";

/// The oldest schema that this code still understands, when that is not only the newest. It is lowered by the
/// release that learns to serve two shapes (expand), and raised again by the one that forgets the older
/// (contract).
const OLDEST_UNDERSTOOD: Option<SchemaVersion> = None;

static LATEST: LazyLock<SchemaVersion> = LazyLock::new(|| {
    let newest = runner().get_migrations().iter().map(version_of).max();
    newest.unwrap_or_default()
});

static FINGERPRINT: LazyLock<String> = LazyLock::new(|| {
    let mut migrations = runner().get_migrations().clone();
    migrations.sort();
    let mut hash = Sha256::new();
    for migration in &migrations {
        // Each part is preceded by its length, so that no two different sets can run into the same bytes.
        for part in [
            migration.to_string().as_str(),
            migration.sql().unwrap_or_default(),
        ] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part.as_bytes());
        }
    }
    hash.update(GRANTS.as_bytes());
    hex::encode(hash.finalize())
});

pub(crate) fn runner() -> refinery::Runner {
    embedded::migrations::runner()
}

/// The embedded migration's number; refinery's parser lets no negative one through.
pub(crate) fn version_of(migration: &refinery::Migration) -> SchemaVersion {
    SchemaVersion::new(u32::try_from(migration.version()).unwrap_or_default())
}

/// The grants as SQL for a laboratory's group role; without one, what is taken from everybody.
pub(crate) fn grants(group: Option<&RoleName>) -> String {
    match group {
        Some(group) => GRANTS.replace("{group}", &group.quoted()),
        None => GRANTS
            .split_once(GROUP_PART)
            .map_or(GRANTS, |(everybody, _)| everybody)
            .to_owned(),
    }
}

/// The version that this code was written for: the number of its newest embedded migration.
#[must_use]
pub fn latest() -> SchemaVersion {
    *LATEST
}

/// The versions that this code may serve.
#[must_use]
pub fn window() -> VersionWindow {
    VersionWindow {
        oldest: OLDEST_UNDERSTOOD.unwrap_or_else(latest),
        newest: latest(),
    }
}

/// SHA-256, in hexadecimal, of every migration's name and text and of the grants: it tells apart two states
/// of one version number, as they exist while a migration is being written.
#[must_use]
pub fn fingerprint() -> &'static str {
    &FINGERPRINT
}

/// The embedded migrations as `V1__name`, for messages.
pub(crate) fn names() -> String {
    let mut text = String::new();
    for migration in runner().get_migrations() {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{migration}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;

    /// refinery passes over a misnamed file with no more than a log line; here it stops the build instead.
    #[test]
    fn every_sql_file_is_well_named_embedded_and_numbered_without_a_gap() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations-tenant");
        let on_disk: BTreeSet<String> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".sql") && name != "grants.sql")
            .collect();
        let embedded: BTreeSet<String> = runner()
            .get_migrations()
            .iter()
            .map(|m| format!("{m}.sql"))
            .collect();
        assert_eq!(on_disk, embedded, "a file has a name that refinery does not take");
        let mut numbers: Vec<u32> = runner()
            .get_migrations()
            .iter()
            .map(|m| version_of(m).number())
            .collect();
        numbers.sort_unstable();
        let count = u32::try_from(numbers.len()).unwrap();
        assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
        assert_eq!(latest().number(), count);
    }

    #[test]
    fn the_window_holds_the_newest_version_and_the_fingerprint_is_a_sha256() {
        assert_eq!(window().newest, latest());
        assert!(window().oldest <= window().newest);
        assert_eq!(fingerprint().len(), 64);
    }

    #[test]
    fn the_grants_name_the_group_and_without_one_give_nothing() {
        let sql = grants(Some(&RoleName::from_catalog("t1_dml_x").unwrap()));
        assert!(sql.contains("\"t1_dml_x\"") && !sql.contains("{group}"));
        let everybody = grants(None);
        let statements = everybody.lines().filter(|line| !line.starts_with("--"));
        for statement in statements.filter(|line| !line.is_empty()) {
            assert!(
                statement.starts_with("REVOKE ") && statement.ends_with(" FROM PUBLIC;"),
                "{statement}"
            );
        }
        assert!(
            CLOSED_FUNCTIONS
                .iter()
                .all(|function| everybody.contains(function))
        );
        assert_eq!(everybody.matches("pg_catalog.").count(), CLOSED_FUNCTIONS.len());
    }
}
