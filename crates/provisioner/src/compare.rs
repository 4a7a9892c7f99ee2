//! Whether two databases are the same: shape, sequences, and every row of every table.
//!
//! A dump is proved by restoring it beside the original and comparing the two here. Both sides are read in one
//! read-only snapshot each, in the same order, as the text that COPY writes; the bytes are compared as they come and hashed
//! on the way, so nothing is held in memory and the figures of the manifest cost no second reading. A message names table
//! and row number, never a value: values are patients' data.

use std::{pin::Pin, time::Duration};

use futures_util::TryStreamExt;
use pg::ConnectTarget;
use sha2::{Digest, Sha256};
use tokio_postgres::{Client, CopyOutStream, SimpleQueryMessage};

use crate::{ProvisionError, manifest::TableDigest};

/// What two equal databases hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Every table, materialized view and large object, in order of name.
    pub tables: Vec<TableDigest>,
    /// How many sequences had the same value on both sides.
    pub sequences: u64,
    /// SHA-256 of the shape's lines.
    pub shape_sha256: String,
}

/// Compares a copy with its original, within `limit`.
///
/// # Errors
/// [`ProvisionError::Differs`] names the first difference; [`ProvisionError::TookTooLong`]; others when a side cannot be
/// read.
pub async fn compare(
    original: &ConnectTarget,
    copy: &ConnectTarget,
    connect_limit: Duration,
    limit: Duration,
) -> Result<Contents, ProvisionError> {
    let comparing = compare_all(original, copy, connect_limit);
    match tokio::time::timeout(limit, comparing).await {
        Ok(outcome) => outcome,
        // The sessions end with the future that was dropped, and their statements soon after them.
        Err(_elapsed) => {
            let what = format!("comparing {} with its restored copy", original.database);
            Err(ProvisionError::TookTooLong { what, limit })
        }
    }
}

async fn compare_all(
    original: &ConnectTarget,
    copy: &ConnectTarget,
    connect_limit: Duration,
) -> Result<Contents, ProvisionError> {
    let original = Side::open(original, connect_limit).await?;
    let copy = Side::open(copy, connect_limit).await?;
    let shape_sha256 = compare_shapes(&original, &copy).await?;
    let sequences = compare_sequences(&original, &copy).await?;
    let mut tables = Vec::new();
    for (name, query) in original.tables().await? {
        tables.push(compare_rows(&original, &copy, name, &query).await?);
    }
    Ok(Contents {
        tables,
        sequences,
        shape_sha256,
    })
}

/// One database, read in one snapshot. The transaction ends with the connection.
struct Side {
    client: Client,
    place: String,
}

impl Side {
    async fn open(target: &ConnectTarget, connect_limit: Duration) -> Result<Self, ProvisionError> {
        let client = pg::connect(target, "tenantry compare", connect_limit).await?;
        let place = target.to_string();
        // How values are written must not depend on a setting; a row that a policy would hide is an error instead.
        client
            .batch_execute(
                "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;
                 SET LOCAL search_path = ''; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL timezone = 'UTC';
                 SET LOCAL intervalstyle = 'postgres'; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex';
                 SET LOCAL row_security = off; SET LOCAL client_encoding = 'UTF8';
                 SET LOCAL statement_timeout = 0; SET LOCAL client_connection_check_interval = '500ms'",
            )
            .await
            .map_err(ProvisionError::db("preparing to compare", &place))?;
        Ok(Self { client, place })
    }

    async fn lines(&self, doing: &'static str, sql: &str) -> Result<Vec<String>, ProvisionError> {
        let messages = self
            .client
            .simple_query(sql)
            .await
            .map_err(ProvisionError::db(doing, &self.place))?;
        Ok(messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            })
            .collect())
    }

    /// Every table's name with the query that reads it in an order that both sides share: its key's, else its text's.
    async fn tables(&self) -> Result<Vec<(String, String)>, ProvisionError> {
        let rows = self
            .client
            .query(
                "SELECT c.oid::regclass::text,
                        (SELECT string_agg('t.' || quote_ident(a.attname), ', ' ORDER BY k.place)
                           FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
                           JOIN pg_attribute a ON a.attnum = k.attnum
                          WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid)
                   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                  ORDER BY c.oid::regclass::text COLLATE \"C\"",
                &[],
            )
            .await
            .map_err(ProvisionError::db("listing the tables", &self.place))?;
        let mut tables: Vec<(String, String)> = rows
            .iter()
            .map(|row| {
                let name: String = row.get(0);
                let key: Option<String> = row.get(1);
                let order = key.unwrap_or_else(|| "t::text COLLATE \"C\"".to_owned());
                let query = format!("SELECT t.* FROM ONLY {name} AS t ORDER BY {order}");
                (name, query)
            })
            .collect();
        tables.push((
            "(large objects)".to_owned(),
            "SELECT oid, lo_get(oid) FROM pg_catalog.pg_largeobject_metadata ORDER BY oid".to_owned(),
        ));
        Ok(tables)
    }

    async fn copy_out(&self, table: &str, query: &str) -> Result<Pin<Box<CopyOutStream>>, ProvisionError> {
        let stream = self
            .client
            .copy_out(&format!("COPY ({query}) TO STDOUT"))
            .await
            .map_err(ProvisionError::db(
                "reading rows to compare",
                format!("{}, table {table}", self.place),
            ))?;
        Ok(Box::pin(stream))
    }
}

async fn compare_shapes(original: &Side, copy: &Side) -> Result<String, ProvisionError> {
    let sql = include_str!("shape.sql");
    let (ours, theirs) = tokio::try_join!(
        original.lines("reading the shape", sql),
        copy.lines("reading the shape", sql)
    )?;
    if let Some(why) = first_shape_difference(&ours, &theirs) {
        return Err(ProvisionError::Differs { why });
    }
    Ok(hex::encode(Sha256::digest(ours.join("\n").as_bytes())))
}

fn first_shape_difference(original: &[String], copy: &[String]) -> Option<String> {
    if original == copy {
        return None;
    }
    // The server writes some expressions differently once they have gone through a dump, with other casts and brackets:
    // `x = ANY ((ARRAY['a'::character varying])::text[])` comes back as `x = ANY (ARRAY[('a'::character varying)::text])`.
    let loosen = |lines: &[String]| {
        let mut pairs: Vec<(String, String)> = lines
            .iter()
            .map(|line| {
                let mut loose = line.replace("::character varying", "").replace("::text", "");
                loose.retain(|c| !matches!(c, '(' | ')' | '[' | ']' | ' ' | '\n'));
                (loose, line.clone())
            })
            .collect();
        pairs.sort();
        pairs
    };
    let (original, copy) = (loosen(original), loosen(copy));
    let has = |lines: &[(String, String)], loose: &str| {
        lines.binary_search_by(|(l, _)| l.as_str().cmp(loose)).is_ok()
    };
    let shown = |line: &str| line.chars().take(200).collect::<String>();
    if let Some((_, line)) = original.iter().find(|(loose, _)| !has(&copy, loose)) {
        return Some(format!("the copy has no \"{}\"", shown(line)));
    }
    if let Some((_, line)) = copy.iter().find(|(loose, _)| !has(&original, loose)) {
        return Some(format!("only the copy has \"{}\"", shown(line)));
    }
    (original.len() != copy.len()).then(|| "a definition stands twice on one side".to_owned())
}

async fn compare_sequences(original: &Side, copy: &Side) -> Result<u64, ProvisionError> {
    let doing = "reading the sequences";
    let names = original
        .lines(
            doing,
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind = 'S' AND n.nspname !~ '^pg_' ORDER BY 1",
        )
        .await?;
    let mut count = 0;
    for name in names {
        let sql = format!("SELECT last_value || ' ' || is_called FROM {name}");
        let (ours, theirs) = tokio::try_join!(original.lines(doing, &sql), copy.lines(doing, &sql))?;
        if ours != theirs {
            let why = format!(
                "sequence {name} stands at {} and in the copy at {}",
                ours.join(""),
                theirs.join("")
            );
            return Err(ProvisionError::Differs { why });
        }
        count += 1;
    }
    Ok(count)
}

async fn compare_rows(
    original: &Side,
    copy: &Side,
    table: String,
    query: &str,
) -> Result<TableDigest, ProvisionError> {
    let reading = |side: &Side| {
        ProvisionError::db(
            "reading rows to compare",
            format!("{}, table {table}", side.place),
        )
    };
    let (mut ours, mut theirs) =
        tokio::try_join!(original.copy_out(&table, query), copy.copy_out(&table, query))?;
    let mut left = ours.try_next().await.map_err(reading(original))?;
    let mut right = theirs.try_next().await.map_err(reading(copy))?;
    let mut hash = Sha256::new();
    let mut rows = 0;
    let differs = |before: u64, why: &str| ProvisionError::Differs {
        why: format!("table {table}, row {} in the order of its key: {why}", before + 1),
    };
    loop {
        match (&mut left, &mut right) {
            (None, None) => break,
            (Some(_), None) => return Err(differs(rows, "the copy lacks it")),
            (None, Some(_)) => return Err(differs(rows, "only the copy has it")),
            (Some(a), Some(b)) => {
                let common = a.len().min(b.len());
                let (a, b) = (a.split_to(common), b.split_to(common));
                if a != b {
                    rows += first_difference(&a, &b);
                    return Err(differs(rows, "it is not the same"));
                }
                rows += newlines(&a);
                hash.update(&a);
            }
        }
        // A chunk is a row, as the server sends them today; nothing here depends on it.
        if left.as_ref().is_some_and(|chunk| chunk.is_empty()) {
            left = ours.try_next().await.map_err(reading(original))?;
        }
        if right.as_ref().is_some_and(|chunk| chunk.is_empty()) {
            right = theirs.try_next().await.map_err(reading(copy))?;
        }
    }
    Ok(TableDigest {
        name: table,
        rows,
        sha256: hex::encode(hash.finalize()),
    })
}

/// COPY's text format escapes a newline within a value, so each one ends a row.
fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&b| u64::from(b == b'\n')).sum()
}

/// How many whole rows two stretches of equal length have in common before they part.
fn first_difference(a: &[u8], b: &[u8]) -> u64 {
    let at = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    newlines(&a[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&t| t.to_owned()).collect()
    }

    #[test]
    fn a_shape_differs_by_what_is_missing_added_or_changed_and_not_by_how_casts_are_written() {
        let a = lines(&[
            "constraint t CHECK (((x)::text = ANY ((ARRAY['a'::character varying])::text[])))",
            "index i",
        ]);
        let b = lines(&[
            "constraint t CHECK (((x)::text = ANY (ARRAY[('a'::character varying)::text])))",
            "index i",
        ]);
        assert_eq!(first_shape_difference(&a, &a), None);
        assert_eq!(first_shape_difference(&a, &b), None);
        let missing = first_shape_difference(&a, &b[..1]).unwrap();
        assert!(missing.contains("the copy has no \"index i\""), "{missing}");
        let added = first_shape_difference(&a[..1], &b).unwrap();
        assert!(added.contains("only the copy has \"index i\""), "{added}");
        assert!(first_shape_difference(&lines(&["a", "a"]), &lines(&["a"])).is_some());
    }

    #[test]
    fn the_row_of_a_difference_is_counted_from_whole_rows() {
        assert_eq!(first_difference(b"1\ta\n2\tb\n3\tc\n", b"1\ta\n2\tb\n3\tx\n"), 2);
        assert_eq!(first_difference(b"x", b"y"), 0);
    }
}
