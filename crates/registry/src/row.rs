//! Reading rows: a value that does not map names its table, column and row instead of panicking.

use std::{fmt::Display, str::FromStr};

use model::SchemaVersion;
use tokio_postgres::{Row, types::FromSql};
use uuid::Uuid;

use crate::RegistryError;

/// A row with the name it has in messages.
pub(crate) struct Reader<'r> {
    row: &'r Row,
    table: &'static str,
    key: &'static str,
}

impl<'r> Reader<'r> {
    pub(crate) fn new(row: &'r Row, table: &'static str, key: &'static str) -> Self {
        Self { row, table, key }
    }

    /// The value of a column whose SQL type fits `T`.
    pub(crate) fn get<T: FromSql<'r>>(&self, column: &'static str) -> Result<T, RegistryError> {
        self.row.try_get(column).map_err(|e| self.corrupt(column, e))
    }

    /// An id: a uuid that stands for one kind of thing.
    pub(crate) fn id<T: From<Uuid>>(&self, column: &'static str) -> Result<T, RegistryError> {
        Ok(T::from(self.get::<Uuid>(column)?))
    }

    /// An id that may be absent.
    pub(crate) fn id_opt<T: From<Uuid>>(&self, column: &'static str) -> Result<Option<T>, RegistryError> {
        Ok(self.get::<Option<Uuid>>(column)?.map(T::from))
    }

    /// A text that must parse.
    pub(crate) fn parse<T: FromStr<Err: Display>>(&self, column: &'static str) -> Result<T, RegistryError> {
        self.with(column, |text: &str| text.parse())
    }

    /// A text that must parse where it is present.
    pub(crate) fn parse_opt<T: FromStr<Err: Display>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, RegistryError> {
        self.with(column, |text: Option<&str>| text.map(str::parse).transpose())
    }

    /// A value that a function must accept.
    pub(crate) fn with<T, V: FromSql<'r>, E: Display>(
        &self,
        column: &'static str,
        map: impl FnOnce(V) -> Result<T, E>,
    ) -> Result<T, RegistryError> {
        map(self.get(column)?).map_err(|e| self.corrupt(column, e))
    }

    /// A schema version: an integer that is not negative.
    pub(crate) fn version(&self, column: &'static str) -> Result<SchemaVersion, RegistryError> {
        self.with(column, |number: i32| {
            u32::try_from(number).map(SchemaVersion::new)
        })
    }

    /// A count: an integer that is not negative.
    pub(crate) fn count(&self, column: &'static str) -> Result<u32, RegistryError> {
        self.with(column, |n: i32| u32::try_from(n))
    }

    fn corrupt(&self, column: &'static str, reason: impl Display) -> RegistryError {
        let key = self.key;
        let id = (self.row.try_get::<_, Uuid>(key).map(|id| id.to_string()))
            .or_else(|_| self.row.try_get::<_, i64>(key).map(|id| id.to_string()))
            .or_else(|_| self.row.try_get::<_, String>(key))
            .unwrap_or_else(|_| "(no key)".to_owned());
        RegistryError::CorruptRow {
            table: self.table,
            column,
            id,
            reason: reason.to_string(),
        }
    }
}
