use std::path::PathBuf;

/// Why the platform could not be opened or prepared.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The embedded PostgreSQL is not available.
    #[error("the embedded PostgreSQL is not available: {0}")]
    Embedded(#[from] embedded::EmbeddedError),
    /// The keys cannot be read or made.
    #[error(transparent)]
    Keys(#[from] identity::KeyError),
    /// Nothing was prepared here yet.
    #[error("nothing is installed in {} yet; run `tenantctl up`", .dir.display())]
    NotInstalled {
        /// Where the embedded server would have its data.
        dir: PathBuf,
    },
    /// The registry cannot be used.
    #[error(transparent)]
    Registry(#[from] registry::RegistryError),
    /// The tenant server cannot be prepared.
    #[error("the tenant server cannot be prepared: {0}")]
    TenantServer(#[from] migrator::MigrateError),
    /// The stored password of the tenant server was sealed with another key.
    #[error(
        "the registry's password of server {server} cannot be opened with the keys in {}: {source}",
        .keys.display()
    )]
    Sealed {
        /// The server.
        server: String,
        /// Where the keys of this process are.
        keys: PathBuf,
        /// What the sealer says.
        source: identity::SealError,
    },
}

impl PlatformError {
    /// Whether something could not be reached, rather than being wrong.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Registry(error) => matches!(error, registry::RegistryError::Unavailable { .. }),
            Self::TenantServer(error) => matches!(error, migrator::MigrateError::Connect(_)),
            Self::Embedded(_) | Self::Keys(_) | Self::NotInstalled { .. } | Self::Sealed { .. } => false,
        }
    }
}
