//! The laboratory of a request: named by the token and by nothing else.
//!
//! Invariant: a handler that holds a [`Tenant`] can work on that laboratory's database and on no other. The
//! resolver stays inside; there is no function that takes an id.

use std::sync::Arc;

use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, dev::Payload, web::Data};
use futures_util::{
    FutureExt,
    future::{LocalBoxFuture, join},
};
use identity::Principal;
use lab::{
    Action, Actor, LabError,
    idempotency::{self, Begin, StoredAnswer},
    staff::StaffLogin,
};
use model::{SessionEpoch, TenantId};
use resolver::{ResolveError, Resolver, Snapshot, TenantTransaction};

use super::{
    IdempotencyKey,
    caller::{client_ip, principal, request_id},
};
use crate::{
    observe::Notes,
    problem::{ApiResult, Kind, Problem},
    response::{self, Created},
    state::AppState,
};

/// How seldom a keyed request also removes answers that are older than a day. One removes up to a thousand,
/// so the table stays bounded by a day's requests.
const SWEEP_ONE_IN: u32 = 64;

/// How often a transaction that lost a deadlock is run again.
const RETRIES_MAX: u32 = 2;

/// A person of a laboratory that is in service, and the way to its data.
pub struct Tenant {
    actor: Actor,
    /// The person's session epoch, by the token.
    epoch: SessionEpoch,
    snapshot: Arc<Snapshot>,
    resolver: Resolver,
}

impl FromRequest for Tenant {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, ApiResult<Self>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let req = req.clone();
        async move { Self::of(&req).await }.boxed_local()
    }
}

impl Tenant {
    pub(super) async fn of(req: &HttpRequest) -> ApiResult<Self> {
        let Principal::Staff {
            staff,
            tenant,
            role,
            epoch,
            tenant_epoch,
        } = principal(req)?
        else {
            return Err(Problem::new(Kind::WrongAudience));
        };
        let state = req
            .app_data::<Data<AppState>>()
            .expect("the application is built with its state");
        let snapshot = state.resolver.snapshot(tenant).await?;
        if let Some(notes) = req.extensions().get::<Notes>() {
            notes.tenant(tenant, snapshot.slug.as_str());
        }
        snapshot.admit(state.resolver.window())?;
        if snapshot.session_epoch != tenant_epoch {
            return Err(Problem::new(Kind::TokenInvalid));
        }
        let actor = Actor {
            staff,
            role,
            request_id: request_id(req),
            client_ip: client_ip(req),
        };
        Ok(Self {
            actor,
            epoch,
            snapshot,
            resolver: state.resolver.clone(),
        })
    }

    /// Which laboratory it is.
    #[must_use]
    pub fn id(&self) -> TenantId {
        self.snapshot.tenant
    }

    /// The laboratory as the registry describes it.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Who asks.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Refuses what the person's role may not do.
    ///
    /// # Errors
    /// 403.
    pub fn allow(&self, action: Action) -> ApiResult<()> {
        if lab::may(self.actor.role, action) {
            return Ok(());
        }
        Err(Problem::with(
            Kind::Forbidden,
            format!("A {} may not do this.", self.actor.role),
        ))
    }

    /// Runs `work` in a transaction that cannot write; again from its beginning when the schema had changed
    /// under it.
    ///
    /// Whether the person may still work is asked in the same breath, which saves a round trip: what `work`
    /// has read is given away only when the answer is yes.
    ///
    /// # Errors
    /// 403, whatever keeps the laboratory from being served, and what `work` refuses.
    pub async fn read<T>(
        &self,
        action: Action,
        work: impl AsyncFn(&TenantTransaction<'_>, &Actor) -> Result<T, LabError>,
    ) -> ApiResult<T> {
        self.allow(action)?;
        let mut client = self.resolver.checkout(self.id()).await?;
        let attended = async |txn: &TenantTransaction<'_>| {
            // In this order: a statement of `work` that fails ends the transaction for all that are sent
            // after it.
            let (active, outcome) = join(self.require_active_staff(txn), work(txn, &self.actor)).await;
            active?;
            Ok(outcome?)
        };
        client.read(attended).await
    }

    /// The person, if they may work here now.
    ///
    /// # Errors
    /// 401 when they may not, whatever keeps the laboratory from being served.
    pub async fn attend(&self) -> ApiResult<StaffLogin> {
        let mut client = self.resolver.checkout(self.id()).await?;
        client
            .read(async |txn: &TenantTransaction<'_>| self.require_active_staff(txn).await)
            .await
    }

    /// Runs `work` in one snapshot of the laboratory's data that it may read for as long as it takes: it
    /// holds one of the laboratory's connections meanwhile.
    ///
    /// # Errors
    /// 403, whatever keeps the laboratory from being served, and what `work` fails with.
    pub async fn read_snapshot<T>(
        &self,
        action: Action,
        work: impl AsyncFnOnce(&TenantTransaction<'_>) -> ApiResult<T>,
    ) -> ApiResult<T> {
        self.allow(action)?;
        let mut client = self.resolver.checkout(self.id()).await?;
        let first = async |txn: &TenantTransaction<'_>| {
            export::snapshot(txn).await?;
            self.require_active_staff(txn).await.map(drop)
        };
        client.read_once(first, work).await
    }

    /// Runs `work` in a transaction and commits it, or rolls it back when `work` refuses. When it was the
    /// loser of a deadlock, or the schema had changed under it, it is run again from its beginning.
    ///
    /// # Errors
    /// 403, whatever keeps the laboratory from being served, and what `work` refuses.
    pub async fn write<T>(
        &self,
        action: Action,
        work: impl AsyncFn(&TenantTransaction<'_>, &Actor) -> Result<T, LabError>,
    ) -> ApiResult<T> {
        self.write_with(action, work, async || Ok(())).await
    }

    /// As [`Tenant::write`], and between the work and its commit does something `outside` the laboratory's
    /// database; when that fails the work is rolled back. Both may be run several times.
    ///
    /// # Errors
    /// As [`Tenant::write`], and what `outside` refuses.
    pub async fn write_with<T>(
        &self,
        action: Action,
        work: impl AsyncFn(&TenantTransaction<'_>, &Actor) -> Result<T, LabError>,
        outside: impl AsyncFn() -> ApiResult<()>,
    ) -> ApiResult<T> {
        self.allow(action)?;
        self.write_own(work, outside).await
    }

    /// As [`Tenant::write_with`], for what concerns the calling person alone: every role may do that.
    ///
    /// # Errors
    /// As [`Tenant::write_with`], but never 403.
    pub async fn write_own<T>(
        &self,
        work: impl AsyncFn(&TenantTransaction<'_>, &Actor) -> Result<T, LabError>,
        outside: impl AsyncFn() -> ApiResult<()>,
    ) -> ApiResult<T> {
        let mut retries = 0;
        loop {
            match self.write_once(&work, &outside).await {
                Err(TransactionError::Lab(error)) if retries < RETRIES_MAX && error.may_pass_on_retry() => {
                    retries += 1;
                    tracing::info!(%error, retries, "a transaction lost a deadlock and is run again");
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    async fn write_once<T>(
        &self,
        work: &impl AsyncFn(&TenantTransaction<'_>, &Actor) -> Result<T, LabError>,
        outside: &impl AsyncFn() -> ApiResult<()>,
    ) -> Result<T, TransactionError> {
        let mut client = self.resolver.checkout(self.id()).await?;
        let attended = async |txn: &TenantTransaction<'_>| {
            let done = self.attended(txn, work).await?;
            outside().await?;
            Ok(done)
        };
        client.write(attended).await
    }

    /// Runs `work`, which makes a record, and commits it together with its answer: the same request under the
    /// same key gets that answer again and makes nothing.
    ///
    /// # Errors
    /// As [`Tenant::write`]; 422 when the key was used for another request, 409 while the first one is under
    /// way.
    pub async fn create(
        &self,
        action: Action,
        key: &IdempotencyKey,
        route: &str,
        sent: &[u8],
        work: impl AsyncFn(&TenantTransaction<'_>, &Actor) -> Result<Created, LabError>,
    ) -> ApiResult<HttpResponse> {
        response::stored(self.create_stored(action, key, route, sent, work).await?)
    }

    /// As [`Tenant::create`], but gives the answer as it is kept, for what is to be sent once and kept
    /// nowhere to be added.
    ///
    /// # Errors
    /// As [`Tenant::create`].
    pub async fn create_stored(
        &self,
        action: Action,
        key: &IdempotencyKey,
        route: &str,
        sent: &[u8],
        work: impl AsyncFn(&TenantTransaction<'_>, &Actor) -> Result<Created, LabError>,
    ) -> ApiResult<StoredAnswer> {
        let Some(key) = &key.0 else {
            return Ok(self.write(action, work).await?.stored());
        };
        let once = async |txn: &TenantTransaction<'_>, actor: &Actor| {
            let ticket = match idempotency::begin(txn, actor, route, key, sent).await? {
                Begin::Replay(stored) => return Ok(stored),
                Begin::First(ticket) => ticket,
            };
            let stored = work(txn, actor).await?.stored();
            idempotency::finish(txn, actor, ticket, &stored).await?;
            if rand::random_ratio(1, SWEEP_ONE_IN) {
                idempotency::sweep(txn).await?;
            }
            Ok(stored)
        };
        self.write(action, once).await
    }

    /// Does the work if the token's session still is one of the person's.
    async fn attended<T>(
        &self,
        txn: &TenantTransaction<'_>,
        work: impl AsyncFn(&TenantTransaction<'_>, &Actor) -> Result<T, LabError>,
    ) -> Result<T, TransactionError> {
        self.require_active_staff(txn).await?;
        Ok(work(txn, &self.actor).await?)
    }

    /// Refuses a token that was ended, and that of a person who is no longer on the staff or no longer in its
    /// role: a token may outlive a person's employment.
    async fn require_active_staff(&self, txn: &TenantTransaction<'_>) -> ApiResult<StaffLogin> {
        match lab::staff::login_by_id(txn, self.actor.staff).await? {
            Some(person)
                if person.active && person.role == self.actor.role && person.session_epoch == self.epoch =>
            {
                Ok(person)
            }
            _ => Err(Problem::new(Kind::TokenInvalid)),
        }
    }
}

/// Why a transaction was not committed.
pub(crate) enum TransactionError {
    Lab(LabError),
    Told(Problem),
}

impl From<LabError> for TransactionError {
    fn from(error: LabError) -> Self {
        Self::Lab(error)
    }
}

impl From<tokio_postgres::Error> for TransactionError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Lab(error.into())
    }
}

impl From<Problem> for TransactionError {
    fn from(problem: Problem) -> Self {
        Self::Told(problem)
    }
}

impl From<ResolveError> for TransactionError {
    fn from(error: ResolveError) -> Self {
        Self::Told(error.into())
    }
}

impl From<TransactionError> for Problem {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Lab(error) => error.into(),
            TransactionError::Told(problem) => problem,
        }
    }
}
