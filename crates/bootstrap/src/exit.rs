//! How a program ends: its exit code and its last words, the same for `tenantctl` and `tenantd`, so that a
//! script or a service manager can tell a wrong setting (which a restart does not cure) from a server that
//! does not answer (which it may).

use std::error::Error;

use registry::RegistryError;
use settings::SettingsError;

use crate::PlatformError;

/// What kind of end it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Something failed.
    Failed,
    /// What was asked for, or a setting, cannot be like this.
    Usage,
    /// Some were done and some not.
    Partly,
    /// Nothing has that name.
    NotFound,
    /// The state does not allow it.
    Conflict,
    /// A server cannot be reached, or takes no writes.
    Unreachable,
    /// A signal came.
    Interrupted,
}

impl Exit {
    /// The exit code of the process.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Partly => 3,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::Unreachable => 6,
            // 128 and the number of SIGINT, as shells do.
            Self::Interrupted => 130,
        }
    }

    /// Its name where a program reads it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Partly => "partly_failed",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Unreachable => "unreachable",
            Self::Interrupted => "interrupted",
        }
    }

    /// The end that an error of the settings, the registry or the platform means; `None` for any other error.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        if error.is::<SettingsError>() {
            return Some(Self::Usage);
        }
        if let Some(error) = error.downcast_ref::<RegistryError>() {
            return Some(Self::of_registry(error));
        }
        match error.downcast_ref::<PlatformError>()? {
            PlatformError::Registry(inner) => Some(Self::of_registry(inner)),
            PlatformError::BudgetTooLarge { .. } => Some(Self::Usage),
            PlatformError::Unfit { .. }
            | PlatformError::OtherRegistry { .. }
            | PlatformError::OtherNamespace { .. }
            | PlatformError::Moved { .. } => Some(Self::Conflict),
            other if other.is_unreachable() => Some(Self::Unreachable),
            _ => Some(Self::Failed),
        }
    }

    /// The end that an error of the registry means.
    #[must_use]
    pub fn of_registry(error: &RegistryError) -> Self {
        use RegistryError as R;
        match error {
            R::Unavailable { .. } | R::ReadOnly { .. } => Self::Unreachable,
            R::Db { source, .. } if pg::is_read_only(source) => Self::Unreachable,
            R::NotFound { .. } | R::UnknownServer { .. } => Self::NotFound,
            R::SlugTaken { .. }
            | R::DatabaseTaken { .. }
            | R::EmailTaken { .. }
            | R::Illegal(_)
            | R::NotARegistry { .. }
            | R::OperationInProgress { .. }
            | R::IdempotencyKeyUsed { .. }
            | R::LeaseLost { .. }
            | R::NotReopenable { .. }
            | R::NotCancellable { .. }
            | R::NotWaiting { .. } => Self::Conflict,
            R::CorruptRow { .. } | R::VersionMismatch { .. } | R::Migrate { .. } | R::Db { .. } => {
                Self::Failed
            }
        }
    }
}

/// An error with its causes on one line. Many errors say their cause themselves: what was said already is not
/// said again.
#[must_use]
pub fn error_text(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // An error of the driver says all of its causes at once, and in words that are not those of its own
        // `Display`.
        let driver = pg::described_cause(error);
        cause = error.source().filter(|_| driver.is_none());
        let said = driver.unwrap_or_else(|| error.to_string());
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Layer {
        said: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layers(texts: &[&'static str]) -> Layer {
        let (said, rest) = texts.split_first().expect("at least one text");
        let source = (!rest.is_empty()).then(|| Box::new(layers(rest)));
        Layer { said, source }
    }

    #[test]
    fn a_cause_is_said_once() {
        let repeated = layers(&["reading failed: it is full", "it is full", "no space left"]);
        assert_eq!(error_text(&repeated), "reading failed: it is full: no space left");
        let silent = layers(&["reading failed", "it is full"]);
        assert_eq!(error_text(&silent), "reading failed: it is full");
    }
}
