//! How a command ended: exit code and message.

use std::{io, process::ExitCode};

use bootstrap::{Exit, error_text};
use export::ExportError;
use model::OperationId;
use outbox::OutboxError;
use provisioner::ProvisionError;
use serde_json::json;

use crate::output::Out;

/// Ends that `tenantctl` itself decides on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// What was typed cannot be done like this.
    #[error("{0}")]
    Usage(String),
    /// Some were done, some not; each was told already.
    #[error("{failed} of {of} laboratories could not be migrated")]
    Partly { failed: usize, of: usize },
    /// The doctor's, which were told already.
    #[error("{}", left(*.0))]
    Findings(usize),
    /// Nothing has that name.
    #[error("{0}")]
    NotFound(String),
    /// The state does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// A signal came.
    #[error(
        "interrupted; nothing is lost: `tenantctl operations watch {0}` goes on with it, and so does a running tenantd"
    )]
    Interrupted(OperationId),
    /// An operator cancelled the operation.
    #[error("{0}")]
    Cancelled(String),
    /// The operation ended without success.
    #[error(
        "{error}\nsee `tenantctl operations show {operation}`; `tenantctl operations retry {operation}` tries again"
    )]
    Failed { operation: OperationId, error: String },
}

fn left(findings: usize) -> String {
    match findings {
        1 => "1 finding is left".to_owned(),
        more => format!("{more} findings are left"),
    }
}

/// A number of things, as `1 server` or `2 servers`.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    }
}

/// What is said of roles that can let themselves into every laboratory.
pub(crate) fn role_creators_note<'a>(roles: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = roles.map(model::quote_ident).collect();
    format!(
        "PostgreSQL 15 and earlier let a role with CREATEROLE grant itself any role that is no superuser, and so enter every \
         laboratory: {}. Take it from those that are not trusted with all of them (ALTER ROLE … NOCREATEROLE), or use PostgreSQL 16",
        names.join(", ")
    )
}

/// Tells an error and gives the exit code. With `--json` the error is a document on standard output, unless
/// the command printed its own before it failed.
pub(crate) fn report(out: &Out, ended: anyhow::Result<()>) -> ExitCode {
    let Err(error) = ended else {
        return ExitCode::SUCCESS;
    };
    // The reader of our output has read enough, as `head` does.
    if error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    }) {
        return ExitCode::SUCCESS;
    }
    let end = classify(&error);
    let message = error_text(error.as_ref());
    out.error(&message);
    if out.json && end != Exit::Partly {
        let document = json!({"error": {"kind": end.word(), "exitCode": end.code(), "message": message}});
        // Standard output is gone if this fails, and the message is out already.
        let _ = out.document(&document);
    }
    ExitCode::from(end.code())
}

fn classify(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if let Some(refusal) = cause.downcast_ref::<Refusal>() {
            return match refusal {
                Refusal::Usage(_) => Exit::Usage,
                Refusal::Partly { .. } | Refusal::Findings(_) => Exit::Partly,
                Refusal::NotFound(_) => Exit::NotFound,
                Refusal::Conflict(_) => Exit::Conflict,
                Refusal::Interrupted(_) => Exit::Interrupted,
                Refusal::Failed { .. } => Exit::Failed,
                Refusal::Cancelled(_) => Exit::Conflict,
            };
        }
        if let Some(exit) = Exit::of(cause) {
            return exit;
        }
        if let Some(error) = cause.downcast_ref::<ProvisionError>() {
            return of_provision(error);
        }
        if let Some(error) = cause.downcast_ref::<ExportError>() {
            return match error {
                ExportError::Connect(_) => Exit::Unreachable,
                _ => Exit::Failed,
            };
        }
        if let Some(error) = cause.downcast_ref::<OutboxError>() {
            return match error {
                OutboxError::Registry(inner) => Exit::of_registry(inner),
                OutboxError::Invalid { .. } => Exit::Usage,
                OutboxError::Sealed { .. } | OutboxError::Tls { .. } => Exit::Failed,
            };
        }
    }
    Exit::Failed
}

fn of_provision(error: &ProvisionError) -> Exit {
    use ProvisionError as P;
    match error {
        P::Registry(inner) => Exit::of_registry(inner),
        P::Connect(_) => Exit::Unreachable,
        P::Db { source, .. } | P::Migrate(migrator::MigrateError::Db { source, .. })
            if pg::is_read_only(source) =>
        {
            Exit::Unreachable
        }
        P::Invalid { .. } | P::WhichServer { .. } => Exit::Usage,
        P::NoSuchDatabase { .. } => Exit::NotFound,
        P::IdempotencyMismatch { .. }
        | P::NotAdoptable { .. }
        | P::NotMigratable { .. }
        | P::NotOurs { .. }
        | P::Refused { .. }
        | P::Unmet { .. }
        | P::ArchiveTooNew { .. }
        | P::TenantGone { .. }
        | P::Cancelled { .. } => Exit::Conflict,
        _ => Exit::Failed,
    }
}
