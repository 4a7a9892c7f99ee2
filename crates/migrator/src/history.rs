//! Reading a database's migration history without trusting it. refinery panics on a row that it cannot parse,
//! so nothing reaches refinery that was not read here first.

use futures_util::future;
use model::SchemaVersion;
use tokio_postgres::{GenericClient, binary_copy::BinaryCopyOutRow};

use crate::{
    MigrateError,
    untrusted_tables::{UntrustedTableError, untrusted_table_rows},
};

/// What is read of each row.
const COLUMNS: [&str; 4] = ["version", "name", "applied_on", "checksum"];

/// The version in the database's own history: the number of its newest applied migration; zero when there is
/// none.
///
/// # Errors
/// [`MigrateError::CorruptHistory`] names the first row that no migration run can have written.
pub async fn history_version(client: &impl GenericClient) -> Result<SchemaVersion, MigrateError> {
    let client = client.client();
    // Together: whose history it is makes nothing wait.
    let (name, rows) = future::join(
        client.query_typed_one("SELECT pg_catalog.current_database()::pg_catalog.text", &[]),
        untrusted_table_rows(client, "refinery_schema_history", &COLUMNS),
    )
    .await;
    let database: String = name
        .map_err(MigrateError::db(
            "looking for the migration history",
            "the database",
        ))?
        .get(0);
    let rows = match rows {
        Ok(rows) => rows.unwrap_or_default(),
        Err(UntrustedTableError::Db(error)) => {
            return Err(MigrateError::db("reading the migration history", &database)(
                error,
            ));
        }
        Err(UntrustedTableError::Shape(why)) => {
            return Err(MigrateError::CorruptHistory {
                database,
                row: "all of it".to_owned(),
                why: format!("public.refinery_schema_history is not one: {why}"),
            });
        }
    };
    let mut rows: Vec<_> = rows
        .into_iter()
        .map(|row| (row.try_get::<i32>(0).ok(), row))
        .collect();
    // Those without a version last.
    rows.sort_by_key(|(version, _)| (version.is_none(), *version));
    let mut newest = SchemaVersion::default();
    for (at, (version, row)) in rows.iter().enumerate() {
        newest = check_row(row).map_err(|why| MigrateError::CorruptHistory {
            database: database.clone(),
            row: version.map_or_else(|| format!("number {}", at + 1), |v| format!("V{v}")),
            why,
        })?;
    }
    Ok(newest)
}

fn check_row(row: &BinaryCopyOutRow) -> Result<SchemaVersion, String> {
    let number: i32 = row.try_get(0).map_err(|e| format!("version: {e}"))?;
    let version = u32::try_from(number).map_err(|_| format!("version {number} is negative"))?;
    let text = |column: usize, what: &str| row.try_get::<String>(column).map_err(|e| format!("{what}: {e}"));
    text(1, "name")?;
    let applied_on = text(2, "applied_on")?;
    if !is_rfc3339(&applied_on) {
        return Err(format!(
            "applied_on {applied_on:?} is not a time as RFC 3339 writes it"
        ));
    }
    let checksum = text(3, "checksum")?;
    checksum
        .parse::<u64>()
        .map_err(|_| format!("checksum {checksum:?} is not a number"))?;
    Ok(SchemaVersion::new(version))
}

/// Whether refinery's own parser (the `time` crate's RFC 3339) takes the text: `2025-01-31T23:59:59.123Z` or
/// with an offset `+01:00`. Days past a month's end are caught too, since that parser refuses them.
fn is_rfc3339(text: &str) -> bool {
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse::<u16>().ok())?
    };
    let mark = |at: usize, accepted: &[u8]| text.as_bytes().get(at).is_some_and(|b| accepted.contains(b));
    let (Some(year), Some(month), Some(day)) = (number(0, 4), number(5, 7), number(8, 10)) else {
        return false;
    };
    let (Some(hour), Some(minute), Some(second)) = (number(11, 13), number(14, 16), number(17, 19)) else {
        return false;
    };
    let marked = mark(4, b"-") && mark(7, b"-") && mark(10, b"T") && mark(13, b":") && mark(16, b":");
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return false,
    };
    marked
        && (1..=days).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
        && is_fraction_and_zone(&text[19..])
}

fn is_fraction_and_zone(tail: &str) -> bool {
    let zone = match tail.strip_prefix('.') {
        None => tail,
        Some(rest) => {
            let zone = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            if zone.len() == rest.len() {
                return false;
            }
            zone
        }
    };
    let offset = || {
        let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
        let two = |digits: &str| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        (two(hours) && two(minutes) && hours < "24" && minutes < "60").then_some(())
    };
    zone == "Z" || offset().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_that_refinery_reads_pass() {
        for good in [
            "2025-01-31T23:59:59Z",
            "2024-02-29T00:00:00.123456789Z",
            "2025-06-30T12:00:00+01:00",
            "2025-06-30T12:00:00.5-23:59",
        ] {
            assert!(is_rfc3339(good), "{good}");
        }
        for bad in [
            "",
            "yesterday",
            "2025-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-01-00T00:00:00Z",
            "2025-01-01 00:00:00Z",
            "2025-01-01T00:00:00",
            "2025-01-01T00:00:00.Z",
            "2025-01-01T24:00:00Z",
            "2025-01-01T00:00:60Z",
            "2025-01-01T00:00:00+1:00",
            "2025-01-01T00:00:00+24:00",
            "2025-01-01T00:00:0éZ",
            "+025-01-01T00:00:00Z",
        ] {
            assert!(!is_rfc3339(bad), "{bad}");
        }
    }
}
