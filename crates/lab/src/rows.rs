//! Reading rows: one that cannot be mapped names its table, column and key.

use tokio_postgres::{Row, types::FromSql};
use uuid::Uuid;

use crate::LabError;

/// A row of a named table or query whose first column is its key.
pub(crate) struct Reader<'a> {
    table: &'static str,
    row: &'a Row,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(table: &'static str, row: &'a Row) -> Self {
        Self { table, row }
    }

    pub(crate) fn get<T: FromSql<'a>>(&self, column: &'static str) -> Result<T, LabError> {
        self.row.try_get(column).map_err(|_| self.corrupt(column))
    }

    /// A column of words or ages stored as text.
    pub(crate) fn parse<T: std::str::FromStr>(&self, column: &'static str) -> Result<T, LabError> {
        let text: &str = self.get(column)?;
        text.parse().map_err(|_| self.corrupt(column))
    }

    /// What to say of a column that holds what no code of ours writes.
    pub(crate) fn corrupt(&self, column: &'static str) -> LabError {
        LabError::CorruptRow {
            table: self.table,
            column,
            id: self.key(),
        }
    }

    fn key(&self) -> String {
        let uuid = self.row.try_get::<_, Uuid>(0).map(|id| id.to_string());
        let text = || self.row.try_get::<_, String>(0);
        uuid.or_else(|_| text())
            .unwrap_or_else(|_| "with an unreadable key".to_owned())
    }
}
