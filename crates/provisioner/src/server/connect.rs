//! How the provisioner connects to a laboratory's server as its administrator.

use std::sync::Arc;

use identity::SealContext;
use migrator::MAINTENANCE_DATABASE;
use model::ServerName;
use pg::ConnectTarget;
use registry::{NewAudit, Tenant};
use secrecy::SecretString;
use serde_json::json;
use tokio_postgres::Client;

use crate::{Inner, ProvisionError, Provisioner, RequestedBy, server::AdminSession};

/// Waits for locks are short and statements bounded; a session whose process died ends soon after it.
const SETTINGS: &str = "-c search_path=public -c lock_timeout=10s -c statement_timeout=10min -c \
                        client_connection_check_interval=500ms";

impl Provisioner {
    /// The laboratory's database as its server's administrator, for a caller that copies all that it
    /// holds: the laboratory's own role is locked out while it is suspended. Who asks for that stands in the
    /// audit from then on.
    ///
    /// # Errors
    /// When the registry or the server cannot be asked, or the administrator's password cannot be opened;
    /// [`ProvisionError::Refused`] when the database is not there or does not carry the laboratory's
    /// ownership comment.
    pub async fn open_for_export(
        &self,
        tenant: &Tenant,
        by: &RequestedBy,
    ) -> Result<ConnectTarget, ProvisionError> {
        let target = self.inner.admin(tenant).await?;
        self.inner.require_database(tenant).await?;
        let client = self.inner.config.registry.client().await?;
        let entry = NewAudit {
            actor: &by.actor,
            action: "tenant.exported",
            tenant: Some(tenant.id),
            detail: json!({ "slug": tenant.slug, "reason": by.reason }),
            request_id: by.request_id.as_deref(),
            client_ip: by.client_ip,
        };
        registry::audit_insert(&client, &entry).await?;
        Ok(target.with_database(tenant.db_name.as_str()))
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
        let password = self.open(&SealContext::Server(server.name.clone()), &server.admin_secret)?;
        Ok(ConnectTarget {
            host: server.host,
            port: server.port,
            user: server.admin_user,
            password,
            database: MAINTENANCE_DATABASE.to_owned(),
        })
    }

    pub(crate) fn open(&self, context: &SealContext, sealed: &[u8]) -> Result<SecretString, ProvisionError> {
        let opened = self.config.sealer.open(context, sealed);
        opened.map_err(|error| ProvisionError::Sealed {
            of: context.to_string(),
            why: error.to_string(),
        })
    }

    /// A session on any database of a server, everything about it bounded.
    pub(crate) async fn connect(&self, target: &ConnectTarget) -> Result<Client, ProvisionError> {
        let limit = self.config.bounds.connect_timeout;
        Ok(pg::connect_with(target, "tenantry provisioner", limit, SETTINGS).await?)
    }

    /// A session as the administrator inside a laboratory's database, which may be somebody else's who was
    /// here before us: only what is the server's own is found without its schema's name. An owner can set
    /// another path for their database, and a function of theirs in it would run with an administrator's
    /// rights.
    pub(crate) async fn connect_inside(&self, target: &ConnectTarget) -> Result<Client, ProvisionError> {
        let client = self.connect(target).await?;
        client
            .batch_execute("SET search_path = ''")
            .await
            .map_err(ProvisionError::db("preparing a session", target))?;
        Ok(client)
    }

    /// A session on a server's maintenance database: one that was kept, or a new one.
    pub(crate) async fn session(&self, target: ConnectTarget) -> Result<AdminSession, ProvisionError> {
        if let Some(kept) = self.idle_sessions.take(&target) {
            return Ok(kept);
        }
        let client = Arc::new(self.connect(&target).await?);
        Ok(AdminSession { client, target })
    }

    /// Keeps a session in which nothing was set and no lock was taken.
    pub(crate) fn put_back(&self, session: AdminSession) {
        if Arc::strong_count(&session.client) == 1 {
            self.idle_sessions
                .put(session, self.config.bounds.operations_parallel_max);
        }
    }

    /// Keeps a session for the next operation, without the locks of this one; nothing else is ever set in it.
    pub(crate) async fn keep(&self, session: AdminSession) {
        let unlock = "SELECT pg_advisory_unlock_all()";
        // One that somebody else still holds, or that fails here, closes when it is dropped.
        if Arc::strong_count(&session.client) == 1 && session.client.batch_execute(unlock).await.is_ok() {
            self.idle_sessions
                .put(session, self.config.bounds.operations_parallel_max);
        }
    }
}
