//! What `tenantctl up` does before anything is served. Every step looks first, so doing it again changes
//! nothing; and before the first one the server is asked whether it is fit, so that what is refused has
//! changed nothing.

use migrator::{MigrateError, ServerState, StaysOpen};
use model::{DbName, SchemaVersion, TenantId};
use registry::RegistryError;

use crate::{Platform, PlatformError, register::main_server};

/// What only a person can decide about a server that others may use, too.
#[derive(Debug, Clone, Copy, Default)]
pub struct Prepare {
    /// Take PUBLIC's rights on `postgres` and `template1`, also on a server that is not the embedded one.
    pub close_shared: bool,
    /// Go on although laboratories on the server belong to another registry.
    pub new_registry: bool,
}

/// A step of preparing that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// The registry's database is there.
    Database {
        /// Its name.
        name: String,
        /// Whether it was made just now.
        created: bool,
    },
    /// The registry's schema is up to date.
    Registry {
        /// At this version.
        version: SchemaVersion,
    },
    /// The tenant server stands in the registry.
    Server {
        /// Where it is.
        address: String,
        /// Whether what was known of it changed.
        changed: bool,
    },
    /// Databases are about to be closed to PUBLIC: the registry's, where it was there before and is open, and
    /// the shared ones, where a person wants it. Their rights are not changed yet.
    Closing {
        /// Those that are open now, with the login roles that get in through PUBLIC alone and will be shut
        /// out.
        databases: Vec<StaysOpen>,
    },
    /// Databases that every role could enter are closed, as far as they are this installation's to close.
    Secured {
        /// Those that were closed just now.
        closed: Vec<String>,
        /// Those that stay open to every role.
        open: Vec<StaysOpen>,
    },
    /// Roles of others can let themselves into every laboratory: CREATEROLE up to PostgreSQL 15.
    RoleCreators {
        /// Their names.
        roles: Vec<String>,
    },
    /// The template that laboratories are cloned from is there.
    Template {
        /// Its name.
        name: DbName,
    },
    /// Everything serves, but operations will be refused until this is put right.
    Unmet {
        /// What is missing, and what to do about it.
        why: String,
    },
}

impl Platform {
    /// Brings registry and tenant server to where this code needs them, telling each step as it is done. A
    /// server that is not the embedded one keeps its shared databases as they are.
    ///
    /// # Errors
    /// [`PlatformError`] says what failed and what to do; running it again goes on from there.
    pub async fn prepare(&self, done: impl FnMut(Prepared)) -> Result<(), PlatformError> {
        self.prepare_with(Prepare::default(), done).await
    }

    /// The same, with what a person has decided.
    ///
    /// # Errors
    /// As [`Platform::prepare`]; [`registry::RegistryError::NotARegistry`],
    /// [`PlatformError::OtherNamespace`], [`PlatformError::Unfit`] and [`PlatformError::OtherRegistry`]
    /// before anything was changed.
    pub async fn prepare_with(
        &self,
        prepare: Prepare,
        mut done: impl FnMut(Prepared),
    ) -> Result<(), PlatformError> {
        let name = self.registry.target().database.clone();
        self.registry.require_usable().await?;
        // A registry that is not there, or does not answer, says so itself.
        if let Err(error @ PlatformError::OtherNamespace { .. }) = self.require_namespace().await {
            return Err(error);
        }
        let close_shared = prepare.close_shared || self.is_embedded();
        let state = self
            .require_fit(&name, close_shared, prepare.new_registry)
            .await?;
        let created = self.ensure_registry_database(&name).await?;
        done(Prepared::Database {
            name: name.clone(),
            created,
        });
        let version = self.registry.migrate().await?;
        done(Prepared::Registry { version });
        let changed = self.register_server().await?;
        let address = format!("{}:{}", self.server.host, self.server.port);
        done(Prepared::Server { address, changed });
        let mut to_close = vec![name.as_str()];
        if close_shared {
            to_close.extend(migrator::SHARED_DATABASES);
        }
        if !self.is_embedded() {
            let mut databases = migrator::would_close(&self.server, &self.namespace, &to_close).await?;
            // Of the registry's own nothing is to be said when nobody uses it.
            databases.retain(|stays| stays.open.is_shared() || !stays.through_public.is_empty());
            if !databases.is_empty() {
                done(Prepared::Closing { databases });
            }
        }
        let closed = migrator::close_to_public(&self.server, &self.namespace, &to_close).await?;
        let open = migrator::stays_open(&self.server, &self.namespace, &name).await?;
        done(Prepared::Secured { closed, open });
        if !state.role_creators.is_empty() {
            let roles = state.role_creators;
            done(Prepared::RoleCreators { roles });
        }
        let template = migrator::template_ensure(&self.server, &self.namespace).await?;
        done(Prepared::Template { name: template });
        let unmet = self.provisioner.unmet(&main_server()).await;
        for why in unmet.unwrap_or_else(|error| vec![error.to_string()]) {
            done(Prepared::Unmet { why });
        }
        Ok(())
    }

    /// Whether the laboratories' server is the embedded one, which nobody else uses.
    fn is_embedded(&self) -> bool {
        self.embedded.as_ref().is_some_and(|embedded| {
            let own = embedded.target();
            own.host == self.server.host && own.port == self.server.port
        })
    }

    async fn require_fit(
        &self,
        registry_database: &str,
        close_shared: bool,
        new_registry: bool,
    ) -> Result<ServerState, PlatformError> {
        let mut state = migrator::server_look(&self.server, &self.namespace, registry_database)
            .await
            .map_err(|error| match error {
                MigrateError::Connect(unreachable) => PlatformError::Unreachable(unreachable),
                other => other.into(),
            })?;
        // What is about to be closed is no hindrance.
        state.registry_open = false;
        state.open.retain(|open| !(close_shared && open.is_shared()));
        let unmet = self.provisioner.unfit(&state);
        if !unmet.is_empty() {
            return Err(PlatformError::Unfit {
                server: format!("{}@{}:{}", self.server.user, self.server.host, self.server.port),
                unmet,
            });
        }
        if new_registry {
            return Ok(state);
        }
        match self.unknown_laboratories(&state).await? {
            Some(names) => Err(PlatformError::OtherRegistry {
                registry: registry_database.to_owned(),
                namespace: self.namespace.as_str().to_owned(),
                server: format!("{}:{}", self.server.host, self.server.port),
                names,
            }),
            None => Ok(state),
        }
    }

    /// The names of laboratories' databases and roles on the server, if the registry has never known any of
    /// these laboratories.
    async fn unknown_laboratories(&self, state: &ServerState) -> Result<Option<Vec<String>>, PlatformError> {
        let ids = state
            .marked
            .iter()
            .filter_map(|marked| marked.laboratory.parse().ok());
        let ids: Vec<TenantId> = ids.collect();
        if ids.is_empty() {
            return Ok(None);
        }
        let known = match self.registry.client().await {
            Ok(client) => registry::laboratories_known(&client, &ids).await?,
            // It is not there yet: then it knows none. A server that does not answer says so itself.
            Err(RegistryError::Unavailable { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let names = || state.marked.iter().map(|marked| marked.name.clone()).collect();
        Ok(known.is_empty().then(names))
    }

    /// A database that can be entered is there: only when it cannot is the server's own database needed,
    /// which a registry's owner with few rights may not enter.
    async fn ensure_registry_database(&self, name: &str) -> Result<bool, PlatformError> {
        if self.registry.client().await.is_ok() {
            return Ok(false);
        }
        let maintenance = self
            .registry
            .target()
            .with_database(migrator::MAINTENANCE_DATABASE);
        Ok(registry::ensure_database(&maintenance, name).await?)
    }
}
