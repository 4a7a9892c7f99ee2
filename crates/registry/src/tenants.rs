//! The laboratories.

use std::{fmt, time::Duration};

use deadpool_postgres::{GenericClient, Transaction};
use jiff::Timestamp;
use model::{
    DbName, EventType, RoleName, SchemaVersion, ServerName, SessionEpoch, Slug, TenantId, TenantState,
};
use serde_json::json;
use tokio_postgres::{Row, types::ToSql};

use crate::{
    Change, Entity, NewTenantEvent, RegistryError, event_insert, outbox, paging::page_limit, row::Reader, sql,
};

/// A laboratory as the registry knows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id, for ever.
    pub id: TenantId,
    /// Its short name in URLs.
    pub slug: Slug,
    /// Its name.
    pub name: String,
    /// IANA name of its time zone.
    pub time_zone: String,
    /// The server that hosts its database.
    pub server: ServerName,
    /// Its database.
    pub db_name: DbName,
    /// The role that its requests run as.
    pub role_name: RoleName,
    /// That role's password, sealed; absent until the role is being made.
    pub role_secret: Option<Vec<u8>>,
    /// Where it stands.
    pub status: TenantState,
    /// Where it stood before its removal was asked for.
    pub status_before: Option<TenantState>,
    /// The schema version that its own migration history showed last.
    pub db_version: SchemaVersion,
    /// Raised by every change of the row.
    pub generation: i64,
    /// Its staff's tokens of another epoch are no longer valid.
    pub session_epoch: SessionEpoch,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When the row changed last.
    pub updated_at: Timestamp,
    /// When it went into service first.
    pub activated_at: Option<Timestamp>,
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant")
            .field("id", &self.id)
            .field("slug", &self.slug)
            .field("server", &self.server)
            .field("db_name", &self.db_name)
            .field("status", &self.status)
            .field("db_version", &self.db_version)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// Every column, with citext as text: the driver would ask the server for an unknown type on each new
/// connection.
macro_rules! columns {
    () => {
        "id, slug::text AS slug, name, time_zone, server, db_name, role_name, role_secret, status, \
         status_before, db_version, generation, session_epoch, created_at, updated_at, activated_at"
    };
}
pub(crate) use columns;

impl Tenant {
    pub(crate) fn from_row(row: &Row) -> Result<Self, RegistryError> {
        let r = Reader::new(row, "tenants", "id");
        Ok(Self {
            id: r.id("id")?,
            slug: r.parse("slug")?,
            name: r.get("name")?,
            time_zone: r.get("time_zone")?,
            server: r.with("server", |text: &str| ServerName::parse(text))?,
            db_name: r.with("db_name", |name: String| DbName::from_catalog(name))?,
            role_name: r.with("role_name", |name: String| RoleName::from_catalog(name))?,
            role_secret: r.get("role_secret")?,
            status: r.parse("status")?,
            status_before: r.parse_opt("status_before")?,
            db_version: r.version("db_version")?,
            generation: r.get("generation")?,
            session_epoch: r.id("session_epoch")?,
            created_at: r.get("created_at")?,
            updated_at: r.get("updated_at")?,
            activated_at: r.get("activated_at")?,
        })
    }
}

/// The laboratory with this id.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or the row cannot be read.
pub async fn tenant_by_id(
    client: &impl GenericClient,
    id: TenantId,
) -> Result<Option<Tenant>, RegistryError> {
    let statement = concat!("SELECT ", columns!(), " FROM tenants WHERE id = $1");
    let row = sql::row_opt(client, "reading a laboratory", statement, &[&id.as_uuid()]).await?;
    row.as_ref().map(Tenant::from_row).transpose()
}

/// The laboratory with this id, its row locked until the transaction ends: nobody changes its state
/// meanwhile.
///
/// # Errors
/// As [`tenant_by_id`].
pub async fn tenant_lock_in_txn(
    txn: &Transaction<'_>,
    id: TenantId,
) -> Result<Option<Tenant>, RegistryError> {
    let statement = concat!("SELECT ", columns!(), " FROM tenants WHERE id = $1 FOR UPDATE");
    let row = sql::row_opt(txn, "locking a laboratory's row", statement, &[&id.as_uuid()]).await?;
    row.as_ref().map(Tenant::from_row).transpose()
}

/// Whether the laboratory's row has had this generation for at least `time`, by the database's clock; `None`
/// when it has another one by now, or is gone.
///
/// # Errors
/// As [`tenant_by_id`].
pub async fn tenant_unchanged_for(
    client: &impl GenericClient,
    id: TenantId,
    generation: i64,
    time: Duration,
) -> Result<Option<bool>, RegistryError> {
    let statement = "SELECT id, updated_at <= clock_timestamp() - make_interval(secs => $3) AS unchanged
         FROM tenants WHERE id = $1 AND generation = $2";
    let params: [&(dyn ToSql + Sync); 3] = [&id.as_uuid(), &generation, &time.as_secs_f64()];
    let row = sql::row_opt(client, "looking at a laboratory again", statement, &params).await?;
    row.map(|row| Reader::new(&row, "tenants", "id").get("unchanged"))
        .transpose()
}

/// The laboratory with this slug, without regard to case.
///
/// # Errors
/// As [`tenant_by_id`].
pub async fn tenant_by_slug(
    client: &impl GenericClient,
    slug: &Slug,
) -> Result<Option<Tenant>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM tenants WHERE slug = $1::text::citext"
    );
    let row = sql::row_opt(client, "reading a laboratory", statement, &[&slug.as_str()]).await?;
    row.as_ref().map(Tenant::from_row).transpose()
}

/// The laboratory that has this database.
///
/// # Errors
/// As [`tenant_by_id`].
pub async fn tenant_by_db_name(
    client: &impl GenericClient,
    name: &DbName,
) -> Result<Option<Tenant>, RegistryError> {
    let statement = concat!("SELECT ", columns!(), " FROM tenants WHERE db_name = $1");
    let row = sql::row_opt(client, "reading a laboratory", statement, &[&name.as_str()]).await?;
    row.as_ref().map(Tenant::from_row).transpose()
}

/// The role of a laboratory whose name does not begin with `prefix`, where there are laboratories and none
/// has a role that does: they were made in another namespace.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn role_of_another_namespace(
    client: &impl GenericClient,
    prefix: &str,
) -> Result<Option<String>, RegistryError> {
    let doing = "looking for the namespace of the laboratories";
    let there = "SELECT to_regclass('tenants') IS NOT NULL";
    if !sql::row_one(client, doing, there, &[]).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    let statement = "SELECT role_name FROM tenants WHERE NOT EXISTS (SELECT FROM tenants WHERE starts_with(role_name, $1))
                      ORDER BY created_at LIMIT 1";
    let rows = sql::rows(client, doing, statement, &[&prefix]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// Which of these ids the registry has ever had a laboratory for: one that is there, or one whose operations
/// are remembered. None where the registry has no tables yet.
///
/// # Errors
/// [`RegistryError::Unavailable`], [`RegistryError::Db`].
pub async fn laboratories_known(
    client: &impl GenericClient,
    ids: &[TenantId],
) -> Result<Vec<TenantId>, RegistryError> {
    let doing = "looking for laboratories by their marks";
    let there = "SELECT to_regclass('tenants') IS NOT NULL AND to_regclass('operations') IS NOT NULL";
    if !sql::row_one(client, doing, there, &[]).await?.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let ids: Vec<uuid::Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
    let statement = "SELECT id FROM tenants WHERE id = ANY ($1) UNION SELECT tenant_id FROM operations WHERE tenant_id = ANY ($1)";
    let rows = sql::rows(client, doing, statement, &[&ids]).await?;
    Ok(rows
        .iter()
        .map(|row| TenantId::from(row.get::<_, uuid::Uuid>(0)))
        .collect())
}

/// Which laboratories to list; the default is all of them.
#[derive(Debug, Clone, Default)]
pub struct TenantFilter {
    /// Only those in this state.
    pub status: Option<TenantState>,
    /// Only those on this server.
    pub server: Option<ServerName>,
    /// Only those whose schema is older than this version.
    pub behind: Option<SchemaVersion>,
}

/// One page of laboratories in the order of their slugs, after the slug `after`; `limit` is cut to
/// [`crate::PAGE_MAX`].
///
/// # Errors
/// As [`tenant_by_id`].
pub async fn tenants_list(
    client: &impl GenericClient,
    filter: &TenantFilter,
    after: Option<&Slug>,
    limit: u32,
) -> Result<Vec<Tenant>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM tenants
         WHERE ($1::text IS NULL OR status = $1) AND ($2::text IS NULL OR server = $2)
           AND ($3::int4 IS NULL OR db_version < $3) AND ($4::text IS NULL OR slug > $4::text::citext)
         ORDER BY tenants.slug LIMIT $5"
    );
    let status = filter.status.map(TenantState::as_str);
    let server = filter.server.as_ref().map(ServerName::as_str);
    let behind = filter.behind.map(version_number);
    let rows = sql::rows(
        client,
        "listing laboratories",
        statement,
        &[
            &status,
            &server,
            &behind,
            &after.map(Slug::as_str),
            &page_limit(limit),
        ],
    )
    .await;
    rows?.iter().map(Tenant::from_row).collect()
}

/// What is known of a laboratory when it is asked for.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// Its id.
    pub id: TenantId,
    /// Its short name.
    pub slug: Slug,
    /// Its name.
    pub name: String,
    /// IANA name of its time zone.
    pub time_zone: String,
    /// The server that will host it.
    pub server: ServerName,
    /// The database it will have.
    pub db_name: DbName,
    /// The role it will have.
    pub role_name: RoleName,
    /// That role's password, sealed; one is made later where it is left out.
    pub role_secret: Option<Vec<u8>>,
}

/// Writes the row of a laboratory, state `provisioning`, with its first event and the audit.
///
/// # Errors
/// [`RegistryError::SlugTaken`], [`RegistryError::DatabaseTaken`], [`RegistryError::UnknownServer`]; the
/// transaction is lost then.
pub async fn tenant_insert_in_txn(
    txn: &Transaction<'_>,
    new: &NewTenant,
    change: &Change<'_>,
) -> Result<Tenant, RegistryError> {
    let statement = concat!(
        "INSERT INTO tenants (id, slug, name, time_zone, server, db_name, role_name, role_secret)
         VALUES ($1, $2::text::citext, $3, $4, $5, $6, $7, $8) RETURNING ",
        columns!()
    );
    let inserted = sql::row_one(
        txn,
        "the new laboratory",
        statement,
        &[
            &new.id.as_uuid(),
            &new.slug.as_str(),
            &new.name,
            &new.time_zone,
            &new.server.as_str(),
            &new.db_name.as_str(),
            &new.role_name.as_str(),
            &new.role_secret,
        ],
    )
    .await;
    let tenant = Tenant::from_row(&inserted.map_err(|error| match error.violated() {
        Some("tenants_slug_key") => RegistryError::SlugTaken {
            slug: new.slug.clone(),
        },
        Some("tenants_db_name_key") => RegistryError::DatabaseTaken {
            db_name: new.db_name.clone(),
        },
        Some("tenants_server_fkey") => RegistryError::UnknownServer {
            name: new.server.clone(),
        },
        _ => error,
    })?)?;
    record(txn, &tenant, "created", EventType::LaboratoryCreated, change).await?;
    Ok(tenant)
}

/// Writes what happened to a laboratory that is there: as its own event, which goes with it, into the audit,
/// which stays, and into the outbox for others. The three go to the server together.
pub(crate) async fn record(
    txn: &Transaction<'_>,
    tenant: &Tenant,
    kind: &str,
    event_type: EventType,
    change: &Change<'_>,
) -> Result<(), RegistryError> {
    let event = NewTenantEvent {
        tenant: tenant.id,
        kind,
        actor: change.actor,
        operation: change.operation,
        detail: change.detail(),
    };
    // In their order: where the first one fails, the others have only that to say.
    tokio::try_join!(
        biased;
        event_insert(txn, &event),
        record_audit(txn, tenant, kind, change),
        outbox::of_tenant(txn, event_type, tenant, Some(tenant.status), change),
    )
    .map(drop)
}

/// The audit's half of [`record`].
pub(crate) async fn record_audit(
    txn: &Transaction<'_>,
    tenant: &Tenant,
    kind: &str,
    change: &Change<'_>,
) -> Result<(), RegistryError> {
    let mut detail = change.detail();
    // The slug too: people who read the audit later can no longer look the id up.
    detail["slug"] = json!(tenant.slug);
    let entry = crate::NewAudit {
        actor: change.actor,
        action: &format!("tenant.{kind}"),
        tenant: Some(tenant.id),
        detail,
        request_id: change.request_id,
        client_ip: change.client_ip,
    };
    crate::audit_insert(txn, &entry).await
}

/// Keeps the sealed password of the laboratory's role.
///
/// # Errors
/// [`RegistryError::NotFound`] when the laboratory is gone.
pub async fn tenant_set_role_secret(
    client: &impl GenericClient,
    id: TenantId,
    sealed: &[u8],
) -> Result<(), RegistryError> {
    let statement = "UPDATE tenants SET role_secret = $2 WHERE id = $1";
    let doing = "keeping a role's sealed password";
    match sql::touched(client, doing, statement, &[&id.as_uuid(), &sealed]).await? {
        0 => Err(not_found(id)),
        _ => Ok(()),
    }
}

/// Records the version that was read in the laboratory's own migration history, and never a lower one than is
/// recorded already: an older binary must not undo what a newer one wrote. Returns what is recorded now.
///
/// # Errors
/// [`RegistryError::NotFound`] when the laboratory is gone.
pub async fn tenant_set_db_version(
    client: &impl GenericClient,
    id: TenantId,
    version: SchemaVersion,
) -> Result<SchemaVersion, RegistryError> {
    // The row is touched only when something changes, so that routers are not made to read it again for
    // nothing.
    let statement = "WITH raised AS (
             UPDATE tenants SET db_version = $2 WHERE id = $1 AND db_version < $2 RETURNING id, db_version
         )
         SELECT id, db_version FROM raised
         UNION ALL
         SELECT id, db_version FROM tenants WHERE id = $1 AND NOT EXISTS (SELECT FROM raised)";
    let doing = "recording a schema version";
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&id.as_uuid(), &version_number(version)];
    let row = sql::row_opt(client, doing, statement, &params).await?;
    Reader::new(&row.ok_or_else(|| not_found(id))?, "tenants", "id").version("db_version")
}

pub(crate) fn version_number(version: SchemaVersion) -> i32 {
    i32::try_from(version.number()).unwrap_or(i32::MAX)
}

pub(crate) fn not_found(id: TenantId) -> RegistryError {
    RegistryError::NotFound {
        what: Entity::Laboratory,
        id: id.to_string(),
    }
}
