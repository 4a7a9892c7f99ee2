//! Asking for a laboratory: the row, the operation that makes it true, the event and the audit in one
//! transaction.

use deadpool_postgres::Transaction;
use identity::SealContext;
use jiff::tz;
use model::{Email, OperationId, OperationKind, ServerName, Slug, StaffId, TenantId, text};
use registry::{NewOperation, RegistryError, Tenant};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::{
    ProvisionError, Provisioner, RequestedBy,
    request::{begin, commit, earlier, only_server, tenant_of},
};

/// The most characters of a laboratory's or a person's name.
const NAME_MAX: usize = 200;

/// A laboratory that is to be.
#[derive(Debug, Clone)]
pub struct NewLab {
    /// Its short name.
    pub slug: Slug,
    /// Its name: 1 to 200 characters.
    pub name: String,
    /// IANA name of its time zone.
    pub time_zone: String,
    /// The server to host it; may be left open while only one is registered.
    pub server: Option<ServerName>,
    /// Its first administrator, who is its first staff member too.
    pub admin: NewAdmin,
}

/// The first administrator of a laboratory.
#[derive(Debug, Clone)]
pub struct NewAdmin {
    /// Log-in name.
    pub email: Email,
    /// The person's name: 1 to 200 characters.
    pub display_name: String,
    /// Argon2id hash of the password; absent for one who is invited to set it, with
    /// [`Provisioner::invite_first`].
    pub password_hash: Option<SecretString>,
}

/// Checks what can be said of a request without writing anything, and gives the server that is to host the
/// laboratory.
async fn provision_server(
    client: &registry::RegistryClient,
    lab: &NewLab,
) -> Result<ServerName, ProvisionError> {
    lab.clone().checked()?;
    match &lab.server {
        Some(server) => match registry::server_by_name(client, server).await? {
            Some(known) => Ok(known.name),
            None => Err(RegistryError::UnknownServer { name: server.clone() }.into()),
        },
        None => only_server(client).await,
    }
}

impl Provisioner {
    /// Whether [`Provisioner::request_provision`] would accept this request now, for callers that must do
    /// something first which a refused request should not lead to. The request itself checks the same again.
    ///
    /// # Errors
    /// As the request.
    pub async fn check_provision(&self, lab: &NewLab) -> Result<(), ProvisionError> {
        let client = self.inner.config.registry.client().await?;
        provision_server(&client, lab).await?;
        match registry::tenant_by_slug(&client, &lab.slug).await? {
            Some(_) => Err(RegistryError::SlugTaken {
                slug: lab.slug.clone(),
            }
            .into()),
            None => Ok(()),
        }
    }

    /// Asks for a laboratory. It is `provisioning` until the operation has run.
    ///
    /// # Errors
    /// [`RegistryError::SlugTaken`] and its kin; [`ProvisionError::Invalid`] names a field;
    /// [`ProvisionError::IdempotencyMismatch`].
    pub async fn request_provision(
        &self,
        lab: NewLab,
        by: RequestedBy,
    ) -> Result<(Tenant, OperationId), ProvisionError> {
        let lab = lab.checked()?;
        let mut client = self.inner.config.registry.client().await?;
        let server = provision_server(&client, &lab).await?;
        let params = lab.params(&server);
        if let Some(earlier) =
            earlier(&client, &by, OperationKind::Provision, |op| op.params == params).await?
        {
            return Ok((tenant_of(&client, &earlier).await?, earlier.id));
        }
        self.inner.require_fit(&server).await?;
        let txn = begin(&mut client).await?;
        let operation = OperationId::generate();
        let written = self
            .write_provision(&txn, &lab, server, params.clone(), operation, &by)
            .await;
        match written {
            Ok(tenant) => {
                commit(txn).await?;
                Ok((tenant, operation))
            }
            // The same request won between our look and our write.
            Err(ProvisionError::Registry(RegistryError::IdempotencyKeyUsed { key })) => {
                drop(txn);
                let client = self.inner.config.registry.client().await?;
                match earlier(&client, &by, OperationKind::Provision, |op| op.params == params).await? {
                    Some(first) => Ok((tenant_of(&client, &first).await?, first.id)),
                    None => Err(ProvisionError::IdempotencyMismatch { key }),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn write_provision(
        &self,
        txn: &Transaction<'_>,
        lab: &NewLab,
        server: ServerName,
        params: Value,
        operation: OperationId,
        by: &RequestedBy,
    ) -> Result<Tenant, ProvisionError> {
        let namespace = &self.inner.config.namespace;
        let id = TenantId::generate();
        // The operation first: a used idempotency key is the answer even when the slug is taken, since then
        // it is taken by the very same request.
        registry::operation_insert_in_txn(
            txn,
            &NewOperation {
                id: operation,
                kind: OperationKind::Provision,
                tenant: id,
                tenant_slug: lab.slug.clone(),
                params,
                created_by: by.actor.clone(),
                idempotency_key: by.idempotency_key.clone(),
            },
        )
        .await?;
        let tenant = registry::NewTenant {
            id,
            slug: lab.slug.clone(),
            name: lab.name.clone(),
            time_zone: lab.time_zone.clone(),
            server,
            db_name: namespace.tenant_database(&lab.slug),
            role_name: namespace.tenant_role(&lab.slug),
            // With the row and not with the role: one write less.
            role_secret: Some(
                self.inner
                    .config
                    .sealer
                    .seal(&SealContext::TenantRole(id), &identity::generate_password()),
            ),
        };
        let tenant =
            registry::tenant_insert_in_txn(txn, &tenant, &by.change().in_operation(operation)).await?;
        let admin = registry::NewAdmin {
            id: StaffId::generate(),
            tenant: id,
            email: lab.admin.email.clone(),
            display_name: lab.admin.display_name.clone(),
            password_hash: lab.admin.password_hash.clone(),
        };
        registry::admin_insert_in_txn(txn, &admin).await?;
        Ok(tenant)
    }
}

impl NewLab {
    /// The same with its names in their normal form, if it can be made.
    pub(crate) fn checked(mut self) -> Result<Self, ProvisionError> {
        self.name = name_of("name", "the laboratory's name", &self.name)?;
        let name = &self.admin.display_name;
        self.admin.display_name = name_of("admin.displayName", "the administrator's name", name)?;
        // Without a time zone database on this machine PostgreSQL's own has the last word, when the first
        // rows are written.
        let known = tz::db().is_definitively_empty() || tz::db().get(&self.time_zone).is_ok();
        if !known || self.time_zone.len() > 64 {
            return Err(ProvisionError::Invalid {
                field: "timeZone",
                why: "the time zone must be an IANA name such as Europe/Berlin or UTC".to_owned(),
            });
        }
        Ok(self)
    }

    /// What the operation keeps of the request; never the password's hash.
    fn params(&self, server: &ServerName) -> Value {
        let mut params = json!({
            "slug": self.slug,
            "name": self.name,
            "timeZone": self.time_zone,
            "server": server,
            "adminEmail": self.admin.email,
            "adminName": self.admin.display_name,
        });
        // Somebody who gives a password with the same key again must not believe that it counts.
        if self.admin.password_hash.is_none() {
            params["adminInvited"] = json!(true);
        }
        params
    }
}

/// A name of 1 to 200 characters in its normal form.
fn name_of(field: &'static str, what: &str, name: &str) -> Result<String, ProvisionError> {
    text::line(name, NAME_MAX).map_err(|error| ProvisionError::Invalid {
        field,
        why: format!("{what} {error}"),
    })
}
