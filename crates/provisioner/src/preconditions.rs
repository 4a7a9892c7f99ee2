//! What an operation needs of its server, of the client programs and of the archive store. It is looked at
//! when an operation is asked for, before anything is changed, and again by the steps that close or drop a
//! database. What can be wrong of a server whatever is asked for, the doctor reports too.
//!
//! A server that does not answer refuses nothing here: workers wait for servers.

use std::time::Duration;

use archive::{Manifest, Programs};
use model::{DbName, OperationKind, ServerName, quote_ident};
use registry::{Archive, Tenant};

use crate::{
    Inner, ProvisionError, Provisioner,
    server::{AdminSession, holds, look_for_own, ownership_comment},
};

/// How long a request waits for its server's answers.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What is about to be asked for.
pub(crate) struct Planned<'a> {
    pub(crate) kind: OperationKind,
    pub(crate) server: &'a ServerName,
    /// The laboratory whose database is archived, closed, replaced or migrated.
    pub(crate) tenant: Option<&'a Tenant>,
    /// The archive that is restored.
    pub(crate) manifest: Option<&'a Manifest>,
}

impl<'a> Planned<'a> {
    /// A change of a laboratory's database.
    pub(crate) fn of(kind: OperationKind, tenant: &'a Tenant) -> Self {
        Self {
            kind,
            server: &tenant.server,
            tenant: Some(tenant),
            manifest: None,
        }
    }

    fn writes_archive(&self) -> bool {
        self.tenant.is_some() && self.uses_programs()
    }

    /// Whether a database is dumped or restored.
    fn uses_programs(&self) -> bool {
        self.kind != OperationKind::Migrate
    }

    fn closes(&self) -> bool {
        matches!(self.kind, OperationKind::Offboard | OperationKind::RestoreInPlace)
    }
}

impl Provisioner {
    /// What operations on a server's laboratories need and that is not there now, each with what to do: they
    /// are refused until it is.
    ///
    /// # Errors
    /// When the registry or the server cannot be asked.
    pub async fn unmet(&self, server: &ServerName) -> Result<Vec<String>, ProvisionError> {
        let inner = &self.inner;
        let session = inner.session(inner.admin_on(server).await?).await?;
        let mut unmet: Vec<String> = inner.unfit_programs(&session).await?.into_iter().collect();
        unmet.extend(locked_out_itself(&session).await?);
        inner.keep(session).await;
        unmet.extend(inner.writable_store().await.err().map(|error| error.to_string()));
        Ok(unmet)
    }

    /// What a restore of an archive would not bring back as it was, one sentence each: what the dump does not
    /// have, and what the server lacks, by default the one on which its laboratory lives or lived. Nothing
    /// where the manifest does not say.
    ///
    /// # Errors
    /// When the registry or the server cannot be asked.
    pub async fn not_kept(
        &self,
        archive: &Archive,
        server: Option<&ServerName>,
        in_place: bool,
    ) -> Result<Vec<String>, ProvisionError> {
        let Ok(manifest) = Manifest::from_value(archive.manifest.clone()) else {
            return Ok(Vec::new());
        };
        let inventory = &manifest.inventory;
        // A restore in place takes settings over from the database that it replaces.
        let left_out = inventory
            .left_out
            .iter()
            .filter(|item| !in_place || item.kind != "database setting");
        let mut not_kept: Vec<String> = left_out
            .map(|item| format!("{} {}: {}", item.kind, item.name, item.why))
            .collect();
        let client = self.inner.config.registry.client().await?;
        let living = registry::tenant_by_id(&client, archive.tenant).await?;
        drop(client);
        let lived = living.map(|tenant| tenant.server);
        let lived = lived.or_else(|| ServerName::parse(&manifest.server).ok());
        let Some(server) = server.or(lived.as_ref()) else {
            return Ok(not_kept);
        };
        let session = self.inner.session(self.inner.admin_on(server).await?).await?;
        let namespace = &self.inner.config.namespace;
        // A restore makes these where they are missing.
        let ours = [namespace.tenant_group(manifest.tenant), namespace.shared_group()];
        let owners = inventory.owners.iter().map(|owned| &owned.role);
        let named = owners.chain(&inventory.granted_roles);
        let wanted: Vec<&String> = named
            .filter(|role| ours.iter().all(|group| group.as_str() != role.as_str()))
            .collect();
        for role in absent(&session, &wanted).await? {
            let owned = inventory.owners.iter().filter(|owned| owned.role == role).count();
            not_kept.push(format!(
                "rights of the role {}, which {} does not have; what it owned, {owned} objects, becomes the \
                 administrator's",
                quote_ident(&role),
                session.target
            ));
        }
        self.inner.keep(session).await;
        Ok(not_kept)
    }
}

impl Provisioner {
    /// Refuses when the database under the laboratory's name does not carry the laboratory's ownership
    /// comment: for a caller that is about to hand out what it holds.
    ///
    /// # Errors
    /// [`ProvisionError::Refused`] says where the laboratory's own database is, where that is known;
    /// [`ProvisionError::Connect`] when its server cannot be asked.
    pub async fn require_own_database(&self, tenant: &Tenant) -> Result<(), ProvisionError> {
        self.inner.require_database(tenant).await
    }
}

impl Inner {
    /// Refuses what could not be done to its end, with all that is missing.
    pub(crate) async fn require(&self, planned: &Planned<'_>) -> Result<(), ProvisionError> {
        let mut why = Vec::new();
        if planned.writes_archive()
            && let Err(error) = Box::pin(self.writable_store()).await
        {
            why.push(error.to_string());
        }
        let asked = async {
            let session = self.session(self.admin_on(planned.server).await?).await?;
            let unmet = self.unmet_on(&session, planned).await?;
            self.keep(session).await;
            Ok::<_, ProvisionError>(unmet)
        };
        match tokio::time::timeout(ANSWER_LIMIT, Box::pin(asked)).await {
            Ok(Ok(unmet)) => why.extend(unmet),
            Ok(Err(error)) if error.is_transient() || matches!(error, ProvisionError::Connect(_)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_elapsed) => {}
        }
        match why.is_empty() {
            true => Ok(()),
            false => Err(ProvisionError::Unmet {
                kind: planned.kind,
                why,
            }),
        }
    }

    /// Refuses when the database under the laboratory's name is not there, or was not made for it.
    pub(crate) async fn require_database(&self, tenant: &Tenant) -> Result<(), ProvisionError> {
        let session = self.session(self.admin(tenant).await?).await?;
        let absence = absence(&session, tenant).await?;
        self.put_back(session);
        match absence {
            None => Ok(()),
            Some(why) => Err(ProvisionError::Refused { why }),
        }
    }

    /// The store takes new archives, and the keys fit.
    pub(crate) async fn writable_store(&self) -> Result<(), ProvisionError> {
        self.config.archive.keys.check()?;
        Ok(self.store()?.prepare().await?)
    }

    async fn unmet_on(
        &self,
        session: &AdminSession,
        planned: &Planned<'_>,
    ) -> Result<Vec<String>, ProvisionError> {
        let mut unmet = Vec::new();
        if planned.uses_programs()
            && let Some(why) = self.unfit_programs(session).await?
        {
            unmet.push(why);
        }
        if planned.closes() {
            unmet.extend(locked_out_itself(session).await?);
        }
        if let Some(tenant) = planned.tenant {
            unmet.extend(absence(session, tenant).await?);
        }
        if let (Some(tenant), true) = (planned.tenant, planned.closes()) {
            let slots = planned.kind == OperationKind::RestoreInPlace;
            unmet.extend(holds(session, &tenant.db_name, slots).await?);
        }
        if let Some(manifest) = planned.manifest {
            unmet.extend(missing_roles(session, planned.kind, manifest).await?);
        }
        Ok(unmet)
    }

    /// Why the client programs that this process has cannot dump and restore the server's databases.
    pub(crate) async fn unfit_programs(
        &self,
        session: &AdminSession,
    ) -> Result<Option<String>, ProvisionError> {
        let row = session
            .client
            .query_one("SELECT current_setting('server_version_num')::int / 10000", &[])
            .await
            .map_err(ProvisionError::db(
                "asking for the server's version",
                &session.target,
            ))?;
        let major = row.get::<_, i32>(0).unsigned_abs();
        let found = Programs::find(self.config.pg_bin.as_deref(), major, &session.target).await;
        Ok(found.err().map(|error| error.to_string()))
    }
}

/// That the laboratory's database is not there under its name, or that another one is, and where its own is
/// if somebody renamed it.
async fn absence(session: &AdminSession, tenant: &Tenant) -> Result<Option<String>, ProvisionError> {
    let other = match look_for_own(session, tenant).await {
        Ok(Some(_own)) => return Ok(None),
        Ok(None) => None,
        Err(error @ ProvisionError::NotOurs { .. }) => Some(error.to_string()),
        Err(error) => return Err(error),
    };
    Ok(Some(match (other, renamed(session, tenant).await?) {
        (Some(other), Some(renamed)) => format!("{other}; {renamed}"),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => format!(
            "its database {} is not there, nor any other with its ownership comment; was it removed by hand? \
             `tenantctl archives list --tenant {}` shows what is left of it",
            tenant.db_name.as_str(),
            tenant.slug
        ),
    }))
}

fn renamed_words(renamed: &str, name: &DbName) -> String {
    format!(
        "its database {} is called {renamed} now, which has its ownership comment: run ALTER DATABASE \
         {renamed} RENAME TO {name}",
        name.as_str()
    )
}

/// That a database with the laboratory's ownership comment is there under another name.
pub(crate) async fn renamed(
    session: &AdminSession,
    tenant: &Tenant,
) -> Result<Option<String>, ProvisionError> {
    let row = session
        .client
        .query_opt(
            "SELECT quote_ident(datname) FROM pg_database
              WHERE shobj_description(oid, 'pg_database') = $2 AND datname <> $1 LIMIT 1",
            &[&tenant.db_name.as_str(), &ownership_comment(tenant)],
        )
        .await
        .map_err(ProvisionError::db("looking for the database", &session.target))?;
    Ok(row.map(|row| renamed_words(row.get(0), &tenant.db_name)))
}

/// A closed database lets in superusers only, and its administrator must dump it then.
pub(crate) async fn locked_out_itself(session: &AdminSession) -> Result<Option<String>, ProvisionError> {
    let row = session
        .client
        .query_one(
            "SELECT rolsuper, quote_ident(rolname) FROM pg_roles WHERE rolname = current_user",
            &[],
        )
        .await
        .map_err(ProvisionError::db(
            "asking for the administrator's rights",
            &session.target,
        ))?;
    let (superuser, name): (bool, String) = (row.get(0), row.get(1));
    Ok((!superuser).then(|| {
        format!(
            "the administrator {name} of {} is no superuser, and closing the database would lock it out as \
             well: run ALTER ROLE {name} SUPERUSER as a superuser, or register the server with one that is",
            session.target
        )
    }))
}

/// Roles that the server does not have and that an archive cannot be restored without. Others are left out
/// and named.
async fn missing_roles(
    session: &AdminSession,
    kind: OperationKind,
    manifest: &Manifest,
) -> Result<Option<String>, ProvisionError> {
    let inventory = &manifest.inventory;
    // In a copy that nobody enters it does not matter whose rights a function has.
    let definers = inventory
        .owners
        .iter()
        .filter(|owned| owned.definer && kind != OperationKind::VerifyArchive);
    let wanted: Vec<&String> = inventory
        .required_roles
        .iter()
        .chain(definers.map(|owned| &owned.role))
        .collect();
    let roles = absent(session, &wanted).await?;
    let roles: Vec<String> = roles.iter().map(|role| quote_ident(role)).collect();
    Ok((!roles.is_empty()).then(|| {
        let make: Vec<String> = roles
            .iter()
            .map(|role| format!("CREATE ROLE {role} NOLOGIN"))
            .collect();
        format!(
            "{} has no role {}, which the archive's row security policies or user mappings name, or with \
             whose rights its functions run: run {}",
            session.target,
            roles.join(", "),
            make.join("; ")
        )
    }))
}

/// Those of some roles that the server does not have.
async fn absent(session: &AdminSession, wanted: &[&String]) -> Result<Vec<String>, ProvisionError> {
    let rows = session
        .client
        .query(
            "SELECT DISTINCT wanted FROM unnest($1::text[]) AS wanted
              WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = wanted) ORDER BY 1",
            &[&wanted],
        )
        .await
        .map_err(ProvisionError::db("looking for roles", &session.target))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
