//! Invitations: a laboratory's administrator sets a password by a token that was shown once.
//!
//! Accepting writes into two databases, in the order that [`admins`](crate::admins) explains: the password is
//! stored in the laboratory, then stored and committed in the registry together with the end of the
//! invitation, then committed in the laboratory. When it breaks between the two commits, the very same
//! request finds the invitation used by this very password and the laboratory without it, and completes.
//! The token alone is worth nothing then: the password must be the one that was set, and must be
//! it still when it is written.

use std::{net::IpAddr, time::Duration};

use identity::{ChosenPassword, Lane, PasswordContext, Passwords, Principal, Requester};
use jiff::Timestamp;
use model::{ClientNetwork, Email, SessionEpoch, StaffId, TenantId};
use provisioner::{Invited, RequestedBy};
use registry::{
    Admin, Change, admin_by_id, admin_lock_in_txn, admin_set_password_in_txn, invitation_accept_in_txn,
    invitation_by_digest,
};
use resolver::TenantTransaction;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    extract::TransactionError,
    input::{self, Password},
    problem::{ApiResult, Kind, Problem},
    staff_invitations,
    state::AppState,
};

/// How invitations are made.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long one can be accepted.
    pub valid_for: Duration,
    /// What links begin with.
    pub public_url: Option<String>,
}

/// An invitation, shown once to the person who made it. It can be accepted until `expiresAt`, once, and a
/// newer one takes its place.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvitationView {
    /// Who is invited.
    #[schema(value_type = Uuid)]
    admin_id: StaffId,
    email: Email,
    /// What `POST /auth/invitations/accept` takes.
    token: String,
    /// The page that takes it, below the address of this service.
    #[schema(example = "/invitation#q83v…")]
    path: String,
    /// The whole link; absent unless `http.public_url` is set.
    link: Option<String>,
    expires_at: Timestamp,
}

impl InvitationView {
    fn of(options: &Options, invited: Invited) -> Self {
        Self {
            admin_id: invited.admin,
            email: invited.email,
            path: bootstrap::invitation_path(&invited.token),
            link: bootstrap::invitation_link(options.public_url.as_deref(), &invited.token),
            token: invited.token.expose_secret().to_owned(),
            expires_at: invited.expires_at,
        }
    }
}

/// Invites the first administrator of a laboratory that was asked for, if they have no password yet.
///
/// # Errors
/// 503 when the registry cannot be reached; the request can be sent again with its key.
pub async fn first(
    state: &AppState,
    tenant: TenantId,
    by: &RequestedBy,
) -> ApiResult<Option<InvitationView>> {
    let options = &state.invitations;
    let invited = state
        .provisioner
        .invite_first(tenant, options.valid_for, by)
        .await?;
    Ok(invited.map(|invited| InvitationView::of(options, invited)))
}

/// Invites an administrator again.
///
/// # Errors
/// 404 when there is none, 409 when they may not log in.
pub async fn renew(
    state: &AppState,
    tenant: TenantId,
    admin: StaffId,
    by: &RequestedBy,
) -> ApiResult<InvitationView> {
    let options = &state.invitations;
    let invited = state
        .provisioner
        .invite(tenant, admin, options.valid_for, by)
        .await?;
    Ok(InvitationView::of(options, invited))
}

/// From where a person accepts.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// The request's id, for the audits.
    pub request_id: Option<String>,
    /// The client's address.
    pub client_ip: Option<IpAddr>,
}

/// Who accepts, as far as the token says: for the audit.
#[derive(Debug, Default)]
pub struct Bearer {
    /// The laboratory.
    pub tenant: Option<TenantId>,
    /// Their address.
    pub email: Option<Email>,
}

/// Sets the password of whom the token invites, and uses the invitation up.
///
/// # Errors
/// 401 for a token that is unknown, used, replaced or has expired; 422 for a weak password; 429 after too
/// many attempts; the laboratory's own problem when it is not in service, and then the invitation stays as it
/// is.
pub async fn accept(
    state: &AppState,
    token: &SecretString,
    password: &Password,
    from: &Circumstances,
    bearer: &mut Bearer,
) -> ApiResult<Principal> {
    if let Some(tenant) = identity::invitation_tenant(token) {
        return staff_invitations::accept(state, tenant, token, password, from, bearer).await;
    }
    let token_sha256 = identity::invitation_digest(token);
    let client = from.client_ip.map(ClientNetwork::of);
    let Some(acceptor) = look_up(state, &token_sha256, bearer).await? else {
        state.attempts.guessed(client).await?;
        return Err(refused());
    };
    // Before any hashing: the laboratory says itself why it cannot be entered. Whoever waits for it may ask
    // often.
    let tenant = acceptor.admin.tenant;
    let snapshot = state.resolver.snapshot(tenant).await?;
    snapshot.admit(state.window())?;
    let context =
        PasswordContext::of(&acceptor.admin.email).and_laboratory(&snapshot.name, snapshot.slug.as_str());
    let chosen = input::chosen("password", password, &context)?;
    let key = hex::encode(token_sha256);
    let attempt = state.attempts.begin_invitation(&key, client).await?;
    let passwords = state.passwords.on_behalf_of(Requester {
        lane: Lane::Staff,
        client: state.attempts.client_key(client),
    });
    let entering = async {
        let entering = Entering {
            hash: acceptor.hash(&passwords, &chosen, password).await?,
            acceptor,
            token_sha256,
            tenant_epoch: snapshot.session_epoch,
            from,
        };
        entering.write(state).await
    };
    let entered = entering.await;
    match &entered {
        Ok(_) => attempt.succeeded(),
        Err(problem) if problem.kind().status().is_client_error() => attempt.failed(),
        Err(_) => drop(attempt),
    }
    entered
}

pub(crate) fn refused() -> Problem {
    Problem::new(Kind::InvitationInvalid)
}

/// Whom a token invites, and whether it was used already.
struct Acceptor {
    admin: Admin,
    used: bool,
}

async fn look_up(
    state: &AppState,
    token_sha256: &[u8; 32],
    bearer: &mut Bearer,
) -> ApiResult<Option<Acceptor>> {
    let client = state.registry_client().await?;
    let Some(invitation) = invitation_by_digest(&client, token_sha256).await? else {
        return Ok(None);
    };
    bearer.tenant = Some(invitation.tenant);
    let admin = admin_by_id(&client, invitation.tenant, invitation.admin).await?;
    bearer.email = admin.as_ref().map(|admin| admin.email.clone());
    Ok(admin
        .filter(|admin| !invitation.expired && admin.disabled_at.is_none())
        .map(|admin| Acceptor {
            admin,
            used: invitation.accepted_at.is_some(),
        }))
}

impl Acceptor {
    /// The hash that the laboratory is to store: a new one, or the one that an acceptance which was cut off
    /// has left in the registry.
    async fn hash(
        &self,
        passwords: &Passwords,
        chosen: &ChosenPassword,
        password: &Password,
    ) -> ApiResult<SecretString> {
        if !self.used {
            return Ok(passwords.hash(chosen).await?.into());
        }
        let stored = self.admin.password_hash.as_ref();
        let exposed = stored.map(ExposeSecret::expose_secret);
        let same = passwords.verify(password.secret(), exposed).await?;
        stored.filter(|_| same).cloned().ok_or_else(refused)
    }
}

/// A password on its way into both databases.
struct Entering<'a> {
    acceptor: Acceptor,
    hash: SecretString,
    token_sha256: [u8; 32],
    tenant_epoch: SessionEpoch,
    from: &'a Circumstances,
}

impl Entering<'_> {
    async fn write(&self, state: &AppState) -> ApiResult<Principal> {
        let mut client = state.resolver.checkout(self.acceptor.admin.tenant).await?;
        // Run again when the laboratory's schema had changed under it: nothing is in the registry then, since
        // the laboratory comes first.
        let both = async |txn: &TenantTransaction<'_>| -> Result<Principal, TransactionError> {
            let principal = self.in_laboratory(txn).await?;
            // Behind the laboratory's row: who changes the password meanwhile has passed both, or waits for
            // this one.
            if self.acceptor.used {
                self.require_still_open(state).await?;
            } else {
                self.in_registry(state).await?;
            }
            Ok(principal)
        };
        Ok(client.write(both).await?)
    }

    async fn in_laboratory(&self, txn: &TenantTransaction<'_>) -> ApiResult<Principal> {
        let Admin { id, tenant, .. } = self.acceptor.admin;
        let person = lab::staff::login_by_id(txn, id).await?;
        let person = person.filter(|person| person.active).ok_or_else(refused)?;
        // Nothing was cut off: it was simply used.
        if self.acceptor.used && person.password_hash.as_deref() == Some(self.hash.expose_secret()) {
            return Err(refused());
        }
        let actor = lab::Actor {
            staff: id,
            role: person.role,
            request_id: self.from.request_id.clone(),
            client_ip: self.from.client_ip,
        };
        let epoch = lab::staff::password_set(txn, &actor, id, self.hash.expose_secret()).await?;
        Ok(Principal::Staff {
            staff: id,
            tenant,
            role: person.role,
            epoch,
            tenant_epoch: self.tenant_epoch,
        })
    }

    /// Whether the registry has yet what the acceptance that was cut off has left there.
    async fn require_still_open(&self, state: &AppState) -> ApiResult<()> {
        let Admin { id, tenant, .. } = self.acceptor.admin;
        let still_open = state.registry.in_txn(async |txn| {
            let admin = admin_lock_in_txn(txn, tenant, id).await?;
            let same = admin.is_some_and(|admin| {
                let hash = admin.password_hash.as_ref().map(ExposeSecret::expose_secret);
                admin.disabled_at.is_none() && hash == Some(self.hash.expose_secret())
            });
            Ok(same && invitation_by_digest(txn, &self.token_sha256).await?.is_some())
        });
        if still_open.await? { Ok(()) } else { Err(refused()) }
    }

    async fn in_registry(&self, state: &AppState) -> ApiResult<()> {
        let Admin { id, tenant, .. } = self.acceptor.admin;
        let actor = registry::Actor::Staff(id);
        let change = Change {
            request_id: self.from.request_id.as_deref(),
            client_ip: self.from.client_ip,
            ..Change::by(&actor)
        };
        let accepted = state.registry.in_txn(async |txn| {
            // The administrator first, as the invitation does: the two never wait for each other.
            let admin = admin_lock_in_txn(txn, tenant, id).await?;
            let active = admin.is_some_and(|admin| admin.disabled_at.is_none());
            if !active || !invitation_accept_in_txn(txn, &self.token_sha256, &change).await? {
                return Ok(false);
            }
            admin_set_password_in_txn(txn, tenant, id, &self.hash, &change).await
        });
        if accepted.await? { Ok(()) } else { Err(refused()) }
    }
}
