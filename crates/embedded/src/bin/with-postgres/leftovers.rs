//! What a command left behind: databases, roles, files and processes.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use pg::ConnectTarget;

use crate::command::MARKER;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Processes that were told to end may need a moment for it.
const PROCESSES_LIMIT: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(50);

/// One line for each thing that is left.
pub(crate) async fn find(target: &ConnectTarget, tmp: &Path, marker: &str) -> anyhow::Result<Vec<String>> {
    // First, for a process may still be making the rest.
    let start = Instant::now();
    let mut left = processes(marker);
    while !left.is_empty() && start.elapsed() < PROCESSES_LIMIT {
        tokio::time::sleep(POLL_EVERY).await;
        left = processes(marker);
    }
    left.extend(
        names(target)
            .await
            .context("cannot look for databases and roles")?,
    );
    let entries = fs::read_dir(tmp).with_context(|| format!("cannot list {}", tmp.display()))?;
    for entry in entries {
        left.push(format!("file {}", entry?.path().display()));
    }
    Ok(left)
}

/// Databases and roles that initdb did not make.
async fn names(target: &ConnectTarget) -> anyhow::Result<Vec<String>> {
    let client = pg::connect(target, "with-postgres", CONNECT_LIMIT).await?;
    let rows = client
        .query(
            "SELECT 'database ' || datname FROM pg_database
             WHERE datname NOT IN ('postgres', 'template0', 'template1')
             UNION ALL
             SELECT 'role ' || rolname FROM pg_roles WHERE oid >= 16384
             ORDER BY 1",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Processes that inherited the marker; known where there is a /proc only.
fn processes(marker: &str) -> Vec<String> {
    let wanted = format!("{MARKER}={marker}");
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let environment = fs::read(entry.path().join("environ")).ok()?;
            let inherited = environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == wanted.as_bytes());
            inherited.then(|| {
                let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&arguments).replace('\0', " ");
                format!("process {pid}: {}", line.trim())
            })
        })
        .collect()
}
