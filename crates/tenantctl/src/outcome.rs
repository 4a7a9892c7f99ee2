//! How a command ended: exit code and message.

use std::{io, process::ExitCode};

use export::ExportError;
use model::OperationId;
use outbox::OutboxError;
use platform::PlatformError;
use provisioner::ProvisionError;
use registry::RegistryError;
use serde_json::json;
use settings::SettingsError;

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
    #[error("{0} findings are left")]
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
    /// Somebody called the operation off.
    #[error("{0}")]
    CalledOff(String),
    /// The operation ended without success.
    #[error(
        "{error}\nsee `tenantctl operations show {operation}`; `tenantctl operations retry {operation}` tries again"
    )]
    Failed { operation: OperationId, error: String },
}

/// What kind of end it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Failed,
    Usage,
    Partly,
    NotFound,
    Conflict,
    Unreachable,
    Interrupted,
}

impl End {
    fn code(self) -> u8 {
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

    fn word(self) -> &'static str {
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
}

/// Tells an error and gives the exit code. With `--json` the error is a document on standard output, unless the command
/// printed its own before it failed.
pub(crate) fn report(out: &Out, ended: anyhow::Result<()>) -> ExitCode {
    let Err(error) = ended else {
        return ExitCode::SUCCESS;
    };
    // Whoever reads our output has read enough, as `head` does.
    if error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    }) {
        return ExitCode::SUCCESS;
    }
    let end = classify(&error);
    let message = format!("{error:#}");
    out.error(&message);
    if out.json && end != End::Partly {
        let document = json!({"error": {"kind": end.word(), "exitCode": end.code(), "message": message}});
        // Standard output is gone if this fails, and the message is out already.
        let _ = out.document(&document);
    }
    ExitCode::from(end.code())
}

fn classify(error: &anyhow::Error) -> End {
    for cause in error.chain() {
        if let Some(refusal) = cause.downcast_ref::<Refusal>() {
            return match refusal {
                Refusal::Usage(_) => End::Usage,
                Refusal::Partly { .. } | Refusal::Findings(_) => End::Partly,
                Refusal::NotFound(_) => End::NotFound,
                Refusal::Conflict(_) => End::Conflict,
                Refusal::Interrupted(_) => End::Interrupted,
                Refusal::Failed { .. } => End::Failed,
                Refusal::CalledOff(_) => End::Conflict,
            };
        }
        if cause.is::<SettingsError>() {
            return End::Usage;
        }
        if let Some(error) = cause.downcast_ref::<RegistryError>() {
            return of_registry(error);
        }
        if let Some(error) = cause.downcast_ref::<ProvisionError>() {
            return of_provision(error);
        }
        if let Some(error) = cause.downcast_ref::<ExportError>() {
            return match error {
                ExportError::Connect(_) => End::Unreachable,
                _ => End::Failed,
            };
        }
        if let Some(error) = cause.downcast_ref::<OutboxError>() {
            return match error {
                OutboxError::Registry(inner) => of_registry(inner),
                OutboxError::Invalid { .. } => End::Usage,
                OutboxError::Sealed { .. } | OutboxError::Tls { .. } => End::Failed,
            };
        }
        if let Some(error) = cause.downcast_ref::<PlatformError>() {
            return match error {
                PlatformError::Registry(inner) => of_registry(inner),
                other if other.is_unreachable() => End::Unreachable,
                _ => End::Failed,
            };
        }
    }
    End::Failed
}

fn of_registry(error: &RegistryError) -> End {
    use RegistryError as R;
    match error {
        R::Unavailable { .. } => End::Unreachable,
        R::NotFound { .. } | R::UnknownServer { .. } => End::NotFound,
        R::SlugTaken { .. }
        | R::DatabaseTaken { .. }
        | R::EmailTaken { .. }
        | R::Illegal(_)
        | R::OperationInProgress { .. }
        | R::IdempotencyKeyUsed { .. }
        | R::LeaseLost { .. }
        | R::NotReopenable { .. }
        | R::NotCancellable { .. }
        | R::NotWaiting { .. } => End::Conflict,
        R::CorruptRow { .. } | R::VersionMismatch { .. } | R::Migrate { .. } | R::Db { .. } => End::Failed,
    }
}

fn of_provision(error: &ProvisionError) -> End {
    use ProvisionError as P;
    match error {
        P::Registry(inner) => of_registry(inner),
        P::Connect(_) => End::Unreachable,
        P::Invalid { .. } | P::WhichServer { .. } => End::Usage,
        P::IdempotencyMismatch { .. }
        | P::NotMigratable { .. }
        | P::Refused { .. }
        | P::Unmet { .. }
        | P::ArchiveTooNew { .. }
        | P::TenantGone { .. }
        | P::CalledOff { .. } => End::Conflict,
        _ => End::Failed,
    }
}
