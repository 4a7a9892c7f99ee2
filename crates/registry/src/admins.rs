//! The administrators of laboratories: the registry's half of log-in.

use deadpool_postgres::{GenericClient, Transaction};
use jiff::Timestamp;
use model::{Email, StaffId, TenantId};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio_postgres::{Row, types::ToSql};

use crate::{
    Change, NewAudit, RegistryError, audit_insert, invitations::invitation_end_in_txn, row::Reader, sql,
    tenants::not_found,
};

/// An administrator of one laboratory.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The id that the person also has in the laboratory's staff list.
    pub id: StaffId,
    /// The laboratory.
    pub tenant: TenantId,
    /// Log-in name.
    pub email: Email,
    /// The person's name.
    pub display_name: String,
    /// Argon2id hash of the password; absent until the person has set one, who cannot log in before.
    pub password_hash: Option<SecretString>,
    /// Since when the person may no longer log in.
    pub disabled_at: Option<Timestamp>,
    /// When the person was registered.
    pub created_at: Timestamp,
}

macro_rules! columns {
    () => {
        "id, tenant_id, email::text AS email, display_name, password_hash, disabled_at, created_at"
    };
}

impl Admin {
    fn from_row(row: &Row) -> Result<Self, RegistryError> {
        let r = Reader::new(row, "tenant_admins", "id");
        Ok(Self {
            id: r.id("id")?,
            tenant: r.id("tenant_id")?,
            email: Email::from_stored(r.get("email")?),
            display_name: r.get("display_name")?,
            password_hash: r.get::<Option<String>>("password_hash")?.map(SecretString::from),
            disabled_at: r.get("disabled_at")?,
            created_at: r.get("created_at")?,
        })
    }
}

fn exposed(hash: Option<&SecretString>) -> Option<&str> {
    hash.map(ExposeSecret::expose_secret)
}

/// A person who is to administer a laboratory.
#[derive(Debug, Clone)]
pub struct NewAdmin {
    /// The id to have, here and in the laboratory.
    pub id: StaffId,
    /// The laboratory.
    pub tenant: TenantId,
    /// Log-in name.
    pub email: Email,
    /// The person's name.
    pub display_name: String,
    /// Argon2id hash of the password; absent until the person has set one, who cannot log in before.
    pub password_hash: Option<SecretString>,
}

/// What changes of an administrator; what is absent stays.
#[derive(Debug, Clone, Default)]
pub struct AdminPatch {
    /// New log-in name.
    pub email: Option<Email>,
    /// New name.
    pub display_name: Option<String>,
    /// Whether the person may log in.
    pub active: Option<bool>,
}

/// Registers an administrator.
///
/// # Errors
/// [`RegistryError::EmailTaken`] when the laboratory has one with this address.
pub async fn admin_insert_in_txn(txn: &Transaction<'_>, new: &NewAdmin) -> Result<Admin, RegistryError> {
    email_claim_in_txn(txn, new.tenant, &new.email, new.id).await?;
    let statement = concat!(
        "INSERT INTO tenant_admins (id, tenant_id, email, display_name, password_hash)
         VALUES ($1, $2, $3::text::citext, $4, $5) RETURNING ",
        columns!()
    );
    let inserted = sql::row_one(
        txn,
        "the new administrator",
        statement,
        &[
            &new.id.as_uuid(),
            &new.tenant.as_uuid(),
            &new.email.as_str(),
            &new.display_name,
            &exposed(new.password_hash.as_ref()),
        ],
    )
    .await;
    Admin::from_row(&inserted.map_err(|error| match error.violated() {
        Some("tenant_admins_tenant_id_email_key") => RegistryError::EmailTaken {
            email: new.email.clone(),
        },
        Some("tenant_admins_tenant_id_fkey") => not_found(new.tenant),
        _ => error,
    })?)
}

/// Refuses an address that another administrator of the laboratory has, and keeps it from others until the
/// transaction ends. A statement that ran into the constraint would fail, and the server's log would show the
/// address.
async fn email_claim_in_txn(
    txn: &Transaction<'_>,
    tenant: TenantId,
    email: &Email,
    own: StaffId,
) -> Result<(), RegistryError> {
    let doing = "looking whether an administrator's address is free";
    let lock = format!("tenant_admins_email\n{tenant}\n{}", email.as_str().to_lowercase());
    let statement = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
    sql::row_one(txn, doing, statement, &[&lock]).await?;
    let statement =
        "SELECT 1 FROM tenant_admins WHERE tenant_id = $1 AND email = $2::text::citext AND id <> $3";
    let params: [&(dyn ToSql + Sync); 3] = [&tenant.as_uuid(), &email.as_str(), &own.as_uuid()];
    match sql::row_opt(txn, doing, statement, &params).await? {
        Some(_) => Err(RegistryError::EmailTaken { email: email.clone() }),
        None => Ok(()),
    }
}

/// Everyone who administers a laboratory under this address: one person may have several laboratories.
/// Disabled ones are among them; the caller decides.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or a row cannot be read.
pub async fn admins_by_email(
    client: &impl GenericClient,
    email: &Email,
) -> Result<Vec<Admin>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM tenant_admins WHERE email = $1::text::citext ORDER BY tenant_admins.created_at, id LIMIT 500"
    );
    let rows = sql::rows(
        client,
        "looking for an administrator",
        statement,
        &[&email.as_str()],
    )
    .await?;
    rows.iter().map(Admin::from_row).collect()
}

/// The administrator of this laboratory with this id.
///
/// # Errors
/// As [`admins_by_email`].
pub async fn admin_by_id(
    client: &impl GenericClient,
    tenant: TenantId,
    id: StaffId,
) -> Result<Option<Admin>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM tenant_admins WHERE tenant_id = $1 AND id = $2"
    );
    let params: [&(dyn ToSql + Sync); 2] = [&tenant.as_uuid(), &id.as_uuid()];
    let row = sql::row_opt(client, "reading an administrator", statement, &params).await?;
    row.as_ref().map(Admin::from_row).transpose()
}

/// The same, and nobody else changes them until the transaction ends.
///
/// # Errors
/// As [`admins_by_email`].
pub async fn admin_lock_in_txn(
    txn: &Transaction<'_>,
    tenant: TenantId,
    id: StaffId,
) -> Result<Option<Admin>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM tenant_admins WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE"
    );
    let params: [&(dyn ToSql + Sync); 2] = [&tenant.as_uuid(), &id.as_uuid()];
    let row = sql::row_opt(txn, "locking an administrator", statement, &params).await?;
    row.as_ref().map(Admin::from_row).transpose()
}

/// The administrators of one laboratory, first come first.
///
/// # Errors
/// As [`admins_by_email`].
pub async fn admins_of(client: &impl GenericClient, tenant: TenantId) -> Result<Vec<Admin>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM tenant_admins WHERE tenant_id = $1 ORDER BY tenant_admins.created_at, id LIMIT 500"
    );
    let rows = sql::rows(client, "listing administrators", statement, &[&tenant.as_uuid()]).await?;
    rows.iter().map(Admin::from_row).collect()
}

/// Makes a laboratory's administrators those of an archive: who is not among them goes, who is comes back
/// with address, name and standing of then. Whoever is here already keeps the present password: an older one
/// may be known to others by now. An invitation that is under way ends as it does when an administrator is
/// changed.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn admins_put_back_in_txn(
    txn: &Transaction<'_>,
    tenant: TenantId,
    admins: &[Admin],
) -> Result<(), RegistryError> {
    let doing = "putting administrators back";
    let before = admins_of(txn, tenant).await?;
    let kept: Vec<uuid::Uuid> = admins.iter().map(|admin| admin.id.as_uuid()).collect();
    let statement = "DELETE FROM tenant_admins WHERE tenant_id = $1 AND NOT id = ANY ($2)";
    sql::touched(txn, doing, statement, &[&tenant.as_uuid(), &kept]).await?;
    // Addresses may have been exchanged since: nobody stands in another's way while they are written.
    let statement = "UPDATE tenant_admins SET email = (id::text || '@replaced')::citext WHERE tenant_id = $1";
    sql::touched(txn, doing, statement, &[&tenant.as_uuid()]).await?;
    for admin in admins {
        let statement = "INSERT INTO tenant_admins AS a (id, tenant_id, email, display_name, password_hash, disabled_at,
                 created_at)
             VALUES ($1, $2, $3::text::citext, $4, $5, $6, $7)
             ON CONFLICT (tenant_id, id) DO UPDATE SET email = excluded.email, display_name = excluded.display_name,
                 disabled_at = excluded.disabled_at";
        let params: [&(dyn ToSql + Sync); 7] = [
            &admin.id.as_uuid(),
            &tenant.as_uuid(),
            &admin.email.as_str(),
            &admin.display_name,
            &exposed(admin.password_hash.as_ref()),
            &admin.disabled_at,
            &admin.created_at,
        ];
        sql::touched(txn, doing, statement, &params).await?;
        if let Some(before) = before.iter().find(|before| before.id == admin.id) {
            end_invitation_unless_same(txn, before, admin).await?;
        }
    }
    Ok(())
}

/// The link of an invitation lies in the mailbox that it was sent to, and whoever may not log in was not
/// invited to.
async fn end_invitation_unless_same(
    txn: &Transaction<'_>,
    before: &Admin,
    now: &Admin,
) -> Result<(), RegistryError> {
    let moved = !now.email.as_str().eq_ignore_ascii_case(before.email.as_str());
    if moved || now.disabled_at.is_some() {
        invitation_end_in_txn(txn, now.tenant, now.id).await?;
    }
    Ok(())
}

/// Changes an administrator of this laboratory and writes that into the audit; `None` when the laboratory has
/// no such administrator. Who was disabled before keeps the time of it. An invitation that is under way ends
/// with a new address or with the right to log in: its link lies in the old mailbox, and who is let in again
/// later was not invited anew by that.
///
/// # Errors
/// [`RegistryError::EmailTaken`] when another administrator of the laboratory has the address.
pub async fn admin_change_in_txn(
    txn: &Transaction<'_>,
    tenant: TenantId,
    id: StaffId,
    patch: &AdminPatch,
    change: &Change<'_>,
) -> Result<Option<Admin>, RegistryError> {
    let Some(before) = admin_lock_in_txn(txn, tenant, id).await? else {
        return Ok(None);
    };
    if let Some(email) = &patch.email {
        email_claim_in_txn(txn, tenant, email, id).await?;
    }
    let statement = concat!(
        "UPDATE tenant_admins SET email = coalesce($3::text::citext, email),
             display_name = coalesce($4, display_name),
             disabled_at = CASE $5::boolean WHEN true THEN NULL WHEN false THEN coalesce(disabled_at, now())
                           ELSE disabled_at END
         WHERE tenant_id = $1 AND id = $2 RETURNING ",
        columns!()
    );
    let email = patch.email.as_ref().map(Email::as_str);
    let params: [&(dyn ToSql + Sync); 5] = [
        &tenant.as_uuid(),
        &id.as_uuid(),
        &email,
        &patch.display_name,
        &patch.active,
    ];
    let changed = sql::row_opt(txn, "changing an administrator", statement, &params).await;
    let changed = changed.map_err(|error| match (error.violated(), &patch.email) {
        (Some("tenant_admins_tenant_id_email_key"), Some(email)) => {
            RegistryError::EmailTaken { email: email.clone() }
        }
        _ => error,
    })?;
    let Some(row) = changed else {
        return Ok(None);
    };
    let admin = Admin::from_row(&row)?;
    end_invitation_unless_same(txn, &before, &admin).await?;
    let detail = json!({ "admin": id, "email": admin.email, "active": admin.disabled_at.is_none() });
    record(txn, tenant, "admin.changed", detail, change).await?;
    Ok(Some(admin))
}

/// Stores the hash of an administrator's new password and writes that into the audit; `false` when the
/// laboratory has no such administrator. An invitation that is under way ends with it: who changes a password
/// that others may know must not leave a second way in.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn admin_set_password_in_txn(
    txn: &Transaction<'_>,
    tenant: TenantId,
    id: StaffId,
    password_hash: &SecretString,
    change: &Change<'_>,
) -> Result<bool, RegistryError> {
    let touched = sql::touched(
        txn,
        "storing an administrator's password",
        "UPDATE tenant_admins SET password_hash = $3 WHERE tenant_id = $1 AND id = $2",
        &[&tenant.as_uuid(), &id.as_uuid(), &password_hash.expose_secret()],
    )
    .await?;
    if touched > 0 {
        invitation_end_in_txn(txn, tenant, id).await?;
        record(txn, tenant, "admin.password_set", json!({ "admin": id }), change).await?;
    }
    Ok(touched > 0)
}

/// Writes a change of an administrator into the audit.
pub(crate) async fn record(
    txn: &Transaction<'_>,
    tenant: TenantId,
    action: &str,
    detail: Value,
    change: &Change<'_>,
) -> Result<(), RegistryError> {
    let entry = NewAudit {
        actor: change.actor,
        action,
        tenant: Some(tenant),
        detail,
        request_id: change.request_id,
        client_ip: change.client_ip,
    };
    audit_insert(txn, &entry).await
}
