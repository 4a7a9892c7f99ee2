//! Reading tables of a database whose owner is not trusted yet.

use migrator::UntrustedTableError;
use pg::ConnectTarget;
use tokio_postgres::{Client, binary_copy::BinaryCopyOutRow};

use crate::ProvisionError;

/// A table of a laboratory's name that is not a laboratory's: whoever named the database is told so.
pub(super) fn another_shape(
    target: &ConnectTarget,
    table: &str,
    error: &dyn std::fmt::Display,
) -> ProvisionError {
    ProvisionError::NotAdoptable {
        database: target.database.clone(),
        why: format!("its table {table} is not a laboratory's: {error}; is it the right database?"),
    }
}

/// Rows of a table in a database whose owner is not trusted yet; none where there is no such table.
pub(crate) async fn untrusted_rows(
    client: &Client,
    target: &ConnectTarget,
    table: &str,
    columns: &[&str],
) -> Result<Vec<BinaryCopyOutRow>, ProvisionError> {
    match migrator::untrusted_table_rows(client, table, columns).await {
        Ok(rows) => Ok(rows.unwrap_or_default()),
        Err(UntrustedTableError::Shape(why)) => Err(another_shape(target, table, &why)),
        Err(UntrustedTableError::Db(error)) => {
            Err(ProvisionError::db("looking at the laboratory", target)(error))
        }
    }
}
