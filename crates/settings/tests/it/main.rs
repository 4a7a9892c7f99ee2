//! Settings from the outside: what wins, what is refused and with which words.

#[cfg(test)]
mod layers;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod table;

use std::path::PathBuf;

use settings::{Settings, SettingsError};

/// Loads with this file and exactly these variables; HOME is always there.
fn load(toml: &str, env: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = write(&dir, toml);
    Settings::load(Some(&file), variables(env))
}

fn write(dir: &tempfile::TempDir, toml: &str) -> PathBuf {
    let file = dir.path().join("t.toml");
    std::fs::write(&file, toml).expect("a file in a temporary directory");
    file
}

fn variables(env: &[(&str, &str)]) -> Vec<(String, String)> {
    let home = [("HOME", "/home/ada")];
    home.iter()
        .chain(env)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
