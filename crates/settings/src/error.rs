use std::{fmt, path::PathBuf};

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file that was asked for by name cannot be read.
    #[error("the configuration file {} cannot be read ({named_by}): {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Who named it: the flag, the variable, or the place where it is looked for.
        named_by: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {} is not valid TOML: {message}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A file that is to hold a secret cannot be read.
    #[error("the secret in {} cannot be read (named by {named_by}): {source}", .path.display())]
    SecretFile {
        /// The file.
        path: PathBuf,
        /// The variable that led to it.
        named_by: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Keys or values that are not accepted, all of them.
    #[error("the configuration is refused:{}", list(.0))]
    Refused(Vec<Problem>),
    /// No directory for state could be derived from the environment.
    #[error(
        "no place for state: HOME is not set; set TENANTRY_STATE_DIR to a directory that this user may write"
    )]
    NoStateDir,
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A value that the key does not accept.
    Value {
        /// The key.
        key: &'static str,
        /// The value as given; `None` for a secret.
        given: Option<String>,
        /// Where it came from.
        source: String,
        /// What would be accepted.
        accepted: String,
    },
    /// A secret is given both as a value and as a file.
    Twice {
        /// The variable with the value.
        variable: &'static str,
        /// The variable with the file's name.
        file_variable: String,
    },
    /// A key or variable that does not exist.
    Unknown {
        /// Its name as given.
        name: String,
        /// Where it came from.
        source: String,
        /// The nearest name that exists.
        nearest: Option<&'static str>,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value {
                key,
                given,
                source,
                accepted,
            } => {
                let given = given.as_deref().unwrap_or("***");
                write!(f, "{key} = {given} ({source}) is not accepted; use {accepted}")
            }
            Self::Twice {
                variable,
                file_variable,
            } => write!(
                f,
                "{variable} and {file_variable} are both set; unset one of them"
            ),
            Self::Unknown {
                name,
                source,
                nearest,
            } => {
                write!(f, "{name} ({source}) is not a known name; ")?;
                if let Some(nearest) = nearest {
                    write!(f, "did you mean {nearest}? ")?;
                }
                f.write_str("`tenantctl config keys` lists all")
            }
        }
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}
