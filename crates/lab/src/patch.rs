//! Fields of a change. Absent means "stays", null means "clear it"; where there is nothing that a cleared field could mean,
//! null is refused, for taking it as absent would answer "done" to what was not done.

use serde::{Deserialize, Deserializer, de::Error};

/// For a field that can be cleared: with `#[serde(default)]`, absent is `None` and null is `Some(None)`.
pub(crate) fn clearable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    field: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(field).map(Some)
}

/// For a field that always holds something: null is refused.
pub(crate) fn kept<'de, T: Deserialize<'de>, D: Deserializer<'de>>(field: D) -> Result<Option<T>, D::Error> {
    match Option::deserialize(field)? {
        Some(value) => Ok(Some(value)),
        None => Err(D::Error::custom(
            "null for a field that cannot be cleared; leave it out to keep what it holds",
        )),
    }
}
