//! Invitations of the people who work here: the right to set a password of one's own, once and for a while.
//!
//! The database knows the SHA-256 of a token and never the token. A person has one invitation at most; using
//! setting the password ends it (a trigger does that for every caller).

use std::time::Duration;

use jiff::Timestamp;
use model::{Email, SessionEpoch, StaffId};

use crate::{Actor, LabError, Txn, audit, rows::Reader, staff};

/// An invitation that is to be.
#[derive(Debug, Clone)]
pub struct NewInvitation {
    /// Who is invited.
    pub staff: StaffId,
    /// The SHA-256 of the token.
    pub token_sha256: [u8; 32],
    /// The laboratory's session epoch: the invitation ends with it.
    pub epoch: SessionEpoch,
    /// How long it can be used, by the database's clock.
    pub valid_for: Duration,
}

/// An invitation that was made.
#[derive(Debug, Clone)]
pub struct Invited {
    /// Who is invited.
    pub staff: StaffId,
    /// Their address.
    pub email: Email,
    /// Until when.
    pub expires_at: Timestamp,
}

/// Looks whether a person may be invited by the caller. The person's row is locked until the transaction
/// ends, so that the account is not closed meanwhile.
///
/// # Errors
/// [`LabError::NotFound`]; [`LabError::Conflict`] `inactive` when they may not log in, `own` when they are
/// who asks: a session that somebody else has taken over must not set another password.
pub async fn may_invite(txn: &Txn<'_>, actor: &Actor, id: StaffId) -> Result<staff::Staff, LabError> {
    if id == actor.staff {
        return Err(LabError::conflict(
            "own",
            "you cannot invite yourself: change your own password with POST /api/v1/me/password, or ask another lab admin or \
             an operator for an invitation",
        ));
    }
    let sql = "SELECT id FROM staff WHERE id = $1 FOR NO KEY UPDATE";
    txn.query(sql, &[&id.as_uuid()]).await?;
    let person = staff::get(txn, id).await?;
    if !person.active {
        return Err(LabError::conflict(
            "inactive",
            "this person's account is closed; open it before you invite them",
        ));
    }
    Ok(person)
}

/// Invites a person; an invitation that they had before is no longer valid. The password that they have stays
/// until then.
///
/// # Errors
/// As [`may_invite`].
pub async fn put(txn: &Txn<'_>, actor: &Actor, new: &NewInvitation) -> Result<Invited, LabError> {
    let person = may_invite(txn, actor, new.staff).await?;
    let sql = "INSERT INTO staff_invitation (staff_id, token_sha256, session_epoch, created_by, expires_at)
             VALUES ($1, $2, $3, $4, clock_timestamp() + $5 * interval '1 second')
             ON CONFLICT (staff_id) DO UPDATE SET token_sha256 = excluded.token_sha256,
                 session_epoch = excluded.session_epoch, created_by = excluded.created_by,
                 created_at = excluded.created_at, expires_at = excluded.expires_at
             RETURNING expires_at";
    let row = txn
        .query_one(
            sql,
            &[
                &new.staff.as_uuid(),
                &new.token_sha256.as_slice(),
                &new.epoch.as_uuid(),
                &actor.staff.as_uuid(),
                &new.valid_for.as_secs_f64(),
            ],
        )
        .await?;
    let expires_at: Timestamp = Reader::new("staff_invitation", &row).get("expires_at")?;
    let detail = serde_json::json!({ "expiresAt": expires_at });
    audit::write(txn, actor, "staff.invited", "staff", new.staff, Some(detail)).await?;
    Ok(Invited {
        staff: new.staff,
        email: Email::from_stored(person.email),
        expires_at,
    })
}

/// Takes a person's invitation back; `false` when there was none. The password that they have stays.
///
/// # Errors
/// [`LabError::NotFound`] when there is no such person.
pub async fn revoke(txn: &Txn<'_>, actor: &Actor, id: StaffId) -> Result<bool, LabError> {
    staff::get(txn, id).await?;
    let sql = "DELETE FROM staff_invitation WHERE staff_id = $1";
    let revoked = txn.execute(sql, &[&id.as_uuid()]).await? > 0;
    if revoked {
        audit::write(txn, actor, "staff.invitation_revoked", "staff", id, None).await?;
    }
    Ok(revoked)
}

/// Whom a token with this SHA-256 invites, if it can be used now under the laboratory's session epoch. The
/// person's row is locked until the transaction ends, so a token is used once.
///
/// # Errors
/// Only the database's own.
pub async fn person_by_digest(
    txn: &Txn<'_>,
    token_sha256: &[u8; 32],
    epoch: SessionEpoch,
) -> Result<Option<staff::Staff>, LabError> {
    let sql = "SELECT s.id FROM staff s JOIN staff_invitation i ON i.staff_id = s.id
             WHERE i.token_sha256 = $1 AND i.session_epoch = $2 AND i.expires_at > clock_timestamp() AND s.active
             FOR UPDATE OF s, i";
    let row = txn
        .query_opt(sql, &[&token_sha256.as_slice(), &epoch.as_uuid()])
        .await?;
    let Some(row) = row else { return Ok(None) };
    let id: uuid::Uuid = Reader::new("staff", &row).get("id")?;
    staff::get(txn, id.into()).await.map(Some)
}
