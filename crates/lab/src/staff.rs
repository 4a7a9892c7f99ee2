//! The people who work in the laboratory. They are never removed: signatures on results name them.

use jiff::Timestamp;
use model::{Email, Role, SessionEpoch, StaffId};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Actor, LabError, Page, PageRequest, Txn, audit,
    claim::claim,
    error::{duplicate, same_version},
    paging::Cursor,
    rows::Reader,
    text::{LINE_MAX, Problems},
};

const DUPLICATE: &str =
    "a person with this e-mail is on the staff already (the case of letters does not matter)";

/// One person.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Staff {
    /// Their id.
    #[schema(value_type = Uuid)]
    pub id: StaffId,
    /// Their name.
    pub display_name: String,
    /// Their e-mail, which is their log-in name.
    pub email: String,
    /// What they do.
    pub role: Role,
    /// Whether they may log in.
    pub active: bool,
    /// Whether a password is stored here.
    pub has_password: bool,
    /// Until when an invitation can be used that is under way.
    pub invited_until: Option<Timestamp>,
    /// Since when.
    pub created_at: Timestamp,
    /// Raised by every change.
    pub version: i32,
}

/// What a log-in needs to know. The hash never leaves the process: the type has no `Serialize`, and `Debug`
/// hides it.
#[derive(Clone)]
pub struct StaffLogin {
    /// The person.
    pub id: StaffId,
    /// Their log-in name.
    pub email: Email,
    /// What they do.
    pub role: Role,
    /// Whether they may log in.
    pub active: bool,
    /// Argon2id in PHC form; absent when they log in elsewhere.
    pub password_hash: Option<String>,
    /// Their tokens of another epoch are no longer valid.
    pub session_epoch: SessionEpoch,
}

impl std::fmt::Debug for StaffLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaffLogin")
            .field("id", &self.id)
            .field("role", &self.role)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

/// A new person.
#[derive(Debug, Clone)]
pub struct NewStaff {
    /// Their e-mail.
    pub email: Email,
    /// Their name.
    pub display_name: String,
    /// What they do.
    pub role: Role,
}

/// A change to a person; what is absent stays.
#[derive(Debug, Clone, Default)]
pub struct StaffPatch {
    /// New name.
    pub display_name: Option<String>,
    /// New e-mail.
    pub email: Option<Email>,
    /// New role; tokens that carry the old one end with it.
    pub role: Option<Role>,
    /// Close or open their account.
    pub active: Option<bool>,
}

const COLUMNS: &str = "id, display_name, email, role, active, password_hash IS NOT NULL AS has_password, created_at, version,
    (SELECT expires_at FROM staff_invitation i WHERE i.staff_id = staff.id AND i.expires_at > clock_timestamp()) AS invited_until";

/// Adds a person, who has no password and gets in when they have set one themselves ([`crate::invitations`]).
///
/// # Errors
/// [`LabError::Conflict`] `duplicate` when the e-mail is taken, [`LabError::Invalid`] for a bad field.
pub async fn create(txn: &Txn<'_>, actor: &Actor, new: &NewStaff) -> Result<Staff, LabError> {
    let mut problems = Problems::default();
    let display_name = problems.line("displayName", &new.display_name, LINE_MAX);
    problems.done()?;
    email_claim(txn, &new.email, None).await?;
    let id = StaffId::generate();
    let statement = txn
        .prepare_cached("INSERT INTO staff (id, display_name, email, role) VALUES ($1, $2, $3, $4)")
        .await?;
    txn.execute(
        &statement,
        &[
            &id.as_uuid(),
            &display_name,
            &new.email.as_str(),
            &new.role.as_str(),
        ],
    )
    .await
    .map_err(duplicate("staff_email", DUPLICATE))?;
    let detail = serde_json::json!({ "role": new.role.as_str() });
    audit::write(txn, actor, "staff.added", "staff", id, Some(detail)).await?;
    get(txn, id).await
}

/// One person.
///
/// # Errors
/// [`LabError::NotFound`].
pub async fn get(txn: &Txn<'_>, id: StaffId) -> Result<Staff, LabError> {
    let statement = txn
        .prepare_cached(&format!("SELECT {COLUMNS} FROM staff WHERE id = $1"))
        .await?;
    let row = txn.query_opt(&statement, &[&id.as_uuid()]).await?;
    staff(&row.ok_or_else(|| LabError::not_found("staff member", id))?)
}

/// Everybody, those added last first.
///
/// # Errors
/// [`LabError::Invalid`] for a bad page.
pub async fn list(txn: &Txn<'_>, page: &PageRequest) -> Result<Page<Staff>, LabError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM staff WHERE $1::timestamptz IS NULL OR (created_at, id) < ($1, $2::uuid)
         ORDER BY created_at DESC, id DESC LIMIT $3"
    );
    let statement = txn.prepare_cached(&sql).await?;
    let (since, after) = page
        .after_row(txn, "SELECT created_at FROM staff WHERE id = $1")
        .await?
        .unzip();
    let rows = txn.query(&statement, &[&since, &after, &page.fetch()?]).await?;
    let people = rows.iter().map(staff).collect::<Result<Vec<_>, _>>()?;
    page.page(people, |person| {
        Cursor::Moment(person.created_at, person.id.as_uuid())
    })
}

/// What is needed to log a person in by e-mail, without regard to case.
///
/// # Errors
/// Only the database's own.
pub async fn login_by_email(txn: &Txn<'_>, email: &Email) -> Result<Option<StaffLogin>, LabError> {
    let sql = "SELECT id, email, role, active, password_hash, session_epoch FROM staff WHERE lower(email) = lower($1::text)";
    let statement = txn.prepare_cached(sql).await?;
    let row = txn.query_opt(&statement, &[&email.as_str()]).await?;
    row.as_ref().map(login).transpose()
}

/// What is needed to check that the holder of a token is still on the staff.
///
/// # Errors
/// Only the database's own.
pub async fn login_by_id(txn: &Txn<'_>, id: StaffId) -> Result<Option<StaffLogin>, LabError> {
    let sql = "SELECT id, email, role, active, password_hash, session_epoch FROM staff WHERE id = $1";
    let statement = txn.prepare_cached(sql).await?;
    let row = txn.query_opt(&statement, &[&id.as_uuid()]).await?;
    row.as_ref().map(login).transpose()
}

/// Changes a person. A change that changes nothing writes nothing.
///
/// # Errors
/// [`LabError::Version`] when the row has changed since it was read, [`LabError::Conflict`] when the e-mail
/// is taken or the laboratory would be left without an active lab admin.
pub async fn update(
    txn: &Txn<'_>,
    actor: &Actor,
    id: StaffId,
    version: i32,
    patch: &StaffPatch,
) -> Result<Staff, LabError> {
    let mut problems = Problems::default();
    let display_name = problems.optional_line("displayName", patch.display_name.as_deref(), LINE_MAX);
    problems.done()?;
    // All admins are locked, in one order: two of them demoting each other at once must not both succeed.
    txn.query(
        "SELECT id FROM staff WHERE role = 'lab_admin' OR id = $1 ORDER BY id FOR NO KEY UPDATE",
        &[&id.as_uuid()],
    )
    .await?;
    let before = get(txn, id).await?;
    same_version("the staff member", before.version, version)?;
    let stays = display_name
        .as_deref()
        .is_none_or(|name| name == before.display_name)
        && patch
            .email
            .as_ref()
            .is_none_or(|email| email.as_str() == before.email)
        && patch.role.is_none_or(|role| role == before.role)
        && patch.active.is_none_or(|active| active == before.active);
    if stays {
        return Ok(before);
    }
    if let Some(email) = &patch.email {
        email_claim(txn, email, Some(id)).await?;
    }
    let statement = txn
        .prepare_cached(
            "UPDATE staff SET display_name = coalesce($2, display_name), email = coalesce($3, email),
               role = coalesce($4, role), active = coalesce($5, active) WHERE id = $1",
        )
        .await?;
    let email = patch.email.as_ref().map(Email::as_str);
    let role = patch.role.map(Role::as_str);
    txn.execute(
        &statement,
        &[&id.as_uuid(), &display_name, &email, &role, &patch.active],
    )
    .await
    .map_err(duplicate("staff_email", DUPLICATE))?;
    let admins = txn
        .query_one(
            "SELECT count(*) FROM staff WHERE role = 'lab_admin' AND active",
            &[],
        )
        .await?;
    if admins.get::<_, i64>(0) == 0 {
        return Err(LabError::conflict(
            "last_admin",
            "this is the last active lab admin; make another person lab admin first",
        ));
    }
    let after = get(txn, id).await?;
    let detail = serde_json::json!({ "role": after.role.as_str(), "active": after.active });
    audit::write(txn, actor, "staff.changed", "staff", id, Some(detail)).await?;
    Ok(after)
}

/// Refuses an address that another person of the staff has. The check comes before the statement that would
/// fail, which the server's log would show with the address.
async fn email_claim(txn: &Txn<'_>, email: &Email, own: Option<StaffId>) -> Result<(), LabError> {
    claim(txn, "staff_email", &email.as_str().to_lowercase()).await?;
    let statement = txn
        .prepare_cached(
            "SELECT EXISTS (SELECT FROM staff WHERE lower(email) = lower($1::text) AND id IS DISTINCT FROM $2)",
        )
        .await?;
    let own = own.map(|id| id.as_uuid());
    if txn.query_one(&statement, &[&email.as_str(), &own]).await?.get(0) {
        return Err(LabError::conflict("duplicate", DUPLICATE));
    }
    Ok(())
}

/// Stores a new password's hash (Argon2id in PHC form) and gives the person's new session epoch: tokens
/// issued before end.
///
/// # Errors
/// [`LabError::NotFound`].
pub async fn password_set(
    txn: &Txn<'_>,
    actor: &Actor,
    id: StaffId,
    password_hash: &str,
) -> Result<SessionEpoch, LabError> {
    let statement = txn
        .prepare_cached("UPDATE staff SET password_hash = $2 WHERE id = $1 RETURNING session_epoch")
        .await?;
    let row = txn
        .query_opt(&statement, &[&id.as_uuid(), &password_hash])
        .await?;
    let row = row.ok_or_else(|| LabError::not_found("staff member", id))?;
    audit::write(txn, actor, "staff.password_set", "staff", id, None).await?;
    epoch(&row)
}

/// Ends every access token of the person who asks.
///
/// # Errors
/// [`LabError::NotFound`].
pub async fn sessions_end(txn: &Txn<'_>, actor: &Actor) -> Result<(), LabError> {
    let id = actor.staff;
    let statement = txn
        .prepare_cached("UPDATE staff SET session_epoch = gen_random_uuid() WHERE id = $1")
        .await?;
    if txn.execute(&statement, &[&id.as_uuid()]).await? == 0 {
        return Err(LabError::not_found("staff member", id));
    }
    audit::write(txn, actor, "staff.logged_out", "staff", id, None).await
}

fn epoch(row: &Row) -> Result<SessionEpoch, LabError> {
    let row = Reader::new("staff", row);
    Ok(row.get::<Uuid>("session_epoch")?.into())
}

fn staff(row: &Row) -> Result<Staff, LabError> {
    let row = Reader::new("staff", row);
    Ok(Staff {
        id: row.get::<Uuid>("id")?.into(),
        display_name: row.get("display_name")?,
        email: row.get("email")?,
        role: row.parse("role")?,
        active: row.get("active")?,
        has_password: row.get("has_password")?,
        invited_until: row.get("invited_until")?,
        created_at: row.get("created_at")?,
        version: row.get("version")?,
    })
}

fn login(row: &Row) -> Result<StaffLogin, LabError> {
    let row = Reader::new("staff", row);
    Ok(StaffLogin {
        id: row.get::<Uuid>("id")?.into(),
        email: Email::from_stored(row.get("email")?),
        role: row.parse("role")?,
        active: row.get("active")?,
        password_hash: row.get("password_hash")?,
        session_epoch: row.get::<Uuid>("session_epoch")?.into(),
    })
}
