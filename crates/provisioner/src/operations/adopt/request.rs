//! Asking for a database that exists to become a laboratory, and looking at such a database.

use jiff::Timestamp;
use migrator::MigrateError;
use model::{
    DbName, Email, OperationId, OperationKind, Role, SchemaVersion, ServerName, Slug, StaffId, TenantId,
};
use pg::ConnectTarget;
use registry::{NewOperation, RegistryError, Tenant};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_postgres::{Client, binary_copy::BinaryCopyOutRow};

use crate::{
    Inner, NewAdmin, NewLab, ProvisionError, Provisioner, RequestedBy,
    operations::adopt::{
        steps::{agrees, version_by_shape},
        untrusted::{another_shape, untrusted_rows},
    },
    request::{begin, commit, earlier, only_server, tenant_of},
    server::AdminSession,
};

/// A database that is to become a laboratory as it is.
#[derive(Debug, Clone)]
pub struct Adoption {
    /// The database; it keeps its name.
    pub database: DbName,
    /// The laboratory's short name.
    pub slug: Slug,
    /// The server that has it; may be left open while only one is registered.
    pub server: Option<ServerName>,
    /// The schema version that it is at, where that cannot be told by what is there.
    pub baseline: Option<SchemaVersion>,
    /// The laboratory's name, where the database does not say.
    pub name: Option<String>,
    /// Its time zone, where the database does not say.
    pub time_zone: Option<String>,
    /// The administrator's log-in name; the longest serving one of the database unless given.
    pub admin_email: Option<Email>,
    /// The administrator's name, for one whom the database does not know.
    pub admin_name: Option<String>,
    /// How an administrator gets in whom the database does not know, or who has no password there. Whoever
    /// has one keeps it.
    pub admin_entry: AdminEntry,
}

/// How an administrator without a password gets in.
#[derive(Debug, Clone)]
pub enum AdminEntry {
    /// Not at all: such a database is not adopted.
    Refused,
    /// With a password of which this is the Argon2id hash.
    Password(SecretString),
    /// With one that they set themselves, by [`Provisioner::invite_first`].
    Invited,
}

impl AdminEntry {
    /// The hash to store, or none yet; `Err` when nobody said.
    fn hash(&self) -> Result<Option<SecretString>, ()> {
        match self {
            Self::Refused => Err(()),
            Self::Password(hash) => Ok(Some(hash.clone())),
            Self::Invited => Ok(None),
        }
    }
}

/// What an operation keeps of the request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AdoptParams {
    database: String,
    slug: Slug,
    server: String,
    pub(crate) baseline: Option<u32>,
    admin_email: Option<Email>,
    /// Somebody who gives a password with the same key again must not believe that it counts.
    #[serde(default)]
    admin_invited: bool,
}

/// Refuses a database that cannot become a laboratory.
fn refused(database: &DbName, why: impl std::fmt::Display) -> ProvisionError {
    ProvisionError::NotAdoptable {
        database: database.as_str().to_owned(),
        why: why.to_string(),
    }
}

impl Inner {
    /// Whether a database may become a laboratory's. Gives the comment that it has.
    pub(crate) async fn adoptable(
        &self,
        session: &AdminSession,
        database: &DbName,
        own: Option<&str>,
    ) -> Result<Option<String>, ProvisionError> {
        let row = session
            .client
            .query_opt(
                "SELECT datistemplate, datallowconn, pg_encoding_to_char(encoding)::text, shobj_description(oid, 'pg_database')
                   FROM pg_database WHERE datname = $1",
                &[&database.as_str()],
            )
            .await
            .map_err(ProvisionError::db("looking for the database", &session.target))?;
        let Some(row) = row else {
            return Err(ProvisionError::NoSuchDatabase {
                database: database.as_str().to_owned(),
                server: session.target.host.clone(),
            });
        };
        let (template, open, encoding): (bool, bool, String) = (row.get(0), row.get(1), row.get(2));
        let comment: Option<String> = row.get(3);
        let config = &self.config;
        let prefix = format!("{}_", config.namespace.as_str());
        let ours = database.as_str().strip_prefix(&prefix).is_some_and(|rest| {
            ["template_", "making_", "spare_", "scratch_"]
                .iter()
                .any(|kind| rest.starts_with(kind))
        });
        if template || ours || database.as_str() == migrator::MAINTENANCE_DATABASE {
            return Err(refused(
                database,
                "it is a template, or the server's or Tenantry's own",
            ));
        }
        if database.as_str() == config.registry.target().database {
            return Err(refused(database, "it is the registry"));
        }
        if !open {
            return Err(refused(
                database,
                "it takes no connections (ALLOW_CONNECTIONS false); open it first",
            ));
        }
        if encoding != "UTF8" {
            return Err(refused(
                database,
                format!("its encoding is {encoding} and not UTF8"),
            ));
        }
        match &comment {
            Some(text) if text.starts_with("tenantry ") && Some(text.as_str()) != own => {
                if own.is_none() && self.is_own_comment(session, database, text).await? {
                    return Ok(comment);
                }
                Err(refused(
                    database,
                    format!(
                        "it is marked as another's (\"{text}\"); if that one is gone, take the comment away \
                         by hand"
                    ),
                ))
            }
            _ => Ok(comment),
        }
    }
}

/// The laboratory that an ownership comment names.
fn marked_as(comment: &str) -> Option<TenantId> {
    comment.strip_prefix("tenantry laboratory ")?.parse().ok()
}

impl Inner {
    /// Whether an ownership comment is one that this control plane set and has forgotten, as after its
    /// registry was restored from an older backup: it names a laboratory that the registry does not know, and
    /// its namespace is this one's. Another control plane on the same server has another namespace.
    async fn is_own_comment(
        &self,
        session: &AdminSession,
        database: &DbName,
        comment: &str,
    ) -> Result<bool, ProvisionError> {
        let Some(id) = marked_as(comment) else {
            return Ok(false);
        };
        let client = self.config.registry.client().await?;
        if registry::tenant_by_id(&client, id).await?.is_some() {
            return Ok(false);
        }
        drop(client);
        let prefix = self.tenant_prefix();
        Ok(database.as_str().starts_with(&prefix)
            || self.role_with_comment(session, comment).await?.is_some())
    }

    /// The name of this namespace's role that has the ownership comment.
    async fn role_with_comment(
        &self,
        session: &AdminSession,
        comment: &str,
    ) -> Result<Option<String>, ProvisionError> {
        let row = session
            .client
            .query_opt(
                "SELECT rolname::text FROM pg_roles
                  WHERE starts_with(rolname::text, $1) AND shobj_description(oid, 'pg_authid') = $2 LIMIT 1",
                &[&self.tenant_prefix(), &comment],
            )
            .await
            .map_err(ProvisionError::db(
                "looking for the laboratory's role",
                &session.target,
            ))?;
        Ok(row.map(|row| row.get(0)))
    }

    fn tenant_prefix(&self) -> String {
        format!("{}_tenant_", self.config.namespace.as_str())
    }

    /// The id of a laboratory that is taken back: that of its ownership comment, which its own profile must
    /// have too, under the slug that its role was named by. `None` for a database that was not ours.
    async fn taken_back(
        &self,
        session: &AdminSession,
        wanted: &Adoption,
        comment: Option<&str>,
        profile: &Profile,
    ) -> Result<Option<TenantId>, ProvisionError> {
        let Some((comment, id)) = comment.and_then(|comment| Some((comment, marked_as(comment)?))) else {
            return Ok(None);
        };
        if profile.tenant != Some(id) {
            let says = profile
                .tenant
                .map_or_else(|| "none".to_owned(), |id| id.to_string());
            return Err(refused(
                &wanted.database,
                format!(
                    "its ownership comment names the laboratory {id} and its own profile {says}; look which \
                     is right first"
                ),
            ));
        }
        let role = self.role_with_comment(session, comment).await?;
        let own = self.config.namespace.tenant_role(&wanted.slug);
        match role {
            Some(role) if role != own.as_str() => {
                let slug = role
                    .strip_prefix(&self.tenant_prefix())
                    .unwrap_or(&role)
                    .to_owned();
                Err(ProvisionError::Invalid {
                    field: "slug",
                    why: format!(
                        "the laboratory {id} has the role {role}: it comes back under its slug {slug}, which \
                         its addresses and links have too"
                    ),
                })
            }
            _ => Ok(Some(id)),
        }
    }
}

impl Inner {
    /// Refuses a database of which no version can be told, as the operation's own step would: nothing was
    /// made for it then.
    async fn require_version(
        &self,
        session: &AdminSession,
        (inside, target): (&Client, &ConnectTarget),
        operation: OperationId,
        baseline: Option<SchemaVersion>,
    ) -> Result<(), ProvisionError> {
        let history = match migrator::history_version(inside).await {
            Ok(history) => history,
            Err(error @ MigrateError::CorruptHistory { .. }) => {
                return Err(ProvisionError::NotAdoptable {
                    database: target.database.clone(),
                    why: error.to_string(),
                });
            }
            Err(error) => return Err(error.into()),
        };
        if history > SchemaVersion::default() {
            return agrees(history, baseline);
        }
        let namespace = &self.config.namespace;
        // Said on this session, which is closed at the end of the request: the scratch database is nobody's
        // that was left behind.
        migrator::comparing_begin(&session.client, namespace).await?;
        let scratch = namespace.scratch_database(operation);
        version_by_shape(self, session, (inside, target), &scratch, baseline)
            .await
            .map(drop)
    }
}

/// Who the laboratory says that it is.
#[derive(Debug, Default)]
struct Profile {
    tenant: Option<TenantId>,
    name: Option<String>,
    time_zone: Option<String>,
}

/// An administrator whom it knows.
struct Known {
    id: StaffId,
    email: Email,
    name: String,
    password_hash: Option<String>,
}

async fn profile(client: &Client, target: &ConnectTarget) -> Result<Profile, ProvisionError> {
    let rows = untrusted_rows(client, target, "lab_profile", &["tenant_id", "name", "tz"]).await?;
    let row = match rows.as_slice() {
        [] => return Ok(Profile::default()),
        [row] => row,
        _ => return Err(another_shape(target, "lab_profile", &"it has more than one row")),
    };
    let other = |error: tokio_postgres::Error| another_shape(target, "lab_profile", &error);
    Ok(Profile {
        tenant: Some(TenantId::from(row.try_get::<uuid::Uuid>(0).map_err(other)?)),
        name: Some(row.try_get(1).map_err(other)?),
        time_zone: Some(row.try_get(2).map_err(other)?),
    })
}

/// A row of `staff`.
struct Person {
    id: uuid::Uuid,
    email: String,
    name: String,
    password_hash: Option<String>,
    role: String,
    active: bool,
    since: Timestamp,
}

impl Person {
    const COLUMNS: [&str; 7] = [
        "id",
        "email",
        "display_name",
        "password_hash",
        "role",
        "active",
        "created_at",
    ];

    fn of(row: &BinaryCopyOutRow) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            id: row.try_get(0)?,
            email: row.try_get(1)?,
            name: row.try_get(2)?,
            password_hash: row.try_get(3)?,
            role: row.try_get(4)?,
            active: row.try_get(5)?,
            since: row.try_get(6)?,
        })
    }

    fn is_admin(&self) -> bool {
        self.role == Role::LabAdmin.as_str() && self.active
    }
}

async fn known(
    client: &Client,
    target: &ConnectTarget,
    email: Option<&Email>,
) -> Result<Option<Known>, ProvisionError> {
    let rows = untrusted_rows(client, target, "staff", &Person::COLUMNS).await?;
    let people = rows.iter().map(Person::of).collect::<Result<Vec<_>, _>>();
    let people = people.map_err(|error| another_shape(target, "staff", &error))?;
    let is_meant = |person: &Person| match email {
        None => person.is_admin(),
        Some(email) => person.email.to_lowercase() == email.as_str().to_lowercase(),
    };
    let meant = people.into_iter().filter(is_meant);
    // Those with a password first, then those who have served longest.
    let Some(person) = meant.min_by_key(|p| (p.password_hash.is_none(), p.since, p.id)) else {
        return Ok(None);
    };
    let invalid = |why: String| ProvisionError::Invalid {
        field: "admin.email",
        why,
    };
    let address = &person.email;
    if !person.is_admin() {
        return Err(invalid(format!(
            "{address} works in the laboratory, but not as an active lab_admin; name one who does"
        )));
    }
    Ok(Some(Known {
        id: StaffId::from(person.id),
        email: Email::known(address).map_err(|error| invalid(format!("{address}: {error}")))?,
        name: person.name,
        password_hash: person.password_hash,
    }))
}

/// The administrator as the registry is to know them, with the id that they have in the laboratory.
fn admin_of(wanted: &Adoption, known: Option<Known>) -> Result<(StaffId, NewAdmin), ProvisionError> {
    let invalid = |field, why: &str| {
        Err(ProvisionError::Invalid {
            field,
            why: why.to_owned(),
        })
    };
    let Some(known) = known else {
        let Some(email) = &wanted.admin_email else {
            return invalid(
                "admin.email",
                "the database knows no active lab_admin; name the person who is to be it",
            );
        };
        let Ok(password_hash) = wanted.admin_entry.hash() else {
            let why = "the laboratory does not know this person; give a password, or invite them, to make \
                       them its administrator";
            return invalid("admin.password", why);
        };
        let local_part = email.as_str().split('@').next().unwrap_or_default();
        let admin = NewAdmin {
            display_name: wanted.admin_name.clone().unwrap_or_else(|| local_part.to_owned()),
            email: email.clone(),
            password_hash,
        };
        return Ok((StaffId::generate(), admin));
    };
    let password_hash = match (known.password_hash, wanted.admin_entry.hash()) {
        (Some(hash), _) => Some(hash.into()),
        (None, Ok(given)) => given,
        (None, Err(())) => {
            let why = "the laboratory's administrator has no password in its database: invite them \
                       (`tenantctl adopt --invite`), give one (--admin-email with --admin-password-stdin), \
                       or name another (--admin-email); over the API: `invite`, `admin`";
            return invalid("admin.password", why);
        }
    };
    let admin = NewAdmin {
        email: known.email,
        display_name: known.name,
        password_hash,
    };
    Ok((known.id, admin))
}

impl Provisioner {
    /// Asks for a database that exists to become a laboratory: its tables, rows, owners and people stay;
    /// missing migrations are run. It is `provisioning` until the operation has run, and what cannot be
    /// adopted is refused here already.
    ///
    /// A laboratory that has an id in its own profile keeps it.
    ///
    /// # Errors
    /// [`ProvisionError::Invalid`] names a field and says what to do; [`RegistryError::SlugTaken`],
    /// [`RegistryError::DatabaseTaken`]; [`ProvisionError::IdempotencyMismatch`].
    pub async fn request_adopt(
        &self,
        wanted: Adoption,
        by: RequestedBy,
    ) -> Result<(Tenant, OperationId), ProvisionError> {
        let inner = &self.inner;
        let client = inner.config.registry.client().await?;
        let server = match &wanted.server {
            Some(server) => server.clone(),
            None => only_server(&client).await?,
        };
        let params = params_of(&wanted, &server);
        // What was found is kept beside what was asked, and is no part of it.
        let same = |found: &Value| {
            params
                .as_object()
                .is_some_and(|p| p.iter().all(|(k, v)| found.get(k) == Some(v)))
        };
        if let Some(first) = earlier(&client, &by, OperationKind::Adopt, |op| same(&op.params)).await? {
            return Ok((tenant_of(&client, &first).await?, first.id));
        }
        if registry::tenant_by_db_name(&client, &wanted.database)
            .await?
            .is_some()
        {
            let db_name = wanted.database;
            return Err(RegistryError::DatabaseTaken { db_name }.into());
        }
        let row = registry::server_by_name(&client, &server).await?;
        drop(client);
        let row = row.ok_or_else(|| RegistryError::UnknownServer { name: server.clone() })?;
        let session = inner.session(inner.admin_of(row)?).await?;
        let comment = inner.adoptable(&session, &wanted.database, None).await?;
        let target = session.target.with_database(wanted.database.as_str());
        let inside = inner.connect_inside(&target).await?;
        let profile = profile(&inside, &target).await?;
        let taken_back = inner
            .taken_back(&session, &wanted, comment.as_deref(), &profile)
            .await?;
        let known = known(&inside, &target, wanted.admin_email.as_ref()).await?;
        // Before anybody is asked for: a database that is no laboratory's needs no administrator.
        let operation = OperationId::generate();
        inner
            .require_version(&session, (&inside, &target), operation, wanted.baseline)
            .await?;
        let (admin_id, admin) = admin_of(&wanted, known)?;
        let lab = NewLab {
            name: profile
                .name
                .or(wanted.name)
                .unwrap_or_else(|| wanted.slug.to_string()),
            time_zone: profile
                .time_zone
                .or(wanted.time_zone)
                .unwrap_or_else(|| "UTC".to_owned()),
            slug: wanted.slug,
            server: Some(server.clone()),
            admin,
        };
        let lab = lab.checked()?;
        let mut kept = params.clone();
        kept["commentBefore"] = json!(comment);
        let id = taken_back.or(profile.tenant).unwrap_or_else(TenantId::generate);
        self.write_adoption(operation, lab, (id, admin_id), wanted.database, server, kept, &by)
            .await
    }

    #[expect(clippy::too_many_arguments, reason = "all of what one transaction writes")]
    async fn write_adoption(
        &self,
        operation: OperationId,
        lab: NewLab,
        (id, admin_id): (TenantId, StaffId),
        database: DbName,
        server: ServerName,
        params: Value,
        by: &RequestedBy,
    ) -> Result<(Tenant, OperationId), ProvisionError> {
        let mut client = self.inner.config.registry.client().await?;
        if let Some(taken) = registry::tenant_by_id(&client, id).await? {
            let why = format!(
                "its profile says that it is the laboratory {} ({id}), which exists",
                taken.slug
            );
            return Err(refused(&database, why));
        }
        let txn = begin(&mut client).await?;
        let new = NewOperation {
            id: operation,
            kind: OperationKind::Adopt,
            tenant: id,
            tenant_slug: lab.slug.clone(),
            params,
            created_by: by.actor.clone(),
            idempotency_key: by.idempotency_key.clone(),
        };
        registry::operation_insert_in_txn(&txn, &new).await?;
        let tenant = registry::NewTenant {
            id,
            role_name: self.inner.config.namespace.tenant_role(&lab.slug),
            slug: lab.slug,
            name: lab.name,
            time_zone: lab.time_zone,
            server,
            db_name: database,
            // Made by the step that makes the role.
            role_secret: None,
        };
        let tenant =
            registry::tenant_insert_in_txn(&txn, &tenant, &by.change().in_operation(operation)).await?;
        let admin = registry::NewAdmin {
            id: admin_id,
            tenant: id,
            email: lab.admin.email,
            display_name: lab.admin.display_name,
            password_hash: lab.admin.password_hash,
        };
        registry::admin_insert_in_txn(&txn, &admin).await?;
        commit(txn).await?;
        Ok((tenant, operation))
    }
}

fn params_of(wanted: &Adoption, server: &ServerName) -> Value {
    json!(AdoptParams {
        database: wanted.database.as_str().to_owned(),
        slug: wanted.slug.clone(),
        server: server.to_string(),
        baseline: wanted.baseline.map(SchemaVersion::number),
        admin_email: wanted.admin_email.clone(),
        admin_invited: matches!(wanted.admin_entry, AdminEntry::Invited),
    })
}
