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
    /// The tenant server did not answer.
    #[error("the tenant server cannot be reached: {}; {}", .0, settings_of(.0))]
    Unreachable(pg::ConnectError),
    /// The configured tenant server is another than the one on which the laboratories live.
    #[error(
        "laboratories such as {laboratory} live on server {server} at {from}, and none of them was found at \
         {to}, which is configured now; point TENANT_PGHOST and TENANT_PGPORT back (unset, they follow the \
         registry's), or move the databases and their roles there first. Nothing was changed"
    )]
    Moved {
        /// The server's name in the registry.
        server: String,
        /// Its known address.
        from: String,
        /// The configured one.
        to: String,
        /// A laboratory that lives there.
        laboratory: String,
    },
    /// The tenant server is not fit for laboratories.
    #[error("the tenant server {server} cannot host laboratories: {}. Nothing was changed", .unmet.join("; "))]
    Unfit {
        /// Which, and as whom it was asked.
        server: String,
        /// What it lacks, each with what to do about it.
        unmet: Vec<String>,
    },
    /// The tenant server has another registry's laboratories.
    #[error(
        "the server {server} has laboratories in the namespace {namespace} that the registry {registry} has \
         never known, such as {}: they are another registry's. Is MASTER_PGDATABASE right? A second registry \
         over them would advise removing each. If they are truly nobody's, or their registry was lost, say \
         so with `tenantctl up --new-registry`. Nothing was changed",
        .names.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ")
    )]
    OtherRegistry {
        /// The configured registry's database.
        registry: String,
        /// The namespace.
        namespace: String,
        /// The server.
        server: String,
        /// Databases and roles that are marked as laboratories'.
        names: Vec<String>,
    },
    /// The registry's laboratories were made in another namespace.
    #[error("{why}")]
    OtherNamespace {
        /// In which, and what to set.
        why: String,
    },
    /// A server cannot hold as many connections as this process is allowed to take.
    #[error(
        "server {server} cannot hold router.budget = {} connections of this process beside router.reserve = \
         {} of others: its max_connections is {} and it keeps {} of them for itself, which leaves {} for the \
         budget; lower router.budget (TENANTRY_ROUTER_BUDGET) or router.reserve (TENANTRY_ROUTER_RESERVE), \
         or raise max_connections there and restart that server",
        .source.budget, .source.reserve, .source.max_connections, .source.reserved,
        .source.max_connections.saturating_sub(.source.reserved + .source.reserve)
    )]
    BudgetTooLarge {
        /// The server.
        server: String,
        /// The figures.
        source: resolver::CapacityError,
    },
    /// The registry's secrets were sealed with a key that is not there any more.
    #[error(
        "seal.key was missing in {}, and the registry holds secrets that no new key opens: {source}; put it \
         back from a backup, or set TENANTRY_STATE_DIR to where it is. No new one was left there",
        .keys.display()
    )]
    KeyLost {
        /// Where the keys of this process are.
        keys: PathBuf,
        /// What the sealer says.
        source: identity::SealError,
    },
    /// A process on another host signs tokens with another key.
    #[error(
        "tenantd on host {host} signs tokens with the key {theirs} and this one with {own}: each would \
         refuse what the other issued; copy the directory {} of that host to this one (both keys), or end \
         the processes there first",
        .keys.display()
    )]
    OtherSigningKey {
        /// The other host.
        host: String,
        /// The short name of its key.
        theirs: String,
        /// The short name of this one's.
        own: String,
        /// Where the keys of this process are.
        keys: PathBuf,
    },
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

/// Which settings to look at.
fn settings_of(error: &pg::ConnectError) -> &'static str {
    match error.is_wrong_password() {
        true => {
            "is its password right? It is TENANT_PGPASSWORD or the file that TENANT_PGPASSWORD_FILE names, \
             else the registry's (MASTER_PGPASSWORD)"
        }
        false => {
            "are TENANT_PGHOST and TENANT_PGPORT right, or MASTER_PGHOST and MASTER_PGPORT where they are \
             not set?"
        }
    }
}

impl PlatformError {
    /// Whether it refused something before anything was changed, so that there is nothing to go on with.
    #[must_use]
    pub fn changed_nothing(&self) -> bool {
        use registry::RegistryError as R;
        matches!(
            self,
            Self::Unfit { .. }
                | Self::OtherRegistry { .. }
                | Self::OtherNamespace { .. }
                | Self::Moved { .. }
                | Self::Unreachable(_)
                | Self::Registry(
                    R::NotARegistry { .. }
                        | R::ReadOnly { .. }
                        | R::VersionMismatch { .. }
                        | R::Unavailable { .. }
                )
        )
    }

    /// Whether something could not be reached, rather than being wrong.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Registry(error) => matches!(error, registry::RegistryError::Unavailable { .. }),
            Self::TenantServer(error) => matches!(error, migrator::MigrateError::Connect(_)),
            Self::Unreachable(_) => true,
            Self::Embedded(_)
            | Self::Keys(_)
            | Self::NotInstalled { .. }
            | Self::Moved { .. }
            | Self::Unfit { .. }
            | Self::OtherRegistry { .. }
            | Self::OtherNamespace { .. }
            | Self::BudgetTooLarge { .. }
            | Self::KeyLost { .. }
            | Self::OtherSigningKey { .. }
            | Self::Sealed { .. } => false,
        }
    }
}
