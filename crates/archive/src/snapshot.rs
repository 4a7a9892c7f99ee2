//! One database in one snapshot, which a dump can share.
//!
//! The checksum of a table's rows is their number and two sums, of 64-bit hashes of each row's text with
//! different seeds: what the server works out by itself, in any order and on several processors. Streaming
//! the rows in the order of their key and hashing the stream took twice as long in a trial, and needs an
//! order that both sides share; what the proof costs beside `pg_restore` is measured by `scripts/bench
//! lifecycle --scenario archive`. Hashing the values and not the text (`hash_record_extended`) is faster
//! still and would prove less: `1.0` and `1.00` are equal as numbers, and are not the same result. What it
//! proves: a row that is missing, added or different in any character changes the sums, except by a chance of
//! 2^-64 and less. It is no proof against somebody who makes up rows to fit; whoever can do that can write
//! the manifest too, and against a changed archive stands the SHA-256 of the file. The hash is the same for
//! one major version on one kind of processor; PostgreSQL has not changed it since 11.

use std::time::Duration;

use pg::ConnectTarget;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::{
    ArchiveError, Contents, Inventory, SequenceDigest, TableDigest,
    contents::{shape_lines, shape_sha256},
    inventory::{LOCALE, Read},
    programs::within,
};

/// The statement that gives a database's shape, a line for each definition; to be run with an empty
/// `search_path`.
pub const SHAPE: &str = include_str!("shape.sql");
/// What there is beside it.
const INVENTORY: &str = include_str!("inventory.sql");

/// A read-only transaction in which the database stands still. It ends with the connection.
pub struct Snapshot {
    client: Client,
    server: String,
    database: String,
    id: String,
    sequences: Vec<(String, String)>,
}

impl Snapshot {
    /// Opens the database that `target` names, exports the snapshot, and reads where the sequences stand:
    /// they do not stand still with it.
    ///
    /// # Errors
    /// [`ArchiveError::Connect`], [`ArchiveError::Db`].
    pub async fn open(target: &ConnectTarget, connect_limit: Duration) -> Result<Self, ArchiveError> {
        let client = pg::connect(target, "tenantry archive", connect_limit).await?;
        let server = target.to_string();
        // How values are written must not depend on a setting; a row that a policy would hide is an error
        // instead.
        client
            .batch_execute(
                "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;
                 SET LOCAL search_path = ''; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL timezone = 'UTC';
                 SET LOCAL intervalstyle = 'postgres'; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex';
                 SET LOCAL row_security = off; SET LOCAL client_encoding = 'UTF8'; SET LOCAL lc_monetary = 'C';
                 SET LOCAL xmlbinary = 'base64'; SET LOCAL quote_all_identifiers = off;
                 SET LOCAL statement_timeout = 0; SET LOCAL client_connection_check_interval = '500ms';
                 SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = '60s'",
            )
            .await
            .map_err(ArchiveError::db("beginning a snapshot", &server))?;
        let mut snapshot = Self {
            client,
            server,
            database: target.database.clone(),
            id: String::new(),
            sequences: Vec::new(),
        };
        let lines = snapshot
            .lines("exporting the snapshot", "SELECT pg_catalog.pg_export_snapshot()")
            .await?;
        snapshot.id = lines.concat();
        snapshot.sequences = snapshot.read_sequences().await?;
        Ok(snapshot)
    }

    /// The snapshot's name, for `pg_dump --snapshot`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How large the database is, in bytes.
    ///
    /// # Errors
    /// [`ArchiveError::Db`].
    pub async fn database_bytes(&self) -> Result<u64, ArchiveError> {
        let sql = "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())";
        let lines = self.lines("asking for the database's size", sql).await?;
        Ok(lines.concat().parse().unwrap_or_default())
    }

    /// The newest version in the laboratory's own migration history; zero without one.
    ///
    /// # Errors
    /// [`ArchiveError::Db`].
    pub async fn schema_version(&self) -> Result<u32, ArchiveError> {
        let doing = "reading the migration history";
        let there = self
            .lines(
                doing,
                // As a migration run makes it: what else has the name is its owner's, and is not read.
                "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
                  WHERE c.oid = pg_catalog.to_regclass('public.refinery_schema_history') AND c.relkind IN ('r', 'p')
                    AND a.attname = 'version' AND a.atttypid = 'pg_catalog.int4'::pg_catalog.regtype",
            )
            .await?;
        if there.is_empty() {
            return Ok(0);
        }
        let sql = "SELECT max(version) FROM public.refinery_schema_history";
        Ok(self.lines(doing, sql).await?.concat().parse().unwrap_or_default())
    }

    /// What a dump carries over beside rows, what it leaves out, and what a restore needs.
    ///
    /// # Errors
    /// [`ArchiveError::Db`].
    pub async fn inventory(&self) -> Result<Inventory, ArchiveError> {
        let mut inventory = self.read_inventory().await?.inventory;
        let database = format!("'{}'", self.database.replace('\'', "''"));
        let locale = self
            .lines("reading the database's locale", &LOCALE.replace("$1", &database))
            .await?
            .concat();
        inventory.locale = serde_json::from_str(&locale).ok();
        Ok(inventory)
    }

    async fn read_inventory(&self) -> Result<Read, ArchiveError> {
        let messages = self
            .client
            .simple_query(INVENTORY)
            .await
            .map_err(ArchiveError::db("listing what the database holds", &self.server))?;
        let mut read = Read::default();
        for message in &messages {
            if let SimpleQueryMessage::Row(row) = message {
                read.take([0, 1, 2, 3].map(|at| row.get(at).unwrap_or_default()));
            }
        }
        Ok(read)
    }

    /// What the database holds, within `limit`. The caller asks after a dump of this snapshot, so that the
    /// sequences are read on both sides of it.
    ///
    /// # Errors
    /// [`ArchiveError::Db`], [`ArchiveError::TookTooLong`].
    pub async fn contents(&self, limit: Duration) -> Result<Contents, ArchiveError> {
        let what = || format!("reading all of {}", self.database);
        // The statement ends soon after the session that is dropped with this.
        within(limit, what, self.read_contents()).await
    }

    async fn read_contents(&self) -> Result<Contents, ArchiveError> {
        let shape = shape_lines(&self.lines("reading the shape", SHAPE).await?);
        let Read { objects, derived, .. } = self.read_inventory().await?;
        let mut tables = Vec::new();
        for (name, query) in self.tables().await? {
            if derived.contains(&name) {
                continue;
            }
            tables.push(self.digest(name, &query).await?);
        }
        let after = self.read_sequences().await?;
        let before = |name: &str| self.sequences.iter().find(|(known, _)| known == name);
        let sequences = after
            .into_iter()
            .map(|(name, to)| SequenceDigest {
                from: before(&name).map_or_else(|| to.clone(), |(_, from)| from.clone()),
                name,
                to,
            })
            .collect();
        Ok(Contents {
            tables,
            sequences,
            shape_sha256: shape_sha256(&shape),
            shape,
            objects: Some(objects),
            derived,
        })
    }

    async fn lines(&self, doing: &'static str, sql: &str) -> Result<Vec<String>, ArchiveError> {
        let messages = self
            .client
            .simple_query(sql)
            .await
            .map_err(ArchiveError::db(doing, &self.server))?;
        Ok(messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            })
            .collect())
    }

    async fn read_sequences(&self) -> Result<Vec<(String, String)>, ArchiveError> {
        let doing = "reading the sequences";
        let names = self
            .lines(
                doing,
                "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.relkind = 'S' AND n.nspname !~ '^pg_' ORDER BY 1",
            )
            .await?;
        let mut sequences = Vec::new();
        for name in names {
            let sql = format!("SELECT last_value || ' ' || is_called FROM {name}");
            let value = self.lines(doing, &sql).await?.concat();
            sequences.push((name, value));
        }
        Ok(sequences)
    }

    /// Every table's name with the query that digests it.
    async fn tables(&self) -> Result<Vec<(String, String)>, ArchiveError> {
        let names = self
            .lines(
                "listing the tables",
                "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                  ORDER BY c.oid::regclass::text COLLATE \"C\"",
            )
            .await?;
        // The text is made once and hashed twice. Without the clock in it the planner would put the
        // expression into both sums, and making the text is most of the work; an OFFSET 0 would keep it out
        // of them too, and the workers as well.
        let digest = |row: &str, from: &str| {
            format!(
                "SELECT pg_catalog.concat_ws(' ', pg_catalog.count(*),
                        coalesce(pg_catalog.sum(pg_catalog.hashtextextended(line COLLATE \"C\", 1)), 0),
                        coalesce(pg_catalog.sum(pg_catalog.hashtextextended(line COLLATE \"C\", 2)), 0))
                   FROM (SELECT CASE WHEN pg_catalog.clock_timestamp() IS NOT NULL THEN {row} END AS line FROM {from}) AS rows"
            )
        };
        let mut tables: Vec<(String, String)> = names
            .into_iter()
            .map(|name| {
                // The alias is no column's name. The row is cast as a record of no name: for the table's own
                // type its owner can have made a cast, a function of theirs that would run here as the
                // server's administrator.
                let query = digest(
                    "ROW(\"tenantry row\".*)::text",
                    &format!("ONLY {name} AS \"tenantry row\""),
                );
                (name, query)
            })
            .collect();
        let object = "(oid::text || ' ' || encode(pg_catalog.sha256(pg_catalog.lo_get(oid)), 'hex'))";
        tables.push((
            "(large objects)".to_owned(),
            digest(object, "pg_catalog.pg_largeobject_metadata"),
        ));
        Ok(tables)
    }

    async fn digest(&self, name: String, query: &str) -> Result<TableDigest, ArchiveError> {
        let line = self.lines("reading rows to compare", query).await?.concat();
        let (rows, checksum) = line.split_once(' ').unwrap_or_default();
        Ok(TableDigest {
            name,
            rows: rows.parse().unwrap_or_default(),
            checksum: checksum.to_owned(),
        })
    }
}
