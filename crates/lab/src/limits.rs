//! How long texts and files may be. The API's description ([`crate::schema`]) and the checks both read it here.

/// Most characters of a test's code.
pub(crate) const CODE_MAX: usize = 16;
/// Most characters of a section or a kind of specimen.
pub(crate) const GROUP_MAX: usize = 64;
/// Most characters of a value that is a text.
pub(crate) const TEXT_VALUE_MAX: usize = 4_000;
/// Most characters of the beginning of accession numbers.
pub(crate) const ACCESSION_PREFIX_MAX: usize = 6;
/// Most characters of a number or code that others gave.
pub(crate) const IDENTIFIER_MAX: usize = 64;
/// Most characters of a field of an imported row.
pub(crate) const IMPORT_FIELD_MAX: usize = 4_000;
/// Most characters of an instrument's name.
pub(crate) const INSTRUMENT_MAX: usize = 100;
