//! Structured logs on the standard error stream; the standard output carries the one line that says where we
//! listen.

mod lines;

use settings::{Log, LogFormat};
use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, filter::filter_fn, fmt, layer::SubscriberExt, util::SubscriberInitExt};

pub use lines::Lines;

/// Starts logging for the whole process. Called once, by `main`, which keeps what it gets until its end:
/// dropping that writes the last lines.
///
/// # Errors
/// When logging was started already, or there is no thread for it.
pub fn start(log: &Log) -> anyhow::Result<Lines> {
    let lines = Lines::start(std::io::stderr())?;
    let registry = tracing_subscriber::registry()
        .with(EnvFilter::try_new(&log.filter)?)
        .with(filter_fn(may_be_told));
    match log.format {
        LogFormat::Text => registry
            .with(fmt::layer().with_writer(lines.writer()).with_ansi(false))
            .try_init()?,
        LogFormat::Json => {
            let layer = fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_writer(lines.writer());
            registry.with(layer).try_init()?;
        }
    }
    Ok(lines)
}

/// The driver's debug events hold the parameters of every statement: password hashes and the names of
/// patients. No filter that an operator sets to look into a problem may bring those into the log.
fn may_be_told(event: &Metadata<'_>) -> bool {
    *event.level() <= Level::INFO || !event.target().starts_with("tokio_postgres")
}
