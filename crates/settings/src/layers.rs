//! The layers (defaults, file, credentials, environment), put on top of each other with figment, which
//! remembers for each value where it came from.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider, Source,
    providers::{Format, Toml},
    value::{Dict, Map, Value},
};

use crate::{
    DefaultValue, KEYS, Key, OTHER_VARIABLES, Problem, SECRET_VARIABLES, SettingsError,
    secrets::{credentials, file_variable, named_files},
};

/// Where a file is looked for when none is named.
const USUAL_FILES: [&str; 2] = ["./tenantry.toml", "/etc/tenantry/tenantry.toml"];

/// Prefixes of variables that belong to us, so that an unknown one is a mistake and not another program's.
/// The two exceptions steer tests.
const OWN_PREFIXES: [&str; 3] = ["TENANTRY_", "MASTER_PG", "TENANT_PG"];
const TEST_PREFIXES: [&str; 2] = ["TENANTRY_TEST_", "TENANTRY_FAULT_"];

/// The variables that count: an empty one is as good as unset, as with libpq's own.
pub(crate) fn environment(env: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    env.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// The file to read, if any: the flag's, the variable's, else the first usual one that exists.
pub(crate) fn file_of(
    flag: Option<&Path>,
    env: &BTreeMap<String, String>,
) -> Result<Option<PathBuf>, SettingsError> {
    let variable = env.get("TENANTRY_CONFIG").map(PathBuf::from);
    let named = flag
        .map(|path| (path.to_path_buf(), "named by --config"))
        .or_else(|| variable.map(|path| (path, "named by TENANTRY_CONFIG")));
    let found = named.or_else(|| {
        let usual = USUAL_FILES.iter().map(PathBuf::from).find(|path| path.exists());
        usual.map(|path| (path, "found in a usual place"))
    });
    let Some((path, named_by)) = found else {
        return Ok(None);
    };
    match std::fs::read_to_string(&path) {
        Ok(_) => Ok(Some(path)),
        Err(source) => Err(SettingsError::File {
            path,
            named_by,
            source,
        }),
    }
}

/// All layers merged; what is in the file must at least be TOML.
pub(crate) fn merge(
    state_dir: Option<&str>,
    file: Option<&Path>,
    env: &BTreeMap<String, String>,
) -> Result<Figment, SettingsError> {
    let mut figment = Figment::new();
    for key in KEYS {
        let value = match key.default {
            DefaultValue::Number(number) => Some(Value::from(number)),
            DefaultValue::Text(text) => Some(Value::from(text)),
            DefaultValue::Derived(_) if key.name == "paths.state_dir" => state_dir.map(Value::from),
            DefaultValue::Derived(_) | DefaultValue::Unset(_) => None,
        };
        figment = merge_one(figment, key, value, Metadata::named("default"));
    }
    if let Some(path) = file {
        let toml = Toml::file_exact(path);
        if let Err(error) = toml.data() {
            return Err(SettingsError::Syntax {
                path: path.to_path_buf(),
                message: error.to_string(),
            });
        }
        figment = figment.merge(toml);
    }
    for secret in credentials(env)?.into_iter().chain(named_files(env)?) {
        figment = merge_one(
            figment,
            secret.key,
            Some(Value::from(secret.value)),
            Metadata::named(secret.source),
        );
    }
    for key in KEYS {
        let value = env.get(key.env).map(|text| from_text(key, text));
        figment = merge_one(
            figment,
            key,
            value,
            Metadata::named(format!("variable {}", key.env)),
        );
    }
    Ok(figment)
}

/// A variable is always text; where the key wants a number, a text that is one counts as one.
fn from_text(key: &Key, text: &str) -> Value {
    match (key.accept, text.trim().parse::<i64>()) {
        (crate::Accept::Number { .. }, Ok(number)) => Value::from(number),
        _ => Value::from(text),
    }
}

fn merge_one(figment: Figment, key: &Key, value: Option<Value>, metadata: Metadata) -> Figment {
    match value {
        Some(value) => figment.merge(One {
            key: key.name,
            value,
            metadata,
        }),
        None => figment,
    }
}

/// A provider of one value, so that figment's provenance names the very variable.
struct One {
    key: &'static str,
    value: Value,
    metadata: Metadata,
}

impl Provider for One {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = figment::util::nest(self.key, self.value.clone());
        let dict = nested.into_dict().unwrap_or_default();
        Ok(Profile::Default.collect(dict))
    }
}

/// Where the value under `path` came from, for people.
pub(crate) fn source_of(figment: &Figment, path: &str) -> String {
    let Some(metadata) = figment.find_metadata(path) else {
        return "unknown".to_owned();
    };
    match &metadata.source {
        Some(Source::File(file)) => format!("file {}", file.display()),
        _ => metadata.name.to_string(),
    }
}

/// Variables that look like ours and are not.
pub(crate) fn unknown_variables(env: &BTreeMap<String, String>) -> Vec<Problem> {
    let own = |name: &str| {
        OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            && !TEST_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let known: Vec<&'static str> = KEYS
        .iter()
        .map(|key| key.env)
        .chain(OTHER_VARIABLES.iter().copied())
        .collect();
    let secrets = KEYS
        .iter()
        .filter(|key| key.accept.is_secret())
        .map(|key| key.env);
    let files: Vec<String> = secrets.chain(SECRET_VARIABLES).map(file_variable).collect();
    env.keys()
        .filter(|name| own(name) && !known.contains(&name.as_str()) && !files.contains(name))
        .map(|name| Problem::Unknown {
            name: name.clone(),
            source: "environment".to_owned(),
            nearest: nearest(name, known.iter().copied()),
        })
        .collect()
}

/// The most similar name, if one is similar at all.
pub(crate) fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    /// Jaro-Winkler similarity from which a name is offered; clap uses 0.7 for words far shorter than these.
    const SIMILAR: f64 = 0.85;
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}
