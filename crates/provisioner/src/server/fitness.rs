//! Whether a server is fit for laboratories, asked before the first change: what waiting cannot change is
//! refused at once, and not after two minutes of tries.

use std::time::Duration;

use migrator::{OpenDatabase, ServerState};
use model::{OperationKind, ServerName, TenantId};

use crate::{Inner, OpenRule, ProvisionError, Provisioner, server::AdminSession};

/// How long a request waits for the server's answer. A server that does not answer in time refuses nothing:
/// its operation is tried until it does.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

impl Provisioner {
    /// What keeps laboratories from being made on a server that was found like this, each with what to do
    /// about it.
    #[must_use]
    pub fn unfit(&self, state: &ServerState) -> Vec<String> {
        self.inner.unfit(state)
    }

    /// Refuses to work in another namespace than that of the registry's laboratories, as from a shell without
    /// its settings: names of roles and databases would be made in it beside those that are there.
    ///
    /// # Errors
    /// [`ProvisionError::Refused`] names a role that is there and the setting; [`ProvisionError::Registry`].
    pub async fn require_namespace(&self) -> Result<(), ProvisionError> {
        self.inner.require_namespace().await
    }
}

impl Inner {
    /// Refuses a server on which no laboratory can be made, as it says itself. One that does not answer
    /// refuses nothing.
    pub(crate) async fn require_fit(&self, server: &ServerName) -> Result<(), ProvisionError> {
        self.require_namespace().await?;
        let asked = async {
            let session = self.session(self.admin_on(server).await?).await?;
            let state = self.server_state(&session).await?;
            self.put_back(session);
            Ok::<_, ProvisionError>(state)
        };
        let state = match tokio::time::timeout(ANSWER_LIMIT, asked).await {
            Ok(Ok(state)) => state,
            Ok(Err(error)) if error.is_transient() => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_elapsed) => return Ok(()),
        };
        let why = self.unfit(&state);
        if why.is_empty() {
            return Ok(());
        }
        Err(ProvisionError::Unmet {
            kind: OperationKind::Provision,
            why,
        })
    }

    pub(crate) async fn require_namespace(&self) -> Result<(), ProvisionError> {
        let namespace = self.config.namespace.as_str();
        let client = self.config.registry.client().await?;
        let prefix = format!("{namespace}_tenant_");
        match registry::role_of_another_namespace(&client, &prefix).await? {
            None => Ok(()),
            Some(role) => Err(ProvisionError::Refused {
                why: format!(
                    "names.namespace (TENANTRY_NAMES_NAMESPACE) is {namespace}, and the laboratories of this \
                     registry were made in another namespace, such as the one with the role {role}; set the \
                     namespace with which they were made. Nothing was changed"
                ),
            }),
        }
    }

    pub(crate) async fn server_state(&self, session: &AdminSession) -> Result<ServerState, ProvisionError> {
        let registry = &self.config.registry.target().database;
        Ok(migrator::server_state(&*session.client, &self.config.namespace, registry).await?)
    }

    /// Whether laboratories in this namespace are marked on the server and the registry has never known any
    /// of them: they are another registry's, and this one was configured by mistake.
    pub(crate) async fn is_of_another_registry(&self, state: &ServerState) -> Result<bool, ProvisionError> {
        let marked = state
            .marked
            .iter()
            .filter_map(|marked| marked.laboratory.parse().ok());
        let marked: Vec<TenantId> = marked.collect();
        if marked.is_empty() {
            return Ok(false);
        }
        let client = self.config.registry.client().await?;
        Ok(registry::laboratories_known(&client, &marked).await?.is_empty())
    }

    /// What keeps laboratories from being made on the server, each with what to do about it.
    pub(crate) fn unfit(&self, state: &ServerState) -> Vec<String> {
        let mut unmet = Vec::new();
        if !state.lacks.is_empty() {
            unmet.push(format!(
                "its administrator lacks {}: give it with ALTER ROLE, or name a superuser in TENANT_PGUSER",
                state.lacks.join(", ")
            ));
        }
        if state.registry_open {
            unmet.push(format!(
                "every role can connect to the registry {}; `tenantctl up` closes it",
                self.config.registry.target().database
            ));
        }
        if self.config.roles.open_databases == OpenRule::Refuse && !state.open.is_empty() {
            let open: Vec<String> = state.open.iter().map(OpenDatabase::to_string).collect();
            unmet.push(open_to_all(&open));
        }
        unmet
    }

    /// The databases of others that a laboratory's role can connect to, unless they must not be.
    pub(crate) fn admit(&self, open: Vec<String>) -> Result<Vec<String>, ProvisionError> {
        let registry = &self.config.registry.target().database;
        if open.contains(registry) {
            let why = format!("every role can connect to the registry {registry}; `tenantctl up` closes it");
            return Err(ProvisionError::Check { why });
        }
        if self.config.roles.open_databases == OpenRule::Refuse && !open.is_empty() {
            return Err(ProvisionError::Check {
                why: open_to_all(&open),
            });
        }
        Ok(open)
    }
}

fn open_to_all(open: &[String]) -> String {
    format!(
        "every role can connect to {}; close each with REVOKE ALL ON DATABASE … FROM PUBLIC (`tenantctl up \
         --close-shared` does so with postgres and template1), or allow it with roles.open_databases = warn",
        open.join(", ")
    )
}

/// Which databases the connected role can connect to beside its own.
pub(crate) async fn reachable(client: &tokio_postgres::Client) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client
        .query_typed(
            "SELECT datname::text FROM pg_catalog.pg_database
              WHERE datallowconn AND datname <> pg_catalog.current_database()
                AND pg_catalog.has_database_privilege(oid, 'CONNECT') ORDER BY 1",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
