//! The merged layers after the check: from here on, a value that is set is an accepted one.

use std::path::PathBuf;

use figment::{
    Figment,
    value::{Dict, Value},
};
use secrecy::SecretString;

use crate::{
    KEYS, Key, Problem,
    accept::number,
    layers::{nearest, source_of},
};

/// A checked value with where it came from.
pub(crate) struct Found {
    pub(crate) value: Value,
    pub(crate) source: String,
}

/// All values that are set, in the order of [`KEYS`].
pub(crate) struct Values(Vec<(&'static Key, Option<Found>)>);

impl Values {
    /// Looks every value up and tells all that is wrong.
    pub(crate) fn check(figment: &Figment, problems: &mut Vec<Problem>) -> Self {
        let all: Dict = figment.extract().unwrap_or_default();
        for path in leaves("", &all) {
            if !KEYS.iter().any(|key| key.name == path) {
                problems.push(Problem::Unknown {
                    source: source_of(figment, &path),
                    nearest: nearest(&path, KEYS.iter().map(|key| key.name)),
                    name: path,
                });
            }
        }
        let mut values = Vec::with_capacity(KEYS.len());
        for key in KEYS {
            let found = figment.find_value(key.name).ok().map(|value| Found {
                value,
                source: source_of(figment, key.name),
            });
            if let Some(found) = &found
                && !key.accept.admits(&found.value)
            {
                problems.push(Problem::Value {
                    key: key.name,
                    given: (!key.accept.is_secret()).then(|| shown(&found.value)),
                    source: found.source.clone(),
                    accepted: key.accept.describe(),
                });
            }
            values.push((key, found));
        }
        Self(values)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Key, Option<&Found>)> {
        self.0.iter().map(|(key, found)| (*key, found.as_ref()))
    }

    pub(crate) fn set(&mut self, name: &str, value: Value, source: &str) {
        if let Some((_, found)) = self.0.iter_mut().find(|(key, _)| key.name == name) {
            *found = Some(Found {
                value,
                source: source.to_owned(),
            });
        }
    }

    pub(crate) fn found(&self, name: &str) -> Option<&Found> {
        debug_assert!(KEYS.iter().any(|key| key.name == name), "{name} is not in KEYS");
        self.0
            .iter()
            .find(|(key, _)| key.name == name)
            .and_then(|(_, found)| found.as_ref())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.found(name).and_then(|found| found.value.as_str())
    }

    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name)
            .map(|text| std::path::absolute(text).unwrap_or_else(|_| PathBuf::from(text)))
    }

    pub(crate) fn secret(&self, name: &str) -> Option<SecretString> {
        self.text(name).map(SecretString::from)
    }

    pub(crate) fn parsed<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text(name).and_then(|text| text.parse().ok())
    }

    /// A number; `None` when it is not set. The accepted range lies inside `T`, which a test checks for every
    /// key.
    pub(crate) fn number<T: TryFrom<i64>>(&self, name: &str) -> Option<T> {
        let number = self.found(name).and_then(|found| number(&found.value))?;
        T::try_from(number).ok()
    }
}

/// The paths of all values that are not tables; an empty table counts as a value, for its name may be wrong.
fn leaves(prefix: &str, dict: &Dict) -> Vec<String> {
    let mut paths = Vec::new();
    for (name, value) in dict {
        let path = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        let is_section = KEYS.iter().any(|key| {
            key.name
                .split_once('.')
                .is_some_and(|(section, _)| section == path)
        });
        match value {
            Value::Dict(_, inner) if is_section || !inner.is_empty() => paths.extend(leaves(&path, inner)),
            _ => paths.push(path),
        }
    }
    paths
}

/// A value as a person would write it in the file.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        Value::Bool(_, yes) => yes.to_string(),
        Value::Num(..) => number(value)
            .map(|n| n.to_string())
            .or_else(|| value.to_num().and_then(|n| n.to_f64()).map(|n| n.to_string()))
            .unwrap_or_else(|| "a number out of range".to_owned()),
        Value::Array(..) => "a list".to_owned(),
        Value::Dict(..) => "a table".to_owned(),
        Value::Char(_, c) => c.to_string(),
        Value::Empty(..) => "nothing".to_owned(),
    }
}
