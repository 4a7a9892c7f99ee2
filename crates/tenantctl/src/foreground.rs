//! Running an operation here, with progress, until its end or a signal.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use model::{OperationId, Step};
use provisioner::{Progress, ProvisionError};
use registry::Operation;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    context::Context,
    outcome::Refusal,
    output::{Out, size},
};

/// Runs the operation to its end, or watches the worker that has it. `label` stands before every line.
pub(crate) async fn run(context: &Context, operation: OperationId, label: &str) -> anyhow::Result<Operation> {
    let progress = Reporter::new(context, label);
    let ended = context
        .platform
        .provisioner
        .run_until(operation, |step| progress.tell(step), interrupted())
        .await;
    progress.clear();
    ended.map_err(|error| match error {
        ProvisionError::Interrupted { operation } => Refusal::Interrupted(operation).into(),
        ProvisionError::Cancelled { .. } => Refusal::Cancelled(error.to_string()).into(),
        ProvisionError::Failed { operation, .. } => Refusal::Failed {
            operation,
            error: error.to_string(),
        }
        .into(),
        other => other.into(),
    })
}

/// Whether an operation ended because an operator cancelled it.
pub(crate) fn was_cancelled(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Refusal::Cancelled(_)))
}

/// Ready when this process is asked to stop.
pub(crate) async fn interrupted() {
    let on = |kind| async move {
        match signal(kind) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            // Without a handler the signal ends the process itself, and the lease runs out.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = on(SignalKind::interrupt()) => {}
        () = on(SignalKind::terminate()) => {}
        () = on(SignalKind::hangup()) => {}
    }
}

/// Progress as a bar on a terminal, as lines elsewhere; on standard error.
struct Reporter {
    out: Out,
    bars: MultiProgress,
    label: String,
    bar: Option<ProgressBar>,
    place: Mutex<String>,
    /// Of the step that tells bytes: the first it told, and when.
    began: Mutex<Option<(Step, u64, Instant)>>,
}

impl Reporter {
    fn new(context: &Context, label: &str) -> Self {
        let (out, bars) = (context.out, context.bars.clone());
        let bar = (out.terminal && !out.quiet).then(|| {
            let bar = bars.add(ProgressBar::new_spinner());
            let template = if out.color() {
                "{spinner:.green} {prefix} {wide_msg} {elapsed}"
            } else {
                "{spinner} {prefix} {wide_msg} {elapsed}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(label.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            out,
            bars,
            label: label.to_owned(),
            bar,
            place: Mutex::default(),
            began: Mutex::default(),
        }
    }

    /// Passing: shown on the bar only.
    fn passing(&self, text: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(text);
        }
    }

    /// Lasting: a line that stays.
    fn lasting(&self, text: &str) {
        let line = format!("{}: {text}", self.label);
        match &self.bar {
            Some(_) => self.bars.suspend(|| self.out.note(&line)),
            None => self.out.note(&line),
        }
    }

    /// So much is done, of how much where that is known, and how fast.
    fn bytes(&self, step: Step, bytes: u64, total: Option<u64>) {
        let mut began = self
            .began
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let &mut (_, first, at) = match &mut *began {
            Some(began) if began.0 == step => began,
            other => other.insert((step, bytes, Instant::now())),
        };
        let seconds = at.elapsed().as_secs_f64();
        let of = total.map_or_else(String::new, |total| format!(" of {}", size(total.max(bytes))));
        let rate = if seconds < 1.0 {
            String::new()
        } else {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                clippy::cast_sign_loss,
                reason = "a rate for people to read"
            )]
            let rate = (bytes.saturating_sub(first) as f64 / seconds) as u64;
            format!(", {}/s{}", size(rate), left(bytes, total, rate))
        };
        self.passing(format!("{} {}{of}{rate}", words(step), size(bytes)));
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn tell(&self, progress: Progress) {
        match progress {
            Progress::Claimed { attempt: 0 | 1, .. } => {}
            Progress::Claimed { attempt, .. } => self.lasting(&format!("attempt {attempt}")),
            Progress::Watching { owner: Some(owner) } => {
                self.lasting(&format!("worker {owner} runs it; watching"))
            }
            Progress::Watching { owner: None } => self.passing("waiting for its next try".to_owned()),
            Progress::StepBegan {
                step,
                number,
                of,
                undoing,
            } => {
                let undoing = if undoing { "undo " } else { "" };
                let place = format!("{undoing}{number}/{of}");
                self.passing(format!("{place} {}", words(step)));
                *self
                    .place
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner) = place;
            }
            Progress::Bytes { step, bytes, total } => self.bytes(step, bytes, total),
            Progress::StepDone { step, took, .. } => {
                let place = self
                    .place
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .clone();
                self.lasting(&format!("{place} {} ({} ms)", words(step), took.as_millis()));
            }
            Progress::StepFailed { step, error } => self.lasting(&format!("{} failed: {error}", words(step))),
            Progress::WillRetry { delay } => {
                self.lasting(&format!("tries again in {:.1} s", delay.as_secs_f64()));
            }
            Progress::LeftToOthers { error } => self.lasting(&format!("left to others: {error}")),
            Progress::Waiting { delay } => {
                let delay = jiff::SignedDuration::try_from(delay).unwrap_or(jiff::SignedDuration::MAX);
                self.lasting(&format!("waits for {delay:#}"));
            }
            Progress::Undoing { error } => self.lasting(&format!("taking back what was done: {error}")),
        }
    }
}

/// How long the rest takes at this rate, where both are known; it is a guess and says so.
fn left(bytes: u64, total: Option<u64>, rate: u64) -> String {
    let rest = total.and_then(|total| total.saturating_sub(bytes).checked_div(rate));
    match rest {
        None | Some(0) => String::new(),
        Some(seconds) => {
            let rest = jiff::SignedDuration::try_from(Duration::from_secs(seconds));
            format!(", about {:#} left", rest.unwrap_or(jiff::SignedDuration::MAX))
        }
    }
}

/// A step's name without underscores.
fn words(step: Step) -> String {
    step.as_str().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_guessed_from_the_rate() {
        assert_eq!(left(25, Some(100), 5), ", about 15s left");
        assert_eq!(left(0, Some(9_000), 1), ", about 2h 30m left");
        for (bytes, total, rate) in [
            (25, None, 5),
            (25, Some(100), 0),
            (100, Some(100), 5),
            (120, Some(100), 5),
        ] {
            assert_eq!(left(bytes, total, rate), "", "{bytes} {total:?} {rate}");
        }
    }
}
