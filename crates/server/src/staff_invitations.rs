//! Invitations of the people whom only their laboratory knows. Making one and using it are each one
//! transaction of that laboratory's database. The token names the laboratory, because nothing else says where
//! to look.

use identity::{Lane, PasswordContext, Principal, Requester};
use jiff::Timestamp;
use lab::{
    Action,
    invitations::{Invited, NewInvitation},
};
use model::{ClientNetwork, Email, StaffId, TenantId};
use provisioner::RequestedBy;
use registry::admin_by_id;
use resolver::TenantTransaction;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    extract::{Tenant, TransactionError},
    input::{self, Password},
    invitations::{Bearer, Circumstances, Options, refused},
    problem::{ApiResult, Problem},
    state::AppState,
};

/// An invitation of a person who works here, shown once to the person who made it. It can be used until
/// `expiresAt`, once, and a newer one takes its place.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StaffInvitationView {
    /// Who is invited.
    #[schema(value_type = Uuid)]
    staff_id: StaffId,
    email: Email,
    /// What `POST /auth/invitations/accept` takes.
    token: String,
    /// The page that takes it, below the address of this service.
    path: String,
    /// The whole link; absent unless `http.public_url` is set.
    link: Option<String>,
    expires_at: Timestamp,
}

impl StaffInvitationView {
    fn of(
        options: &Options,
        staff: StaffId,
        email: Email,
        token: &SecretString,
        expires_at: Timestamp,
    ) -> Self {
        Self {
            staff_id: staff,
            email,
            path: bootstrap::invitation_path(token),
            link: bootstrap::invitation_link(options.public_url.as_deref(), token),
            token: token.expose_secret().to_owned(),
            expires_at,
        }
    }
}

/// Invites a person to set a password, the first one or another: the one they have stays valid until then.
///
/// # Errors
/// 403, 404; 409 when they may not log in or are who asks.
pub async fn invite(state: &AppState, tenant: &Tenant, staff: StaffId) -> ApiResult<StaffInvitationView> {
    tenant.allow(Action::StaffChange)?;
    let options = &state.invitations;
    let known = admin_by_id(&state.registry_client().await?, tenant.id(), staff).await?;
    if known.is_some() {
        // Their password is in the registry as well: their invitation is one that covers both.
        tenant
            .write(Action::StaffChange, async |txn, actor| {
                lab::invitations::may_invite(txn, actor, staff).await
            })
            .await?;
        let by = requested_by(tenant);
        let valid_for = options.valid_for;
        let invited = state
            .provisioner
            .invite(tenant.id(), staff, valid_for, &by)
            .await?;
        return Ok(StaffInvitationView::of(
            options,
            staff,
            invited.email,
            &invited.token,
            invited.expires_at,
        ));
    }
    let token = identity::generate_staff_invitation_token(tenant.id());
    let new = NewInvitation {
        staff,
        token_sha256: identity::invitation_digest(&token),
        epoch: tenant.snapshot().session_epoch,
        valid_for: options.valid_for,
    };
    let Invited {
        email, expires_at, ..
    } = tenant
        .write(Action::StaffChange, async |txn, actor| {
            lab::invitations::put(txn, actor, &new).await
        })
        .await?;
    Ok(StaffInvitationView::of(options, staff, email, &token, expires_at))
}

fn requested_by(tenant: &Tenant) -> RequestedBy {
    let actor = tenant.actor();
    RequestedBy {
        request_id: actor.request_id.clone(),
        client_ip: actor.client_ip,
        ..RequestedBy::actor(registry::Actor::Staff(actor.staff))
    }
}

/// Takes a person's invitation back; also when there is none.
///
/// # Errors
/// 403, 404.
pub async fn revoke(state: &AppState, tenant: &Tenant, staff: StaffId) -> ApiResult<()> {
    tenant
        .write(Action::StaffChange, async |txn, actor| {
            lab::invitations::revoke(txn, actor, staff).await
        })
        .await?;
    let known = admin_by_id(&state.registry_client().await?, tenant.id(), staff).await?;
    if known.is_some() {
        let by = requested_by(tenant);
        let revoked = state
            .provisioner
            .revoke_invitation(tenant.id(), staff, &by)
            .await?;
        tracing::debug!(revoked, "an administrator's invitation was taken back");
    }
    Ok(())
}

/// Sets the password of the person whom the token invites, which uses it up.
///
/// # Errors
/// As `invitations::accept`.
pub async fn accept(
    state: &AppState,
    tenant: TenantId,
    token: &SecretString,
    password: &Password,
    from: &Circumstances,
    bearer: &mut Bearer,
) -> ApiResult<Principal> {
    let client = from.client_ip.map(ClientNetwork::of);
    let snapshot = match state.resolver.snapshot(tenant).await {
        Err(resolver::ResolveError::UnknownTenant { .. }) => {
            state.attempts.guessed(client).await?;
            return Err(refused());
        }
        found => found?,
    };
    let digest = identity::invitation_digest(token);
    if let Err(closed) = snapshot.admit(state.window()) {
        // Whether the token is good cannot be looked up now, so asking is counted as guessing.
        state.attempts.guessed(client).await?;
        return Err(closed.into());
    }
    let epoch = snapshot.session_epoch;
    let person = {
        let mut client = state.resolver.checkout(tenant).await?;
        let find = async |txn: &TenantTransaction<'_>| {
            Ok::<_, TransactionError>(lab::invitations::person_by_digest(txn, &digest, epoch).await?)
        };
        // Not read-only: it locks the rows.
        client.write(find).await?
    };
    let Some(person) = person else {
        state.attempts.guessed(client).await?;
        return Err(refused());
    };
    bearer.tenant = Some(tenant);
    let email = Email::from_stored(person.email);
    let context = PasswordContext::of(&email).and_laboratory(&snapshot.name, snapshot.slug.as_str());
    bearer.email = Some(email);
    let chosen = input::chosen("password", password, &context)?;
    let key = hex::encode(digest);
    let attempt = state.attempts.begin_invitation(&key, client).await?;
    let passwords = state.passwords.on_behalf_of(Requester {
        lane: Lane::Staff,
        client: state.attempts.client_key(client),
    });
    // On no connection: hashing waits for its turn.
    let hash: SecretString = passwords.hash(&chosen).await?.into();
    let mut client = state.resolver.checkout(tenant).await?;
    let set = async |txn: &TenantTransaction<'_>| -> Result<Principal, TransactionError> {
        // Used, taken back or replaced meanwhile: then it is good for nothing.
        let person = lab::invitations::person_by_digest(txn, &digest, epoch).await?;
        let person = person.ok_or_else(refused)?;
        let actor = lab::Actor {
            staff: person.id,
            role: person.role,
            request_id: from.request_id.clone(),
            client_ip: from.client_ip,
        };
        let set = lab::staff::password_set(txn, &actor, person.id, hash.expose_secret()).await?;
        Ok(Principal::Staff {
            staff: person.id,
            tenant,
            role: person.role,
            epoch: set,
            tenant_epoch: epoch,
        })
    };
    match client.write(set).await.map_err(Problem::from) {
        Ok(principal) => {
            attempt.succeeded();
            Ok(principal)
        }
        Err(problem) => {
            if problem.kind().status().is_client_error() {
                attempt.failed();
            }
            Err(problem)
        }
    }
}
