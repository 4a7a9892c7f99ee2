//! What a command works with, opened as far as it needs.

use std::{fs, os::unix::fs::MetadataExt as _};

use bootstrap::Platform;
use indicatif::MultiProgress;
use model::Reason;
use provisioner::RequestedBy;
use registry::RegistryClient;
use settings::Settings;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, filter::filter_fn, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{cli::Global, output::Out};

/// Settings, the platform and how to speak.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) platform: Platform,
    pub(crate) out: Out,
    /// What is drawn on the terminal at the moment, so that several operations share it.
    pub(crate) bars: MultiProgress,
}

/// Reads the settings from the file that the flag names, or the usual ones, and the environment.
pub(crate) fn settings(global: &Global) -> anyhow::Result<Settings> {
    // A variable that is not text cannot be one of ours with a valid value; it is refused only if it has our
    // name.
    let env = std::env::vars_os().map(|(name, value)| {
        (
            name.to_string_lossy().into_owned(),
            value.to_string_lossy().into_owned(),
        )
    });
    Ok(Settings::load(global.config.as_deref(), env)?)
}

impl Context {
    /// Opens an installation that is ready for work.
    pub(crate) async fn open(global: &Global, out: Out) -> anyhow::Result<Self> {
        let settings = settings(global)?;
        Platform::installed(&settings)?;
        let context = Self::open_any(settings, out).await?;
        match context.platform.ready().await {
            Ok(()) => Ok(context),
            Err(error) => {
                context.close().await?;
                Err(error.into())
            }
        }
    }

    /// Opens an installation that may still have to be prepared.
    pub(crate) async fn open_any(settings: Settings, out: Out) -> anyhow::Result<Self> {
        logging(&settings, out);
        let platform = Platform::open(&settings).await?;
        Ok(Self {
            settings,
            platform,
            out,
            bars: MultiProgress::new(),
        })
    }

    /// The registry, for one look.
    pub(crate) async fn client(&self) -> anyhow::Result<RegistryClient> {
        Ok(self.platform.registry.client().await?)
    }

    /// The person at this terminal.
    pub(crate) fn requested_by(&self, reason: Option<Reason>) -> RequestedBy {
        RequestedBy {
            reason,
            ..RequestedBy::terminal(account())
        }
    }

    /// Stops an embedded server that was started for this command.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        Ok(self.platform.close().await?)
    }
}

/// The account's name, for the audit: behind sudo that of the person.
fn account() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .or_else(|| {
            fs::metadata("/proc/self")
                .ok()
                .map(|own| format!("uid {}", own.uid()))
        })
        .unwrap_or_else(|| "unknown".to_owned())
}

/// The parts log for a server's operator; in a terminal only their warnings matter, unless a filter was asked
/// for.
fn logging(settings: &Settings, out: Out) {
    let asked = settings
        .explain()
        .iter()
        .any(|one| one.key == "log.filter" && one.source != "default");
    let filter = if asked {
        settings.log.filter.as_str()
    } else {
        "warn"
    };
    // The filter was parsed with the settings; a second call finds the logger set.
    let _ = tracing_subscriber::registry()
        .with(EnvFilter::new(filter))
        .with(filter_fn(may_be_told))
        .with(
            fmt::layer()
                .with_writer(std::io::stderr)
                .with_target(false)
                .with_ansi(out.color()),
        )
        .try_init();
}

/// The driver's debug events hold the parameters of every statement, password hashes among them: no filter
/// brings those to the terminal.
fn may_be_told(event: &Metadata<'_>) -> bool {
    *event.level() <= Level::INFO || !event.target().starts_with("tokio_postgres")
}
