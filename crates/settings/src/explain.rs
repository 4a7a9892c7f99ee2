//! What is in force and why, for people and programs; secrets as `***`.

use std::fmt::Write as _;

use crate::{
    DefaultValue, KEYS, Key,
    values::{Values, shown},
};

/// One key with its value in force.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Explained {
    /// Its name in the file.
    pub key: &'static str,
    /// The value; `***` for a secret that is set; `None` when nothing is set.
    pub value: Option<String>,
    /// `default`, `file <path>` or `variable <NAME>`.
    pub source: String,
    /// Its name in the environment.
    pub env: &'static str,
    /// What it means that nothing is set.
    pub unset_means: Option<&'static str>,
}

pub(crate) fn explain(values: &Values) -> Vec<Explained> {
    let one = |(key, found): (&'static Key, Option<&crate::values::Found>)| Explained {
        key: key.name,
        value: found.map(|found| {
            if key.accept.is_secret() {
                "***".to_owned()
            } else {
                shown(&found.value)
            }
        }),
        source: found.map_or_else(|| "default".to_owned(), |found| found.source.clone()),
        env: key.env,
        unset_means: match key.default {
            DefaultValue::Unset(meaning) if found.is_none() => Some(meaning),
            _ => None,
        },
    };
    values.iter().map(one).collect()
}

impl Key {
    /// The default in words.
    #[must_use]
    pub fn default_text(&self) -> String {
        match self.default {
            DefaultValue::Number(number) => number.to_string(),
            DefaultValue::Text(text) | DefaultValue::Derived(text) | DefaultValue::Unset(text) => {
                text.to_owned()
            }
        }
    }
}

/// The table of all keys for docs/configuration.md.
#[must_use]
pub fn markdown_table() -> String {
    let mut table =
        String::from("| key | environment | default | accepts | meaning |\n|---|---|---|---|---|\n");
    for key in KEYS {
        let default = match key.default {
            DefaultValue::Number(_) | DefaultValue::Text(_) => format!("`{}`", key.default_text()),
            DefaultValue::Derived(text) | DefaultValue::Unset(text) => text.replace('<', "&lt;"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| `{}` | `{}` | {default} | {} | {} |",
            key.name,
            key.env,
            key.accept.describe().replace('|', "\\|"),
            key.meaning
        );
    }
    table
}
