//! Fields of a change. Absent means "stays", null means "clear it"; where there is nothing that a cleared
//! field could mean, null is refused, for taking it as absent would answer "done" to what was not done.

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

/// As [`kept`], for a value that is read as a stricter type of its own.
pub(crate) fn kept_as<'de, W: Deserialize<'de> + Into<T>, T, D: Deserializer<'de>>(
    field: D,
) -> Result<Option<T>, D::Error> {
    kept::<W, D>(field).map(|value| value.map(W::into))
}

/// A value that must be there, read as a stricter type of its own.
pub(crate) fn given<'de, W: Deserialize<'de> + Into<T>, T, D: Deserializer<'de>>(
    field: D,
) -> Result<T, D::Error> {
    W::deserialize(field).map(W::into)
}

/// With `#[serde(default)]`: a value that may be absent or null, read as a stricter type of its own.
pub(crate) fn optional<'de, W: Deserialize<'de> + Into<T>, T, D: Deserializer<'de>>(
    field: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::<W>::deserialize(field)?.map(W::into))
}
