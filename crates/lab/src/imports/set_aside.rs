//! Rows of a file that do not land: what was read of them, and why.

use crate::{Comparator, schema};

/// Most rows of a file, without blank lines and the CSV's header.
pub const IMPORT_ROWS_MAX: usize = 50_000;

/// One row of a file: a line of NDJSON is such an object, and the columns of CSV have these names. `code` or
/// `loinc` must be there.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ImportRow)]
pub struct Fields {
    /// The specimen's barcode.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = schema::ImportKey)]
    pub(super) barcode: Option<String>,
    /// The test, by its code,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::ImportText>)]
    pub(super) code: Option<String>,
    /// or by its LOINC code.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::ImportText>)]
    pub(super) loinc: Option<String>,
    /// The value; absent, empty or a word such as `NA` when nothing was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::ImportValue>)]
    pub(super) value: Option<String>,
    /// What stands before the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Comparator>)]
    pub(super) comparator: Option<String>,
    /// The test's unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::ImportText>)]
    pub(super) unit: Option<String>,
    /// What measured it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Instrument>)]
    pub(super) instrument: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Timestamp>)]
    pub(super) resulted_at: Option<String>,
}

/// A row that cannot land, before it is stored.
#[derive(Clone, PartialEq)]
pub(crate) struct SetAside {
    pub(super) line: i32,
    pub(super) raw: String,
    pub(super) code: String,
    pub(super) reason: String,
    /// What was read of it, to be tried again; absent when it cannot be read.
    pub(super) fields: Option<Fields>,
}
