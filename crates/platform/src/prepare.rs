//! What `tenantctl up` does before anything is served. Every step looks first, so doing it again changes nothing.

use model::{DbName, SchemaVersion};

use crate::{Platform, PlatformError, register::main_server};

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
    /// Databases that every role could enter are closed.
    Secured,
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
    /// Brings registry and tenant server to where this code needs them, telling each step as it is done.
    ///
    /// # Errors
    /// [`PlatformError`] says what failed and what to do; running it again goes on from there.
    pub async fn prepare(&self, mut done: impl FnMut(Prepared)) -> Result<(), PlatformError> {
        let name = self.registry.target().database.clone();
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
        migrator::secure_server(&self.server, &self.namespace, &name).await?;
        done(Prepared::Secured);
        let template = migrator::template_ensure(&self.server, &self.namespace).await?;
        done(Prepared::Template { name: template });
        let unmet = self.provisioner.unmet(&main_server()).await;
        for why in unmet.unwrap_or_else(|error| vec![error.to_string()]) {
            done(Prepared::Unmet { why });
        }
        Ok(())
    }

    /// A database that can be entered is there: only when it cannot is the server's own database needed, which a
    /// registry's owner with few rights may not enter.
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
