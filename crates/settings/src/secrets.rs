//! Secrets that stand in files: the file that `<VARIABLE>_FILE` names, as container images have it, and
//! systemd's credentials (<https://systemd.io/CREDENTIALS/>), whose names are the keys'.
//!
//! A secret in the environment is inherited by every child process and shows in `/proc`; one in a file is
//! not.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
};

use crate::{KEYS, Key, Problem, SettingsError};

/// The largest file that is taken for a secret. A key file of another kind, named by mistake, is larger.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Where systemd puts a service's credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// The secrets that are no keys: those that commands read from their own variables.
pub const SECRET_VARIABLES: [&str; 2] = ["TENANTRY_ADMIN_PASSWORD", "TENANTRY_OPERATOR_PASSWORD"];

/// A secret and where it came from.
pub(crate) struct FileSecret {
    pub(crate) key: &'static Key,
    pub(crate) value: String,
    pub(crate) source: String,
}

/// The variable that names the file of another variable's value.
#[must_use]
pub fn file_variable(variable: &str) -> String {
    format!("{variable}_FILE")
}

/// The value of a variable, or of the file that `<VARIABLE>_FILE` names; `None` when neither is set.
///
/// # Errors
/// [`SettingsError::SecretFile`] when the file cannot be read; [`SettingsError::Refused`] when both are set.
pub fn secret_variable(
    variable: &'static str,
    env: &BTreeMap<String, String>,
) -> Result<Option<String>, SettingsError> {
    let named = file_variable(variable);
    match (env.get(variable), env.get(&named)) {
        (Some(_), Some(_)) => Err(SettingsError::Refused(vec![Problem::Twice {
            variable,
            file_variable: named,
        }])),
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(path)) => read(Path::new(path), &named).map(Some),
        (None, None) => Ok(None),
    }
}

/// The secrets among systemd's credentials.
pub(crate) fn credentials(env: &BTreeMap<String, String>) -> Result<Vec<FileSecret>, SettingsError> {
    let Some(directory) = env.get(CREDENTIALS_DIRECTORY).map(PathBuf::from) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for key in KEYS.iter().filter(|key| key.accept.is_secret()) {
        let path = directory.join(key.name);
        if path.exists() {
            found.push(FileSecret {
                key,
                value: read(&path, CREDENTIALS_DIRECTORY)?,
                source: format!("credential {}", key.name),
            });
        }
    }
    Ok(found)
}

/// The secrets in the files that variables name.
pub(crate) fn named_files(env: &BTreeMap<String, String>) -> Result<Vec<FileSecret>, SettingsError> {
    let mut found = Vec::new();
    for key in KEYS.iter().filter(|key| key.accept.is_secret()) {
        if let Some(value) = secret_variable(key.env, env)?
            && env.get(key.env).is_none()
        {
            found.push(FileSecret {
                key,
                value,
                source: format!("variable {}", file_variable(key.env)),
            });
        }
    }
    Ok(found)
}

/// The text of a file without the line end that editors and `echo` add.
fn read(path: &Path, named_by: &str) -> Result<String, SettingsError> {
    let failed = |source| SettingsError::SecretFile {
        path: path.to_path_buf(),
        named_by: named_by.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    let read = file
        .take(SECRET_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if u64::try_from(read).is_ok_and(|read| read > SECRET_BYTES_MAX) {
        return Err(failed(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!("it has more than {SECRET_BYTES_MAX} bytes, which no password has"),
        )));
    }
    let trimmed = text.strip_suffix('\n').unwrap_or(&text);
    let trimmed = trimmed.strip_suffix('\r').unwrap_or(trimmed);
    if trimmed.is_empty() {
        // A setting that names a file is meant to give a secret: without one the server's refusal would blame
        // the password.
        let empty = std::io::Error::new(std::io::ErrorKind::InvalidData, "the file is empty");
        return Err(failed(empty));
    }
    Ok(trimmed.to_owned())
}
