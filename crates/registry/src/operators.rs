//! The platform's own staff.

use deadpool_postgres::{GenericClient, Transaction};
use jiff::Timestamp;
use model::{Email, OperatorId, SessionEpoch};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio_postgres::{Row, types::ToSql};

use crate::{Change, Entity, NewAudit, RegistryError, audit_insert, row::Reader, sql};

/// One person of the platform's staff.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The person's id.
    pub id: OperatorId,
    /// Log-in name.
    pub email: Email,
    /// The person's name.
    pub display_name: String,
    /// Argon2id hash of the password.
    pub password_hash: SecretString,
    /// Since when the person may no longer log in.
    pub disabled_at: Option<Timestamp>,
    /// When the person was registered.
    pub created_at: Timestamp,
    /// The person's tokens of another epoch are no longer valid.
    pub session_epoch: SessionEpoch,
}

macro_rules! columns {
    () => {
        "id, email::text AS email, display_name, password_hash, disabled_at, created_at, session_epoch"
    };
}

impl Operator {
    fn from_row(row: &Row) -> Result<Self, RegistryError> {
        let r = Reader::new(row, "operators", "id");
        Ok(Self {
            id: r.id("id")?,
            email: Email::from_stored(r.get("email")?),
            display_name: r.get("display_name")?,
            password_hash: r.get::<String>("password_hash")?.into(),
            disabled_at: r.get("disabled_at")?,
            created_at: r.get("created_at")?,
            session_epoch: r.id("session_epoch")?,
        })
    }
}

/// A person who is to join the platform's staff.
#[derive(Debug, Clone)]
pub struct NewOperator {
    /// The id to have.
    pub id: OperatorId,
    /// Log-in name.
    pub email: Email,
    /// The person's name.
    pub display_name: String,
    /// Argon2id hash of the password.
    pub password_hash: SecretString,
}

/// Registers an operator.
///
/// # Errors
/// [`RegistryError::EmailTaken`] when the address is registered already.
pub async fn operator_insert(
    client: &impl GenericClient,
    new: &NewOperator,
) -> Result<Operator, RegistryError> {
    let statement = concat!(
        "INSERT INTO operators (id, email, display_name, password_hash) VALUES ($1, $2::text::citext, $3, $4)
         ON CONFLICT (email) DO NOTHING RETURNING ",
        columns!()
    );
    let hash = new.password_hash.expose_secret();
    let params: [&(dyn ToSql + Sync); 4] = [&new.id.as_uuid(), &new.email.as_str(), &new.display_name, &hash];
    // No failed statement, which the server's log would show with the address.
    let inserted = sql::row_opt(client, "the new operator", statement, &params).await?;
    Operator::from_row(&inserted.ok_or_else(|| RegistryError::EmailTaken {
        email: new.email.clone(),
    })?)
}

/// The operator with this address, without regard to case.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked or the row cannot be read.
pub async fn operator_by_email(
    client: &impl GenericClient,
    email: &Email,
) -> Result<Option<Operator>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM operators WHERE email = $1::text::citext"
    );
    let row = sql::row_opt(client, "looking for an operator", statement, &[&email.as_str()]).await?;
    row.as_ref().map(Operator::from_row).transpose()
}

/// The operator with this id.
///
/// # Errors
/// As [`operator_by_email`].
pub async fn operator_by_id(
    client: &impl GenericClient,
    id: OperatorId,
) -> Result<Option<Operator>, RegistryError> {
    let statement = concat!("SELECT ", columns!(), " FROM operators WHERE id = $1");
    let row = sql::row_opt(client, "reading an operator", statement, &[&id.as_uuid()]).await?;
    row.as_ref().map(Operator::from_row).transpose()
}

/// All operators, first come first.
///
/// # Errors
/// As [`operator_by_email`].
pub async fn operators_list(client: &impl GenericClient) -> Result<Vec<Operator>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM operators ORDER BY operators.created_at, id LIMIT 500"
    );
    let rows = sql::rows(client, "listing operators", statement, &[]).await?;
    rows.iter().map(Operator::from_row).collect()
}

/// Stores the hash of an operator's new password and writes that into the audit. Access tokens issued before
/// end with it.
///
/// # Errors
/// [`RegistryError::NotFound`] when there is no such operator.
pub async fn operator_set_password_in_txn(
    txn: &Transaction<'_>,
    id: OperatorId,
    password_hash: &SecretString,
    change: &Change<'_>,
) -> Result<Operator, RegistryError> {
    let statement = concat!(
        "UPDATE operators SET password_hash = $2 WHERE id = $1 RETURNING ",
        columns!()
    );
    let params: [&(dyn ToSql + Sync); 2] = [&id.as_uuid(), &password_hash.expose_secret()];
    change_one(txn, id, statement, &params, "operator.password_set", change).await
}

/// As [`operator_set_password_in_txn`], by the person in a session of `epoch`: `None`, and nothing is
/// changed, when that has ended meanwhile.
///
/// # Errors
/// [`RegistryError`] when the registry cannot be asked.
pub async fn operator_change_password_in_txn(
    txn: &Transaction<'_>,
    id: OperatorId,
    epoch: SessionEpoch,
    password_hash: &SecretString,
    change: &Change<'_>,
) -> Result<Option<Operator>, RegistryError> {
    let statement = concat!(
        "SELECT ",
        columns!(),
        " FROM operators WHERE id = $1 AND session_epoch = $2 AND disabled_at IS NULL FOR NO KEY UPDATE"
    );
    let params: [&(dyn ToSql + Sync); 2] = [&id.as_uuid(), &epoch.as_uuid()];
    let doing = "locking an operator";
    if sql::row_opt(txn, doing, statement, &params).await?.is_none() {
        return Ok(None);
    }
    operator_set_password_in_txn(txn, id, password_hash, change)
        .await
        .map(Some)
}

/// Lets an operator in again, or no longer, from their next request on, and writes that into the audit. Who
/// was disabled before keeps the time of it. Access tokens issued before stay ended when the operator is let
/// in again.
///
/// # Errors
/// [`RegistryError::NotFound`] when there is no such operator.
pub async fn operator_set_active_in_txn(
    txn: &Transaction<'_>,
    id: OperatorId,
    active: bool,
    change: &Change<'_>,
) -> Result<Operator, RegistryError> {
    let statement = concat!(
        "UPDATE operators SET disabled_at = CASE WHEN $2 THEN NULL ELSE coalesce(disabled_at, now()) END
         WHERE id = $1 RETURNING ",
        columns!()
    );
    let action = if active {
        "operator.enabled"
    } else {
        "operator.disabled"
    };
    change_one(txn, id, statement, &[&id.as_uuid(), &active], action, change).await
}

/// Ends every access token of an operator and writes that into the audit.
///
/// # Errors
/// [`RegistryError::NotFound`] when there is no such operator.
pub async fn operator_end_sessions_in_txn(
    txn: &Transaction<'_>,
    id: OperatorId,
    change: &Change<'_>,
) -> Result<Operator, RegistryError> {
    let statement = concat!(
        "UPDATE operators SET session_epoch = gen_random_uuid() WHERE id = $1 RETURNING ",
        columns!()
    );
    change_one(
        txn,
        id,
        statement,
        &[&id.as_uuid()],
        "operator.logged_out",
        change,
    )
    .await
}

async fn change_one(
    txn: &Transaction<'_>,
    id: OperatorId,
    statement: &str,
    params: &[&(dyn ToSql + Sync)],
    action: &str,
    change: &Change<'_>,
) -> Result<Operator, RegistryError> {
    let row = sql::row_opt(txn, "changing an operator", statement, params).await?;
    let row = row.ok_or_else(|| RegistryError::NotFound {
        what: Entity::Operator,
        id: id.to_string(),
    })?;
    let operator = Operator::from_row(&row)?;
    let entry = NewAudit {
        actor: change.actor,
        action,
        tenant: None,
        detail: json!({ "operator": id, "email": operator.email }),
        request_id: change.request_id,
        client_ip: change.client_ip,
    };
    audit_insert(txn, &entry).await?;
    Ok(operator)
}
