use std::{fmt, sync::Arc};

use model::{
    DbName, Fit, RoleName, SchemaVersion, ServerName, SessionEpoch, Slug, TenantId, TenantState,
    VersionWindow,
};
use registry::{Server, Tenant};
use tokio::time::Instant;

use crate::ResolveError;

/// A tenant as the registry described it at one moment: enough to decide whether it is served and where its
/// data is.
///
/// It holds the role's password in sealed form. The resolver decrypts it for each connect.
#[derive(Clone)]
pub struct Snapshot {
    /// The tenant's id.
    pub tenant: TenantId,
    /// Its slug.
    pub slug: Slug,
    /// Its name for people.
    pub name: String,
    /// Its time zone, by its IANA name.
    pub time_zone: String,
    /// Its state.
    pub state: TenantState,
    /// The version of its schema.
    pub db_version: SchemaVersion,
    /// Every change that a router must see raises it.
    pub generation: i64,
    /// Tokens of its staff that name another epoch are no longer valid.
    pub session_epoch: SessionEpoch,
    /// The server that hosts its database.
    pub server: ServerName,
    /// What a connection needs. If it changes, the resolver opens a new pool.
    pub(crate) parameters: ConnectParameters,
    /// When it was read.
    pub(crate) read_at: Instant,
}

/// What a connection to the tenant's database needs.
#[derive(Clone)]
pub(crate) struct ConnectParameters {
    /// Shared with all other tenants of the server.
    pub(crate) server: Arc<Server>,
    pub(crate) database: DbName,
    pub(crate) role: RoleName,
    pub(crate) sealed_password: Option<Vec<u8>>,
}

impl PartialEq for ConnectParameters {
    /// Ignores the control plane's own log-in on the server, which tenants' connections do not use.
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.server, &other.server);
        ours.name == theirs.name
            && ours.host == theirs.host
            && ours.port == theirs.port
            && self.database == other.database
            && self.role == other.role
            && self.sealed_password == other.sealed_password
    }
}

impl Snapshot {
    pub(crate) fn new(tenant: Tenant, server: &Arc<Server>) -> Self {
        Self {
            tenant: tenant.id,
            slug: tenant.slug,
            name: tenant.name,
            time_zone: tenant.time_zone,
            state: tenant.status,
            db_version: tenant.db_version,
            generation: tenant.generation,
            session_epoch: tenant.session_epoch,
            server: tenant.server,
            parameters: ConnectParameters {
                server: Arc::clone(server),
                database: tenant.db_name,
                role: tenant.role_name,
                sealed_password: tenant.role_secret,
            },
            read_at: Instant::now(),
        }
    }

    /// The name of the tenant's database.
    #[must_use]
    pub fn database(&self) -> &DbName {
        &self.parameters.database
    }

    /// The gate: whether the tenant's state serves, and whether its schema version is inside `window`.
    ///
    /// # Errors
    /// [`ResolveError::NotServing`], [`ResolveError::Behind`] or [`ResolveError::Ahead`].
    pub fn admit(&self, window: VersionWindow) -> Result<(), ResolveError> {
        let (tenant, have) = (self.tenant, self.db_version);
        if !self.state.serves() {
            return Err(ResolveError::NotServing {
                tenant,
                state: self.state,
            });
        }
        match window.fit(have) {
            Fit::Inside => Ok(()),
            Fit::Behind => Err(ResolveError::Behind {
                tenant,
                have,
                need: window.oldest,
            }),
            Fit::Ahead => Err(ResolveError::Ahead {
                tenant,
                have,
                newest: window.newest,
            }),
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("tenant", &self.tenant)
            .field("slug", &self.slug)
            .field("state", &self.state)
            .field("db_version", &self.db_version)
            .field("generation", &self.generation)
            .field("server", &self.server)
            .field("database", &self.parameters.database)
            .finish_non_exhaustive()
    }
}
