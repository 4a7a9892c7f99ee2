//! How a laboratory's server is reached as its administrator.

use std::sync::Arc;

use migrator::MAINTENANCE_DATABASE;
use model::ServerName;
use pg::ConnectTarget;
use registry::Tenant;
use secrecy::SecretString;
use tokio_postgres::Client;

use crate::{Inner, ProvisionError};

/// Waits for locks are short and statements bounded; a session whose process died ends soon after it.
const SETTINGS: &str = "SET lock_timeout = '10s'; SET statement_timeout = '10min'; \
                        SET client_connection_check_interval = '500ms'";

/// A session on a server's maintenance database.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) client: Arc<Client>,
    pub(crate) target: ConnectTarget,
}

impl Session {
    /// Runs statements that take no parameters, as DDL does not.
    pub(crate) async fn run(&self, doing: &'static str, sql: &str) -> Result<(), ProvisionError> {
        self.client
            .batch_execute(sql)
            .await
            .map_err(ProvisionError::db(doing, &self.target))
    }
}

impl Inner {
    /// The laboratory's server as its administrator, on the maintenance database.
    pub(crate) async fn admin(&self, tenant: &Tenant) -> Result<ConnectTarget, ProvisionError> {
        self.admin_on(&tenant.server).await
    }

    /// A server as its administrator, on the maintenance database.
    pub(crate) async fn admin_on(&self, name: &ServerName) -> Result<ConnectTarget, ProvisionError> {
        let client = self.config.registry.client().await?;
        let server = registry::server_by_name(&client, name)
            .await?
            .ok_or_else(|| registry::RegistryError::UnknownServer { name: name.clone() })?;
        self.admin_of(server)
    }

    /// The same of a server whose row is at hand.
    pub(crate) fn admin_of(&self, server: registry::Server) -> Result<ConnectTarget, ProvisionError> {
        let password = self.open(&format!("server:{}", server.name), &server.admin_secret)?;
        Ok(ConnectTarget {
            host: server.host,
            port: server.port,
            user: server.admin_user,
            password,
            database: MAINTENANCE_DATABASE.to_owned(),
        })
    }

    pub(crate) fn open(&self, context: &str, sealed: &[u8]) -> Result<SecretString, ProvisionError> {
        let opened = self.config.sealer.open(context, sealed);
        opened.map_err(|error| ProvisionError::Sealed {
            of: context.to_owned(),
            why: error.to_string(),
        })
    }

    /// A session on any database of a server, everything about it bounded.
    pub(crate) async fn connect(&self, target: &ConnectTarget) -> Result<Client, ProvisionError> {
        let limit = self.config.bounds.connect_timeout;
        let client = pg::connect(target, "tenantry provisioner", limit).await?;
        client
            .batch_execute(SETTINGS)
            .await
            .map_err(ProvisionError::db("preparing a session", target))?;
        Ok(client)
    }

    /// A session on a server's maintenance database.
    pub(crate) async fn session(&self, target: ConnectTarget) -> Result<Session, ProvisionError> {
        let client = Arc::new(self.connect(&target).await?);
        Ok(Session { client, target })
    }
}
