//! Samples `pg_stat_activity` while a side runs, and counts refused connections in the server's log.
//!
//! The log decides: the view is not read atomically, and may show one backend more than there ever were.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{task::JoinHandle, time::sleep};

use crate::fleet::{COUNT_BACKENDS, Host};

const EVERY: Duration = Duration::from_millis(20);

/// Watches one server until it is stopped.
pub(crate) struct Sampler {
    most: Arc<AtomicUsize>,
    task: JoinHandle<()>,
    log: PathBuf,
    log_start: u64,
}

/// What the sampler saw of one side.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// The most backends in any sample.
    pub(crate) backends_max: usize,
    /// Connections that the server refused because it was full, as its log says.
    pub(crate) refused: usize,
}

impl Sampler {
    pub(crate) async fn start(host: &Host) -> anyhow::Result<Self> {
        let client = host.admin().await?;
        let statement = client.prepare(COUNT_BACKENDS).await?;
        let most = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&most);
        let task = tokio::spawn(async move {
            while let Ok(row) = client.query_one(&statement, &[]).await {
                let now = row.get::<_, i64>(0);
                seen.fetch_max(usize::try_from(now).unwrap_or(0), Relaxed);
                sleep(EVERY).await;
            }
        });
        let log = host.log();
        let log_start = log.metadata().map_or(0, |meta| meta.len());
        Ok(Self {
            most,
            task,
            log,
            log_start,
        })
    }

    pub(crate) async fn stop(self) -> anyhow::Result<Seen> {
        self.task.abort();
        // The sampler's connection must be gone before the next one opens, or this program would have two.
        let _ = self.task.await;
        Ok(Seen {
            backends_max: self.most.load(Relaxed),
            refused: refusals(&self.log, self.log_start)?,
        })
    }
}

/// How many connections the server refused because it was full, by its log from this byte on.
pub(crate) fn refusals(log: &Path, from: u64) -> anyhow::Result<usize> {
    let mut file = File::open(log)?;
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().filter(|line| is_refusal(line)).count())
}

/// A log line begins with time, `[pid]` and SQLSTATE.
fn is_refusal(line: &str) -> bool {
    line.contains("] 53300 FATAL:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_sqlstate() {
        assert!(is_refusal(
            "2024-01-01 00:00:00.000 UTC [17] 53300 FATAL:  sorry, too many clients already"
        ));
        assert!(!is_refusal(
            "2024-01-01 00:00:00.000 UTC [17] 57P01 FATAL:  terminating connection"
        ));
    }
}
