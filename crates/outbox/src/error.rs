use model::WebhookId;
use registry::RegistryError;

/// Why the outbox could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The registry could not, or there is no such row.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A field of the request makes no sense.
    #[error("{field}: {why}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What it must be.
        why: String,
    },
    /// An address's secret cannot be opened with this installation's key.
    #[error(
        "the secret of webhook {webhook} cannot be opened: {why}; `tenantctl webhooks rotate` gives it a new \
         one"
    )]
    Sealed {
        /// The address.
        webhook: WebhookId,
        /// What is wrong.
        why: String,
    },
    /// This machine cannot make TLS connections.
    #[error(
        "webhooks cannot be sent from here: {why}; are the system's CA certificates installed \
         (ca-certificates)?"
    )]
    Tls {
        /// What is wrong.
        why: String,
    },
}
