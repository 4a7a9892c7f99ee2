//! The tenant server's row in the registry: what it says must stay true for the laboratories that live there.
//!
//! Two slips would cost data. A lost `seal.key`, replaced by a new one, would leave every stored password
//! shut for good and nobody would notice until each was needed. Another address for the same server name
//! would send all laboratories elsewhere, and an offboarding would find nothing there to archive. Both are
//! refused before anything is written.

use std::time::Duration;

use identity::SealContext;
use model::ServerName;
use pg::{ConnectError, ConnectTarget};
use registry::{NewServer, RegistryClient, Server, Tenant, TenantFilter};
use secrecy::{ExposeSecret, SecretString};

use crate::{MAIN_SERVER, Platform, PlatformError};

/// One that is found is enough; where this many are not, the rest are not there either.
const LABORATORIES_TRIED_MAX: u32 = 20;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

impl Platform {
    /// Writes the configured tenant server into the registry; says whether anything changed. An unchanged one
    /// is left alone, for every router reads all its tenants again after a change.
    pub(crate) async fn register_server(&self) -> Result<bool, PlatformError> {
        let name = main_server();
        let client = self.registry.client().await?;
        if let Some(known) = registry::server_by_name(&client, &name).await? {
            let password = self.open_password(&known)?;
            let moved = known.host != self.server.host || known.port != self.server.port;
            let same_password = password.expose_secret() == self.server.password.expose_secret();
            if !moved && known.admin_user == self.server.user && same_password {
                return Ok(false);
            }
            // The embedded server's port may change with a restart; its password, made for it alone, says it
            // is the same.
            let is_embedded = self.embedded.as_ref().is_some_and(|embedded| {
                let own = embedded.target();
                own.host == self.server.host && own.port == self.server.port
            });
            if moved && !(is_embedded && same_password) {
                self.require_a_laboratory(&client, &known).await?;
            }
        }
        let new = NewServer {
            admin_secret: self
                .sealer
                .seal(&SealContext::Server(name.clone()), &self.server.password),
            name,
            host: self.server.host.clone(),
            port: self.server.port,
            admin_user: self.server.user.clone(),
        };
        registry::server_upsert(&client, &new).await?;
        Ok(true)
    }

    /// That the keys here open what the registry holds, as far as it holds anything.
    pub(crate) async fn check_keys(&self) -> Result<(), PlatformError> {
        let client = self.registry.client().await?;
        if let Some(known) = registry::server_by_name(&client, &main_server()).await? {
            self.open_password(&known)?;
        }
        Ok(())
    }

    pub(crate) fn open_password(&self, known: &Server) -> Result<SecretString, PlatformError> {
        let source = match self
            .sealer
            .open(&SealContext::Server(known.name.clone()), &known.admin_secret)
        {
            Ok(password) => return Ok(password),
            Err(source) => source,
        };
        // A key that opens nothing must not be found at the next start and taken for the installation's.
        if self.keys.discard_new_seal_key()? {
            return Err(PlatformError::KeyLost {
                keys: self.keys_dir.clone(),
                source,
            });
        }
        Err(PlatformError::Sealed {
            server: known.name.to_string(),
            keys: self.keys_dir.clone(),
            source,
        })
    }

    /// That a laboratory which lives on the known server is found at the new address, if any does live there.
    async fn require_a_laboratory(
        &self,
        client: &RegistryClient,
        known: &Server,
    ) -> Result<(), PlatformError> {
        let filter = TenantFilter {
            server: Some(known.name.clone()),
            ..TenantFilter::default()
        };
        let tenants = registry::tenants_list(client, &filter, None, LABORATORIES_TRIED_MAX).await?;
        for tenant in &tenants {
            if self.is_here(tenant).await? {
                return Ok(());
            }
        }
        match tenants.first() {
            None => Ok(()),
            Some(tenant) => Err(PlatformError::Moved {
                server: known.name.to_string(),
                from: format!("{}:{}", known.host, known.port),
                to: format!("{}:{}", self.server.host, self.server.port),
                laboratory: tenant.slug.to_string(),
            }),
        }
    }

    /// Whether the configured server lets a laboratory's own role into its own database. That says more than
    /// a name: the role's password was made for this laboratory, and the log-in proves to both sides that
    /// they know it.
    async fn is_here(&self, tenant: &Tenant) -> Result<bool, PlatformError> {
        let Some(sealed) = &tenant.role_secret else {
            return Ok(false);
        };
        let Ok(password) = self.sealer.open(&SealContext::TenantRole(tenant.id), sealed) else {
            return Ok(false);
        };
        let target = ConnectTarget {
            user: tenant.role_name.as_str().to_owned(),
            password,
            database: tenant.db_name.as_str().to_owned(),
            ..self.server.clone()
        };
        match pg::connect(&target, "tenantry platform", CONNECT_LIMIT).await {
            Ok(_client) => Ok(true),
            // An answer, and not the lack of one: a server that is starting or full says nothing about what
            // it holds.
            Err(ConnectError::Refused { source, .. })
                if source.code().is_some() && !pg::is_unavailable(&source) =>
            {
                Ok(false)
            }
            Err(unreachable) => Err(PlatformError::Unreachable(unreachable)),
        }
    }
}

pub(crate) fn main_server() -> ServerName {
    ServerName::parse(MAIN_SERVER).expect("a lower-case word is a server's name")
}
