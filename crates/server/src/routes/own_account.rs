//! What every person may do with their own account.

use actix_web::{HttpRequest, HttpResponse, post, web};
use identity::{PasswordContext, Principal};
use model::ClientNetwork;
use registry::{admin_by_id, operator_by_id, operator_change_password_in_txn};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;

use super::auth::{Session, session};
use crate::{
    admins,
    attempts::{Account, Audience},
    extract::{Body, Caller, IdempotencyKey, OperatorCaller, Tenant, client_ip},
    input::{self, NewPassword, Password},
    problem::{ApiResult, Kind, Problem},
    state::AppState,
};

/// A person's new password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnPasswordBody {
    /// The one that they log in with now.
    #[schema(value_type = String, format = Password)]
    current_password: Password,
    /// Not the current one.
    #[schema(value_type = NewPassword)]
    new_password: Password,
}

/// Changes one's own password. Every access token issued before ends; the answer has a new one.
#[utoipa::path(tag = "log-in", request_body = OwnPasswordBody, responses((status = 200, body = Session)))]
#[post("/me/password")]
pub(crate) async fn change_password(
    req: HttpRequest,
    caller: Caller,
    body: Body<OwnPasswordBody>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    input::check_length("newPassword", &body.value.new_password)?;
    let change = Change {
        state: &state,
        req: &req,
        body: &body.value,
    };
    let principal = match caller {
        Caller::Staff(tenant) => change.of_staff(tenant).await?,
        Caller::Operator(operator) => change.of_operator(operator).await?,
    };
    Ok(session(&state, &principal))
}

struct Change<'a> {
    state: &'a AppState,
    req: &'a HttpRequest,
    body: &'a OwnPasswordBody,
}

impl Change<'_> {
    async fn of_staff(&self, tenant: Tenant) -> ApiResult<Principal> {
        let state = self.state;
        let person = tenant.attend().await?;
        let id = person.id;
        let known = admin_by_id(&state.registry_client().await?, tenant.id(), id).await?;
        // Where log-in finds it.
        let stored = match &known {
            Some(admin) => admin.password_hash.clone(),
            None => person.password_hash.map(SecretString::from),
        };
        let snapshot = tenant.snapshot();
        let context =
            PasswordContext::of(&person.email).and_laboratory(&snapshot.name, snapshot.slug.as_str());
        let account = Account {
            audience: Audience::Lab,
            tenant: Some(tenant.id()),
            email: &person.email,
        };
        let hash = self.hash_of_new(&account, stored.as_ref(), &context).await?;
        // The token's session is looked at once more in there: who has changed or reset the password
        // meanwhile has ended it.
        let epoch = tenant
            .write_own(
                async |txn, actor| lab::staff::password_set(txn, actor, id, hash.expose_secret()).await,
                async || admins::set_password(state, tenant.id(), tenant.actor(), id, &hash).await,
            )
            .await?;
        Ok(Principal::Staff {
            staff: id,
            tenant: tenant.id(),
            role: person.role,
            epoch,
            tenant_epoch: snapshot.session_epoch,
        })
    }

    async fn of_operator(&self, caller: OperatorCaller) -> ApiResult<Principal> {
        let (state, id) = (self.state, caller.operator);
        let by = caller.requested_by(IdempotencyKey(None));
        let found = operator_by_id(&state.registry_client().await?, id).await?;
        let found = found.ok_or_else(|| Problem::new(Kind::TokenInvalid))?;
        let context = PasswordContext::of(&found.email);
        let account = Account {
            audience: Audience::Operator,
            tenant: None,
            email: &found.email,
        };
        let stored = Some(&found.password_hash);
        let hash = self.hash_of_new(&account, stored, &context).await?;
        let epoch = found.session_epoch;
        let changed = (state.registry)
            .in_txn(async |txn| operator_change_password_in_txn(txn, id, epoch, &hash, &by.change()).await)
            .await?;
        // It was changed or reset meanwhile, or the account was closed.
        let changed = changed.ok_or_else(|| Problem::new(Kind::TokenInvalid))?;
        Ok(Principal::Operator {
            operator: id,
            epoch: changed.session_epoch,
        })
    }

    /// Checks the current password, slowed down as a log-in is, and hashes the new one.
    async fn hash_of_new(
        &self,
        account: &Account<'_>,
        stored: Option<&SecretString>,
        context: &PasswordContext,
    ) -> ApiResult<SecretString> {
        let state = self.state;
        let (current, new) = (&self.body.current_password, &self.body.new_password);
        let client = client_ip(self.req).map(ClientNetwork::of);
        // The caller has a session here: only this client's own failures count.
        let attempt = state.attempts.begin(account, client, true).await?;
        let stored = stored.map(ExposeSecret::expose_secret);
        if !state.passwords.verify(current.secret(), stored).await? {
            attempt.failed();
            return Err(Problem::new(Kind::WrongPassword));
        }
        attempt.succeeded();
        let chosen = input::chosen("newPassword", new, context)?;
        if state.passwords.verify(new.secret(), stored).await? {
            let detail = "the new password is the current one; choose another";
            return Err(Problem::field(Kind::WeakPassword, "newPassword", detail));
        }
        Ok(state.passwords.hash(&chosen).await?.into())
    }
}
