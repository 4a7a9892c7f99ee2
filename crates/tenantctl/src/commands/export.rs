//! A laboratory's data for the laboratory itself.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use export::{ExportError, Source, Summary};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use model::{Clock as _, Reason, TenantState};
use registry::Tenant;
use serde_json::json;
use tokio::{fs, io::AsyncWriteExt as _};

use crate::{
    context::Context,
    find::{TenantRef, tenant},
    outcome::Refusal,
    output::size,
};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

pub(crate) async fn run(
    context: &Context,
    wanted: &TenantRef,
    output: &Path,
    reason: Option<Reason>,
) -> anyhow::Result<()> {
    let found = tenant(&context.client().await?, wanted).await?;
    if found.status == TenantState::Provisioning {
        let message = format!("{} is still being made: it has nothing to export yet", found.slug);
        return Err(Refusal::Conflict(message).into());
    }
    if fs::try_exists(output).await.unwrap_or(false) {
        let message = format!("{} is there already; name another file", output.display());
        return Err(Refusal::Conflict(message).into());
    }
    let part = Part::create(output).await?;
    let at = context.platform.clock.now();
    let writing = tokio::time::timeout(export::LIMIT, write(context, &found, at, &part, reason));
    let written = tokio::select! {
        written = writing => written.unwrap_or_else(|_elapsed| {
            Err(ExportError::TookTooLong { limit: export::LIMIT }.into())
        }),
        _signal = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; no file was written")),
    };
    let summary = match written {
        Ok(summary) => part.finish(output).await.map(|()| summary),
        Err(error) => Err(error),
    }?;
    if context.out.json {
        return context.out.document(&json!({
            "tenantId": found.id,
            "slug": found.slug,
            "file": output,
            "tables": summary.tables,
            "rows": summary.rows,
            "bytes": summary.bytes,
        }));
    }
    context.out.answer(&format!(
        "{} is exported to {}: {} tables, {} rows, {}",
        found.slug,
        output.display(),
        summary.tables,
        summary.rows,
        size(summary.bytes)
    ))
}

async fn write(
    context: &Context,
    found: &Tenant,
    at: Timestamp,
    part: &Part,
    reason: Option<Reason>,
) -> anyhow::Result<Summary> {
    let by = context.requested_by(reason);
    let target = context.platform.provisioner.open_for_export(found, &by).await?;
    let mut source = Source::connect(&target, CONNECT_LIMIT).await?;
    let txn = source.begin().await?;
    let plan = export::plan(&txn, &bootstrap::left_out()).await?;
    let about = bootstrap::about_laboratory(found, at);
    let bar = bar(context, plan.files().count());
    let mut file = fs::OpenOptions::new().append(true).open(&part.0).await?;
    let summary = export::write(
        &txn,
        &plan,
        &about,
        async |bytes| file.write_all(&bytes).await,
        |table, rows| {
            bar.set_message(format!("{table} ({rows} rows)"));
            bar.inc(1);
            if !context.out.terminal {
                context.out.note(&format!("{table}: {rows} rows"));
            }
        },
    )
    .await;
    bar.finish_and_clear();
    let summary = summary?;
    file.sync_all().await.context("writing the file to disk")?;
    Ok(summary)
}

fn bar(context: &Context, tables: usize) -> ProgressBar {
    if !context.out.terminal || context.out.quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {pos}/{len} tables, {elapsed} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(u64::try_from(tables).unwrap_or(u64::MAX)).with_style(style);
    context.bars.add(bar)
}

/// The file while it is not whole: it has another name, and goes when the export does not come to its end.
struct Part(PathBuf);

impl Part {
    /// Readable by its owner alone: it holds patients' data.
    async fn create(output: &Path) -> anyhow::Result<Self> {
        let mut name = output.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let made = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .await;
        match made {
            Ok(_) => Ok(Self(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let message = format!(
                    "{} is there: another export writes it, or one was killed; remove it and try again",
                    path.display()
                );
                Err(Refusal::Conflict(message).into())
            }
            Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
        }
    }

    async fn finish(&self, output: &Path) -> anyhow::Result<()> {
        fs::rename(&self.0, output)
            .await
            .with_context(|| format!("cannot name the file {}", output.display()))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It is gone, or it is of no use to anybody.
        let _ = std::fs::remove_file(&self.0);
    }
}
