use std::time::Duration;

use pg::ConnectTarget;
use tokio_postgres::{Client, Transaction};

use crate::ExportError;

/// Makes a transaction that has just begun read one state of the database to its end, and write nothing. It
/// must be its first statement.
///
/// # Errors
/// [`ExportError::Db`].
pub async fn snapshot(txn: &Transaction<'_>) -> Result<(), ExportError> {
    txn.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .await
        .map_err(ExportError::db("beginning a snapshot"))
}

/// How values are written must not depend on a setting, and a row that a policy would hide is an error
/// instead. One statement reads a whole table: it may take as long as the export may.
pub(crate) async fn settle(txn: &Transaction<'_>) -> Result<(), ExportError> {
    txn.batch_execute(
        "SET LOCAL search_path = ''; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL timezone = 'UTC';
         SET LOCAL intervalstyle = 'iso_8601'; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex';
         SET LOCAL row_security = off; SET LOCAL client_encoding = 'UTF8'; SET LOCAL statement_timeout = 0;
         SET LOCAL standard_conforming_strings = on; SET LOCAL lc_monetary = 'C'; SET LOCAL xmloption = 'content';
         SET LOCAL client_connection_check_interval = '500ms'",
    )
    .await
    .map_err(ExportError::db("preparing to export"))
}

/// A connection of its own to the database that is exported. Dropping it ends what it does.
pub struct Source {
    client: Client,
}

impl Source {
    /// Connects within `limit`.
    ///
    /// # Errors
    /// [`ExportError::Connect`].
    pub async fn connect(target: &ConnectTarget, limit: Duration) -> Result<Self, ExportError> {
        let client = pg::connect(target, "tenantry export", limit).await?;
        Ok(Self { client })
    }

    /// Begins a snapshot.
    ///
    /// # Errors
    /// [`ExportError::Db`].
    pub async fn begin(&mut self) -> Result<Transaction<'_>, ExportError> {
        let txn = self
            .client
            .transaction()
            .await
            .map_err(ExportError::db("beginning a transaction"))?;
        snapshot(&txn).await?;
        Ok(txn)
    }
}
